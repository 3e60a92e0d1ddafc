"""Sequences of vectors of the clips beside one vector, or a sequence, of each caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Protocol, Self, cast

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from xacle_stack._rows import picked, row_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import FeatureError, ModelFileError


class Frames(Protocol):
    """Sequences that are read where they are asked for, as those of the cache."""

    @property
    def n_dims(self) -> int:
        """Length of each vector."""

    def __len__(self) -> int:
        """Return the number of clips."""

    def __getitem__(self, rows: IntArray) -> list[FloatArray]:
        """Return the sequences of some clips, (n_frames, n_dims) each."""

    def take(self, rows: slice | IntArray) -> Frames:
        """Return those of some clips, without reading them."""


class FramesAtHand:
    """Sequences that are arrays in memory.

    Parameters
    ----------
    sequences : sequence of array-like of shape (n_frames, n_dims)
        Each of its own length, one frame or more.
    item : str, default="clip"
        What an error calls that of which a sequence is.

    Raises
    ------
    FeatureError
        If there is none, one is empty or not finite, or they differ in `n_dims`.
    """

    def __init__(self, sequences: Sequence[ArrayLike], item: str = "clip") -> None:
        self._sequences = [np.asarray(sequence) for sequence in sequences]
        widths = {array.shape[1:] for array in self._sequences}
        if len(widths) != 1 or len(next(iter(widths))) != 1:
            raise FeatureError(
                f"expected one sequence of shape (n_frames, n_dims) a {item}, n_dims the same for "
                f"all, got the shapes {sorted({array.shape for array in self._sequences})[:5]}."
            )
        for place, array in enumerate(self._sequences):
            if not len(array) or not np.isfinite(array).all():
                raise FeatureError(f"the sequence of {item} {place} is empty or not finite.")
        self.n_dims = int(next(iter(widths))[0])

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, rows: IntArray) -> list[FloatArray]:
        return [self._sequences[row] for row in rows]

    def take(self, rows: slice | IntArray) -> FramesAtHand:
        """Return those of some clips."""
        part = copy(self)
        part._sequences = list(picked(self._sequences, rows))
        return part


class PairSequences:
    """Pairs as a sequence of frames of the clip, and one vector or a sequence of the caption.

    Parameters
    ----------
    frames : Frames, or list of ndarray of shape (n_frames, n_dims)
        Of the clips; :meth:`CachedPairs.audio_sequences` gives them from the cache.
    text : array-like of shape (n_pairs, n_text_dims), or Frames, or list of ndarray
        One vector for each caption; or sequences, from :meth:`CachedPairs.text_sequences` or as a
        list of arrays of shape (n_tokens, n_text_dims).

    Attributes
    ----------
    widths : (int, int)
        The dimensions of a frame, and of a caption's vector or of each in its sequence.
    shape : (int, int)
        Number of pairs, and the sum of the widths.

    Raises
    ------
    FeatureError
        If `frames` is neither, there is not one of each for every pair, or a value is not finite.

    Examples
    --------
    >>> PairSequences([np.zeros((3, 2)), np.zeros((5, 2))], np.zeros((2, 4))).shape
    (2, 6)
    >>> PairSequences([np.zeros((3, 2))], [np.zeros((7, 4))]).widths
    (2, 4)
    """

    def __init__(
        self, frames: Frames | list[FloatArray], text: ArrayLike | Frames | list[FloatArray]
    ) -> None:
        if not isinstance(frames, list) and not hasattr(frames, "n_dims"):
            raise FeatureError(
                "frames: expected a list of arrays of shape (n_frames, n_dims), or sequences of "
                f"the cache, got {type(frames).__name__}. Write list(frames)."
            )
        self.frames: Frames = FramesAtHand(frames) if isinstance(frames, list) else frames
        self.text = _captions(text)
        if len(self.text) != len(self.frames):
            raise FeatureError(
                f"{len(self.frames)} sequences but {len(self.text)} captions: expected one vector, "
                "or one sequence, of a caption for each."
            )
        self.shape = (len(self.text), sum(self.widths))

    @property
    def widths(self) -> tuple[int, int]:
        """The dimensions of a frame, and of a caption's vectors."""
        text = self.text
        return self.frames.n_dims, text.shape[1] if isinstance(text, np.ndarray) else text.n_dims

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: Any) -> PairSequences:
        """Return the sequences of some pairs: `rows` is a slice, row numbers or a mask."""
        kept = row_numbers(rows, len(self), "a table of sequences")
        part = copy(self)
        part.frames, text = self.frames.take(kept), self.text
        part.text = text[kept] if isinstance(text, np.ndarray) else text.take(kept)
        part.shape = (len(part.frames), self.shape[1])
        return part

    def __iter__(self) -> Iterator[tuple[FloatArray, FloatArray]]:
        for row in np.arange(len(self))[:, np.newaxis]:
            yield self.frames[row][0], self.text[row][0]


def _captions(text: Any) -> FloatArray | Frames:
    """Return the captions' vectors or sequences, after checking what is at hand."""
    if hasattr(text, "n_dims"):
        return cast(Frames, text)
    if isinstance(text, list) and any(np.ndim(one) == 2 for one in text):
        return FramesAtHand(text, item="caption")
    vectors: FloatArray = np.asarray(text, dtype=np.float32)
    if vectors.ndim != 2:
        raise FeatureError(
            f"captions of shape {vectors.shape}: expected one vector for each, shape (n_pairs, "
            "n_text_dims), or a list with one array of shape (n_tokens, n_text_dims) for each."
        )
    if not np.isfinite(vectors).all():
        raise FeatureError("the captions' vectors are not all finite. Encode them again.")
    return vectors


def padded(sequences: Sequence[FloatArray]) -> tuple[FloatArray, IntArray]:
    """Return sequences, float32, with zeros after all but the longest, and their lengths.

    Examples
    --------
    >>> padded([np.ones((1, 1)), np.ones((2, 1))])[0].tolist()
    [[[1.0], [0.0]], [[1.0], [1.0]]]
    """
    lengths = np.array([len(sequence) for sequence in sequences])
    together = np.zeros((len(lengths), lengths.max(), sequences[0].shape[1]), dtype=np.float32)
    for row, sequence in zip(together, sequences, strict=True):
        row[: len(sequence)] = sequence
    return together, lengths


class SequenceBuilder(TransformerMixin, BaseEstimator):
    """Takes the clips' sequences and the captions' vectors or sequences out of the cache.

    Parameters
    ----------
    frames : str
        An audio output that is a sequence, ``"encoder:output"``, for example ``"byol-a:frames"``.
        What follows the last colon is the output; without one it is "frames".
    text : str
        An encoder of captions, for example ``"roberta-large"``, or an output that is a sequence,
        for example ``"roberta-large:tokens"``.

    Attributes
    ----------
    n_dims_ : (int, int)
        Dimensions of a frame and of a caption's vector.
    """

    def __init__(self, frames: str, text: str) -> None:
        self.frames = frames
        self.text = text

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the dimensions.

        Parameters
        ----------
        X : CachedPairs
        y : ignored

        Returns
        -------
        self : SequenceBuilder
        """
        self.n_dims_ = self._read(X).widths
        return self

    def transform(self, X: Any) -> PairSequences:
        """Return the sequences, which are read where they are asked for.

        Parameters
        ----------
        X : CachedPairs

        Returns
        -------
        sequences : PairSequences

        Raises
        ------
        FeatureError
            If the dimensions are others than in `fit`.
        CacheError
            If an embedding is missing, or the output is no sequence.
        """
        check_is_fitted(self)
        sequences = self._read(X)
        if sequences.widths != self.n_dims_:
            raise FeatureError(
                f"frames and captions of {sequences.widths} dimensions, {self.n_dims_} when fitted."
            )
        return sequences

    def check_state(self) -> None:
        """Check the dimensions that come from a file.

        Raises
        ------
        ModelFileError
            If they are no two whole numbers.
        """
        dims, names = self.n_dims_, (self.frames, self.text)
        if not isinstance(dims, tuple) or [type(n) for n in dims] != [int, int] or min(dims) < 1:
            raise ModelFileError(f"n_dims_ is {dims!r}, expected two whole numbers above 0.")
        if not all(isinstance(name, str) for name in names):
            raise ModelFileError(f"frames and text are {names!r}, expected names of encoders.")

    def _read(self, X: Any) -> PairSequences:
        frames = X.audio_sequences(*split_output(self.frames))
        if ":" in self.text:
            return PairSequences(frames, X.text_sequences(*split_output(self.text)))
        return PairSequences(frames, X.text(self.text))


def split_output(name: str) -> tuple[str, str]:
    """Return the encoder and the output of ``"encoder:output"``; without one it is "frames".

    Examples
    --------
    >>> split_output("beats:tokens"), split_output("byol-a")
    (('beats', 'tokens'), ('byol-a', 'frames'))
    """
    encoder, colon, output = name.rpartition(":")
    return (encoder, output) if colon else (name, "frames")
