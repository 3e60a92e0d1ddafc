import numpy as np
import pytest

from xacle_stack.errors import FeatureError
from xacle_stack.features import PairSequences, SequenceBuilder


@pytest.mark.parametrize(
    ("frames", "n_captions", "message"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 4))], 2, "n_dims"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], 2, "clip 1 .*empty"),
        ([np.full((2, 3), np.nan)], 1, "clip 0 .*finite"),
        ([np.zeros((2, 3))], 2, "1 sequences but 2 captions"),
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


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ([np.zeros((2, 3)), np.zeros((0, 3))], "caption 1 .*empty"),
        ([np.zeros((2, 3)), np.zeros(3)], r"a caption.*\(2, 3\)"),
        ([np.zeros((2, 3))], "2 sequences but 1 captions"),
        (np.zeros((2, 3, 4)), r"captions of shape \(2, 3, 4\)"),
    ],
)
def test_bad_sequences_of_captions(captions, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        PairSequences([np.zeros((2, 3))] * 2, captions)


class NotingSource:
    """Embeddings that keep the names which they are asked for."""

    def audio_sequences(self, encoder: str, output: str):
        self.asked = encoder, output
        return [np.zeros((2, 3))]

    def text(self, encoder: str):
        return np.zeros((1, 4))

    def text_sequences(self, encoder: str, output: str):
        self.asked = encoder, output
        return [np.zeros((3, 5))]


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
    columns = SequenceBuilder(frames, "captions:tokens").fit(source)
    assert (source.asked, columns.n_dims_) == (("captions", "tokens"), (3, 5))


@pytest.mark.parametrize(
    "text", [np.arange(3.0)[:, np.newaxis], [np.full((1, 1), n) for n in range(3)]]
)
def test_sequences_of_some_pairs_keep_frames_and_captions_together(text) -> None:
    frames = [np.full((length, 2), length) for length in (1, 2, 3)]
    sequences = PairSequences(frames, text)
    for rows, expected in (
        ([2, 0], [2, 0]),
        (slice(1, None), [1, 2]),
        ([True, False, True], [0, 2]),
    ):
        part = sequences[rows]
        assert (len(part), part.shape) == (2, (2, 3))
        assert [len(frame) - 1 for frame, _ in part] == expected
        assert [caption.item() for _, caption in part] == expected
