"""Estimates each listener's noise and scale, shrunk towards the average.

Source: Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression
in microarray experiments", Statistical Applications in Genetics and Molecular Biology 3(1).
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

from xacle_stack._types import FloatArray
from xacle_stack.listeners.crossed import SIGNIFICANT_GAIN, Effects, NumberedRatings

# With fewer than four degrees of freedom, the prior of a variance has no finite variance.
_MIN_DF, _MAX_DF = 4.0, 1e4
_MIN_SCALE = 0.1
_MIN_VARIANCE = 1e-9


def relative_noise(ratings: NumberedRatings, fitted: Effects) -> FloatArray:
    """Return each listener's noise variance relative to the average; ones if they do not differ.

    Parameters
    ----------
    ratings : NumberedRatings
    fitted : Effects
        Fitted with equal weights.  Residuals about weighted means would let listeners who agree by
        chance outvote the others, and more so with each repetition.

    Returns
    -------
    noise : ndarray of shape (n_listeners,)
        Positive; the mean of 1 / noise over the ratings is 1.
    """
    squares = fitted.residuals**2 / fitted.noise_variance
    noise = shrunken_variances(ratings, squares, 1 - fitted.leverage)
    if noise is None:
        return np.ones(ratings.n_listeners)
    noise *= np.mean(1 / noise[ratings.listener])
    return noise


def shrunken_variances(
    ratings: NumberedRatings, squares: FloatArray, freedom: FloatArray
) -> FloatArray | None:
    """Return each listener's variance, or None if the variances do not differ significantly.

    It is ``(ν s² + ss_j) / (ν + df_j)``, which adds ν observations of a common variance s² to the
    sum of squared deviations and the degrees of freedom of listener j.  ν and s² maximise the
    marginal likelihood under the prior s² ν / χ²(ν) of a variance.  A squared deviation counts as
    1/φ of a degree of freedom if squared deviations vary φ times as much as those of normal noise;
    see `_overdispersion`.

    Parameters
    ----------
    ratings : NumberedRatings
    squares, freedom : ndarray of shape (n_ratings,)
        The squared deviation of each rating, and what it adds to the degrees of freedom.

    Returns
    -------
    variances : ndarray of shape (n_listeners,) or None
        Positive.
    """
    overdispersion = _overdispersion(ratings, squares)
    squares = ratings.by_listener(squares) / overdispersion
    freedom = ratings.by_listener(np.maximum(freedom, 0)) / overdispersion

    def deviance(parameters: FloatArray) -> float:
        common, df = np.exp(parameters)
        likelihoods = (
            special.gammaln((df + freedom) / 2)
            - special.gammaln(df / 2)
            + df / 2 * np.log(df * common / 2)
            - (df + freedom) / 2 * np.log((df * common + squares) / 2)
        )
        return float(-2 * likelihoods.sum())

    if not freedom.sum() > 0:
        return None
    equal = squares.sum() / freedom.sum()
    found = optimize.minimize(
        deviance,
        [np.log(equal), np.log(10.0)],
        method="L-BFGS-B",
        bounds=[
            (np.log(equal) - 10, np.log(equal) + 10),
            (np.log(_MIN_DF), np.log(_MAX_DF)),
        ],
    )
    if freedom.sum() * (np.log(equal) + 1) - found.fun < SIGNIFICANT_GAIN:
        return None
    common, df = np.exp(found.x)
    variances: FloatArray = (df * common + squares) / (df + freedom)
    return variances


def _overdispersion(ratings: NumberedRatings, squares: FloatArray) -> float:
    """Return φ, the variance of squared residuals relative to that of normal noise.

    ``φ = (κ − 1) / 2``, but at least 1, with ``κ = Σ r⁴ / Σ r²q`` and q the mean square of the same
    listener's other residuals.  For normal noise κ is 3, whatever the listeners' variances.  κ is
    large if listeners agree on most pairs but not on a few; such disagreements on hard pairs say
    little about a listener.
    """
    counts = ratings.by_listener(np.ones(len(squares)))
    sums, fourth = ratings.by_listener(squares), ratings.by_listener(squares**2)
    several = counts > 1
    products = ((sums**2 - fourth)[several] / (counts[several] - 1)).sum()
    kurtosis = fourth[several].sum() / products if products > 0 else np.inf
    return max(float(kurtosis - 1) / 2, 1.0)


def listener_scales(ratings: NumberedRatings, fitted: Effects, noise: FloatArray) -> FloatArray:
    """Return the slope of each listener's ratings on the scores.

    It is the posterior mode under a normal prior about 1, whose variance is estimated as well.  The
    errors of the scores are taken into account, because they would otherwise flatten every slope.

    Parameters
    ----------
    ratings : NumberedRatings
    fitted : Effects
    noise : ndarray of shape (n_listeners,)
        Relative noise variances.

    Returns
    -------
    scale : ndarray of shape (n_listeners,)
        Positive, with the mean 1 over the ratings.
    """
    _, mean, reliability = pair_prior(fitted.scores, fitted.errors)
    score = (mean + reliability * (fitted.scores - mean))[ratings.pair]
    square = score**2 + (reliability * fitted.errors)[ratings.pair]
    weight = 1 / (noise[ratings.listener] * fitted.noise_variance)
    by_listener = ratings.by_listener
    x, xx = by_listener(weight * score), by_listener(weight * square)
    y, xy = by_listener(weight * ratings.values), by_listener(weight * score * ratings.values)
    # The bias is estimated together with the scale, which would otherwise absorb it.
    bias_variance = max(fitted.ratio * fitted.noise_variance, _MIN_VARIANCE)
    n = by_listener(weight) + 1 / bias_variance
    variance = 0.1
    for _ in range(20):
        precision = xx - x**2 / n + 1 / variance
        scale = (xy - x * y / n + 1 / variance) / precision
        variance = max(float(np.mean((scale - 1) ** 2 + 1 / precision)), _MIN_VARIANCE)
    scale = np.maximum(scale, _MIN_SCALE)
    scaled: FloatArray = scale / scale[ratings.listener].mean()
    return scaled


def pair_prior(scores: FloatArray, errors: FloatArray) -> tuple[float, float, FloatArray]:
    """Return the variance and mean of true scores, and the reliability of each score.

    Parameters
    ----------
    scores, errors : ndarray of shape (n_pairs,)
        Scores, and the variances of their errors.

    Returns
    -------
    variance, mean : float
        NaN and the plain mean for a single pair or unknown errors.
    reliability : ndarray of shape (n_pairs,)
        variance / (variance + error), in [0, 1].
    """
    if len(scores) == 1 or np.isnan(errors).any():
        return float("nan"), float(scores.mean()), np.ones(len(scores))
    variance = max(float(scores.var(ddof=1) - errors.mean()), 0.0)
    if variance == 0:
        return 0.0, float(scores.mean()), np.zeros(len(scores))
    reliability = variance / (variance + errors)
    return variance, float(np.average(scores, weights=reliability)), reliability
