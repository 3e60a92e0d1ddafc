"""Finds damaged segments and merges small ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from xacle_stack._types import FloatArray
from xacle_stack.cache.disk_errors import disk_errors
from xacle_stack.cache.raw_keys import RawKeys, first_of_runs
from xacle_stack.cache.schema import KeyArray, StoreId, segment_paths
from xacle_stack.cache.segment_file import (
    Segment,
    SegmentGoneError,
    StoredSequences,
    damage,
    has_own_bytes,
    open_segment,
    segment_errors,
)
from xacle_stack.cache.segment_keys import check_sorted_keys
from xacle_stack.cache.sequences import Rows, concatenate, describe_vectors
from xacle_stack.cache.writer import remove_stale_partials, write_segment
from xacle_stack.errors import CacheError

# Merged segments have up to this size: large enough to be few, small enough for memory.
_MERGED_BYTES = 256 << 20
# Checking reads so much of a segment at once.
_CHECKED_BYTES = 4 << 20


def segment_faults(paths: Sequence[Path], n_jobs: int = 1) -> Iterator[tuple[Path, str | None]]:
    """Yield segments with what is wrong with them, in their order; None stands for a sound one.

    They are checked in threads.  Those that another process has deleted are left out.
    """
    faults = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
        delayed(_fault_unless_gone)(path) for path in paths
    )
    for path, (is_there, fault) in zip(paths, faults, strict=True):
        if is_there:
            yield path, fault


def _fault_unless_gone(path: Path) -> tuple[bool, str | None]:
    try:
        return True, segment_fault(path)
    except SegmentGoneError:
        return False, None


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
            check_sorted_keys(segment)
            _read_through(segment)
    except SegmentGoneError:
        raise
    except CacheError as error:
        return str(error)
    return None


def _read_through(segment: Segment) -> None:
    """Read the outputs of a segment piece by piece, so that HDF5 checks all of their checksums."""
    for found in segment.outputs.values():
        if isinstance(found, StoredSequences):
            found.read_offsets()
        values = found.frames if isinstance(found, StoredSequences) else found
        n_chunks = _CHECKED_BYTES * len(values) // values.nbytes // values.chunks[0]
        step = max(1, n_chunks) * values.chunks[0]
        for first in range(0, len(values), step):
            values[first : first + step]


@dataclass(frozen=True, eq=False)
class _Source:
    """A segment that is to be merged: what its head says, and which rows no higher segment has."""

    path: Path
    generation: int
    kinds: dict[str, str]
    n_bytes: int
    is_fresh: NDArray[np.bool_]

    @property
    def n_fresh(self) -> int:
        return int(self.is_fresh.sum())


@dataclass
class _Batch:
    """Segments, in descending order, that are merged into one.

    `n_bytes` are those of their rows that no earlier segment has.
    """

    sources: list[_Source] = field(default_factory=list)
    n_bytes: float = 0


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
    sources = _sources(segment_paths(folder, modality))
    has_copies = any(source.n_fresh < len(source.is_fresh) for source in sources)
    batch = _Batch()
    expected: dict[str, str] | None = None
    for source in sources:
        if expected not in (None, source.kinds):
            raise CacheError(
                f"{source.path}: its outputs {source.kinds} differ from {expected}, those of other "
                "segments, so they cannot be merged. The segment was not changed."
            )
        expected = source.kinds
        size = source.n_bytes * source.n_fresh / len(source.is_fresh)
        if batch.sources and batch.n_bytes + size > _MERGED_BYTES:
            _replace(folder, store, modality, batch, has_copies)
            batch = _Batch()
        batch.sources.append(source)
        batch.n_bytes += size
    _replace(folder, store, modality, batch, has_copies)


def _sources(paths: Sequence[Path]) -> list[_Source]:
    """Return the segments in descending order of generation and name."""
    heads, parts = [], []
    for path in paths:
        with open_segment(path) as segment:
            heads.append((segment.generation, path, *_content(segment)))
            parts.append(segment.read_raw_keys())
    order = sorted(range(len(heads)), key=lambda i: heads[i][:2], reverse=True)
    is_fresh = _first_seen([parts[i] for i in order])
    return [
        _Source(path, generation, kinds, n_bytes, fresh)
        for (generation, path, kinds, n_bytes), fresh in zip(
            (heads[i] for i in order), is_fresh, strict=True
        )
    ]


def _content(segment: Segment) -> tuple[dict[str, str], int]:
    """Return a description of a segment's outputs, and the bytes of their vectors."""
    kinds, n_bytes = {}, 0
    for name, found in segment.outputs.items():
        if isinstance(found, StoredSequences):
            kinds[name] = f"T × {describe_vectors(found.frames)}"
            n_bytes += found.frames.nbytes
        else:
            kinds[name] = describe_vectors(found)
            n_bytes += found.nbytes
    return kinds, n_bytes


def _first_seen(parts: Sequence[RawKeys]) -> list[NDArray[np.bool_]]:
    """Return which keys of each part are in no earlier part, and not before in their own."""
    if not parts:
        return []
    keys = np.concatenate(parts)
    order = np.argsort(keys, kind="stable")
    is_first = np.empty(len(keys), dtype=bool)
    is_first[order] = first_of_runs(keys[order])
    return np.split(is_first, np.cumsum([len(part) for part in parts])[:-1])


def _replace(folder: Path, store: StoreId, modality: str, batch: _Batch, has_copies: bool) -> None:
    """Write a batch as one segment, then delete the segments that it replaces.

    `has_copies` says that some rows of the store are in several segments.
    """
    needed = [source for source in batch.sources if source.n_fresh]
    is_merged = len(needed) == 1 and needed[0].is_fresh.all()
    kept = needed[0].path if is_merged else None
    if needed and kept is None:
        keys, merged = _read_fresh(needed)
        generation = max(source.generation for source in batch.sources) + 1
        write_segment(folder, store, modality, keys, merged, generation)
    elif kept is not None and has_copies:
        with open_segment(kept) as segment:  # no copy is deleted in favour of damaged rows
            _read_through(segment)
    for source in batch.sources:
        if source.path != kept:
            with disk_errors(source.path, "deleted"):
                source.path.unlink(missing_ok=True)


def _read_fresh(sources: Sequence[_Source]) -> tuple[KeyArray, dict[str, Rows]]:
    """Return the keys and rows of segments that no higher segment has."""
    all_keys: list[KeyArray] = []
    tables: dict[str, FloatArray] = {}
    sequences: dict[str, list[Rows]] = {}
    n_rows, first = sum(source.n_fresh for source in sources), 0
    for source in sources:
        fresh, last = np.flatnonzero(source.is_fresh), first + source.n_fresh
        is_whole = source.is_fresh.all()
        with open_segment(source.path) as segment:
            keys = segment.read_keys()
            all_keys.append(keys if is_whole else keys[fresh])
            for name, found in segment.outputs.items():
                if isinstance(found, StoredSequences):
                    rows = found.read()
                    sequences.setdefault(name, []).append(rows if is_whole else rows.take(fresh))
                    continue
                if name not in tables:
                    tables[name] = np.empty((n_rows, *found.shape[1:]), dtype=found.dtype)
                # Written to their place: together, the parts may be as large as memory allows.
                if is_whole:
                    found.read_direct(tables[name][first:last])
                else:
                    tables[name][first:last] = found[:][fresh]
        first = last
    joined = {name: concatenate(parts) for name, parts in sequences.items()}
    return np.concatenate(all_keys), {**tables, **joined}
