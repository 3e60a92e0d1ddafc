"""Prediction intervals from out-of-fold predictions, wider where pairs are harder.

Sources: Vovk 2015, "Cross-conformal predictors", for holding every pair out once in place of one
split; Lei, G'Sell, Rinaldo, Tibshirani and Wasserman 2018, "Distribution-free predictive inference
for regression", Algorithm 2, for the quantile; Chernozhukov, Wüthrich and Zhu 2021, "Distributional
conformal prediction", for ranking each residual among those of similar pairs.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import row_weights
from xacle_stack.errors import StackingError

# Residuals are known at so many predictions, and linear between them; at each of them, at so many
# levels from 0 to 1.
_N_KNOTS, _N_LEVELS = 65, 401
# The standard deviation of the kernel that says which pairs are similar, as a share of all pairs
# between two in the order of their predictions.  Few pairs have a wider one.
_BANDWIDTH, _MIN_SIMILAR = 0.05, 10
# The pairs are held out in at most so many parts, which are unions of folds.
_MAX_PARTS = 10


class ConformalInterval(BaseEstimator):
    r"""Prediction intervals around the predictions of any regressor.

    A pair is as hard as the training pairs with similar predictions: :math:`\hat F(r \mid \hat y)`
    is the share of them whose absolute residual is at most r, weighted by a kernel.  The interval
    of confidence :math:`1 - \alpha` is :math:`\hat y \pm \hat F^{-1}(q \mid \hat y)`, where q is
    the :math:`\lceil (n+1)(1-\alpha) \rceil`-th smallest of :math:`\hat F_{-k(i)}(|y_i - \hat y_i|
    \mid \hat y_i)`, in which the pairs of the pair's own fold :math:`k(i)` do not count.

    Attributes
    ----------
    knots_ : ndarray of shape (n_knots,)
        Predictions, rising.
    radii_ : ndarray of shape (n_levels, n_knots)
        The residual that each share of the similar pairs does not exceed.
    ranks_ : ndarray of shape (n_pairs,)
        For every training pair the level that its residual has among similar pairs of other folds,
        the smallest first; ``n_levels`` for one that is larger than theirs.

    Notes
    -----
    If pairs are exchangeable and the predictions do not depend on their scores, a split between
    pairs to learn the scale from and pairs to rank has exactly this coverage (Lei et al.,
    Theorem 2.2).  To use all pairs for both holds it up to the little that one fold changes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> predicted = rng.uniform(size=500)
    >>> y = predicted + predicted * rng.normal(size=500)  # the higher, the less certain
    >>> interval = ConformalInterval().fit(predicted, y, np.arange(500) % 5)
    >>> low, high = interval.predict([0.1, 0.9], confidence=0.9)
    >>> bool(high[1] - low[1] > 5 * (high[0] - low[0]))
    True
    """

    def fit(
        self,
        predicted: ArrayLike,
        y: ArrayLike,
        folds: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Learn how large residuals are.

        Parameters
        ----------
        predicted : array-like of shape (n_pairs,)
            Predictions of pairs by models that were not trained on them.
        y : array-like of shape (n_pairs,)
            Their scores.
        folds : array-like of shape (n_pairs,)
            The number of the fold that held each pair out; two folds or more.
        sample_weight : array-like of shape (n_pairs,), optional
            How much a pair tells of similar ones.  Pairs without weight are left out.

        Returns
        -------
        self : ConformalInterval
        """
        centres, scores = np.asarray(predicted, np.float64), np.asarray(y, np.float64)
        weights = row_weights(len(scores), sample_weight)
        rows = np.flatnonzero(weights > 0)
        centres, weights = centres[rows], weights[rows]
        residuals = np.abs(scores[rows] - centres)
        _, fold = np.unique(np.asarray(folds)[rows], return_inverse=True)
        part = fold % _MAX_PARTS
        ranks = np.full(len(rows), _N_LEVELS)
        for number in range(part.max() + 1):
            held_out, rest = part == number, part != number
            if rest.any():
                knots, radii = _local_radii(centres[rest], residuals[rest], weights[rest])
                radius_at = (np.interp(centres[held_out], knots, radius) for radius in radii)
                ranks[held_out] = sum(radius < residuals[held_out] for radius in radius_at)
        self.ranks_: IntArray = np.sort(ranks)
        self.knots_, self.radii_ = _local_radii(centres, residuals, weights)
        return self

    def predict(self, predicted: ArrayLike, confidence: float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of intervals around predictions.

        Parameters
        ----------
        predicted : array-like of shape (n_pairs,)
        confidence : float
            Above 0 and below 1.

        Returns
        -------
        low, high : ndarray of shape (n_pairs,)
            Each interval depends on its own prediction only.  They are infinite if there were too
            few pairs to be so sure, for example fewer than 19 for 0.95.

        Raises
        ------
        StackingError
            If `confidence` is not a number between 0 and 1.
        """
        check_is_fitted(self)
        check_confidence("confidence", confidence)
        centres = np.asarray(predicted, np.float64)
        n_pairs = len(self.ranks_)
        # Rounding must not raise (99 + 1) * 0.9 above 90.
        needed = math.ceil(round((n_pairs + 1) * float(confidence), 9))
        level = _N_LEVELS if needed > n_pairs else int(self.ranks_[needed - 1])
        if level == _N_LEVELS:
            return np.full(centres.shape, -np.inf), np.full(centres.shape, np.inf)
        radius = np.interp(centres, self.knots_, self.radii_[level])
        return centres - radius, centres + radius

    def deviation(self, predicted: ArrayLike) -> FloatArray:
        """Return the root mean square of the residuals of similar pairs, shape (n_pairs,)."""
        check_is_fitted(self)
        variances = np.square(self.radii_).mean(axis=0)
        deviations: FloatArray = np.sqrt(
            np.interp(np.asarray(predicted, np.float64), self.knots_, variances)
        )
        return deviations


def check_confidence(name: str, value: object) -> None:
    """Check that a confidence is above 0 and below 1.

    Examples
    --------
    >>> check_confidence("interval", 90)
    Traceback (most recent call last):
    xacle_stack.errors.StackingError: interval must be above 0 and below 1, such as 0.9, got 90.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise StackingError(f"{name} must be above 0 and below 1, such as 0.9, got {value!r}.")


def _local_radii(
    centres: FloatArray, residuals: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return knots, and for each level and knot the weighted quantile of the residuals near it."""
    in_order = np.sort(centres)
    n_pairs = len(in_order)
    # Equal predictions share one place, the middle of theirs.
    first, last = (np.searchsorted(in_order, centres, side) for side in ("left", "right"))
    places = (first + last) / (2 * n_pairs)
    knots = np.unique(np.quantile(in_order, np.linspace(0, 1, _N_KNOTS)))
    first, last = (np.searchsorted(in_order, knots, side) for side in ("left", "right"))
    knot_places = (first + last) / (2 * n_pairs)
    bandwidth = max(_BANDWIDTH, _MIN_SIMILAR / n_pairs)
    smallest_first = np.argsort(residuals, kind="stable")
    places, weights = places[smallest_first], weights[smallest_first]
    residuals = residuals[smallest_first]
    levels = np.linspace(0, 1, _N_LEVELS)
    radii = np.empty((_N_LEVELS, len(knots)))
    for column, place in enumerate(knot_places):
        kernel = weights * np.exp(-0.5 * np.square((places - place) / bandwidth))
        shares = np.cumsum(kernel)
        indices = np.searchsorted(shares, levels * shares[-1])
        radii[:, column] = residuals[indices.clip(max=n_pairs - 1)]
    return knots, radii
