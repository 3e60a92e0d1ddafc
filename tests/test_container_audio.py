import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from xacle_stack import audio
from xacle_stack._container_audio import container_format
from xacle_stack.audio import read_clip
from xacle_stack.errors import AudioError

av = pytest.importorskip("av", reason="PyAV is not installed")

RATE = 48_000


def sound(n_channels: int = 2, seconds: float = 0.5) -> np.ndarray:
    time = np.arange(int(RATE * seconds)) / RATE
    channels = [0.3 * np.sin(2 * np.pi * 300 * (i + 1) * time) for i in range(n_channels)]
    return np.array(channels, dtype=np.float32)


def write(path: Path, codec: str, *, video: bool = False, sounds: int = 1, **options: str) -> Path:
    """Write a tone in the left channel and another in the right one, with PyAV itself."""
    with av.open(str(path), "w", options=options) as container:
        if video:
            pictures = container.add_stream("mpeg4", rate=10)
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        streams = [container.add_stream(codec, rate=RATE) for _ in range(sounds)]
        for stream in streams:
            stream.layout = "stereo"
        for number, stream in enumerate(streams):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(sound() / (number + 1)), format="fltp", layout="stereo"
            )
            frame.sample_rate, frame.pts = RATE, 0
            context = stream.codec_context
            context.open(strict=False)  # sets the format and the size of frames
            resampler = av.AudioResampler(
                format=context.format, layout="stereo", rate=RATE, frame_size=context.frame_size
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        if video:
            for _ in range(7):
                container.mux(pictures.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(pictures.encode(None))
    return path


FILES: dict[str, dict[str, Any]] = {
    "aac.m4a": {"codec": "aac"},
    "alac.m4a": {"codec": "alac"},
    "start.m4a": {"codec": "aac", "movflags": "faststart"},
    "video.mp4": {"codec": "aac", "video": True},
    "opus.webm": {"codec": "libopus"},
    "flac.mkv": {"codec": "flac"},
    "pcm.avi": {"codec": "pcm_s16le", "video": True},
    "pcm.mov": {"codec": "pcm_s16le"},
    "bytes.mkv": {"codec": "pcm_u8"},
    "double.mkv": {"codec": "pcm_f64le"},
    "raw.aac": {"codec": "aac"},
    "stream.ts": {"codec": "aac"},
    "flash.flv": {"codec": "aac"},
}
EXACT = {"alac.m4a", "flac.mkv", "pcm.avi", "pcm.mov", "double.mkv"}


@pytest.mark.parametrize("name", FILES)
def test_the_sound_of_containers_is_decoded(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, **FILES[name])
    clip = read_clip(path)
    assert (clip.sample_rate_hz, clip.samples.dtype, clip.samples.shape[1]) == (RATE, np.float32, 2)
    if name in EXACT:
        np.testing.assert_allclose(clip.samples, sound().T, atol=2**-14)
    # A lossy codec may add some of its frames.
    assert abs(clip.duration_s - 0.5) < 0.1
    for channel, pitch in enumerate((300, 600)):
        spectrum = np.abs(np.fft.rfft(clip.samples[:, channel]))
        assert abs(spectrum.argmax() / clip.duration_s - pitch) < 5
    assert read_clip(path).content_key == clip.content_key


@pytest.mark.parametrize("name", FILES)
def test_samples_are_those_of_ffmpegs_own_program(tmp_path: Path, name: str) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("the program ffmpeg is not installed")
    path = write(tmp_path / name, **FILES[name])
    command = [ffmpeg, "-v", "error", "-i", path, "-map", "0:a:0", "-f", "f32le", "-"]
    decoded = subprocess.run(command, check=True, capture_output=True).stdout
    expected = np.frombuffer(decoded, dtype="<f4").reshape(-1, 2)
    np.testing.assert_allclose(read_clip(path).samples, expected, atol=1e-5)


def test_the_content_of_a_lossless_container_is_that_of_the_wav(tmp_path: Path) -> None:
    flac = read_clip(write(tmp_path / "a.mkv", codec="flac"))
    soundfile.write(tmp_path / "a.wav", flac.samples, RATE, subtype="PCM_16")
    assert read_clip(tmp_path / "a.wav").content_key == flac.content_key


def test_the_first_sound_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", "flac", sounds=2)
    assert read_clip(path).samples.max() == pytest.approx(0.3, abs=1e-3)


def test_the_name_does_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "a.m4a", "aac")
    for name in ("a.wav", "file:a.m4a", "concat:a|b", "http:"):
        other = path.rename(tmp_path / name)
        assert read_clip(other).sample_rate_hz == RATE
        path = other


@pytest.mark.parametrize("name", ["aac.m4a", "start.m4a", "video.mp4", "opus.webm", "flac.mkv"])
def test_a_truncated_file_is_told_at_every_length(tmp_path: Path, name: str) -> None:
    whole = write(tmp_path / name, **FILES[name]).read_bytes()
    cut = tmp_path / f"cut{Path(name).suffix}"
    for n_bytes in [*range(1, len(whole), len(whole) // 25), len(whole) - 1]:
        cut.write_bytes(whole[:n_bytes])
        with pytest.raises(AudioError, match="cut"):
            read_clip(cut)
    assert "bytes are missing" in _error(cut)


def _error(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        read_clip(path)
    return str(caught.value)


def test_damage_and_silence_of_containers_are_told(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        container.mux(pictures.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(pictures.encode(None))
    assert "video.mp4: the file holds no sound" in _error(path)
    path.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(100))
    assert "video.mp4: its sound cannot be decoded" in _error(path)


def test_limits_hold_while_decoding(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.mkv", "flac")
    for limit, value, told in [
        ("MAX_SAMPLES", 30_000, "too long: it holds more than 15000 samples a channel"),
        ("MAX_CHANNELS", 1, "2 channels"),
        ("MAX_SAMPLE_RATE_HZ", 44_100, "48000 Hz"),
        ("MAX_FILE_BYTES", 100, "too large"),
    ]:
        with monkeypatch.context() as patched:
            patched.setattr(audio, limit, value)
            assert told in _error(path)


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.webm", "libopus")
    monkeypatch.setitem(sys.modules, "av", None)
    assert "a.webm" in _error(path)
    assert "pip install 'xacle-stack[av]', or convert the file to wav first" in _error(path)


@pytest.mark.parametrize("content", ["#EXTM3U\n{}\n", "ffconcat version 1.0\nfile '{}'\n"])
def test_a_playlist_opens_no_other_file(tmp_path: Path, content: str) -> None:
    write(tmp_path / "a.mkv", "flac")
    path = tmp_path / "list.m4a"
    path.write_text(content.format(tmp_path / "a.mkv"))
    assert container_format(path) is None
    assert "not readable as audio" in _error(path)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff", "caf", "w64"])
def test_what_libsndfile_reads_is_no_container(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, sound().T, RATE)
    assert container_format(path) is None
