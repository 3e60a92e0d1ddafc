"""MoEScore's expert on sequences: clip and caption attend to each other.

Source: arXiv:2601.06829 (first place in the XACLE challenge of 2026), expert 4, and its public
code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from xacle_stack._optional import require
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_share, check_whole_number
from xacle_stack.errors import StackingError
from xacle_stack.features import PairSequences
from xacle_stack.features.sequences import padded
from xacle_stack.systems.plan import Optimizer, TrainingPlan
from xacle_stack.systems.sequence_base import SequenceRegressor
from xacle_stack.systems.training import Inputs, Module, Tensor


class CrossAttentionRegressor(SequenceRegressor):
    """Predict scores by attention between the frames of a clip and the tokens of its caption.

    Both sequences are projected to one width, ``p(x) = LN(gelu(W LN(x)))``, with weights of their
    own.  Each frame attends to all tokens, and each token to all frames, by one multi-head
    attention each: ``A = attention(p(frames), p(tokens))`` and ``B = attention(p(tokens),
    p(frames))``.  Then ``ŷ = 5 + 5 · MLP([max A; max B])``, where the maxima are over the frames
    and the tokens of the pair, and the MLP has one hidden layer.  It minimises
    ``clipped MSE + ½ contrastive`` on ``(y − 5) / 5`` (see :mod:`xacle_stack.systems.losses`).

    The defaults are the published configuration but for the learning rate, which is 1e-5 there,
    because the publication also trains the last layers of the encoders.  Here they stay frozen, and
    their sequences are computed only once.

    Parameters
    ----------
    width : int, default=512
        Length of the projected vectors.
    n_heads : int, default=8
        Must divide `width`.
    hidden : int, default=2048
        Width of the MLP's hidden layer.
    dropout : float, default=0.3
        The share of the hidden layer that is dropped.
    optimizer : {"adamw", "adam", "lars"}, default="adamw"
    learning_rate : float, default=1e-4
        It is halved whenever the validation loss has not fallen for more than five epochs.
    weight_decay : float, default=1e-4
    epochs : int, default=50
    batch_size : int, default=30
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
    widths_ : list of (int, int)
        One pair: the lengths of a frame and of a token.

    Notes
    -----
    X is a :class:`~xacle_stack.features.PairSequences` whose captions are sequences, or an array.
    The first half of an array's columns is a clip of one frame, and the second half a caption of
    one token.

    Padding is masked in the attention and in the maxima, so that a pair's score does not depend on
    the longest sequence of its batch.  In the released code, the maxima are over padding, too.

    The publication takes the tokens of RoBERTa-large, the released code those of the text tower of
    LAION-CLAP.  The code also mixes the layers of BEATs, of which ``beats:tokens`` has the last.

    References
    ----------
    MoEScore, arXiv:2601.06829.
    """

    _sizes = ("width", "n_heads", "hidden")
    _reads_tokens = True

    def __init__(
        self,
        width: int = 512,
        n_heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.3,
        *,
        optimizer: Optimizer = "adamw",
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-4,
        epochs: int = 50,
        batch_size: int = 30,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        device: str = "cpu",
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.width = width
        self.n_heads = n_heads
        self.hidden = hidden
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
        for name in self._sizes:
            check_whole_number(name, getattr(self, name), 1)
        if self.width % self.n_heads:
            raise StackingError(f"n_heads must divide width={self.width}, got {self.n_heads!r}.")
        check_share("dropout", self.dropout)

    def _plan(self) -> TrainingPlan:
        # A block is padded to its longest sequences, so a large one may take much memory.
        return replace(super()._plan(), block_rows=self.batch_size)

    def _score_weights(self, scores: FloatArray, rows: IntArray) -> FloatArray:
        return np.ones(len(rows))

    def _build(self) -> Module:
        return _cross_attention(
            self.widths_[0], self.width, self.n_heads, self.hidden, self.dropout
        )

    def _inputs(self, pairs: PairSequences, device: str) -> Inputs:
        torch = require("torch", extra="neural", purpose="CrossAttentionRegressor")

        def side(sequences: Any, rows: IntArray) -> tuple[Tensor, Tensor]:
            values, lengths = padded(sequences[rows])
            is_padding = np.arange(values.shape[1]) >= lengths[:, np.newaxis]
            return torch.from_numpy(values).to(device), torch.from_numpy(is_padding).to(device)

        def inputs(rows: IntArray, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
            return (*side(pairs.frames, rows), *side(pairs.text, rows))

        return inputs


def _cross_attention(
    widths: tuple[int, int], width: int, n_heads: int, hidden: int, dropout: float
) -> Module:
    torch: Any = require("torch", extra="neural", purpose="CrossAttentionRegressor")
    nn = torch.nn

    def projection(n_dims: int) -> Module:
        return nn.Sequential(
            nn.LayerNorm(n_dims), nn.Linear(n_dims, width), nn.GELU(), nn.LayerNorm(width)
        )

    def attended(
        attention: Module, one: Tensor, no_one: Tensor, other: Tensor, no_other: Tensor
    ) -> Tensor:
        """Return the maximum over what the vectors of one sequence find in the other."""
        found, _ = attention(one, other, other, key_padding_mask=no_other, need_weights=False)
        return found.masked_fill(no_one.unsqueeze(2), -torch.inf).amax(dim=1)

    class CrossAttention(nn.Module):  # type: ignore[name-defined]  # nn is Any
        def __init__(self) -> None:
            super().__init__()
            self.of_frames, self.of_tokens = map(projection, widths)
            self.frames_to_tokens = nn.MultiheadAttention(width, n_heads, batch_first=True)
            self.tokens_to_frames = nn.MultiheadAttention(width, n_heads, batch_first=True)
            self.mlp = nn.Sequential(
                nn.Linear(2 * width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)
            )

        def forward(
            self, frames: Tensor, no_frame: Tensor, tokens: Tensor, no_token: Tensor
        ) -> Tensor:
            clip, caption = self.of_frames(frames), self.of_tokens(tokens)
            heard = attended(self.frames_to_tokens, clip, no_frame, caption, no_token)
            read = attended(self.tokens_to_frames, caption, no_token, clip, no_frame)
            return self.mlp(torch.cat([heard, read], dim=1)).flatten()

    return CrossAttention()
