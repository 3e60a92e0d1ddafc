"""Ridge regression on any subset of folds, from sums over the rows of each fold.

With standardised columns Z (n × p) of the rows that are trained on, their weights W and centred
targets Y, the coefficients for a penalty λ are ``(ZᵀWZ + λI)⁻¹ ZᵀWY``.  Both products are sums over
rows: they are accumulated once for each fold, a block of rows at a time, and added up for
every subset of folds; the means and scales of a subset's columns enter afterwards.  Where a subset
has fewer rows than columns, the same coefficients come from its rows:
``ZᵀW^½ (W^½ZZᵀW^½ + λI)⁻¹ W^½Y``.  A further penalty costs one Cholesky factor, a further target
next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy import linalg
from scipy.linalg import blas

from xacle_stack._rows import row_blocks
from xacle_stack._state_checks import MAX_OUTPUTS, check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.stacking._cholesky import factor_upper
from xacle_stack.stacking.moments import BLOCK_ROWS, column_moments
from xacle_stack.table import FeatureTable

# With this many rows and columns or more, float32 saves time.
_MIN_FLOAT32 = 1000
# Columns that are standardised at a time where products of rows are formed.
_TILE = 512
# Refinement stops at a step with a relative change this small, or after this many steps.
_REFINED, _MAX_REFINEMENTS = 1e-9, 30
# A column counts as constant within a subset where its spread is below this share of the table's.
_NEGLIGIBLE = 1e-7


class _NotRefinedError(ArithmeticError):
    """A float32 factor was too coarse to start from."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Coefficients (n_features, n_targets) and intercepts, in the units of the columns."""

    coef: FloatArray
    intercept: FloatArray

    def predict(self, table: FloatArray) -> FloatArray:
        """Return predictions of shape (n_rows, n_targets), as precise as the table's own type."""
        predicted: FloatArray = table @ self.coef.astype(table.dtype, copy=False) + self.intercept
        return predicted

    def check_state(self) -> None:
        """Check that numbers from a file are finite and fit together, or raise a ModelFileError."""
        check_numbers("coef", self.coef, (None, None))
        check_numbers("intercept", self.intercept, (self.coef.shape[1],))
        if self.coef.shape[1] > MAX_OUTPUTS:
            raise ModelFileError(f"{self.coef.shape[1]} outputs, the most is {MAX_OUTPUTS}.")


class FoldRidge:
    """Ridge regressions of several targets on any subset of the folds of one table.

    Parameters
    ----------
    blocks : sequence of str or None
        The blocks whose columns are used; None for all.
    row_fold : ndarray of shape (n_pairs,)
        The number of each row's fold.
    targets : ndarray of shape (n_pairs, n_targets)
        float64.
    weights : ndarray of shape (n_pairs,)
        A row of weight 2 counts as two rows.
    subsets : sequence of tuple of int
        The sets of folds that will be trained on; they decide what is kept.
    scales : bool, default=True
        Whether columns are divided by their standard deviations.
    n_jobs : int, optional
        How many folds are summed side by side.  Never changes a result.
    """

    def __init__(
        self,
        table: FeatureTable,
        blocks: Sequence[str] | None,
        row_fold: IntArray,
        targets: FloatArray,
        weights: FloatArray,
        subsets: Sequence[tuple[int, ...]],
        *,
        scales: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self._table, self._blocks = table, blocks
        self._row_fold, self._weights, self._n_jobs = row_fold, weights, n_jobs
        self._n_features = table.width(*(table.blocks if blocks is None else blocks))
        self._n_folds = int(row_fold.max()) + 1
        self._sizes = np.bincount(row_fold, minlength=self._n_folds)
        self._mean, self._scale = column_moments(table, weights, blocks)
        # Where no scaling is wanted, these bring standardised columns back to their own units.
        self._units = None if scales else np.where(np.isinf(self._scale), 1.0, self._scale)
        # Centred targets keep the digits that sums of large products would lose.
        self._y_mean: FloatArray = weights @ targets / weights.sum()
        self._Y = targets - self._y_mean
        self._weight = np.bincount(row_fold, weights, minlength=self._n_folds)
        if any(self._weight[list(subset)].sum() == 0 for subset in subsets):
            raise StackingError(
                "all rows that one fold is trained on have weight 0, where a penalty is chosen on "
                f"folds within the training rows: only {np.count_nonzero(weights)} of "
                f"{len(weights)} rows have one above 0. Give more rows a weight, or leave those "
                "without out, so that the folds are made of the others."
            )
        n_rows = [self._n_rows(subset) for subset in subsets]
        self._has_sums = max(n_rows) >= self._n_features
        self._values: FloatArray | None = None
        if min(n_rows) < self._n_features:
            self._values = table.rows(slice(None), blocks)
        self._accumulate()

    def fit(self, subset: tuple[int, ...], penalties: Sequence[float]) -> list[LinearModel]:
        """Return one model of all targets for each penalty, trained on some folds."""
        if self._n_rows(subset) >= self._n_features:
            return self._fit_sums(subset, penalties, np.float64)
        precision = self._selection_precision(subset, penalties)
        return self._fit_rows(subset, penalties, precision, to_float64=True)

    def fit_for_selection(
        self, subset: tuple[int, ...], penalties: Sequence[float]
    ) -> list[LinearModel]:
        """Return the models of `fit`, precise enough to select a penalty.

        Large systems are solved in float32 where its rounding, at most its precision times the
        trace, is below the weakest penalty.  The rounding then acts like a small change of the
        penalty.
        """
        precision = self._selection_precision(subset, penalties)
        if self._n_rows(subset) >= self._n_features:
            return self._fit_sums(subset, penalties, precision)
        return self._fit_rows(subset, penalties, precision, to_float64=False)

    def _selection_precision(
        self, subset: tuple[int, ...], penalties: Sequence[float]
    ) -> type[np.floating[Any]]:
        n_rows = self._n_rows(subset)
        rounding = np.finfo(np.float32).eps * n_rows * self._n_features
        is_enough = min(n_rows, self._n_features) >= _MIN_FLOAT32 and rounding < min(penalties)
        return np.float32 if is_enough else np.float64

    def errors(self, fold: int, models: Sequence[LinearModel]) -> FloatArray:
        """Return the weighted sums of squared errors on a fold, shape (n_models, n_targets)."""
        if self._values is not None:
            rows = np.flatnonzero(self._row_fold == fold)
            errors = np.zeros((len(models), self._Y.shape[1]))
            for block in row_blocks(0, len(rows), BLOCK_ROWS):
                chosen = rows[block]
                residuals = self._stacked(self._values[chosen], models)
                residuals -= (self._Y[chosen] + self._y_mean)[:, np.newaxis]
                errors += np.einsum("n,nmt->mt", self._weights[chosen], np.square(residuals))
            return errors
        # Σ w (y − zᵀc − b)² follows from the fold's own sums, in the units of the sums.
        units = np.where(np.isinf(self._scale), 0.0, self._scale)
        coef = np.stack([model.coef for model in models]) * units[:, np.newaxis]
        shift = np.stack([model.intercept + self._mean @ model.coef for model in models])
        shift -= self._y_mean
        n_models, n_features, n_targets = coef.shape
        flat = coef.transpose(1, 0, 2).reshape(n_features, -1)
        products = blas.dsymm(1.0, self._gram[fold], flat, lower=1)
        quadratic = np.einsum("pm,pm->m", flat, products)
        linear = np.einsum("mpt,pt->mt", coef, self._cross[fold])
        totals = self._y_square[fold] - 2 * linear + quadratic.reshape(n_models, n_targets)
        centred_sum = self._y_sum[fold] - np.einsum("mpt,p->mt", coef, self._x_sum[fold])
        errors = totals - 2 * shift * centred_sum + self._weight[fold] * np.square(shift)
        nonnegative: FloatArray = np.maximum(errors, 0.0)  # rounding
        return nonnegative

    def predict(self, models: Sequence[LinearModel]) -> FloatArray:
        """Return each row's predictions by the model of its fold, shape (n_pairs, n_targets)."""
        predicted = np.empty((len(self._row_fold), models[0].coef.shape[1]))
        for rows in row_blocks(0, len(predicted), BLOCK_ROWS):
            by_model: FloatArray = self._stacked(self._table.rows(rows, self._blocks), models)
            predicted[rows] = by_model[np.arange(len(by_model)), self._row_fold[rows]]
        return predicted

    @staticmethod
    def _stacked(table: FloatArray, models: Sequence[LinearModel]) -> FloatArray:
        """Return the predictions of several models, shape (n_rows, n_models, n_targets)."""
        coef = np.concatenate([model.coef for model in models], axis=1)
        predicted = table.astype(np.float64, copy=False) @ coef
        intercepts = np.stack([model.intercept for model in models])
        stacked: FloatArray = predicted.reshape(len(table), *intercepts.shape) + intercepts
        return stacked

    def _n_rows(self, subset: tuple[int, ...]) -> int:
        return int(self._sizes[list(subset)].sum())

    def _accumulate(self) -> None:
        """Sum the products of standardised rows, fold by fold."""
        n_features, n_targets = self._n_features, self._Y.shape[1]
        shape = (n_features, n_features) if self._has_sums else (0, 0)
        self._gram = [np.zeros(shape, order="F") for _ in range(self._n_folds)]
        self._cross = np.zeros((self._n_folds, n_features, n_targets))
        self._x_sum = np.zeros((self._n_folds, n_features))
        w_y = self._weights[:, np.newaxis] * self._Y
        self._y_sum, self._y_square = (
            np.stack([values[self._row_fold == fold].sum(axis=0) for fold in range(self._n_folds)])
            for values in (w_y, w_y * self._Y)
        )
        if not self._has_sums:
            return
        with Parallel(n_jobs=self._n_jobs, prefer="threads", require="sharedmem") as parallel:
            for rows in row_blocks(0, len(self._row_fold), BLOCK_ROWS):
                table = self._table.rows(rows, self._blocks)
                parallel(delayed(self._add)(fold, rows, table) for fold in range(self._n_folds))

    def _add(self, fold: int, rows: slice, table: FloatArray) -> None:
        chosen = np.flatnonzero(self._row_fold[rows] == fold)
        w = self._weights[rows][chosen]
        Z = (table[chosen] - self._mean) / self._scale
        self._x_sum[fold] += w @ Z
        Z *= np.sqrt(w)[:, np.newaxis]
        self._cross[fold] += Z.T @ (np.sqrt(w)[:, np.newaxis] * self._Y[rows][chosen])
        _add_products(self._gram[fold], Z.T)

    def _fit_sums(
        self, subset: tuple[int, ...], penalties: Sequence[float], precision: type[np.floating[Any]]
    ) -> list[LinearModel]:
        folds, n_features = list(subset), self._n_features
        weight = self._weight[folds].sum()
        x_mean = self._x_sum[folds].sum(axis=0) / weight
        y_mean = self._y_sum[folds].sum(axis=0) / weight
        gram = self._gram[folds[0]].copy(order="F")
        for fold in folds[1:]:
            gram += self._gram[fold]
        scale = np.sqrt(np.maximum(gram.diagonal() / weight - np.square(x_mean), 0.0))
        scale = self._subset_scale(scale, x_mean, slice(None))
        for tile in row_blocks(0, n_features, _TILE):
            column = gram[tile.start :, tile]
            column -= weight * np.outer(x_mean[tile.start :], x_mean[tile])
            column /= scale[tile]
            column /= scale[tile.start :, np.newaxis]
        cross = self._cross[folds].sum(axis=0) - weight * np.outer(x_mean, y_mean)
        cross /= scale[:, np.newaxis]
        gram = gram.astype(precision, copy=False)
        return [
            self._model(solution / scale[:, np.newaxis], x_mean, y_mean)
            for solution in _solve(gram, cross, penalties)
        ]

    def _fit_rows(
        self,
        subset: tuple[int, ...],
        penalties: Sequence[float],
        precision: type[np.floating[Any]],
        *,
        to_float64: bool,
    ) -> list[LinearModel]:
        """Fit in the dual form; what is solved in float32 may be refined to float64."""
        values = self._values
        assert values is not None
        chosen = np.flatnonzero(np.isin(self._row_fold, subset))
        w = self._weights[chosen]
        weight = w.sum()
        y_mean = w @ self._Y[chosen] / weight
        root = np.sqrt(w)[:, np.newaxis]
        gram = np.zeros((len(chosen), len(chosen)), order="F", dtype=precision)
        x_mean, scale = np.zeros(self._n_features), np.empty(self._n_features)
        tiles = list(row_blocks(0, self._n_features, _TILE))
        for tile in tiles:
            Z = (values[chosen, tile] - self._mean[tile]) / self._scale[tile]
            x_mean[tile] = w @ Z / weight
            Z -= x_mean[tile]
            deviation = np.sqrt(np.einsum("n,np,np->p", w, Z, Z) / weight)
            scale[tile] = self._subset_scale(deviation, x_mean[tile], tile)
        # ((x − m) / s − m') / s' in two steps: x − m first, where digits would be lost.
        shift = np.multiply(x_mean, self._scale, where=np.isfinite(self._scale), out=x_mean.copy())
        factor = 1 / (self._scale * scale)

        def weighted(tile: slice) -> FloatArray:
            Z: FloatArray = values[chosen, tile] - self._mean[tile]
            Z -= shift[tile]
            Z *= factor[tile]
            Z *= root
            return Z

        def times(dual: FloatArray) -> FloatArray:
            product = np.zeros_like(dual)
            for tile in tiles:
                Z = weighted(tile)
                product += Z @ (Z.T @ dual)
            return product

        for tile in tiles:
            _add_products(gram, weighted(tile).astype(precision, copy=False))
        right = root * (self._Y[chosen] - y_mean)
        refines = to_float64 and precision != np.float64
        try:
            solutions = list(_solve(gram, right, penalties, times if refines else None))
        except _NotRefinedError:
            return self._fit_rows(subset, penalties, np.float64, to_float64=True)
        dual = np.concatenate(solutions, axis=1)
        coef = np.concatenate([weighted(tile).T @ dual for tile in tiles]) / scale[:, np.newaxis]
        n_targets = self._Y.shape[1]
        return [
            self._model(coef[:, start : start + n_targets], x_mean, y_mean)
            for start in range(0, coef.shape[1], n_targets)
        ]

    def _subset_scale(self, deviation: FloatArray, mean: FloatArray, span: slice) -> FloatArray:
        """Return what a subset's columns are divided by: infinity for what is constant there."""
        varies = deviation > _NEGLIGIBLE * np.maximum(np.abs(mean), 1.0)
        scale = deviation if self._units is None else 1.0 / self._units[span]
        return np.where(varies, scale, np.inf)

    def _model(self, coef: FloatArray, x_mean: FloatArray, y_mean: FloatArray) -> LinearModel:
        """Bring coefficients of the standardised table to the units of the columns."""
        in_units = coef / self._scale[:, np.newaxis]
        intercept = self._y_mean + y_mean - x_mean @ coef - self._mean @ in_units
        return LinearModel(in_units, intercept)


def _add_products(gram: FloatArray, rows: FloatArray) -> None:
    """Add ``R Rᵀ`` to a matrix, in its lower triangle."""
    for tile in row_blocks(0, len(gram), _TILE):
        for below in row_blocks(0, len(gram), _TILE):
            # Small products: a large one would need new memory every time.
            if below.start >= tile.start:
                # Transposed, the product has the matrix's own order in memory.
                gram[below, tile] += (rows[tile] @ rows[below].T).T


def _solve(
    gram: FloatArray,
    right: FloatArray,
    penalties: Sequence[float],
    times: Callable[[FloatArray], FloatArray] | None = None,
) -> Iterator[FloatArray]:
    """Yield ``(G + λI)⁻¹ R`` for each penalty, in the precision of G.

    G is given by its lower triangle, which stays as it is: each factor is made in the upper one, so
    that no penalty needs a matrix of its own.  If `times` multiplies with G in float64,
    the solutions are brought to float64.
    """
    diagonal = gram.diagonal().copy()
    on_diagonal = np.diag_indices(len(gram))
    for penalty in penalties:
        for tile in row_blocks(0, len(gram), _TILE):
            gram[: tile.start, tile] = gram[tile, : tile.start].T
            lower = np.tril(gram[tile, tile])
            gram[tile, tile] = lower + np.tril(lower, -1).T
        gram[on_diagonal] = diagonal + penalty
        if factor_upper(gram):
            solution = _solve_factored(gram, right)
            yield solution if times is None else _refine(solution, gram, right, penalty, times)
        else:  # G + λI is singular to working precision
            gram[on_diagonal] = diagonal
            values, vectors = linalg.eigh(gram, lower=True, check_finite=False)
            # Rounding leaves eigenvalues a little below zero.
            shrunk = (vectors.T @ right) / (np.maximum(values, 0.0) + penalty)[:, np.newaxis]
            yield vectors @ shrunk


def _solve_factored(factor: FloatArray, right: FloatArray) -> FloatArray:
    right = right.astype(factor.dtype, copy=False)
    solution: FloatArray = linalg.cho_solve((factor, False), right, check_finite=False)
    return solution


def _refine(
    solution: FloatArray,
    factor: FloatArray,
    right: FloatArray,
    penalty: float,
    times: Callable[[FloatArray], FloatArray],
) -> FloatArray:
    """Bring a float32 solution of ``(G + λI) X = R`` to float64, by its residuals.

    The factor's rounding is below λ, so every step shrinks the error; a _NotRefinedError says that
    it does not after all.  Source: Higham 2002, "Accuracy and Stability of Numerical Algorithms",
    chapter 12.
    """
    refined = solution.astype(np.float64)
    for _ in range(_MAX_REFINEMENTS):
        residual = right - times(refined) - penalty * refined
        step = _solve_factored(factor, residual)
        refined += step
        if linalg.norm(step) <= _REFINED * linalg.norm(refined):
            return refined
    raise _NotRefinedError
