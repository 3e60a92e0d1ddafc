"""Trust-your-CLAP: a small Transformer over a pair of frozen embeddings.

Source: Niizumi et al. 2026, technical report of the XACLE challenge, and their public code and
configuration.  The parts of the network are PyTorch's; how they are put together is written for two
tokens, which saves a sixth of the work.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from xacle_stack._optional import require
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_share, check_whole_number
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.systems.losses import score_weights, weighted_mse
from xacle_stack.systems.neural import NeuralRegressor
from xacle_stack.systems.pair_columns import AudioColumns, pair_columns, width
from xacle_stack.systems.plan import TrainingPlan
from xacle_stack.systems.training import Inputs, Module, Tensor

# Of the published code, beyond its configuration file.
_MLP_DROPOUT = 0.5
_MLP_INITIAL_DEVIATION = 0.01
# How often the views of a model from a file may take the columns of its table.
_MAX_VIEWED = 64


class TransformerRegressor(NeuralRegressor):
    """Predict scores by a Transformer encoder over the two tokens [caption; clip].

    Both vectors, normalised over the batch without affine terms and with common statistics, are
    the tokens of a standard encoder (after each part LayerNorm; ReLU).  Its output at the
    caption, after one more LayerNorm, goes through one hidden layer to the score:
    ``ŷ = MLP(LayerNorm(Encoder(BatchNorm([z_t; z_a])))_t)``.  It minimises the weighted mean
    squared error on the raw scores.

    The defaults are the published configuration.  There the spectrogram is masked at random
    (SpecAugment); here, where embeddings are frozen, give several slices of `audio`.

    Parameters
    ----------
    audio : slice or sequence of slice, optional
        Columns of the clip's vector; several for augmented views, the first being the clip as it
        is.  Training draws one a row and step, prediction uses the first.
    text : slice, optional
        Columns of the caption's vector, as many.  Without `audio` and `text`, the first half of the
        columns is the clip's and the second the caption's; the middle one of an odd number belongs
        to both.
    score_weighting : {0, 1, 2, 3}, default=1
        Which :func:`~xacle_stack.systems.losses.score_weights`; all but 0 want scores of 0–10.
    n_layers : int, default=2
    n_heads : int, default=1
        A divisor of the vectors' length.
    feedforward : int, default=4
        Width of the encoder's hidden layers, as a multiple of the vectors' length.
    dropout : float, default=0.2
        In the encoder; before the MLP's output it is 0.5.
    hidden : int, default=512
        Width of the MLP.
    optimizer : {"lars", "adam"}, default="lars"
        See :class:`~xacle_stack.systems.plan.TrainingPlan`: timm's LARS without weight decay,
        which is what the published configuration runs, is gradient descent with momentum 0.9.
    learning_rate, final_learning_rate : float, default=3e-4, 1e-7
        The highest, and the one at the end of the cosine.
    weight_decay : float, default=0.0
    warmup_epochs : int, default=5
    epochs : int, default=100
    batch_size : int, default=128
    patience : int, optional
        Stop after so many epochs without a better validation SRCC; by default never.
    validation_fraction : float, default=0.1
        Of the training rows, ten at least, held out to choose the epoch where `fit` gets no
        `eval_set`.
    precision : {"float32", "bfloat16"}, default="float32"
        Of the products of matrices in training.  bfloat16 takes two thirds of the time on
        processors that have it (AVX-512 BF16, AMX) and is slower on others.
    device : str, default="cpu"
        Or "auto": the first CUDA device if there is one.
    verbose : bool, default=False
        Whether there is a progress bar.
    random_state : int, RandomState or None, default=None
        Of the rows held out, the initial weights, the batches and the dropout.

    Attributes
    ----------
    weights_ : dict of str to ndarray
        The network after the epoch with the best validation SRCC.  (The published code chose by
        the SRCC behind the gate.)
    n_parameters_ : int
    best_epoch_ : int
        From 1.
    validation_srcc_, validation_loss_ : ndarray of shape (n_epochs,)

    References
    ----------
    Niizumi et al. 2026, Trust-your-CLAP, technical report of the XACLE challenge.
    """

    _sizes = ("n_heads", "feedforward", "hidden")

    def __init__(
        self,
        audio: AudioColumns | None = None,
        text: slice | None = None,
        *,
        score_weighting: Literal[0, 1, 2, 3] = 1,
        n_layers: int = 2,
        n_heads: int = 1,
        feedforward: int = 4,
        dropout: float = 0.2,
        hidden: int = 512,
        optimizer: Literal["lars", "adam"] = "lars",
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
        self.audio = audio
        self.text = text
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

    def _prepare(self, table: FloatArray, scores: FloatArray, weights: FloatArray) -> None:
        views, text = pair_columns(table.shape[1], self.audio, self.text)
        if width(views[0]) != width(text):
            raise StackingError(
                f"the clip's vector has {width(views[0])} columns and the caption's {width(text)}, "
                "but the two tokens of one sequence are equally long. Give vectors of one "
                "contrastive space, or ProjectionHeadRegressor, which takes any."
            )
        for name in ("n_layers", "n_heads", "feedforward", "hidden"):
            check_whole_number(name, getattr(self, name), minimum=1)
        check_share("dropout", self.dropout)
        if width(text) % self.n_heads:
            raise StackingError(
                f"n_heads must divide the vectors' length {width(text)}, got {self.n_heads!r}."
            )

    def check_state(self) -> None:
        """Check weights and settings that come from a file; errors as of `NeuralRegressor`."""
        super().check_state()
        self._check_repeated("n_layers", self.n_layers, "encoder.layers.")
        n_columns = self.n_features_in_
        views, _ = pair_columns(n_columns, self.audio, self.text)
        if len(views) * width(views[0]) > _MAX_VIEWED * n_columns:  # each is copied to predict
            raise ModelFileError(
                f"audio: {len(views)} views of {width(views[0])} columns, of a table that has "
                f"{n_columns}."
            )

    def _build(self) -> Module:
        text = pair_columns(self.n_features_in_, self.audio, self.text)[1]
        return _two_token_network(
            width(text), self.n_layers, self.n_heads, self.feedforward, self.dropout, self.hidden
        )

    def _plan(self) -> TrainingPlan:
        return TrainingPlan(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            warmup_epochs=self.warmup_epochs,
            final_learning_rate=self.final_learning_rate,
            patience=self.patience,
            precision=self.precision,
        )

    def _inputs(self, table: FloatArray, device: str) -> Inputs:
        torch = require("torch", extra="neural", purpose="TransformerRegressor")
        views, text = pair_columns(table.shape[1], self.audio, self.text)
        captions = torch.from_numpy(table[:, text].copy()).to(device)
        clips = torch.from_numpy(np.stack([table[:, view] for view in views])).to(device)

        def inputs(rows: IntArray, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
            if rng is None or len(views) == 1:
                return captions[rows], clips[0, rows]
            return captions[rows], clips[rng.integers(len(views), size=len(rows)), rows]

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

    class Dropout(nn.Module):  # type: ignore[name-defined]  # nn is Any
        """As torch.nn.Dropout, which takes four times as long on a CPU: 16 random bits a number."""

        def __init__(self, share: float) -> None:
            super().__init__()
            self.n_dropped = round(share * 2**16)

        def forward(self, x: Tensor) -> Tensor:
            if not self.training or not self.n_dropped:
                return x
            bits = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
            drawn = bits.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
            return x * (drawn >= self.n_dropped - 2**15) * (2**16 / (2**16 - self.n_dropped))

    class TwoTokenNetwork(nn.Module):  # type: ignore[name-defined]  # nn is Any
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(n_dims, n_heads, n_dims * feedforward)
            layer.dropout = layer.dropout1 = layer.dropout2 = Dropout(dropout)
            self.pre_norm = nn.BatchNorm1d(n_dims, affine=False)
            # As published: copies of one layer, so that all layers begin alike.
            self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(n_dims)
            self.mlp = nn.Sequential(
                nn.Linear(n_dims, hidden), nn.ReLU(), Dropout(_MLP_DROPOUT), nn.Linear(hidden, 1)
            )
            for linear in (self.mlp[0], self.mlp[3]):
                nn.init.normal_(linear.weight, std=_MLP_INITIAL_DEVIATION)
                nn.init.zeros_(linear.bias)

        def forward(self, text: Tensor, audio: Tensor) -> Tensor:
            tokens = torch.stack([text, audio], dim=1)
            tokens = self.pre_norm(tokens.flatten(0, 1)).view_as(tokens)
            *first, last = self.encoder.layers
            for layer in first:
                tokens = _encode(torch, layer, tokens, tokens)
            # Of the last layer only the output at the caption is used: the other is not made.
            caption = _encode(torch, last, tokens[:, :1], tokens)
            return self.mlp(self.norm(caption)).flatten()

    return TwoTokenNetwork()


def _encode(torch: Any, layer: Module, queries: Tensor, tokens: Tensor) -> Tensor:
    """Return a torch.nn.TransformerEncoderLayer's output at some of its tokens."""
    attended = _attend(torch, layer.self_attn, layer.dropout, queries, tokens)
    x = layer.norm1(queries + layer.dropout1(attended))
    inner = layer.dropout(layer.linear1(x).relu())
    return layer.norm2(x + layer.dropout2(layer.linear2(inner)))


def _attend(
    torch: Any, attention: Module, dropout: Module, queries: Tensor, tokens: Tensor
) -> Tensor:
    """Return a torch.nn.MultiheadAttention's output for sequences of two tokens.

    A softmax over two is the logistic function of their difference, for which one key is enough:
    ``q·(k₁ − k₂) = q·W(z₁ − z₂)``.
    """
    linear = torch.nn.functional.linear
    heads = (attention.num_heads, attention.head_dim)
    w_query, w_key, w_value = attention.in_proj_weight.chunk(3)
    b_query, _, b_value = attention.in_proj_bias.chunk(3)
    query = linear(queries, w_query, b_query).unflatten(2, heads)
    key = linear(tokens[:, :1] - tokens[:, 1:], w_key).unflatten(2, heads)
    value = linear(tokens, w_value, b_value).unflatten(2, heads)
    first = ((query * key).sum(3, keepdim=True) / math.sqrt(attention.head_dim)).sigmoid()
    mixed = dropout(first) * value[:, :1] + dropout(1 - first) * value[:, 1:]
    return attention.out_proj(mixed.flatten(2))
