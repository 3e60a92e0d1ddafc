"""Finds damaged segments and merges small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xacle_stack._types import IntArray
from xacle_stack.cache.disk_errors import disk_errors
from xacle_stack.cache.schema import KeyArray, StoreId, segment_paths
from xacle_stack.cache.segment_file import (
    SegmentGoneError,
    damage,
    has_own_bytes,
    open_segment,
    segment_errors,
)
from xacle_stack.cache.sequences import Rows, Sequences, concatenate, describe
from xacle_stack.cache.writer import remove_stale_partials, write_segment
from xacle_stack.errors import CacheError

# Merged segments have up to this size: large enough to be few, small enough for memory.
_MERGED_BYTES = 256 << 20


def segment_fault(path: Path) -> str | None:
    """Read every byte of a segment and return what is wrong with it; None if it is sound.

    SegmentGoneError if another process has deleted it.
    """
    try:
        with segment_errors(path):
            if not has_own_bytes(path):
                raise damage(path)
        with open_segment(path) as segment:
            segment.read_keys()
            segment.read_outputs()
    except SegmentGoneError:
        raise
    except CacheError as error:
        return str(error)
    return None


@dataclass
class _Batch:
    """Segments, in descending order, that are merged into one.

    `parts` are their rows that no earlier segment has, `untouched` the segment that alone holds all
    rows of the batch, if there is one, and `generation` the highest of the segments.
    """

    paths: list[Path] = field(default_factory=list)
    parts: list[tuple[KeyArray, dict[str, Rows]]] = field(default_factory=list)
    untouched: Path | None = None
    generation: int = 0
    n_bytes: int = 0


def merge_segments(folder: Path, store: StoreId, modality: str) -> None:
    """Rewrite the segments as a few large ones without duplicate rows, then delete the old ones.

    Any number of processes may compact a store at once, each with its own list of segments.  Two of
    them must not delete the same row from different segments, each relying on the other's copy.
    So segments are ordered by generation and name, and a segment is deleted only if all of its rows
    are in higher segments.  Of all segments with a row the highest therefore remains.

    SegmentGoneError if another process deletes a segment meanwhile; what has been merged is
    complete.  CacheError if a segment is damaged or the disk is full; segments that were not
    rewritten remain.
    """
    remove_stale_partials(folder)
    seen: set[bytes] = set()
    expected: dict[str, str] | None = None
    batch = _Batch()
    for generation, path in _from_highest(segment_paths(folder, modality)):
        with open_segment(path) as segment:
            keys, outputs = segment.read_keys(), segment.read_outputs()
        fresh = _first_seen(keys, seen)
        outputs = {name: _take(rows, fresh) for name, rows in outputs.items()}
        kinds = {name: describe(rows) for name, rows in outputs.items()}
        if expected not in (None, kinds):
            raise CacheError(
                f"{path}: its outputs {kinds} differ from {expected}, those of other segments, so "
                "they cannot be merged. The segment was not changed."
            )
        expected = kinds
        size = sum(rows.nbytes for rows in outputs.values())
        if batch.paths and batch.n_bytes + size > _MERGED_BYTES:
            _replace(folder, store, modality, batch)
            batch = _Batch()
        batch.paths.append(path)
        batch.generation = max(batch.generation, generation)
        if len(fresh):
            is_all = not batch.parts and len(fresh) == len(keys)
            batch.untouched = path if is_all else None
            batch.parts.append((keys[fresh], outputs))
            batch.n_bytes += size
    _replace(folder, store, modality, batch)


def _from_highest(paths: Sequence[Path]) -> list[tuple[int, Path]]:
    """Return the segments with their generations in descending order."""
    generations = []
    for path in paths:
        with open_segment(path) as segment:
            generations.append((segment.generation, path))
    return sorted(generations, reverse=True)


def _first_seen(keys: KeyArray, seen: set[bytes]) -> IntArray:
    """Return the rows whose keys are new, and add these keys to `seen`."""
    fresh = []
    for row, key in enumerate(keys.tolist()):
        if key not in seen:
            seen.add(key)
            fresh.append(row)
    return np.array(fresh, dtype=np.intp)


def _take(rows: Rows, wanted: IntArray) -> Rows:
    return rows.take(wanted) if isinstance(rows, Sequences) else rows[wanted]


def _replace(folder: Path, store: StoreId, modality: str, batch: _Batch) -> None:
    """Write a batch as one segment, then delete the segments that it replaces."""
    kept = batch.untouched
    if batch.parts and kept is None:
        keys = np.concatenate([keys for keys, _ in batch.parts])
        merged = {
            name: concatenate([outputs[name] for _, outputs in batch.parts])
            for name in batch.parts[0][1]
        }
        write_segment(folder, store, modality, keys, merged, batch.generation + 1)
    for path in batch.paths:
        if path != kept:
            with disk_errors(path, "deleted"):
                path.unlink(missing_ok=True)
