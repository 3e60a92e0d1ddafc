"""Sequences of vectors of the clips beside the captions themselves, for language models."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from xacle_stack._rows import picked, row_numbers
from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError, ModelFileError
from xacle_stack.features.sequences import Frames, FramesAtHand, split_output


class CaptionedSequences:
    """Pairs as a sequence of vectors of the clip and the caption as text.

    Parameters
    ----------
    frames : Frames, or list of ndarray of shape (n_frames, n_dims)
        Of the clips; :meth:`CachedPairs.audio_sequences` gives them from the cache.
    captions : sequence of str
    views : sequence of Frames
        Those of augmented views of the clips.

    Attributes
    ----------
    shape : (int, int)
        Number of pairs and dimensions of a vector.

    Raises
    ------
    FeatureError
        If there is not one caption for every clip, or a view is of other clips or dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> clips = [np.zeros((3, 2)), np.zeros((5, 2))]
    >>> CaptionedSequences(clips, ["a dog barks", "rain"]).shape
    (2, 2)
    """

    def __init__(
        self,
        frames: Frames | list[FloatArray],
        captions: Sequence[str],
        views: Sequence[Frames] = (),
    ) -> None:
        self.frames: Frames = FramesAtHand(frames) if isinstance(frames, list) else frames
        self.captions = tuple(captions)
        self.views = tuple(views)
        if len(self.captions) != len(self.frames):
            raise FeatureError(
                f"{len(self.frames)} sequences and {len(self.captions)} captions: expected one "
                "caption for each sequence."
            )
        for number, view in enumerate(self.views, start=1):
            if (len(view), view.n_dims) != (len(self.frames), self.frames.n_dims):
                raise FeatureError(
                    f"view {number}: {len(view)} sequences of {view.n_dims} dimensions, but the "
                    f"clips are {len(self.frames)} of {self.frames.n_dims}."
                )
        self.shape = (len(self.captions), self.frames.n_dims)

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, rows: Any) -> CaptionedSequences:
        """Return the sequences of some pairs: `rows` is a slice, row numbers or a mask."""
        kept = row_numbers(rows, len(self), "a table of sequences")
        part = copy(self)
        part.frames = self.frames.take(kept)
        part.views = tuple(view.take(kept) for view in self.views)
        part.captions = tuple(picked(self.captions, kept))
        part.shape = (len(part.captions), self.shape[1])
        return part


class CaptionedSequenceBuilder(TransformerMixin, BaseEstimator):
    """Takes the clips' sequences out of the cache, beside their captions.

    Parameters
    ----------
    tokens : str
        An audio output that is a sequence, ``"encoder:output"``, for example ``"beats:tokens"``.
        What follows the last colon is the output; without one it is "frames".
    views : sequence of str
        The names, in the cache, of the encoders that give augmented views of the clips.  The table
        of pairs to train on, which `fit_transform` makes, has them.

    Attributes
    ----------
    n_dims_ : int
        Dimensions of a vector.
    """

    def __init__(self, tokens: str, views: Sequence[str] = ()) -> None:
        self.tokens = tokens
        self.views = views

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the dimensions of the vectors.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings
        y : ignored

        Returns
        -------
        self : CaptionedSequenceBuilder
        """
        self.n_dims_ = int(self._read(X, ()).frames.n_dims)
        return self

    def fit_transform(self, X: Any, y: object = None) -> CaptionedSequences:
        """Return the sequences to train on, with their views; errors as of `transform`."""
        self.fit(X)
        return self._read(X, self.views)

    def transform(self, X: Any) -> CaptionedSequences:
        """Return the sequences, without views; they are read where they are asked for.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings

        Returns
        -------
        sequences : CaptionedSequences

        Raises
        ------
        FeatureError
            If the dimensions are others than in `fit`.
        UnknownNameError
            If there is no such encoder or output.
        CacheError
            If a clip is not encoded, or the output is no sequence.
        """
        check_is_fitted(self)
        sequences = self._read(X, ())
        if sequences.frames.n_dims != self.n_dims_:
            raise FeatureError(
                f"{self.tokens}: vectors of {sequences.frames.n_dims} dimensions, {self.n_dims_} "
                "when fitted."
            )
        return sequences

    def check_state(self) -> None:
        """Check the dimensions that come from a file; a ModelFileError says what is wrong."""
        if type(self.n_dims_) is not int or self.n_dims_ < 1:
            raise ModelFileError(f"n_dims_ is {self.n_dims_!r}, expected a whole number above 0.")
        if not isinstance(self.tokens, str):
            raise ModelFileError(f"tokens is {self.tokens!r}, expected the name of an output.")

    def _read(self, X: Any, views: Sequence[str]) -> CaptionedSequences:
        encoder, output = split_output(self.tokens)
        return CaptionedSequences(
            X.audio_sequences(encoder, output),
            X.captions,
            [X.audio_sequences(view, output) for view in views],
        )
