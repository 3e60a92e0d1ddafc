"""Encoding in memory, compared with what the cache returns for files of the same samples."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import TOY, WriteData

from xacle_stack.audio import Clip
from xacle_stack.cache import FeatureCache
from xacle_stack.encoders import EncoderChoice, LoadedEncoders
from xacle_stack.errors import AudioError, EncoderError, PairsError, UnknownNameError
from xacle_stack.extract import extract_embeddings
from xacle_stack.pairs import Pairs, read_pairs

FRAMES = EncoderChoice(TOY.name.replace("ToySpace", "ToyFrames"))
MINI = EncoderChoice("mini-mel")
CHOICES = [FRAMES, MINI, replace(MINI, view=1), EncoderChoice("mini-mod")]


@pytest.fixture
def encoders() -> LoadedEncoders:
    return LoadedEncoders(CHOICES, device="cpu")


def assert_equal_to_the_cache(
    encoders: LoadedEncoders, clips: list, sample_rate_hz: object, pairs: Pairs, root: Path
) -> None:
    assert not extract_embeddings([pairs], CHOICES, root, device="cpu").failures
    cached = FeatureCache(root).load(pairs)
    audio = encoders.encode_clips(clips, sample_rate_hz)
    text = encoders.encode_captions(pairs.captions)
    vectors = [("toy-frames", "embedding"), ("mini-mel", "embedding"), ("mini-mod", "embedding")]
    view = ("mini-mel.view-1", "embedding")
    assert set(audio) == {*vectors, view, ("toy-frames", "level"), ("toy-frames", "frames")}
    assert set(text) == {*vectors, ("toy-frames", "letters")}
    for name in [*vectors, view, ("toy-frames", "level")]:
        expected = cached.audio(*name)
        assert (audio[name].dtype, audio[name].shape) == (expected.dtype, expected.shape)
        assert audio[name].tobytes() == expected.tobytes(), name
    for name in vectors:
        assert text[name].tobytes() == cached.text(*name).tobytes(), name
    stored = cached.audio_sequences("toy-frames")[:]
    for found, expected in zip(audio["toy-frames", "frames"], stored, strict=True):
        assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes())


def write_recordings(folder: Path, pairs: Pairs, subtype: str, n_channels: int) -> list[np.ndarray]:
    """Replace the clips of some pairs by noise and return it, lengths and rates differing."""
    rng = np.random.default_rng(3)
    recordings = []
    for n, path in enumerate(pairs.audio):
        samples = rng.uniform(-0.9, 0.9, size=(3000 + 70 * (n % 7), n_channels))
        if subtype == "PCM_16":
            samples = np.round(samples * 32768).astype(np.int16)
        elif subtype == "PCM_U8":
            samples = np.round(samples * 128 + 128).astype(np.uint8)
        elif subtype == "PCM_32":
            samples = np.round(samples * 2**31).astype(np.int32)
        else:
            samples = samples.astype(np.float32)
        if subtype == "PCM_U8":
            # soundfile takes no array of this type.
            soundfile.write(path, (samples.astype(np.int16) - 128) * 256, 11_025, subtype=subtype)
        else:
            soundfile.write(path, samples, 11_025, subtype=subtype)
        recordings.append(samples)
    return recordings


@pytest.mark.parametrize("n_channels", [1, 2, 5])
@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16", "PCM_32", "PCM_U8"])
def test_samples_in_memory_give_the_bits_that_the_cache_returns(
    make_data: WriteData, tmp_path: Path, encoders: LoadedEncoders, subtype: str, n_channels: int
) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    clips = write_recordings(tmp_path, pairs, subtype, n_channels)
    assert_equal_to_the_cache(encoders, clips, 11_025, pairs, tmp_path / "store")
    channels_first = [clip.T if n_channels > 1 else clip[:, 0] for clip in clips]
    for name, expected in encoders.encode_clips(clips, 11_025).items():
        found = encoders.encode_clips(channels_first, 11_025)[name]
        assert np.concatenate(found).tobytes() == np.concatenate(expected).tobytes()


def test_files_give_the_bits_that_the_cache_returns(
    make_data: WriteData, tmp_path: Path, encoders: LoadedEncoders
) -> None:
    pairs = read_pairs(make_data(train=20), "train")
    paths = [str(path) if n % 2 else path for n, path in enumerate(pairs.audio)]
    assert_equal_to_the_cache(encoders, paths, None, pairs, tmp_path / "store")


def test_a_clip_alone_equals_the_same_clip_among_others(encoders: LoadedEncoders, rng) -> None:
    clips = [rng.uniform(-1, 1, size=800 + 10 * n) for n in range(12)]
    rates = [8000 if n % 2 else 16_000 for n in range(12)]
    captions = [f"a {'low' if n % 2 else 'high'} tone {n}" for n in range(12)]
    audio, text = encoders.encode_clips(clips, rates), encoders.encode_captions(captions)
    for n in (0, 7, 11):
        for name, alone in encoders.encode_clips([clips[n]], rates[n]).items():
            np.testing.assert_array_equal(alone[0], audio[name][n])
        for name, alone in encoders.encode_captions([captions[n]]).items():
            np.testing.assert_array_equal(alone[0], text[name][n])


def test_tensors_repeated_clips_and_files_may_be_mixed(
    tmp_path: Path, encoders: LoadedEncoders, rng
) -> None:
    torch = pytest.importorskip("torch")
    tone = rng.uniform(-1, 1, size=(2, 900)).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", tone.T, 8000, subtype="FLOAT")
    clips = [
        torch.from_numpy(tone).requires_grad_(),
        tmp_path / "tone.wav",
        tone.astype(np.float64),
        torch.from_numpy(tone * 0.5).to(torch.bfloat16),
    ]
    found = encoders.encode_clips(clips, [8000, None, 8000, 8000])["mini-mel", "embedding"]
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes() != found[3].tobytes()


def test_each_model_is_loaded_once_and_only_if_it_is_needed(
    encoders: LoadedEncoders, monkeypatch
) -> None:
    loaded = []
    for choice in (FRAMES, MINI):
        load = choice.encoder.load
        monkeypatch.setattr(
            choice.encoder,
            "load",
            lambda *args, load=load, name=choice.info.name: loaded.append(name) or load(*args),
        )
    assert encoders.encode_clips([])["mini-mel", "embedding"].shape == (0, 64)
    assert encoders.encode_captions([])["toy-frames", "letters"] == []
    assert loaded == []
    for _ in range(2):
        encoders.encode_captions(["a tone"])
        encoders.encode_clips([np.zeros(100)], 8000)
    assert sorted(loaded) == ["mini-mel", "toy-frames"]


def test_sequences_on_demand_are_there_where_they_are_asked_for(
    make_data: WriteData, tmp_path: Path
) -> None:
    pairs = read_pairs(make_data(train=9), "train")
    plain = EncoderChoice(TOY.name.replace("ToySpace", "ToyOnDemand"))
    asked = replace(plain, outputs=("frames", "letters"))
    choices = [asked, replace(asked, view=1)]
    encoders = LoadedEncoders(choices, device="cpu")
    heard, written = encoders.encode_clips(pairs.audio), encoders.encode_captions(pairs.captions)
    assert ("toy-on-demand", "letters") in written
    names = {("toy-on-demand", "letters"), *LoadedEncoders([plain]).encode_captions(["a"])}
    assert names == {*written}
    assert ("toy-on-demand", "frames") not in LoadedEncoders([plain]).encode_clips(pairs.audio[:1])

    report = extract_embeddings([pairs], [plain], tmp_path, device="cpu")
    assert report.encoded["toy-on-demand", "audio"] == 9
    cache = FeatureCache(tmp_path)
    with pytest.raises(UnknownNameError, match="'frames'"):
        cache.load(pairs).audio_sequences("toy-on-demand")
    report = extract_embeddings([pairs], choices, tmp_path, device="cpu")
    assert report.encoded["toy-on-demand", "audio"] == 9  # another store
    digests = {choice.info.name: choice.fingerprint().digest for choice in choices}
    cached = cache.load(pairs, digests)
    for name in ("toy-on-demand", "toy-on-demand.view-1"):
        stored = cached.audio_sequences(name)[:]
        for found, expected in zip(heard[name, "frames"], stored, strict=True):
            assert (found.dtype, found.tobytes()) == (expected.dtype, expected.tobytes())
        np.testing.assert_array_equal(cached.audio(name, "level"), heard[name, "level"])
    plain_store = cache.load(pairs, {"toy-on-demand": plain.fingerprint().digest})
    level = cached.audio("toy-on-demand", "level")
    np.testing.assert_array_equal(plain_store.audio("toy-on-demand", "level"), level)


UNUSABLE = {
    "no rate": ([np.zeros(9)], None, ["clip 0", "sample_rate_hz"]),
    "rate not whole": ([np.zeros(9)], 8000.5, ["clip 0", "8000.5", "whole number"]),
    "rate true": ([np.zeros(9)], True, ["clip 0", "True"]),
    "rate too low": ([np.zeros(9)], 16, ["clip 0", "16 Hz", "1000"]),
    "negative rate": ([np.zeros(9)], -8000, ["-8000 Hz"]),
    "rates of another number": ([np.zeros(9)], [8000, 8000], ["2 rates for 1 clips"]),
    "NaN": ([np.zeros(9), [0.0, np.nan]], 8000, ["clip 1", "1 of 2", "NaN"]),
    "too loud": ([np.full(9, 1e12)], 8000, ["clip 0", "beyond"]),
    "beyond float32": ([np.full(9, 1e300)], 8000, ["clip 0", "infinite"]),
    "empty": ([np.zeros(0)], 8000, ["clip 0", "(0,)"]),
    "no channels": ([np.zeros((9, 0))], 8000, ["clip 0", "(9, 0)"]),
    "three axes": ([np.zeros((1, 2, 9))], 8000, ["clip 0", "(1, 2, 9)"]),
    "a batch": ([np.zeros((40, 90))], 8000, ["clip 0", "(40, 90)", "32 channels"]),
    "whole numbers": ([np.zeros(9, dtype=int)], 8000, ["clip 0", "int64", "int16"]),
    "truth values": ([np.zeros(9, dtype=bool)], 8000, ["clip 0", "bool"]),
    "complex": ([np.zeros(9, dtype=complex)], 8000, ["clip 0", "complex128"]),
    "ragged": ([[[0.0], [0.0, 0.1]]], 8000, ["clip 0"]),
    "no file": (["nowhere.wav"], None, ["nowhere.wav", "no such file"]),
    "one array": (np.zeros(9), 8000, ["[clip]"]),
    "one path": ("clip.wav", None, ["[clip]", "clip.wav"]),
    "nothing": ([None], 8000, ["[clip]"]),
    "several": (
        [np.zeros(0), np.zeros(5), "nowhere.wav"],
        8000,
        ["2 clips", "clip 0", "nowhere.wav"],
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_an_unusable_clip_gets_an_error_that_names_it(case: str, encoders: LoadedEncoders) -> None:
    clips, rate, facts = UNUSABLE[case]
    with pytest.raises(AudioError) as caught:
        encoders.encode_clips(clips, rate)
    assert [fact for fact in facts if fact not in str(caught.value)] == []


@pytest.mark.parametrize("captions", ["a dog barks", [""], [" "], [None], [b"a dog"]])
def test_an_unusable_caption_gets_an_error(captions: object, encoders: LoadedEncoders) -> None:
    with pytest.raises(PairsError, match="captions"):
        encoders.encode_captions(captions)


def test_items_that_an_encoder_fails_on_are_named(tmp_path: Path, monkeypatch) -> None:
    encoders = LoadedEncoders([TOY], device="cpu")
    encode = TOY.encoder.encode_audio

    def fails_on_noise(self, clips):
        if any(clip.std() > 0.5 for clip in clips):
            raise ZeroDivisionError("too noisy")
        return encode(self, clips)

    monkeypatch.setattr(TOY.encoder, "encode_audio", fails_on_noise)
    noise = np.random.default_rng(0).uniform(-1, 1, size=500)
    with pytest.raises(EncoderError, match=r"^clip 1: encoder 'toy'.*too noisy"):
        encoders.encode_clips([np.zeros(500), noise, np.ones(400)], 8000)
    assert encoders.encode_clips([np.zeros(500)], 8000)["toy", "embedding"].shape == (1, 6)


def test_a_clip_that_is_too_large_to_resample_is_named(monkeypatch) -> None:
    def exhausted(clip: Clip, rate: int) -> None:
        raise MemoryError

    monkeypatch.setattr(Clip, "mono", exhausted)
    with pytest.raises(AudioError, match=r"^clip 0: cannot be resampled \(MemoryError\)"):
        LoadedEncoders([TOY], device="cpu").encode_clips([np.zeros(500)], 8000)


def test_two_encoders_of_one_name_are_refused() -> None:
    other = replace(MINI, precision="float16")
    with pytest.raises(EncoderError, match="mini-mel"):
        LoadedEncoders([MINI, other], device="cpu").encode_captions(["a dog barks"])
