"""The cache: lists its stores, returns the embeddings of pairs, checks and compacts segments."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from xacle_stack.cache.cached_pairs import CachedPairs
from xacle_stack.cache.facts import facts_fault, read_facts
from xacle_stack.cache.index import Index
from xacle_stack.cache.keys import AudioKeys
from xacle_stack.cache.schema import (
    FINGERPRINT_FILE,
    KEY_DTYPE,
    MODALITIES,
    StoreId,
    segment_paths,
    text_key,
)
from xacle_stack.cache.segment_file import (
    SegmentGoneError,
    StoredSequences,
    open_segment,
    read_again_while_gone,
)
from xacle_stack.cache.stores import list_stores
from xacle_stack.cache.upkeep import merge_segments, segment_fault
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

    def known_keys(self, store: StoreId, modality: str) -> set[str]:
        """Return the content keys that a store holds for one modality."""
        keys = Index.build(self.root / store.folder, modality).keys
        return {key.decode() for key in keys.tolist()}

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
            "audio": np.array(AudioKeys(self.root).look_up(pairs.audio), dtype=KEY_DTYPE),
            "text": np.array([text_key(caption) for caption in pairs.captions], dtype=KEY_DTYPE),
        }
        return CachedPairs(self.root, pairs, keys, dict(fingerprints or {}))

    def summaries(self) -> list[StoreSummary]:
        """Describe every store and modality; this reads the keys of all segments."""
        summaries = (
            read_again_while_gone(partial(self._summary, store, modality))
            for store in self.stores()
            for modality in MODALITIES
        )
        return [summary for summary in summaries if summary is not None]

    def _summary(self, store: StoreId, modality: str) -> StoreSummary | None:
        index = Index.build(self.root / store.folder, modality)
        outputs: dict[str, int] = {}
        sequences: dict[str, int] = {}
        n_bytes = 0
        for path in index.paths:
            with open_segment(path) as segment:
                n_bytes += segment.n_bytes
                for name, found in segment.outputs.items():
                    if isinstance(found, StoredSequences):
                        sequences[name] = sequences.get(name, 0) + len(found.frames)
                        outputs[name] = int(found.frames.shape[1])
                    else:
                        outputs[name] = int(found.shape[1])
        if not index.paths:
            return None
        n_rows, n_segments = len(index.keys), len(index.paths)
        return StoreSummary(store, modality, outputs, n_rows, n_segments, n_bytes, sequences)

    def verify(self) -> Iterator[tuple[Path, str | None]]:
        """Check every byte of every segment.

        A segment that another process compacts meanwhile is skipped, and the segment that replaces
        it is checked.

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
                    yield from _verified(folder, modality)
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


def _verified(folder: Path, modality: str) -> Iterator[tuple[Path, str | None]]:
    checked: set[Path] = set()
    while fresh := [path for path in segment_paths(folder, modality) if path not in checked]:
        for path in fresh:
            checked.add(path)
            try:
                fault = segment_fault(path)
            except SegmentGoneError:
                continue
            yield path, fault
