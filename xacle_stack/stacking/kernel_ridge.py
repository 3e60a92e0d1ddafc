"""Kernel ridge regression on all rows but those of a fold, for several folds at once.

With the kernel K among the rows that are trained on, their weights W and the noise σ², the dual
coefficients of targets Y are ``(K + σ²W⁻¹)⁻¹ Y``, and held-out rows are predicted by their kernel
with the training rows.  The kernel among all rows is computed once for all folds.

Of more rows than fit, some are landmarks L.  With Φ = K_XL U⁻¹ and UᵀU = K_LL, the coefficients of
the landmarks are ``U⁻¹ (ΦᵀWΦ + σ²)⁻¹ ΦᵀWY`` (Rasmussen and Williams 2006, equation 8.14).  ΦᵀWΦ is
a sum over rows, so that of a fold is subtracted from that of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError
from xacle_stack.stacking._cholesky import factor_upper
from xacle_stack.stacking.block_kernel import BlockKernel
from xacle_stack.stacking.marginal_likelihood import NOT_DEFINITE

# The runs of rows that are trained on, and the run that is held out.
Runs = tuple[Sequence[slice], slice]
# Rows whose products are summed at a time, and columns of a triangular matrix at a time.
_ROWS, _COLUMNS = 2048, 512
# These are added in turn to the kernel among landmarks, in units of its diagonal: landmarks that
# nearly coincide may leave it singular in float32.
_JITTERS = (1e-5, 1e-4, 1e-3)


@dataclass(frozen=True, eq=False)
class Solution:
    """The dual coefficients of one fold, (n_points, n_targets), and its held-out predictions."""

    dual: FloatArray
    predicted: FloatArray


def solve_exactly(
    gram: FloatArray, noise: FloatArray, folds: Sequence[Runs], targets: Sequence[FloatArray]
) -> list[Solution]:
    """Solve with every training row.

    Parameters
    ----------
    gram : ndarray of shape (n_rows, n_rows)
        The kernel among all rows, float32.
    noise : ndarray of shape (n_rows,)
        The variance of each row's noise.
    folds : sequence of (train, held_out)
        The runs of rows that are trained on, and the run that is held out.
    targets : sequence of ndarray of shape (n_train, n_targets)
        Those of each fold's training rows.

    Raises
    ------
    StackingError
        If a kernel matrix is singular.
    """
    solutions = []
    for (train, held_out), y in zip(folds, targets, strict=True):
        matrix = _part(gram, train, train).T
        matrix[np.diag_indices(len(matrix))] += np.concatenate([noise[rows] for rows in train])
        dual = solve_definite(matrix, y)
        solutions.append(Solution(dual, _part(gram, [held_out], train) @ dual))
    return solutions


def solve_by_landmarks(
    kernel: BlockKernel,
    points: FloatArray,
    X: FloatArray,
    weights: FloatArray,
    noise: float,
    folds: Sequence[Runs],
    targets: Sequence[FloatArray],
) -> list[Solution]:
    """Solve with some landmarks, in a time that is linear in the number of rows.

    Parameters
    ----------
    kernel : BlockKernel
    points : ndarray
        The landmarks.
    X : ndarray of shape (n_rows, n_features)
    weights : ndarray of shape (n_rows,)
    noise : float
        The variance of the noise of a row of weight 1.
    folds, targets
        As in :func:`solve_exactly`; the rows that no fold holds out come first.

    Raises
    ------
    StackingError
        If a kernel matrix is singular.
    """
    inverse = _inverse_factor(kernel.among(points))
    in_float32 = inverse.astype(np.float32)
    n_targets = targets[0].shape[1]
    # Each fold's targets, with zeros in the rows that it is not trained on.
    Y = np.zeros((len(X), len(folds), n_targets))
    for fold, ((train, _), y) in enumerate(zip(folds, targets, strict=True)):
        Y[np.concatenate([np.arange(rows.start, rows.stop) for rows in train]), fold] = y
    Y = Y.reshape(len(X), -1) * weights[:, np.newaxis]
    right = np.zeros((len(inverse), Y.shape[1]))

    def summed(run: slice) -> FloatArray:
        """Return the products of some rows, and add theirs with the targets to `right`."""
        gram = np.zeros(inverse.shape)
        for rows in row_blocks(run.start, run.stop, _ROWS):
            whitened = _times_upper(kernel.between(X[rows], points), in_float32)
            right[:] += whitened.astype(np.float64).T @ Y[rows]
            whitened *= np.sqrt(weights[rows]).astype(np.float32)[:, np.newaxis]
            gram += whitened.T @ whitened
        return gram

    of_folds = [summed(held_out) for _, held_out in folds]
    total = summed(slice(0, min(held_out.start for _, held_out in folds)))
    for gram in of_folds:
        total += gram
    solutions = []
    for fold, ((_, held_out), gram) in enumerate(zip(folds, of_folds, strict=True)):
        matrix = np.subtract(total, gram, out=gram).T
        matrix[np.diag_indices(len(matrix))] += noise
        of_fold = slice(fold * n_targets, (fold + 1) * n_targets)
        dual = inverse @ solve_definite(matrix, right[:, of_fold])
        predicted = np.empty((held_out.stop - held_out.start, n_targets))
        for rows in row_blocks(0, len(predicted), _ROWS):
            held_out_rows = X[held_out.start + rows.start : held_out.start + rows.stop]
            predicted[rows] = kernel.between(held_out_rows, points) @ dual
        solutions.append(Solution(dual, predicted))
    return solutions


def solve_definite(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve with a positive definite matrix in Fortran order, whose upper triangle is replaced."""
    if not factor_upper(matrix):
        raise StackingError(NOT_DEFINITE)
    # One by one, so that the bits of one target do not depend on the others.
    targets = [linalg.cho_solve((matrix, False), one, check_finite=False) for one in right.T]
    return np.column_stack(targets)


def _inverse_factor(among: FloatArray) -> FloatArray:
    """Return the inverse of the upper Cholesky factor of the kernel among landmarks."""
    for jitter in _JITTERS:
        matrix = among.astype(np.float64).T
        matrix[np.diag_indices(len(matrix))] *= 1 + jitter
        if factor_upper(matrix):
            inverse, fault = linalg.lapack.dtrtri(matrix, lower=0, overwrite_c=1)
            if not fault:
                upper: FloatArray = np.triu(inverse)
                return upper
    raise StackingError(NOT_DEFINITE)


def _part(matrix: FloatArray, rows: Sequence[slice], columns: Sequence[slice]) -> FloatArray:
    """Return the float64 matrix of some runs of rows and of columns."""
    shape = [sum(run.stop - run.start for run in runs) for runs in (rows, columns)]
    part, top = np.empty(shape), 0
    for run in rows:
        left, bottom = 0, top + run.stop - run.start
        for span in columns:
            right = left + span.stop - span.start
            part[top:bottom, left:right] = matrix[run, span]
            left = right
        top = bottom
    return part


def _times_upper(A: FloatArray, upper: FloatArray) -> FloatArray:
    """Return ``A U`` for an upper triangular U, without the products with its zeros."""
    product = np.empty((len(A), len(upper)), dtype=A.dtype)
    for columns in row_blocks(0, len(upper), _COLUMNS):
        upto = slice(0, columns.stop)
        np.matmul(A[:, upto], upper[upto, columns], out=product[:, columns])
    return product
