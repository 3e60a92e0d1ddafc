"""The organisers' baseline of 2027: an MLP over the vectors of the clip and the caption.

Source: XACLE-Challenge/XACLE_2027_baselinemodel (the second XACLE challenge).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xacle_stack._optional import require
from xacle_stack._validation import check_share, check_whole_number
from xacle_stack.systems.baseline import BaselineRegressor
from xacle_stack.systems.plan import Optimizer
from xacle_stack.systems.space_vectors import Vectors, check_spaces_setting, read_vectors
from xacle_stack.systems.training import Inputs, Module, Tensor, array_inputs


class VectorMLPRegressor(BaselineRegressor):
    """Predict scores by an MLP over the unit vectors of the clip and the caption.

    ``ŷ = 5 + 5 (wᵀ drop(h₂) + b)``, where ``h₂ = relu(W₂ drop(h₁) + b₂)`` and
    ``h₁ = relu(W₁ x + b₁)``; drop is dropout.
    In x stand the vectors of all spaces, each divided by its length: a clip's, then its caption's.
    It minimises ``clipped MSE + ½ contrastive`` on ``(y − 5) / 5``.  Both are weighted to balance
    rare and frequent scores (see :mod:`xacle_stack.systems.losses`), separately for the training
    rows and the rows held out.

    The defaults are the published configuration, whose only space is M2D-CLAP.

    Parameters
    ----------
    spaces : sequence of str, optional
        The spaces of a feature table whose vectors are used, by default all.  A space's two vectors
        may have different lengths.
    hidden : int, default=1024
        Width of the first hidden layer.
    projection : int, default=256
        Width of the second hidden layer.
    dropout : float, default=0.3
        The share of both hidden layers that is dropped.  One version of the released code drops
        that of the first only.
    optimizer : {"adam", "adamw", "lars"}, default="adam"
    learning_rate : float, default=2e-5
        It is halved whenever the validation loss has not fallen for more than five epochs.
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
    spaces_ : tuple of str
        The spaces used; empty after a fit on a plain array.
    widths_ : list of (int, int)
        The lengths of the clip's and the caption's vector in each space.
    """

    _sizes = ("hidden", "projection")

    def __init__(
        self,
        spaces: Sequence[str] | None = None,
        *,
        hidden: int = 1024,
        projection: int = 256,
        dropout: float = 0.3,
        optimizer: Optimizer = "adam",
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
        self.spaces = spaces
        self.hidden = hidden
        self.projection = projection
        self.dropout = dropout
        self.optimizer = optimizer
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
        check_spaces_setting(self.spaces)
        for name in self._sizes:
            check_whole_number(name, getattr(self, name), 1)
        check_share("dropout", self.dropout)

    def _read(self, X: Any, *, reset: bool) -> list[Vectors]:
        return read_vectors(self, X, self.spaces, reset=reset)

    def _build(self) -> Module:
        return _mlp(sum(map(sum, self.widths_)), self.hidden, self.projection, self.dropout)

    def _inputs(self, pairs: list[Vectors], device: str) -> Inputs:
        return array_inputs([vectors for space in pairs for vectors in space], device)


def _mlp(n_dims: int, hidden: int, projection: int, dropout: float) -> Module:
    torch: Any = require("torch", extra="neural", purpose="VectorMLPRegressor")
    nn = torch.nn

    class VectorMLP(nn.Module):  # type: ignore[name-defined]  # nn is Any
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                *(nn.Linear(n_dims, hidden), nn.ReLU(), nn.Dropout(dropout)),
                *(nn.Linear(hidden, projection), nn.ReLU(), nn.Dropout(dropout)),
                nn.Linear(projection, 1),
            )

        def forward(self, *vectors: Tensor) -> Tensor:
            units = [nn.functional.normalize(one) for one in vectors]
            return self.layers(torch.cat(units, dim=1)).flatten()

    return VectorMLP()
