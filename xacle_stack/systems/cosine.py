"""The zero-shot baseline: a space's own cosine, brought to the scale of the scores."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from xacle_stack._types import FloatArray
from xacle_stack.errors import ModelFileError
from xacle_stack.features import cosine_similarity
from xacle_stack.stacking.calibration import MonotoneCalibration
from xacle_stack.systems.space_vectors import (
    check_space_setting,
    check_vectors_state,
    read_space,
    validate_pairs,
)
from xacle_stack.table import FeatureTable

_FLOAT_TYPES = [np.float64, np.float32]


class CosineRegressor(RegressorMixin, BaseEstimator):
    """The cosine between a clip's and a caption's vector, as a score.

    One strictly increasing map from cosines to scores is learned, so the order of the pairs is that
    of the pretrained space.

    Parameters
    ----------
    space : str, optional
        The space of a feature table whose vectors are compared; by default the only one that the
        table has.

    Attributes
    ----------
    calibration_ : MonotoneCalibration
    spaces_ : tuple of str
        The name of the space; empty after a fit on a plain array.
    widths_ : list of (int, int)
        The lengths of the clip's and the caption's vector.

    References
    ----------
    Wu et al. 2023, arXiv:2211.06687, for the cosine as similarity.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(50, 8))  # the clips' four columns, then the captions'
    >>> scores = CosineRegressor().fit(X, rng.uniform(0, 10, size=50)).predict(X)
    """

    takes_tables = True

    def __init__(self, space: str | None = None) -> None:
        self.space = space

    def check_settings(self) -> None:
        """Check the settings, without data; a StackingError says which is unusable."""
        check_space_setting(self.space)

    def fit(
        self, X: FeatureTable | ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the map.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, 2 * n_dims)
            Without names, the clips' vectors are the first half of the columns and the captions'
            the second; the middle one of an odd number of columns belongs to both.
        y : array-like of shape (n_pairs,)
            Scores.
        sample_weight : array-like of shape (n_pairs,), optional

        Raises
        ------
        FeatureError
            If a vector is zero, or the two vectors of a pair differ in length.
        StackingError
            If the table does not have the vectors of the space.
        """
        self.check_settings()
        checked, scores = validate_pairs(self, X, y, reset=True, dtype=_FLOAT_TYPES)
        self.calibration_ = MonotoneCalibration().fit(
            self._cosines(checked, reset=True), scores, sample_weight
        )
        return self

    def predict(self, X: FeatureTable | ArrayLike) -> FloatArray:
        """Return scores of shape (n_pairs,)."""
        check_is_fitted(self)
        checked, _ = validate_pairs(self, X, reset=False, dtype=_FLOAT_TYPES)
        scores: FloatArray = self.calibration_.predict(self._cosines(checked, reset=False))
        return scores

    def check_state(self) -> None:
        """Check what a regressor from a file has learned; a ModelFileError says what is wrong."""
        check_vectors_state(self)
        if not isinstance(self.calibration_, MonotoneCalibration):
            raise ModelFileError(f"calibration_ is a {type(self.calibration_).__name__}.")

    def _cosines(self, X: FeatureTable | FloatArray, *, reset: bool) -> FloatArray:
        audio, text = read_space(self, X, self.space, reset=reset)
        return cosine_similarity(audio, text)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True
        return tags
