"""Prepares files for libsndfile and finds their length from their own structure.

libsndfile silently shortens some files.  It trusts an estimate of the length of an mp3, reads only
the first of several recordings in one file, and accepts a file whose end is missing.
"""

import io
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from xacle_stack.errors import AudioError

# A program that writes to a pipe does not know the length and writes 0 or nearly the maximum.
_UNKNOWN_WAV_SIZE = 0x7FFE0000
_UNKNOWN_SIZE = 1 << 62
# Some programs include the 44 bytes of the header in the length of the audio.
_HEADER_BYTES = 44
# With this claimed size, libsndfile's estimate of the length is never reached.
_CLAIMED_BYTES = 1 << 50
# libsndfile looks for tags in so many bytes at the end; a view has none there.
_TAIL_BYTES = 4096
# The frames of the header, the encoder's delay and its padding.
_MP3_SURPLUS_FRAMES = 4

# The largest numbers of chunks, pages or frames: more than an hour of the shortest packets (2.5 ms)
# needs, and more chunks than any program writes before the audio.
_MAX_STEPS = 2_000_000
_MAX_CHUNKS = 10_000

_KBIT_MPEG1_LAYER1 = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_KBIT_MPEG1_LAYER2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_KBIT_MPEG1_LAYER3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBIT_MPEG2_LAYER1 = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_KBIT_MPEG2_LAYER23 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)

_ONE_RECORDING = "Split it, or convert it to wav with a program that plays all of it."


def audio_source(path: Path) -> Path | BinaryIO:
    """Return a source that libsndfile decodes to the end: the file, or a corrected view of it.

    Parameters
    ----------
    path : Path
        A regular file whose size the caller has limited.  For an mp3 use :func:`mp3_source`.

    Returns
    -------
    source : Path or binary file
        A view if the header of a wav states no audio but audio follows.

    Raises
    ------
    AudioError
        If a wav, RF64, AIFF or ogg file is truncated; or if a wav, ogg or flac file holds several
        recordings one after the other, or more chunks or pages than any recording.
    """
    if path.stat().st_size == 0:
        return path
    with path.open("rb") as file:
        magic = file.read(4)
        if magic in {b"RIFF", b"RIFX", b"RF64", b"FORM"}:
            return _check_chunks(path, file, magic)
        if magic in {b"OggS", b"fLaC"}:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if magic == b"OggS":
                    _check_ogg(path, content)
                elif content.find(b"fLaC\0\0\0\x22", 4) > 0:
                    raise AudioError(
                        f"{path}: several flac recordings one after the other; only the first "
                        f"could be decoded. {_ONE_RECORDING}"
                    )
    return path


def _check_chunks(path: Path, file: BinaryIO, magic: bytes) -> Path | BinaryIO:
    """Raise AudioError for a file that ends before its chunk of audio."""
    order = "<" if magic in {b"RIFF", b"RF64"} else ">"
    n_bytes = path.stat().st_size
    (container_size,) = struct.unpack(f"{order}I", file.read(4).ljust(4, b"\0"))
    long_size = None
    for name, size, start in _chunks(file, 12, order):
        if name == b"ds64":
            long_size = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))[0]
        if name not in {b"data", b"SSND"}:
            continue
        if magic == b"RF64" and size == 0xFFFFFFFF and long_size is not None:
            size, is_unknown = long_size, not 0 < long_size < _UNKNOWN_SIZE
        else:
            is_unknown = not 0 < size < _UNKNOWN_WAV_SIZE
        if magic == b"RIFF" and size == 0 and not _is_chunks_to_the_end(file, start, n_bytes):
            return FileView(path, patch=(start - 4, b"\xff\xff\xff\xff"))
        missing = start + size - n_bytes
        # A complete file may have a header that is slightly wrong.
        is_whole = container_size + 8 == n_bytes or missing <= _HEADER_BYTES
        if missing > 0 and not is_unknown and not is_whole:
            raise AudioError(
                f"{path}: truncated: its header promises {size} bytes of audio, {missing} of them "
                "are missing. Copy the file again, or have the program that wrote it mend its "
                "header."
            )
        file.seek(start + size + size % 2)
        if not is_unknown and file.read(4) == magic:
            raise AudioError(
                f"{path}: several recordings one after the other; only the first could be "
                f"decoded. {_ONE_RECORDING}"
            )
        break
    return path


def _chunks(file: BinaryIO, start: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, the size and the position of the content of each chunk."""
    file.seek(start)
    n_chunks = 0
    while len(header := file.read(8)) == 8:
        n_chunks += 1
        if n_chunks > _MAX_CHUNKS:
            raise _too_many_parts(Path(file.name), _MAX_CHUNKS, "chunks")
        name, size = struct.unpack(f"{order}4sI", header)
        start = file.tell()
        yield name, size, start
        file.seek(start + size + size % 2)


def check_number_of_chunks(path: Path) -> None:
    """Raise AudioError for a wav, RF64 or AIFF file in more chunks than any program writes."""
    with path.open("rb") as file:
        magic = file.read(4)
        if magic in {b"RIFF", b"RIFX", b"RF64", b"FORM"}:
            for _ in _chunks(file, 12, "<" if magic in {b"RIFF", b"RF64"} else ">"):
                pass


def _too_many_parts(path: Path, max_parts: int, parts: str) -> AudioError:
    return AudioError(
        f"{path}: damaged: it is made of more than {max_parts} {parts}, which no clip needs. Copy "
        "the file again, or convert it to wav."
    )


def _is_chunks_to_the_end(file: BinaryIO, start: int, n_bytes: int) -> bool:
    """Return whether only chunks follow that fill the file exactly, so that there is no audio."""
    end = start
    for name, size, content in _chunks(file, start, "<"):
        if not all(32 <= byte < 127 for byte in name):
            return False
        end = content + size
    return n_bytes in {end, end + end % 2}


def _check_ogg(path: Path, content: mmap.mmap) -> None:
    """Raise AudioError for an incomplete last page, or a second stream after the first."""
    start, has_audio, n_steps = 0, False, 0
    while start < len(content):
        n_steps += 1
        if n_steps > _MAX_STEPS:
            raise _too_many_parts(path, _MAX_STEPS, "pages")
        # Junk between pages is skipped; a page cut within its first four bytes is still a page.
        if not b"OggS".startswith(content[start : start + 4]):
            start = content.find(b"OggS", start)
            if start < 0:
                return
        header = content[start : start + 27]
        n_segments = header[26] if len(header) == 27 else 0
        sizes = content[start + 27 : start + 27 + n_segments]
        end = start + 27 + n_segments + sum(sizes)
        if len(header) < 27 or len(sizes) < n_segments or end > len(content):
            raise AudioError(
                f"{path}: truncated: its last page, at byte {start}, is not complete. Copy the "
                "file again."
            )
        is_first_page = bool(header[5] & 2)
        if is_first_page and has_audio:
            raise AudioError(
                f"{path}: several ogg recordings one after the other, the second at byte {start}; "
                f"only the first could be decoded. {_ONE_RECORDING}"
            )
        has_audio = has_audio or not is_first_page
        start = end


@dataclass(frozen=True)
class Mp3Frames:
    """What the frames of an mp3 say, independently of its header.

    Attributes
    ----------
    end : int
        End of the last complete frame in bytes.
    n_samples : int
        Samples of a channel in all frames, including that of the header.
    slack : int
        A correct header may state up to so many samples less, for the encoder's delay and padding.
    are_counted : bool
        Whether the first frame is a header that states the number of frames.
    """

    end: int
    n_samples: int
    slack: int
    are_counted: bool


def mp3_source(path: Path) -> tuple[Path | BinaryIO, Mp3Frames]:
    """Return a source that libsndfile decodes to the last frame of an mp3, and the frames.

    Without a Xing header, libsndfile estimates the length from the size of the file and stops
    there.  It is then given a view with a claimed size so large that the estimate is never reached.

    Raises
    ------
    AudioError
        If the file has more frames, tags and other parts than any recording.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        frames = _walk_mp3(path, content)
    if frames.are_counted:
        return path, frames
    return FileView(path, end=frames.end, claimed_size=_CLAIMED_BYTES), frames


def _walk_mp3(path: Path, content: mmap.mmap) -> Mp3Frames:
    position, end, n_samples, samples_a_frame, are_counted = 0, 0, 0, 0, False
    n_steps = 0
    while position + 4 <= len(content):
        n_steps += 1
        if n_steps > _MAX_STEPS:
            raise _too_many_parts(path, _MAX_STEPS, "frames")
        header = content[position : position + 4]
        size, in_frame = _mp3_frame(header)
        after = position + size
        # A header alone is trusted only directly after another frame.
        if size and (position == end > 0 or _is_same_stream(header, content[after : after + 4])):
            if after > len(content):
                break
            if not end:
                are_counted = _is_counting(content[position:after])
            position = end = after
            samples_a_frame = max(samples_a_frame, in_frame)
            n_samples += in_frame
        elif header[:3] == b"ID3":
            tag = content[position + 6 : position + 10].ljust(4, b"\0")
            position += 10 + sum((byte & 0x7F) << 7 * (3 - i) for i, byte in enumerate(tag))
        else:
            position = content.find(b"\xff", position + 1)
            if position < 0:
                break
    # Frames without a bit rate have no known size, so libsndfile has to find their end.
    slack = _MP3_SURPLUS_FRAMES * samples_a_frame
    return Mp3Frames(end or len(content), n_samples, slack, are_counted)


def _is_counting(frame: bytes) -> bool:
    """Return whether a frame is a header that states the number of frames."""
    for name in (b"Xing", b"Info"):
        index = frame.find(name, 0, 64)
        if index > 0:
            return len(frame) > index + 7 and bool(frame[index + 7] & 1)
    return frame.find(b"VBRI", 0, 64) > 0


def _mp3_frame(header: bytes) -> tuple[int, int]:
    """Return the bytes and samples of a frame; (0, 0) if this is not the header of a frame."""
    sync, rates, _ = header[0] << 8 | header[1], header[2], header[3]
    version, layer = sync >> 3 & 3, 4 - (sync >> 1 & 3)  # version: 0 is 2.5, 2 is 2, 3 is 1
    if sync < 0xFFE0 or version == 1 or layer == 4:
        return 0, 0
    if not 0 < rates >> 4 < 15 or rates >> 2 & 3 == 3:
        return 0, 0
    if version == 3:
        table = (_KBIT_MPEG1_LAYER1, _KBIT_MPEG1_LAYER2, _KBIT_MPEG1_LAYER3)[layer - 1]
    else:
        table = _KBIT_MPEG2_LAYER1 if layer == 1 else _KBIT_MPEG2_LAYER23
    bit_rate = 1000 * table[(rates >> 4) - 1]
    sample_rate_hz = (44_100, 48_000, 32_000)[rates >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]
    padding = rates >> 1 & 1
    if layer == 1:
        return (12 * bit_rate // sample_rate_hz + padding) * 4, 384
    n_samples = 576 if layer == 3 and version != 3 else 1152
    return n_samples // 8 * bit_rate // sample_rate_hz + padding, n_samples


def _is_same_stream(header: bytes, other: bytes) -> bool:
    """Return whether two frames have the same version, layer and sampling rate."""
    return (
        len(other) == 4
        and _mp3_frame(other)[0] > 0
        and header[1] & 0xFE == other[1] & 0xFE
        and header[2] & 0x0C == other[2] & 0x0C
    )


class FileView(io.RawIOBase, BinaryIO):
    """A file as it should have been written.

    Parameters
    ----------
    path : Path
    end : int, optional
        Its end in bytes; None for the end of the file.
    claimed_size : int, optional
        The size that seeking to the end finds, if it is not `end`.
    patch : tuple of int and bytes, optional
        A position, and bytes that replace those of the file there.
    """

    def __init__(
        self,
        path: Path,
        *,
        end: int | None = None,
        claimed_size: int | None = None,
        patch: tuple[int, bytes] | None = None,
    ) -> None:
        self._file = path.open("rb")
        self._end = path.stat().st_size if end is None else end
        self._claimed_size = self._end if claimed_size is None else claimed_size
        self._patch = patch
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move as in any file; the end is that of the claimed size."""
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._claimed_size}
        self._position = origins[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # any writable buffer
        """Read up to a buffer's length; the claimed end reads as zeros."""
        target = memoryview(buffer)
        if self._claimed_size != self._end and self._position >= self._claimed_size - _TAIL_BYTES:
            n_read = min(len(target), self._claimed_size - self._position)
            target[:n_read] = bytes(n_read)
        else:
            self._file.seek(self._position)
            content = bytearray(
                self._file.read(max(0, min(len(target), self._end - self._position)))
            )
            if self._patch is not None:
                self._put_patch(content)
            n_read = len(content)
            target[:n_read] = content
        self._position += n_read
        return n_read

    def _put_patch(self, content: bytearray) -> None:
        start, patch = self._patch or (0, b"")
        for index, byte in enumerate(patch, start=start - self._position):
            if 0 <= index < len(content):
                content[index] = byte

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
