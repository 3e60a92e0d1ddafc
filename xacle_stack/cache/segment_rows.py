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

import math
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
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
_UNVERIFIED = -(1 << 62)


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
            self._row_bytes = math.prod(self.row_shape) * self.dtype.itemsize
            # Each chunk's position in the file; negative until the chunk is verified.
            self._offsets: NDArray[np.int64] = np.full(
                -(-len(values) // self._chunk_rows), _UNVERIFIED, dtype=np.int64
            )

    def read(self, rows: IntArray, out: FloatArray) -> None:
        """Write rows, ascending and without duplicates, into `out`; see :func:`read_rows`."""
        read_rows([self], [0, len(rows)], rows, np.arange(len(rows)), out)

    def positions(self, rows: IntArray) -> IntArray:
        """Return the position of each row in the file; negative if its chunk is not verified."""
        chunks, within = np.divmod(rows, self._chunk_rows)
        found: IntArray = self._offsets[chunks] + within * self._row_bytes
        return found

    def _values(self, segment: Segment) -> h5py.Dataset:
        values = _find(self._path, segment, self._output)
        if isinstance(values, StoredSequences):
            raise CacheError(
                f"{self._path}: the output {self._output!r} holds a sequence of vectors for each "
                "item, not one vector. Read it with audio_sequences or text_sequences."
            )
        return values

    def read_and_verify(self, rows: IntArray, places: IntArray, out: FloatArray) -> None:
        """Write rows into ``out[places]`` through HDF5, which verifies their chunks."""
        chunks = rows // self._chunk_rows
        # Skips chunks without wanted rows, and limits the size of one reading.
        ends = np.flatnonzero((np.diff(chunks) > 1) | (np.diff(chunks // _RUN_CHUNKS) > 0)) + 1
        with open_segment(self._path) as segment:
            values = self._values(segment)
            for run in np.split(np.arange(len(rows)), ends):
                first, last = int(rows[run[0]]), int(rows[run[-1]])
                out[places[run]] = values[first : last + 1][rows[run] - first]
            for chunk in np.unique(chunks).tolist():
                self._offsets[chunk] = _offset(values, chunk, segment.n_bytes)

    def read_in_place(self, runs: Iterable[tuple[int, int, int]], target: memoryview) -> None:
        """Copy bytes from the file: each run is a position there, one in `target`, and a length.

        Runs at negative positions are left out.
        """
        with segment_errors(self._path), self._path.open("rb", buffering=0) as file:
            for position, begin, n_bytes in runs:
                if position >= 0:
                    file.seek(position)
                    if file.readinto(target[begin : begin + n_bytes]) != n_bytes:
                        raise OSError("shorter than it was")


def read_rows(
    segments: Sequence[SegmentRows],
    bounds: Sequence[int],
    rows: IntArray,
    places: IntArray,
    out: FloatArray,
) -> None:
    """Write rows of several segments, alike in shape and type, into ``out[places]``.

    A block of pairs has a few rows in each of hundreds of segments.  Almost everything is computed
    for all of them at once, so a segment costs little more than the reading of its file.

    Parameters
    ----------
    segments : sequence of SegmentRows
    bounds : sequence of int
        Rows ``bounds[i]`` to ``bounds[i + 1]`` are of segment ``i``.
    rows : ndarray of shape (n_rows,)
        Within each segment ascending, without duplicates.
    places : ndarray of shape (n_rows,)
    out : ndarray
        C-contiguous, of the segments' type.

    Raises
    ------
    CacheError
        If a checksum is wrong, or a file is gone or shorter than it was.
    """
    rows = rows.astype(np.int64)
    positions = np.concatenate(
        [
            segment.positions(rows[begin:end])
            for segment, (begin, end) in zip(segments, pairwise(bounds), strict=True)
        ]
    )
    if positions.min() < 0:
        for segment, (begin, end) in zip(segments, pairwise(bounds), strict=True):
            fresh = begin + np.flatnonzero(positions[begin:end] < 0)
            if len(fresh):
                segment.read_and_verify(rows[fresh], places[fresh], out)
    row_bytes = out[0].nbytes
    is_start = np.append(True, (np.diff(positions) != row_bytes) | (np.diff(places) != 1))
    is_start[bounds[:-1]] = True
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=len(rows))
    in_bytes = (positions[starts], places[starts] * row_bytes, lengths * row_bytes)
    runs = list(zip(*(each.tolist() for each in in_bytes), strict=True))
    target = out.reshape(-1).view(np.uint8).data
    for segment, (begin, end) in zip(
        segments, pairwise(np.searchsorted(starts, bounds).tolist()), strict=True
    ):
        segment.read_in_place(runs[begin:end], target)


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
