"""Pairs with their embeddings, matched by content key and seen as one table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from xacle_stack._rows import row_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.cache.index import Index, Places
from xacle_stack.cache.schema import KeyArray, StoreId
from xacle_stack.cache.segment_file import SegmentGoneError, read_again_while_gone
from xacle_stack.errors import CacheError, UnknownNameError, bullet_list
from xacle_stack.pairs import Pairs

if TYPE_CHECKING:
    from xacle_stack.cache.reader import FeatureCache

T = TypeVar("T")
FRAMES = "frames"


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

    @property
    def shape(self) -> tuple[int]:
        """``(n_pairs,)``: as many rows as scikit-learn may index."""
        return (len(self),)

    def __getitem__(self, rows: Any) -> CachedPairs:
        """Return the embeddings of some pairs: `rows` is a slice, row numbers or a mask."""
        return self.take(row_numbers(rows, len(self), "a table of embeddings"))

    def take(self, rows: slice | Sequence[int] | IntArray) -> CachedPairs:
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
        part = CachedPairs.__new__(CachedPairs)
        part.__dict__.update(self.__dict__)
        if isinstance(rows, slice):
            part._rows = self._rows[rows]
        else:
            part._rows = np.asarray(self._rows)[np.asarray(rows, dtype=None if len(rows) else int)]
        return part

    def __getstate__(self) -> dict[str, object]:
        """Return what is pickled: of a part, nothing that belongs to other pairs."""
        used, rows = np.unique(self._rows, return_inverse=True)
        is_all, is_in_order = (
            len(used) == len(self._whole),
            bool((rows == np.arange(len(rows))).all()),
        )
        with self._lock:
            places = dict(self._places)
        return {
            **self.__dict__,
            "_whole": self._whole if is_all else self._whole.take(used.tolist()),
            "_keys": {modality: keys[used] for modality, keys in self._keys.items()},
            "_places": {name: of_whole.part(used) for name, of_whole in places.items()},
            "_rows": range(len(rows)) if is_in_order else rows,
        }

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

    def audio_sequences(self, encoder: str, output: str = FRAMES) -> CachedSequences:
        """Return an encoder's sequence of vectors of each pair's clip; nothing is read yet.

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
            If a pair has no row, the output is one vector an item, a segment is damaged, or the
            encoder has several stores.
        """
        return CachedSequences(self, encoder, "audio", output)

    def text_sequences(self, encoder: str, output: str = FRAMES) -> CachedSequences:
        """Return the sequences of each pair's caption.  All as in `audio_sequences`."""
        return CachedSequences(self, encoder, "text", output)

    def _read_with(self, encoder: str, modality: str, read: Callable[[Places], T]) -> T:
        def read_once() -> T:
            places = self._found(encoder, modality)
            try:
                return read(places)
            except SegmentGoneError:
                # Another process compacted the store since we looked: the rows lie elsewhere now.
                self._forget((encoder, modality), places)
                raise

        return read_again_while_gone(read_once)

    def _found(self, encoder: str, modality: str) -> Places:
        """Return where the vectors of the whole lie, once all those of this part are there."""
        place = (encoder, modality)
        with self._lock:  # parts are read by several threads at once
            is_fresh = place not in self._places
            if is_fresh:
                index = Index.build(self._cache.root / self._store(encoder).folder, modality)
                self._places[place] = index.locate(self._keys[modality])
            places = self._places[place]
        missing = places.missing(self._rows)
        if len(missing):
            self._forget(place, places)
            if not is_fresh:  # they may have been encoded since
                return self._found(encoder, modality)
            ids = [self._whole.ids[self._rows[row]] for row in missing]
            raise CacheError(
                f"{places.folder}: no {modality} row for {len(missing)} of {len(self)} pairs of "
                f"{self._whole.split!r}. Encode them with `xacle-stack features` (same "
                f"--data, --recipe and --store):\n{bullet_list(ids)}"
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
                f"{', '.join(known)}. Fill it with `xacle-stack features` and a recipe that "
                "names it. (An encoder from a Python file goes by the name in its info.)"
            )
        if wanted is not None:
            stores = [store for store in stores if store.fingerprint == wanted]
            if not stores:
                raise CacheError(
                    f"{self._cache.root}: nothing of the encoder {encoder!r} with the fingerprint "
                    f"{wanted!r}. Fill the cache with `xacle-stack features`."
                )
        if len(stores) > 1:
            found = [f"{s.fingerprint}: {self._facts_text(s)}" for s in stores]
            raise CacheError(
                f"{self._cache.root}: the encoder {encoder!r} has {len(stores)} stores, made with "
                f"other weights, settings or versions. Name one: cache.load(pairs, fingerprints="
                f"{{{encoder!r}: {stores[-1].fingerprint!r}}}).\n" + bullet_list(found)
            )
        return stores[0]

    def _facts_text(self, store: StoreId) -> str:
        try:
            return json.dumps(self._cache.facts(store))
        except CacheError as error:
            return str(error)


class CachedSequences:
    """Sequences of vectors, one a pair, that are read when they are asked for.

    Made by :meth:`CachedPairs.audio_sequences` and :meth:`CachedPairs.text_sequences`.  It has a
    length and is indexed by row: ``sequences[3]`` is one array of shape (n_frames, n_dims), and
    ``sequences[[3, 1]]`` or ``sequences[10:20]`` a list of such arrays.  Only those are read, and
    verified, from the cache; the bits are those that were stored, in the type that they were stored
    in.  Each array is the caller's own.

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
            encoder, modality, lambda places: places.frame_type(pairs._rows, output)
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
        """How many vectors each sequence has, shape (n_pairs,); none of them is read."""
        rows = self._pairs._rows
        return self._pairs._read_with(
            self._encoder, self._modality, lambda places: places.lengths(rows, self._output)
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
            lambda places: places.read_sequences(part._rows, self._output),
        )
