"""Agreement features: where several contrastive spaces agree on a pair, and where they do not.

Source: Li, Li and Shinozaki 2026 (the CLAP stack of the XACLE challenge).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError


def agreement_features(cosines: ArrayLike, projections: Sequence[ArrayLike]) -> FloatArray:
    """Return what the spaces say together, row by row.

    With ``c_s`` the cosine of space ``s`` and ``p_s`` a low-dimensional projection of its pair
    feature, for all spaces ``s`` and all pairs of spaces ``s < t``, the columns are
    ``[c_s …, |c_s − c_t| …, p_s …, p_s ⊙ p_t …, |p_s − p_t| …]``.

    Parameters
    ----------
    cosines : array-like of shape (n_pairs, n_spaces)
        In [-1, 1].
    projections : sequence of n_spaces array-likes of shape (n_pairs, n_components)
        The same number of components for every space.

    Returns
    -------
    features : ndarray of shape (n_pairs, n_agreement)
        With ``n_agreement = s + k s + (1 + 2 k) s (s − 1) / 2`` for s spaces and k components.

    Raises
    ------
    FeatureError
        If the numbers of rows, spaces or components do not fit, or a value is not finite.

    Notes
    -----
    The axes of two projections are unrelated; what the products and differences say is learned
    by whatever is trained on them.

    References
    ----------
    Li, Li and Shinozaki 2026, the cross-CLAP agreement features.

    Examples
    --------
    >>> agreement_features([[0.5, 0.25]], [[[1.0]], [[3.0]]])
    array([[0.5 , 0.25, 0.25, 1.  , 3.  , 3.  , 2.  ]])
    """
    cosines = np.asarray(cosines)
    p = [np.asarray(projection) for projection in projections]
    shapes = {projection.shape for projection in p}
    if cosines.ndim != 2 or len(p) != cosines.shape[1] or not p:
        raise FeatureError(
            f"cosines of shape {cosines.shape} but {len(p)} projections: expected one column of "
            "cosines and one projection for every space."
        )
    if len(shapes) != 1 or p[0].ndim != 2 or len(p[0]) != len(cosines):
        raise FeatureError(
            f"projections of shapes {sorted(shapes)} beside {len(cosines)} rows of cosines: "
            "expected the same shape (n_pairs, n_components) for every space."
        )
    spaces = range(len(p))
    features: FloatArray = np.concatenate(
        [
            cosines,
            *(np.abs(cosines[:, [s]] - cosines[:, [t]]) for s, t in combinations(spaces, 2)),
            *p,
            *(p[s] * p[t] for s, t in combinations(spaces, 2)),
            *(np.abs(p[s] - p[t]) for s, t in combinations(spaces, 2)),
        ],
        axis=1,
    )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise FeatureError(
            f"agreement features: {len(bad)} row(s) are not finite, the first is row {bad[0]}."
        )
    return features


def agreement_blocks(n_spaces: int, n_components: int) -> dict[str, int]:
    """Return the blocks of :func:`agreement_features` with their numbers of columns.

    Examples
    --------
    >>> agreement_blocks(1, 8)
    {'cosines': 1, 'projections': 8}
    """
    n_couples = n_spaces * (n_spaces - 1) // 2
    sizes = {
        "cosines": n_spaces,
        "cosine differences": n_couples,
        "projections": n_components * n_spaces,
        "products": n_components * n_couples,
        "differences": n_components * n_couples,
    }
    return {name: size for name, size in sizes.items() if size}
