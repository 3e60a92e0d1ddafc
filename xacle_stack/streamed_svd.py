"""Computes the leading singular vectors of a matrix that is too tall for the memory.

Source: Halko, Martinsson and Tropp 2011 (randomised range finders); Musco and Musco 2015 (keeping
every basis on the way).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from xacle_stack._threads import one_thread
from xacle_stack._types import FloatArray

# Additional vectors make the wanted ones nearly exact.
_OVERSAMPLES = 10


def streamed_svd(
    blocks: Callable[[], Iterator[FloatArray]],
    n_features: int,
    n_components: int,
    random_state: int | np.random.RandomState | None = None,
    n_iter: int = 3,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the leading singular values and right singular vectors of A, ``A = U diag(s) Vᵀ``.

    A is read block by block, ``n_iter + 1`` times.  In every pass but the last, a random
    orthonormal basis is multiplied by ``AᵀA`` and orthonormalised, as in algorithm 4.4 of Halko et
    al.  All intermediate bases are kept: together they span a block Krylov space, which contains a
    far better answer than the last basis alone.  With Q an orthonormal basis of that space, the
    last pass finds the singular vectors of ``A Q`` from its triangular factor, so no precision is
    lost by squaring.  Beside one block, memory holds a few arrays of shape (n_features,
    ``(n_iter + 1) (n_components + 10)``).

    Parameters
    ----------
    blocks : callable
        Called once in each pass; returns an iterator over the same row blocks of A, arrays of shape
        (n_block_rows, n_features).  Products with a block are computed in its own precision and
        summed in float64.
    n_features : int
    n_components : int
        At most `n_features`.
    random_state : int, RandomState or None
        Seeds the first basis.
    n_iter : int, default=3
        Number of multiplications by ``AᵀA``.

    Returns
    -------
    singular_values : ndarray of shape (n_components,)
        Descending; zeros beyond the rank of A.
    components : ndarray of shape (n_components, n_features)
        Orthonormal rows; the largest entry of each is positive.

    Notes
    -----
    One BLAS thread is used, because the last digits of a product depend on the number of threads.
    Meanwhile the other threads of the process have one BLAS thread as well.

    References
    ----------
    Halko, Martinsson and Tropp 2011, "Finding structure with randomness", SIAM Review 53(2).
    Musco and Musco 2015, "Randomized block Krylov methods for stronger and faster approximate
    singular value decomposition", NeurIPS.

    Examples
    --------
    >>> A = np.diag([3.0, 2.0, 1.0])
    >>> values, components = streamed_svd(lambda: iter([A[:2], A[2:]]), 3, 2)
    >>> values.round(6), components.round(6) + 0.0
    (array([3., 2.]), array([[1., 0., 0.], [0., 1., 0.]]))
    """
    size = min(n_components + _OVERSAMPLES, n_features)
    basis = check_random_state(random_state).normal(size=(n_features, size))
    with one_thread():
        basis = np.linalg.qr(basis)[0]
        newest = basis
        for _ in range(n_iter):
            if basis.shape[1] == n_features:  # the basis spans all columns
                break
            product = np.zeros(newest.shape)
            for rows in blocks():
                product += rows.T @ (rows @ newest.astype(rows.dtype, copy=False))
            n_before = basis.shape[1]
            basis = np.linalg.qr(np.hstack([basis, product]))[0]
            newest = basis[:, n_before:]
        # NumPy's type hints are wrong for mode="r".
        triangle: Any = np.zeros((basis.shape[1], basis.shape[1]))
        for rows in blocks():
            projected = rows @ basis.astype(rows.dtype, copy=False)
            triangle = np.linalg.qr(np.vstack([triangle, projected]), mode="r")
        _, values, rotation = np.linalg.svd(triangle)
        components = rotation[:n_components] @ basis.T
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(n_components), largest])
    return values[:n_components], components * signs[:, np.newaxis]
