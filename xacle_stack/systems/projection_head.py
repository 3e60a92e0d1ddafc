"""A small head on frozen embeddings, trained for scores or for their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from xacle_stack._optional import require
from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_choice, check_share, check_whole_number
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.stacking.calibration import MonotoneCalibration
from xacle_stack.systems.losses import listnet_top1, pairwise_logistic, weighted_mse
from xacle_stack.systems.neural import NeuralRegressor
from xacle_stack.systems.pair_columns import pair_columns, width
from xacle_stack.systems.plan import TrainingPlan
from xacle_stack.systems.training import Inputs, Module, Tensor

LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": weighted_mse,
    "listnet": listnet_top1,
    "pairwise": pairwise_logistic,
}


class ProjectionHeadRegressor(NeuralRegressor):
    """Predict scores by two projections of each space and how far apart they put a pair.

    In each space, a tower for the clip and one for the caption lead to unit vectors a and b.  The
    score is linear in their cosine aᵀb and their differences |a − b|, of all spaces together.

    The network learns standardised scores.  With "mse" that is undone; the other two losses know
    the order only, and a strictly increasing map, fitted on the validation pairs, brings what the
    network gives to the scale of the scores.

    Parameters
    ----------
    spaces : sequence of (slice, slice), optional
        For each space the columns of the clip's vector and of the caption's, of any lengths.  By
        default one space: the first half of the columns and the second; the middle one of an odd
        number belongs to both.
    loss : {"mse", "listnet", "pairwise"}, default="mse"
        See :mod:`~xacle_stack.systems.losses`.  The last two learn the order of a batch.
    n_dims : int, default=128
        Length of the projections.
    hidden : int, optional
        Width of a hidden layer in each tower; by default there is none, and a tower is linear.
    dropout : float, default=0.2
        Of the differences, and of the hidden layers.
    learning_rate : float, default=1e-3
        The highest; it falls to 0 along a cosine.
    weight_decay : float, default=1e-4
    warmup_epochs : int, default=2
    epochs : int, default=40
    batch_size : int, default=128
    patience : int, optional
        Stop after so many epochs without a better validation SRCC; by default never.
    validation_fraction : float, default=0.1
        Of the training rows, ten at least, held out to choose the epoch where `fit` gets no
        `eval_set`.
    device : str, default="cpu"
        Or "auto": the first CUDA device if there is one.
    verbose : bool, default=False
        Whether there is a progress bar.
    random_state : int, RandomState or None, default=None
        Of the rows held out, the initial weights, the batches and the dropout.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        The network after the epoch with the best validation SRCC.
    n_parameters_ : int
    best_epoch_ : int
        From 1.
    validation_srcc_, validation_loss_ : ndarray of shape (n_epochs,)
    mean_, deviation_ : float
        Of the training scores.
    calibration_ : MonotoneCalibration or None
        None with "mse".
    """

    _sizes = ("n_dims", "hidden")

    def __init__(
        self,
        spaces: Sequence[tuple[slice, slice]] | None = None,
        *,
        loss: Literal["mse", "listnet", "pairwise"] = "mse",
        n_dims: int = 128,
        hidden: int | None = None,
        dropout: float = 0.2,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: int = 2,
        epochs: int = 40,
        batch_size: int = 128,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        device: str = "cpu",
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.spaces = spaces
        self.loss = loss
        self.n_dims = n_dims
        self.hidden = hidden
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def check_state(self) -> None:
        """Check weights and settings that come from a file; errors as of `NeuralRegressor`."""
        super().check_state()
        self._check_repeated("spaces", 1 if self.spaces is None else len(self.spaces), "audio.")
        check_numbers("mean_", self.mean_, ())
        check_numbers("deviation_", self.deviation_, ())
        if not isinstance(self.calibration_, MonotoneCalibration | None):
            raise ModelFileError(f"calibration_ is a {type(self.calibration_).__name__}.")

    @property
    def _named_columns(self) -> object:
        return self.spaces

    def _prepare(self, table: FloatArray, scores: FloatArray, weights: FloatArray) -> None:
        check_choice("loss", self.loss, LOSSES)
        check_whole_number("n_dims", self.n_dims, minimum=1)
        if self.hidden is not None:
            check_whole_number("hidden", self.hidden, minimum=1)
        check_share("dropout", self.dropout)
        self._columns(table.shape[1])
        mean = np.average(scores, weights=weights)
        deviation = np.sqrt(np.average(np.square(scores - mean), weights=weights))
        self.mean_ = float(mean)
        self.deviation_ = float(deviation) if deviation > 0 else 1.0
        self.calibration_: MonotoneCalibration | None = None

    def _columns(self, n_columns: int) -> list[tuple[slice, slice]]:
        """Return the columns of the clip and of the caption in each space."""
        pairs: Any = [(None, None)] if self.spaces is None else list(self.spaces)
        if not pairs or any(not isinstance(p, tuple | list) or len(p) != 2 for p in pairs):
            raise StackingError(
                f"spaces: expected a pair of slices (audio, text) for each, got {self.spaces!r}."
            )
        found = [pair_columns(n_columns, audio, text) for audio, text in pairs]
        return [(views[0], text) for views, text in found]

    def _build(self) -> Module:
        columns = self._columns(self.n_features_in_)
        widths = [(width(audio), width(text)) for audio, text in columns]
        return _head(widths, self.n_dims, self.hidden, self.dropout)

    def _plan(self) -> TrainingPlan:
        return TrainingPlan(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            optimizer="adam",
            weight_decay=self.weight_decay,
            warmup_epochs=self.warmup_epochs,
            patience=self.patience,
        )

    def _inputs(self, table: FloatArray, device: str) -> Inputs:
        torch = require("torch", extra="neural", purpose="ProjectionHeadRegressor")
        vectors = [
            torch.from_numpy(table[:, columns].copy()).to(device)
            for pair in self._columns(table.shape[1])
            for columns in pair
        ]

        def inputs(rows: IntArray, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
            return tuple(vector[rows] for vector in vectors)

        return inputs

    def _targets(self, scores: FloatArray) -> FloatArray:
        return (scores - self.mean_) / self.deviation_

    def _loss(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return LOSSES[self.loss](predicted, target, weights)

    def _finish(self, predicted: FloatArray, scores: FloatArray, weights: FloatArray) -> None:
        if self.loss != "mse":
            self.calibration_ = MonotoneCalibration().fit(predicted, scores, weights)

    def _to_scores(self, predicted: FloatArray) -> FloatArray:
        if self.calibration_ is not None:
            return self.calibration_.predict(predicted)
        return self.mean_ + self.deviation_ * predicted


def _head(widths: list[tuple[int, int]], n_dims: int, hidden: int | None, dropout: float) -> Module:
    torch: Any = require("torch", extra="neural", purpose="ProjectionHeadRegressor")
    nn = torch.nn

    def tower(n_in: int) -> Module:
        if hidden is None:
            return nn.Linear(n_in, n_dims)
        return nn.Sequential(
            nn.Linear(n_in, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, n_dims)
        )

    class ProjectionHead(nn.Module):  # type: ignore[name-defined]  # nn is Any
        def __init__(self) -> None:
            super().__init__()
            self.audio = nn.ModuleList(tower(n_audio) for n_audio, _ in widths)
            self.text = nn.ModuleList(tower(n_text) for _, n_text in widths)
            for place, (n_audio, n_text) in enumerate(widths):
                if n_audio == n_text:
                    # In a common space both begin with one projection, which keeps its cosines.
                    self.text[place].load_state_dict(self.audio[place].state_dict())
            self.dropout = nn.Dropout(dropout)
            self.output = nn.Linear(len(widths) * (1 + n_dims), 1)

        def forward(self, *vectors: Tensor) -> Tensor:
            parts = []
            for place in range(len(widths)):
                a, b = (
                    nn.functional.normalize(tower(nn.functional.normalize(vector)))
                    for tower, vector in zip(
                        (self.audio[place], self.text[place]),
                        vectors[2 * place : 2 * place + 2],
                        strict=True,
                    )
                )
                parts += [(a * b).sum(1, keepdim=True), self.dropout((a - b).abs())]
            return self.output(torch.cat(parts, dim=1)).flatten()

    return ProjectionHead()
