"""The organisers' baseline: a bidirectional LSTM over frames of the clip beside the caption.

Source: Okamoto et al. 2026 (the XACLE challenge), after RELATE.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xacle_stack._optional import require
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_share, check_whole_number
from xacle_stack.errors import StackingError
from xacle_stack.features import PairSequences
from xacle_stack.systems.losses import class_balance_weights, clipped_mse, contrastive
from xacle_stack.systems.neural import NeuralRegressor, check_scores
from xacle_stack.systems.pair_columns import pair_columns, width
from xacle_stack.systems.plan import TrainingPlan
from xacle_stack.systems.training import Inputs, Module, Tensor

# The middle of the scores and half of their range: (y − 5) / 5 is what the network gives.
_MIDDLE, _HALF = 5.0, 5.0


class LSTMRegressor(NeuralRegressor):
    """Predict scores by a bidirectional LSTM over ``[frame_t; caption]``, t = 1 … T.

    ``ŷ = 5 + 5 · MLP((o_1 + o_T) / 2)`` with the outputs o of both directions side by side and an
    MLP of one hidden layer.  It minimises ``clipped MSE + ½ contrastive`` on ``(y − 5) / 5``, both
    weighted for the balance of the scores (see :mod:`xacle_stack.systems.losses`), that of the rows
    trained on and that of the rows held out each by itself.

    The defaults are the published configuration.  There the encoders BYOL-A and RoBERTa are trained
    as well; here they stay frozen, which leaves 26 million numbers to train and needs the frames
    only once, but cannot bend the encoders towards the task.

    Parameters
    ----------
    hidden : int, default=512
        Width of the LSTM, in each direction.
    mlp : int, default=2048
    dropout : float, default=0.3
    learning_rate : float, default=2e-5
    weight_decay : float, default=1e-5
    epochs : int, default=20
    batch_size : int, default=12
    patience : int, default=10
        Stop after so many epochs without a better validation SRCC.
    validation_fraction : float, default=0.1
        Of the training rows, ten at least, held out to choose the epoch where `fit` gets no
        `eval_set`.
    device : str, default="cpu"
        Or "auto": the first CUDA device if there is one.
    verbose : bool, default=False
        Whether there is a progress bar.
    random_state : int, RandomState or None, default=None

    Attributes
    ----------
    weights_ : dict of str to ndarray
        The network after the epoch with the best validation SRCC.
    n_parameters_ : int
    best_epoch_ : int
        From 1.
    validation_srcc_, validation_loss_ : ndarray of shape (n_epochs,)

    Notes
    -----
    X is a :class:`~xacle_stack.features.PairSequences`, or an array: then each row is a clip of one
    frame, the first half of the columns, and its caption, the second.

    References
    ----------
    Okamoto et al. 2026, XACLE challenge; Kanamori et al. 2025, RELATE.
    """

    _sizes = ("hidden", "mlp")

    def __init__(
        self,
        hidden: int = 512,
        mlp: int = 2048,
        dropout: float = 0.3,
        *,
        learning_rate: float = 2e-5,
        weight_decay: float = 1e-5,
        epochs: int = 20,
        batch_size: int = 12,
        patience: int | None = 10,
        validation_fraction: float = 0.1,
        device: str = "cpu",
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden = hidden
        self.mlp = mlp
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def _check_pairs(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, FloatArray | None]:
        if isinstance(X, PairSequences):
            table, scores = X, None if y is None else check_scores(y, len(X))
            dims = X.frames.n_dims, X.text.shape[1]
        else:
            table, scores = super()._check_pairs(X, y, reset=reset)
            views, text = pair_columns(table.shape[1], None, None)
            dims = width(views[0]), width(text)
        if reset:
            self.n_features_in_, self.n_dims_ = table.shape[1], dims
        elif dims != self.n_dims_:
            raise StackingError(
                f"frames and captions of {dims} dimensions, {self.n_dims_} when fitted. An array "
                "is one frame and a caption of equal lengths; for others give PairSequences."
            )
        return table, scores

    def _prepare(self, table: Any, scores: FloatArray, weights: FloatArray) -> None:
        for name in ("hidden", "mlp"):
            check_whole_number(name, getattr(self, name), minimum=1)
        check_share("dropout", self.dropout)

    def _build(self) -> Module:
        return _frame_network(sum(self.n_dims_), self.hidden, self.mlp, self.dropout)

    def _plan(self) -> TrainingPlan:
        return TrainingPlan(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            optimizer="adam",
            weight_decay=self.weight_decay,
            schedule="plateau",
            patience=self.patience,
        )

    def _inputs(self, table: Any, device: str) -> Inputs:
        torch = require("torch", extra="neural", purpose="LSTMRegressor")
        if not isinstance(table, PairSequences):
            views, text = pair_columns(table.shape[1], None, None)
            table = PairSequences(list(table[:, np.newaxis, views[0]]), table[:, text])

        def inputs(rows: IntArray, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
            sequences = table.frames[rows]
            lengths = np.array([len(sequence) for sequence in sequences])
            padded = np.zeros((len(rows), lengths.max(), table.frames.n_dims), dtype=np.float32)
            for place, sequence in enumerate(sequences):
                padded[place, : len(sequence)] = sequence
            captions = torch.from_numpy(table.text[rows])
            return (
                torch.from_numpy(padded).to(device),
                captions.to(device),
                torch.from_numpy(lengths),
            )

        return inputs

    def _loss(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return clipped_mse(predicted, target, weights) + 0.5 * contrastive(
            predicted, target, weights
        )

    def _targets(self, scores: FloatArray) -> FloatArray:
        return (scores - _MIDDLE) / _HALF

    def _score_weights(self, scores: FloatArray, rows: IntArray) -> FloatArray:
        return class_balance_weights(scores[rows])

    def _to_scores(self, predicted: FloatArray) -> FloatArray:
        return _MIDDLE + _HALF * predicted


def _frame_network(n_dims: int, hidden: int, mlp: int, dropout: float) -> Module:
    torch: Any = require("torch", extra="neural", purpose="LSTMRegressor")
    nn = torch.nn

    class FrameNetwork(nn.Module):  # type: ignore[name-defined]  # nn is Any
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(n_dims, hidden, batch_first=True, bidirectional=True)
            self.mlp = nn.Sequential(
                nn.Linear(2 * hidden, mlp), nn.ReLU(), nn.Dropout(dropout), nn.Linear(mlp, 1)
            )

        def forward(self, frames: Tensor, captions: Tensor, lengths: Tensor) -> Tensor:
            repeated = captions.unsqueeze(1).expand(-1, frames.shape[1], -1)
            packed = nn.utils.rnn.pack_padded_sequence(
                torch.cat([frames, repeated], dim=2),
                lengths,
                batch_first=True,
                enforce_sorted=False,  # padding is never read: a clip's output is its own
            )
            outputs, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            last = outputs[torch.arange(len(outputs)), lengths - 1]
            return self.mlp((outputs[:, 0] + last) / 2).flatten()

    return FrameNetwork()
