"""Gaussian process regression that learns how much each block of columns matters.

Formula: ``k(x, x') = Σ_c s_c exp(−Σ_b w_cb d_b(x, x'))`` with ``d_b`` the squared distance in block
b over the block's total variance.  Amplitudes s, relevances w and the noise σ² maximise the
marginal likelihood of some training rows; a weak prior holds relevances and noise near their start.
The prediction is the posterior mean ``k(x, X) (K + σ²W⁻¹)⁻¹ y``, which is also kernel ridge
regression with the penalty σ².

Source: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning: equations 2.25, 5.8
and 5.9; section 5.1 for automatic relevance determination; equation 8.14 for the landmarks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._rows import row_blocks
from xacle_stack._state_checks import MAX_OUTPUTS, check_indices, check_numbers
from xacle_stack._threads import one_thread
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_whole_number, row_weights
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.stacking._cholesky import factor_upper
from xacle_stack.stacking.block_kernel import BlockKernel, with_axes
from xacle_stack.stacking.inputs import check_targets
from xacle_stack.stacking.kernel_ridge import (
    Runs,
    Solution,
    solve_by_landmarks,
    solve_exactly,
)
from xacle_stack.stacking.marginal_likelihood import NOT_DEFINITE, learn_kernel

# With fewer rows, a kernel that learned nothing tells of their number rather than of the columns.
_MIN_ROWS_TO_WARN = 200
# A kernel of few blocks is learned from fewer rows, so many for each of its parameters.
_ROWS_PER_PARAMETER = 150
# A kernel that is learned without half of the folds needs so many rows.
_ENOUGH_ROWS = 750
# Limits of a model from a file: the matrix that is solved to fit more landmarks has 137 GB, and a
# prediction multiplies the numbers of all landmarks 48 times for each kernel.
_MAX_KERNELS, _MAX_LANDMARKS, _MAX_KERNEL_NUMBERS = 4, 2**17, 2**29
_TINY = float(np.finfo(np.float64).tiny)
_ROUNDING = 8 * np.finfo(np.float64).eps
# The kernel is computed for exactly this many rows at a time, so that a pair alone gets the same
# bits as among others.  One pair takes as long as all of them.  The height is a multiple of
# what the kernels of OpenBLAS do at a time (4, 8, 12, 16), so that no last rows are an exception.
_TILE = 48


class BlockGaussianProcess(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Gaussian process regression with one learned relevance for each block of columns.

    Several targets share one kernel, which is learned on the first of them.

    Parameters
    ----------
    blocks : mapping of str to slice, optional
        The columns of each block.  By default every column is a block.
    n_learn : int, default=2000
        The largest number of rows, chosen at random, on which the kernel is learned.  A kernel of
        few blocks is learned on fewer.
    max_exact : int, default=12288
        With more training rows than this, some are chosen at random as landmarks that approximate
        the kernel: half as many as this number, and down to a third as the rows grow, so that the
        time grows with the root of their number, and later linearly.
    reduces : bool, default=True
        Whether the kernel is computed over a few principal axes of all columns, if the scores are
        as likely that way; predictions then cost a fraction.  The axes are those of rows that the
        kernel was not learned on, so few rows have none.
    random_state : int, RandomState or None, default=0
        Seeds these choices.

    Attributes
    ----------
    relevance_ : ndarray of shape (n_kernels, n_blocks)
    amplitude_ : ndarray of shape (n_kernels,)
        In units of the variance of the first target.
    noise_ : float
        In the same units.
    log_likelihood_ : float
        The log likelihood per row, with the prior, of the rows that the kernel was learned on.
    axes_ : ndarray of shape (n_kernels, n_features, n_axes) or None
        Over which the kernels are computed; None for all columns.
    landmarks_ : ndarray of shape (n_kernels, n_landmarks, n_axes + 1)
        Training rows, in the form in which others are compared with them.
    dual_coef_ : ndarray of shape (n_landmarks,) or (n_landmarks, n_targets)
    row_weights_ : ndarray of shape (n_landmarks,) or None
        Those of the training rows, which are the landmarks; None where there were more rows.
    y_scale_ : float or ndarray of shape (n_targets,)
        The standard deviation of each target.

    Notes
    -----
    While `fit` and `predict` run, BLAS has one thread in the whole process, so the machine's number
    of processors changes no digit of a result.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(80, 2))
    >>> model = BlockGaussianProcess().fit(X, np.sin(2 * X[:, 0]))
    >>> bool(model.relevance_[:, 0].max() > 10 * model.relevance_[:, 1].max())
    True
    """

    def __init__(
        self,
        blocks: Mapping[str, slice] | None = None,
        *,
        n_learn: int = 2000,
        max_exact: int = 12288,
        reduces: bool = True,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.n_learn = n_learn
        self.max_exact = max_exact
        self.reduces = reduces
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the kernel, then the scores.

        Parameters
        ----------
        X : array-like of shape (n_pairs, n_features)
        y : array-like of shape (n_pairs,) or (n_pairs, n_targets)
        sample_weight : array-like of shape (n_pairs,), optional
            The noise of a row is divided by its weight.

        Raises
        ------
        StackingError
            If the blocks do not fit the columns, a number of rows is no whole number of 2 or more,
            the weights leave nothing to train on, or rows of very large weights coincide.

        Warns
        -----
        ConvergenceWarning
            If nothing was learned from 200 rows or more: their scores are hardly more likely by the
            kernel than as noise around their mean, also when it starts narrower.
        """
        table, scores = check_targets(self, X, y)
        weights = self._checked(table, sample_weight)
        table, scores = table[weights > 0], scores[weights > 0].astype(np.float64)
        weights = weights[weights > 0]
        every, none = slice(0, len(table)), slice(len(table), len(table))
        with one_thread():
            rng = check_random_state(self.random_state)
            standardised = self._fit_columns(table)
            targets = _Targets.of(scores, weights)
            self._fit_kernel(standardised, targets.values[:, 0], weights, self.n_learn, rng)
            (solution,) = self._solve(
                standardised, weights, [([every], none)], [targets.values], rng
            )
        self.y_mean_: FloatArray = targets.mean.reshape(scores.shape[1:])[()]
        self.y_scale_: FloatArray = targets.scale.reshape(scores.shape[1:])[()]
        dual = solution.dual.reshape(len(solution.dual), *scores.shape[1:])
        self.dual_coef_: FloatArray = dual * self.y_scale_
        return self

    def fold_groups(self, n_pairs: int, n_folds: int) -> list[list[int]]:
        """Return which folds may share a kernel that was learned without all of them.

        Many pairs leave enough to learn from where half of the folds are held out; of few, each
        fold needs a kernel of its own.

        Examples
        --------
        >>> BlockGaussianProcess().fold_groups(7500, 5), BlockGaussianProcess().fold_groups(100, 2)
        ([[0, 1, 2], [3, 4]], [[0], [1]])
        """
        half = -(-n_folds // 2)
        if n_pairs * (n_folds - half) // n_folds < _ENOUGH_ROWS:
            return [[fold] for fold in range(n_folds)]
        return [list(range(half)), list(range(half, n_folds))]

    def predict_held_out(
        self,
        X: FloatArray,
        held_out: Sequence[IntArray],
        targets: Callable[[IntArray], FloatArray],
        sample_weight: FloatArray | None = None,
    ) -> list[FloatArray]:
        """Return predictions of each fold's rows, by a process that was fitted on all other rows.

        The folds share one kernel, which is learned on the rows that none of them holds out.

        Parameters
        ----------
        X : ndarray of shape (n_pairs, n_features)
        held_out : sequence of ndarray
            The row numbers of each fold.
        targets : callable
            Returns the targets of some rows, of shape (n_rows, n_targets), from their scores alone.
        sample_weight : ndarray of shape (n_pairs,), optional

        Returns
        -------
        predicted : list of ndarray of shape (n_held_out, n_targets)

        Raises
        ------
        StackingError
            As in `fit`.
        """
        weights = self._checked(X, sample_weight)
        order, outside, folds = _in_runs(held_out, weights)
        weights = weights[order]
        with one_thread():
            rng = check_random_state(self.random_state)
            standardised = self._fit_columns(X[order])
            scores = _Targets.of(targets(order[outside]), weights[outside]).values[:, 0]
            # Half as many rows are enough for what a meta-regressor is trained on.
            self._fit_kernel(standardised, scores, weights, self.n_learn // 2, rng)
            of_folds = [
                _Targets.of(
                    targets(np.concatenate([order[run] for run in train])),
                    np.concatenate([weights[run] for run in train]),
                )
                for train, _ in folds
            ]
            values = [of_fold.values for of_fold in of_folds]
            solutions = self._solve(standardised, weights, folds, values, rng)
        predicted = []
        for rows, (_, run), solution, of_fold in zip(
            held_out, folds, solutions, of_folds, strict=True
        ):
            of_rows = np.empty((len(rows), len(of_fold.mean)))
            of_rows[np.argsort(rows)] = (solution.predicted * of_fold.scale + of_fold.mean)[
                np.argsort(order[run])
            ]
            predicted.append(of_rows)
        return predicted

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[False] = False) -> FloatArray: ...

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[True]) -> tuple[FloatArray, FloatArray]: ...

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Return predictions.

        Parameters
        ----------
        X : array-like of shape (n_pairs, n_features)
        return_std : bool, default=False
            Whether to return standard deviations, too.  Every such call solves once more the
            kernel matrix of the training rows, which is as large as in `fit`.

        Returns
        -------
        predicted : ndarray of shape (n_pairs,) or (n_pairs, n_targets)
        std : ndarray of the same shape
            With `return_std`: the standard deviation of a new score of mean weight, with its noise.

        Raises
        ------
        StackingError
            If there shall be standard deviations, and the model was fitted on more than `max_exact`
            rows.
        """
        check_is_fitted(self)
        table = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        predicted = np.empty((len(table), *self.dual_coef_.shape[1:]))
        explained = np.empty(len(table))
        with one_thread():
            factor = self._factor() if return_std else None
            kernel, standardised = self._kernel, self._standardise(table)
            for rows in row_blocks(0, len(table), _TILE):
                n_rows = rows.stop - rows.start
                tile = np.zeros((_TILE, table.shape[1]), dtype=np.float32)
                tile[:n_rows] = standardised[rows]
                between = kernel.between(tile, self.landmarks_).astype(np.float64)
                predicted[rows] = (between @ self.dual_coef_)[:n_rows] + self.y_mean_
                if factor is not None:
                    whitened = linalg.solve_triangular(factor, between.T, trans=1)
                    explained[rows] = np.square(whitened).sum(axis=0)[:n_rows]
        if not return_std:
            return predicted
        variance = np.maximum(self.amplitude_.sum() - explained, 0) + self.noise_
        return predicted, np.multiply.outer(np.sqrt(variance), self.y_scale_)

    def _checked(self, X: FloatArray, sample_weight: ArrayLike | None) -> FloatArray:
        """Return the weights, with a mean of 1 where they are above 0, once all settings fit."""
        check_whole_number("n_learn", self.n_learn, minimum=2)
        check_whole_number("max_exact", self.max_exact, minimum=2)
        blocks = self._checked_blocks(X.shape[1])
        widths = [block.stop - block.start for block in blocks]
        self.column_block_: IntArray = np.repeat(np.arange(len(blocks)), widths)
        weights = row_weights(len(X), sample_weight)
        return weights / weights[weights > 0].mean()

    def _checked_blocks(self, n_features: int) -> list[slice]:
        if self.blocks is None:
            return [slice(column, column + 1) for column in range(n_features)]
        blocks = list(self.blocks.values())
        columns = np.concatenate([[], *(np.arange(n_features)[block] for block in blocks)])
        if not np.array_equal(columns, np.arange(n_features)):
            raise StackingError(
                f"blocks must cover the {n_features} columns once and in order, got "
                f"{dict(self.blocks)!r}."
            )
        return [slice(*block.indices(n_features)) for block in blocks]

    def _fit_columns(self, table: FloatArray) -> FloatArray:
        """Learn the means of the columns and the spreads of the blocks; standardise by them."""
        self.mean_: FloatArray = table.mean(axis=0, dtype=np.float64)
        centred = table - self.mean_.astype(table.dtype)
        variances = np.square(centred, out=centred).mean(axis=0, dtype=np.float64)
        spread = np.sqrt(np.bincount(self.column_block_, variances))
        self.block_scale_: FloatArray = np.where(spread > 0, spread, np.inf)
        return self._standardise(table)

    def _standardise(self, table: FloatArray) -> FloatArray:
        # In the table's own precision: a shift of all rows by its rounding changes no distance.
        standardised: FloatArray = table - self.mean_.astype(table.dtype)
        standardised /= self.block_scale_[self.column_block_].astype(table.dtype)
        return standardised.astype(np.float32, copy=False)

    def _fit_kernel(
        self,
        X: FloatArray,
        y: FloatArray,
        weights: FloatArray,
        n_learn: int,
        rng: np.random.RandomState,
    ) -> None:
        """Learn the kernel from the first rows, whose scores are y, and its axes from all."""
        n_parameters = 2 * len(self.block_scale_) + 3
        n_learn = min(n_learn, _ROWS_PER_PARAMETER * n_parameters)
        chosen = rng.permutation(len(y))[:n_learn]
        y_chosen, w_chosen = y[chosen], weights[chosen]
        found = learn_kernel(X[chosen], self.column_block_, y_chosen, w_chosen)
        if not found.has_learned and len(chosen) >= _MIN_ROWS_TO_WARN:
            warnings.warn(
                f"BlockGaussianProcess learned nothing from {len(chosen)} rows: their scores are "
                "hardly more likely by what it found in the columns than as noise around the mean, "
                "and on new rows it predicts little else than the mean. Check that the rows of X "
                "and y belong together; if they do, the columns say nothing about the scores.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.relevance_, self.amplitude_ = found.relevance, found.amplitude
        self.noise_, self.log_likelihood_ = found.noise, found.log_likelihood
        self.axes_: FloatArray | None = None
        if self.reduces:
            others = rng.permutation(np.setdiff1d(np.arange(len(X)), chosen))[:n_learn]
            noise = self.noise_ / w_chosen
            over_axes = with_axes(self._kernel, X[others], X[chosen], y_chosen, noise, rng)
            self.axes_ = over_axes.axes

    @property
    def _kernel(self) -> BlockKernel:
        return BlockKernel(self.relevance_[:, self.column_block_], self.amplitude_, self.axes_)

    def _solve(
        self,
        X: FloatArray,
        weights: FloatArray,
        folds: Sequence[Runs],
        targets: Sequence[FloatArray],
        rng: np.random.RandomState,
    ) -> list[Solution]:
        """Solve for each fold; this chooses the landmarks."""
        kernel = self._kernel
        if len(X) <= self.max_exact:
            self.landmarks_ = kernel.points(X)
            self.row_weights_: FloatArray | None = weights
            noise = self.noise_ / np.where(weights > 0, weights, np.inf)
            return solve_exactly(kernel.among(self.landmarks_), noise, folds, targets)
        n_landmarks = int(self.max_exact / 2 * np.sqrt(self.max_exact / len(X)))
        n_landmarks = max(1, self.max_exact // 3, n_landmarks)
        chosen = np.sort(rng.permutation(np.flatnonzero(weights))[:n_landmarks])
        self.landmarks_ = kernel.points(X[chosen])
        self.row_weights_ = None
        return solve_by_landmarks(kernel, self.landmarks_, X, weights, self.noise_, folds, targets)

    def _factor(self) -> FloatArray:
        """Return the upper Cholesky factor of the kernel among the training rows."""
        if self.row_weights_ is None:
            raise StackingError(
                "this BlockGaussianProcess has no standard deviations: it was fitted on more rows "
                f"than max_exact={self.max_exact}. Fit it again, on fewer rows or with a larger "
                "max_exact."
            )
        gram = self._kernel.among(self.landmarks_).astype(np.float64).T
        gram[np.diag_indices(len(gram))] += self.noise_ / self.row_weights_
        if not factor_upper(gram):
            raise StackingError(NOT_DEFINITE)
        return gram

    def check_state(self) -> None:
        """Check that numbers from a file fit and predict soon, or raise a ModelFileError."""
        n_features = self.n_features_in_
        check_numbers("mean_", self.mean_, (n_features,))
        check_numbers("block_scale_", self.block_scale_, (None,), minimum=0, finite=False)
        n_blocks, n_kernels = len(self.block_scale_), len(self.amplitude_)
        check_indices("column_block_", self.column_block_, n_features, n_blocks)
        check_numbers("amplitude_", self.amplitude_, (None,), minimum=_TINY)
        check_numbers("relevance_", self.relevance_, (n_kernels, n_blocks), minimum=0)
        check_numbers("noise_", self.noise_, (), minimum=0)
        n_axes = n_features
        if self.axes_ is not None:
            check_numbers("axes_", self.axes_, (n_kernels, n_features, None))
            n_axes = self.axes_.shape[2]
        check_numbers("landmarks_", self.landmarks_, (n_kernels, None, n_axes + 1))
        n_landmarks, n_targets = self.landmarks_.shape[1], np.shape(self.dual_coef_)[1:]
        if n_landmarks > _MAX_LANDMARKS or n_kernels > _MAX_KERNELS:
            raise ModelFileError(
                f"{n_landmarks} landmarks_ and {n_kernels} kernels, the most are {_MAX_LANDMARKS} "
                f"and {_MAX_KERNELS}."
            )
        if self.landmarks_.size > _MAX_KERNEL_NUMBERS or len(n_targets) > 1:
            raise ModelFileError(
                f"landmarks_ and dual_coef_ have shapes {self.landmarks_.shape} and "
                f"{self.dual_coef_.shape}; the most are {_MAX_KERNEL_NUMBERS} numbers of all "
                "kernels, and one row of targets."
            )
        check_numbers("dual_coef_", self.dual_coef_, (n_landmarks, *n_targets))
        check_numbers("y_mean_", self.y_mean_, n_targets)
        check_numbers("y_scale_", self.y_scale_, n_targets, minimum=0)
        if self.row_weights_ is not None:
            check_numbers("row_weights_", self.row_weights_, (n_landmarks,), minimum=_TINY)
        if n_targets and n_targets[0] > MAX_OUTPUTS:
            raise ModelFileError(f"{n_targets[0]} outputs, the most is {MAX_OUTPUTS}.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


@dataclass(frozen=True, eq=False)
class _Targets:
    """Targets of mean 0 and standard deviation 1, (n_rows, n_targets), and what they had before."""

    values: FloatArray
    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, scores: FloatArray, weights: FloatArray) -> Self:
        # One by one, so that the bits of one target do not depend on the others.
        targets = np.ascontiguousarray(scores.reshape(len(scores), -1).T)
        mean = np.array([weights @ target for target in targets]) / weights.sum()
        targets = targets - mean[:, np.newaxis]
        squares = np.array([weights @ np.square(target) for target in targets])
        deviations = np.sqrt(squares / weights.sum())
        # Scores that differ by the rounding of their mean only count as equal.
        varies = deviations > _ROUNDING * np.abs(mean)
        scale = np.where(varies, deviations, 1.0)
        values = np.where(varies[:, np.newaxis], targets / scale[:, np.newaxis], 0.0)
        return cls(np.ascontiguousarray(values.T), mean, scale)


def _in_runs(
    held_out: Sequence[IntArray], weights: FloatArray
) -> tuple[IntArray, slice, list[Runs]]:
    """Order rows so that those of each fold stand together, and with weight before without.

    Returns the row numbers in that order, the run of those that no fold holds out, which come first
    and have a weight, and for each fold the runs to train on and the run that it holds out.
    """
    numbers = np.full(len(weights), -1)
    for fold, rows in enumerate(held_out):
        numbers[rows] = fold
    order = np.lexsort((weights == 0, numbers))
    order = order[(numbers[order] >= 0) | (weights[order] > 0)]
    folds = range(-1, len(held_out))
    starts = np.searchsorted(numbers[order], [*folds, len(held_out)]).tolist()
    n_weighted = [int(np.count_nonzero(weights[numbers == fold])) for fold in folds]
    runs = [slice(start, start + n) for start, n in zip(starts, n_weighted, strict=False)]
    return (
        order,
        runs[0],
        [
            (
                [run for other, run in enumerate(runs) if other != fold],
                slice(*starts[fold : fold + 2]),
            )
            for fold in range(1, len(runs))
        ],
    )
