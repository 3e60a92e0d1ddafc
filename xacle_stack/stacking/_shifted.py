"""Solutions of ``(G + λI) X = R`` for several λ, with G symmetric and positive semidefinite.

For a few λ, each gets a Cholesky factor, ``n³ / 3`` multiplications.  For many, G is brought to a
band matrix B by reflections, ``G = Q B Qᵀ``, for the price of six factors.  Then
``(G + λI)⁻¹ = Q (B + λI)⁻¹ Qᵀ``, and a factor of ``B + λI`` costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import linalg

from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray
from xacle_stack.stacking._cholesky import factor_upper

Solve = Callable[[FloatArray], FloatArray]
Times = Callable[[FloatArray], FloatArray]
# From as many rows and λ on, a band matrix is faster.
_MIN_BAND_ROWS, _MIN_BAND_SHIFTS = 500, 6
# Diagonals below the main one; wider, the products are faster and the panels slower.
_BAND = 96
# Columns that are copied at a time.
_TILE = 512
_MAX_REFINEMENTS = 30


class NotRefinedError(ArithmeticError):
    """A float32 factor was too coarse to start from."""


def solve_shifted(
    gram: FloatArray,
    right: FloatArray,
    shifts: Sequence[float],
    times: Times | None = None,
    tolerance: float = 1e-9,
) -> list[FloatArray]:
    """Return ``(G + λI)⁻¹ R`` for each λ.

    Parameters
    ----------
    gram : ndarray of shape (n, n)
        float64 or float32, in Fortran order, given by its lower triangle; used up.
    right : ndarray of shape (n, n_targets)
    shifts : sequence of float
        Above zero.
    times : callable, optional
        Multiplies with G in float64: the solutions are then refined by their residuals, until they
        change by no more than `tolerance`, relative to themselves.  What is left of their error is
        about the square of that.

    Raises
    ------
    NotRefinedError
        If the factors are too coarse to start from.

    Examples
    --------
    >>> gram = np.array([[3.0, 0.0], [0.0, 1.0]], order="F")
    >>> [solution.ravel().tolist() for solution in solve_shifted(gram, np.ones((2, 1)), [1.0])]
    [[0.25, 0.5]]
    """
    if len(gram) >= _MIN_BAND_ROWS and len(shifts) >= _MIN_BAND_SHIFTS:
        solve = partial(_BandForm(gram).solve, shifts)
        each = np.repeat(shifts, right.shape[1])
        solutions = _refined(solve, np.tile(right, len(shifts)), each, times, tolerance)
        return np.split(solutions, len(shifts), axis=1)
    return [
        _refined(solve, right, shift, times, tolerance)
        for shift, solve in zip(shifts, _cholesky_solvers(gram, shifts), strict=True)
    ]


def _refined(
    solve: Solve,
    right: FloatArray,
    shift: float | FloatArray,
    times: Times | None,
    tolerance: float,
) -> FloatArray:
    """Return the solution of ``(G + λI) X = R``, with one λ or one for each column.

    If the rounding of `solve` is below λ, every step shrinks the error.  Source: Higham 2002,
    "Accuracy and Stability of Numerical Algorithms", chapter 12.
    """
    solution = solve(right)
    if times is None:
        return solution
    solution = solution.astype(np.float64)
    before = np.linalg.norm(solution, axis=0)
    for _ in range(_MAX_REFINEMENTS):
        step = solve(right - times(solution) - shift * solution)
        solution += step
        change, size = (np.linalg.norm(matrix, axis=0) for matrix in (step, solution))
        if (change <= tolerance * size).all():
            return solution
        if not (change <= before).all():
            break
        before = change
    raise NotRefinedError


def _cholesky_solvers(gram: FloatArray, shifts: Sequence[float]) -> Iterator[Solve]:
    """Yield a function for each λ, which works until the next is asked for."""
    # The lower triangle stays as it is, and each factor is made in the upper one.
    diagonal = gram.diagonal().copy()
    on_diagonal = np.diag_indices(len(gram))
    for shift in shifts:
        _copy_to_upper(gram)
        gram[on_diagonal] = diagonal + gram.dtype.type(shift)
        if factor_upper(gram):
            yield lambda right: linalg.cho_solve(
                (gram, False), right.astype(gram.dtype, copy=False), check_finite=False
            )
        else:  # G + λI is singular to working precision
            gram[on_diagonal] = diagonal
            values, vectors = linalg.eigh(gram, lower=True, check_finite=False)
            yield partial(_solve_spectral, values, vectors, shift)


def _solve_spectral(
    values: FloatArray, vectors: FloatArray, shift: float, right: FloatArray
) -> FloatArray:
    # Rounding leaves eigenvalues a little below zero.
    shrunk = (vectors.T @ right) / (np.maximum(values, 0.0) + shift)[:, np.newaxis]
    solution: FloatArray = vectors @ shrunk
    return solution


class _BandForm:
    """A symmetric matrix, given by its lower triangle, as ``Q B Qᵀ`` with a band matrix B."""

    def __init__(self, gram: FloatArray) -> None:
        _copy_to_upper(gram)
        matrix = gram.T  # in C order, in which the products are faster
        self._reflections = _reduce_to_band(matrix)
        self._band = np.zeros((_BAND + 1, len(gram)), dtype=gram.dtype)
        for below in range(_BAND + 1):
            self._band[below, : len(gram) - below] = matrix.diagonal(-below)

    def solve(self, shifts: Sequence[float], right: FloatArray) -> FloatArray:
        """Return ``(G + λI)⁻¹ R``; each λ in turn has as many columns of R."""
        rotated = right.astype(self._band.dtype)
        for one in self._reflections:
            one.apply(rotated, transposed=True)
        parts = zip(np.split(rotated, len(shifts), axis=1), shifts, strict=True)
        solutions = np.hstack([self._solve_band(part, shift) for part, shift in parts])
        for one in reversed(self._reflections):
            one.apply(solutions, transposed=False)
        return solutions

    def _solve_band(self, right: FloatArray, shift: float) -> FloatArray:
        shifted = self._band.copy()
        shifted[0] += self._band.dtype.type(shift)
        try:
            factor = linalg.cholesky_banded(shifted, lower=True, check_finite=False)
        except linalg.LinAlgError:  # singular to working precision
            values, vectors = linalg.eig_banded(self._band, lower=True, check_finite=False)
            return _solve_spectral(values, vectors, shift, right)
        solution: FloatArray = linalg.cho_solve_banded((factor, True), right, check_finite=False)
        return solution


class _Reflections(NamedTuple):
    """The product ``I − V T Vᵀ`` of reflections, which changes the rows from `start` on."""

    start: int
    V: FloatArray
    T: FloatArray

    def apply(self, right: FloatArray, *, transposed: bool) -> None:
        """Multiply a matrix by it, or by its transpose, in place."""
        T = self.T.T if transposed else self.T
        right[self.start :] -= self.V @ (T @ (self.V.T @ right[self.start :]))


def _reduce_to_band(gram: FloatArray) -> list[_Reflections]:
    """Make the lower triangle of a full symmetric matrix a band, in place.

    Its diagonals beyond the band, and the upper triangle, are left as they come.

    References
    ----------
    Bischof, Lang and Sun 2000, "A framework for symmetric band reduction"; Schreiber and Van Loan
    1989 and Puglisi 1992, for products of reflections.
    """
    reflections = []
    for start in range(_BAND, len(gram), _BAND):
        panel = gram[start:, start - _BAND : start]
        packed, factors = np.linalg.qr(panel.astype(np.float64), mode="raw")
        n_vectors = len(factors)
        V = np.tril(packed.T[:, :n_vectors], -1)
        V[np.diag_indices(n_vectors)] = 1.0
        idle = factors == 0  # reflects nothing
        V[:, idle], factors[idle] = 0.0, 1.0
        T = linalg.inv(np.triu(V.T @ V, 1) + np.diag(1 / factors), check_finite=False)
        V, T = V.astype(gram.dtype), T.astype(gram.dtype)
        panel[:n_vectors] = np.triu(packed.T[:n_vectors])
        # Qᵀ S Q = S − V Wᵀ − W Vᵀ
        rest = gram[start:, start:]
        W = (rest @ V) @ T
        W -= V @ (T.T @ (V.T @ W) / 2)
        left, right = np.hstack([V, W]), np.hstack([W, V]).T
        for tile in row_blocks(0, len(rest), _TILE):
            rest[tile] -= left[tile] @ right
        reflections.append(_Reflections(start, V, T))
    return reflections


def _copy_to_upper(matrix: FloatArray) -> None:
    """Copy the lower triangle of a matrix to the upper one."""
    for tile in row_blocks(0, len(matrix), _TILE):
        matrix[: tile.start, tile] = matrix[tile, : tile.start].T
        lower = np.tril(matrix[tile, tile])
        matrix[tile, tile] = lower + np.tril(lower, -1).T
