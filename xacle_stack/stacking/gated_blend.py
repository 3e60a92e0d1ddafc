"""A meta-regressor whose weights depend on the pair: a ridge, and a gate that moves its weights.

Source: MoEScore (arXiv 2601.06829) weighs the scores of its experts by a gate that sees their
features.  Here the experts are the level-0 learners, and the gate sees frozen agreement features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_whole_number, group_labels, row_weights
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.stacking.folds import split_folds
from xacle_stack.stacking.ridge import META_PENALTIES, GroupedRidge, check_penalties

GATE_PENALTIES = tuple(float(penalty) for penalty in np.logspace(0, 5, 11))
_MAX_ITERATIONS = 300


class GatedBlend(RegressorMixin, BaseEstimator):
    """Predictions blended by a ridge, whose weights a gate moves from pair to pair.

    For standardised predictions uⱼ of m learners and gate inputs z, a pair's score is
    ``ridge(u) + σ Σⱼ (softmax(A z)ⱼ − 1/m) uⱼ``, with σ the standard deviation of the scores.  The
    gate takes weight from some learners and gives it to others; without it, A = 0, the score is the
    ridge's.  The inputs are the columns of `context`, and of u the mean and the standard deviation
    over the learners: how far they disagree.

    The ridge is fitted first.  Then A minimises the squared error and an L2 penalty, which is
    chosen on held-out groups; where no penalty is better than the ridge alone, A is zero.

    Parameters
    ----------
    context_blocks : sequence of str
        The blocks of a feature table whose columns a :class:`Stacker` gives as `context`, as far as
        the table has them.  By default the spaces' cosines and their differences.
    penalties : sequence of float, default=GATE_PENALTIES
        Candidates, each above zero.  The default is eleven from 1 to 1e5.
    n_splits : int, default=3
        The number of folds by which penalties are chosen; fewer where there are fewer groups.
    random_state : int, RandomState or None, default=0
        Seeds those folds.

    Attributes
    ----------
    ridge_ : GroupedRidge
    gate_ : ndarray of shape (n_learners, n_inputs)
        A, whose last two columns belong to the mean and the disagreement.
    penalty_ : float
        The penalty of the gate; infinite if A is zero.
    cv_mse_ : ndarray of shape (n_penalties + 1,)
        Held-out mean squared error of each candidate, the weakest first and the ridge alone last.
    coef_ : ndarray of shape (n_learners,)
        The learners' mean weights over the training pairs, in the units of the columns given.
    mean_, factor_ : ndarray of shape (n_learners,)
        They standardise the predictions: ``(X - mean_) * factor_``.
    input_mean_, input_factor_ : ndarray of shape (n_inputs,)
        They standardise the inputs of the gate.
    scale_ : float
        σ

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth, side = rng.normal(size=300), rng.normal(size=(300, 1))
    >>> noise = rng.normal(size=(300, 2)) * np.column_stack([side > 0, side < 0])
    >>> X = truth[:, np.newaxis] + noise  # on each side, one of the learners is right
    >>> blend = GatedBlend().fit(X, truth, context=side)
    >>> both = np.array([[1.0, 2.0], [1.0, 2.0]])
    >>> blend.predict(both, [[-2.0], [2.0]]).round() + 0.0
    array([1., 2.])
    """

    def __init__(
        self,
        context_blocks: Sequence[str] = ("agreement/cosines", "agreement/cosine differences"),
        penalties: Sequence[float] = GATE_PENALTIES,
        n_splits: int = 3,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.context_blocks = context_blocks
        self.penalties = penalties
        self.n_splits = n_splits
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        context: ArrayLike | None = None,
    ) -> Self:
        """Fit the ridge, choose the gate's penalty and fit the gate.

        Parameters
        ----------
        X : array-like of shape (n_pairs, n_learners)
            The learners' predictions.
        y : array-like of shape (n_pairs,)
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are never on both sides of a fold.
        sample_weight : array-like of shape (n_pairs,), optional
            A row of weight 2 counts as two rows.
        context : array-like of shape (n_pairs, n_context), optional
            What else the gate sees of the pairs.

        Raises
        ------
        StackingError
            If there are fewer than two groups, a setting is unusable, the weights leave nothing to
            train on, or there is not one row of context for each pair.
        """
        values, scores = validate_data(
            self, X, y, y_numeric=True, ensure_min_samples=2, dtype=np.float64
        )
        scores = scores.astype(np.float64)
        seen = _checked_context(context, len(values), None)
        weights = row_weights(len(values), sample_weight)
        penalties = check_penalties(self.penalties)
        check_whole_number("n_splits", self.n_splits, minimum=2)
        labels = None if groups is None else group_labels(len(values), groups)
        n_groups = len(values) if labels is None else int(labels.max()) + 1
        n_folds = max(2, min(self.n_splits, n_groups))

        errors = np.zeros(len(penalties) + 1)
        for train, held_out in split_folds(len(values), labels, n_folds, self.random_state):
            self._prepare(values, scores, labels, weights, seen, train)
            for index, gate in self._gates(values, scores, weights, seen, train, penalties):
                self.gate_: FloatArray = gate
                predicted = self._predict(values[held_out], seen[held_out])
                missed = np.square(scores[held_out] - predicted)
                errors[index] += float(weights[held_out] @ missed)
        self.cv_mse_: FloatArray = errors / weights.sum()
        # Of equally good candidates the strongest is taken.
        chosen = len(penalties) - int(self.cv_mse_[::-1].argmin())
        self.penalty_ = [*penalties, np.inf][chosen]

        every = np.arange(len(values))
        self._prepare(values, scores, labels, weights, seen, every)
        candidates = [penalties[chosen]] if chosen < len(penalties) else []
        _, self.gate_ = self._gates(values, scores, weights, seen, every, candidates)[-1]
        self.coef_: FloatArray = np.average(self._weights(values, seen), axis=0, weights=weights)
        return self

    def predict(self, X: ArrayLike, context: ArrayLike | None = None) -> FloatArray:
        """Return predictions of shape (n_pairs,); `context` is as in `fit`."""
        return self._predict(*self._checked(X, context))

    def contributions(self, X: ArrayLike, context: ArrayLike | None = None) -> FloatArray:
        """Return what each learner adds to each prediction, of shape (n_pairs, n_learners).

        Their sum over the learners is the prediction less a constant.
        """
        values, seen = self._checked(X, context)
        contributions: FloatArray = self._weights(values, seen) * (values - self.mean_)
        return contributions

    def check_state(self) -> None:
        """Check that numbers from a file are finite and fit together, or raise a ModelFileError."""
        n_learners = self.n_features_in_
        check_numbers("gate_", self.gate_, (n_learners, None))
        n_inputs = self.gate_.shape[1]
        if n_inputs < 2:
            raise ModelFileError(f"gate_ has {n_inputs} columns, expected 2 or more.")
        for name, length in (
            *((name, n_learners) for name in ("mean_", "factor_", "coef_")),
            *((name, n_inputs) for name in ("input_mean_", "input_factor_")),
        ):
            check_numbers(name, getattr(self, name), (length,))
        check_numbers("scale_", self.scale_, ())
        if type(self.ridge_) is not GroupedRidge or self.ridge_.n_features_in_ != n_learners:
            raise ModelFileError("ridge_ is no ridge on the learners.")
        self.ridge_.check_state()

    def _checked(self, X: ArrayLike, context: ArrayLike | None) -> tuple[FloatArray, FloatArray]:
        check_is_fitted(self)
        values = validate_data(self, X, reset=False, dtype=np.float64)
        return values, _checked_context(context, len(values), self.gate_.shape[1] - 2)

    def _prepare(
        self,
        values: FloatArray,
        scores: FloatArray,
        groups: IntArray | None,
        weights: FloatArray,
        context: FloatArray,
        rows: IntArray,
    ) -> None:
        """Fit the ridge, and learn means and scales, on some rows."""
        values, weights = values[rows], weights[rows]
        self.ridge_ = GroupedRidge(META_PENALTIES, self.n_splits, self.random_state).fit(
            values, scores[rows], None if groups is None else groups[rows], weights
        )
        self.mean_, self.factor_ = _standardisation(values, weights)
        inputs = self._raw_inputs(values, context[rows])
        self.input_mean_, self.input_factor_ = _standardisation(inputs, weights)
        mean = np.average(scores[rows], weights=weights)
        self.scale_ = float(np.sqrt(np.average((scores[rows] - mean) ** 2, weights=weights)))

    def _raw_inputs(self, values: FloatArray, context: FloatArray) -> FloatArray:
        u = (values - self.mean_) * self.factor_
        return np.column_stack([context, u.mean(axis=1), u.std(axis=1)])

    def _inputs(self, values: FloatArray, context: FloatArray) -> FloatArray:
        inputs: FloatArray = self._raw_inputs(values, context) - self.input_mean_
        return inputs * self.input_factor_

    def _gates(
        self,
        values: FloatArray,
        scores: FloatArray,
        weights: FloatArray,
        context: FloatArray,
        rows: IntArray,
        penalties: Sequence[float],
    ) -> list[tuple[int, FloatArray]]:
        """Return the gate of each penalty by its number, from no gate to the weakest penalty.

        Each begins where the one before it ended.
        """
        u = (values[rows] - self.mean_) * self.factor_
        z = self._inputs(values[rows], context[rows])
        residuals = (scores[rows] - self.ridge_.predict(values[rows])) / (self.scale_ or 1.0)
        gates = [(len(penalties), np.zeros((u.shape[1], z.shape[1])))]
        for index in reversed(range(len(penalties))):
            found = minimize(
                gate_loss,
                gates[-1][1].ravel(),
                (u, z, residuals, weights[rows], penalties[index]),
                method="L-BFGS-B",
                jac=True,
                options={"maxiter": _MAX_ITERATIONS},
            )
            gates.append((index, found.x.reshape(u.shape[1], -1)))
        return gates

    def _weights(self, values: FloatArray, context: FloatArray) -> FloatArray:
        """Return the weights of the learners for each pair, (n_pairs, n_learners)."""
        moved = softmax(self._inputs(values, context) @ self.gate_.T, axis=1) - 1 / len(self.gate_)
        weights: FloatArray = self.ridge_.coef_ + self.scale_ * self.factor_ * moved
        return weights

    def _predict(self, values: FloatArray, context: FloatArray) -> FloatArray:
        at_mean = float(self.ridge_.intercept_) + self.mean_ @ self.ridge_.coef_
        predicted: FloatArray = at_mean + np.einsum(
            "nm,nm->n", self._weights(values, context), values - self.mean_
        )
        return predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def gate_loss(
    gate: FloatArray,
    u: FloatArray,
    z: FloatArray,
    residuals: FloatArray,
    weights: FloatArray,
    penalty: float,
) -> tuple[float, FloatArray]:
    """Return the penalised squared error of a gate, and its gradient.

    With p = softmax(A z) the error of a pair is ``e = r − Σⱼ (pⱼ − 1/m) uⱼ``, and the derivative of
    e by the j-th input of the softmax is ``−pⱼ (uⱼ − Σₖ pₖ uₖ)``.

    Parameters
    ----------
    gate : ndarray of shape (n_learners * n_inputs,)
        A, row by row.
    u : ndarray of shape (n_pairs, n_learners)
        Standardised predictions.
    z : ndarray of shape (n_pairs, n_inputs)
    residuals, weights : ndarray of shape (n_pairs,)
        What the ridge leaves to be explained, and how much each pair counts.
    penalty : float

    Returns
    -------
    loss : float
    gradient : ndarray of shape (n_learners * n_inputs,)

    Examples
    --------
    >>> one = np.ones((1, 1))
    >>> gate_loss(np.zeros(1), one, one, np.array([2.0]), np.ones(1), 1.0)
    (4.0, array([0.]))
    """
    A = gate.reshape(u.shape[1], -1)
    p = softmax(z @ A.T, axis=1)
    errors = residuals - ((p - 1 / len(A)) * u).sum(axis=1)
    slopes = p * (u - (p * u).sum(axis=1, keepdims=True))
    gradient = -2 * ((weights * errors)[:, np.newaxis] * slopes).T @ z + 2 * penalty * A
    return float(weights @ errors**2 + penalty * (gate @ gate)), gradient.ravel()


def _standardisation(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the means of columns and one over their deviations, zero where they are constant."""
    mean: FloatArray = np.average(values, axis=0, weights=weights)
    deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
    constant = deviation <= 1e-12 * np.abs(mean)
    return mean, np.where(constant, 0.0, 1 / np.where(constant, 1.0, deviation))


def _checked_context(context: ArrayLike | None, n_pairs: int, n_columns: int | None) -> FloatArray:
    """Return context as an array; `n_columns` is how many columns it had in `fit`."""
    if context is None:
        seen: FloatArray = np.empty((n_pairs, 0))
    else:
        seen = check_array(context, dtype=np.float64, ensure_min_features=0, input_name="context")
    expected = (n_pairs, seen.shape[1] if n_columns is None else n_columns)
    if seen.shape != expected:
        raise StackingError(f"context has shape {seen.shape}, expected {expected}.")
    return seen
