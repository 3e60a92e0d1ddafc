"""Finds the segment and the row of each content key, and reads rows from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.cache.raw_keys import RawKeys, first_of_runs
from xacle_stack.cache.schema import segment_paths
from xacle_stack.cache.segment_file import (
    SegmentGoneError,
    open_segment,
    read_again_while_gone,
)
from xacle_stack.cache.segment_keys import find_rows
from xacle_stack.cache.segment_rows import SegmentRows, SegmentSequences, open_rows, read_rows
from xacle_stack.errors import CacheError

T = TypeVar("T")
# So many rows of a segment are read at once, which bounds the memory beside the result.
_PIECE_ROWS = 4096
_PIECE_SEQUENCES = 16


def read_each(folder: Path, modality: str, read: Callable[[Path], T]) -> tuple[list[Path], list[T]]:
    """Read something from every segment of a store, as the segments were at one moment.

    Returns the segments, sorted by name, and what was read from each.
    """
    known: dict[Path, T] = {}

    def read_all() -> list[Path]:
        paths = segment_paths(folder, modality)
        for path in paths:
            if path not in known:
                known[path] = read(path)
        # Listing takes time.  While another process compacts the store, a list may lack both a
        # merged segment, which is not yet there, and the deleted segments that it replaces.
        if segment_paths(folder, modality) != paths:
            raise SegmentGoneError(
                f"{folder}: its segments changed each time that they were listed. Open the "
                "cache again when no other process compacts it."
            )
        return paths

    paths = read_again_while_gone(read_all)
    return paths, [known.pop(path) for path in paths]


def locate(folder: Path, modality: str, keys: RawKeys) -> Locations:
    """Return the locations of the vectors of some keys, in the order of the keys.

    The memory that it needs grows with the keys asked for, not with the store.
    """
    order = np.argsort(keys).astype(np.int32)
    wanted = keys[order]
    is_first = first_of_runs(wanted)
    if not is_first.all():
        wanted = wanted[is_first]
    paths, found = read_each(folder, modality, partial(_find_rows, wanted=wanted))
    n_wanted = len(wanted)
    del wanted  # as large as all that follows
    segments = np.full(n_wanted, -1, dtype=np.int32)
    rows = np.zeros(n_wanted, dtype=np.int32)
    # Two concurrent writers may store the same key; the first segment by name is read.
    while found:
        places, found_rows = found.pop()
        segments[places], rows[places] = len(found), found_rows
    which = np.cumsum(is_first, dtype=np.int32)
    which -= 1
    located = Locations(folder, paths, np.empty_like(order), np.empty_like(order))
    located.segments[order], located.rows[order] = segments[which], rows[which]
    return located


def _find_rows(path: Path, wanted: RawKeys) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    with open_segment(path) as segment:
        return find_rows(segment, wanted)


@dataclass(frozen=True, eq=False)
class Locations:
    """The segment and row of each item of a list, and the reading from there.

    It needs eight bytes for each item.  A segment is an index into `paths`; -1 stands for an item
    without a row in the store.
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
        first = self._segment(int(segments[0]), output)
        table = np.empty((len(rows), *first.row_shape), dtype=first.dtype)
        in_order = np.lexsort((rows, segments))
        for start in range(0, len(rows), _PIECE_ROWS):
            places = in_order[start : start + _PIECE_ROWS]
            self._read_into(table, output, places, segments[places], rows[places])
        return table

    def _read_into(
        self, table: FloatArray, output: str, places: IntArray, segments: IntArray, rows: IntArray
    ) -> None:
        """Write rows into ``table[places]``; they are in the store's order."""
        is_new_segment = np.append(True, np.diff(segments) != 0)
        is_first = is_new_segment | np.append(True, np.diff(rows) != 0)
        firsts = np.flatnonzero(is_first)
        starts = np.flatnonzero(is_new_segment[firsts])
        read_rows(
            [self._segment(number, output) for number in segments[firsts[starts]].tolist()],
            [*starts.tolist(), len(firsts)],
            rows[firsts],
            places[firsts],
            table,
        )
        if len(firsts) < len(places):  # several items, such as equal captions, have one row
            again = np.flatnonzero(~is_first)
            table[places[again]] = table[places[firsts][np.cumsum(is_first)[again] - 1]]

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
            segment = open_rows(self.paths[number], output)
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
