"""Decodes audio files, mixes them down, resamples them and fits them to fixed windows.

All functions are deterministic, without random crops or dither.  Samples are float32, full scale is
±1.  libsndfile reads wav, flac, ogg, mp3 and others; PyAV, if it is installed, reads the sound of
m4a, mp4, webm and other containers.
"""

from __future__ import annotations

import hashlib
import math
import operator
import stat
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, SupportsIndex

import numpy as np
import soundfile
import soxr
from numpy.typing import ArrayLike

from xacle_stack._audio_source import (
    Mp3Frames,
    audio_source,
    check_number_of_chunks,
    mp3_source,
)
from xacle_stack._container_audio import container_format, open_container
from xacle_stack._types import FloatArray
from xacle_stack.errors import AudioError, ClipTooLongError

# Part of every audio fingerprint: change it when the same file would give other mono samples.
AUDIO_VERSION = "mean of channels, soxr HQ"
# Raise it when some files are decoded to other samples or newly refused.  Remembered content keys
# of an older version are not used.
DECODING_VERSION = 2

# Limits of one clip.  An hour of mono at 48 kHz takes 0.7 GB, and the most samples take 1 GiB.
MAX_DURATION_S = 3600
MAX_SAMPLES = 1 << 28  # of all channels together
# The largest number of samples with 64 bits each, and 64 MiB of tags and pictures.
MAX_FILE_BYTES = 8 * MAX_SAMPLES + (1 << 26)
MIN_SAMPLE_RATE_HZ = 1_000
MAX_SAMPLE_RATE_HZ = 1_000_000
# Allows 32-bit integers that were stored as floats; larger samples would overflow in a spectrum.
MAX_AMPLITUDE = 2.0**31

# Samples in memory with more channels are likely a batch of clips.
MAX_CHANNELS = 32

# PCM types of samples in memory, and what is full scale in them.
_FULL_SCALES = {"int16": 1 << 15, "int32": 1 << 31, "uint8": 1 << 7}
_BLOCK_SAMPLES = 1 << 18
# libsndfile reports at least this length if it does not know the length.
_UNKNOWN_LENGTH = 1 << 40


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded audio file: float32 samples of shape (n_samples, n_channels), and their rate."""

    samples: FloatArray
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate_hz

    @property
    def content_key(self) -> str:
        """32 hexadecimal digits that identify the decoded audio.

        A 16-bit WAV and the FLAC made from it have the same key.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(struct.pack("<4sII", b"clip", self.sample_rate_hz, self.samples.shape[1]))
        digest.update(np.ascontiguousarray(self.samples, dtype="<f4").data)
        return digest.hexdigest()

    def mono(self, sample_rate_hz: int) -> FloatArray:
        """Return the mean of the channels at another rate, shape (n_samples,).

        The resampler is soxr's HQ, as in ``librosa.load``.
        """
        mixed = _mean_of_channels(self.samples)
        if sample_rate_hz == self.sample_rate_hz:
            return mixed
        resampled: FloatArray = soxr.resample(
            mixed, self.sample_rate_hz, sample_rate_hz, quality="HQ"
        )
        # A clip of a few samples may round down to none.
        return resampled if len(resampled) else mixed[:1]


def mono_at_rates(
    clip: Clip, rates: Iterable[int], name: Path | str | ClipSource
) -> dict[int, FloatArray]:
    """Return a clip's mono samples at several rates; an AudioError names a clip that fails."""
    try:
        return {rate: clip.mono(rate) for rate in rates}
    except (MemoryError, RuntimeError, ValueError) as error:  # the resampler's
        reason = str(error) or type(error).__name__
        raise AudioError(f"{name}: cannot be resampled ({reason}).") from None


def _mean_of_channels(samples: FloatArray) -> FloatArray:
    """Return the mean of each row as a new array.

    NumPy's own mean takes 25 times as long over two columns, and has the same values.
    """
    match samples.shape[1]:
        case 1:
            return samples[:, 0].copy()
        case 2:
            return (samples[:, 0] + samples[:, 1]) / np.float32(2)
    mean: FloatArray = samples.mean(axis=1, dtype=np.float32)
    return mean


class ClipSource(ABC):
    """A sound that is no file of its own, such as an array or a row of a data set.

    It stands wherever the path of an audio file may stand, and is hashed by identity.

    Parameters
    ----------
    name : str
        What messages call it.

    Attributes
    ----------
    content_key : str or None
        That of the clip, once it is known, so that it is not decoded again for it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.content_key: str | None = None

    def __str__(self) -> str:
        return self.name

    @abstractmethod
    def read(self) -> Clip:
        """Return the clip; an AudioError says why it cannot be used."""

    @abstractmethod
    def duration_s(self) -> float:
        """Return the duration in seconds as far as it is known without decoding, else 0."""


class SampleSource(ClipSource):
    """Samples in memory; parameters and errors are those of :func:`clip_from_samples`."""

    def __init__(self, samples: ArrayLike, sample_rate_hz: int | None, name: str = "clip") -> None:
        super().__init__(name)
        self._clip = clip_from_samples(samples, sample_rate_hz, name)

    def read(self) -> Clip:
        """Return the clip."""
        return self._clip

    def duration_s(self) -> float:
        """Return the duration in seconds."""
        return self._clip.duration_s


def read_clip(
    path: Path | str | ClipSource,
    max_duration_s: float = math.inf,
    max_samples: int = MAX_SAMPLES,
) -> Clip:
    """Decode one audio file.

    Parameters
    ----------
    path : path-like or ClipSource
        Any format that libsndfile reads; with the extra ``av`` also m4a, mp4, webm, mkv, avi and
        others, of which the first stream of audio is taken.
    max_duration_s : float, default=inf
        A longer file is refused with a ClipTooLongError before more than that is decoded, and one
        longer than :data:`MAX_DURATION_S` in any case.
    max_samples : int, default=MAX_SAMPLES
        The same for the samples of all channels together, at most :data:`MAX_SAMPLES`.

    Returns
    -------
    clip : Clip

    Raises
    ------
    AudioError
        If the file is missing, not a regular file, empty, larger than :data:`MAX_FILE_BYTES`,
        truncated, not audio, or several recordings one after the other; if it is longer than
        `max_duration_s` or `max_samples`, or its rate is not between
        :data:`MIN_SAMPLE_RATE_HZ` and :data:`MAX_SAMPLE_RATE_HZ`; or if it holds samples that are
        not finite or beyond :data:`MAX_AMPLITUDE`.  Pure silence is valid.

    Notes
    -----
    The file is decoded block by block until it ends, and its header's length is only compared with
    the result.  A truncated wav, RF64, AIFF or flac is recognised by the length in its header, an
    ogg by an incomplete last page, an mp3 by the length in its Xing header.  A shortened mp3
    without that header, an ogg cut between two pages, and truncated files of other formats are
    taken as shorter clips.  A truncated mp4 or m4a is recognised by the sizes of its boxes, a webm
    or mkv by that of its segment.
    """
    if isinstance(path, ClipSource):
        try:
            return path.read()
        except AudioError:
            raise
        except Exception as error:  # a source may be a user's own code
            raise AudioError(
                f"{path}: cannot be read ({type(error).__name__}: {error})."
            ) from error
    path = Path(path)
    _check_is_file(path)
    try:
        format_name = container_format(path)
        if format_name is None:
            with _opened(path) as (file, mp3):
                samples = _decode(path, file, mp3, max_duration_s, max_samples)
                rate = file.samplerate
        else:
            samples, rate = _decode_container(path, format_name, max_duration_s, max_samples)
        if len(samples) == 0:
            raise AudioError(f"{path}: the file holds no samples. Replace it or drop its pair.")
        _check_samples(path, samples, rate)
    except AudioError:
        raise
    # A damaged header may promise more samples than the memory can hold.
    except (soundfile.LibsndfileError, OSError, RuntimeError, MemoryError, ValueError) as error:
        raise AudioError(f"{path}: {_why_unreadable(error)}") from None
    return Clip(samples, rate)


def clip_from_samples(samples: ArrayLike, sample_rate_hz: int | None, name: str = "clip") -> Clip:
    """Return samples in memory as the clip that `read_clip` makes of a file with them.

    Parameters
    ----------
    samples : array-like or tensor of shape (n_samples,), (n_samples, n_channels) or \
            (n_channels, n_samples)
        The longer axis is time, so the arrays of soundfile, librosa and torchaudio will do.
        Floating-point samples have full scale ±1.  PCM samples of type int16, int32 or uint8, such
        as ``scipy.io.wavfile.read`` returns, are divided by their full scale, as libsndfile does.
    sample_rate_hz : int
    name : str, default="clip"
        What error messages call it.

    Returns
    -------
    clip : Clip

    Raises
    ------
    AudioError
        If the type or the shape is another, there are no samples, there are more than
        :data:`MAX_CHANNELS` channels, or a limit of `read_clip` is exceeded.

    Examples
    --------
    >>> clip_from_samples(np.array([0, 16384], dtype=np.int16), 8000).samples.ravel()
    array([0. , 0.5], dtype=float32)
    """
    rate = _checked_rate(name, sample_rate_hz)
    array = _as_floats(name, samples)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    elif array.ndim == 2 and array.shape[1] > array.shape[0]:
        array = array.T
    if array.ndim != 2 or not array.size or array.shape[1] > MAX_CHANNELS:
        raise AudioError(
            f"{name}: samples of shape {np.shape(samples)}; expected one clip of shape "
            "(n_samples,), (n_samples, n_channels) or (n_channels, n_samples) with at least one "
            f"sample and at most {MAX_CHANNELS} channels."
        )
    n_channels = array.shape[1]
    if len(array) > (max_samples := _max_samples(rate, n_channels)):
        raise _too_long(name, f"it holds {len(array)}", n_channels, rate, max_samples)
    # The mean over channels depends on the memory layout in its last bit.  Long rows are turned
    # into columns many times faster one by one.
    if not array.flags.c_contiguous:
        array = np.stack(list(array.T), axis=1)
    clip = Clip(array, rate)
    _check_samples(name, clip.samples, rate)
    return clip


def _checked_rate(name: str, rate: object) -> int:
    if isinstance(rate, bool) or not isinstance(rate, SupportsIndex):
        raise AudioError(
            f"{name}: sample_rate_hz is {rate!r}; samples in memory need their sampling rate as a "
            "whole number, for example sample_rate_hz=16000."
        )
    rate = operator.index(rate)
    _check_rate(name, rate, "Give the rate at which the samples were recorded, or resample them.")
    return rate


def _as_floats(name: str, samples: Any) -> FloatArray:
    if hasattr(samples, "detach"):  # a tensor, wherever it lies
        samples = samples.detach().cpu()
        samples = samples.float() if samples.is_floating_point() else samples
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError):  # rows of unequal lengths
        array = np.array(None)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinite samples are refused with their time
            return array.astype(np.float32, copy=False)
    if array.dtype.name not in _FULL_SCALES:
        raise AudioError(
            f"{name}: samples of type {array.dtype}; expected numbers with a floating point and "
            f"full scale ±1, or PCM samples of type {', '.join(_FULL_SCALES)}."
        )
    zero = 128 if array.dtype == np.uint8 else 0
    return (array.astype(np.float32) - np.float32(zero)) / np.float32(
        _FULL_SCALES[array.dtype.name]
    )


def clip_duration(path: Path | ClipSource) -> float:
    """Return the duration in seconds that a header states; 0 for a file that is unusable."""
    if isinstance(path, ClipSource):
        return path.duration_s()
    try:
        _check_is_file(path)
        check_number_of_chunks(path)
        return float(soundfile.info(path).duration)
    except (AudioError, soundfile.LibsndfileError, OSError, RuntimeError, ValueError):
        return 0.0


def _check_is_file(path: Path) -> None:
    """Raise AudioError for a path that cannot be opened or whose reading may never end."""
    try:
        status = path.stat()
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file. Check the path.") from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: {_why_unreadable(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{path}: this is a folder, not an audio file. Check the file name.")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(
            f"{path}: this is a pipe, a device or a socket, not an audio file. Save the audio to a "
            "file first."
        )
    if status.st_size == 0:
        raise AudioError(f"{path}: the file is empty (0 bytes). Copy it again.")
    if status.st_size > MAX_FILE_BYTES:
        raise AudioError(
            f"{path}: too large: {status.st_size} bytes; the limit is {MAX_FILE_BYTES}. Cut it "
            "into shorter clips, or copy it again if it is not that long."
        )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[soundfile.SoundFile, Mp3Frames | None]]:
    """Open a file so that libsndfile decodes all of it, and read the frames of an mp3."""
    with _sound_file(audio_source(path)) as file:
        if file.format != "MP3":
            yield file, None
            return
    source, frames = mp3_source(path)
    with _sound_file(source) as file:
        yield file, frames


class _ForwardFile(soundfile.SoundFile):
    """A file that is read from its start to its end."""

    def seekable(self) -> bool:
        """Keep soundfile from seeking after each block and from trusting the number of frames."""
        return False


@contextmanager
def _sound_file(source: Path | BinaryIO) -> Iterator[soundfile.SoundFile]:
    try:
        with _ForwardFile(source) as file:
            yield file
    finally:
        if not isinstance(source, Path):
            source.close()


def _decode(
    path: Path,
    file: soundfile.SoundFile,
    mp3: Mp3Frames | None,
    max_duration_s: float,
    max_samples: int,
) -> FloatArray:
    """Return all samples of a file, shape (n_samples, n_channels), and check its limits."""
    rate, n_promised = file.samplerate, file.frames
    _check_rate(
        path,
        rate,
        "If the header is wrong, write the clip again with the right one; else resample it.",
    )
    max_samples = _max_samples(rate, file.channels, max_duration_s, max_samples)
    is_known = n_promised < _UNKNOWN_LENGTH
    if is_known and n_promised > max_samples:
        raise _too_long(path, f"its header promises {n_promised}", file.channels, rate, max_samples)
    buffer = np.empty((max(1, _BLOCK_SAMPLES // file.channels), file.channels), dtype=np.float32)
    blocks: list[FloatArray] = []
    n_decoded = 0
    while len(block := file.read(out=buffer)):
        n_decoded += len(block)
        if n_decoded > max_samples:
            found = f"it holds more than {max_samples}"
            raise _too_long(path, found, file.channels, rate, max_samples)
        blocks.append(block.copy())
    slack = 0 if mp3 is None else mp3.slack
    if is_known and n_decoded < n_promised - slack:
        raise AudioError(
            f"{path}: truncated: its header promises {n_promised} samples a channel, "
            f"{n_decoded} could be decoded. Copy the file again."
        )
    if mp3 is not None and is_known and mp3.n_samples > n_promised + slack:
        raise AudioError(
            f"{path}: its header promises {n_promised} samples a channel, and its frames hold "
            f"{mp3.n_samples}: several mp3 recordings one after the other. Split it, or convert it "
            "to wav with a program that plays all of it."
        )
    return np.concatenate(blocks) if blocks else buffer[:0]


def _decode_container(
    path: Path, format_name: str, max_duration_s: float, max_samples: int
) -> tuple[FloatArray, int]:
    """Return all samples of a container's sound, shape (n_samples, n_channels), and their rate."""
    with open_container(path, format_name) as sound:
        rate, n_channels = sound.sample_rate_hz, sound.n_channels
        _check_rate(path, rate, "Convert it to wav.")
        if not 1 <= n_channels <= MAX_CHANNELS:
            raise AudioError(f"{path}: its sound has {n_channels} channels. Convert it to wav.")
        max_samples = _max_samples(rate, n_channels, max_duration_s, max_samples)
        blocks = [np.empty((0, n_channels), dtype=np.float32)]
        n_decoded = 0
        for block in sound.blocks:
            n_decoded += len(block)
            if n_decoded > max_samples:
                raise _too_long(
                    path, f"it holds more than {max_samples}", n_channels, rate, max_samples
                )
            blocks.append(block)
    return np.concatenate(blocks), rate


def _check_rate(name: Path | str, rate: int, remedy: str) -> None:
    if not MIN_SAMPLE_RATE_HZ <= rate <= MAX_SAMPLE_RATE_HZ:
        raise AudioError(
            f"{name}: its sampling rate is {rate} Hz; expected {MIN_SAMPLE_RATE_HZ} to "
            f"{MAX_SAMPLE_RATE_HZ} Hz. {remedy}"
        )


def _max_samples(
    rate: int, n_channels: int, max_duration_s: float = math.inf, max_samples: int = MAX_SAMPLES
) -> int:
    """Return how many samples a channel may have."""
    of_all_channels = min(max_samples, MAX_SAMPLES)
    return min(int(min(max_duration_s, MAX_DURATION_S) * rate), of_all_channels // n_channels)


def _too_long(
    name: Path | str, found: str, n_channels: int, rate: int, max_samples: int
) -> ClipTooLongError:
    return ClipTooLongError(
        f"{name}: too long: {found} samples a channel. A clip of {n_channels} channel(s) at "
        f"{rate} Hz may hold {max_samples} ({max_samples / rate:.0f} s). Cut it into "
        "shorter clips, or copy it again if it is not that long."
    )


def _check_samples(name: Path | str, samples: FloatArray, rate: int) -> None:
    """Raise AudioError for samples that would turn a spectrum into NaN."""
    largest = max(abs(float(samples.max())), abs(float(samples.min())))  # NaN stays NaN
    if largest <= MAX_AMPLITUDE:
        return
    is_bad = ~np.isfinite(samples).all(axis=1)
    what = "NaN or infinite"
    if not is_bad.any():
        is_bad = (np.abs(samples) > MAX_AMPLITUDE).any(axis=1)
        what = f"beyond ±{MAX_AMPLITUDE:.0f}, the largest {largest:.3g}, where full scale is ±1"
    bad = np.flatnonzero(is_bad)
    raise AudioError(
        f"{name}: {len(bad)} of {len(samples)} samples are {what}, the first at "
        f"{bad[0] / rate:.3f} s. Write the clip again from its source."
    )


def _why_unreadable(error: Exception) -> str:
    """Explain to the user why the system or libsndfile failed."""
    if isinstance(error, MemoryError):
        return "there is too little memory to decode it. Cut it into shorter clips."
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror}). Check the path and its permissions."
    reason = getattr(error, "error_string", str(error)).rstrip(". ")
    return (
        f"not readable as audio ({reason}). Expected wav, flac, ogg, mp3, m4a, mp4 or webm; if it "
        "is another format, convert it to wav first."
    )


def repeat_to_length(samples: FloatArray, n_samples: int) -> FloatArray:
    """Repeat a shorter clip as often as it fits completely, then pad it with zeros.

    This is the ``repeatpad`` of LAION-CLAP.  A clip of ``n_samples`` or more is returned unchanged.

    Parameters
    ----------
    samples : ndarray of shape (n,)
        At least one sample.
    n_samples : int

    Returns
    -------
    repeated : ndarray of shape (max(n, n_samples),)

    Examples
    --------
    >>> repeat_to_length(np.array([1.0, 2.0]), 5)
    array([1., 2., 1., 2., 0.])
    """
    if len(samples) >= n_samples:
        return samples
    repeated = np.tile(samples, n_samples // len(samples))
    return np.pad(repeated, (0, n_samples - len(repeated)))


def fixed_windows(samples: FloatArray, n_samples: int) -> FloatArray:
    """Cover a clip with the smallest number of equal windows.

    A shorter clip gives one window, filled by :func:`repeat_to_length`.  A longer one gives
    ``ceil(n / n_samples)`` evenly spaced windows, the first at its start and the last at its end.
    So they contain every sample and no padding.

    Parameters
    ----------
    samples : ndarray of shape (n,)
        At least one sample.
    n_samples : int
        Length of a window.

    Returns
    -------
    windows : ndarray of shape (n_windows, n_samples)

    Examples
    --------
    >>> fixed_windows(np.arange(5.0), 3)
    array([[0., 1., 2.],
           [2., 3., 4.]])
    """
    if len(samples) <= n_samples:
        return repeat_to_length(samples, n_samples)[np.newaxis]
    n_windows = -(-len(samples) // n_samples)
    starts = np.linspace(0, len(samples) - n_samples, n_windows).round().astype(int)
    return np.stack([samples[start : start + n_samples] for start in starts])
