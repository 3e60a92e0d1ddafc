"""The cache: which stores there are, what they hold, and the embeddings of pairs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from xacle_stack.cache.cached_pairs import CachedPairs
from xacle_stack.cache.disk_errors import list_folder
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
from xacle_stack.cache.upkeep import merge_segments, segment_fault
from xacle_stack.errors import CacheError
from xacle_stack.pairs import Pairs

# So a store is known by its segments where its fingerprint.json was lost.
_STORE_FOLDER = re.compile(r".+-[0-9a-f]{16}")


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
        Number of vectors, in all segments, of each output whose rows are sequences.
    n_rows : int
        Distinct clips or captions.
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
        """Return the stores that exist, of one encoder or of all, by name.

        Raises
        ------
        CacheError
            If the folder cannot be listed.
        """
        found = [StoreId.of_folder(path.name) for path in list_folder(self.root) if _is_store(path)]
        return [store for store in found if encoder in (None, store.encoder)]

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
            Which store to read for an encoder that has several.  Where an encoder has one, it
            need not be named.

        Returns
        -------
        cached : CachedPairs

        Raises
        ------
        AudioError
            If an audio file changed and cannot be decoded any more.
        CacheError
            If there is no cache; and when embeddings are asked for that are not in it.
        """
        # By what they have: in a notebook that reloads edited modules, their class is another one.
        if not all(hasattr(pairs, name) for name in ("split", "ids", "audio_paths", "captions")):
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
            "audio": np.array(AudioKeys(self.root).of(pairs.audio_paths), dtype=KEY_DTYPE),
            "text": np.array([text_key(caption) for caption in pairs.captions], dtype=KEY_DTYPE),
        }
        return CachedPairs(self, pairs, keys, dict(fingerprints or {}))

    def summaries(self) -> list[StoreSummary]:
        """Describe every store and modality, reading all segments' keys."""
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

        A segment that another process compacts away meanwhile is left out; the one that has its
        rows then is checked.

        Yields
        ------
        path : Path
            A segment; or a store's folder or ``fingerprint.json``, where those have a fault.
        fault : str or None
            What is wrong with it; None if nothing is.
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
        """Merge small segments and drop duplicate rows; return what the stores look like then.

        New segments are complete before old ones are deleted, so a killed run loses nothing and
        other processes may go on reading, writing and compacting.

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


def _is_store(folder: Path) -> bool:
    has_name = _STORE_FOLDER.fullmatch(folder.name) is not None
    try:
        if (folder / FINGERPRINT_FILE).is_file():
            return True
        return has_name and any(segment_paths(folder, modality) for modality in MODALITIES)
    except OSError:  # it may not be looked into, which whoever reads from it is told
        return has_name


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
