"""Finds the ratings that another rating of the same pair confirms.

Source: Takano and Yoshida 2026, "SPO-CLAPScore", arXiv:2601.02900.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xacle_stack._types import FloatArray, IntArray

# Ratings such as 8.3 and 3.3 are 5 points apart, but their difference is rounded.
_ROUNDING = 1e-9


def confirmed(pair: IntArray, values: FloatArray, window: float) -> NDArray[np.bool_]:
    """Return which ratings have another one of the same pair within a number of points.

    Parameters
    ----------
    pair : ndarray of shape (n_ratings,)
        The number of each rating's pair.
    values : ndarray of shape (n_ratings,)
    window : float
        Positive, in points of the rating scale.

    Returns
    -------
    confirmed : ndarray of bool of shape (n_ratings,)

    Examples
    --------
    >>> confirmed(np.array([0, 0, 0, 1]), np.array([2.0, 6.0, 9.5, 6.0]), window=4)
    array([ True,  True,  True, False])
    >>> confirmed(np.array([0, 0, 0, 1]), np.array([2.0, 7.0, 9.5, 6.0]), window=4)
    array([False,  True,  True, False])
    """
    # The nearest rating of the same pair is a neighbour in order of pairs and values.
    order = np.lexsort((values, pair))
    near = (np.diff(pair[order]) == 0) & (np.diff(values[order]) <= window + _ROUNDING)
    found = np.zeros(len(pair), dtype=bool)
    found[order[:-1]] = near
    found[order[1:]] |= near
    return found
