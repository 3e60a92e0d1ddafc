"""The content keys that a store holds, for whoever encodes what it lacks."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from xacle_stack.cache.index import read_each
from xacle_stack.cache.raw_keys import RAW_DTYPE, RawKeys, distinct, hex_keys
from xacle_stack.cache.schema import StoreId
from xacle_stack.cache.segment_file import open_segment
from xacle_stack.cache.segment_keys import unordered_keys

_NO_KEYS = np.array([], dtype=RAW_DTYPE)


class KnownKeys:
    """The content keys of one modality of a store, which other processes may fill.

    A key that was read takes 16 bytes.  Keys are texts of 32 hexadecimal digits.  Nothing is known
    before the first `refresh`.

    Parameters
    ----------
    root : Path
        The folder of all stores.
    store : StoreId
    modality : {"audio", "text"}
    """

    def __init__(self, root: Path, store: StoreId, modality: str) -> None:
        self._folder = root / store.folder
        self._modality = modality
        self._read: set[Path] = set()
        self._runs: list[_SortedKeys] = []
        self._added: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._added or any(key in run for run in self._runs)

    def __iter__(self) -> Iterator[str]:
        """Yield all keys; one that was written twice may come twice."""
        for run in self._runs:
            yield from hex_keys(run.keys)
        yield from self._added

    def update(self, keys: Iterable[str]) -> None:
        """Add keys of rows that are being written."""
        self._added.update(keys)

    def refresh(self) -> None:
        """Read the segments that are new; if one has gone, forget what was read and read all.

        Raises
        ------
        CacheError
            If the folder cannot be listed, or a segment is damaged.
        """

        def read_new(path: Path) -> RawKeys:
            if path in self._read:
                return _NO_KEYS
            with open_segment(path) as segment:
                return unordered_keys(segment)

        paths, parts = read_each(self._folder, self._modality, read_new)
        if not self._read <= set(paths):
            self._read, self._runs = set(), []
            paths, parts = read_each(self._folder, self._modality, read_new)
        self._read = set(paths)
        keys = np.concatenate([_NO_KEYS, *parts])
        del parts
        if not len(keys):
            return
        # Joins runs of similar length, so that there are few.
        while self._runs and len(self._runs[-1].keys) < 2 * len(keys):
            keys = np.concatenate([self._runs.pop().keys, keys])
        self._runs.append(_SortedKeys(distinct(keys)))


class _SortedKeys:
    """Sorted keys that are found one at a time."""

    def __init__(self, keys: RawKeys) -> None:
        # Python finds its own integers by bisection several times as fast as NumPy finds a key.
        words = keys.view(">u8").reshape(-1, 2)
        self._high, self._low = (array("Q", word.astype(np.uint64).tobytes()) for word in words.T)

    @property
    def keys(self) -> RawKeys:
        words = np.column_stack([self._high, self._low]).astype(">u8")
        keys: RawKeys = words.view(RAW_DTYPE)[:, 0]
        return keys

    def __contains__(self, key: str) -> bool:
        try:
            high, low = int(key[:16], 16), int(key[16:], 16)
        except ValueError:
            return False
        place = bisect_left(self._high, high)
        while place < len(self._high) and self._high[place] == high:
            if self._low[place] == low:
                return True
            place += 1
        return False
