"""A language model that writes captions of clips: the first stage of the audio language model.

Source: the TMU system of the XACLE challenge 2026, arXiv:2602.00604.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from xacle_stack._progress import progress_bar
from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_whole_number
from xacle_stack.systems.audio_language_base import DEFAULT_LANGUAGE_MODEL, AudioLanguageEstimator
from xacle_stack.systems.language_model import language_from
from xacle_stack.systems.training import Examples, Inputs, Tensor


class AudioCaptioner(AudioLanguageEstimator):
    """Learn to write the caption of a clip, from pairs without ratings.

    The language model reads ``AUDIO_START, clip, AUDIO_END`` and learns to continue with the
    caption: it minimises the mean cross entropy of a caption's tokens and its end, over all tokens
    of a batch.

    Parameters
    ----------
    language_model, tuning, lora_rank, n_audio_tokens, max_tokens, dropout, initial, weight_decay, \
batch_size, micro_batch, gradient_checkpointing, max_gradient, validation_fraction, precision, \
device, checkpoints, checkpoint_minutes, verbose, random_state
        As of :class:`AudioLanguageModelRegressor`.  The epoch with the lowest validation loss is
        kept.
    learning_rate : float, default=1e-5
    epochs : int, default=3
    patience : int, optional
        Training stops after this many epochs without a lower validation loss; by default never.

    Attributes
    ----------
    weights_ : mapping of str to ndarray
        The network after the epoch with the lowest validation loss.
    validation_loss_ : ndarray of shape (n_epochs,)
        The mean cross entropy of the held-out captions' tokens, in nats.

    Notes
    -----
    X is a :class:`~xacle_stack.features.CaptionedSequences`.
    """

    _pads_left = False
    head = None

    def __init__(
        self,
        language_model: str = DEFAULT_LANGUAGE_MODEL,
        *,
        tuning: Literal["full", "frozen", "lora"] = "full",
        lora_rank: int = 8,
        n_audio_tokens: int = 100,
        max_tokens: int = 256,
        dropout: float = 0.1,
        initial: str | None = None,
        learning_rate: float = 1e-5,
        weight_decay: float = 0.01,
        epochs: int = 3,
        batch_size: int = 16,
        micro_batch: int | None = None,
        gradient_checkpointing: bool = False,
        max_gradient: float | None = 1.0,
        patience: int | None = None,
        validation_fraction: float = 0.1,
        precision: Literal["bfloat16", "float32"] = "bfloat16",
        device: str = "auto",
        checkpoints: str | Path | None = None,
        checkpoint_minutes: float = 10.0,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.language_model = language_model
        self.tuning = tuning
        self.lora_rank = lora_rank
        self.n_audio_tokens = n_audio_tokens
        self.max_tokens = max_tokens
        self.dropout = dropout
        self.initial = initial
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.micro_batch = micro_batch
        self.gradient_checkpointing = gradient_checkpointing
        self.max_gradient = max_gradient
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.precision = precision
        self.device = device
        self.checkpoints = checkpoints
        self.checkpoint_minutes = checkpoint_minutes
        self.verbose = verbose
        self.random_state = random_state

    def fit(  # type: ignore[override]  # there are no scores
        self,
        X: Any,
        y: object = None,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train the network on clips and their captions.

        Parameters
        ----------
        X : CaptionedSequences
        y : ignored
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are held out together; by default those of a caption.
        sample_weight : array-like of shape (n_pairs,), optional

        Raises
        ------
        StackingError, MissingExtraError, KeyboardInterrupt
            As of :meth:`NeuralRegressor.fit`.
        """
        labels = getattr(X, "captions", None) if groups is None else groups
        return super().fit(X, np.zeros(len(X)), labels, sample_weight)

    def predict(self, X: Any) -> list[str]:  # type: ignore[override]  # it writes texts
        """Return the most likely continuation, word by word; see :meth:`write`."""
        return self.write(X)

    def write(self, X: Any, *, n_beams: int = 1, max_new_tokens: int = 64) -> list[str]:
        """Write a caption for each clip.

        Parameters
        ----------
        X : CaptionedSequences
            Its captions are not read.
        n_beams : int, default=1
            How many continuations are followed; with 1 always the most likely next token.
        max_new_tokens : int, default=64
            Longer captions are cut there.

        Returns
        -------
        captions : list of str
        """
        check_is_fitted(self)
        check_whole_number("n_beams", n_beams, 1)
        check_whole_number("max_new_tokens", max_new_tokens, 1)
        import torch

        checked, _ = self._check_pairs(X, None, reset=False)
        pairs, device = self._read(checked, reset=False), self._devices()[0]
        network = self._network(device)
        inputs, language = self._inputs(pairs, device), language_from(**self.language_)
        written: list[str] = []
        rows, n_rows = np.arange(len(pairs)), self._plan().block_rows
        with (
            torch.inference_mode(),
            progress_bar("captioning", len(rows), "clips", shown=self.verbose) as bar,
        ):
            for block in row_blocks(0, len(rows), n_rows):
                audio, *_ = inputs(rows[block], None)
                for tokens in network.generate(audio, n_beams, max_new_tokens):
                    written.append(language.text(tokens))
                bar.update(len(audio))
        return written

    def losses(self, X: Any) -> FloatArray:
        """Return each caption's mean cross entropy in nats a token, shape (n_pairs,)."""
        return super().predict(X)

    def _loss(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        total = weights.sum()
        return (predicted * weights).sum() / total.where(total > 0, total + 1)

    def _examples(
        self, inputs: Inputs, rows: IntArray, scores: FloatArray, weights: FloatArray
    ) -> Examples:
        n_tokens: Any = inputs.n_tokens  # type: ignore[attr-defined]  # what _inputs returned
        return Examples(inputs, rows, scores[rows], weights[rows] * n_tokens[rows])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags
