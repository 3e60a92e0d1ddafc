import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from xacle_stack.audio import fixed_windows, read_clip, repeat_to_length
from xacle_stack.errors import AudioError


@pytest.fixture
def tone() -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_formats_are_decoded(tmp_path: Path, tone: np.ndarray, ending: str) -> None:
    path = tmp_path / f"clip.{ending}"
    soundfile.write(path, tone, 16_000)
    clip = read_clip(path)
    assert clip.sample_rate_hz == 16_000
    assert len(clip.samples) == pytest.approx(16_000, rel=0.1)
    loudness = np.sqrt(np.mean(clip.samples**2))
    assert loudness == pytest.approx(np.sqrt(np.mean(tone**2)), rel=0.1)


def test_channels_are_averaged(tmp_path: Path, tone: np.ndarray) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.column_stack([tone, -tone / 2]), 16_000, "FLOAT")
    clip = read_clip(tmp_path / "stereo.wav")
    np.testing.assert_allclose(clip.mono(16_000), tone / 4, atol=1e-7)


def test_resampling_is_soxr_hq(tmp_path: Path, tone: np.ndarray) -> None:
    soundfile.write(tmp_path / "clip.wav", tone, 16_000, "FLOAT")
    expected = soxr.resample(tone, 16_000, 48_000, quality="HQ")
    np.testing.assert_array_equal(read_clip(tmp_path / "clip.wav").mono(48_000), expected)


def test_one_sample_survives_resampling_down(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "click.wav", np.array([0.5]), 48_000)
    assert len(read_clip(tmp_path / "click.wav").mono(8_000)) >= 1


def test_content_key_is_of_the_audio_not_of_the_file(tmp_path: Path, tone: np.ndarray) -> None:
    tone = (tone * 30_000).astype(np.int16)  # writers round floats each in their own way
    for name in ("a.wav", "b.flac"):
        soundfile.write(tmp_path / name, tone, 16_000, subtype="PCM_16")
    soundfile.write(tmp_path / "rate.wav", tone, 8_000, subtype="PCM_16")
    quiet = tone.copy()
    quiet[5010] = 0
    soundfile.write(tmp_path / "other.wav", quiet, 16_000, subtype="PCM_16")
    soundfile.write(tmp_path / "folded.wav", tone.reshape(-1, 2), 16_000, subtype="PCM_16")
    key = read_clip(tmp_path / "a.wav").content_key
    assert len(key) == 32
    assert read_clip(tmp_path / "b.flac").content_key == key
    for name in ("rate.wav", "other.wav", "folded.wav"):
        assert read_clip(tmp_path / name).content_key != key


def test_silence_is_valid(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(800), 16_000)
    assert not read_clip(tmp_path / "silence.wav").samples.any()


def test_a_truncated_wav_is_named(tmp_path: Path, tone: np.ndarray) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, tone, 16_000, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(AudioError, match=r"cut.wav: truncated: .* 32000 bytes of audio, 1000 of"):
        read_clip(path)


def test_a_truncated_flac_is_named(tmp_path: Path, tone: np.ndarray) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, tone, 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"cut.flac: (truncated|not readable as audio)"):
        read_clip(path)


def test_samples_that_are_not_finite_are_counted(tmp_path: Path, tone: np.ndarray) -> None:
    tone[[8000, 9000]] = np.nan
    tone[9001] = np.inf
    soundfile.write(tmp_path / "nan.wav", tone, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"nan.wav: 3 of 16000 samples .* first at 0.500 s"):
        read_clip(tmp_path / "nan.wav")


def test_files_that_are_no_audio_say_why(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("a dog barks, and this is no audio at all\n" * 9)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    for name, message in {
        "text.wav": "not readable as audio",
        "empty.wav": r"empty \(0 bytes\)",
        "folder.wav": "this is a folder",
        "none.wav": "holds no samples",
        "nowhere.wav": "no such file",
    }.items():
        with pytest.raises(AudioError, match=rf"{name}: .*{message}"):
            read_clip(tmp_path / name)


def test_repeating_is_that_of_laion_clap() -> None:
    np.testing.assert_array_equal(repeat_to_length(np.arange(1.0, 4.0), 7), [1, 2, 3, 1, 2, 3, 0])
    np.testing.assert_array_equal(repeat_to_length(np.arange(3.0), 3), [0, 1, 2])


@pytest.mark.parametrize(
    ("n", "window", "n_windows"), [(3, 8, 1), (8, 8, 1), (9, 8, 2), (25, 8, 4)]
)
def test_windows_cover_every_sample(n: int, window: int, n_windows: int) -> None:
    samples = np.arange(1.0, n + 1)
    windows = fixed_windows(samples, window)
    assert windows.shape == (n_windows, window)
    assert set(windows.ravel()) >= set(samples)
    if n > window:
        assert windows[0, 0] == samples[0]
        assert windows[-1, -1] == samples[-1]
        assert (np.diff(windows, axis=1) == 1).all()


@pytest.mark.parametrize("size", [0, 0x7FFFF000 - 44, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wavs_from_a_pipe_are_read(tmp_path: Path, tone: np.ndarray, size: int) -> None:
    path = tmp_path / "pipe.wav"
    soundfile.write(path, tone, 16_000, subtype="PCM_16")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    if size:
        assert len(read_clip(path).samples) == len(tone)
    else:  # libsndfile takes nothing for nothing
        with pytest.raises(AudioError, match="holds no samples"):
            read_clip(path)


def test_a_flac_that_promises_the_moon_is_named(tmp_path: Path, tone: np.ndarray) -> None:
    path = tmp_path / "moon.flac"
    soundfile.write(path, tone, 16_000)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the highest bits of the number of samples in STREAMINFO
    path.write_bytes(content)
    with pytest.raises(AudioError, match="moon.flac: "):
        read_clip(path)
