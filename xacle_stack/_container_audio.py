"""Decodes the sound of containers that libsndfile does not open: m4a, mp4, webm, mkv, avi, ….

PyAV, which brings FFmpeg, decodes the first stream of audio with all its channels at its own rate.
A file is taken for a container by its first bytes, which also choose the demuxer, so that FFmpeg
never guesses and opens nothing but the file: no playlist, no network address, no second file.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xacle_stack._optional import require
from xacle_stack._types import FloatArray
from xacle_stack.errors import AudioError

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MAX_BOXES = 1_000_000
# FFmpeg's formats of samples, planar or not, and what is full scale in them.
_FULL_SCALES = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "flt": 1, "dbl": 1}


def container_format(path: Path) -> str | None:
    """Return the name of FFmpeg's demuxer for a file, by its first bytes; None for other files.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     n_bytes = file.write(b"FLV..."), file.flush()
    ...     container_format(Path(file.name))
    'flv'
    """
    with path.open("rb") as file:
        start = file.read(189)
    if start[4:8] in _MP4_BOXES:
        return "mov"
    if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
        return "avi"
    for magic, name in {
        _EBML: "matroska",
        b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
        b"FLV": "flv",
        b"\0\0\1\xba": "mpeg",
        b"#!AMR": "amr",
    }.items():
        if start.startswith(magic):
            return name
    # Raw AAC has the sync word of an mp3, but layer 0.
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0:
        return "aac"
    if len(start) == 189 and start[0] == start[188] == 0x47:
        return "mpegts"
    return None


@dataclass(frozen=True)
class ContainerSound:
    """The first stream of audio in an open container.

    Attributes
    ----------
    sample_rate_hz, n_channels : int
    blocks : iterator of ndarray of shape (n_samples, n_channels)
        Its samples as float32, full scale ±1.
    """

    sample_rate_hz: int
    n_channels: int
    blocks: Iterator[FloatArray]


@contextmanager
def open_container(path: Path, format_name: str) -> Iterator[ContainerSound]:
    """Open a container to decode its sound.

    Parameters
    ----------
    path : Path
    format_name : str
        As :func:`container_format` returns it.

    Raises
    ------
    AudioError
        If PyAV is not installed, or the file is truncated, damaged or holds no sound.
    """
    try:
        av = require("av", extra="av", purpose=f"{path}: sound in a {format_name} file")
    except ImportError as error:
        raise AudioError(f"{error}, or convert the file to wav first.") from None
    with path.open("rb") as file:
        if format_name == "mov":
            _check_boxes(path, file)
        elif format_name == "matroska":
            _check_segment(path, file)
        file.seek(0)
        try:
            with av.open(file, format=format_name, metadata_errors="replace") as container:
                if not container.streams.audio:
                    raise AudioError(f"{path}: the file holds no sound. Drop its pair.")
                stream = container.streams.audio[0]
                if getattr(stream, "codec_context", None) is None:
                    raise AudioError(f"{path}: its sound is in a form that FFmpeg does not know.")
                yield _sound(path, container, stream)
        # A few of PyAV's errors are not its own.
        except (av.FFmpegError, ArithmeticError, LookupError, ValueError) as error:
            if isinstance(error, AudioError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise AudioError(
                f"{path}: its sound cannot be decoded ({reason}). Copy the file again, or convert "
                "it to wav."
            ) from None


def _sound(path: Path, container: Any, stream: Any) -> ContainerSound:
    rate, n_channels = stream.codec_context.sample_rate, stream.codec_context.channels

    def blocks() -> Iterator[FloatArray]:
        for frame in container.decode(stream):
            if (frame.sample_rate, len(frame.layout.channels)) != (rate, n_channels):
                raise AudioError(
                    f"{path}: its rate or its number of channels changes at "
                    f"{frame.time or 0:.3f} s. Convert it to wav."
                )
            yield _samples(path, frame, n_channels)

    return ContainerSound(rate, n_channels, blocks())


def _samples(path: Path, frame: Any, n_channels: int) -> FloatArray:
    kind = frame.format.name.removesuffix("p")
    if kind not in _FULL_SCALES:
        raise AudioError(f"{path}: its samples are of type {kind}. Convert it to wav.")
    array = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, n_channels)
    if kind == "u8":
        array = array.astype(np.float32) - np.float32(_FULL_SCALES[kind])
    return array.astype(np.float32) / np.float32(_FULL_SCALES[kind])


def _check_boxes(path: Path, file: BinaryIO) -> None:
    """Raise AudioError for an MP4 file whose last box is not complete."""
    n_bytes, start = path.stat().st_size, 0
    for _ in range(_MAX_BOXES):
        file.seek(start)
        header = file.read(16)
        if len(header) < 8:
            return
        size = struct.unpack(">I", header[:4])[0]
        if size == 1 and len(header) == 16:
            size = struct.unpack(">Q", header[8:])[0]
        if size == 0:  # to the end of the file
            return
        if size < 8 or not all(32 <= byte < 127 or byte == 0xA9 for byte in header[4:8]):
            return  # junk after the last box
        start += size
        if start > n_bytes:
            raise _truncated(path, start - n_bytes)


def _check_segment(path: Path, file: BinaryIO) -> None:
    """Raise AudioError for a Matroska or WebM file whose segment is not complete."""
    file.seek(4)
    n_header = _ebml_size(file)
    if n_header is None:
        return
    file.seek(n_header, 1)
    if file.read(4) != _SEGMENT:
        return
    size = _ebml_size(file)  # a program that writes to a pipe does not know it
    if size is not None and file.tell() + size > path.stat().st_size:
        raise _truncated(path, file.tell() + size - path.stat().st_size)


def _ebml_size(file: BinaryIO) -> int | None:
    """Read the size of an element; None if it is not known."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    n_more = 8 - first[0].bit_length()
    rest = file.read(n_more)
    marker = 1 << (7 - n_more)
    size = int.from_bytes(bytes([first[0] - marker]) + rest, "big")
    is_unknown = size == (1 << 7 * (n_more + 1)) - 1
    return None if is_unknown or len(rest) < n_more else size


def _truncated(path: Path, n_missing: int) -> AudioError:
    return AudioError(f"{path}: truncated: {n_missing} bytes are missing. Copy the file again.")
