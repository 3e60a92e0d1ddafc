"""Where features get their embeddings from: the contract, and arrays that are at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Protocol, Self

import numpy as np

from xacle_stack._rows import row_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import FeatureError, UnknownNameError, bullet_list


class EmbeddingSource(Protocol):
    """Embeddings of pairs; :class:`~xacle_stack.CachedPairs` and :class:`PairEmbeddings` are."""

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """Ids of the pairs, in the order of all arrays."""

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions themselves; it is an error if only their vectors are at hand."""

    def take(self, rows: slice | IntArray) -> EmbeddingSource:
        """Return the embeddings of some of the pairs, in the order asked for."""

    def shape_of(self, encoder: str, modality: str, output: str = "embedding") -> tuple[int, ...]:
        """Return the shape of `audio` or `text`; it is an error if a row is missing."""

    def audio(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Vectors of the clips, shape (n_pairs, n_dims)."""

    def text(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Vectors of the captions, shape (n_pairs, n_dims)."""


class PairEmbeddings:
    """Embeddings that are at hand as arrays, without a cache.

    Parameters
    ----------
    spaces : mapping of str to (audio, text)
        Two arrays of shape (n_pairs, n_dims) for each contrastive space.
    auxiliary : mapping of str to ndarray of shape (n_pairs, n_dims), optional
        Vectors of the clips by ``"encoder:output"``, for example ``"beats:logits"``; for
        ``"encoder:words"`` two arrays, of the clips and of the captions.
    text_auxiliary : mapping of str to ndarray of shape (n_pairs, n_dims), optional
        Vectors of the captions, for example ``"all-minilm-l6-v2:embedding"``.
    pair_ids : sequence of str, optional
        By default the row numbers.
    captions : sequence of str, optional
        The texts, for systems that read them.

    Raises
    ------
    FeatureError
        If the numbers of rows differ, a space is no two arrays, or an auxiliary is named without
        its output or like a space's clips.

    Examples
    --------
    >>> from xacle_stack import FeatureBuilder
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 20, 4))
    >>> FeatureBuilder(["mine"], n_components=2).fit_transform(PairEmbeddings({"mine": (a, b)}))
    FeatureTable(20 pairs, 24 features: mine 21, agreement 3)
    """

    def __init__(
        self,
        spaces: Mapping[str, tuple[FloatArray, FloatArray]],
        auxiliary: Mapping[str, FloatArray | tuple[FloatArray, FloatArray]] | None = None,
        pair_ids: Sequence[str] | None = None,
        *,
        text_auxiliary: Mapping[str, FloatArray] | None = None,
        captions: Sequence[str] | None = None,
    ) -> None:
        self._audio: dict[str, Any] = {}
        self._text: dict[str, Any] = {}
        for name, pair in spaces.items():
            shapes = pair.shape if isinstance(pair, np.ndarray) else [*map(np.shape, pair)]
            if len(pair) != 2 or any(np.ndim(side) != 2 for side in pair):
                raise FeatureError(
                    f"space {name!r}: expected two arrays (audio, text), both of shape (n_pairs, "
                    f"n_dims), got a {type(pair).__name__} of shape {shapes}. Vectors of clips "
                    f"alone go into auxiliary, as {f'{name}:embedding'!r}."
                )
            audio, text = map(np.asarray, pair)
            self._audio[f"{name}:embedding"], self._text[f"{name}:embedding"] = audio, text
        for name, values in (auxiliary or {}).items():
            _check_auxiliary(name, "clips", self._audio)
            if isinstance(values, tuple):
                self._audio[name], self._text[name] = map(np.asarray, values)
            else:
                self._audio[name] = np.asarray(values)
        for name, values in (text_auxiliary or {}).items():
            _check_auxiliary(name, "captions", self._text)
            self._text[name] = np.asarray(values)
        n_rows = {
            f"{side} {name}": len(array)
            for side, arrays in (("audio", self._audio), ("text", self._text))
            for name, array in arrays.items()
        }
        if pair_ids is not None:
            n_rows["pair_ids"] = len(pair_ids)
        if captions is not None:
            n_rows["captions"] = len(captions)
        self._captions = None if captions is None else tuple(captions)
        if len({*n_rows.values()}) != 1:
            raise FeatureError(f"every array needs one row a pair; got the numbers {n_rows}.")
        n_pairs = next(iter(n_rows.values()))
        self._pair_ids = tuple(map(str, range(n_pairs) if pair_ids is None else pair_ids))
        twice = [pair_id for pair_id, n in Counter(self._pair_ids).items() if n > 1]
        if twice:
            raise FeatureError(f"pair ids that stand twice:\n{bullet_list(twice)}")

    @classmethod
    def from_outputs(
        cls,
        audio: Mapping[tuple[str, str], FloatArray | Sequence[FloatArray]],
        text: Mapping[tuple[str, str], FloatArray | Sequence[FloatArray]],
        captions: Sequence[str] | None = None,
    ) -> Self:
        """Return what encoders gave for clips and captions, by encoder and output.

        Parameters
        ----------
        audio, text : mapping of (str, str) to ndarray of shape (n_pairs, n_dims)
            For a sequence, a list of arrays of shape (n_frames, n_dims).
        captions : sequence of str of length n_pairs, optional
            The texts, for systems that read them.

        Returns
        -------
        embeddings : PairEmbeddings
        """
        embeddings = cls.__new__(cls)
        embeddings._audio = {":".join(key): values for key, values in audio.items()}
        embeddings._text = {":".join(key): values for key, values in text.items()}
        embeddings._captions = None if captions is None else tuple(captions)
        n_pairs = len(next(iter([*audio.values(), *text.values()])))
        embeddings._pair_ids = tuple(map(str, range(n_pairs)))
        return embeddings

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """Ids of the pairs, in the order of all arrays."""
        return self._pair_ids

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions themselves; an UnknownNameError says that only their vectors are here."""
        if self._captions is None:
            raise UnknownNameError(
                "there are vectors of the captions, but not the captions themselves. Give them as "
                "PairEmbeddings(..., captions=[...])."
            )
        return self._captions

    @property
    def shape(self) -> tuple[int]:
        """``(n_pairs,)``: as many rows as scikit-learn may index."""
        return (len(self._pair_ids),)

    def __len__(self) -> int:
        return len(self._pair_ids)

    def __getitem__(self, rows: Any) -> PairEmbeddings:
        """Return the embeddings of some pairs: `rows` is a slice, row numbers or a mask."""
        return self.take(row_numbers(rows, len(self), "a table of embeddings"))

    def take(self, rows: slice | Sequence[int] | IntArray) -> PairEmbeddings:
        """Return the embeddings of some of the pairs, in the order asked for.

        Parameters
        ----------
        rows : slice or array-like of int
            As NumPy indexes the first axis.  A slice copies no array.

        Returns
        -------
        part : PairEmbeddings
        """
        part = copy(self)
        if not isinstance(rows, slice):
            rows = np.asarray(rows, dtype=None if len(rows) else int)
        chosen = np.arange(len(self._pair_ids))[rows]
        part._pair_ids = tuple(self._pair_ids[row] for row in chosen)
        if self._captions is not None:
            part._captions = tuple(self._captions[row] for row in chosen)
        part._audio, part._text = (
            {
                name: values[rows]
                if isinstance(values, np.ndarray)
                else [values[i] for i in chosen]
                for name, values in arrays.items()
            }
            for arrays in (self._audio, self._text)
        )
        return part

    def shape_of(self, encoder: str, modality: str, output: str = "embedding") -> tuple[int, ...]:
        """Return the shape of an encoder's vectors; `modality` is ``"audio"`` or ``"text"``."""
        arrays = self._audio if modality == "audio" else self._text
        return self._get(arrays, f"{encoder}:{output}").shape

    def audio(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vectors of the clips, shape (n_pairs, n_dims)."""
        return self._get(self._audio, f"{encoder}:{output}")

    def text(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vectors of the captions, shape (n_pairs, n_dims)."""
        return self._get(self._text, f"{encoder}:{output}")

    def audio_sequences(self, encoder: str, output: str = "frames") -> list[FloatArray]:
        """Return an encoder's sequence of each pair's clip, (n_frames, n_dims) each."""
        return list(self._get(self._audio, f"{encoder}:{output}"))

    def text_sequences(self, encoder: str, output: str = "tokens") -> list[FloatArray]:
        """Return an encoder's sequence of each pair's caption, (n_tokens, n_dims) each."""
        return list(self._get(self._text, f"{encoder}:{output}"))

    @staticmethod
    def _get(arrays: Mapping[str, Any], name: str) -> Any:
        if name not in arrays:
            raise UnknownNameError(
                f"no embeddings called {name!r}; at hand: {', '.join(arrays)}. (A name without an "
                "output stands for its 'embedding'.)"
            )
        return arrays[name]


def _check_auxiliary(name: str, items: str, known: Mapping[str, Any]) -> None:
    """Check that the name of an auxiliary of some `items` says its output, and is new."""
    if ":" not in name:
        raise FeatureError(
            f"auxiliary {name!r}: the name says no output. Write {f'{name}:embedding'!r}, or what "
            f"else the vectors are, as in {f'{name}:logits'!r}."
        )
    if name in known:
        raise FeatureError(
            f"auxiliary {name!r}: these are the {items} of the space {name.partition(':')[0]!r}, "
            "which is there already; leave one out."
        )
