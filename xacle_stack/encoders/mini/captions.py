"""Captions to hashed n-gram counts: the three ways in which mini-CLAP reads."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from xacle_stack._types import FloatArray, IntArray

_ARTICLES = frozenset({"a", "an", "the", "of", "is", "are"})


@dataclass(frozen=True)
class CaptionReader:
    """Which n-grams are looked at, and into how many buckets they are hashed.

    Attributes
    ----------
    n_buckets : int
    seed : int
        Readers of different seeds collide on different n-grams.
    word_n : tuple of int
        Sizes of the word n-grams; articles and the like are dropped before.
    char_n : tuple of int
        Sizes of the n-grams within each word, its ends marked.
    places : bool
        Whether a word also counts by the half of the caption that it stands in.
    """

    n_buckets: int
    seed: int
    word_n: tuple[int, ...] = ()
    char_n: tuple[int, ...] = ()
    places: bool = False

    def buckets(self, caption: str) -> IntArray:
        """Return the buckets that a caption fills, each once, in ascending order.

        Parameters
        ----------
        caption : str
            Case and punctuation are ignored.

        Returns
        -------
        buckets : ndarray of shape (n_filled,)
            In 0 … n_buckets - 1; empty where nothing is left of the caption.

        Examples
        --------
        >>> reader = CaptionReader(n_buckets=100, seed=0, word_n=(1,))
        >>> bool((reader.buckets("A dog!") == reader.buckets("the dog")).all())
        True
        """
        grams = {self._hash(gram) for gram in self._grams(caption)}
        return np.array(sorted(grams), dtype=np.intp)

    def counts(self, caption: str) -> FloatArray:
        """Return a row of zeros and ones, shape (n_buckets,): which buckets are filled."""
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
        if self.places:
            for i, word in enumerate(words):
                yield f"p{2 * i // len(words)}:{word}"

    def _hash(self, gram: str) -> int:
        # crc32 mixes its start value in linearly, so the seed must be part of the text instead.
        return zlib.crc32(f"{self.seed} {gram}".encode()) % self.n_buckets
