"""Where each content key stands among a store's segments, and the reading of rows from there."""

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

# Rows of a segment that are read at once: what is read beside the result stays this small.
_PIECE_ROWS = 4096
_PIECE_SEQUENCES = 16


@dataclass(frozen=True, eq=False)
class Index:
    """Every content key of one modality of a store, with the segment and row where it stands.

    Attributes
    ----------
    folder : Path
    paths : sequence of Path
        The segments.
    keys : ndarray of shape (n_keys,)
        Sorted, each once.
    segments, rows : ndarray of shape (n_keys,)
    """

    folder: Path
    paths: Sequence[Path]
    keys: KeyArray
    segments: IntArray
    rows: IntArray

    @classmethod
    def build(cls, folder: Path, modality: str) -> Self:
        """Read the keys of all segments, as they stood together at one moment."""
        known: dict[Path, KeyArray] = {}

        def read() -> list[Path]:
            paths = segment_paths(folder, modality)
            for path in paths:
                if path not in known:
                    known[path] = read_keys(path)
            # Listing takes time: where another process compacts the store, one list may hold
            # neither a merged segment, not there yet, nor those it replaced, deleted already.
            if segment_paths(folder, modality) != paths:
                raise SegmentGoneError(
                    f"{folder}: its segments changed each time that they were listed. Open the "
                    "cache again when no other process compacts it."
                )
            return paths

        paths = read_again_while_gone(read)
        parts = [known[path] for path in paths]
        sizes = [len(part) for part in parts]
        every = np.concatenate(parts) if parts else np.array([], dtype=KEY_DTYPE)
        # Two writers at once may have stored the same key; the first segment by name is read.
        keys, first = np.unique(every, return_index=True)
        segments = np.repeat(np.arange(len(paths)), sizes)[first]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        return cls(folder, paths, keys, segments, first - starts[segments])

    def locate(self, keys: KeyArray) -> Places:
        """Return where the vectors of some keys lie, in the order of the keys."""
        segments = np.full(len(keys), -1, dtype=np.int32)
        rows = np.zeros(len(keys), dtype=np.int32)
        if len(self.keys):
            found = np.searchsorted(self.keys, keys)
            found[found == len(self.keys)] = 0
            known = self.keys[found] == keys
            segments[known] = self.segments[found[known]]
            rows[known] = self.rows[found[known]]
        return Places(self.folder, self.paths, segments, rows)


@dataclass(frozen=True, eq=False)
class Places:
    """Where the vectors of a list of items lie.

    Eight bytes an item, where the index itself takes ten times that.

    Attributes
    ----------
    folder : Path
    paths : sequence of Path
    segments : ndarray of shape (n_items,)
        Number of the segment, -1 where the store has no row.
    rows : ndarray of shape (n_items,)
    """

    folder: Path
    paths: Sequence[Path]
    segments: NDArray[np.int32]
    rows: NDArray[np.int32]
    _open: dict[tuple[int, str], SegmentRows] = field(default_factory=dict)
    _open_sequences: dict[tuple[int, str], SegmentSequences] = field(default_factory=dict)
    _kinds: dict[str, tuple[int, tuple[int | np.dtype[Any], ...]]] = field(default_factory=dict)

    def part(self, items: IntArray) -> Places:
        """Return where the vectors of some items lie, without what belongs to other items."""
        used, numbers = np.unique(self.segments[items], return_inverse=True)
        here = used >= 0
        return Places(
            self.folder,
            [self.paths[number] for number in used[here].tolist()],
            np.where(here, np.cumsum(here) - 1, -1)[numbers].astype(np.int32),
            self.rows[items],
        )

    def missing(self, items: range | IntArray) -> IntArray:
        """Return which of some items have no row, as positions in `items`."""
        return np.flatnonzero(self.segments[_selector(items)] < 0)

    def row_shape(self, items: range | IntArray, output: str) -> tuple[int, ...]:
        """Return the shape of one item's vector."""
        if not len(items):
            raise _nothing()
        return self._segment(int(self.segments[items[0]]), output).row_shape

    def read(self, items: range | IntArray, output: str) -> FloatArray:
        """Return the vectors of some items, all of which have a row.

        Parameters
        ----------
        items : range or ndarray of int
        output : str

        Returns
        -------
        values : ndarray of shape (n_items, n_dims)
        """
        if not len(items):
            raise _nothing()
        segments, rows = self.segments[_selector(items)], self.rows[_selector(items)]
        first_segment = self._segment(int(segments[0]), output)
        table = np.empty((len(rows), *first_segment.row_shape), dtype=first_segment.dtype)
        for wanted in _pieces(segments, rows, _PIECE_ROWS):
            segment = self._segment(int(segments[wanted[0]]), output)
            ascending, which = np.unique(rows[wanted], return_inverse=True)
            first, last = int(wanted[0]), int(wanted[-1])
            if last - first + 1 == len(wanted) == len(ascending) and (np.diff(wanted) == 1).all():
                segment.read(ascending, table[first : last + 1])  # in the order of the store
            else:
                values = np.empty((len(ascending), *segment.row_shape), dtype=segment.dtype)
                segment.read(ascending, values)
                table[wanted] = values[which]
        return table

    def frame_type(self, items: range | IntArray, output: str) -> tuple[int, np.dtype[Any]]:
        """Return the number of dimensions and the type of sequences."""
        if not len(items):
            raise _nothing()
        segment = self._segment_of_sequences(int(self.segments[items[0]]), output)
        return segment.frame_shape[0], segment.dtype

    def lengths(self, items: range | IntArray, output: str) -> IntArray:
        """Return how many frames the sequences of some items have, shape (n_items,)."""
        segments, rows = self.segments[_selector(items)], self.rows[_selector(items)]
        lengths = np.empty(len(rows), dtype=np.intp)
        for number in np.unique(segments).tolist():
            here = segments == number
            lengths[here] = self._segment_of_sequences(number, output).lengths[rows[here]]
        return lengths

    def read_sequences(self, items: range | IntArray, output: str) -> list[FloatArray]:
        """Return the sequences of some items, all of which have a row.

        Parameters
        ----------
        items : range or ndarray of int
        output : str

        Returns
        -------
        sequences : list of ndarray of shape (n_frames, n_dims)
            In the order of the items; no two of them share memory.
        """
        segments, rows = self.segments[_selector(items)], self.rows[_selector(items)]
        sequences: dict[int, FloatArray] = {}
        for wanted in _pieces(segments, rows, _PIECE_SEQUENCES):
            segment = self._segment_of_sequences(int(segments[wanted[0]]), output)
            ascending, which = np.unique(rows[wanted], return_inverse=True)
            found = segment.read(ascending)
            for item, place in zip(wanted.tolist(), which.tolist(), strict=True):
                sequences[item] = found[place].copy()
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
        """Refuse a segment whose vectors differ in size or type from those opened before."""
        first, expected = self._kinds.setdefault(output, (number, kind))
        if kind != expected:
            found, before = (" ".join(map(str, each)) for each in (kind, expected))
            raise CacheError(
                f"{self.paths[number]}: its output {output!r} has vectors of {found}, but that of "
                f"{self.paths[first]} has {before}. One of the two is not of this encoder: move it "
                "out of the store and run `xacle-stack features`."
            )


def _selector(items: range | IntArray) -> slice | IntArray:
    """Return what selects items without a copy, if they are a range."""
    if not isinstance(items, range):
        return items
    stop = items.stop if items.stop >= 0 else None  # a descending range ends below 0
    return slice(items.start, stop, items.step)


def _pieces(segments: NDArray[np.int32], rows: NDArray[np.int32], most: int) -> Iterator[IntArray]:
    """Yield positions of neighbouring rows of one segment, in the order of the store."""
    in_order = np.lexsort((rows, segments))
    for of_segment in np.split(in_order, np.flatnonzero(np.diff(segments[in_order])) + 1):
        for start in range(0, len(of_segment), most):
            yield of_segment[start : start + most]


def _nothing() -> CacheError:
    return CacheError("nothing was asked for: the list of pairs is empty.")
