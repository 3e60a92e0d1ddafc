"""Ensembles of systems that are already fitted, from their scores of the same pairs.

`average` of a pair depends on that pair's scores only, `rank_average` on the whole set.  To average
regressors that are not fitted yet, use ``sklearn.ensemble.VotingRegressor``; to learn how to
combine them, use :class:`~xacle_stack.Stacker`.

Source of the rank average: the TMU system of the XACLE challenge 2026.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from xacle_stack._types import FloatArray
from xacle_stack._validation import check_score_range
from xacle_stack.errors import StackingError


def average(systems: Sequence[ArrayLike], weights: ArrayLike | None = None) -> FloatArray:
    """Return the mean score that several systems give each pair.

    ``Σ_s w_s score_s(i) / Σ_s w_s``.  Bring systems on different scales to one scale first.

    Parameters
    ----------
    systems : sequence of array-like of shape (n_pairs,)
        Scores of the same pairs in the same order.
    weights : array-like of shape (n_systems,), optional
        Non-negative, not all zero; by default all systems have the same weight.

    Returns
    -------
    scores : ndarray of shape (n_pairs,)
        On the scale of the systems.  Each value depends on its own pair only.

    Raises
    ------
    StackingError
        If there is no system, the lengths differ, a score is not finite, or there is not one
        non-negative weight for each system.

    Examples
    --------
    >>> average([[1.0, 5.0, 3.0], [2.0, 4.0, 9.0]])
    array([1.5, 4.5, 6. ])
    >>> average([[1.0, 5.0, 3.0], [2.0, 4.0, 9.0]], weights=[3, 1])
    array([1.25, 4.75, 4.5 ])
    """
    scores = _check_systems(systems)
    if weights is None:
        mean: FloatArray = scores.mean(axis=0)
        return mean
    shares = np.asarray(weights, dtype=np.float64)
    usable = shares.shape == (len(scores),) and np.isfinite(shares).all() and (shares >= 0).all()
    if not usable or not shares.any():
        raise StackingError(
            f"weights: expected one number for each of {len(scores)} systems, none negative and "
            f"not all zero, got {weights!r}."
        )
    weighted: FloatArray = shares / shares.sum() @ scores
    return weighted


def rank_average(
    systems: Sequence[ArrayLike], score_range: tuple[float, float] = (0.0, 10.0)
) -> FloatArray:
    """Return the mean rank that several systems give each pair, scaled to the score range.

    ``low + (high − low) · mean_s (rank_s(i) − 1) / (n − 1)``, where tied scores have
    their average rank.  The ranks are those among the given pairs, so that a result depends on the
    whole set.

    Parameters
    ----------
    systems : sequence of array-like of shape (n_pairs,)
        Scores of the same pairs in the same order.
    score_range : (float, float), default=(0, 10)

    Returns
    -------
    scores : ndarray of shape (n_pairs,)
        In `score_range`.  A single pair gets its middle.

    Raises
    ------
    StackingError
        If there is no system, the lengths differ, a score is not finite, or `score_range` is not a
        lower and a higher bound.

    Examples
    --------
    >>> rank_average([[1.0, 5.0, 3.0], [0.1, 0.2, 0.3]])
    array([0. , 7.5, 7.5])
    """
    check_score_range(score_range)
    scores = _check_systems(systems)
    low, high = score_range
    n_pairs = scores.shape[1]
    if n_pairs == 1:
        return np.array([(low + high) / 2])
    ranks = np.mean([rankdata(s) for s in scores], axis=0)
    averaged: FloatArray = low + (high - low) * (ranks - 1) / (n_pairs - 1)
    return averaged


def _check_systems(systems: Sequence[ArrayLike]) -> FloatArray:
    """Return the scores as one array of shape (n_systems, n_pairs)."""
    scores = [np.asarray(system, dtype=np.float64) for system in systems]
    if not scores or len({s.shape for s in scores}) != 1 or scores[0].ndim != 1:
        raise StackingError(
            "an ensemble needs one score for each pair from every system, got arrays of shape "
            f"{[s.shape for s in scores]}."
        )
    bad = [number for number, s in enumerate(scores) if not np.isfinite(s).all()]
    if bad:
        row = int(np.flatnonzero(~np.isfinite(scores[bad[0]]))[0])
        raise StackingError(
            f"an ensemble needs finite scores, but system {bad[0]} has {scores[bad[0]][row]} in "
            f"row {row} (both counted from 0)."
        )
    return np.array(scores)
