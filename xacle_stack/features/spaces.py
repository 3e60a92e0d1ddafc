"""The vectors themselves as columns, for learners that combine clip and caption on their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from xacle_stack._state_checks import check_spans, check_width
from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError, ModelFileError
from xacle_stack.features.columns import n_space_dims
from xacle_stack.features.embeddings import EmbeddingSource


class SpaceColumns(TransformerMixin, BaseEstimator):
    """Lays the vectors of one or several contrastive spaces side by side.

    Parameters
    ----------
    spaces : sequence of str
        Names of encoders that embed clips and captions in one space.
    views : mapping of str to sequence of str, optional
        Names of encoders that give augmented views of the clips of a space, for training.

    Attributes
    ----------
    slices_ : dict of str to (slice, slice)
        The columns of the clips' vectors and those of the captions', for each space.
    view_slices_ : dict of str to list of slice
        Those of the views.  Where pairs are not trained on, they repeat the clips' vectors.

    Examples
    --------
    >>> from xacle_stack import PairEmbeddings
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 20, 4))
    >>> columns = SpaceColumns(["mine"]).fit(PairEmbeddings({"mine": (a, b)}))
    >>> columns.slices_
    {'mine': (slice(0, 4, None), slice(4, 8, None))}
    """

    def __init__(
        self, spaces: Sequence[str], views: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.spaces = spaces
        self.views = views

    def fit(self, X: EmbeddingSource, y: object = None) -> Self:
        """Learn the sizes of the spaces.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings
        y : ignored

        Returns
        -------
        self : SpaceColumns

        Raises
        ------
        FeatureError
            If a space is named twice, or its clips' vectors have another shape than the captions'.
        """
        if isinstance(self.spaces, str) or not self.spaces:
            raise FeatureError(
                f"spaces must be a list of encoder names, got {self.spaces!r}. "
                "For one space write spaces=['mini-mel']."
            )
        repeated = sorted(space for space, n in Counter(self.spaces).items() if n > 1)
        if repeated:
            raise FeatureError(
                f"spaces must name each encoder once, but {list(self.spaces)!r} repeats {repeated}."
            )
        self.slices_: dict[str, tuple[slice, slice]] = {}
        self.view_slices_: dict[str, list[slice]] = {}
        start = 0
        for space in self.spaces:
            n_dims, n_views = n_space_dims(X, space), len((self.views or {}).get(space, ()))
            audio, text, *views = (
                slice(start + place * n_dims, start + (place + 1) * n_dims)
                for place in range(2 + n_views)
            )
            self.slices_[space], self.view_slices_[space] = (audio, text), views
            start += (2 + n_views) * n_dims
        return self

    def fit_transform(self, X: EmbeddingSource, y: object = None) -> FloatArray:
        """Return the vectors of the training pairs with their views; as `fit` and `transform`."""
        self.fit(X)
        return self._lay_out(X, self.views or {})

    def transform(self, X: EmbeddingSource) -> FloatArray:
        """Return the vectors, unscaled.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings

        Returns
        -------
        values : ndarray of shape (n_pairs, n_columns)
            float32, columns as in `slices_`.

        Raises
        ------
        FeatureError
            If a space has another size than in `fit`, or a vector is not finite.
        """
        check_is_fitted(self)
        for space, (audio, _) in self.slices_.items():
            n_dims = n_space_dims(X, space)
            if n_dims != audio.stop - audio.start:
                raise FeatureError(
                    f"space {space!r}: vectors of {n_dims} dimensions, "
                    f"{audio.stop - audio.start} when fitted."
                )
        repeated = {space: [space] * len(views) for space, views in self.view_slices_.items()}
        return self._lay_out(X, repeated)

    def check_state(self) -> None:
        """Check what columns from a file are.

        Raises
        ------
        ModelFileError
            If they do not follow one another, or are those of other spaces or views than set.
        """
        views = {space: len((self.views or {}).get(space, ())) for space in self.spaces}
        found = {
            space: [audio, text, *self.view_slices_[space]]
            for space, (audio, text) in self.slices_.items()
        }
        if {space: len(spans) - 2 for space, spans in found.items()} != views:
            raise ModelFileError("slices_ and view_slices_ are not those of spaces and views.")
        spans = {f"{space} {n}": span for space in found for n, span in enumerate(found[space])}
        check_spans("slices_", spans, check_width(max(span.stop for span in spans.values())))

    def _lay_out(self, X: EmbeddingSource, views: Mapping[str, Sequence[str]]) -> FloatArray:
        parts = []
        for space in self.slices_:
            parts += [X.audio(space), X.text(space)]
            parts += [X.audio(view) for view in views.get(space, ())]
        values: FloatArray = np.concatenate(parts, axis=1).astype(np.float32, copy=False)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise FeatureError(
                f"the vectors of {len(bad)} pairs are not finite, the first is "
                f"{X.pair_ids[bad[0]]!r}. Encode the items again."
            )
        return values
