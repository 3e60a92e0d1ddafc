import numpy as np
import pytest

from xacle_stack.errors import FeatureError
from xacle_stack.features import PairEmbeddings, VectorBuilder


def embeddings(rng, n_pairs: int = 5, n_dims: int = 3) -> PairEmbeddings:
    spaces = {name: tuple(rng.normal(size=(2, n_pairs, n_dims))) for name in ("one", "two", "view")}
    return PairEmbeddings(spaces)


def test_blocks_are_the_vectors(rng) -> None:
    pairs = embeddings(rng)
    table = VectorBuilder(["two", "one"]).fit(pairs).transform(pairs)
    assert (table.shape, table.values.dtype) == ((5, 12), np.float32)
    assert list(table.blocks) == ["two/audio", "two/text", "one/audio", "one/text"]
    assert table.families == {s: (f"{s}/audio", f"{s}/text") for s in ("two", "one")}
    for space in ("one", "two"):
        audio, text = (np.float32(side(space)) for side in (pairs.audio, pairs.text))
        np.testing.assert_array_equal(table.block(f"{space}/audio"), audio)
        np.testing.assert_array_equal(table.block(f"{space}/text"), text)


def test_views_are_for_training_only(rng) -> None:
    pairs = embeddings(rng)
    builder = VectorBuilder(["one"], {"one": ["view"]})
    trained, new = builder.fit_transform(pairs), builder.transform(pairs)
    assert list(trained.blocks) == ["one/audio", "one/text", "one/audio:view-1"]
    assert list(new.blocks) == ["one/audio", "one/text"]
    view = np.float32(pairs.audio("view"))
    np.testing.assert_array_equal(trained.block("one/audio:view-1"), view)
    np.testing.assert_array_equal(trained.values[:, :6], new.values)


def test_bad_spaces(rng) -> None:
    pairs = embeddings(rng)
    with pytest.raises(FeatureError, match=r"spaces .*'one'.*spaces=\['mini-mel'\]"):
        VectorBuilder("one").fit(pairs)
    with pytest.raises(FeatureError, match=r"each encoder once, .* repeats \['one'\]"):
        VectorBuilder(["one", "two", "one"]).fit(pairs)
    fitted = VectorBuilder(["one"]).fit(pairs)
    with pytest.raises(FeatureError, match="vectors of 4 dimensions, 3 when fitted"):
        fitted.transform(embeddings(rng, n_dims=4))
    broken = PairEmbeddings({"one": (np.full((2, 3), np.inf), np.ones((2, 3)))}, None, ["a", "b"])
    with pytest.raises(FeatureError, match=r"vectors of 2 pairs .*finite.*'a'"):
        fitted.transform(broken)
