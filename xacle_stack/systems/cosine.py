"""The zero-shot baseline: a space's own cosine, brought to the scale of the scores."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._types import FloatArray
from xacle_stack.errors import ModelFileError
from xacle_stack.features import cosine_similarity
from xacle_stack.stacking.calibration import MonotoneCalibration
from xacle_stack.systems.pair_columns import check_halves, pair_columns


class CosineRegressor(RegressorMixin, BaseEstimator):
    """The cosine between a clip's and a caption's vector, as a score.

    What is learned is one strictly increasing map from cosines to scores, so the ranks are those of
    the pretrained space.

    Attributes
    ----------
    calibration_ : MonotoneCalibration

    References
    ----------
    Wu et al. 2023, arXiv:2211.06687, for the cosine as similarity.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(50, 8))  # the clips' four columns, then the captions'
    >>> scores = CosineRegressor().fit(X, rng.uniform(0, 10, size=50)).predict(X)
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the map.

        Parameters
        ----------
        X : array-like of shape (n_pairs, 2 * n_dims)
            The clips' vectors, then the captions'; the middle one of an odd number of columns
            belongs to both.
        y : array-like of shape (n_pairs,)
            Scores.
        sample_weight : array-like of shape (n_pairs,), optional

        Returns
        -------
        self : CosineRegressor

        Raises
        ------
        FeatureError
            If a vector is zero.
        StackingError
            If X is a feature table.
        """
        check_halves(X)
        table: FloatArray
        table, y = validate_data(self, X, y, y_numeric=True, dtype=[np.float64, np.float32])
        self.calibration_ = MonotoneCalibration().fit(_cosines(table), y, sample_weight)
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return scores of shape (n_pairs,)."""
        check_is_fitted(self)
        table: FloatArray = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        scores: FloatArray = self.calibration_.predict(_cosines(table))
        return scores

    def check_state(self) -> None:
        """Check what a regressor from a file has learned.

        Raises
        ------
        ModelFileError
            If its map is none.
        """
        if not isinstance(self.calibration_, MonotoneCalibration):
            raise ModelFileError(f"calibration_ is a {type(self.calibration_).__name__}.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags


def _cosines(table: FloatArray) -> FloatArray:
    (audio, *_), text = pair_columns(table.shape[1], None, None)
    return cosine_similarity(table[:, audio], table[:, text])
