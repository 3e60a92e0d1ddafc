"""The losses that the trained systems minimise, and the weights of their rows.

Every loss takes tensors of shape (n_rows,), the rows of one batch, and returns a tensor without
axes.  ``w`` are the rows' weights, which are not negative; a batch in which all are zero has the
loss zero.  Multiplying all weights of a batch by one factor changes no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError

Tensor = Any  # torch is imported where a network is built
SCORE_RANGE = (0.0, 10.0)
# Its middle, and half of its width.
_MIDDLE, _HALF = 5.0, 5.0
# Upper ends of all bins but the last: up to 1, above 1 up to 2, ..., above 9.
SCORE_BINS = tuple(float(score) for score in range(1, 10))

# The slope and the offset of w(y) for each kind.
_SCORE_WEIGHTS: Mapping[int, tuple[float, float]] = {
    0: (0.0, 1.0),
    1: (1 / 20, 0.5),
    2: (1 / 10, 0.1),
    3: (1 / 5, -0.4),
}


def score_weights(y: ArrayLike, kind: int) -> FloatArray:
    """Return each score's weight, the higher the heavier: ``w(y)`` clipped to [0, 1].

    ``w(y) = 1`` (0), ``y/20 + 0.5`` (1), ``y/10 + 0.1`` (2) or ``y/5 − 0.4`` (3).

    Parameters
    ----------
    y : array-like of shape (n_pairs,)
        Scores, 0–10.
    kind : {0, 1, 2, 3}

    Raises
    ------
    StackingError
        If there is no such kind, or a score lies outside 0–10, which only kind 0 allows.

    References
    ----------
    Niizumi et al. 2026, Trust-your-CLAP, technical report of the XACLE challenge.

    Examples
    --------
    >>> score_weights([0, 2, 5, 10], 3)
    array([0. , 0. , 0.6, 1. ])
    """
    check_score_weighting(kind)
    scores = np.asarray(y, dtype=np.float64)
    low, high = SCORE_RANGE
    outside = np.flatnonzero((scores < low) | (scores > high))
    if kind and len(outside):
        raise StackingError(
            f"{len(outside)} scores lie outside 0–10, the first is {scores[outside[0]]} in row "
            f"{outside[0]}; score_weighting={kind} is defined on that range. Rescale the scores, "
            "or use score_weighting=0."
        )
    slope, offset = _SCORE_WEIGHTS[kind]
    weights: FloatArray = np.clip(slope * scores + offset, 0.0, 1.0)
    return weights


def check_score_weighting(kind: object) -> None:
    """Check that there is such a kind of :func:`score_weights`."""
    is_whole = isinstance(kind, Integral) and not isinstance(kind, bool)
    if not is_whole or kind not in _SCORE_WEIGHTS:
        raise StackingError(f"score_weighting must be one of {list(_SCORE_WEIGHTS)}, got {kind!r}.")


def class_balance_weights(
    y: ArrayLike, beta: float = 0.99, bins: ArrayLike = SCORE_BINS
) -> FloatArray:
    """Return weights that are higher for rare scores, ``(1 − β) / (1 − βⁿ)``, scaled to mean 1.

    ``n`` is the number of scores in the same bin.

    Parameters
    ----------
    y : array-like of shape (n_pairs,)
    beta : float, default=0.99
        In [0, 1).  With 0 all weights are equal; towards 1 a bin's weight approaches 1/n.
    bins : array-like of shape (n_bins - 1,), default=SCORE_BINS
        The upper ends of all bins but the last, ascending; an end belongs to the bin below it.

    Raises
    ------
    StackingError
        If `beta` is outside [0, 1).

    References
    ----------
    Cui et al. 2019, Class-balanced loss based on effective number of samples, CVPR.

    Examples
    --------
    >>> class_balance_weights([0.2, 0.5, 9.9], beta=0.5).round(3)
    array([0.857, 0.857, 1.286])
    """
    if not 0 <= beta < 1:
        raise StackingError(f"beta must be 0 or more and below 1, got {beta!r}.")
    _, bin_numbers, counts = np.unique(
        np.searchsorted(np.asarray(bins, dtype=np.float64), np.asarray(y, dtype=np.float64)),
        return_inverse=True,
        return_counts=True,
    )
    bin_weights = (1 - beta) / (1 - beta**counts)
    weights: FloatArray = bin_weights[bin_numbers]
    return weights / weights.mean()


def weighted_mse(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the mean squared error, ``Σ wᵢ (pᵢ − tᵢ)² / Σ wᵢ``.

    Source: Niizumi et al. 2026 (Trust-your-CLAP), whose weights are :func:`score_weights`.
    """
    return _mean((predicted - target).square(), weights)


def clipped_mse(predicted: Tensor, target: Tensor, weights: Tensor, *, tau: float = 0.25) -> Tensor:
    """Return the mean squared error above a threshold, ``Σ wᵢ [|pᵢ − tᵢ| > τ] (pᵢ − tᵢ)² / Σ wᵢ``.

    An error of τ or less counts as zero, because listeners do not agree more closely.

    Source: Leng et al. 2021 (MBNet), as in UTMOS (Saeki et al. 2022) and the baseline of XACLE.
    """
    error = predicted - target
    return _mean(error.square() * (error.abs() > tau), weights)


def contrastive(
    predicted: Tensor, target: Tensor, weights: Tensor, *, margin: float = 0.1
) -> Tensor:
    """Return the error of differences, ``Σ_{i≠j} wᵢⱼ max(0, |Δp − Δt| − margin) / Σ_{i≠j} wᵢⱼ``.

    ``Δp = pᵢ − pⱼ``, ``Δt = tᵢ − tⱼ`` and ``wᵢⱼ = √(wᵢ wⱼ)``.  A batch of one row has no row pair,
    and its loss is zero.

    Source: UTMOS (Saeki et al. 2022), as in the baseline of XACLE; their code takes half of it.
    """
    errors = (_differences(predicted) - _differences(target)).abs()
    row_pair_weights = (weights.unsqueeze(1) * weights).sqrt()
    row_pair_weights = row_pair_weights - row_pair_weights.diag().diag()
    return _mean((errors - margin).clamp(min=0), row_pair_weights)


def listnet_top1(
    predicted: Tensor, target: Tensor, weights: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Return the cross entropy of the probabilities of being ranked first, ``−Σ qᵢ log pᵢ``.

    ``qᵢ = wᵢ exp(tᵢ/T) / Σⱼ wⱼ exp(tⱼ/T)`` and ``pᵢ = exp(sᵢ) / Σⱼ wⱼ exp(sⱼ)`` for predictions
    s.  A row of weight 2 counts as two rows.  Adding a constant to all predictions changes nothing.

    Source: Cao et al. 2007, Learning to rank, ICML; as in the TMU system of XACLE 2026.
    """
    if not weights.any():
        return predicted.sum() * 0
    # The logarithm of a weight of 0 is −∞, which leaves its row out of both sums.
    log_weights = weights.log()
    target_shares = (target / temperature + log_weights).softmax(0)
    return -(target_shares * (predicted - (predicted + log_weights).logsumexp(0))).sum()


def pairwise_logistic(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the logistic loss of row pairs' order, ``Σ wᵢ wⱼ log(1 + exp(sⱼ − sᵢ)) / Σ wᵢ wⱼ``.

    The sums are over row pairs with ``tᵢ > tⱼ``; ties are left out.  A row of weight 2 counts as
    two rows.

    Source: Burges et al. 2005 (RankNet), ICML.
    """
    row_pair_weights = weights.unsqueeze(1) * weights * (_differences(target) > 0)
    disorder = -_differences(predicted)
    return _mean(disorder.new_zeros(()).logaddexp(disorder), row_pair_weights)


def centred(scores: FloatArray) -> FloatArray:
    """Return scores on the scale from −1 to 1, ``(y − 5) / 5``.

    Examples
    --------
    >>> centred(np.array([0.0, 5.0, 10.0]))
    array([-1.,  0.,  1.])
    """
    return (scores - _MIDDLE) / _HALF


def uncentred(predicted: FloatArray) -> FloatArray:
    """Return what :func:`centred` was given, ``5 + 5p``."""
    return _MIDDLE + _HALF * predicted


# The losses of scores and of their order that a system's setting can name.
LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": weighted_mse,
    "listnet": listnet_top1,
    "pairwise": pairwise_logistic,
}


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean, or zero if all weights are zero."""
    total = weights.sum()
    return (values * weights).sum() / total.where(total > 0, total + 1)


def _differences(values: Tensor) -> Tensor:
    """Return ``vᵢ − vⱼ`` at row i, column j."""
    return values.unsqueeze(1) - values
