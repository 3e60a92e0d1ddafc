"""A small head on frozen embeddings, trained for scores or for their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from xacle_stack._optional import require
from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray
from xacle_stack._validation import check_choice, check_share, check_whole_number
from xacle_stack.errors import ModelFileError
from xacle_stack.stacking.calibration import MonotoneCalibration
from xacle_stack.systems.losses import LOSSES
from xacle_stack.systems.neural import NeuralRegressor
from xacle_stack.systems.space_vectors import Vectors, check_spaces_setting, read_vectors
from xacle_stack.systems.training import Inputs, Module, Tensor, array_inputs


class ProjectionHeadRegressor(NeuralRegressor):
    """Predict scores by two projections of each space and how far apart they put a pair.

    In each space, a tower for the clip and one for the caption lead to unit vectors a and b.  The
    score is linear in their cosine aᵀb and their differences |a − b|, of all spaces together.

    The network learns standardised scores.  With "mse" the standardisation is undone.  The other
    two losses see only the order of the scores; a strictly increasing map, fitted on the validation
    pairs, brings the network's outputs to the scale of the scores.

    Parameters
    ----------
    spaces : sequence of str, optional
        The spaces of a feature table whose vectors are used, by default all.  A space's two vectors
        may have different lengths.
    loss : {"mse", "listnet", "pairwise"}, default="mse"
        See :mod:`~xacle_stack.systems.losses`.  The last two learn the order within a batch.
    n_dims : int, default=128
        Length of the projections.
    hidden : int, optional
        Width of a hidden layer in each tower; by default there is none, and a tower is linear.
    dropout : float, default=0.2
        The share of the differences, and of the hidden layers, that is dropped.
    learning_rate : float, default=1e-3
        The highest rate; it falls to 0 along a cosine.
    weight_decay : float, default=1e-4
    warmup_epochs : int, default=2
    epochs : int, default=40
    batch_size : int, default=128
    patience : int, optional
        Training stops after this many epochs without a better validation SRCC; by default never.
    validation_fraction : float, default=0.1
        The share of the training rows, at least ten, that is held out to choose the epoch on if
        `fit` gets no `eval_set`.
    device : str, default="cpu"
        "auto" is the first CUDA device, or the CPU if there is none.
    verbose : bool, default=False
        Whether there is a progress bar.
    random_state : int, RandomState or None, default=None
        Draws the rows held out, the initial weights, the batches and the dropout.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        The network after the epoch with the best validation SRCC.
    n_parameters_ : int
    best_epoch_ : int
        Counted from 1.
    validation_srcc_, validation_loss_ : ndarray of shape (n_epochs,)
    spaces_ : tuple of str
        The spaces used; empty after a fit on a plain array.
    widths_ : list of (int, int)
        The lengths of the clip's and the caption's vector in each space.
    mean_, deviation_ : float
        The mean and the standard deviation of the training scores.
    calibration_ : MonotoneCalibration or None
        None with "mse".
    """

    _sizes = ("n_dims", "hidden")

    def __init__(
        self,
        spaces: Sequence[str] | None = None,
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

    def check_settings(self) -> None:
        """Check the settings, without data and without PyTorch; errors as of the base class."""
        super().check_settings()
        check_spaces_setting(self.spaces)
        check_choice("loss", self.loss, LOSSES)
        check_whole_number("n_dims", self.n_dims, 1)
        if self.hidden is not None:
            check_whole_number("hidden", self.hidden, 1)
        check_share("dropout", self.dropout)

    def check_state(self) -> None:
        """Check weights and settings that come from a file; errors as of `NeuralRegressor`."""
        super().check_state()
        self._check_repeated("spaces_", len(self.widths_), "audio.")
        check_numbers("mean_", self.mean_, ())
        check_numbers("deviation_", self.deviation_, ())
        if not isinstance(self.calibration_, MonotoneCalibration | None):
            raise ModelFileError(f"calibration_ is a {type(self.calibration_).__name__}.")

    def _read(self, X: Any, *, reset: bool) -> list[Vectors]:
        return read_vectors(self, X, self.spaces, reset=reset)

    def _prepare(self, scores: FloatArray, weights: FloatArray) -> None:
        mean = np.average(scores, weights=weights)
        deviation = np.sqrt(np.average(np.square(scores - mean), weights=weights))
        self.mean_ = float(mean)
        self.deviation_ = float(deviation) if deviation > 0 else 1.0
        self.calibration_: MonotoneCalibration | None = None

    def _build(self) -> Module:
        return _head(self.widths_, self.n_dims, self.hidden, self.dropout)

    def _inputs(self, pairs: list[Vectors], device: str) -> Inputs:
        return array_inputs([vectors for space in pairs for vectors in space], device)

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
            for index, (n_audio, n_text) in enumerate(widths):
                if n_audio == n_text:
                    # Starting from the same projection roughly keeps the cosines of a common space.
                    self.text[index].load_state_dict(self.audio[index].state_dict())
            self.dropout = nn.Dropout(dropout)
            self.output = nn.Linear(len(widths) * (1 + n_dims), 1)

        def forward(self, *vectors: Tensor) -> Tensor:
            parts = []
            for index in range(len(widths)):
                a, b = (
                    nn.functional.normalize(tower(nn.functional.normalize(vector)))
                    for tower, vector in zip(
                        (self.audio[index], self.text[index]),
                        vectors[2 * index : 2 * index + 2],
                        strict=True,
                    )
                )
                parts += [(a * b).sum(1, keepdim=True), self.dropout((a - b).abs())]
            return self.output(torch.cat(parts, dim=1)).flatten()

    return ProjectionHead()
