"""The kernel of the Gaussian process, over all columns or over a few axes of them.

``k(x, x') = Σ_c s_c exp(2 x·x'_c − |x|_c² − |x'|_c²)``, where the columns of kernel c are those of
the table times the roots of its relevances.  Lengths are cheap.  The products of thousands of
columns with every training row are what a prediction costs, so they are taken over leading
principal axes only, if the scores of the training rows are as likely that way.  What lies outside
of the axes still counts in the lengths: any two rows are taken to be orthogonal there, which leaves
the matrix positive definite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg
from sklearn.utils.extmath import randomized_svd

from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError
from xacle_stack.stacking._cholesky import factor_upper
from xacle_stack.stacking.marginal_likelihood import NOT_DEFINITE, row_parts

# The numbers of axes that are tried.
_N_AXES = (32, 128)
# How much of the log likelihood of the rows that they are chosen on axes may cost, in nats.
_MAX_LOSS = 0.5
# Rows of a square matrix that are made at a time.
_TILE = 512


@dataclass(frozen=True, eq=False)
class BlockKernel:
    """A sum of squared exponentials.

    Attributes
    ----------
    relevance : ndarray of shape (n_kernels, n_features)
        Of each column.
    amplitude : ndarray of shape (n_kernels,)
    axes : ndarray of shape (n_kernels, n_features, n_axes) or None
        Products are taken of rows times axes; None for all columns.

    Examples
    --------
    >>> kernel = BlockKernel(np.array([[1.0, 0.5]]), np.array([2.0]))
    >>> X = np.array([[0.0, 0.0], [1.0, 2.0]], dtype=np.float32)
    >>> kernel.between(X, kernel.points(X)).round(4)  # 2 exp(−1 − 0.5 · 4) off the diagonal
    array([[2.    , 0.0996],
           [0.0996, 2.    ]], dtype=float32)
    """

    relevance: FloatArray
    amplitude: FloatArray
    axes: FloatArray | None = None

    def points(self, X: FloatArray) -> FloatArray:
        """Return rows in the form that others are compared with.

        Its float32 array has the shape (n_kernels, n_rows, n_axes + 1): coordinates, and last the
        logarithm of the amplitude less the squared length.
        """
        coordinates, lengths = self._coordinates(X)
        last = (self._log_amplitude - lengths)[:, :, np.newaxis]
        return np.concatenate([coordinates, last], axis=2)

    def between(self, X: FloatArray, points: FloatArray) -> FloatArray:
        """Return the kernel between rows and points, float32 of shape (n_rows, n_points)."""
        return _sum_of_exponentials(*self._coordinates(X), points)

    def among(self, points: FloatArray) -> FloatArray:
        """Return the kernel among points, float32 of shape (n_points, n_points)."""
        lengths = self._log_amplitude - points[:, :, -1]
        coordinates = points[:, :, :-1]
        gram = np.empty((points.shape[1], points.shape[1]), dtype=np.float32)
        for tile in row_blocks(0, len(gram), _TILE):
            upto = slice(0, tile.stop)
            gram[tile, upto] = _sum_of_exponentials(
                coordinates[:, tile], lengths[:, tile], points[:, upto]
            )
            gram[: tile.start, tile] = gram[tile, : tile.start].T
        np.fill_diagonal(gram, self.amplitude.sum())
        return gram

    @property
    def _log_amplitude(self) -> FloatArray:
        logarithms: FloatArray = np.log(self.amplitude).astype(np.float32)[:, np.newaxis]
        return logarithms

    def _coordinates(self, X: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return rows along the axes, (n_kernels, n_rows, n_axes), and their squared lengths."""
        relevance = self.relevance.astype(np.float32)
        if self.axes is None:
            coordinates = X * np.sqrt(relevance)[:, np.newaxis]
        else:
            coordinates = np.stack([X @ of_kernel for of_kernel in self.axes])
        # Not by BLAS, whose small products may depend on the place of a row among others.
        squares = np.square(X)
        return coordinates, np.stack([(squares * of_one).sum(axis=1) for of_one in relevance])


def with_axes(
    kernel: BlockKernel,
    others: FloatArray,
    X: FloatArray,
    y: FloatArray,
    noise: FloatArray,
    rng: np.random.RandomState,
) -> BlockKernel:
    """Return the kernel over as few principal axes as leave the scores of some rows as likely.

    Parameters
    ----------
    kernel : BlockKernel
        Over all columns.
    others : ndarray of shape (n_others, n_features)
        The rows whose axes they are.  Rows fit their own axes better than new rows do.
    X : ndarray of shape (n_rows, n_features)
        float32, in the order in which the kernel was learned.
    y, noise : ndarray of shape (n_rows,)
        The scores, and the variance of each one's noise.
    rng : RandomState

    References
    ----------
    Halko, Martinsson and Tropp 2011, "Finding structure with randomness", SIAM Review 53(2).
    """
    n_possible = min(others.shape) // 2
    wanted = [n_axes for n_axes in _N_AXES if n_axes <= n_possible]
    if not wanted:
        return kernel
    least = _log_likelihood(kernel, X, y, noise) - _MAX_LOSS
    for n_axes in wanted:
        axes = [_principal_axes(others, of_one, n_axes, rng) for of_one in kernel.relevance]
        over_axes = replace(kernel, axes=np.stack(axes))
        if _log_likelihood(over_axes, X, y, noise) >= least:
            return over_axes
    return kernel


def _principal_axes(
    X: FloatArray, relevance: FloatArray, n_axes: int, rng: np.random.RandomState
) -> FloatArray:
    scale = np.sqrt(relevance).astype(np.float32)
    _, _, directions = randomized_svd(
        X * scale, n_axes, n_iter=2, power_iteration_normalizer="QR", random_state=rng
    )
    axes: FloatArray = (directions * scale).T
    return axes


def _log_likelihood(kernel: BlockKernel, X: FloatArray, y: FloatArray, noise: FloatArray) -> float:
    """Return the log marginal likelihood of rows in parts, less a constant, in nats."""
    total = 0.0
    for rows in row_parts(len(X)):
        gram = kernel.among(kernel.points(X[rows])).astype(np.float64).T
        gram[np.diag_indices(len(gram))] += noise[rows]
        if not factor_upper(gram):
            raise StackingError(NOT_DEFINITE)
        whitened = linalg.solve_triangular(gram, y[rows], trans=1, check_finite=False)
        total -= 0.5 * float(whitened @ whitened) + float(np.log(gram.diagonal()).sum())
    return total


def _sum_of_exponentials(
    coordinates: FloatArray, lengths: FloatArray, points: FloatArray
) -> FloatArray:
    total: FloatArray | None = None
    for of_rows, length, of_points in zip(coordinates, lengths, points, strict=True):
        exponents = (2 * of_rows) @ of_points[:, :-1].T
        exponents -= length[:, np.newaxis]
        exponents += of_points[:, -1]
        with np.errstate(over="ignore"):  # of a spoiled model, whose infinity is refused later
            values = np.exp(exponents, out=exponents)
        total = values if total is None else np.add(total, values, out=total)
    assert total is not None
    return total
