"""The cache: which stores there are, what they hold, and the embeddings of pairs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from xacle_stack.cache.cached_pairs import CachedPairs
from xacle_stack.cache.index import Index
from xacle_stack.cache.keys import AudioKeys
from xacle_stack.cache.schema import (
    FINGERPRINT_FILE,
    KEY_DTYPE,
    StoreId,
    open_segment,
    segment_paths,
    text_key,
)
from xacle_stack.cache.upkeep import merge_segments, segment_fault
from xacle_stack.errors import CacheError
from xacle_stack.pairs import Pairs

_MODALITIES = ("audio", "text")


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
        """Return the stores that exist, of one encoder or of all, by name."""
        found = []
        for path in sorted(self.root.glob(f"*/{FINGERPRINT_FILE}")):
            # The fingerprint has a fixed length, so an encoder's name may hold hyphens.
            name, _, fingerprint = path.parent.name.rpartition("-")
            if encoder in (None, name):
                found.append(StoreId(name, fingerprint))
        return found

    def facts(self, store: StoreId) -> dict[str, object]:
        """Return what a store's fingerprint was made from."""
        path = self.root / store.folder / FINGERPRINT_FILE
        facts: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
        return facts

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
                f"{self.root}: there is no cache here. Make one with `make features`, or name the "
                "folder of an existing one."
            )
        keys = {
            "audio": np.array(AudioKeys(self.root).of(pairs.audio_paths), dtype=KEY_DTYPE),
            "text": np.array([text_key(caption) for caption in pairs.captions], dtype=KEY_DTYPE),
        }
        return CachedPairs(self, pairs, keys, dict(fingerprints or {}))

    def summaries(self) -> list[StoreSummary]:
        """Describe every store and modality, reading all segments' keys."""
        summaries = []
        for store, modality, paths in self._groups():
            outputs: dict[str, int] = {}
            sequences: dict[str, int] = {}
            for path in paths:
                with open_segment(path) as file:
                    for name, found in file["outputs"].items():
                        if isinstance(found, h5py.Group):
                            found = found["frames"]
                            sequences[name] = sequences.get(name, 0) + len(found)
                        outputs[name] = int(found.shape[1])
            n_rows = len(Index.build(self.root / store.folder, modality).keys)
            n_bytes = sum(path.stat().st_size for path in paths)
            summaries.append(
                StoreSummary(store, modality, outputs, n_rows, len(paths), n_bytes, sequences)
            )
        return summaries

    def verify(self) -> Iterator[tuple[Path, str | None]]:
        """Check every byte of every segment.

        Yields
        ------
        path : Path
        fault : str or None
            What is wrong with this segment; None if nothing is.
        """
        for store, modality, paths in self._groups():
            for path in paths:
                yield path, segment_fault(path, store, modality)

    def compact(self) -> list[StoreSummary]:
        """Merge small segments and drop duplicate rows; return what the stores look like then.

        New segments are complete before old ones are deleted, so a killed run loses nothing and
        other processes may go on writing.

        Raises
        ------
        CacheError
            If a segment is damaged or the disk is full; nothing is deleted then.
        """
        for store, modality, paths in self._groups():
            merge_segments(self.root / store.folder, store, modality, paths)
        return self.summaries()

    def _groups(self) -> Iterator[tuple[StoreId, str, list[Path]]]:
        for store in self.stores():
            for modality in _MODALITIES:
                paths = segment_paths(self.root / store.folder, modality)
                if paths:
                    yield store, modality, paths
