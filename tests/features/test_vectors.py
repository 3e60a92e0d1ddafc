import numpy as np
import pytest

from xacle_stack.errors import FeatureError
from xacle_stack.features import PairEmbeddings, PairSequences, SequenceBuilder, VectorBuilder


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


@pytest.mark.parametrize(
    ("frames", "n_captions", "message"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 4))], 2, "n_dims"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], 2, "clip 1 .*empty"),
        ([np.full((2, 3), np.nan)], 1, "clip 0 .*finite"),
        ([np.zeros((2, 3))], 2, r"1 sequences.*\(2, 2\)"),
        ([np.zeros(3)], 1, "one sequence"),
        ((np.zeros((2, 3)),), 1, r"got tuple.* list\(frames\)"),
        (np.zeros((1, 2, 3)), 1, "got ndarray"),
    ],
)
def test_bad_sequences(frames, n_captions: int, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        PairSequences(frames, np.zeros((n_captions, 2)))
    with pytest.raises(FeatureError, match="captions.* finite"):
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
    columns = SequenceBuilder(frames, "captions").fit(source)
    assert source.asked == asked
    assert columns.n_dims_ == (3, 4)


def test_sequences_of_some_pairs_keep_frames_and_captions_together() -> None:
    frames = [np.full((length, 2), length) for length in (1, 2, 3)]
    sequences = PairSequences(frames, np.arange(3.0)[:, np.newaxis])
    for rows, expected in (
        ([2, 0], [2, 0]),
        (slice(1, None), [1, 2]),
        ([True, False, True], [0, 2]),
    ):
        part = sequences[rows]
        assert (len(part), part.shape) == (2, (2, 3))
        assert [len(frame) - 1 for frame, _ in part] == expected
        assert part.text.ravel().tolist() == expected
