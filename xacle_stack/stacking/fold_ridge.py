"""Ridge regression on any subset of folds, from sums over the rows of each fold.

With standardised columns Z (n × p) of the rows that are trained on, their weights W and centred
targets Y, the coefficients for a penalty λ are ``(ZᵀWZ + λI)⁻¹ ZᵀWY``.  Both products are sums over
rows: they are accumulated once for each fold, a block of rows at a time, and added up for
every subset of folds; the means and scales of a subset's columns enter afterwards.

Where a subset has fewer rows than columns, the same coefficients come from its rows:
``ZᵀW^½ (W^½ZZᵀW^½ + λI)⁻¹ W^½Y``.  The columns are then held in memory, so that every subset's
products can be formed from its own standardised rows, and what is solved in float32 can be brought
to float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy.linalg import blas

from xacle_stack._rows import row_blocks
from xacle_stack._state_checks import MAX_OUTPUTS, check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.stacking._cholesky import add_products
from xacle_stack.stacking._shifted import NotRefinedError, Times, solve_shifted
from xacle_stack.stacking.moments import (
    BLOCK_ROWS,
    ColumnMoments,
    check_finite,
    check_floats,
    scale_of_columns,
    standardise,
)
from xacle_stack.table import FeatureTable

# With this many rows and columns or more, float32 saves time.
_MIN_FLOAT32 = 1000
# Columns or rows that are standardised at a time: they stay in the processor's cache.
_TILE = 256
# A table with no more numbers is held in memory, whatever its shape.
_MAX_HELD = 2**22
# A column counts as constant within a subset where its spread is below this share of the table's.
_NEGLIGIBLE = 1e-7

Precision = type[np.floating[Any]]


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


@dataclass(frozen=True, eq=False)
class FoldSums:
    """The products ``ZᵀWZ``, in the lower triangle, and ``ZᵀWY`` of one fold."""

    gram: FloatArray
    cross: FloatArray


def fold_sums(
    table: FeatureTable,
    blocks: Sequence[str] | None,
    rows: IntArray,
    targets: FloatArray,
    weights: FloatArray,
    mean: FloatArray,
    scale: FloatArray,
) -> FoldSums:
    """Return the sums of some rows of a table, in float64, a block of rows at a time.

    Parameters
    ----------
    blocks : sequence of str or None
    rows : ndarray of shape (n_rows,)
    targets : ndarray of shape (n_rows, n_targets)
    weights : ndarray of shape (n_rows,)
    mean, scale : ndarray of shape (n_features,)
        What the columns are standardised by.
    """
    gram = np.zeros((len(mean), len(mean)), order="F")
    cross = np.zeros((len(mean), targets.shape[1]))
    memory = np.empty((min(len(rows), BLOCK_ROWS), len(mean)))
    for block in row_blocks(0, len(rows), BLOCK_ROWS):
        root = np.sqrt(weights[block])[:, np.newaxis]
        Z = memory[: block.stop - block.start]
        standardise(table[rows[block]].rows(slice(None), blocks), mean, scale, Z)
        Z *= root
        cross += Z.T @ (root * targets[block])
        add_products(gram, Z.T)
    return FoldSums(gram, cross)


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
        self._table, self._blocks, self._scales = table, blocks, scales
        n_folds = int(row_fold.max()) + 1
        self._rows = [np.flatnonzero(row_fold == fold) for fold in range(n_folds)]
        self._n_features = table.width(*(table.blocks if blocks is None else blocks))
        # Centred targets keep the digits that sums of large products would lose.
        self._y_mean: FloatArray = weights @ targets / weights.sum()
        self._Y = [targets[rows] - self._y_mean for rows in self._rows]
        self._w = [weights[rows] for rows in self._rows]
        if not all(any(self._w[fold].any() for fold in subset) for subset in subsets):
            raise StackingError(
                "all rows that one fold is trained on have weight 0, where a penalty is chosen on "
                f"folds within the training rows: only {np.count_nonzero(weights)} of "
                f"{len(weights)} rows have one above 0. Give more rows a weight, or leave those "
                "without out, so that the folds are made of the others."
            )
        is_wide = min(map(self._n_rows, subsets)) < self._n_features
        self._held: list[FloatArray] | None = None
        self._read(row_fold, is_held=is_wide or len(row_fold) * self._n_features <= _MAX_HELD)
        self._sums: list[FoldSums] | None = None
        if not is_wide:
            self._sums = Parallel(n_jobs=n_jobs, prefer="threads", require="sharedmem")(
                delayed(fold_sums)(
                    *self._source(fold), self._Y[fold], self._w[fold], self._mean, self._scale
                )
                for fold in range(n_folds)
            )

    def fit(
        self,
        subset: tuple[int, ...],
        penalties: Sequence[float],
        targets: slice | IntArray = slice(None),
        *,
        tolerance: float = 1e-9,
    ) -> list[LinearModel]:
        """Return one model of some targets for each penalty, trained on some folds.

        Large systems are solved in float32 where its rounding, at most its precision times the
        trace, is below the weakest penalty.  The solutions are then refined until they change by
        no more than the tolerance, relative to themselves.
        """
        n_rows = self._n_rows(subset)
        rounding = np.finfo(np.float32).eps * n_rows * self._n_features
        if min(n_rows, self._n_features) >= _MIN_FLOAT32 and rounding < min(penalties):
            try:
                return self._fit(subset, penalties, targets, np.float32, tolerance)
            except NotRefinedError:
                pass
        return self._fit(subset, penalties, targets, np.float64, tolerance)

    def errors(
        self, fold: int, models: Sequence[LinearModel], targets: slice | IntArray = slice(None)
    ) -> FloatArray:
        """Return the weighted sums of squared errors on a fold, shape (n_models, n_targets).

        The models are of these targets.
        """
        # In the units of the standardised columns.
        units = np.where(np.isinf(self._scale), 0.0, self._scale)
        coef = np.stack([model.coef for model in models], axis=1) * units[:, np.newaxis, np.newaxis]
        n_features, n_models, n_targets = coef.shape
        flat = coef.reshape(n_features, -1)
        shift = np.stack([model.intercept + self._mean @ model.coef for model in models])
        shift -= self._y_mean[targets]
        w, Y = self._w[fold], self._Y[fold][:, targets]
        if self._held is not None:
            errors = np.zeros((n_models, n_targets))
            memory = np.empty((_TILE, n_features))
            for rows in row_blocks(0, len(Y), _TILE):
                Z = memory[: rows.stop - rows.start]
                standardise(self._held[fold][rows], self._mean, self._scale, Z)
                residuals = (Z @ flat).reshape(-1, n_models, n_targets) + shift
                residuals -= Y[rows, np.newaxis]
                errors += np.einsum("n,nmt->mt", w[rows], np.square(residuals))
            return errors
        assert self._sums is not None
        # Σ w (y − zᵀc − b)² follows from the fold's own sums.
        sums, weight = self._sums[fold], w.sum()
        quadratic = np.einsum("pm,pm->m", flat, blas.dsymm(1.0, sums.gram, flat, lower=1))
        linear = np.einsum("pmt,pt->mt", coef, sums.cross[:, targets])
        z_sum = weight * (self._moments[fold].mean - self._mean) / self._scale
        centred_sum = w @ Y - np.einsum("pmt,p->mt", coef, z_sum)
        errors = w @ np.square(Y) - 2 * linear + quadratic.reshape(n_models, n_targets)
        errors += weight * np.square(shift) - 2 * shift * centred_sum
        nonnegative: FloatArray = np.maximum(errors, 0.0)  # rounding
        return nonnegative

    def predict(self, models: Sequence[LinearModel]) -> FloatArray:
        """Return each row's predictions by the model of its fold, shape (n_pairs, n_targets)."""
        predicted = np.empty((sum(map(len, self._rows)), models[0].coef.shape[1]))
        for fold, model in enumerate(models):
            table, blocks, rows = self._source(fold)
            for block in row_blocks(0, len(rows), BLOCK_ROWS):
                values = table[rows[block]].rows(slice(None), blocks)
                predicted[self._rows[fold][block]] = model.predict(values.astype(np.float64))
        return predicted

    def _n_rows(self, subset: tuple[int, ...]) -> int:
        return sum(len(self._rows[fold]) for fold in subset)

    def _read(self, row_fold: IntArray, *, is_held: bool) -> None:
        """Learn the moments of each fold's columns, and keep its values if they are held."""
        self._moments = [ColumnMoments(self._n_features) for _ in self._rows]
        precision = 0.0
        n_read = [0] * len(self._rows)
        for block in row_blocks(0, len(row_fold), BLOCK_ROWS):
            values = self._table.rows(block, self._blocks)
            precision = check_floats(values)
            if is_held and self._held is None:
                self._held = [
                    np.empty((len(rows), self._n_features), dtype=values.dtype)
                    for rows in self._rows
                ]
            for fold, moments in enumerate(self._moments):
                chosen = values[row_fold[block] == fold]
                part = slice(n_read[fold], n_read[fold] + len(chosen))
                n_read[fold] = part.stop
                moments.add(chosen, self._w[fold][part])
                check_finite(moments, self._table, self._blocks, block)
                if self._held is not None:
                    self._held[fold][part] = chosen
        whole = self._merged(tuple(range(len(self._rows))))
        self._mean, self._scale = whole.mean, scale_of_columns(whole, precision)

    def _source(self, fold: int) -> tuple[FeatureTable, Sequence[str] | None, IntArray]:
        """Return a table, the blocks, and which of its rows are a fold's."""
        if self._held is None:
            return self._table, self._blocks, self._rows[fold]
        held = FeatureTable(self._held[fold], {"held": slice(0, self._n_features)})
        return held, None, np.arange(len(held))

    def _merged(self, subset: tuple[int, ...]) -> ColumnMoments:
        merged = ColumnMoments(self._n_features)
        for fold in subset:
            merged.merge(self._moments[fold])
        return merged

    def _fit(
        self,
        subset: tuple[int, ...],
        penalties: Sequence[float],
        targets: slice | IntArray,
        precision: Precision,
        tolerance: float,
    ) -> list[LinearModel]:
        """Fit with products and factors in some precision."""
        moments = self._merged(subset)
        spread = moments.deviation / self._scale
        distance = np.abs(moments.mean - self._mean) / self._scale
        varies = spread > _NEGLIGIBLE * np.maximum(distance, 1.0)
        scale = np.where(varies, moments.deviation if self._scales else 1.0, np.inf)
        w = np.concatenate([self._w[fold] for fold in subset])
        Y = np.concatenate([self._Y[fold][:, targets] for fold in subset])
        y_mean = w @ Y / moments.weight
        if self._sums is not None:
            exact, right = self._gram_and_cross(subset, moments, scale, y_mean, targets)
            times: Times = partial(blas.dsymm, 1.0, exact, lower=1)
            gram = exact.copy(order="F") if precision == np.float64 else exact.astype(precision)
            rows = None
        else:
            assert self._held is not None
            rows = _HeldRows([self._held[fold] for fold in subset], np.sqrt(w), moments.mean, scale)
            right = rows.roots[:, np.newaxis] * (Y - y_mean)
            if not rows.is_wide:
                right = rows.columns_times(right)
            gram, times = rows.gram(precision), rows.times
        solutions = solve_shifted(
            gram, right, penalties, None if precision == np.float64 else times, tolerance
        )
        if rows is not None and rows.is_wide:
            coefs = rows.columns_times(np.concatenate(solutions, axis=1))
            solutions = np.split(coefs, len(penalties), axis=1)
        models = []
        for solution in solutions:
            coef = solution / scale[:, np.newaxis]
            intercept = self._y_mean[targets] + y_mean - moments.mean @ coef
            models.append(LinearModel(coef, intercept))
        return models

    def _gram_and_cross(
        self,
        subset: tuple[int, ...],
        moments: ColumnMoments,
        scale: FloatArray,
        y_mean: FloatArray,
        targets: slice | IntArray,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the products of a subset's standardised columns, from the sums of its folds."""
        sums = [self._sums[fold] for fold in subset]  # type: ignore[index]
        gram = sums[0].gram.copy(order="F")
        for one in sums[1:]:
            gram += one.gram
        # From the table's means and scales to the subset's.
        x_mean = (moments.mean - self._mean) / self._scale
        factor = np.divide(self._scale, scale, where=np.isfinite(scale), out=np.zeros_like(scale))
        for tile in row_blocks(0, len(gram), _TILE):
            column = gram[tile.start :, tile]
            column -= moments.weight * np.outer(x_mean[tile.start :], x_mean[tile])
            column *= factor[tile]
            column *= factor[tile.start :, np.newaxis]
        cross = np.sum([one.cross[:, targets] for one in sums], axis=0)
        cross -= moments.weight * np.outer(x_mean, y_mean)
        return gram, cross * factor[:, np.newaxis]


@dataclass(frozen=True, eq=False)
class _HeldRows:
    """The rows ``W^½Z`` of some folds, which are standardised when they are needed.

    `parts` are the values of each fold, shape (n_rows, n_features), and `roots` the square roots of
    all rows' weights.  Constant columns have an infinite scale.
    """

    parts: Sequence[FloatArray]
    roots: FloatArray
    mean: FloatArray
    scale: FloatArray

    @property
    def is_wide(self) -> bool:
        """Whether there are fewer rows than columns."""
        return len(self.roots) < len(self.mean)

    def gram(self, precision: Precision) -> FloatArray:
        """Return ``W^½ZZᵀW^½`` if the rows are wide, else ``ZᵀWZ``, as a lower triangle."""
        size = min(len(self.roots), len(self.mean))
        gram = np.zeros((size, size), dtype=precision, order="F")
        for tile in self._tiles(precision):
            add_products(gram, tile)
        return gram

    def times(self, right: FloatArray) -> FloatArray:
        """Return the product of `gram` with a matrix, in float64."""
        product = np.zeros_like(right)
        for tile in self._tiles(np.float64):
            product += tile @ (tile.T @ right)
        return product

    def columns_times(self, right: FloatArray) -> FloatArray:
        """Return ``ZᵀW^½ R`` of shape (n_features, n_targets), in float64."""
        tiles = self._tiles(np.float64)
        if self.is_wide:
            return np.concatenate([tile.T @ right for tile in tiles])
        product = np.zeros((len(self.mean), right.shape[1]))
        start = 0
        for tile in tiles:
            product += tile @ right[start : start + tile.shape[1]]
            start += tile.shape[1]
        return product

    def _tiles(self, precision: Precision) -> Iterator[FloatArray]:
        """Yield arrays T whose products ``T Tᵀ`` add up to `gram`.

        They are some columns of all rows, (n_rows, n_tile), or some rows transposed,
        (n_features, n_tile).
        """
        n_rows, n_features = len(self.roots), len(self.mean)
        roots = self.roots[:, np.newaxis].astype(precision)
        # The same memory is used again and again: new memory would have to be cleared.
        if self.is_wide:
            memory = np.empty((n_rows, _TILE), dtype=precision)
            for span in row_blocks(0, n_features, _TILE):
                tile, start = memory[:, : span.stop - span.start], 0
                for part in self.parts:
                    rows = slice(start, start + len(part))
                    standardise(part[:, span], self.mean[span], self.scale[span], tile[rows])
                    start = rows.stop
                tile *= roots
                yield tile
            return
        memory, start = np.empty((_TILE, n_features), dtype=precision), 0
        for part in self.parts:
            for rows in row_blocks(0, len(part), _TILE):
                tile = memory[: rows.stop - rows.start]
                standardise(part[rows], self.mean, self.scale, tile)
                tile *= roots[start + rows.start : start + rows.stop]
                yield tile.T
            start += len(part)
