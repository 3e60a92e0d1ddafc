"""Each listener's noise and scale, shrunk towards those of the others.

Source: Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression
in microarray experiments", Statistical Applications in Genetics and Molecular Biology 3(1).
"""

from __future__ import annotations

import numpy as np
from scipy import optimize, special

from xacle_stack._types import FloatArray
from xacle_stack.listeners.crossed import SHOWN, Effects, NumberedRatings

# Fewer degrees of freedom than four would give a variance no variance of its own.
_LEAST_DF, _GREATEST_DF = 4.0, 1e4
_LEAST_SCALE = 0.1
_LEAST_VARIANCE = 1e-9


def relative_noise(ratings: NumberedRatings, fitted: Effects) -> FloatArray:
    """Return each listener's noise variance over the average one; ones if they do not differ.

    ``(ν s² + rss_j) / (ν + df_j)``: the residual squares and degrees of freedom of listener j with
    ν observations of a common variance s² added.  ν and s² maximise the marginal likelihood, in
    which a variance is s² ν / χ²(ν).  Squares that vary φ times as much as those of normal noise
    count as 1/φ of a degree of freedom (see `_overdispersion`).

    Parameters
    ----------
    ratings : NumberedRatings
    fitted : Effects
        From equal weights.  Weights from residuals about weighted means would let listeners who
        agree by chance outvote the others, the more so the more often it is repeated.

    Returns
    -------
    noise : ndarray of shape (n_listeners,)
        Positive; the mean of 1 / noise over the ratings is 1.
    """
    overdispersion = _overdispersion(ratings, fitted.residuals**2)
    squares = ratings.by_listener(fitted.residuals**2) / fitted.noise_variance / overdispersion
    freedom = ratings.by_listener(np.maximum(1 - fitted.doubt, 0)) / overdispersion

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
        return np.ones(ratings.n_listeners)
    equal = squares.sum() / freedom.sum()
    found = optimize.minimize(
        deviance,
        [np.log(equal), np.log(10.0)],
        method="L-BFGS-B",
        bounds=[
            (np.log(equal) - 10, np.log(equal) + 10),
            (np.log(_LEAST_DF), np.log(_GREATEST_DF)),
        ],
    )
    if freedom.sum() * (np.log(equal) + 1) - found.fun < SHOWN:
        return np.ones(ratings.n_listeners)
    common, df = np.exp(found.x)
    noise: FloatArray = (df * common + squares) / (df + freedom)
    noise *= np.mean(1 / noise[ratings.listener])
    return noise


def _overdispersion(ratings: NumberedRatings, squares: FloatArray) -> float:
    """Return φ, how many times more the squared residuals vary than those of normal noise.

    ``φ = (κ − 1) / 2`` and at least 1, with ``κ = Σ r⁴ / Σ r²q``, where q is the mean square of the
    same listener's other residuals: 3 of normal noise, however listeners' variances differ.
    Where all agree on most pairs and not on some, κ is large: a few disagreements on hard pairs
    say little about a listener.
    """
    counts = ratings.by_listener(np.ones(len(squares)))
    sums, fourth = ratings.by_listener(squares), ratings.by_listener(squares**2)
    several = counts > 1
    products = ((sums**2 - fourth)[several] / (counts[several] - 1)).sum()
    kurtosis = fourth[several].sum() / products if products > 0 else np.inf
    return max(float(kurtosis - 1) / 2, 1.0)


def listener_scales(ratings: NumberedRatings, fitted: Effects, noise: FloatArray) -> FloatArray:
    """Return how many points each listener gives for one point of the others.

    The posterior mode under a normal prior about 1, whose variance is estimated as well, of the
    slope of a listener's ratings on the scores.  Scores enter with their errors, which would
    flatten every slope otherwise.

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
    # The bias is estimated beside the scale, which would take its place otherwise.
    bias_variance = max(fitted.ratio * fitted.noise_variance, _LEAST_VARIANCE)
    n = by_listener(weight) + 1 / bias_variance
    variance = 0.1
    for _ in range(20):
        precision = xx - x**2 / n + 1 / variance
        scale = (xy - x * y / n + 1 / variance) / precision
        variance = max(float(np.mean((scale - 1) ** 2 + 1 / precision)), _LEAST_VARIANCE)
    scale = np.maximum(scale, _LEAST_SCALE)
    scaled: FloatArray = scale / scale[ratings.listener].mean()
    return scaled


def pair_prior(scores: FloatArray, errors: FloatArray) -> tuple[float, float, FloatArray]:
    """Return variance and mean of true scores, and the reliability of each score.

    Parameters
    ----------
    scores, errors : ndarray of shape (n_pairs,)
        With the variances of their errors.

    Returns
    -------
    variance, mean : float
        NaN and the plain mean where nothing can be told: one pair, or unknown errors.
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
