"""Audio files to mono samples: decode, mix down, resample, fit to fixed windows.

Everything here is deterministic: no random crop, no dither.  Samples are float32, full scale is
±1.  The formats are those of libsndfile (wav, flac, ogg, mp3, …).
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from xacle_stack._types import FloatArray
from xacle_stack.errors import AudioError

# Part of every audio fingerprint: raise it when the same file would give other mono samples.
AUDIO_VERSION = "mean of channels, soxr HQ"

# Programs that write to a pipe do not know the length: they put 0 or nearly the most there is.
_UNKNOWN_WAV_SIZE = 0x7FFE0000


@dataclass(frozen=True, eq=False)
class Clip:
    """A decoded audio file.

    Attributes
    ----------
    samples : ndarray of shape (n_samples, n_channels)
        float32, as they stand in the file.
    sample_rate_hz : int
    """

    samples: FloatArray
    sample_rate_hz: int

    @property
    def content_key(self) -> str:
        """32 hexadecimal digits that name the decoded audio, whatever the file is called.

        A 16-bit WAV and the FLAC made from it have the same key.
        """
        digest = hashlib.blake2b(digest_size=16)
        digest.update(struct.pack("<4sII", b"clip", self.sample_rate_hz, self.samples.shape[1]))
        digest.update(np.ascontiguousarray(self.samples, dtype="<f4").data)
        return digest.hexdigest()

    def mono(self, sample_rate_hz: int) -> FloatArray:
        """Return the mean of the channels at another rate, shape (n_samples,).

        The resampler is soxr's HQ, which is what ``librosa.load`` uses.
        """
        mixed: FloatArray = self.samples.mean(axis=1, dtype=np.float32)
        if sample_rate_hz == self.sample_rate_hz:
            return mixed
        resampled: FloatArray = soxr.resample(
            mixed, self.sample_rate_hz, sample_rate_hz, quality="HQ"
        )
        # A clip of a few samples can round down to none.
        return resampled if len(resampled) else mixed[:1]


def read_clip(path: Path | str) -> Clip:
    """Decode one audio file.

    Parameters
    ----------
    path : path-like
        Any format that libsndfile reads.

    Returns
    -------
    clip : Clip

    Raises
    ------
    AudioError
        If the file is missing, empty, truncated, not audio, or holds samples that are not
        finite.  Pure silence is valid.

    Notes
    -----
    A truncated wav (RIFF) or flac is recognised by the length in its header.  A shortened file
    of another format, ogg and mp3 among them, is a shorter clip.
    """
    path = Path(path)
    try:
        with soundfile.SoundFile(path) as file:
            n_declared = file.frames
            samples = file.read(dtype="float32", always_2d=True)
            rate, container = file.samplerate, file.format
    # A damaged header can promise more samples than any memory holds.
    except (soundfile.LibsndfileError, OSError, RuntimeError, MemoryError, ValueError) as error:
        raise AudioError(f"{path}: {_why_unreadable(path, error)}") from None
    if container in {"WAV", "WAVEX"}:
        _check_wav_is_whole(path)
    if len(samples) == 0:
        raise AudioError(f"{path}: the file holds no samples. Replace it or drop its pair.")
    if len(samples) < n_declared and container != "MP3":
        raise AudioError(
            f"{path}: truncated: its header promises {n_declared} samples a channel, "
            f"{len(samples)} could be decoded. Copy the file again."
        )
    if not np.isfinite(samples).all():
        bad = np.flatnonzero(~np.isfinite(samples).all(axis=1))
        raise AudioError(
            f"{path}: {len(bad)} of {len(samples)} samples are NaN or infinite, the first at "
            f"{bad[0] / rate:.3f} s. Write the clip again from its source."
        )
    return Clip(samples, rate)


def _why_unreadable(path: Path, error: Exception) -> str:
    """Guess what the user did from what libsndfile could not do."""
    if path.is_dir():
        return "this is a folder, not an audio file. Check the file name."
    if not path.exists():
        return "no such file. Check the path."
    if path.stat().st_size == 0:
        return "the file is empty (0 bytes). Copy it again."
    reason = getattr(error, "error_string", str(error)).rstrip(". ")
    return (
        f"not readable as audio ({reason}). Expected wav, flac, ogg or mp3; if it is another "
        "format, convert it to wav first."
    )


def _check_wav_is_whole(path: Path) -> None:
    """Raise AudioError where a WAV file ends before its data chunk does.

    libsndfile quietly shortens such a file, so its own frame count cannot tell.
    """
    n_bytes = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":  # RF64 keeps 64-bit sizes elsewhere
            return
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"data":
                missing = file.tell() + size - n_bytes
                if missing > 0 and 0 < size < _UNKNOWN_WAV_SIZE:
                    raise AudioError(
                        f"{path}: truncated: its header promises {size} bytes of audio, "
                        f"{missing} of them are missing. Copy the file again."
                    )
                return
            file.seek(size + size % 2, 1)


def repeat_to_length(samples: FloatArray, n_samples: int) -> FloatArray:
    """Repeat a shorter clip as often as it fits whole, then pad with zeros.

    This is the ``repeatpad`` of LAION-CLAP.  A clip of ``n_samples`` or more is returned as it is.

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
    """Cover a clip with as few equal windows as needed, always the same ones.

    A shorter clip gives one window, filled by :func:`repeat_to_length`.  A longer one gives
    ``ceil(n / n_samples)`` windows at even distances, the first at its start and the last at its
    end, so that every sample is heard and none is invented.

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
