"""Ridge regression whose penalty is chosen on held-out groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._state_checks import MAX_OUTPUTS, check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import (
    check_positive_numbers,
    check_whole_number,
    group_labels,
    row_weights,
)
from xacle_stack.errors import ModelFileError
from xacle_stack.stacking.fold_ridge import FoldRidge, LinearModel
from xacle_stack.stacking.folds import Fold, fold_numbers, split_folds
from xacle_stack.stacking.inputs import check_targets
from xacle_stack.table import FeatureTable

# The errors by which a penalty is chosen need fewer digits than predictions.
_SELECTION_TOLERANCE = 1e-4
PENALTIES = tuple(float(penalty) for penalty in np.logspace(1, 6, 11))
# The meta-regressor's columns are few and already predictions, so its penalties are weaker.
META_PENALTIES = tuple(float(penalty) for penalty in np.logspace(-2, 4, 13))


class GroupedRidge(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge on standardised columns; each target's penalty has the smallest held-out error.

    The penalty is chosen by cross-validation within the rows given to `fit`, groups kept
    together, then all rows are used.  The columns' means and scales are those of the rows that
    are trained on.

    Parameters
    ----------
    penalties : sequence of float, default=PENALTIES
        Candidates, each above zero, for columns of unit variance.  The default is eleven from
        1e1 to 1e6.
    n_splits : int, default=3
        The number of folds by which the penalty is chosen; fewer where there are fewer groups.
    random_state : int, RandomState or None, default=0
        Seeds those folds.
    scales : bool, default=True
        Whether the columns are brought to unit variance; principal components should not be.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_targets, n_features)
        In the units of the columns given.
    intercept_ : float or ndarray of shape (n_targets,)
    penalty_ : ndarray of shape (n_targets,)
    cv_mse_ : ndarray of shape (n_penalties, n_targets)
        Held-out mean squared error of each candidate, the weakest first.

    Examples
    --------
    >>> X = np.arange(12.0).reshape(6, 2)
    >>> GroupedRidge(penalties=[1e-9]).fit(X, X[:, 0] * 2 + 1).predict([[20.0, 21.0]]).round(3)
    array([41.])
    """

    def __init__(
        self,
        penalties: Sequence[float] = PENALTIES,
        n_splits: int = 3,
        random_state: int | np.random.RandomState | None = 0,
        scales: bool = True,
    ) -> None:
        self.penalties = penalties
        self.n_splits = n_splits
        self.random_state = random_state
        self.scales = scales

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Choose the penalties and fit.

        Parameters
        ----------
        X : array-like of shape (n_pairs, n_features)
        y : array-like of shape (n_pairs,) or (n_pairs, n_targets)
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are never on both sides of a fold.
        sample_weight : array-like of shape (n_pairs,), optional
            A row of weight 2 counts as two rows, in the fit and in the choice of the penalty.

        Raises
        ------
        StackingError
            If there are fewer than two groups, a penalty is not above zero, `n_splits` is no whole
            number of 2 or more, or the weights leave nothing to train on.
        """
        table, targets = check_targets(self, X, y)
        weights = row_weights(len(table), sample_weight)
        penalties = check_penalties(self.penalties)
        check_whole_number("n_splits", self.n_splits, minimum=2)
        n_groups = int(group_labels(len(table), groups).max()) + 1
        n_folds = max(2, min(self.n_splits, n_groups))
        row_fold = fold_numbers(split_folds(len(table), groups, n_folds, self.random_state))
        every = tuple(range(n_folds))
        rests = [tuple(other for other in every if other != fold) for fold in every]
        ridge = FoldRidge(
            FeatureTable(table, {"all": slice(0, table.shape[1])}),
            None,
            row_fold,
            targets.astype(np.float64).reshape(len(table), -1),
            weights,
            [*rests, every],
            scales=self.scales,
        )
        errors = sum(ridge.errors(fold, ridge.fit(rests[fold], penalties)) for fold in every)
        self.cv_mse_: FloatArray = errors / weights.sum()
        chosen = _best_penalties(self.cv_mse_)
        self.penalty_ = np.array(penalties)[chosen]
        model = _fit_chosen(ridge, every, penalties, chosen)
        one_target = targets.ndim == 1
        self.coef_: FloatArray = model.coef[:, 0] if one_target else model.coef.T
        self.intercept_: FloatArray | float = (
            float(model.intercept[0]) if one_target else model.intercept
        )
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return predictions of shape (n_pairs,) or (n_pairs, n_targets)."""
        check_is_fitted(self)
        table: FloatArray = validate_data(self, X, reset=False, dtype=np.float64)
        predicted: FloatArray = table @ self.coef_.T + self.intercept_
        return predicted

    def check_state(self) -> None:
        """Check that numbers from a file are finite and fit together, or raise a ModelFileError."""
        n_targets = np.shape(self.coef_)[:-1]
        check_numbers("coef_", self.coef_, (*n_targets[:1], self.n_features_in_))
        check_numbers("intercept_", self.intercept_, n_targets)
        if n_targets and n_targets[0] > MAX_OUTPUTS:
            raise ModelFileError(f"{n_targets[0]} outputs, the most is {MAX_OUTPUTS}.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def fit_blocks(
    table: FeatureTable,
    blocks: Sequence[str] | None,
    folds: Sequence[Fold],
    groups: IntArray | None,
    targets: FloatArray,
    weights: FloatArray,
    penalties: Sequence[float],
    n_jobs: int | None = None,
) -> tuple[FloatArray, LinearModel, FloatArray]:
    """Train ridges on some blocks out-of-fold, each fold's penalty chosen without that fold.

    For the fold k that is held out, a penalty is chosen by its errors on every other fold j of
    models trained without j and k.  So one fit without two folds serves the choices for both.

    Parameters
    ----------
    blocks : sequence of str or None
        None for all.
    folds : sequence of (train, held_out) row numbers
    targets : ndarray of shape (n_folds, n_pairs, n_targets)
        Each fold's models have targets of their own: ranks are taken among the rows trained on.

    Returns
    -------
    oof : ndarray of shape (n_pairs, n_targets)
    model : LinearModel
        The mean of the folds' models, which are linear.
    penalties : ndarray of shape (n_folds, n_targets)
        The penalties that were chosen.
    """
    penalties = check_penalties(penalties)
    n_folds, n_pairs, n_targets = targets.shape
    row_fold = fold_numbers(list(folds))
    parts: list[tuple[int, ...]] = [(fold,) for fold in range(n_folds)]
    if n_folds == 2:
        # Without both folds no rows are left, so each fold is cut into two parts.
        row_part = np.empty(n_pairs, dtype=np.intp)
        for fold in range(n_folds):
            rows = np.flatnonzero(row_fold == fold)
            labels = None if groups is None else groups[rows]
            row_part[rows] = 2 * fold + fold_numbers(split_folds(len(rows), labels, 2, 0))
        row_fold, parts = row_part, [(0, 1), (2, 3)]
    every = range(int(row_fold.max()) + 1)
    rests = [tuple(part for part in every if part not in parts[fold]) for fold in range(n_folds)]
    # Each set of parts to train on, with the choices it serves: (fold to choose for, part to
    # predict).
    choices: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for fold, rest in enumerate(rests):
        for part in rest:
            choices.setdefault(tuple(p for p in rest if p != part), []).append((fold, part))
    stacked = targets.transpose(1, 0, 2).reshape(n_pairs, -1)
    ridge = FoldRidge(table, blocks, row_fold, stacked, weights, [*rests, *choices], n_jobs=n_jobs)

    def fold_targets(fold: int) -> slice:
        return slice(fold * n_targets, (fold + 1) * n_targets)

    def selection_errors(subset: tuple[int, ...]) -> list[tuple[int, FloatArray]]:
        served = sorted({fold for fold, _ in choices[subset]})
        wanted = np.concatenate([np.arange(len(stacked[0]))[fold_targets(fold)] for fold in served])
        models = ridge.fit(subset, penalties, wanted, tolerance=_SELECTION_TOLERANCE)
        errors = {part: ridge.errors(part, models, wanted) for _, part in choices[subset]}
        return [
            (fold, errors[part][:, fold_targets(served.index(fold))])
            for fold, part in choices[subset]
        ]

    def train(fold: int) -> LinearModel:
        return _fit_chosen(ridge, rests[fold], penalties, chosen[fold], fold_targets(fold))

    errors = np.zeros((n_folds, len(penalties), n_targets))
    if len(penalties) > 1:
        for results in Parallel(n_jobs=n_jobs, prefer="threads", require="sharedmem")(
            delayed(selection_errors)(subset) for subset in choices
        ):
            for fold, part_errors in results:
                errors[fold] += part_errors
    chosen = [_best_penalties(fold_errors) for fold_errors in errors]
    # These are the largest systems, and other families are trained side by side, too.
    few_jobs = max(1, effective_n_jobs(n_jobs) // 2)
    models = Parallel(n_jobs=few_jobs, prefer="threads", require="sharedmem")(
        delayed(train)(fold) for fold in range(n_folds)
    )
    by_part = [
        models[next(fold for fold in range(n_folds) if part in parts[fold])] for part in every
    ]
    mean = LinearModel(
        np.mean([model.coef for model in models], axis=0),
        np.mean([model.intercept for model in models], axis=0),
    )
    return ridge.predict(by_part), mean, np.array(penalties)[np.array(chosen)]


def check_penalties(penalties: Sequence[float]) -> list[float]:
    """Return the candidates, the weakest first."""
    check_positive_numbers("penalties", penalties)
    return sorted(float(penalty) for penalty in penalties)


def _best_penalties(errors: FloatArray) -> IntArray:
    """Return the row of the smallest error in each column; of equally good rows the last."""
    last_first: IntArray = errors[::-1].argmin(axis=0)
    return len(errors) - 1 - last_first


def _fit_chosen(
    ridge: FoldRidge,
    subset: tuple[int, ...],
    penalties: Sequence[float],
    chosen: IntArray,
    targets: slice = slice(None),
) -> LinearModel:
    """Train on some folds with each target's own penalty."""
    distinct = sorted(set(chosen.tolist()))
    models = ridge.fit(subset, [penalties[index] for index in distinct], targets)
    coefs, intercepts = [], []
    for target, index in enumerate(chosen.tolist()):
        model = models[distinct.index(index)]
        coefs.append(model.coef[:, target])
        intercepts.append(model.intercept[target])
    return LinearModel(np.column_stack(coefs), np.array(intercepts))
