"""Trust-your-CLAP: a small Transformer over a pair of frozen embeddings.

Source: Niizumi et al. 2026, technical report of the XACLE challenge, and their public code and
configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from xacle_stack._optional import require
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_share, check_whole_number
from xacle_stack.errors import StackingError
from xacle_stack.systems.losses import check_score_weighting, score_weights, weighted_mse
from xacle_stack.systems.neural import NeuralRegressor
from xacle_stack.systems.space_vectors import check_space_setting, finite_block, read_space
from xacle_stack.systems.training import Inputs, Module, Tensor
from xacle_stack.table import FeatureTable

# The published code has these two numbers, its configuration file does not.
_MLP_DROPOUT = 0.5
_MLP_INITIAL_DEVIATION = 0.01


@dataclass(frozen=True, eq=False)
class _ViewedPairs:
    """The captions' vectors, and one or more views of the clips', the unchanged one first."""

    captions: FloatArray
    views: list[FloatArray]


class TransformerRegressor(NeuralRegressor):
    """Predict scores by a Transformer encoder over the two tokens [caption; clip].

    Both vectors, normalised over the batch without affine terms and with common statistics, are
    the tokens of a standard encoder (LayerNorm after each sublayer; ReLU).  Its output at the
    caption, after one more LayerNorm, goes through one hidden layer to the score:
    ``ŷ = MLP(LayerNorm(Encoder(BatchNorm([z_t; z_a])))_t)``.  It minimises the weighted mean
    squared error on the raw scores.

    The defaults are the published configuration.  The publication masks the spectrogram at random
    (SpecAugment).  Here embeddings are frozen, and augmented views of the clips take that part:
    the blocks ``"SPACE/audio:view-1"``, ``"SPACE/audio:view-2"`` … of the table given to `fit`.
    Training draws the clip or one of its views for each row and step; prediction uses no views.

    Parameters
    ----------
    space : str, optional
        The space of a feature table whose vectors are the tokens; by default the only one that the
        table has.
    score_weighting : {0, 1, 2, 3}, default=1
        The kind of :func:`~xacle_stack.systems.losses.score_weights`.  All kinds but 0 need scores
        in 0–10.
    n_layers : int, default=2
    n_heads : int, default=1
        Must divide the vectors' length.
    feedforward : int, default=4
        Width of the encoder's hidden layers, as a multiple of the vectors' length.
    dropout : float, default=0.2
        The share that is dropped in the encoder; in the MLP it is 0.5.
    hidden : int, default=512
        Width of the MLP's hidden layer.
    optimizer : {"lars", "adam", "adamw"}, default="lars"
        See :class:`~xacle_stack.systems.plan.TrainingPlan`: timm's LARS without weight decay,
        which is what the published configuration runs, is gradient descent with momentum 0.9.
    learning_rate, final_learning_rate : float, default=3e-4, 1e-7
        The highest rate, and the one at the end of the cosine.
    weight_decay : float, default=0.0
    warmup_epochs : int, default=5
    epochs : int, default=100
    batch_size : int, default=128
    patience : int, optional
        Training stops after this many epochs without a better validation SRCC; by default never.
    validation_fraction : float, default=0.1
        The share of the training rows, at least ten, that is held out to choose the epoch on if
        `fit` gets no `eval_set`.
    precision : {"float32", "bfloat16"}, default="float32"
        The precision of the matrix products in training.  bfloat16 takes two thirds of the time
        on processors that have it (AVX-512 BF16, AMX) and is slower on others.
    device : str, default="cpu"
        "auto" is the first CUDA device, or the CPU if there is none.
    verbose : bool, default=False
        Whether there is a progress bar.
    random_state : int, RandomState or None, default=None
        Draws the rows held out, the initial weights, the batches, the views and the dropout.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        The network after the epoch with the best validation SRCC.  (The published code chooses
        by the SRCC of the gated scores.)
    n_parameters_ : int
    best_epoch_ : int
        Counted from 1.
    validation_srcc_, validation_loss_ : ndarray of shape (n_epochs,)
    spaces_ : tuple of str
        The name of the space; empty after a fit on a plain array.
    widths_ : list of (int, int)
        One pair: the lengths of the clip's and the caption's vector.

    References
    ----------
    Niizumi et al. 2026, Trust-your-CLAP, technical report of the XACLE challenge.
    """

    _sizes = ("n_heads", "feedforward", "hidden")

    def __init__(
        self,
        space: str | None = None,
        *,
        score_weighting: Literal[0, 1, 2, 3] = 1,
        n_layers: int = 2,
        n_heads: int = 1,
        feedforward: int = 4,
        dropout: float = 0.2,
        hidden: int = 512,
        optimizer: Literal["lars", "adam", "adamw"] = "lars",
        learning_rate: float = 3e-4,
        final_learning_rate: float = 1e-7,
        weight_decay: float = 0.0,
        warmup_epochs: int = 5,
        epochs: int = 100,
        batch_size: int = 128,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        precision: Literal["float32", "bfloat16"] = "float32",
        device: str = "cpu",
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.space = space
        self.score_weighting = score_weighting
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.feedforward = feedforward
        self.dropout = dropout
        self.hidden = hidden
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.final_learning_rate = final_learning_rate
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.epochs = epochs
        self.batch_size = batch_size
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.precision = precision
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def check_settings(self) -> None:
        """Check the settings, without data and without PyTorch; errors as of the base class."""
        super().check_settings()
        check_space_setting(self.space)
        check_score_weighting(self.score_weighting)
        for name in ("n_layers", "n_heads", "feedforward", "hidden"):
            check_whole_number(name, getattr(self, name), 1)
        check_share("dropout", self.dropout)

    def check_state(self) -> None:
        """Check weights and settings that come from a file; errors as of `NeuralRegressor`."""
        super().check_state()
        self._check_repeated("n_layers", self.n_layers, "encoder.layers.")

    def _read(self, X: Any, *, reset: bool) -> _ViewedPairs:
        clips, captions = read_space(self, X, self.space, reset=reset)
        views = [clips]
        if reset and isinstance(X, FeatureTable):
            prefix = f"{self.spaces_[0]}/audio:view-"
            views += [finite_block(X, name) for name in X.blocks if name.startswith(prefix)]
        return _ViewedPairs(captions, views)

    def _prepare(self, scores: FloatArray, weights: FloatArray) -> None:
        ((n_audio, n_text),) = self.widths_
        if n_audio != n_text:
            raise StackingError(
                f"the clip's vector has {n_audio} columns and the caption's {n_text}, but the two "
                "tokens of one sequence are equally long. Give the vectors of one contrastive "
                "space, or use ProjectionHeadRegressor, which takes vectors of any lengths."
            )
        if n_text % self.n_heads:
            raise StackingError(
                f"n_heads must divide the vectors' length {n_text}, got {self.n_heads!r}."
            )

    def _build(self) -> Module:
        return _two_token_network(
            self.widths_[0][1],
            self.n_layers,
            self.n_heads,
            self.feedforward,
            self.dropout,
            self.hidden,
        )

    def _inputs(self, pairs: _ViewedPairs, device: str) -> Inputs:
        torch = require("torch", extra="neural", purpose="TransformerRegressor")
        captions = torch.from_numpy(pairs.captions.astype(np.float32)).to(device)
        clips = torch.from_numpy(np.stack(pairs.views).astype(np.float32)).to(device)

        def inputs(rows: IntArray, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
            if rng is None or len(clips) == 1:
                return captions[rows], clips[0, rows]
            return captions[rows], clips[rng.integers(len(clips), size=len(rows)), rows]

        return inputs

    def _loss(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return weighted_mse(predicted, target, weights)

    def _score_weights(self, scores: FloatArray, rows: IntArray) -> FloatArray:
        return score_weights(scores, self.score_weighting)[rows]


def _two_token_network(
    n_dims: int, n_layers: int, n_heads: int, feedforward: int, dropout: float, hidden: int
) -> Module:
    torch: Any = require("torch", extra="neural", purpose="TransformerRegressor")
    nn = torch.nn

    class TwoTokenNetwork(nn.Module):  # type: ignore[name-defined]  # nn is Any
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(
                n_dims, n_heads, n_dims * feedforward, dropout, batch_first=True
            )
            self.pre_norm = nn.BatchNorm1d(n_dims, affine=False)
            # It copies one layer, as published, so that all layers begin alike.
            self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(n_dims)
            self.mlp = nn.Sequential(
                nn.Linear(n_dims, hidden), nn.ReLU(), nn.Dropout(_MLP_DROPOUT), nn.Linear(hidden, 1)
            )
            for linear in (self.mlp[0], self.mlp[3]):
                nn.init.normal_(linear.weight, std=_MLP_INITIAL_DEVIATION)
                nn.init.zeros_(linear.bias)

        def forward(self, text: Tensor, audio: Tensor) -> Tensor:
            tokens = torch.stack([text, audio], dim=1)
            tokens = self.pre_norm(tokens.flatten(0, 1)).view_as(tokens)
            return self.mlp(self.norm(self.encoder(tokens)[:, 0])).flatten()

    return TwoTokenNetwork()
