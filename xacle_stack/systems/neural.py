"""What the systems that train a network share as estimators."""

from abc import abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.encoders.device import resolve_devices
from xacle_stack.errors import StackingError
from xacle_stack.stacking.folds import group_labels, row_weights
from xacle_stack.systems.training import (
    Examples,
    Inputs,
    Module,
    Tensor,
    TrainingPlan,
    load_network,
    predict,
    train,
)

# Fewer rows than this choose no epoch that is better than another.
LEAST_HELD_OUT = 10


class NeuralRegressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """A regressor whose network is trained by :func:`~xacle_stack.systems.training.train`.

    After `fit` the network is arrays only, so that it is saved and loaded without running anything.
    A subclass stores `validation_fraction`, `device`, `verbose` and `random_state`, and says
    what its network is (`_build`), takes (`_inputs`), minimises (`_loss`) and how it is trained
    (`_plan`).

    Attributes
    ----------
    weights_ : dict of str to ndarray
        The network after its best epoch.
    n_parameters_ : int
        Trained numbers.
    best_epoch_ : int
        From 1.
    validation_srcc_, validation_loss_ : ndarray of shape (n_epochs,)
        After each epoch; an SRCC is NaN where it is undefined.
    was_interrupted_ : bool
        Whether Ctrl-C ended the training, with the best epoch until then.
    """

    validation_fraction: float
    device: str
    verbose: bool
    random_state: int | np.random.RandomState | None

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like of shape (n_pairs, n_features)
        y : array-like of shape (n_pairs,)
            Scores.
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are held out together.
        sample_weight : array-like of shape (n_pairs,), optional
            Multiplies each row's part of the loss.  A row of weight 0 is as if it were absent; one
            of weight 2 counts as two rows in the loss, but it is drawn once and it is one row to
            whatever else a batch decides, so that it is not the same as a row given twice.
        eval_set : (X, y), optional
            Pairs to choose the epoch on.  By default `validation_fraction` of the training rows,
            in whole groups, is held out for that; where that would leave fewer than ten rows,
            the epoch is chosen on the rows that are trained on.

        Returns
        -------
        self : NeuralRegressor

        Raises
        ------
        StackingError
            If a setting, the weights or `eval_set` are unusable, or training diverges.
        MissingExtraError
            If PyTorch, or timm for LARS, is not installed.
        """
        table, scores = self._check_pairs(X, y, reset=True)
        if scores is None:
            raise StackingError("there are no scores to fit on: y is None.")
        weights = row_weights(len(scores), sample_weight)
        rows = np.flatnonzero(weights)
        if len(rows) < 2:
            raise StackingError("sample_weight: only one weight is above zero; give two or more.")
        if not 0 < self.validation_fraction < 1:
            raise StackingError(
                f"validation_fraction must lie between 0 and 1, got {self.validation_fraction!r}."
            )
        device = resolve_devices(self.device)[0]
        self._prepare(table, scores, weights)
        rng = check_random_state(self.random_state)
        inputs = self._inputs(table, device)
        targets, loss_weights = self._targets(scores), weights * self._score_weights(scores)
        if eval_set is None:
            labels = group_labels(len(scores), groups)
            rows, held_out = _hold_out(rows, labels, self.validation_fraction, rng)
            validation = Examples(inputs, held_out, targets[held_out], loss_weights[held_out])
            of_validation = scores[held_out]
        else:
            other, of_validation = self._check_eval_set(eval_set)
            validation = Examples(
                self._inputs(other, device),
                np.arange(len(other)),
                self._targets(of_validation),
                self._score_weights(of_validation),
            )
        trained = train(
            self._build,
            self._loss,
            self._plan(),
            Examples(inputs, rows, targets[rows], loss_weights[rows]),
            validation,
            seed=int(rng.randint(2**31 - 1)),
            device=device,
            title=type(self).__name__,
            shown=self.verbose,
        )
        self.weights_ = trained.weights
        self.n_parameters_ = trained.n_parameters
        self.best_epoch_ = trained.best_epoch
        self.validation_srcc_ = trained.validation_srcc
        self.validation_loss_ = trained.validation_loss
        self.was_interrupted_ = trained.was_interrupted
        network = load_network(self._build, self.weights_, device)
        self._finish(predict(network, validation.inputs, validation.rows), of_validation)
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the scores of pairs, shape (n_pairs,).

        A pair's score depends on its own row only, but for rounding, about 1e-6 of it.
        """
        check_is_fitted(self)
        table, _ = self._check_pairs(X, None, reset=False)
        device = resolve_devices(self.device)[0]
        network = load_network(self._build, self.weights_, device)
        predicted = predict(network, self._inputs(table, device), np.arange(len(table)))
        return self._to_scores(predicted.astype(np.float64))

    def _check_pairs(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, FloatArray | None]:
        """Return X and y checked; with `reset` X is what the network is made for."""
        if not reset:
            return validate_data(self, X, reset=False, dtype=np.float32), None
        table, scores = validate_data(
            self, X, y, y_numeric=True, ensure_min_samples=2, dtype=np.float32
        )
        return table, scores.astype(np.float64)

    @abstractmethod
    def _prepare(self, table: FloatArray, scores: FloatArray, weights: FloatArray) -> None:
        """Check the settings against the data, and learn what is not learned by gradient."""

    @abstractmethod
    def _build(self) -> Module:
        """Return a new network for the table given to `fit`."""

    @abstractmethod
    def _plan(self) -> TrainingPlan:
        """Return how it is trained."""

    @abstractmethod
    def _inputs(self, table: FloatArray, device: str) -> Inputs:
        """Return what makes the network's input of row numbers."""

    @abstractmethod
    def _loss(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Return what is minimised."""

    def _targets(self, scores: FloatArray) -> FloatArray:
        """Return what the network is trained to give."""
        return scores

    def _score_weights(self, scores: FloatArray) -> FloatArray:
        """Return weights that the scores decide."""
        return np.ones(len(scores))

    def _finish(self, predicted: FloatArray, scores: FloatArray) -> None:
        """Learn from what the trained network gives the validation pairs."""

    def _to_scores(self, predicted: FloatArray) -> FloatArray:
        """Return the scores that the network's outputs stand for."""
        return predicted

    def _check_eval_set(self, eval_set: Any) -> tuple[FloatArray, FloatArray]:
        if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
            raise StackingError(
                "eval_set: expected a pair (X, y) of validation columns and scores."
            )
        X, y = eval_set
        if y is None:
            raise StackingError(
                "eval_set has no scores, so it cannot choose the epoch. Leave it out: then "
                f"{self.validation_fraction:.0%} of the training rows are held out for that."
            )
        table, _ = self._check_pairs(X, None, reset=False)
        return table, check_scores(y, len(table), "eval_set: ")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.device != "cpu"
        return tags


def check_scores(y: ArrayLike, n_pairs: int, where: str = "") -> FloatArray:
    """Return the scores of pairs as float64; two or more, one for each."""
    scores: FloatArray = column_or_1d(
        check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    )
    if len(scores) != n_pairs or n_pairs < 2:
        raise StackingError(
            f"{where}{len(scores)} scores for {n_pairs} pairs; expected one for each, and two "
            "pairs or more."
        )
    return scores


def _hold_out(
    rows: IntArray, labels: IntArray, fraction: float, rng: np.random.RandomState
) -> tuple[IntArray, IntArray]:
    """Split rows at random, groups kept whole; where too few would be held out, not at all."""
    groups = np.unique(labels[rows])
    n_held_out = max(1, round(fraction * len(groups)))
    held_out = np.isin(labels[rows], rng.permutation(groups)[:n_held_out])
    if held_out.sum() < LEAST_HELD_OUT or (~held_out).sum() < LEAST_HELD_OUT:
        return rows, rows
    return rows[~held_out], rows[held_out]
