"""The vectors themselves as blocks, for learners that combine clip and caption on their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from xacle_stack._state_checks import check_width
from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError, ModelFileError
from xacle_stack.features.embeddings import EmbeddingSource
from xacle_stack.features.pair_blocks import n_space_dims
from xacle_stack.table import FeatureTable, consecutive


class VectorBuilder(TransformerMixin, BaseEstimator):
    """Turns embeddings into a table of the vectors of clips and captions.

    Each space is a family of two blocks, ``"SPACE/audio"`` and ``"SPACE/text"``.  The table of
    pairs to train on, which `fit_transform` makes, also has the augmented views of the clips:
    ``"SPACE/audio:view-1"`` and so on.

    Parameters
    ----------
    spaces : sequence of str
        Names of encoders that embed clips and captions in one space.
    views : mapping of str to sequence of str, optional
        The names, in the cache, of the encoders that give augmented views of a space's clips.

    Attributes
    ----------
    n_dims_ : dict of str to int
        The number of dimensions of each space.

    Examples
    --------
    >>> from xacle_stack import PairEmbeddings
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 20, 4))
    >>> VectorBuilder(["mine"]).fit_transform(PairEmbeddings({"mine": (a, b)}))
    FeatureTable(20 pairs, 8 features: mine 8)
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
        self : VectorBuilder

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
        self.n_dims_ = {space: n_space_dims(X, space) for space in self.spaces}
        return self

    def fit_transform(self, X: EmbeddingSource, y: object = None) -> FeatureTable:
        """Return the table of pairs to train on, with their views; errors as of `transform`."""
        self.fit(X)
        return self._table(X, self.views or {})

    def transform(self, X: EmbeddingSource) -> FeatureTable:
        """Return the vectors as they are, without views.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings

        Returns
        -------
        table : FeatureTable
            float32.

        Raises
        ------
        FeatureError
            If a space has another size than in `fit`, or a vector is not finite.
        """
        check_is_fitted(self)
        for space, fitted in self.n_dims_.items():
            n_dims = n_space_dims(X, space)
            if n_dims != fitted:
                raise FeatureError(
                    f"space {space!r}: vectors of {n_dims} dimensions, {fitted} when fitted."
                )
        return self._table(X, {})

    def check_state(self) -> None:
        """Check what a builder from a file has learned.

        Raises
        ------
        ModelFileError
            If the sizes are not those of the spaces.
        """
        if not isinstance(self.n_dims_, dict) or list(self.n_dims_) != list(self.spaces):
            raise ModelFileError(f"n_dims_ is not that of the spaces {self.spaces!r}.")
        check_width(sum(map(check_width, self.n_dims_.values())))

    def _table(self, X: EmbeddingSource, views: Mapping[str, Sequence[str]]) -> FeatureTable:
        parts: dict[str, FloatArray] = {}
        families: dict[str, list[str]] = {}
        for space in self.n_dims_:
            own = {"audio": X.audio(space), "text": X.text(space)}
            for number, view in enumerate(views.get(space, ()), start=1):
                own[f"audio:view-{number}"] = X.audio(view)
            families[space] = [f"{space}/{name}" for name in own]
            parts.update(zip(families[space], own.values(), strict=True))
        values = np.concatenate([*parts.values()], axis=1).astype(np.float32, copy=False)
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            raise FeatureError(
                f"the vectors of {len(bad)} pairs are not finite, the first is "
                f"{X.pair_ids[bad[0]]!r}. Encode the items again."
            )
        blocks = consecutive({name: part.shape[1] for name, part in parts.items()})
        return FeatureTable(values, blocks, X.pair_ids, families)
