"""Turns captions into hashed n-gram counts for mini-CLAP."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xacle_stack._types import FloatArray, IntArray

_ARTICLES = frozenset({"a", "an", "the", "of", "is", "are"})


@dataclass(frozen=True)
class CaptionReader:
    """Hashes the n-grams of a caption into buckets.

    Attributes
    ----------
    n_buckets : int
    seed : int
        Readers of different seeds collide on different n-grams.
    word_n : tuple of int
        Sizes of the word n-grams; articles and similar words are dropped first.
    char_n : tuple of int
        Sizes of the character n-grams in each word, with its ends marked.
    positions : bool
        Whether a word is also hashed together with the half of the caption that contains it.
    """

    n_buckets: int
    seed: int
    word_n: tuple[int, ...] = ()
    char_n: tuple[int, ...] = ()
    positions: bool = False

    def buckets(self, caption: str) -> IntArray:
        """Return the buckets that a caption fills, in ascending order without duplicates.

        Case and punctuation are ignored; there are none if no word of the caption remains.

        Examples
        --------
        >>> reader = CaptionReader(n_buckets=100, seed=0, word_n=(1,))
        >>> bool((reader.buckets("A dog!") == reader.buckets("the dog")).all())
        True
        """
        grams = {self._hash(gram) for gram in self._grams(caption)}
        return np.array(sorted(grams), dtype=np.intp)

    def counts(self, caption: str) -> FloatArray:
        """Return a row that is 1 for the filled buckets and 0 elsewhere, shape (n_buckets,)."""
        row = np.zeros(self.n_buckets, dtype=np.float32)
        row[self.buckets(caption)] = 1.0
        return row

    def _grams(self, caption: str) -> Iterator[str]:
        words = [w for w in re.findall(r"\w+", caption.casefold()) if w not in _ARTICLES]
        for n in self.word_n:
            for i in range(len(words) - n + 1):
                yield "w:" + " ".join(words[i : i + n])
        for word in words:
            marked = f"<{word}>"
            for n in self.char_n:
                for i in range(len(marked) - n + 1):
                    yield "c:" + marked[i : i + n]
        if self.positions:
            for i, word in enumerate(words):
                yield f"p{2 * i // len(words)}:{word}"

    def _hash(self, gram: str) -> int:
        # crc32 combines its start value linearly, so the seed is made part of the text instead.
        return zlib.crc32(f"{self.seed} {gram}".encode()) % self.n_buckets
