"""Ridge regression over a path of penalties, the penalty chosen on held-out groups.

Formula: with standardised columns X (n × p), centred targets Y and one eigendecomposition
``XᵀX = V diag(s) Vᵀ``, every penalty λ costs two small products:
``W(λ) = V diag(1 / (s + λ)) Vᵀ XᵀY``.  Where rows are fewer than columns the decomposition is
that of ``X Xᵀ`` (n × n): ``W(λ) = Xᵀ U diag(1 / (s + λ)) Uᵀ Y``.  All targets share it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError
from xacle_stack.stacking.folds import group_labels, split_folds

PENALTIES = tuple(float(penalty) for penalty in np.logspace(1, 6, 11))


@dataclass(frozen=True, eq=False)
class RidgePath:
    """The decomposition of one training set; gives predictions for any penalty.

    Made by :func:`fit_ridge_path`.
    """

    x_mean: FloatArray
    y_mean: FloatArray
    basis: FloatArray
    eigenvalues: FloatArray
    rotated: FloatArray

    def coefficients(self, penalty: float) -> FloatArray:
        """Return the weights of the standardised columns, shape (n_features, n_targets)."""
        return self.basis @ (self.rotated / (self.eigenvalues + penalty)[:, np.newaxis])

    def predict(self, X: FloatArray, penalties: Sequence[float]) -> FloatArray:
        """Return predictions of shape (n_penalties, n_rows, n_targets)."""
        projected = (X - self.x_mean) @ self.basis
        return np.stack(
            [
                projected @ (self.rotated / (self.eigenvalues + penalty)[:, np.newaxis])
                + self.y_mean
                for penalty in penalties
            ]
        )


def fit_ridge_path(X: FloatArray, Y: FloatArray) -> RidgePath:
    """Decompose a training set for all penalties and targets.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features)
        float64.
    Y : ndarray of shape (n_rows, n_targets)
        float64.

    Returns
    -------
    path : RidgePath
        The intercept is not penalised.

    Examples
    --------
    >>> path = fit_ridge_path(np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [2.0], [4.0]]))
    >>> path.coefficients(2.0)
    array([[1.]])
    """
    x_mean, y_mean = X.mean(axis=0), Y.mean(axis=0)
    X, Y = X - x_mean, Y - y_mean
    if len(X) >= X.shape[1]:
        eigenvalues, basis = np.linalg.eigh(X.T @ X)
        rotated = basis.T @ (X.T @ Y)
    else:
        eigenvalues, vectors = np.linalg.eigh(X @ X.T)
        basis, rotated = X.T @ vectors, vectors.T @ Y
    # Rounding leaves eigenvalues a little below zero.
    return RidgePath(x_mean, y_mean, basis, np.maximum(eigenvalues, 0.0), rotated)


class GroupedRidge(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """Ridge on standardised columns; each target's penalty has the least held-out error.

    The penalty is chosen by cross-validation within the rows given to `fit`, groups kept
    together, then all rows are used.  The columns' means and scales are those of all rows given.

    Parameters
    ----------
    penalties : sequence of float, default=PENALTIES
        Candidates, each above zero, for columns of unit variance.  The default is eleven from
        1e1 to 1e6.
    n_splits : int, default=3
        Folds of the choice; fewer where there are fewer groups.
    random_state : int, RandomState or None, default=0
        Of those folds.

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
    ) -> None:
        self.penalties = penalties
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Choose the penalties and fit.

        Parameters
        ----------
        X : array-like of shape (n_pairs, n_features)
        y : array-like of shape (n_pairs,) or (n_pairs, n_targets)
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are never on both sides of a fold.

        Returns
        -------
        self : GroupedRidge

        Raises
        ------
        StackingError
            If there are fewer than two groups, or a penalty is not above zero.
        """
        table: FloatArray
        targets: FloatArray
        table, targets = validate_data(
            self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=2, dtype=np.float64
        )
        penalties = sorted(float(penalty) for penalty in self.penalties)
        if not penalties or not all(0 < penalty < np.inf for penalty in penalties):
            raise StackingError(f"penalties must be numbers above 0, got {self.penalties!r}.")
        Y = targets.astype(np.float64).reshape(len(table), -1)
        mean, scale = table.mean(axis=0), table.std(axis=0)
        # A constant column: rounding may leave it a scale of a few ulps instead of zero.
        scale = np.where(scale > 1e-7 * np.abs(mean), scale, np.inf)
        Z = (table - mean) / scale
        n_groups = int(group_labels(len(Z), groups).max()) + 1
        errors = np.zeros((len(penalties), Y.shape[1]))
        for train, held_out in split_folds(
            len(Z), groups, max(2, min(self.n_splits, n_groups)), self.random_state
        ):
            predicted = fit_ridge_path(Z[train], Y[train]).predict(Z[held_out], penalties)
            errors += np.square(predicted - Y[held_out]).sum(axis=1)
        self.cv_mse_ = errors / len(Z)
        # Of equally good candidates the strongest.
        chosen = len(penalties) - 1 - self.cv_mse_[::-1].argmin(axis=0)
        self.penalty_ = np.array(penalties)[chosen]
        path = fit_ridge_path(Z, Y)
        coefficients = np.column_stack(
            [path.coefficients(penalty)[:, t] for t, penalty in enumerate(self.penalty_)]
        )
        coef = (coefficients / scale[:, np.newaxis]).T
        intercept = path.y_mean - coef @ mean
        one_target = targets.ndim == 1
        self.coef_: FloatArray = coef[0] if one_target else coef
        self.intercept_: FloatArray | float = float(intercept[0]) if one_target else intercept
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return predictions of shape (n_pairs,) or (n_pairs, n_targets)."""
        check_is_fitted(self)
        table: FloatArray = validate_data(self, X, reset=False, dtype=np.float64)
        predicted: FloatArray = table @ self.coef_.T + self.intercept_
        return predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
