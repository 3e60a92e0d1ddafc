import numpy as np
import pytest
from support import random_embeddings

from xacle_stack.errors import FeatureError, UnknownNameError
from xacle_stack.features import FeatureBuilder, PairEmbeddings


def test_parts_of_embeddings_are_their_rows() -> None:
    source = random_embeddings(0)
    for rows in (slice(4, 9), [3, 3, 39], np.array([-1]), slice(0, 0), []):
        part = source.take(rows)
        assert part.pair_ids == tuple(
            np.array(source.pair_ids)[rows].tolist() if len(part.pair_ids) else []
        )
        for name in ("one", "two"):
            if len(part.pair_ids):
                np.testing.assert_array_equal(part.audio(name), source.audio(name)[rows])
                np.testing.assert_array_equal(part.text(name), source.text(name)[rows])
            assert part.shape_of(name, "text") == part.text(name).shape
    with pytest.raises(IndexError):
        source.take([40])


def test_arrays_of_different_lengths_are_told() -> None:
    a = np.ones((4, 3))
    with pytest.raises(FeatureError, match="one row a pair.*4.*3"):
        PairEmbeddings({"one": (a, a[:3])})
    with pytest.raises(FeatureError, match="one row a pair.*4.*1"):
        PairEmbeddings({"one": (a, a)}, pair_ids=["x"])


def test_spaces_and_auxiliaries_that_are_mixed_up_are_told() -> None:
    a = np.ones((4, 3))
    of_clips = "Vectors of clips alone go into auxiliary, as 'beats:embedding'"
    for given, shape in (
        (a, r"ndarray of shape \(4, 3\)"),
        (a[:2], r"ndarray of shape \(2, 3\)"),
        ((a,), r"tuple of shape \[\(4, 3\)\]"),
        ((a, a, a), "tuple of shape"),
        ((a, a[0]), r"tuple of shape \[\(4, 3\), \(3,\)\]"),
    ):
        with pytest.raises(FeatureError, match=rf"space 'beats': .* got a {shape}.*\. {of_clips}"):
            PairEmbeddings({"beats": given})
    with pytest.raises(
        FeatureError, match="auxiliary 'beats': .*'beats:embedding'.*'beats:logits'"
    ):
        PairEmbeddings({"one": (a, a)}, {"beats": a})
    with pytest.raises(FeatureError, match="'one:embedding': .* space 'one'"):
        PairEmbeddings({"one": (a, a)}, {"one:embedding": a})
    # What is called by its encoder alone is its embedding.
    rng = np.random.default_rng(0)
    one, beats = tuple(rng.normal(size=(2, 9, 2))), rng.normal(size=(9, 3)).astype(np.float32)
    source = PairEmbeddings({"one": one}, {"beats:embedding": beats})
    for name in ("beats", "beats:embedding"):
        table = FeatureBuilder(["one"], [name], n_components=1).fit_transform(source)
        np.testing.assert_array_equal(table.family("one")[:, -3:], beats)
    with pytest.raises(UnknownNameError, match=r"'tags:embedding'.*without an output"):
        FeatureBuilder(["one"], ["tags"]).fit(source)
    two_sides = PairEmbeddings({"one": np.stack(one)})  # one array of both
    np.testing.assert_array_equal(two_sides.text("one"), one[1])


def test_embeddings_are_indexed_by_rows(rng) -> None:
    source = random_embeddings(0)
    assert (len(source), source.shape) == (40, (40,))
    for rows in ([3, 1], slice(5, 9), np.arange(40) % 7 == 0):
        part = source[rows]
        assert part.pair_ids == tuple(np.array(source.pair_ids)[rows])
        np.testing.assert_array_equal(part.text("two"), source.text("two")[rows])
    with pytest.raises(FeatureError, match=r"got 3\b"):
        source[3]
