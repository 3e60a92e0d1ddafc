"""The organisers' baseline of 2026: a bidirectional LSTM over a clip's frames beside the caption.

Source: Okamoto et al. 2026 (the XACLE challenge), after RELATE.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xacle_stack._optional import require
from xacle_stack._types import IntArray
from xacle_stack._validation import check_share, check_whole_number
from xacle_stack.features import PairSequences
from xacle_stack.features.sequences import padded
from xacle_stack.systems.sequence_base import SequenceRegressor
from xacle_stack.systems.training import Inputs, Module, Tensor


class LSTMRegressor(SequenceRegressor):
    """Predict scores by a bidirectional LSTM over ``[frame_t; caption]``, t = 1 … T.

    ``ŷ = 5 + 5 · MLP((o_1 + o_T) / 2)``, where o are the outputs of both directions side by side
    and the MLP has one hidden layer.  It minimises ``clipped MSE + ½ contrastive`` on
    ``(y − 5) / 5``.  Both are weighted to balance rare and frequent scores (see
    :mod:`xacle_stack.systems.losses`), separately for the training rows and the rows held out.

    The defaults are the published configuration.  The publication also trains the encoders BYOL-A
    and RoBERTa; here they stay frozen, so that 26 million numbers are trained and the frames are
    computed only once.

    Parameters
    ----------
    hidden : int, default=512
        Width of the LSTM, in each direction.
    mlp : int, default=2048
        Width of the MLP's hidden layer.
    dropout : float, default=0.3
    learning_rate : float, default=2e-5
    weight_decay : float, default=1e-5
    epochs : int, default=20
    batch_size : int, default=12
    patience : int, default=10
        Training stops after this many epochs without a better validation SRCC.
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
    widths_ : list of (int, int)
        One pair: the lengths of a frame and of a caption's vector.

    Notes
    -----
    X is a :class:`~xacle_stack.features.PairSequences`, or an array.  The first half of an array's
    columns is a clip of one frame, and the second half its caption.

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

    def check_settings(self) -> None:
        """Check the settings, without data and without PyTorch; errors as of the base class."""
        super().check_settings()
        for name in ("hidden", "mlp"):
            check_whole_number(name, getattr(self, name), 1)
        check_share("dropout", self.dropout)

    def _build(self) -> Module:
        return _frame_network(sum(self.widths_[0]), self.hidden, self.mlp, self.dropout)

    def _inputs(self, pairs: PairSequences, device: str) -> Inputs:
        torch = require("torch", extra="neural", purpose="LSTMRegressor")

        def inputs(rows: IntArray, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
            frames, lengths = padded(pairs.frames[rows])
            return (
                torch.from_numpy(frames).to(device),
                torch.from_numpy(np.asarray(pairs.text[rows])).to(device),
                torch.from_numpy(lengths),
            )

        return inputs


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
                enforce_sorted=False,  # packing keeps padding from a clip's output
            )
            outputs, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            last = outputs[torch.arange(len(outputs)), lengths - 1]
            return self.mlp((outputs[:, 0] + last) / 2).flatten()

    return FrameNetwork()
