import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from xacle_stack import _audio_source, audio
from xacle_stack.audio import (
    Clip,
    ClipSource,
    clip_duration,
    fixed_windows,
    mono_at_rates,
    read_clip,
    repeat_to_length,
)
from xacle_stack.errors import AudioError, ClipTooLongError


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
    with pytest.raises(AudioError, match=r"cut.wav: truncated: .* 32000 bytes .* 1000 "):
        read_clip(path)


def test_a_truncated_flac_is_named(tmp_path: Path, tone: np.ndarray) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, tone, 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"cut.flac: (truncated|not readable)"):
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
        "text.wav": "not readable",
        "empty.wav": r"empty \(0 bytes\)",
        "folder.wav": "folder",
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


def patch(path: Path, mark: bytes, content: bytes) -> None:
    """Overwrite the bytes behind a mark."""
    whole = bytearray(path.read_bytes())
    place = whole.index(mark) + len(mark)
    whole[place : place + len(content)] = content
    path.write_bytes(whole)


# Of 32,000 bytes that are there: not told, or wrong by a header's worth.
@pytest.mark.parametrize(
    "size", [0, 0x7FFFF000 - 44, 0x7FFFFFFF, 0xFFFFFFFF, 32_016, 32_036, 32_044]
)
def test_a_wav_is_read_whose_header_does_not_know_its_length(
    tmp_path: Path, tone: np.ndarray, size: int
) -> None:
    path = tmp_path / "pipe.wav"
    soundfile.write(path, tone, 16_000, subtype="PCM_16")
    expected = read_clip(path).samples
    patch(path, b"data", struct.pack("<I", size))
    np.testing.assert_array_equal(read_clip(path).samples, expected)


def test_a_wav_is_read_whose_audio_alone_is_counted_wrongly(
    tmp_path: Path, tone: np.ndarray
) -> None:
    # The size of the whole file is right: nothing was cut off.
    path = tmp_path / "wrong.wav"
    soundfile.write(path, tone, 16_000, subtype="PCM_16")
    patch(path, b"data", struct.pack("<I", 64_000))
    assert len(read_clip(path).samples) == len(tone)


def test_a_wav_without_audio_has_none_whatever_chunks_follow(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros(0), 16_000)
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    with pytest.raises(AudioError, match="none.wav: .*no samples"):
        read_clip(path)


@pytest.mark.parametrize("kind", ["AIFF", "RF64", "WAVEX"])
def test_other_containers_tell_that_they_are_truncated(
    tmp_path: Path, tone: np.ndarray, kind: str
) -> None:
    path = tmp_path / "cut"
    soundfile.write(path, tone, 16_000, format=kind, subtype="PCM_16")
    assert len(read_clip(path).samples) == len(tone)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(AudioError, match=r"cut: truncated: .* bytes of audio, 1000 of them"):
        read_clip(path)


def without_xing(path: Path) -> bytes:
    """Return an mp3 without its first frame, as a program writes it that streams."""
    content = path.read_bytes()
    start = content.index(b"\xff\xfb")
    n_kbit = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[
        (content[start + 2] >> 4) - 1
    ]
    size = 144_000 * n_kbit // 44_100 + (content[start + 2] >> 1 & 1)
    assert {b"Xing", b"Info"} & {content[start + place : start + place + 4] for place in (21, 36)}
    return content[start + size :]


@pytest.fixture
def loud_then_silent(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Return an mp3 of 4 s whose bit rate falls: its size is no measure of its length."""
    samples = np.concatenate([rng.normal(scale=0.25, size=44_100), np.zeros(3 * 44_100)])
    path = tmp_path / "falling.mp3"
    try:
        soundfile.write(path, samples, 44_100, bitrate_mode="VARIABLE", compression_level=0.1)
    except TypeError:
        pytest.skip("this release of soundfile writes no mp3 of a variable bit rate")
    return path


TAGS = {
    "nothing": b"",
    "an ID3v1 tag": b"TAG" + b"title".ljust(125, b"\0"),
    "a long APE tag": b"APETAGEX" + bytes(200) + b"cover" * 600,
    "zeros": bytes(5000),
    "half a frame": b"\xff\xfb\x90\x00" + bytes(50),
}


@pytest.mark.parametrize("ending", TAGS.values(), ids=TAGS)
def test_an_mp3_without_a_length_is_read_to_its_end(
    loud_then_silent: Path, ending: bytes, capfd
) -> None:
    whole = read_clip(loud_then_silent).samples
    assert len(whole) == 4 * 44_100
    loud_then_silent.write_bytes(without_xing(loud_then_silent) + ending)
    found = read_clip(loud_then_silent).samples
    # The encoder's delay and its padding are not cut off without the header: two frames at most.
    assert 0 <= len(found) - len(whole) <= 3 * 1152
    lag = 1105  # the delay of LAME and of the decoder
    np.testing.assert_allclose(found[lag : lag + 40_000], whole[:40_000], atol=0.02)
    assert capfd.readouterr().err == ""


def test_an_mp3_is_shorter_or_truncated_by_whether_it_promised_more(loud_then_silent: Path) -> None:
    whole, streamed = loud_then_silent.read_bytes(), without_xing(loud_then_silent)
    loud_then_silent.write_bytes(streamed[: len(streamed) // 2])
    assert 0 < len(read_clip(loud_then_silent).samples) < 2 * 44_100
    loud_then_silent.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AudioError, match=r"falling.mp3: truncated: .* 176400 samples "):
        read_clip(loud_then_silent)


def test_a_flac_without_a_length_is_read_to_its_end(tmp_path: Path, tone: np.ndarray) -> None:
    path = tmp_path / "streamed.flac"
    soundfile.write(path, tone, 16_000)
    expected = read_clip(path).samples
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_clip(path).samples, expected)


@pytest.mark.parametrize("ending", ["wav", "aiff", "flac", "mp3", "ogg"])
def test_several_recordings_in_one_file_are_refused(
    tmp_path: Path, tone: np.ndarray, ending: str
) -> None:
    path = tmp_path / f"two.{ending}"
    soundfile.write(path, tone, 16_000)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(AudioError, match=rf"two.{ending}: .*several .*recordings"):
        read_clip(path)


def test_a_truncated_ogg_is_named(tmp_path: Path, tone: np.ndarray) -> None:
    path = tmp_path / "cut.ogg"
    soundfile.write(path, np.tile(tone, 4), 16_000)
    whole = path.read_bytes()
    last_page = whole.rindex(b"OggS")
    for size in (last_page + 2, last_page + 40, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(AudioError, match=rf"cut.ogg: truncated: .* at byte {last_page}, is"):
            read_clip(path)


def test_samples_beyond_any_scale_are_counted(tmp_path: Path, tone: np.ndarray) -> None:
    tone[0] = -(2.0**31)  # integers of 32 bits as floats
    soundfile.write(tmp_path / "loud.wav", tone, 16_000, subtype="FLOAT")
    assert read_clip(tmp_path / "loud.wav").samples[0] == -(2.0**31)
    tone[[800, 900]] = 3e38, -1e10
    soundfile.write(tmp_path / "loud.wav", tone, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"loud.wav: 2 of 16000 samples .* 3e\+38, .* 0.050 s"):
        read_clip(tmp_path / "loud.wav")


def test_a_clip_beyond_the_limits_is_refused_before_it_is_in_memory(
    tmp_path: Path, tone: np.ndarray, monkeypatch
) -> None:
    monkeypatch.setattr(audio, "MAX_DURATION_S", 2)
    monkeypatch.setattr(audio, "MAX_SAMPLES", 64_000)
    monkeypatch.setattr(audio, "_BLOCK_SAMPLES", 1000)
    for ending in ("wav", "ogg"):
        path = tmp_path / f"long.{ending}"
        soundfile.write(path, np.tile(tone, 2), 16_000)
        assert len(read_clip(path).samples) == 32_000
        soundfile.write(path, np.tile(tone, 3), 16_000)
        with pytest.raises(
            AudioError, match=rf"long.{ending}: too long: .* 48000 .* 32000 \(2 s\)"
        ):
            read_clip(path)
    soundfile.write(path, np.tile(tone[:, np.newaxis], 5), 16_000)
    with pytest.raises(AudioError, match=r"5 channel\(s\) at 16000 Hz may hold 12800 \(1 s\)"):
        read_clip(path)
    # A file that does not tell its length is read to the limit, and no further.
    path = tmp_path / "streamed.mp3"
    soundfile.write(path, np.tile(tone, 3), 44_100)
    path.write_bytes(without_xing(path))
    monkeypatch.setattr(audio, "MAX_SAMPLES", 30_000)
    with pytest.raises(AudioError, match=r"streamed.mp3: too long: .* 30000 samples"):
        read_clip(path)


@pytest.mark.parametrize("rate", [1, 999, 1_000_001, 2**31 - 1])
def test_a_sampling_rate_that_no_recorder_has_is_refused(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "rate.wav"
    soundfile.write(path, np.zeros(1000), 16_000, subtype="PCM_16")
    patch(path, b"WAVEfmt \x10\0\0\0\x01\0\x01\0", struct.pack("<I", rate))
    with pytest.raises(AudioError, match=rf"rate.wav: .*{rate} Hz.* 1000"):
        read_clip(path)


@pytest.mark.skipif(os.name != "posix", reason="pipes and sockets with names are of POSIX")
def test_what_never_ends_is_not_opened(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkfifo("pipe.wav")
    Path("zero.wav").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        for name in ("pipe.wav", "zero.wav", "socket.wav"):
            with pytest.raises(AudioError, match=rf"{name}: .*(pipe|device|socket)"):
                read_clip(name)
            assert clip_duration(Path(name)) == 0


def test_what_the_system_refuses_is_told_in_its_words() -> None:
    with pytest.raises(AudioError, match=r"x: .*File name too long"):
        read_clip("x" * 300)
    with pytest.raises(AudioError, match="not readable .*null"):
        read_clip("a\0b")


def test_too_little_memory_for_a_clip_names_it(
    tmp_path: Path, tone: np.ndarray, monkeypatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    soundfile.write(tmp_path / "clip.wav", tone, 16_000)
    monkeypatch.setattr("xacle_stack.audio.np.concatenate", exhausted)
    with pytest.raises(AudioError, match="clip.wav: .*memory"):
        read_clip(tmp_path / "clip.wav")


def test_a_flac_that_promises_the_moon_is_named(tmp_path: Path, tone: np.ndarray) -> None:
    path = tmp_path / "moon.flac"
    soundfile.write(path, tone, 16_000)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the highest bits of the number of samples in STREAMINFO
    path.write_bytes(content)
    with pytest.raises(AudioError, match="moon.flac: "):
        read_clip(path)


def test_too_little_memory_to_count_bad_samples_or_to_resample_names_the_clip(
    tmp_path: Path, tone: np.ndarray, monkeypatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    soundfile.write(tmp_path / "nan.wav", np.append(tone, np.nan), 16_000, subtype="FLOAT")
    monkeypatch.setattr("xacle_stack.audio.np.isfinite", exhausted)
    with pytest.raises(AudioError, match="nan.wav: .*memory"):
        read_clip(tmp_path / "nan.wav")
    monkeypatch.setattr("xacle_stack.audio.soxr.resample", exhausted)
    with pytest.raises(AudioError, match=r"the clip: cannot be resampled \(MemoryError\)"):
        mono_at_rates(Clip(tone[:, np.newaxis], 16_000), [8000], "the clip")


@pytest.mark.parametrize("error", [MemoryError(), TypeError("no such row"), KeyError("audio")])
def test_whatever_a_source_raises_names_it(error: Exception) -> None:
    class Broken(ClipSource):
        def read(self) -> Clip:
            raise error

        def duration_s(self) -> float:
            return 0.0

    with pytest.raises(AudioError, match=f"row 7: cannot be read .{type(error).__name__}"):
        read_clip(Broken("row 7"))


@pytest.mark.parametrize("start", [b"RIFF", b"fLaC\0\0\0\x22", b"OggS", b"\xff\xfb\x90\0"])
def test_a_sparse_file_of_any_size_is_refused_unread(
    tmp_path: Path, start: bytes, monkeypatch
) -> None:
    monkeypatch.setattr(audio, "MAX_FILE_BYTES", 100_000)
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(100_001)
    monkeypatch.setattr("xacle_stack.audio.audio_source", None)
    monkeypatch.setattr("xacle_stack.audio.soundfile.info", None)
    with pytest.raises(AudioError, match="sparse: .*100001 bytes.* 100000"):
        read_clip(path)
    assert clip_duration(path) == 0


def test_the_largest_file_holds_the_most_samples_in_any_format() -> None:
    assert audio.MAX_FILE_BYTES > audio.MAX_SAMPLES * 8


@pytest.mark.parametrize(
    ("start", "part", "parts"),
    [
        (b"RIFF\0\0\0\x7fWAVE", b"junk\0\0\0\0", "chunks"),
        (b"RIFF\0\0\0\x7fWAVEdata\0\0\0\0", b"junk\0\0\0\0", "chunks"),
        (b"FORM\x7f\0\0\0AIFF", b"junk\0\0\0\0", "chunks"),
        (b"RIFF\0\0\0\x7fWAVE", bytes(8), "chunks"),
        (b"OggS", b"OggS" + bytes(23), "pages"),
    ],
)
def test_a_file_of_countless_empty_parts_is_refused(
    tmp_path: Path, start: bytes, part: bytes, parts: str, monkeypatch
) -> None:
    monkeypatch.setattr(_audio_source, "_MAX_CHUNKS", 100)
    monkeypatch.setattr(_audio_source, "_MAX_STEPS", 100)
    path = tmp_path / "parts"
    path.write_bytes((start if start != b"OggS" else b"") + 200 * part)
    with pytest.raises(AudioError, match=rf"parts: damaged: .* more than 100 {parts}"):
        read_clip(path)
    if parts == "chunks":
        monkeypatch.setattr("xacle_stack.audio.soundfile.info", None)
        assert clip_duration(path) == 0


@pytest.mark.parametrize("junk", [b"\xff", b"ID3\4" + bytes(6)])
def test_an_mp3_of_countless_pieces_is_refused(
    tmp_path: Path, tone: np.ndarray, junk: bytes, monkeypatch
) -> None:
    path = tmp_path / "junk.mp3"
    soundfile.write(path, tone, 16_000)
    path.write_bytes(path.read_bytes() + 1000 * junk)
    assert read_clip(path).sample_rate_hz == 16_000
    monkeypatch.setattr(_audio_source, "_MAX_STEPS", 500)
    with pytest.raises(AudioError, match=r"junk.mp3: damaged: .* more than 500 frames"):
        read_clip(path)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 9])
def test_the_mean_of_channels_is_numpys(n_channels: int) -> None:
    samples = np.random.default_rng(0).normal(size=(5000, n_channels)).astype(np.float32)
    samples[:2] = [[-0.0], [0.0]]
    expected = samples.mean(axis=1, dtype=np.float32)
    mixed = Clip(samples, 8000).mono(8000)
    np.testing.assert_array_equal(mixed, expected)
    assert not np.shares_memory(mixed, samples)


def test_a_limit_of_the_duration_ends_the_decoding(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 8000)
    assert read_clip(tmp_path / "a.wav", 2).duration_s == 2
    with pytest.raises(ClipTooLongError, match=r"16000 samples.*15200 \(2 s\)"):
        read_clip(tmp_path / "a.wav", 1.9)
