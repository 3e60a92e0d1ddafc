"""Finds the segment and the row of each content key, and reads rows from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.cache.schema import KEY_DTYPE, KeyArray, segment_paths
from xacle_stack.cache.segment_file import SegmentGoneError, read_again_while_gone, read_keys
from xacle_stack.cache.segment_rows import SegmentRows, SegmentSequences
from xacle_stack.errors import CacheError

# So many rows of a segment are read at once, which bounds the memory beside the result.
_PIECE_ROWS = 4096
_PIECE_SEQUENCES = 16


@dataclass(frozen=True, eq=False)
class Index:
    """Every content key of one modality of a store, sorted and once, with its segment and row.

    A segment is an index into `paths`.
    """

    folder: Path
    paths: Sequence[Path]
    keys: KeyArray
    segments: IntArray
    rows: IntArray

    @classmethod
    def build(cls, folder: Path, modality: str) -> Self:
        """Read the keys of all segments, as they were at one moment."""
        known: dict[Path, KeyArray] = {}

        def read() -> list[Path]:
            paths = segment_paths(folder, modality)
            for path in paths:
                if path not in known:
                    known[path] = read_keys(path)
            # Listing takes time.  While another process compacts the store, a list may lack both a
            # merged segment, which is not yet there, and the deleted segments that it replaces.
            if segment_paths(folder, modality) != paths:
                raise SegmentGoneError(
                    f"{folder}: its segments changed each time that they were listed. Open the "
                    "cache again when no other process compacts it."
                )
            return paths

        paths = read_again_while_gone(read)
        parts = [known[path] for path in paths]
        sizes = [len(part) for part in parts]
        all_keys = np.concatenate(parts) if parts else np.array([], dtype=KEY_DTYPE)
        # Two concurrent writers may store the same key; the first segment by name is read.
        keys, first = np.unique(all_keys, return_index=True)
        segments = np.repeat(np.arange(len(paths)), sizes)[first]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        return cls(folder, paths, keys, segments, first - starts[segments])

    def locate(self, keys: KeyArray) -> Locations:
        """Return the locations of the vectors of some keys, in the order of the keys."""
        segments = np.full(len(keys), -1, dtype=np.int32)
        rows = np.zeros(len(keys), dtype=np.int32)
        if len(self.keys):
            found = np.searchsorted(self.keys, keys)
            found[found == len(self.keys)] = 0
            known = self.keys[found] == keys
            segments[known] = self.segments[found[known]]
            rows[known] = self.rows[found[known]]
        return Locations(self.folder, self.paths, segments, rows)


@dataclass(frozen=True, eq=False)
class Locations:
    """The segment and row of each item of a list, and the reading from there.

    It needs eight bytes for each item, a tenth of what the index needs.  A segment is an index into
    `paths`; -1 stands for an item without a row in the store.
    """

    folder: Path
    paths: Sequence[Path]
    segments: NDArray[np.int32]
    rows: NDArray[np.int32]
    _open: dict[tuple[int, str], SegmentRows] = field(default_factory=dict)
    _open_sequences: dict[tuple[int, str], SegmentSequences] = field(default_factory=dict)
    _kinds: dict[str, tuple[int, tuple[int | np.dtype[Any], ...]]] = field(default_factory=dict)

    def part(self, items: IntArray) -> Locations:
        """Return the locations of some items, without the segments that only others use."""
        used, numbers = np.unique(self.segments[items], return_inverse=True)
        here = used >= 0
        return Locations(
            self.folder,
            [self.paths[number] for number in used[here].tolist()],
            np.where(here, np.cumsum(here) - 1, -1)[numbers].astype(np.int32),
            self.rows[items],
        )

    def missing(self, items: range | IntArray) -> IntArray:
        """Return the indices into `items` of those that have no row."""
        return np.flatnonzero(self.segments[_selector(items)] < 0)

    def row_shape(self, items: range | IntArray, output: str) -> tuple[int, ...]:
        """Return the shape of a single vector."""
        if not len(items):
            raise _no_pairs()
        return self._segment(int(self.segments[items[0]]), output).row_shape

    def read(self, items: range | IntArray, output: str) -> FloatArray:
        """Return the vectors of some items, all of which have a row, shape (n_items, n_dims)."""
        if not len(items):
            raise _no_pairs()
        segments, rows = self.segments[_selector(items)], self.rows[_selector(items)]
        first_segment = self._segment(int(segments[0]), output)
        table = np.empty((len(rows), *first_segment.row_shape), dtype=first_segment.dtype)
        for wanted in _pieces(segments, rows, _PIECE_ROWS):
            segment = self._segment(int(segments[wanted[0]]), output)
            ascending, which = np.unique(rows[wanted], return_inverse=True)
            first, last = int(wanted[0]), int(wanted[-1])
            if last - first + 1 == len(wanted) == len(ascending) and (np.diff(wanted) == 1).all():
                segment.read(ascending, table[first : last + 1])  # already in the store's order
            else:
                values = np.empty((len(ascending), *segment.row_shape), dtype=segment.dtype)
                segment.read(ascending, values)
                table[wanted] = values[which]
        return table

    def frame_type(self, items: range | IntArray, output: str) -> tuple[int, np.dtype[Any]]:
        """Return the number of dimensions and the type of the sequences' vectors."""
        if not len(items):
            raise _no_pairs()
        segment = self._segment_of_sequences(int(self.segments[items[0]]), output)
        return segment.frame_shape[0], segment.dtype

    def lengths(self, items: range | IntArray, output: str) -> IntArray:
        """Return the number of frames in each sequence, shape (n_items,)."""
        segments, rows = self.segments[_selector(items)], self.rows[_selector(items)]
        lengths = np.empty(len(rows), dtype=np.intp)
        for number in np.unique(segments).tolist():
            here = segments == number
            lengths[here] = self._segment_of_sequences(number, output).lengths[rows[here]]
        return lengths

    def read_sequences(self, items: range | IntArray, output: str) -> list[FloatArray]:
        """Return the sequences of some items, all of which have a row; no two share memory."""
        segments, rows = self.segments[_selector(items)], self.rows[_selector(items)]
        sequences: dict[int, FloatArray] = {}
        for wanted in _pieces(segments, rows, _PIECE_SEQUENCES):
            segment = self._segment_of_sequences(int(segments[wanted[0]]), output)
            ascending, which = np.unique(rows[wanted], return_inverse=True)
            found = segment.read(ascending)
            for item, index in zip(wanted.tolist(), which.tolist(), strict=True):
                sequences[item] = found[index].copy()
        return [sequences[item] for item in range(len(rows))]

    def _segment_of_sequences(self, number: int, output: str) -> SegmentSequences:
        if (number, output) not in self._open_sequences:
            segment = SegmentSequences(self.paths[number], output)
            self._check_alike(number, output, (*segment.frame_shape, segment.dtype))
            self._open_sequences[number, output] = segment
        return self._open_sequences[number, output]

    def _segment(self, number: int, output: str) -> SegmentRows:
        if (number, output) not in self._open:
            segment = SegmentRows(self.paths[number], output)
            self._check_alike(number, output, (*segment.row_shape, segment.dtype))
            self._open[number, output] = segment
        return self._open[number, output]

    def _check_alike(self, number: int, output: str, kind: tuple[int | np.dtype[Any], ...]) -> None:
        """Refuse a segment whose vectors differ in size or type from those of earlier segments."""
        first, expected = self._kinds.setdefault(output, (number, kind))
        if kind != expected:
            found, before = (" ".join(map(str, each)) for each in (kind, expected))
            raise CacheError(
                f"{self.paths[number]}: its output {output!r} has vectors of {found}, but that of "
                f"{self.paths[first]} has {before}. One of them is not this encoder's: move it "
                "out of the store and run `xacle-stack features`."
            )


def _selector(items: range | IntArray) -> slice | IntArray:
    """Return a slice for a range, which selects without a copy; other items as they are."""
    if not isinstance(items, range):
        return items
    stop = items.stop if items.stop >= 0 else None  # a descending range may end below 0
    return slice(items.start, stop, items.step)


def _pieces(
    segments: NDArray[np.int32], rows: NDArray[np.int32], max_size: int
) -> Iterator[IntArray]:
    """Yield the indices of neighbouring rows of one segment, in the store's order."""
    in_order = np.lexsort((rows, segments))
    for in_segment in np.split(in_order, np.flatnonzero(np.diff(segments[in_order])) + 1):
        for start in range(0, len(in_segment), max_size):
            yield in_segment[start : start + max_size]


def _no_pairs() -> CacheError:
    return CacheError("the list of pairs is empty, so there is nothing to read.")
