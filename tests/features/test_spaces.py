import numpy as np
import pytest

from xacle_stack.errors import FeatureError
from xacle_stack.features import PairEmbeddings, PairSequences, SequenceColumns, SpaceColumns


def embeddings(rng, n_pairs: int = 5, n_dims: int = 3) -> PairEmbeddings:
    spaces = {name: tuple(rng.normal(size=(2, n_pairs, n_dims))) for name in ("one", "two", "view")}
    return PairEmbeddings(spaces)


def test_columns_are_the_vectors(rng) -> None:
    pairs = embeddings(rng)
    columns = SpaceColumns(["two", "one"]).fit(pairs)
    values = columns.transform(pairs)
    assert (values.shape, values.dtype) == ((5, 12), np.float32)
    for space, (audio, text) in columns.slices_.items():
        np.testing.assert_array_equal(values[:, audio], pairs.audio(space).astype(np.float32))
        np.testing.assert_array_equal(values[:, text], pairs.text(space).astype(np.float32))


def test_views_are_for_training_only(rng) -> None:
    pairs = embeddings(rng)
    columns = SpaceColumns(["one"], {"one": ["view"]})
    trained, new = columns.fit_transform(pairs), columns.transform(pairs)
    (view,) = columns.view_slices_["one"]
    np.testing.assert_array_equal(trained[:, view], pairs.audio("view").astype(np.float32))
    np.testing.assert_array_equal(new[:, view], pairs.audio("one").astype(np.float32))
    np.testing.assert_array_equal(trained[:, :6], new[:, :6])


def test_bad_spaces(rng) -> None:
    pairs = embeddings(rng)
    with pytest.raises(FeatureError, match="spaces must be a list of encoder names, got 'one'"):
        SpaceColumns("one").fit(pairs)
    with pytest.raises(FeatureError, match=r"each encoder once, .* repeats \['one'\]"):
        SpaceColumns(["one", "two", "one"]).fit(pairs)
    fitted = SpaceColumns(["one"]).fit(pairs)
    with pytest.raises(FeatureError, match="vectors of 4 dimensions, 3 when fitted"):
        fitted.transform(embeddings(rng, n_dims=4))
    broken = PairEmbeddings({"one": (np.full((2, 3), np.inf), np.ones((2, 3)))}, None, ["a", "b"])
    with pytest.raises(FeatureError, match="vectors of 2 pairs are not finite, the first is 'a'"):
        fitted.transform(broken)


@pytest.mark.parametrize(
    ("frames", "n_captions", "message"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 4))], 2, "n_dims the same for all"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], 2, "sequence of clip 1 is empty or not finite"),
        ([np.full((2, 3), np.nan)], 1, "sequence of clip 0 is empty or not finite"),
        ([np.zeros((2, 3))], 2, "1 sequences but captions of shape"),
        ([np.zeros(3)], 1, "one sequence of shape"),
        ((np.zeros((2, 3)),), 1, r"expected a list of arrays .*, got tuple. Write list\(frames\)"),
        (np.zeros((1, 2, 3)), 1, "expected a list of arrays .*, got ndarray"),
    ],
)
def test_bad_sequences(frames, n_captions: int, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        PairSequences(frames, np.zeros((n_captions, 2)))
    with pytest.raises(FeatureError, match="captions' vectors are not all finite"):
        PairSequences([np.zeros((2, 3))], [[np.nan]])


class NotingSource:
    """Embeddings that keep the names which they are asked for."""

    def audio_sequences(self, encoder: str, output: str):
        self.asked = encoder, output
        return [np.zeros((2, 3))]

    def text(self, encoder: str):
        return np.zeros((1, 4))


@pytest.mark.parametrize(
    ("frames", "asked"),
    [
        ("byol-a:frames", ("byol-a", "frames")),
        ("mine.py:Encoder:patches", ("mine.py:Encoder", "patches")),
        ("byol-a", ("byol-a", "frames")),
    ],
)
def test_the_output_follows_the_last_colon(frames: str, asked: tuple[str, str]) -> None:
    source = NotingSource()
    columns = SequenceColumns(frames, "captions").fit(source)
    assert source.asked == asked
    assert columns.n_dims_ == (3, 4)
