"""What the systems that train a network share as estimators."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xacle_stack._optional import require
from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_scores, group_labels, row_weights
from xacle_stack.encoders.device import resolve_devices
from xacle_stack.errors import ModelFileError, StackingError, XacleStackError
from xacle_stack.systems.checkpoints import TrainingCheckpoint
from xacle_stack.systems.plan import Schedule, TrainingPlan
from xacle_stack.systems.space_vectors import check_vectors_state, validate_pairs
from xacle_stack.systems.training import (
    Examples,
    Inputs,
    Module,
    Tensor,
    load_network,
    predict,
    train,
)
from xacle_stack.table import FeatureTable

logger = logging.getLogger(__name__)

# The order of fewer rows says too little to choose an epoch by.
MIN_HELD_OUT = 10
# Ten times as many arrays as the largest network in use has.
_MAX_WEIGHTS = 4096


class NeuralRegressor(RegressorMixin, BaseEstimator):
    """A regressor whose network is trained by :func:`~xacle_stack.systems.training.train`.

    After `fit` the network is arrays only, so that it is saved and loaded without running anything.
    A subclass stores `validation_fraction`, `device`, `verbose`, `random_state` and settings of a
    :class:`~xacle_stack.systems.plan.TrainingPlan`.  It reads the pairs (`_read`) and defines the
    network (`_build`) and what that takes (`_inputs`) and minimises (`_loss`).

    Attributes
    ----------
    weights_ : dict of str to ndarray
        The network after its best epoch.
    n_parameters_ : int
        How many numbers are trained.
    best_epoch_ : int
        Counted from 1.
    validation_srcc_, validation_loss_ : ndarray of shape (n_epochs,)
        After each epoch; an SRCC is NaN where it is undefined.
    spaces_ : tuple of str
        The spaces that the vectors were found in; empty after a fit on a plain array.
    widths_ : list of (int, int)
        The lengths of the clip's and the caption's vector in each space.
    """

    takes_tables = True

    validation_fraction: float
    device: str
    verbose: bool
    random_state: int | np.random.RandomState | None
    weights_: Mapping[str, Any]
    # The settings that are lengths of the network's arrays.
    _sizes: ClassVar[tuple[str, ...]] = ()
    _schedule: ClassVar[Schedule] = "cosine"
    # Thirty times the width of the widest layer of most networks.
    _max_width: ClassVar[int] = 2**17

    def check_settings(self) -> None:
        """Check the settings, without data and without PyTorch.

        A StackingError has the name of the unusable one, its value and what was expected.
        """
        fraction: Any = self.validation_fraction
        if (
            isinstance(fraction, bool)
            or not isinstance(fraction, Real)
            or not 0 < float(fraction) < 1
        ):
            raise StackingError(f"validation_fraction must lie between 0 and 1, got {fraction!r}.")
        device: Any = self.device
        if not isinstance(device, str):
            raise StackingError(f"device must be a name such as 'cpu' or 'auto', got {device!r}.")
        self._plan()

    def fit(
        self,
        X: FeatureTable | ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[FeatureTable | ArrayLike, ArrayLike] | None = None,
    ) -> Self:
        """Train the network.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, n_features)
            Without names, the clips' vectors are the first half of the columns and the captions'
            the second; the middle one of an odd number of columns belongs to both.
        y : array-like of shape (n_pairs,)
            Scores.
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are held out together.
        sample_weight : array-like of shape (n_pairs,), optional
            Multiplies each row's part of the loss.  A row of weight 0 is as if it were absent.  A
            row of weight 2 counts twice in the loss, but it is drawn once and normalised as one
            row, so that it is not quite the same as a row given twice.
        eval_set : (X, y), optional
            Pairs to choose the epoch on, each of weight 1.  By default a share of the training
            rows, `validation_fraction` and at least ten, is held out for this, in whole groups.  A
            group that would make them more than twice as many is trained on.  If fewer than ten
            rows would be held out or left, the epoch is chosen on the training rows themselves,
            and a warning is logged.

        Raises
        ------
        StackingError
            If a setting, the weights or `eval_set` are unusable, X does not have the vectors, or
            predictions are not finite after the first epoch.
        MissingExtraError
            If PyTorch, or timm for LARS, is not installed.
        KeyboardInterrupt
            If the user ends the training.  After the first epoch the regressor is fitted
            nevertheless, with the best epoch so far.

        Notes
        -----
        A call that raises any other exception leaves the regressor unfitted.
        """
        if hasattr(self, "weights_"):
            del self.weights_
        self.check_settings()
        checked, scores = self._check_pairs(X, y, reset=True)
        weights = row_weights(len(scores), sample_weight)
        rows = np.flatnonzero(weights)
        if len(rows) < 2:
            raise StackingError("sample_weight: only one weight is above zero; give two or more.")
        pairs = self._read(checked, reset=True)
        device = self._devices()[0]
        self._prepare(scores, weights)
        rng = check_random_state(self.random_state)
        inputs = self._inputs(pairs, device)
        if eval_set is None:
            labels = group_labels(len(scores), groups)
            rows, held_out = _hold_out(rows, labels, self.validation_fraction, rng)
            validation = self._examples(inputs, held_out, scores, weights)
            validation_scores, validation_weights = scores[held_out], weights[held_out]
        else:
            other, validation_scores = self._check_eval_set(eval_set)
            validation_weights = np.ones(len(other))
            validation = self._examples(
                self._inputs(self._read(other, reset=False), device),
                np.arange(len(other)),
                validation_scores,
                validation_weights,
            )
        examples = self._examples(inputs, rows, scores, weights)
        if not examples.weights.any():
            raise StackingError(
                "every row that is trained on has the weight 0 in the loss, because its score is "
                "so low: nothing would be learned. Use score_weighting=0, 1 or 2, which give every "
                "score a weight."
            )
        plan, seed = self._plan(), int(rng.randint(2**31 - 1))
        trained = train(
            self._build_to_train,
            self._loss,
            plan,
            examples,
            validation,
            seed=seed,
            devices=self._devices(),
            checkpoint=self._checkpoint(pairs, examples, validation, seed),
            title=type(self).__name__,
            shown=self.verbose,
        )
        self.n_parameters_ = trained.n_parameters
        self.best_epoch_ = trained.best_epoch
        self.validation_srcc_ = trained.validation_srcc
        self.validation_loss_ = trained.validation_loss
        plain = self._plain(trained.weights)
        network = load_network(self._build, plain, device)
        predicted = predict(network, validation.inputs, validation.rows, plan.block_rows)
        self._finish(predicted, validation_scores, validation_weights)
        self.weights_ = plain  # last, because it is what makes the regressor fitted
        if trained.interrupt is not None:
            raise trained.interrupt
        return self

    def predict(self, X: FeatureTable | ArrayLike) -> FloatArray:
        """Return the scores of pairs, shape (n_pairs,).

        A pair's score depends on the other rows only by rounding, about 1e-6 of its value.
        """
        check_is_fitted(self)
        device = self._devices()[0]
        network = self._network(device)
        checked, _ = self._check_pairs(X, None, reset=False)
        inputs = self._inputs(self._read(checked, reset=False), device)
        predicted = predict(network, inputs, np.arange(len(checked)), self._plan().block_rows)
        return self._to_scores(predicted.astype(np.float64))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    def check_state(self) -> None:
        """Check weights that come from a file, and the settings that say how large the network is.

        A ModelFileError says that the weights are not numbers, a setting is larger than any of
        their lengths, or the settings ask for another number of parts than there are weights for.
        """
        check_vectors_state(self)
        weights = self.weights_
        if not isinstance(weights, Mapping) or not 0 < len(weights) <= _MAX_WEIGHTS:
            raise ModelFileError(f"weights_ is no dict of up to {_MAX_WEIGHTS} arrays.")
        lengths = [1]
        for name, array in weights.items():
            check_numbers(f"weights_[{name!r}]", array, (None,) * np.ndim(array))
            lengths += np.shape(array)
        if max(lengths) > self._max_width:  # a prediction makes as many numbers of each row
            raise ModelFileError(
                f"weights_ has a length of {max(lengths)}, the most is {self._max_width}."
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
        """Check that the weights have as many parts as a setting asks for."""
        found = {
            key.removeprefix(prefix).partition(".")[0]
            for key in self.weights_
            if key.startswith(prefix)
        }
        if not isinstance(n_parts, Integral) or n_parts != len(found):
            raise ModelFileError(
                f"{name}: {n_parts!r} parts, but weights_ has {len(found)} called {prefix}*."
            )

    def _network(self, device: str) -> Module:
        """Return the trained network, once its weights are checked."""
        self._check_network()
        return load_network(self._build, self.weights_, device).eval()

    def _check_network(self) -> Module:
        """Check that the weights are those of the network that the settings make.

        It is returned without memory, on the device "meta".
        """
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
        return network

    def _check_pairs(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        """Return X, which has a length afterwards, and the scores; both checked."""
        return validate_pairs(self, X, y, reset=reset, dtype=np.float32)

    @abstractmethod
    def _read(self, X: Any, *, reset: bool) -> Any:
        """Return what the network needs of the pairs; with `reset`, learn its dimensions."""

    def _prepare(self, scores: FloatArray, weights: FloatArray) -> None:
        """Check the settings against the data; learn what is not learned by gradient descent."""

    @abstractmethod
    def _build(self) -> Module:
        """Return a new network for the dimensions that `fit` has found."""

    def _build_to_train(self) -> Module:
        """Return the network as it is before the first step."""
        return self._build()

    def _plain(self, weights: dict[str, Any]) -> Mapping[str, Any]:
        """Return the weights of what `_build` makes from those of what was trained."""
        return weights

    def _devices(self) -> tuple[str, ...]:
        """Return what is trained on; predictions are made on the first."""
        return resolve_devices(self.device)[:1]

    def _checkpoint(
        self, pairs: Any, examples: Examples, validation: Examples, seed: int
    ) -> TrainingCheckpoint | None:
        """Return where the state of the training is kept, if anywhere."""
        return None

    def _plan(self) -> TrainingPlan:
        """Return how the network is trained, by the settings that a plan has as well."""
        names = {field.name for field in fields(TrainingPlan)}
        settings = {k: v for k, v in self.get_params(deep=False).items() if k in names}
        return TrainingPlan(**settings, schedule=self._schedule)

    @abstractmethod
    def _inputs(self, pairs: Any, device: str) -> Inputs:
        """Return a function from row numbers to the network's input, of what `_read` returned."""

    @abstractmethod
    def _loss(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Return what is minimised."""

    def _targets(self, scores: FloatArray) -> FloatArray:
        """Return what the network is trained to give."""
        return scores

    def _score_weights(self, scores: FloatArray, rows: IntArray) -> FloatArray:
        """Return the weights, by their scores, of the rows to train or to validate on."""
        return np.ones(len(rows))

    def _finish(self, predicted: FloatArray, scores: FloatArray, weights: FloatArray) -> None:
        """Learn from the trained network's outputs for the validation pairs."""

    def _to_scores(self, predicted: FloatArray) -> FloatArray:
        """Return the scores that the network's outputs stand for."""
        return predicted

    def _examples(
        self, inputs: Inputs, rows: IntArray, scores: FloatArray, weights: FloatArray
    ) -> Examples:
        """Return some rows to train or to validate on; the other rows have no effect."""
        loss_weights = weights[rows] * self._score_weights(scores, rows)
        return Examples(inputs, rows, self._targets(scores[rows]), loss_weights)

    def _check_eval_set(self, eval_set: Any) -> tuple[Any, FloatArray]:
        if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
            raise StackingError(
                "eval_set: expected a pair (X, y) of validation pairs and their scores."
            )
        X, y = eval_set
        if y is None:
            raise StackingError(
                "eval_set has no scores, so it cannot choose the epoch. Leave it out: then "
                f"{self.validation_fraction:.0%} of the training rows are held out for this."
            )
        X, _ = self._check_pairs(X, None, reset=False)
        return X, check_scores(y, len(X), "eval_set: ")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.device != "cpu"
        return tags


def _hold_out(
    rows: IntArray, labels: IntArray, fraction: float, rng: np.random.RandomState
) -> tuple[IntArray, IntArray]:
    """Return the rows to train on and the rows held out; both are all rows if there are too few.

    Groups are kept whole and drawn at random until `fraction` of the rows, and at least ten, is
    held out.  A group that would make them more than twice as many is passed over.
    """
    _, group_numbers, sizes = np.unique(labels[rows], return_inverse=True, return_counts=True)
    wanted = max(MIN_HELD_OUT, round(fraction * len(rows)))
    drawn, n_held_out = [], 0
    for group in rng.permutation(len(sizes)):
        if n_held_out >= wanted:
            break
        if n_held_out + sizes[group] <= 2 * wanted:
            drawn.append(group)
            n_held_out += sizes[group]
    if n_held_out < MIN_HELD_OUT or len(rows) - n_held_out < MIN_HELD_OUT:
        logger.warning(
            "No rows are held out, because %d rows in %d groups are too few to hold out %d and "
            "keep %d: the epoch is chosen on the training rows. Give eval_set for a better choice.",
            len(rows),
            len(sizes),
            MIN_HELD_OUT,
            MIN_HELD_OUT,
        )
        return rows, rows
    held_out = np.isin(group_numbers, drawn)
    return rows[~held_out], rows[held_out]
