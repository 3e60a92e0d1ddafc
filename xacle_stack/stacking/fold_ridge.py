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

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError
from xacle_stack.stacking._cholesky import factor_upper
from xacle_stack.stacking.columns import Columns, column_moments, row_blocks

# Rows and columns from which on float32 saves time.
_LARGE = 1000
# Columns that are standardised at a time where products of rows are formed.
_TILE = 512
# Refinement stops where a step changes this little, relatively, or after so many.
_REFINED, _MAX_REFINEMENTS = 1e-9, 30
# A column that varies this much less within a subset than in the whole table counts as constant.
_NEGLIGIBLE = 1e-7


class _NotRefinedError(ArithmeticError):
    """A float32 factor was too coarse to start from."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Coefficients and intercepts, in the units of the columns.

    Attributes
    ----------
    coef : ndarray of shape (n_features, n_targets)
    intercept : ndarray of shape (n_targets,)
    """

    coef: FloatArray
    intercept: FloatArray

    def predict(self, table: FloatArray) -> FloatArray:
        """Return predictions of shape (n_rows, n_targets), as precise as the table's own type."""
        predicted: FloatArray = table @ self.coef.astype(table.dtype, copy=False) + self.intercept
        return predicted


class FoldRidge:
    """Ridge regressions of several targets on any subset of the folds of one table.

    Parameters
    ----------
    columns : Columns
    family : str or None
        Whose columns; None for all.
    fold_of : ndarray of shape (n_pairs,)
        Number of each row's fold.
    targets : ndarray of shape (n_pairs, n_targets)
        float64.
    weights : ndarray of shape (n_pairs,)
        Of the rows: a row of weight 2 counts as two.
    subsets : sequence of tuple of int
        The sets of folds that will be trained on; they decide what is kept.
    scales : bool, default=True
        Whether columns are divided by their standard deviations.
    n_jobs : int, optional
        Of the sums.  Never changes a result.
    """

    def __init__(
        self,
        columns: Columns,
        family: str | None,
        fold_of: IntArray,
        targets: FloatArray,
        weights: FloatArray,
        subsets: Sequence[tuple[int, ...]],
        *,
        scales: bool = True,
        n_jobs: int | None = None,
    ) -> None:
        self._columns, self._family = columns, family
        self._fold_of, self._weights, self._n_jobs = fold_of, weights, n_jobs
        span = columns.families[family] if family is not None else slice(0, columns.shape[1])
        self._n_features = span.stop - span.start
        self._n_folds = int(fold_of.max()) + 1
        self._sizes = np.bincount(fold_of, minlength=self._n_folds)
        self._mean, self._scale = column_moments(columns, weights, family)
        # What brings standardised columns back to their own units, where no scale is wanted.
        self._units = None if scales else np.where(np.isinf(self._scale), 1.0, self._scale)
        # Sums of products with centred targets lose no digits.
        self._y_mean: FloatArray = weights @ targets / weights.sum()
        self._Y = targets - self._y_mean
        self._weight = np.bincount(fold_of, weights, minlength=self._n_folds)
        if any(self._weight[list(subset)].sum() == 0 for subset in subsets):
            raise StackingError(
                "all rows that one fold is trained on have weight 0, where a penalty is chosen on "
                f"folds within the training rows: only {np.count_nonzero(weights)} of "
                f"{len(weights)} rows have one above 0. Give more rows a weight, or leave those "
                "without out, so that the folds are made of the others."
            )
        n_rows = [self._n_rows(subset) for subset in subsets]
        self._has_sums = max(n_rows) >= self._n_features
        self._rows: FloatArray | None = None
        if min(n_rows) < self._n_features:
            self._rows = columns.rows(slice(0, columns.shape[0]), family)
        self._accumulate()

    def fit(self, subset: tuple[int, ...], penalties: Sequence[float]) -> list[LinearModel]:
        """Return one model of all targets for each penalty, trained on some folds."""
        if self._n_rows(subset) >= self._n_features:
            return self._fit_sums(subset, penalties, np.float64)
        precision = self._precision_to_judge(subset, penalties)
        return self._fit_rows(subset, penalties, precision, to_float64=True)

    def fit_to_judge(
        self, subset: tuple[int, ...], penalties: Sequence[float]
    ) -> list[LinearModel]:
        """Return the models of `fit`, good enough to tell which penalty is best.

        Large systems are solved in float32 where its rounding, at most its precision times the
        trace, is smaller than the weakest penalty: then it changes no penalty by more than that.
        """
        precision = self._precision_to_judge(subset, penalties)
        if self._n_rows(subset) >= self._n_features:
            return self._fit_sums(subset, penalties, precision)
        return self._fit_rows(subset, penalties, precision, to_float64=False)

    def _precision_to_judge(
        self, subset: tuple[int, ...], penalties: Sequence[float]
    ) -> type[np.floating[Any]]:
        n_rows = self._n_rows(subset)
        rounding = np.finfo(np.float32).eps * n_rows * self._n_features
        is_enough = min(n_rows, self._n_features) >= _LARGE and rounding < min(penalties)
        return np.float32 if is_enough else np.float64

    def errors(self, fold: int, models: Sequence[LinearModel]) -> FloatArray:
        """Return the weighted sums of squared errors on a fold, shape (n_models, n_targets)."""
        if self._rows is not None:
            rows = np.flatnonzero(self._fold_of == fold)
            errors = np.zeros((len(models), self._Y.shape[1]))
            for block in row_blocks(len(rows)):
                chosen = rows[block]
                residuals = self._stacked(self._rows[chosen], models)
                residuals -= (self._Y[chosen] + self._y_mean)[:, np.newaxis]
                errors += np.einsum("n,nmt->mt", self._weights[chosen], np.square(residuals))
            return errors
        # In the units of the sums: Σ w (y − zᵀc − b)² from the fold's own sums.
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
        about = self._y_sum[fold] - np.einsum("mpt,p->mt", coef, self._x_sum[fold])
        errors = totals - 2 * shift * about + self._weight[fold] * np.square(shift)
        nonnegative: FloatArray = np.maximum(errors, 0.0)  # rounding
        return nonnegative

    def predict(self, models: Sequence[LinearModel]) -> FloatArray:
        """Return each row's predictions by the model of its fold, shape (n_pairs, n_targets)."""
        predicted = np.empty((len(self._fold_of), models[0].coef.shape[1]))
        for rows in row_blocks(len(predicted)):
            by_model: FloatArray = self._stacked(self._columns.rows(rows, self._family), models)
            predicted[rows] = by_model[np.arange(len(by_model)), self._fold_of[rows]]
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
            np.stack([values[self._fold_of == fold].sum(axis=0) for fold in range(self._n_folds)])
            for values in (w_y, w_y * self._Y)
        )
        if not self._has_sums:
            return
        with Parallel(n_jobs=self._n_jobs, prefer="threads", require="sharedmem") as parallel:
            for rows in row_blocks(len(self._fold_of)):
                table = self._columns.rows(rows, self._family)
                parallel(delayed(self._add)(fold, rows, table) for fold in range(self._n_folds))

    def _add(self, fold: int, rows: slice, table: FloatArray) -> None:
        chosen = np.flatnonzero(self._fold_of[rows] == fold)
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
        for tile in row_blocks(n_features, _TILE):
            column = gram[tile.start :, tile]
            column -= weight * np.outer(x_mean[tile.start :], x_mean[tile])
            column /= scale[tile]
            column /= scale[tile.start :, np.newaxis]
        cross = self._cross[folds].sum(axis=0) - weight * np.outer(x_mean, y_mean)
        cross /= scale[:, np.newaxis]
        models = []
        gram = gram.astype(precision, copy=False)
        for solution in _solve(gram, cross, penalties):
            models.append(self._model(solution / scale[:, np.newaxis], x_mean, y_mean))
        return models

    def _fit_rows(
        self,
        subset: tuple[int, ...],
        penalties: Sequence[float],
        precision: type[np.floating[Any]],
        *,
        to_float64: bool,
    ) -> list[LinearModel]:
        """Fit in the dual form; what is solved in float32 may be refined to float64."""
        table = self._rows
        assert table is not None
        chosen = np.flatnonzero(np.isin(self._fold_of, subset))
        w = self._weights[chosen]
        weight = w.sum()
        y_mean = w @ self._Y[chosen] / weight
        root = np.sqrt(w)[:, np.newaxis]
        gram = np.zeros((len(chosen), len(chosen)), order="F", dtype=precision)
        x_mean, scale = np.zeros(self._n_features), np.empty(self._n_features)
        tiles = list(row_blocks(self._n_features, _TILE))
        for tile in tiles:
            Z = (table[chosen, tile] - self._mean[tile]) / self._scale[tile]
            x_mean[tile] = w @ Z / weight
            Z -= x_mean[tile]
            deviation = np.sqrt(np.einsum("n,np,np->p", w, Z, Z) / weight)
            scale[tile] = self._subset_scale(deviation, x_mean[tile], tile)
        # ((x − m) / s − m') / s' in two steps: x − m first, where digits would be lost.
        shift = np.multiply(x_mean, self._scale, where=np.isfinite(self._scale), out=x_mean.copy())
        factor = 1 / (self._scale * scale)

        def weighted(tile: slice) -> FloatArray:
            Z: FloatArray = table[chosen, tile] - self._mean[tile]
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
            self._model(coef[:, place * n_targets : (place + 1) * n_targets], x_mean, y_mean)
            for place in range(len(solutions))
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
    for tile in row_blocks(len(gram), _TILE):
        for below in row_blocks(len(gram), _TILE):
            if below.start >= tile.start:  # small products: large ones are new memory every time
                gram[below, tile] += (rows[tile] @ rows[below].T).T  # in the matrix's own order


def _solve(
    gram: FloatArray,
    right: FloatArray,
    penalties: Sequence[float],
    times: Callable[[FloatArray], FloatArray] | None = None,
) -> Iterator[FloatArray]:
    """Yield ``(G + λI)⁻¹ R`` for each penalty, in the precision of G.

    G is given by its lower triangle, which is left as it is: each factor is made in the upper one,
    so that no penalty needs a matrix of its own.  If `times` multiplies with G in float64,
    the solutions are brought to float64.
    """
    diagonal = gram.diagonal().copy()
    on_diagonal = np.diag_indices(len(gram))
    for penalty in penalties:
        for tile in row_blocks(len(gram), _TILE):
            gram[: tile.start, tile] = gram[tile, : tile.start].T
            lower = np.tril(gram[tile, tile])
            gram[tile, tile] = lower + np.tril(lower, -1).T
        gram[on_diagonal] = diagonal + penalty
        if factor_upper(gram):
            solution = _solve_factored(gram, right)
            yield solution if times is None else _refine(solution, gram, right, penalty, times)
        else:  # singular to working precision
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

    The factor's rounding is below λ, so every step shrinks the error.

    Raises
    ------
    _NotRefinedError
        If it does not after all.

    References
    ----------
    Higham 2002, "Accuracy and Stability of Numerical Algorithms", chapter 12.
    """
    refined = solution.astype(np.float64)
    for _ in range(_MAX_REFINEMENTS):
        residual = right - times(refined) - penalty * refined
        step = _solve_factored(factor, residual)
        refined += step
        if linalg.norm(step) <= _REFINED * linalg.norm(refined):
            return refined
    raise _NotRefinedError
