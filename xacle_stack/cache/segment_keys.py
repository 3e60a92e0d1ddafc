"""Finds content keys in one segment.

A segment as encoding writes it has a few thousand rows, and all of its keys are read.  A merged one
may have a million, and has them sorted, too: chunks that cannot hold a wanted key are not read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xacle_stack.cache.raw_keys import RawKeys, first_of_runs
from xacle_stack.cache.segment_file import Segment, SortedKeys, StructureError

# Places among the wanted keys, and the row of each.
Found = tuple[NDArray[np.int32], NDArray[np.int32]]


def unordered_keys(segment: Segment) -> RawKeys:
    """Return the content keys of a segment in any order, shape (n_rows,)."""
    if segment.sorted_keys is not None:
        keys: RawKeys = segment.sorted_keys.keys[:]
        return keys
    return segment.read_raw_keys()


def find_rows(segment: Segment, wanted: RawKeys) -> Found:
    """Return which of some sorted, distinct keys a segment has, and their rows."""
    if segment.sorted_keys is not None:
        return _find_in_chunks(segment.sorted_keys, wanted)
    keys = segment.read_raw_keys()
    order = np.argsort(keys, kind="stable").astype(np.int32)
    keys = keys[order]
    is_first = first_of_runs(keys)  # of a key that is there twice, the first row
    places, which = _common(keys[is_first], wanted)
    return places, order[is_first][which]


def check_sorted_keys(segment: Segment) -> None:
    """Check that a segment's sorted keys are its keys."""
    known = segment.sorted_keys
    if known is not None:
        keys, rows = known.keys[:], known.read_rows(0, len(known.rows))
        if not first_of_runs(keys).all() or (keys[1:] < keys[:-1]).any():
            raise StructureError(f"{known.keys.name} does not rise")
        if (segment.read_raw_keys()[rows] != keys).any():
            raise StructureError(f"{known.keys.name} are not those of the rows")


def _find_in_chunks(known: SortedKeys, wanted: RawKeys) -> Found:
    """Find keys by bisection: each chunk is read once, if the chunks around it leave it a key."""
    size = known.keys.chunks[0]
    all_places, all_rows = [], []
    todo = [(0, -(-len(known.keys) // size), 0, len(wanted))]
    while todo:
        first, last, begin, end = todo.pop()
        if first == last or begin == end:
            continue
        middle = (first + last) // 2
        chunk: RawKeys = known.keys[middle * size : (middle + 1) * size]
        start = begin + int(np.searchsorted(wanted[begin:end], chunk[:1])[0])
        stop = begin + int(np.searchsorted(wanted[begin:end], chunk[-1:], side="right")[0])
        places, which = _common(chunk, wanted[start:stop])
        if len(places):
            low, high = int(which[0]), int(which[-1]) + 1
            all_places.append(places + np.int32(start))
            rows = known.read_rows(middle * size + low, middle * size + high)
            all_rows.append(rows[which - low])
        todo += [(first, middle, begin, start), (middle + 1, last, stop, end)]
    if not all_places:
        return np.array([], dtype=np.int32), np.array([], dtype=np.int32)
    return np.concatenate(all_places), np.concatenate(all_rows)


def _common(keys: RawKeys, wanted: RawKeys) -> Found:
    """Return the places of the common elements of two sorted arrays in `wanted` and in `keys`."""
    few, many = (keys, wanted) if len(keys) < len(wanted) else (wanted, keys)
    if not len(few):
        return np.array([], dtype=np.int32), np.array([], dtype=np.int32)
    places = np.searchsorted(many, few).astype(np.int32)
    places[places == len(many)] = 0
    here = np.flatnonzero(many[places] == few).astype(np.int32)
    return (places[here], here) if few is keys else (here, places[here])
