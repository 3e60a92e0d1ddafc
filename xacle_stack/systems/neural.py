"""What the systems that train a network share as estimators."""

from __future__ import annotations

import logging
from abc import abstractmethod
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._optional import require
from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import group_labels, row_weights
from xacle_stack.encoders.device import resolve_devices
from xacle_stack.errors import ModelFileError, StackingError, XacleStackError
from xacle_stack.systems.pair_columns import check_halves
from xacle_stack.systems.plan import TrainingPlan
from xacle_stack.systems.training import (
    Examples,
    Inputs,
    Module,
    Tensor,
    load_network,
    predict,
    train,
)

logger = logging.getLogger(__name__)

# Fewer rows than this choose no epoch that is better than another.
LEAST_HELD_OUT = 10
# Arrays of a network; the largest in use has a tenth of that.
_MAX_WEIGHTS = 4096
# Of a layer; the widest in use has a thirtieth of that.
_MAX_WIDTH = 2**17


class NeuralRegressor(RegressorMixin, BaseEstimator):
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
    weights_: dict[str, Any]
    # The settings that are lengths of the network's arrays.
    _sizes: ClassVar[tuple[str, ...]] = ()

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
            Pairs to choose the epoch on, of weight 1 each.  By default `validation_fraction` of the
            training rows, ten at least, is held out for that, in whole groups.  A group that would
            make them more than twice as many is trained on; where fewer than ten rows would be held
            out or left, the epoch is chosen on the rows that are trained on, and that is logged.

        Returns
        -------
        self : NeuralRegressor

        Raises
        ------
        StackingError
            If a setting, the weights or `eval_set` are unusable, X is a feature table whose columns
            nobody has named, or predictions are not finite after the first epoch.  What was fitted
            before is lost then.
        MissingExtraError
            If PyTorch, or timm for LARS, is not installed.
        """
        if hasattr(self, "weights_"):
            del self.weights_
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
        if eval_set is None:
            labels = group_labels(len(scores), groups)
            rows, held_out = _hold_out(rows, labels, self.validation_fraction, rng)
            validation = self._examples(inputs, held_out, scores, weights)
            of_validation, validation_weights = scores[held_out], weights[held_out]
        else:
            other, of_validation = self._check_eval_set(eval_set)
            validation_weights = np.ones(len(other))
            validation = self._examples(
                self._inputs(other, device),
                np.arange(len(other)),
                of_validation,
                validation_weights,
            )
        examples = self._examples(inputs, rows, scores, weights)
        if not examples.weights.any():
            raise StackingError(
                "every row that is trained on has the weight 0 in the loss, its score being so "
                "low: nothing would be learned. Use score_weighting=0, 1 or 2, which weigh all."
            )
        trained = train(
            self._build,
            self._loss,
            self._plan(),
            examples,
            validation,
            seed=int(rng.randint(2**31 - 1)),
            device=device,
            title=type(self).__name__,
            shown=self.verbose,
        )
        self.n_parameters_ = trained.n_parameters
        self.best_epoch_ = trained.best_epoch
        self.validation_srcc_ = trained.validation_srcc
        self.validation_loss_ = trained.validation_loss
        self.was_interrupted_ = trained.was_interrupted
        network = load_network(self._build, trained.weights, device)
        predicted = predict(network, validation.inputs, validation.rows)
        self._finish(predicted, of_validation, validation_weights)
        self.weights_ = trained.weights  # last: without it nothing is fitted
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the scores of pairs, shape (n_pairs,).

        A pair's score depends on its own row only, but for rounding, about 1e-6 of it.
        """
        check_is_fitted(self, "weights_")
        self._check_network()
        table, _ = self._check_pairs(X, None, reset=False)
        device = resolve_devices(self.device)[0]
        network = load_network(self._build, self.weights_, device)
        predicted = predict(network, self._inputs(table, device), np.arange(len(table)))
        return self._to_scores(predicted.astype(np.float64))

    def check_state(self) -> None:
        """Check weights that come from a file, and the settings that say how large the network is.

        Raises
        ------
        ModelFileError
            If weights are no numbers, a setting is larger than any of their lengths, or another
            number of parts is set than there are weights of.
        """
        weights = self.weights_
        if not isinstance(weights, dict) or not 0 < len(weights) <= _MAX_WEIGHTS:
            raise ModelFileError(f"weights_ is no dict of up to {_MAX_WEIGHTS} arrays.")
        lengths = [1]
        for name, array in weights.items():
            check_numbers(f"weights_[{name!r}]", array, (None,) * np.ndim(array))
            lengths += np.shape(array)
        if max(lengths) > _MAX_WIDTH:  # a prediction makes as many numbers of each row
            raise ModelFileError(
                f"weights_ has a length of {max(lengths)}, the most is {_MAX_WIDTH}."
            )
        if not isinstance(self.device, str):
            raise ModelFileError(f"device is {self.device!r}, expected a name such as 'cpu'.")
        for name in self._sizes:
            size = getattr(self, name)
            if size is not None and (
                not isinstance(size, Integral) or not 0 < int(size) <= max(lengths)
            ):
                raise ModelFileError(f"{name} is {size!r}, but weights_ has no such length.")

    def _check_repeated(self, name: str, n_parts: object, prefix: str) -> None:
        """Check the number of parts that a setting asks for against the weights' names."""
        found = {
            key.removeprefix(prefix).partition(".")[0]
            for key in self.weights_
            if key.startswith(prefix)
        }
        if not isinstance(n_parts, Integral) or n_parts != len(found):
            raise ModelFileError(
                f"{name}: {n_parts!r} parts, but weights_ has {len(found)} called {prefix}*."
            )

    def _check_network(self) -> None:
        """Check that the weights are those of the network that the settings make."""
        self.check_state()
        torch = require("torch", extra="neural", purpose=type(self).__name__)
        try:
            with torch.device("meta"):  # it has shapes, and takes no memory
                network = self._build()
        except XacleStackError:
            raise
        except Exception as error:
            raise ModelFileError(f"its settings make no network: {error}.") from error
        wanted = {name: tuple(x.shape) for name, x in network.state_dict().items()}
        found = {name: np.shape(array) for name, array in self.weights_.items()}
        if found != wanted:
            name = min(found.items() ^ wanted.items())[0]
            raise ModelFileError(
                f"weights_[{name!r}] has shape {found.get(name)}, expected {wanted.get(name)}."
            )
        for name, x in network.state_dict().items():
            dtype = str(x.dtype).removeprefix("torch.")
            if (
                not isinstance(self.weights_[name], np.ndarray)
                or self.weights_[name].dtype != dtype
            ):
                raise ModelFileError(f"weights_[{name!r}] is no array of {dtype}.")

    def _check_pairs(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, FloatArray | None]:
        """Return X and y checked; with `reset` X is what the network is made for."""
        if self._named_columns is None:
            check_halves(X)
        if not reset:
            return validate_data(self, X, reset=False, dtype=np.float32), None
        table, scores = validate_data(
            self, X, y, y_numeric=True, ensure_min_samples=2, dtype=np.float32
        )
        return table, scores.astype(np.float64)

    @property
    def _named_columns(self) -> object:
        """What says which columns are the clip's and the caption's; None for the halves."""
        return getattr(self, "audio", None)

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

    def _score_weights(self, scores: FloatArray, rows: IntArray) -> FloatArray:
        """Return weights that the scores decide, of the rows that are trained or validated on."""
        return np.ones(len(rows))

    def _finish(self, predicted: FloatArray, scores: FloatArray, weights: FloatArray) -> None:
        """Learn from what the trained network gives the validation pairs; `weights` are theirs."""

    def _to_scores(self, predicted: FloatArray) -> FloatArray:
        """Return the scores that the network's outputs stand for."""
        return predicted

    def _examples(
        self, inputs: Inputs, rows: IntArray, scores: FloatArray, weights: FloatArray
    ) -> Examples:
        """Return some rows of a table; the others are as if they were absent."""
        loss_weights = weights[rows] * self._score_weights(scores, rows)
        return Examples(inputs, rows, self._targets(scores[rows]), loss_weights)

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
    """Split rows at random, groups kept whole; where too few are held out or left, not at all.

    Groups are drawn until `fraction` of the rows, ten at least, is held out.  One that would make
    them more than twice as many is passed over.
    """
    _, group_of, sizes = np.unique(labels[rows], return_inverse=True, return_counts=True)
    wanted = max(LEAST_HELD_OUT, round(fraction * len(rows)))
    drawn, n_held_out = [], 0
    for group in rng.permutation(len(sizes)):
        if n_held_out >= wanted:
            break
        if n_held_out + sizes[group] <= 2 * wanted:
            drawn.append(group)
            n_held_out += sizes[group]
    if n_held_out < LEAST_HELD_OUT or len(rows) - n_held_out < LEAST_HELD_OUT:
        logger.warning(
            "No rows are held out, %d in %d groups being too few to hold out %d and keep %d: the "
            "epoch is chosen on the rows that are trained on. Give eval_set for a better choice.",
            len(rows),
            len(sizes),
            LEAST_HELD_OUT,
            LEAST_HELD_OUT,
        )
        return rows, rows
    held_out = np.isin(group_of, drawn)
    return rows[~held_out], rows[held_out]
