"""Reads a cache: many segments, seen as one table by content key, matched to pairs by pair id."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.cache.keys import AudioKeys
from xacle_stack.cache.schema import (
    FINGERPRINT_FILE,
    KEY_DTYPE,
    KeyArray,
    StoreId,
    open_segment,
    read_keys,
    segment_paths,
    text_key,
)
from xacle_stack.cache.upkeep import merge_segments, segment_fault
from xacle_stack.errors import CacheError, UnknownNameError, bullet_list
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
        keys = _Index.build(self.root / store.folder, modality).keys
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
            n_rows = len(_Index.build(self.root / store.folder, modality).keys)
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


class CachedPairs:
    """Pairs with their embeddings, row ``i`` of every array belonging to pair ``i``.

    Made by :meth:`FeatureCache.load`.
    """

    def __init__(
        self,
        cache: FeatureCache,
        pairs: Pairs,
        keys: Mapping[str, KeyArray],
        fingerprints: Mapping[str, str],
    ) -> None:
        self.pairs = pairs
        self._cache = cache
        self._keys = keys
        self._fingerprints = fingerprints

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """Ids of the pairs, in the order of all arrays."""
        return self.pairs.ids

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        encoders = sorted({store.encoder for store in self._cache.stores()})
        return f"CachedPairs({len(self)} pairs of {self.pairs.split!r}, encoders={encoders})"

    def audio(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vector of each pair's clip, float32 of shape (n_pairs, n_dims).

        Raises
        ------
        UnknownNameError
            If the cache has no such encoder or output.
        CacheError
            If a pair has no row, a segment is damaged, or the encoder has several stores.
        """
        return self._read(encoder, "audio", output)

    def text(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vector of each pair's caption.  Shape and errors as in `audio`."""
        return self._read(encoder, "text", output)

    def _read(self, encoder: str, modality: str, output: str) -> FloatArray:
        store = self._store(encoder)
        folder = self._cache.root / store.folder
        index = _Index.build(folder, modality)
        places = index.places(self._keys[modality])
        missing = [self.pair_ids[row] for row in np.flatnonzero(places < 0)]
        if missing:
            raise CacheError(
                f"{folder}: no {modality} row for {len(missing)} of {len(self)} pairs of "
                f"{self.pairs.split!r}. Encode them with `make features` (same DATA and RECIPE):\n"
                + bullet_list(missing)
            )
        return index.read(places, output)

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


@dataclass(frozen=True, eq=False)
class _Index:
    """Where each content key of a store and modality stands: sorted keys, segment, row."""

    paths: Sequence[Path]
    keys: KeyArray
    segments: IntArray
    rows: IntArray

    @classmethod
    def build(cls, folder: Path, modality: str) -> "_Index":
        paths = segment_paths(folder, modality)
        parts = [read_keys(path) for path in paths]
        sizes = [len(part) for part in parts]
        every = np.concatenate(parts) if parts else np.array([], dtype=KEY_DTYPE)
        # Two writers at once may have stored the same key; the first segment by name is read.
        keys, first = np.unique(every, return_index=True)
        segments = np.repeat(np.arange(len(paths)), sizes)[first]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        return cls(paths, keys, segments, first - starts[segments])

    def places(self, keys: KeyArray) -> IntArray:
        """Return the place of each key in ``self.keys``, -1 where there is none."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.searchsorted(self.keys, keys)
        places[places == len(self.keys)] = 0
        return np.where(self.keys[places] == keys, places, -1)

    def read(self, places: IntArray, output: str) -> FloatArray:
        segments, rows = self.segments[places], self.rows[places]
        table: FloatArray | None = None
        by_segment = np.argsort(segments, kind="stable")
        ends = np.flatnonzero(np.diff(segments[by_segment], append=-1)) + 1
        for of_segment in np.split(by_segment, ends)[:-1]:
            segment = segments[of_segment[0]]
            with open_segment(self.paths[segment]) as file:
                if output not in file["outputs"]:
                    raise UnknownNameError(
                        f"{self.paths[segment]}: no output {output!r}. It holds: "
                        f"{', '.join(file['outputs'])}."
                    )
                values = file["outputs"][output]
                if table is None:
                    table = np.empty((len(places), *values.shape[1:]), dtype=values.dtype)
                for wanted, run in _runs(rows, of_segment, values.chunks):
                    table[wanted] = values[run][rows[wanted] - run.start]
        if table is None:
            raise CacheError("nothing was asked for: the list of pairs is empty.")
        return table


def _runs(
    rows: IntArray, wanted: IntArray, chunks: tuple[int, ...]
) -> Iterator[tuple[IntArray, slice]]:
    """Split wanted rows into runs of neighbouring chunks, each read by one slice."""
    wanted = wanted[np.argsort(rows[wanted], kind="stable")]
    chunk = rows[wanted] // chunks[0]
    for run in np.split(wanted, np.flatnonzero(np.diff(chunk) > 1) + 1):
        yield run, slice(int(rows[run[0]]), int(rows[run[-1]]) + 1)
