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
from collections.abc import Iterator, Mapping
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
from xacle_stack._types import FloatArray
from xacle_stack._validation import check_whole_number, row_weights
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.stacking._cholesky import factor_upper
from xacle_stack.stacking.inputs import check_targets
from xacle_stack.stacking.marginal_likelihood import NOT_DEFINITE, learn_kernel, square_distances

# With fewer rows, a kernel that learned nothing tells of their number rather than of the columns.
_MIN_ROWS_TO_WARN = 200
# Limits of a model from a file: the matrix that is solved to fit more landmarks has 137 GB, and a
# prediction multiplies the numbers of all landmarks 64 times for each kernel.
_MAX_KERNELS, _MAX_LANDMARKS, _MAX_KERNEL_NUMBERS = 4, 2**17, 2**29
_TINY = float(np.finfo(np.float64).tiny)
_ROUNDING = 8 * np.finfo(np.float64).eps
# The kernel is computed for exactly this many rows at a time, so that a pair alone gets the same
# bits as among others.  One pair takes as long as all of them; with 256, thousands of pairs would
# take a fifth less time and one pair three times as much.
_TILE = 64


class BlockGaussianProcess(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Gaussian process regression with one learned relevance for each block of columns.

    Several targets share one kernel, which is learned on the first of them.

    Parameters
    ----------
    blocks : mapping of str to slice, optional
        The columns of each block.  By default every column is a block.
    n_learn : int, default=1500
        The number of rows, chosen at random, on which the kernel is learned.
    max_exact : int, default=8192
        With more training rows than this, half as many are chosen at random as landmarks that
        approximate the kernel; the time is then linear in the number of rows.
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
    landmarks_ : ndarray of shape (n_landmarks, n_features)
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
        n_learn: int = 1500,
        max_exact: int = 8192,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.blocks = blocks
        self.n_learn = n_learn
        self.max_exact = max_exact
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
        check_whole_number("n_learn", self.n_learn, minimum=2)
        check_whole_number("max_exact", self.max_exact, minimum=2)
        weights = row_weights(len(table), sample_weight)
        table, scores = table[weights > 0], scores[weights > 0].astype(np.float64)
        weights = weights[weights > 0] / weights[weights > 0].mean()
        blocks = self._checked_blocks(table.shape[1])
        with one_thread():
            self._fit(table, scores, weights, blocks)
        return self

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
            rows or by a version that did not keep the rows' weights.
        """
        check_is_fitted(self)
        table = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        predicted = np.empty((len(table), *self.dual_coef_.shape[1:]))
        explained = np.empty(len(table))
        with one_thread():
            factor = self._factor() if return_std else None
            for rows, kernel in self._kernels(self._standardise(table)):
                n_rows = rows.stop - rows.start
                kernel = kernel.astype(np.float64)
                predicted[rows] = (kernel @ self.dual_coef_)[:n_rows] + self.y_mean_
                if factor is not None:
                    whitened = linalg.solve_triangular(factor, kernel.T, trans=1)
                    explained[rows] = np.square(whitened).sum(axis=0)[:n_rows]
        if not return_std:
            return predicted
        variance = np.maximum(self.amplitude_.sum() - explained, 0) + self.noise_
        return predicted, np.multiply.outer(np.sqrt(variance), self.y_scale_)

    def _fit(
        self, table: FloatArray, scores: FloatArray, weights: FloatArray, blocks: list[slice]
    ) -> None:
        rng = check_random_state(self.random_state)
        self.mean_: FloatArray = table.mean(axis=0, dtype=np.float64)
        variances = np.square(table - self.mean_).mean(axis=0)
        spread = np.array([np.sqrt(variances[block].sum()) for block in blocks])
        self.block_scale_ = np.where(spread > 0, spread, np.inf)
        self.column_block_ = np.repeat(np.arange(len(blocks)), [b.stop - b.start for b in blocks])
        # Targets are treated one by one, so that the bits of one do not depend on the others.
        targets = np.ascontiguousarray(scores.reshape(len(scores), -1).T)
        means = np.array([weights @ target for target in targets]) / weights.sum()
        targets -= means[:, np.newaxis]
        squares = np.array([weights @ np.square(target) for target in targets])
        deviations = np.sqrt(squares / weights.sum())
        # Scores that differ by the rounding of their mean only count as equal.
        varies = deviations > _ROUNDING * np.abs(means)
        scales = np.where(varies, deviations, 1.0)
        targets = np.where(varies[:, np.newaxis], targets / scales[:, np.newaxis], 0.0)
        self.y_mean_: FloatArray = means.reshape(scores.shape[1:])[()]
        self.y_scale_: FloatArray = scales.reshape(scores.shape[1:])[()]
        centred = np.ascontiguousarray(targets.T).reshape(scores.shape)
        standardised = self._standardise(table)
        chosen = rng.permutation(len(table))[: self.n_learn]
        self._learn(standardised[chosen], targets[0][chosen], weights[chosen])
        if len(table) <= self.max_exact:
            self.landmarks_ = standardised
            self.row_weights_: FloatArray | None = weights
            dual = self._solve(centred, weights)
        else:
            chosen = np.sort(rng.permutation(len(table))[: self.max_exact // 2])
            self.landmarks_ = standardised[chosen]
            self.row_weights_ = None
            dual = self._solve_by_landmarks(standardised, centred, weights)
        self.dual_coef_: FloatArray = dual * self.y_scale_

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

    def _standardise(self, table: FloatArray) -> FloatArray:
        centred = (table - self.mean_) / self.block_scale_[self.column_block_]
        standardised: FloatArray = centred.astype(np.float32)
        return standardised

    def _learn(self, X: FloatArray, y: FloatArray, weights: FloatArray) -> None:
        """Learn the kernel from rows in random order."""
        found = learn_kernel(X, self.column_block_, y, weights)
        if not found.has_learned and len(y) >= _MIN_ROWS_TO_WARN:
            warnings.warn(
                f"BlockGaussianProcess learned nothing from {len(y)} rows: their scores are hardly "
                "more likely by what it found in the columns than as noise around the mean, and on "
                "new rows it predicts little else than the mean. Check that the rows of X and y "
                "belong together; if they do, the columns say nothing about the scores.",
                ConvergenceWarning,
                stacklevel=4,
            )
        self.relevance_, self.amplitude_ = found.relevance, found.amplitude
        self.noise_, self.log_likelihood_ = found.noise, found.log_likelihood

    def _kernels(self, X: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
        """Yield the kernel between tiles of rows and the landmarks, float32.

        All tiles have one height; the caller drops what lies below the last row.
        """
        scaled = [
            np.sqrt(relevance)[self.column_block_].astype(np.float32)
            for relevance in self.relevance_
        ]
        landmarks = [self.landmarks_ * scale for scale in scaled]
        squares = [np.square(marks).sum(axis=1) for marks in landmarks]
        for rows in row_blocks(0, len(X), _TILE):
            tile = np.zeros((_TILE, X.shape[1]), dtype=np.float32)
            tile[: rows.stop - rows.start] = X[rows]
            kernel = np.zeros((_TILE, len(self.landmarks_)), dtype=np.float32)
            for scale, marks, lengths, amplitude in zip(
                scaled, landmarks, squares, self.amplitude_, strict=True
            ):
                distances = square_distances(tile * scale, marks, lengths)
                kernel += np.float32(amplitude) * np.exp(-distances, out=distances)
            yield rows, kernel

    def _gram(self, weights: FloatArray) -> FloatArray:
        """Return the kernel among the training rows, with their noise."""
        n_rows = len(weights)
        gram = np.empty((n_rows, n_rows), order="F")
        for rows, kernel in self._kernels(self.landmarks_):
            gram[:, rows] = kernel[: rows.stop - rows.start].T
        gram[np.diag_indices(n_rows)] = self.amplitude_.sum() + self.noise_ / weights
        return gram

    def _solve(self, y: FloatArray, weights: FloatArray) -> FloatArray:
        return _solve_definite(self._gram(weights), y)

    def _factor(self) -> FloatArray:
        """Return the upper Cholesky factor of the kernel among the training rows."""
        weights = getattr(self, "row_weights_", None)
        if weights is None:
            raise StackingError(
                "this BlockGaussianProcess has no standard deviations: it was fitted on more rows "
                f"than max_exact={self.max_exact}, or by an earlier version. Fit it again, on "
                "fewer rows or with a larger max_exact."
            )
        gram = self._gram(weights)
        if not factor_upper(gram):
            raise StackingError(NOT_DEFINITE)
        return gram

    def _solve_by_landmarks(self, X: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
        n_landmarks = len(self.landmarks_)
        among = np.empty((n_landmarks, n_landmarks), order="F")
        for rows, kernel in self._kernels(self.landmarks_):
            among[:, rows] = kernel[: rows.stop - rows.start].T
        # Landmarks that nearly coincide leave the matrix singular in float32.
        among[np.diag_indices(n_landmarks)] = self.amplitude_.sum() * (1 + 1e-4)
        if not factor_upper(among):
            raise StackingError(NOT_DEFINITE)
        # Whitened columns: sums of their products keep their digits.
        inverse, fault = linalg.lapack.dtrtri(among, lower=0, overwrite_c=1)
        if fault:
            raise StackingError(NOT_DEFINITE)
        inverse = np.triu(inverse)
        gram = np.zeros((n_landmarks, n_landmarks), order="F")
        right = np.zeros((n_landmarks, *y.shape[1:]))
        for rows, kernel in self._kernels(X):
            whitened = kernel[: rows.stop - rows.start].astype(np.float64) @ inverse
            weighted = whitened * weights[rows][:, np.newaxis]
            gram += weighted.T @ whitened
            right += weighted.T @ y[rows]
        gram[np.diag_indices(n_landmarks)] += self.noise_
        solution: FloatArray = inverse @ _solve_definite(gram, right)
        return solution

    def check_state(self) -> None:
        """Check that numbers from a file fit and predict soon, or raise a ModelFileError."""
        n_features = self.n_features_in_
        check_numbers("mean_", self.mean_, (n_features,))
        check_numbers("block_scale_", self.block_scale_, (None,), minimum=0, finite=False)
        n_blocks, n_kernels = len(self.block_scale_), len(self.amplitude_)
        check_indices("column_block_", self.column_block_, n_features, n_blocks)
        check_numbers("amplitude_", self.amplitude_, (None,), minimum=0)
        check_numbers("relevance_", self.relevance_, (n_kernels, n_blocks), minimum=0)
        check_numbers("landmarks_", self.landmarks_, (None, n_features))
        n_landmarks, n_targets = len(self.landmarks_), np.shape(self.dual_coef_)[1:]
        if n_landmarks > _MAX_LANDMARKS or n_kernels > _MAX_KERNELS:
            raise ModelFileError(
                f"{n_landmarks} landmarks_ and {n_kernels} kernels, the most are {_MAX_LANDMARKS} "
                f"and {_MAX_KERNELS}."
            )
        if n_kernels * self.landmarks_.size > _MAX_KERNEL_NUMBERS or len(n_targets) > 1:
            raise ModelFileError(
                f"landmarks_ and dual_coef_ have shapes {self.landmarks_.shape} and "
                f"{self.dual_coef_.shape}, for {n_kernels} kernels; the most are "
                f"{_MAX_KERNEL_NUMBERS} numbers of all kernels, and one row of targets."
            )
        check_numbers("dual_coef_", self.dual_coef_, (n_landmarks, *n_targets))
        check_numbers("y_mean_", self.y_mean_, n_targets)
        # Models of the same format may come from before these.
        if hasattr(self, "y_scale_"):
            check_numbers("y_scale_", self.y_scale_, n_targets, minimum=0)
        if getattr(self, "row_weights_", None) is not None:
            check_numbers("row_weights_", self.row_weights_, (n_landmarks,), minimum=_TINY)
        if n_targets and n_targets[0] > MAX_OUTPUTS:
            raise ModelFileError(f"{n_targets[0]} outputs, the most is {MAX_OUTPUTS}.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _solve_definite(gram: FloatArray, right: FloatArray) -> FloatArray:
    if not factor_upper(gram):
        raise StackingError(NOT_DEFINITE)
    solution: FloatArray = linalg.cho_solve((gram, False), right, check_finite=False)
    return solution
