"""Reads rows of one output of one segment, in any order, and verifies each chunk once.

HDF5 reads and verifies a whole chunk, a quarter of a MiB, even for a single row.  A store has its
rows in the order of encoding (by length) and pairs have the order of their CSV file, so a block of
a few thousand pairs may touch as many chunks, a hundred times the bytes that it needs.  Segments
are immutable, so a chunk goes through HDF5 only when a process first reads it; afterwards its rows
are read directly from the file.  Reading all rows in any order then costs one reading of all
chunks, and after that the bytes of the rows and one system call for each run of rows (2
microseconds for a single row).
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.cache.segment_file import (
    Segment,
    StoredSequences,
    chunk_bytes,
    identity,
    open_segment,
    segment_errors,
)
from xacle_stack.cache.sequences import consecutive
from xacle_stack.errors import CacheError, UnknownNameError

# One call reads up to so many neighbouring chunks through HDF5: 4 MiB.
_RUN_CHUNKS = 16
# Times of change have steps of milliseconds on disks, and of up to two seconds elsewhere.
_SETTLED_S = 3.0
_FRAMES = "/frames"


def open_rows(path: Path, output: str) -> SegmentRows:
    """Return what reads an output of a segment: the same object for a whole process.

    So the parts of a table of pairs, and the tasks of a worker, neither open all segments again nor
    verify their chunks again.  Errors are those of :class:`SegmentRows`.
    """
    with segment_errors(path):
        status = path.stat()
    # A file that changed just now may change again without another time of change.
    if time.time() - status.st_ctime < _SETTLED_S:
        return SegmentRows(path, output)
    return _open_rows(path, output, *identity(status))


@lru_cache(maxsize=1 << 14)
def _open_rows(path: Path, output: str, *_identity: int) -> SegmentRows:
    return SegmentRows(path, output)


class SegmentRows:
    """Rows of one output of one segment: of single vectors, or of ``"<name>/frames"``.

    UnknownNameError if the segment has no such output; CacheError if its rows are sequences, or the
    segment is gone or damaged.
    """

    def __init__(self, path: Path, output: str) -> None:
        self._path, self._output = path, output
        with open_segment(path) as segment:
            values = self._values(segment)
            self.row_shape: tuple[int, ...] = values.shape[1:]
            self.dtype: np.dtype[Any] = values.dtype
            self._chunk_rows = int(values.chunks[0])
            # Each chunk's position in the file; 0 until the chunk is verified.
            self._offsets: NDArray[np.int64] = np.zeros(
                -(-len(values) // self._chunk_rows), dtype=np.int64
            )

    def read(self, rows: IntArray, out: FloatArray) -> None:
        """Write rows into a C-contiguous array of the segment's type.

        They are ascending, without duplicates.  CacheError if a checksum is wrong, or the file is
        gone or shorter than it was.
        """
        verified = self._offsets[rows // self._chunk_rows] > 0
        fresh = np.flatnonzero(~verified)
        if len(fresh):
            self._read_and_verify(rows, fresh, out)
        known = np.flatnonzero(verified)
        if len(known):
            self._read_in_place(rows, known, out)

    def _values(self, segment: Segment) -> h5py.Dataset:
        values = _find(self._path, segment, self._output)
        if isinstance(values, StoredSequences):
            raise CacheError(
                f"{self._path}: the output {self._output!r} holds a sequence of vectors for each "
                "item, not one vector. Read it with audio_sequences or text_sequences."
            )
        return values

    def _read_and_verify(self, rows: IntArray, wanted: IntArray, out: FloatArray) -> None:
        chunks = rows[wanted] // self._chunk_rows
        # Skips chunks without wanted rows, and limits the size of one reading.
        ends = np.flatnonzero((np.diff(chunks) > 1) | (np.diff(chunks // _RUN_CHUNKS) > 0)) + 1
        with open_segment(self._path) as segment:
            values = self._values(segment)
            for run in np.split(wanted, ends):
                first, last = int(rows[run[0]]), int(rows[run[-1]])
                out[run] = values[first : last + 1][rows[run] - first]
            for chunk in np.unique(chunks).tolist():
                self._offsets[chunk] = _offset(values, chunk, segment.n_bytes)

    def _read_in_place(self, rows: IntArray, wanted: IntArray, out: FloatArray) -> None:
        row_bytes = out[0].nbytes
        chunks, within = np.divmod(rows[wanted], self._chunk_rows)
        positions = self._offsets[chunks] + within * row_bytes
        ends = np.flatnonzero((np.diff(positions) != row_bytes) | (np.diff(wanted) != 1)) + 1
        starts = np.concatenate([[0], ends])
        lengths = np.diff(np.append(starts, len(wanted))) * row_bytes
        target = out.reshape(-1).view(np.uint8).data
        with segment_errors(self._path), self._path.open("rb", buffering=0) as file:
            for position, begin, n_bytes in zip(
                positions[starts].tolist(),
                (wanted[starts] * row_bytes).tolist(),
                lengths.tolist(),
                strict=True,
            ):
                file.seek(position)
                if file.readinto(target[begin : begin + n_bytes]) != n_bytes:
                    raise OSError("shorter than it was")


class SegmentSequences:
    """Rows of one output of one segment, if the rows are sequences; `lengths` are in frames.

    UnknownNameError if the segment has no such output; CacheError if its rows are single vectors,
    or the segment is gone or damaged.
    """

    def __init__(self, path: Path, output: str) -> None:
        with open_segment(path) as segment:
            found = _find(path, segment, output)
            if not isinstance(found, StoredSequences):
                raise CacheError(
                    f"{path}: the output {output!r} holds one vector for each item, not a sequence "
                    "of them. Read it with audio or text."
                )
            offsets = found.read_offsets()
        self._starts, self.lengths = offsets[:-1], np.diff(offsets)
        self._frames = open_rows(path, f"{output}{_FRAMES}")
        self.frame_shape, self.dtype = self._frames.row_shape, self._frames.dtype

    def read(self, rows: IntArray) -> list[FloatArray]:
        """Return sequences, arrays of shape (n_frames, *frame_shape) of the segment's type.

        Rows and errors as in :meth:`SegmentRows.read`.
        """
        lengths = self.lengths[rows]
        frames = np.empty((int(lengths.sum()), *self.frame_shape), dtype=self.dtype)
        self._frames.read(consecutive(self._starts[rows], lengths), frames)
        return np.split(frames, np.cumsum(lengths)[:-1])


def _find(path: Path, segment: Segment, output: str) -> h5py.Dataset | StoredSequences:
    name = output.removesuffix(_FRAMES)
    if name not in segment.outputs:
        raise UnknownNameError(
            f"{path}: no output {name!r}. It holds: {', '.join(segment.outputs)}."
        )
    found = segment.outputs[name]
    return found.frames if name != output and isinstance(found, StoredSequences) else found


def _offset(values: h5py.Dataset, chunk: int, n_bytes: int) -> int:
    """Return the position of a chunk in a file of `n_bytes`."""
    start = (chunk * values.chunks[0], *(0 for _ in values.shape[1:]))
    stored = values.id.get_chunk_info_by_coord(start)
    begin, size = stored.byte_offset, chunk_bytes(values)
    if begin is None or stored.filter_mask or stored.size != size or begin + size > n_bytes:
        raise ValueError(f"chunk {chunk} of {values.name} is not stored as a segment stores it")
    return int(begin)
