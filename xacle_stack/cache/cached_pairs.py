"""Pairs with their embeddings, which are found by content key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar, overload

import numpy as np

from xacle_stack._rows import row_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.cache.facts import read_facts
from xacle_stack.cache.index import Locations, locate
from xacle_stack.cache.raw_keys import RawKeys
from xacle_stack.cache.schema import StoreId
from xacle_stack.cache.segment_file import SegmentGoneError, read_again_while_gone
from xacle_stack.cache.stores import list_stores
from xacle_stack.errors import CacheError, UnknownNameError, bullet_list
from xacle_stack.pairs import Pairs

T = TypeVar("T")
FRAMES, TOKENS = "frames", "tokens"


class _Lock:
    """A lock that can be pickled and copied; the copy is a new lock."""

    def __init__(self) -> None:
        self._lock = Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _Lock, ()


class CachedPairs:
    """Pairs with their embeddings: row ``i`` of every array belongs to pair ``i``.

    :meth:`FeatureCache.load` makes it.  Arrays are read when they are asked for, so a part that
    `take` returns needs only the memory of that part.
    """

    def __init__(
        self,
        root: Path,
        pairs: Pairs,
        keys: Mapping[str, RawKeys],
        fingerprints: Mapping[str, str],
    ) -> None:
        self._root = root
        self._fingerprints = fingerprints
        # These attributes, except the rows, describe the whole and are shared by all parts of it.
        self._whole = pairs
        self._keys = keys
        self._locations: dict[tuple[str, str], Locations] = {}
        self._lock = _Lock()
        self._rows: range | IntArray = range(len(pairs))

    @property
    def root(self) -> Path:
        """The folder of all stores."""
        return self._root

    @property
    def pairs(self) -> Pairs:
        """The pairs; a part gathers them at each call."""
        if isinstance(self._rows, range) and self._rows == range(len(self._whole)):
            return self._whole
        return self._whole.take(list(self._rows))

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """Ids of the pairs, in the order of all arrays."""
        if isinstance(self._rows, range) and self._rows == range(len(self._whole)):
            return self._whole.ids
        return tuple(self._whole.ids[row] for row in self._rows)

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions, in the order of all arrays."""
        if isinstance(self._rows, range) and self._rows == range(len(self._whole)):
            return self._whole.captions
        return tuple(self._whole.captions[row] for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        encoders = sorted({store.encoder for store in list_stores(self._root)})
        return f"CachedPairs({len(self)} pairs of {self._whole.split!r}, encoders={encoders})"

    @property
    def shape(self) -> tuple[int]:
        """``(n_pairs,)``: as many rows as scikit-learn may index."""
        return (len(self),)

    def __getitem__(self, rows: Any) -> CachedPairs:
        """Return the embeddings of some pairs: `rows` is a slice, row numbers or a mask."""
        return self.take(row_numbers(rows, len(self), "a table of embeddings"))

    def take(self, rows: slice | Sequence[int] | IntArray) -> CachedPairs:
        """Return the embeddings of some of the pairs, in the order asked for.

        Nothing is read.  The location of each pair's vectors is looked up once for the whole and
        all of its parts, when an encoder is first read.

        Parameters
        ----------
        rows : slice or array-like of int
            As NumPy indexes the first axis.  A slice costs nothing.

        Returns
        -------
        part : CachedPairs
        """
        part = CachedPairs.__new__(CachedPairs)
        part.__dict__.update(self.__dict__)
        if isinstance(rows, slice):
            part._rows = self._rows[rows]
        else:
            part._rows = np.asarray(self._rows)[np.asarray(rows, dtype=None if len(rows) else int)]
        return part

    def __getstate__(self) -> dict[str, object]:
        """Return the state to pickle; a part leaves out all that belongs to other pairs."""
        used, rows = np.unique(self._rows, return_inverse=True)
        is_all, is_in_order = (
            len(used) == len(self._whole),
            bool((rows == np.arange(len(rows))).all()),
        )
        with self._lock:
            locations = dict(self._locations)
        return {
            **self.__dict__,
            "_whole": self._whole if is_all else self._whole.take(used.tolist()),
            # Pairs without clips have no keys of clips.
            "_keys": {
                modality: keys[used] if len(keys) else keys for modality, keys in self._keys.items()
            },
            "_locations": {name: found.part(used) for name, found in locations.items()},
            "_rows": range(len(rows)) if is_in_order else rows,
        }

    def content_keys(self, modality: str) -> RawKeys:
        """Return the content keys, 16 bytes each, of the clips ("audio") or captions ("text")."""
        return self._keys[modality][np.asarray(self._rows)]

    def shape_of(self, encoder: str, modality: str, output: str = "embedding") -> tuple[int, ...]:
        """Return the shape of `audio` or `text`, after checking that every row is there.

        Parameters
        ----------
        encoder : str
        modality : {"audio", "text"}
        output : str

        Raises
        ------
        UnknownNameError, CacheError
            As in `audio` and `text`, except for damage that only reading can find.
        """
        return self._read_with(
            encoder, modality, lambda found: (len(self), *found.row_shape(self._rows, output))
        )

    def audio(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vectors of the clips, float32 of shape (n_pairs, n_dims).

        Raises
        ------
        UnknownNameError
            If the cache has no such encoder or output.
        CacheError
            If a pair has no row, a segment is damaged, or the encoder has several stores.
        """
        return self._read_with(encoder, "audio", lambda found: found.read(self._rows, output))

    def text(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vectors of the captions; shape and errors as in `audio`."""
        return self._read_with(encoder, "text", lambda found: found.read(self._rows, output))

    def audio_sequences(self, encoder: str, output: str = FRAMES) -> CachedSequences:
        """Return an encoder's sequences of vectors of the clips, which are not yet read.

        Parameters
        ----------
        encoder : str
        output : str, default="frames"

        Returns
        -------
        sequences : CachedSequences

        Raises
        ------
        UnknownNameError
            If the cache has no such encoder or output.
        CacheError
            If a pair has no row, the output is a single vector for each clip, a segment is
            damaged, or the encoder has several stores.
        """
        return CachedSequences(self, encoder, "audio", output)

    def text_sequences(self, encoder: str, output: str = TOKENS) -> CachedSequences:
        """Return an encoder's sequences of vectors of the captions; as `audio_sequences`."""
        return CachedSequences(self, encoder, "text", output)

    def _read_with(self, encoder: str, modality: str, read: Callable[[Locations], T]) -> T:
        def read_once() -> T:
            locations = self._locate(encoder, modality)
            try:
                return read(locations)
            except SegmentGoneError:
                # Another process has compacted the store, so the rows are now elsewhere.
                self._forget((encoder, modality), locations)
                raise

        return read_again_while_gone(read_once)

    def _locate(self, encoder: str, modality: str) -> Locations:
        """Return the locations of the whole's vectors, checking that those of this part exist."""
        key = (encoder, modality)
        with self._lock:  # several threads may read parts
            is_fresh = key not in self._locations
            if is_fresh:
                folder = self._root / self._store(encoder).folder
                self._locations[key] = locate(folder, modality, self._keys[modality])
            locations = self._locations[key]
        missing = locations.missing(self._rows)
        if len(missing):
            self._forget(key, locations)
            if not is_fresh:  # the rows may have been encoded since
                return self._locate(encoder, modality)
            ids = [self._whole.ids[self._rows[row]] for row in missing]
            raise CacheError(
                f"{locations.folder}: no {modality} row for {len(missing)} of {len(self)} pairs of "
                f"{self._whole.split!r}. Encode them with `xacle-stack features` (same "
                f"--data, --recipe and --store):\n{bullet_list(ids)}"
            )
        return locations

    def _forget(self, key: tuple[str, str], locations: Locations) -> None:
        with self._lock:
            if self._locations.get(key) is locations:
                del self._locations[key]

    def _store(self, encoder: str) -> StoreId:
        stores = list_stores(self._root, encoder)
        wanted = self._fingerprints.get(encoder)
        if not stores:
            known = sorted({store.encoder for store in list_stores(self._root)})
            raise UnknownNameError(
                f"{self._root}: the cache holds nothing of the encoder {encoder!r}, only of "
                f"{', '.join(known)}. Fill it with `xacle-stack features` and a recipe that "
                "names it. (An encoder from a Python file goes by the name in its info.)"
            )
        if wanted is not None:
            stores = [store for store in stores if store.fingerprint == wanted]
            if not stores:
                raise CacheError(
                    f"{self._root}: nothing of the encoder {encoder!r} with the fingerprint "
                    f"{wanted!r}. Fill the cache with `xacle-stack features`."
                )
        if len(stores) > 1:
            found = [f"{s.fingerprint}: {self._facts_text(s)}" for s in stores]
            raise CacheError(
                f"{self._root}: the encoder {encoder!r} has {len(stores)} stores, made with "
                f"other weights, settings or versions. Name one: cache.load(pairs, fingerprints="
                f"{{{encoder!r}: {stores[-1].fingerprint!r}}}).\n" + bullet_list(found)
            )
        return stores[0]

    def _facts_text(self, store: StoreId) -> str:
        try:
            return json.dumps(read_facts(self._root / store.folder))
        except CacheError as error:
            return str(error)


class CachedSequences:
    """One sequence of vectors for each pair, read when it is asked for.

    :meth:`CachedPairs.audio_sequences` and `text_sequences` make it.  It has a length and is
    indexed by row: ``sequences[3]`` is one array of shape (n_frames, n_dims), and
    ``sequences[[3, 1]]`` or ``sequences[10:20]`` is a list of such arrays.  Only these are read
    from the cache and verified.  They have the bits and the type that were stored, and
    belong to the caller.

    Attributes
    ----------
    n_dims : int
    dtype : dtype
        float16 or float32.
    """

    def __init__(self, pairs: CachedPairs, encoder: str, modality: str, output: str) -> None:
        self._pairs = pairs
        self._encoder, self._modality, self._output = encoder, modality, output
        self.n_dims, self.dtype = pairs._read_with(
            encoder, modality, lambda found: found.frame_type(pairs._rows, output)
        )

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return (
            f"CachedSequences({len(self)} x T x {self.n_dims} {self.dtype}, "
            f"{self._encoder}:{self._output})"
        )

    @property
    def lengths(self) -> IntArray:
        """Number of vectors in each sequence, shape (n_pairs,); the vectors are not read."""
        rows = self._pairs._rows
        return self._pairs._read_with(
            self._encoder, self._modality, lambda found: found.lengths(rows, self._output)
        )

    def take(self, rows: slice | Sequence[int] | IntArray) -> CachedSequences:
        """Return the sequences of some of the pairs, in the order asked for; nothing is read."""
        return CachedSequences(self._pairs.take(rows), self._encoder, self._modality, self._output)

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> FloatArray: ...

    @overload
    def __getitem__(self, rows: slice | Sequence[int] | IntArray) -> list[FloatArray]: ...

    def __getitem__(
        self, rows: int | np.integer[Any] | slice | Sequence[int] | IntArray
    ) -> FloatArray | list[FloatArray]:
        if isinstance(rows, (int, np.integer)):
            return self[[int(rows)]][0]
        part = self._pairs.take(rows)
        return part._read_with(
            self._encoder,
            self._modality,
            lambda found: found.read_sequences(part._rows, self._output),
        )
