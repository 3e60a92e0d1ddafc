"""From any predictor to the scale of the scores, without changing a rank."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import lsq_linear
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray
from xacle_stack._validation import row_weights
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.pairs import MAX_SCORE, MIN_SCORE

_MAX_SEGMENTS = 10
# No segment has less than this share of the overall slope, or neighbouring scores would coincide.
_MIN_SLOPE = 0.05
# The bend towards a bound begins at this share of the range before it.
_MARGIN = 0.05


class MonotoneCalibration(RegressorMixin, BaseEstimator):
    """A strictly increasing, piecewise linear map from predictions to scores, by least squares.

    The map is linear between quantiles of the predictions and goes on beyond the outermost ones.
    Its slope is above zero everywhere, so the ranks of the predictions stay, and with them SRCC and
    KTAU.

    Attributes
    ----------
    knots_ : ndarray of shape (n_knots,)
        Predictions at which the slope changes.
    values_ : ndarray of shape (n_knots,)
        The scores of the knots.
    slopes_ : ndarray of shape (2,)
        The slopes below the first knot and above the last.

    Examples
    --------
    >>> calibration = MonotoneCalibration().fit([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4])
    >>> calibration.predict([0.25, 0.5]).round(6)
    array([2.5, 5. ])
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the map.

        Parameters
        ----------
        X : array-like of shape (n_pairs,)
            Out-of-fold predictions.
        y : array-like of shape (n_pairs,)
            Scores.
        sample_weight : array-like of shape (n_pairs,), optional

        Raises
        ------
        StackingError
            If there is not one finite score for each finite prediction, or the least squares do
            not converge.
        """
        x, scores = _vector(X), _vector(y)
        if len(x) != len(scores) or not len(x):
            raise StackingError(f"{len(x)} predictions for {len(scores)} scores.")
        weights = row_weights(len(x), sample_weight)
        x, scores, weights = x[weights > 0], scores[weights > 0], weights[weights > 0]
        x_mean, y_mean = weights @ x / weights.sum(), weights @ scores / weights.sum()
        variance = weights @ np.square(x - x_mean)
        covariance = weights @ ((x - x_mean) * (scores - y_mean))
        n_segments = min(_MAX_SEGMENTS, max(1, len(x) // 20))
        order = np.argsort(x, kind="stable")
        shares = np.cumsum(weights[order])
        quantiles = np.linspace(0, shares[-1], n_segments + 1)
        knots = np.unique(x[order][np.searchsorted(shares, quantiles).clip(max=len(x) - 1)])
        if len(knots) < 2 or covariance <= 0:
            # The predictions do not rise with the scores: a steep map would be worse than a flat
            # one, and a falling map would reverse the ranks.
            spread = float(np.sqrt(weights @ np.square(scores - y_mean) / weights.sum()))
            rise = 1e-3 * max(spread, 1e-3) / max(float(np.ptp(x)), 1e-3)
            self.knots_: FloatArray = np.array([x_mean])
            self.values_: FloatArray = np.array([y_mean])
            self.slopes_: FloatArray = np.array([rise, rise])
            return self
        parts = np.clip(x[:, np.newaxis], knots[:-1], knots[1:]) - knots[:-1]
        parts[:, 0] += np.minimum(x - knots[0], 0)
        parts[:, -1] += np.maximum(x - knots[-1], 0)
        root = np.sqrt(weights)
        design = np.column_stack([np.ones(len(x)), parts]) * root[:, np.newaxis]
        lower = np.full(design.shape[1], _MIN_SLOPE * covariance / variance)
        lower[0] = -np.inf
        found = lsq_linear(design, scores * root, (lower, np.inf), method="bvls", max_iter=1000)
        if not found.success:
            raise StackingError(
                f"the map from {len(x)} predictions to scores was not found: {found.message} Give "
                "predictions and scores of a usual size, or weights that differ less."
            )
        fitted = found.x
        slopes = np.maximum(fitted[1:], lower[1:])
        self.knots_ = knots
        self.values_ = fitted[0] + np.concatenate([[0], np.cumsum(slopes * np.diff(knots))])
        self.slopes_ = slopes[[0, -1]]
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return scores of shape (n_pairs,) for predictions of that shape."""
        check_is_fitted(self)
        x = _vector(X)
        inside = np.interp(x, self.knots_, self.values_)
        below = np.minimum(x - self.knots_[0], 0) * self.slopes_[0]
        above = np.maximum(x - self.knots_[-1], 0) * self.slopes_[1]
        scores: FloatArray = inside + below + above
        return scores

    def check_state(self) -> None:
        """Check that knots from a file fit together and rise, or raise a ModelFileError."""
        check_numbers("knots_", self.knots_, (None,))
        if not len(self.knots_) or (np.diff(self.knots_) <= 0).any():
            raise ModelFileError("knots_ do not rise.")
        check_numbers("values_", self.values_, self.knots_.shape)
        check_numbers("slopes_", self.slopes_, (2,))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def keep_in_range(scores: FloatArray, low: float, high: float) -> FloatArray:
    """Bend scores near the ends of a range and beyond, so that all lie inside in the same order.

    Scores more than a twentieth of the range away from both ends stay as they are.

    Examples
    --------
    >>> keep_in_range(np.array([-1.0, 5.0, 9.5, 10.0, 12.0]), 0.0, 10.0).round(3)
    array([0.125, 5.   , 9.5  , 9.75 , 9.917])
    """
    margin = _MARGIN * (high - low)
    over = np.maximum(scores - (high - margin), 0) / margin
    under = np.maximum((low + margin) - scores, 0) / margin
    bent: FloatArray = (
        np.clip(scores, low + margin, high - margin)
        + margin * over / (1 + over)
        - margin * under / (1 + under)
    )
    return np.clip(bent, low, high)


def default_score_range(scores: FloatArray) -> tuple[float, float] | None:
    """Return this library's scale, (0, 10), if scores are on it, else None.

    Scores that all lie in its lower half are taken to be on another scale, such as 0 to 1 or 1 to
    5: bounds at 0 and 10 would bend those near 0.

    Examples
    --------
    >>> default_score_range(np.array([0.0, 7.5]))
    (0.0, 10.0)
    >>> default_score_range(np.array([0.0, 0.75])), default_score_range(np.array([80.0]))
    (None, None)
    """
    is_on_it = scores.min() >= MIN_SCORE and np.mean((MIN_SCORE, MAX_SCORE)) < scores.max()
    return (MIN_SCORE, MAX_SCORE) if is_on_it and scores.max() <= MAX_SCORE else None


def check_in_range(scores: FloatArray, low: float, high: float) -> None:
    """Check that scores lie in the range that predictions will be kept in."""
    outside = np.flatnonzero((scores < low) | (scores > high))
    if len(outside):
        raise StackingError(
            f"{len(outside)} scores lie outside score_range={(low, high)!r}, the first is "
            f"{scores[outside[0]]} in row {outside[0]}. Rescale them or widen the range."
        )


def _vector(values: ArrayLike) -> FloatArray:
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise StackingError(
            f"expected one finite number a pair, got shape {array.shape} of type {array.dtype}."
        )
    return array.astype(np.float64)
