"""Estimates each listener's own mean and spread, shrunk towards the average.

Unlike the mixed model of `crossed`, this compares listeners who rated different pairs.  It is right
if the pairs were dealt out at random; else a listener of good pairs looks lenient.

Source: Takano and Yoshida 2026, "SPO-CLAPScore", arXiv:2601.02900, who do not shrink.
"""

from __future__ import annotations

import numpy as np
from scipy import optimize

from xacle_stack._types import FloatArray
from xacle_stack.listeners.crossed import SIGNIFICANT_GAIN, NumberedRatings
from xacle_stack.listeners.habits import shrunken_variances

# Bounds of the variance of listeners' true means relative to the average error of a mean.
_MIN_RATIO, _MAX_RATIO = 1e-4, 1e4


def offsets_and_scales(ratings: NumberedRatings) -> tuple[FloatArray, FloatArray]:
    """Return what turns a standardised rating into each listener's: offset + scale · rating.

    Means and spreads that do not differ significantly are taken as equal.

    Parameters
    ----------
    ratings : NumberedRatings
        Values whose mean is near 0.

    Returns
    -------
    offset : ndarray of shape (n_listeners,)
    scale : ndarray of shape (n_listeners,)
        Positive, with the mean 1 over the ratings.
    """
    offset, scale = np.zeros(ratings.n_listeners), np.ones(ratings.n_listeners)
    counts = ratings.by_listener(np.ones(len(ratings.values)))
    some = counts > 0
    means = ratings.by_listener(ratings.values) / np.maximum(counts, 1)
    squares = (ratings.values - means[ratings.listener]) ** 2
    freedom = 1 - 1 / counts[ratings.listener]
    if not freedom.any() or not squares.sum() > 1e-12 * (ratings.values**2).sum():
        return offset, scale  # nobody has two ratings, or nobody has two that differ
    variances = shrunken_variances(ratings, squares, freedom)
    if variances is None:
        variances = np.full(ratings.n_listeners, squares.sum() / freedom.sum())
    else:
        scale = np.sqrt(variances)
        scale /= scale[ratings.listener].mean()
    center, bias = _shrunken_means(means[some], variances[some] / counts[some])
    offset[some] = bias
    return offset + center * (1 - scale), scale


def _shrunken_means(means: FloatArray, errors: FloatArray) -> tuple[float, FloatArray]:
    """Return the average of means with these error variances, and each one's distance from it.

    The distances are best linear unbiased predictions, and zeros if they are not significant.  The
    variance of the true means maximises the restricted likelihood.
    """

    def average(variance: float) -> tuple[FloatArray, float]:
        weights = 1 / (variance + errors)
        return weights, float(np.average(means, weights=weights))

    def deviance(variance: float) -> float:
        weights, center = average(variance)
        squares = weights @ (means - center) ** 2
        return float(squares - np.log(weights).sum() + np.log(weights.sum()))

    bounds = np.log(np.array([_MIN_RATIO, _MAX_RATIO]) * errors.mean())
    found = optimize.minimize_scalar(
        lambda log_variance: deviance(float(np.exp(log_variance))),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-3},
    )
    _, center = average(0.0)
    if deviance(0.0) - found.fun <= SIGNIFICANT_GAIN:
        return center, np.zeros(len(means))
    variance = float(np.exp(found.x))
    weights, center = average(variance)
    return center, variance * weights * (means - center)
