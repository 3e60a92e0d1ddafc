"""Reads a cache: the embeddings of pairs, matched by content key and seen as one table."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.cache.index import Index, Places
from xacle_stack.cache.keys import AudioKeys
from xacle_stack.cache.schema import (
    FINGERPRINT_FILE,
    KEY_DTYPE,
    KeyArray,
    StoreId,
    open_segment,
    segment_paths,
    text_key,
)
from xacle_stack.cache.upkeep import merge_segments, segment_fault
from xacle_stack.errors import CacheError, UnknownNameError, bullet_list
from xacle_stack.pairs import Pairs

T = TypeVar("T")
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

    def load(self, pairs: Pairs, fingerprints: Mapping[str, str] | None = None) -> "CachedPairs":
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
        if not isinstance(pairs, Pairs):
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
            with open_segment(paths[0]) as file:
                outputs = {name: values.shape[1] for name, values in file["outputs"].items()}
            n_rows = len(Index.build(self.root / store.folder, modality).keys)
            n_bytes = sum(path.stat().st_size for path in paths)
            summaries.append(StoreSummary(store, modality, outputs, n_rows, len(paths), n_bytes))
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


class _Lock:
    """A lock that pickles and copies as a new one."""

    def __init__(self) -> None:
        self._lock = Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Lock, ()


class CachedPairs:
    """Pairs with their embeddings, row ``i`` of every array belonging to pair ``i``.

    Made by :meth:`FeatureCache.load`.  Arrays are read when they are asked for, so a part of
    many pairs, taken with `take`, costs the memory of the part.
    """

    def __init__(
        self,
        cache: FeatureCache,
        pairs: Pairs,
        keys: Mapping[str, KeyArray],
        fingerprints: Mapping[str, str],
    ) -> None:
        self._cache = cache
        self._fingerprints = fingerprints
        # All that follows belongs to the whole and is shared by every part that is taken of it.
        self._whole = pairs
        self._keys = keys
        self._places: dict[tuple[str, str], Places] = {}
        self._lock = _Lock()
        self._rows: range | IntArray = range(len(pairs))

    @property
    def pairs(self) -> Pairs:
        """The pairs; of a part they are gathered anew at each call."""
        if isinstance(self._rows, range) and self._rows == range(len(self._whole)):
            return self._whole
        return self._whole.take(list(self._rows))

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """Ids of the pairs, in the order of all arrays."""
        if isinstance(self._rows, range) and self._rows == range(len(self._whole)):
            return self._whole.ids
        return tuple(self._whole.ids[row] for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        encoders = sorted({store.encoder for store in self._cache.stores()})
        return f"CachedPairs({len(self)} pairs of {self._whole.split!r}, encoders={encoders})"

    def take(self, rows: slice | Sequence[int] | IntArray) -> "CachedPairs":
        """Return the embeddings of some of the pairs, in the order asked for.

        Nothing is read.  Where each pair's vectors lie is looked up once for the whole and for
        all parts, at the first reading of an encoder.

        Parameters
        ----------
        rows : slice or array-like of int
            As NumPy indexes the first axis.  A slice costs nothing.

        Returns
        -------
        part : CachedPairs
        """
        part = copy(self)
        if isinstance(rows, slice):
            part._rows = self._rows[rows]
        else:
            part._rows = np.asarray(self._rows)[np.asarray(rows, dtype=None if len(rows) else int)]
        return part

    def shape_of(self, encoder: str, modality: str, output: str = "embedding") -> tuple[int, ...]:
        """Return the shape that `audio` or `text` would have, knowing that every row is there.

        Parameters
        ----------
        encoder : str
        modality : {"audio", "text"}
        output : str

        Raises
        ------
        UnknownNameError, CacheError
            As `audio` and `text`, but for what only reading every vector can find.
        """
        return self._read_with(
            encoder, modality, lambda places: (len(self), *places.row_shape(self._rows, output))
        )

    def audio(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vector of each pair's clip, float32 of shape (n_pairs, n_dims).

        Raises
        ------
        UnknownNameError
            If the cache has no such encoder or output.
        CacheError
            If a pair has no row, a segment is damaged, or the encoder has several stores.
        """
        return self._read_with(encoder, "audio", lambda places: places.read(self._rows, output))

    def text(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vector of each pair's caption.  Shape and errors as in `audio`."""
        return self._read_with(encoder, "text", lambda places: places.read(self._rows, output))

    def _read_with(self, encoder: str, modality: str, read: Callable[[Places], T]) -> T:
        places = self._found(encoder, modality)
        try:
            return read(places)
        except CacheError:
            if all(path.exists() for path in places.paths):
                raise
        # Another process compacted the store since we looked: the rows lie elsewhere now.
        self._forget((encoder, modality), places)
        return read(self._found(encoder, modality))

    def _found(self, encoder: str, modality: str) -> Places:
        """Return where the vectors of the whole lie, once all those of this part are there."""
        place = (encoder, modality)
        with self._lock:  # parts are read by several threads at once
            if place not in self._places:
                index = Index.build(self._cache.root / self._store(encoder).folder, modality)
                self._places[place] = index.locate(self._keys[modality])
            places = self._places[place]
        missing = places.missing(self._rows)
        if len(missing):
            self._forget(place, places)  # they may be encoded before the next attempt
            ids = [self._whole.ids[self._rows[row]] for row in missing]
            raise CacheError(
                f"{places.folder}: no {modality} row for {len(missing)} of {len(self)} pairs of "
                f"{self._whole.split!r}. Encode them with `make features` (same DATA and "
                f"RECIPE):\n{bullet_list(ids)}"
            )
        return places

    def _forget(self, place: tuple[str, str], places: Places) -> None:
        with self._lock:
            if self._places.get(place) is places:
                del self._places[place]

    def _store(self, encoder: str) -> StoreId:
        stores = self._cache.stores(encoder)
        wanted = self._fingerprints.get(encoder)
        if not stores:
            known = sorted({store.encoder for store in self._cache.stores()})
            raise UnknownNameError(
                f"{self._cache.root}: the cache holds nothing of the encoder {encoder!r}, only of "
                f"{', '.join(known)}. Fill it with `make features` and a recipe that names it. (An "
                "encoder from a Python file goes by the name in its info.)"
            )
        if wanted is not None:
            stores = [store for store in stores if store.fingerprint == wanted]
            if not stores:
                raise CacheError(
                    f"{self._cache.root}: nothing of the encoder {encoder!r} with the fingerprint "
                    f"{wanted!r}. Fill the cache with `make features`."
                )
        if len(stores) > 1:
            found = [f"{s.fingerprint}: {json.dumps(self._cache.facts(s))}" for s in stores]
            raise CacheError(
                f"{self._cache.root}: the encoder {encoder!r} has {len(stores)} stores, made with "
                f"other weights, settings or versions. Name one: cache.load(pairs, fingerprints="
                f"{{{encoder!r}: {stores[-1].fingerprint!r}}}).\n" + bullet_list(found)
            )
        return stores[0]
