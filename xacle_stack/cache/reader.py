"""The cache: lists its stores, returns the embeddings of pairs, checks and compacts segments."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from xacle_stack.cache.cached_pairs import CachedPairs
from xacle_stack.cache.facts import facts_fault, read_facts
from xacle_stack.cache.index import read_each
from xacle_stack.cache.keys import AudioKeys
from xacle_stack.cache.known_keys import KnownKeys
from xacle_stack.cache.raw_keys import RawKeys, distinct, text_keys
from xacle_stack.cache.schema import FINGERPRINT_FILE, MODALITIES, StoreId, segment_paths
from xacle_stack.cache.segment_file import (
    StoredSequences,
    open_segment,
    read_again_while_gone,
)
from xacle_stack.cache.segment_keys import unordered_keys
from xacle_stack.cache.stores import list_stores
from xacle_stack.cache.upkeep import merge_segments, segment_faults
from xacle_stack.errors import CacheError
from xacle_stack.pairs import Pairs


@dataclass(frozen=True)
class StoreSummary:
    """One line of ``xacle-stack cache ls``.

    Attributes
    ----------
    store : StoreId
    modality : {"audio", "text"}
    outputs : mapping of str to int
        Number of dimensions of each output.
    sequences : mapping of str to int
        Number of vectors in all segments, for each output whose rows are sequences.
    n_rows : int
        Number of distinct clips or captions.
    n_segments : int
    n_bytes : int
    """

    store: StoreId
    modality: str
    outputs: Mapping[str, int]
    n_rows: int
    n_segments: int
    n_bytes: int
    sequences: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _SegmentSummary:
    """What a segment adds to the summary of its store."""

    keys: RawKeys
    n_bytes: int
    outputs: Mapping[str, int]
    sequences: Mapping[str, int]


def _describe(path: Path) -> _SegmentSummary:
    outputs: dict[str, int] = {}
    sequences: dict[str, int] = {}
    with open_segment(path) as segment:
        for name, found in segment.outputs.items():
            if isinstance(found, StoredSequences):
                sequences[name] = len(found.frames)
                outputs[name] = int(found.frames.shape[1])
            else:
                outputs[name] = int(found.shape[1])
        return _SegmentSummary(unordered_keys(segment), segment.n_bytes, outputs, sequences)


class FeatureCache:
    """The embeddings of every encoder, kept in one folder.

    Parameters
    ----------
    root : path-like
        The folder of all stores.  It need not exist yet.

    Examples
    --------
    >>> FeatureCache("features/store").stores("an-encoder-that-never-ran")
    []
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def __repr__(self) -> str:
        return f"FeatureCache({str(self.root)!r}, stores={[s.folder for s in self.stores()]})"

    def stores(self, encoder: str | None = None) -> list[StoreId]:
        """Return the stores of one encoder, or of all, sorted by name.

        Raises
        ------
        CacheError
            If the folder cannot be listed.
        """
        return list_stores(self.root, encoder)

    def facts(self, store: StoreId) -> dict[str, object]:
        """Return what a store's fingerprint was made from.

        Raises
        ------
        CacheError
            If the store has no such record, or one that cannot be read.
        """
        return read_facts(self.root / store.folder)

    def known_keys(self, store: StoreId, modality: str) -> KnownKeys:
        """Return the content keys that a store holds for one modality."""
        known = KnownKeys(self.root, store, modality)
        known.refresh()
        return known

    def load(self, pairs: Pairs, fingerprints: Mapping[str, str] | None = None) -> CachedPairs:
        """Return the cached embeddings of some pairs; arrays are read when they are asked for.

        Parameters
        ----------
        pairs : Pairs
        fingerprints : mapping of str to str, optional
            The store to read for each encoder that has several.

        Returns
        -------
        cached : CachedPairs

        Raises
        ------
        AudioError
            If an audio file has changed and can no longer be decoded.
        CacheError
            If there is no cache.  Rows that are missing are reported when they are read.
        """
        # Checks attributes, because a notebook that reloads edited modules has another class Pairs.
        if not all(hasattr(pairs, name) for name in ("split", "ids", "audio", "captions")):
            raise CacheError(
                f"expected the pairs that read_pairs returns, got {type(pairs).__name__}: "
                f"{pairs!r}."
            )
        if not self.stores():
            raise CacheError(
                f"{self.root}: there is no cache here. Make one with `xacle-stack features`, or "
                "name the folder of an existing one."
            )
        keys = {
            "audio": AudioKeys(self.root).look_up(pairs.audio),
            "text": text_keys(pairs.captions),
        }
        return CachedPairs(self.root, pairs, keys, dict(fingerprints or {}))

    def summaries(self) -> list[StoreSummary]:
        """Describe every store and modality; this reads the keys of all segments."""
        summaries = (
            self._summary(store, modality) for store in self.stores() for modality in MODALITIES
        )
        return [summary for summary in summaries if summary is not None]

    def _summary(self, store: StoreId, modality: str) -> StoreSummary | None:
        paths, parts = read_each(self.root / store.folder, modality, _describe)
        if not paths:
            return None
        outputs: dict[str, int] = {}
        sequences: dict[str, int] = {}
        for part in parts:
            outputs |= part.outputs
            for name, n_frames in part.sequences.items():
                sequences[name] = sequences.get(name, 0) + n_frames
        n_bytes = sum(part.n_bytes for part in parts)
        keys = [part.keys for part in parts]
        del parts
        n_rows = len(distinct(np.concatenate(keys)))
        return StoreSummary(store, modality, outputs, n_rows, len(paths), n_bytes, sequences)

    def verify(self, n_jobs: int = 1) -> Iterator[tuple[Path, str | None]]:
        """Check every byte of every segment.

        A segment that another process compacts meanwhile is skipped, and the segment that replaces
        it is checked.

        Parameters
        ----------
        n_jobs : int, default=1
            Segments checked side by side, in joblib's convention.

        Yields
        ------
        path : Path
            A segment, or a store's folder or ``fingerprint.json`` that has a fault.
        fault : str or None
            What is wrong with it; None for a sound segment.
        """
        for store in self.stores():
            folder = self.root / store.folder
            fault = facts_fault(folder)
            if fault is not None:
                yield folder / FINGERPRINT_FILE, fault
            for modality in MODALITIES:
                try:
                    yield from _verified(folder, modality, n_jobs)
                except CacheError as error:
                    yield folder, str(error)

    def compact(self) -> list[StoreSummary]:
        """Merge small segments, drop duplicate rows, and describe the stores that result.

        New segments are complete before old ones are deleted, so a killed run loses nothing, and
        other processes may read, write and compact at the same time.

        Raises
        ------
        CacheError
            If a segment is damaged or the disk is full; nothing is deleted then.
        """
        for store in self.stores():
            for modality in MODALITIES:
                folder = self.root / store.folder
                read_again_while_gone(partial(merge_segments, folder, store, modality))
        return self.summaries()


def _verified(folder: Path, modality: str, n_jobs: int) -> Iterator[tuple[Path, str | None]]:
    checked: set[Path] = set()
    while fresh := [path for path in segment_paths(folder, modality) if path not in checked]:
        checked.update(fresh)
        yield from segment_faults(fresh, n_jobs)
