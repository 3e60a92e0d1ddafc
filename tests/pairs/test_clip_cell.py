from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from support import hf_dataset

from xacle_stack.audio import Clip, SampleSource, read_clip
from xacle_stack.errors import AudioError, PairsError
from xacle_stack.pairs import read_pairs

RATE = 8000


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(0).normal(scale=0.1, size=(800, 2))
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    return path


def decoder(samples: object, rate: int = RATE) -> Any:
    """Return an object like torchcodec's AudioDecoder."""
    decoded = SimpleNamespace(data=samples, sample_rate=rate)
    return SimpleNamespace(get_all_samples=lambda: decoded)


CELLS = {
    "path": lambda path, clip: str(path),
    "Path": lambda path, clip: path,
    "dict with a path": lambda path, clip: {"bytes": None, "path": str(path)},
    "dict with bytes": lambda path, clip: {"bytes": path.read_bytes(), "path": "other/else.wav"},
    "bytes": lambda path, clip: path.read_bytes(),
    "dict with an array": lambda path, clip: {
        "array": clip.samples.T,
        "sampling_rate": RATE,
        "path": None,
    },
    "dict with a list": lambda path, clip: {
        "array": clip.samples.tolist(),
        "sampling_rate": np.int64(RATE),
    },
    "array": lambda path, clip: clip.samples,
    "decoder": lambda path, clip: decoder(clip.samples.T),
    "source": lambda path, clip: SampleSource(clip.samples, RATE),
}


@pytest.mark.parametrize("kind", CELLS)
def test_every_form_of_a_sound_is_the_same_clip(wav: Path, kind: str) -> None:
    expected = read_clip(wav)
    row = {"audio": CELLS[kind](wav, expected), "text": "noise"}
    (source,) = read_pairs([row], sample_rate_hz=RATE).audio
    assert read_clip(source).content_key == expected.content_key


def test_a_tensor_is_a_sound() -> None:
    torch = pytest.importorskip("torch")
    rows = [{"audio": torch.full((1, 100), 0.5), "text": "a", "sampling_rate": RATE}]
    clip = read_clip(read_pairs(rows).audio[0])
    assert (clip.samples.shape, clip.sample_rate_hz, clip.samples[0, 0]) == ((100, 1), RATE, 0.5)


def test_each_row_may_have_its_rate() -> None:
    rows = [
        {"audio": np.zeros(100), "text": "a", "sampling_rate": 16000.0},
        {"audio": np.zeros(100), "text": "b", "sampling_rate": None},
        {"audio": {"array": np.zeros(9), "sampling_rate": 44100}, "text": "c", "sampling_rate": 1},
    ]
    pairs = read_pairs(rows, sample_rate_hz=RATE)
    assert [read_clip(clip).sample_rate_hz for clip in pairs.audio] == [16000, RATE, 44100]


def test_all_sounds_that_cannot_be_used_are_told_together() -> None:
    rows = [
        {"audio": np.zeros(100), "text": "a"},
        {"audio": {"array": np.zeros(100)}, "text": "a"},
        {"audio": {"array": [], "sampling_rate": RATE}, "text": "a"},
        {"audio": {"array": [float("nan")], "sampling_rate": RATE}, "text": "a"},
        {"audio": {"array": [0.0], "sampling_rate": "fast"}, "text": "a"},
        {"audio": {"array": None, "bytes": None, "path": None}, "text": "a"},
        {"audio": 5, "text": "a"},
        {"audio": "x\0y", "text": "a"},
        {"audio": "https://example.org/a.wav", "text": "a"},
        {"audio": None, "text": "a"},
    ]
    with pytest.raises(PairsError) as caught:
        read_pairs(rows)
    told = str(caught.value).splitlines()[1:]
    for row, fact in enumerate([
        *("'sampling_rate'", "'sampling_rate'", "samples of shape", "NaN", "'fast'"),
        *("clip is empty", "sampling rate", "NUL", "download", "clip is empty"),
    ]):  # fmt: skip
        assert f"row {row}" in told[row]
        assert fact in told[row]


def test_a_sound_that_cannot_be_decoded_is_told_when_it_is_read() -> None:
    def broken() -> None:
        raise RuntimeError("no decoder")

    rows = [
        {"audio": b"not audio", "text": "a"},
        {"audio": SimpleNamespace(get_all_samples=broken), "text": "b"},
    ]
    for row, clip in enumerate(read_pairs(rows).audio):
        with pytest.raises(AudioError, match=f"the clip in row {row}: .*(readable|no decoder)"):
            read_clip(clip)
        assert clip.duration_s() == 0


def test_a_data_set_is_decoded_row_by_row_and_as_its_files_are(wav: Path) -> None:
    dataset = hf_dataset({"audio": [str(wav)] * 3, "prompt": list("abc"), "n": [1, 2, 3]})
    from datasets import Audio

    expected = read_clip(wav).content_key
    encoded = hf_dataset({
        "audio": [{"bytes": wav.read_bytes(), "path": "a.wav"}] * 3,
        "prompt": list("abc"),
        "n": [1, 2, 3],
    })  # fmt: skip
    for data in (
        dataset,
        dataset.cast_column("audio", Audio()),
        dataset.cast_column("audio", Audio(decode=False)),
        encoded.cast_column("audio", Audio(sampling_rate=16_000)),
        encoded,
    ):
        pairs = read_pairs(data)
        assert (pairs.ids, pairs.captions) == (tuple("012"), tuple("abc"))
        assert pairs.columns == {"n": (1, 2, 3)}
        assert [read_clip(clip).content_key for clip in pairs.audio] == [expected] * 3
    assert isinstance(pairs.audio[0].read(), Clip)


def test_arrays_in_a_data_set_bring_their_rate() -> None:
    sounds = [
        {"array": [0.0, 0.5], "sampling_rate": RATE},
        {"array": [0.25], "sampling_rate": 4000},
    ]
    dataset = hf_dataset({"audio": sounds, "text": ["a", "b"]})
    for data in (dataset, dataset.with_format("numpy")):
        clips = [read_clip(clip) for clip in read_pairs(data).audio]
        assert [clip.sample_rate_hz for clip in clips] == [RATE, 4000]
        assert clips[0].samples.ravel().tolist() == [0.0, 0.5]


def test_a_dict_of_data_sets_is_several_sets(wav: Path) -> None:
    from xacle_stack.pairs import list_splits, read_splits

    part = hf_dataset({"audio": [str(wav)], "text": ["a"]})
    from datasets import DatasetDict

    both = DatasetDict(train=part, pilot=part)
    assert list_splits(both) == list(read_splits(both)) == ["train", "pilot"]
    assert read_pairs(both, "pilot").split == "pilot"
    with pytest.raises(PairsError, match="no set 'test'. The sets are: train, pilot"):
        read_pairs(both, "test")
    with pytest.raises(PairsError, match="several sets: train, pilot"):
        read_pairs(both)
