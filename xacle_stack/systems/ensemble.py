"""Ensembles of systems that are already fitted, on their scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError


def rank_average(
    systems: Sequence[ArrayLike], score_range: tuple[float, float] = (0.0, 10.0)
) -> FloatArray:
    """Return the mean rank that several systems give each pair, scaled to the score range.

    ``low + (high − low) · mean_s (rank_s(i) − 1) / (n − 1)``, ties at their average rank.  Ranks
    are those among the pairs given: a result depends on the whole set, not on one pair.

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
        If there is no system, the lengths differ, or a score is not finite.

    Examples
    --------
    >>> rank_average([[1.0, 5.0, 3.0], [0.1, 0.2, 0.3]])
    array([0. , 7.5, 7.5])
    """
    scores = [np.asarray(system, dtype=np.float64) for system in systems]
    if not scores or len({s.shape for s in scores}) != 1 or scores[0].ndim != 1:
        raise StackingError(
            "a rank average needs one score a pair from every system, got arrays of shape "
            f"{[s.shape for s in scores]}."
        )
    if not all(np.isfinite(s).all() for s in scores):
        raise StackingError("a rank average needs finite scores; one of the systems has NaN.")
    low, high = score_range
    n_pairs = len(scores[0])
    if n_pairs == 1:
        return np.array([(low + high) / 2])
    ranks = np.mean([rankdata(s) for s in scores], axis=0)
    averaged: FloatArray = low + (high - low) * (ranks - 1) / (n_pairs - 1)
    return averaged
