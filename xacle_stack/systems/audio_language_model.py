"""A language model that listens: the third place of the XACLE challenge 2026.

Source: the TMU system, arXiv:2602.00604, and its public code and configuration.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack._validation import check_choice
from xacle_stack.errors import ModelFileError
from xacle_stack.stacking.calibration import MonotoneCalibration
from xacle_stack.systems.audio_language_base import DEFAULT_LANGUAGE_MODEL, AudioLanguageEstimator
from xacle_stack.systems.losses import LOSSES, centred, uncentred
from xacle_stack.systems.training import Tensor


class AudioLanguageModelRegressor(AudioLanguageEstimator):
    """Predict scores by a language model that reads the caption and the clip.

    A clip is a sequence of frozen vectors, such as BEATs's tokens.  A projection turns them into
    vectors of the language model's tokens, and the model reads ``caption, AUDIO_START, clip,
    AUDIO_END, SCORE``.  Its last hidden state at SCORE goes through a head to the score.

    The network learns ``y/5 − 1``.  "listnet" and "pairwise" see only the order of the scores; a
    strictly increasing map, fitted on the validation pairs, brings the network's outputs to the
    scale of the scores.

    The defaults are the published configuration of its third stage.  The first two give it better
    `initial` weights: :class:`AudioCaptioner` learns to caption clips, and this class on
    pseudo-labels learns what a teacher thinks of right and wrong captions.

    Parameters
    ----------
    language_model : str, default="Qwen/Qwen2.5-0.5B-Instruct"
        A decoder that transformers loads as a causal language model: a hub id, or a folder with
        ``config.json``, ``tokenizer.json`` and weights in safetensors.
    loss : {"listnet", "mse", "pairwise"}, default="listnet"
        See :mod:`~xacle_stack.systems.losses`.  The first and the last learn the order within a
        batch.
    head : {"mlp", "linear"}, default="mlp"
        Three hidden layers of 512, 512 and 128, as released; or one linear layer, as published.
    tuning : {"full", "frozen", "lora"}, default="full"
        Whether all of the language model is trained, as published; nothing of it, as released; or
        small matrices beside it (LoRA), which are added to it after the training.  The projection,
        the three tokens and the head are trained always.
    lora_rank : int, default=8
    n_audio_tokens : int, default=100
        Longer or shorter sequences of vectors are pooled to this number.
    max_tokens : int, default=256
        The longest caption; a longer one is an error.
    dropout : float, default=0.1
        In the projection and the head.
    initial : str, optional
        Weights in safetensors to begin with, as :class:`AudioCaptioner` or this class saved them;
        by default those of the language model, and random ones beside them.
    learning_rate : float, default=6.2e-6
        Falls by a cosine, once an epoch, to a hundredth.
    weight_decay : float, default=0.01
    epochs : int, default=150
    batch_size : int, default=16
    micro_batch : int, optional
        Rows that go through the network at once where a batch does not fit into memory.  It changes
        nothing but rounding and time; see :class:`~xacle_stack.systems.plan.TrainingPlan`.
    gradient_checkpointing : bool, default=False
        Whether activations are computed again for the gradients, which takes less memory and a
        third more time.
    max_gradient : float, default=1.0
        The norm to which longer gradients are scaled.
    patience : int, default=20
        Training stops after this many epochs without a better validation SRCC.
    validation_fraction : float, default=0.1
        The share of the training rows, at least ten, that is held out to choose the epoch on if
        `fit` gets no `eval_set`.
    precision : {"bfloat16", "float32"}, default="bfloat16"
        The precision of the matrix products in training.
    device : str, default="auto"
        "auto" is every CUDA device, or the CPU if there is none.  Several devices share each batch.
    checkpoints : path-like, optional
        A folder in which the training keeps its state, after every epoch and every
        `checkpoint_minutes`.  A fit with the same settings and data goes on from there, and on the
        CPU ends with the bits of an undisturbed one.  The finished state stays there, until you
        delete it.
    checkpoint_minutes : float, default=10.0
    verbose : bool, default=False
        Whether there is a progress bar.
    random_state : int, RandomState or None, default=None
        Draws the rows held out, the initial weights, the batches, the views and the dropout.

    Attributes
    ----------
    weights_ : mapping of str to ndarray
        The network after the epoch with the best validation SRCC.
    language_ : dict
        The language model's settings, its tokenizer and its end token.
    calibration_ : MonotoneCalibration or None
        None with the loss "mse".
    n_parameters_ : int
        How many numbers are trained.
    best_epoch_ : int
        Counted from 1.
    validation_srcc_, validation_loss_ : ndarray of shape (n_epochs,)
    widths_ : list of (int, int)
        One pair: the lengths of a clip's vectors and of the language model's.

    Notes
    -----
    X is a :class:`~xacle_stack.features.CaptionedSequences`.  The columns of a plain array are a
    clip of one vector without a caption.  Augmented views of the clips are drawn in training, a
    clip or one of its views for each row and step.

    The published code pads captions on the right, so that a score depends on the longest caption of
    the batch.  Here captions are padded on the left and positions are counted without padding.

    References
    ----------
    arXiv:2602.00604 (TMU, XACLE challenge 2026); Cao et al. 2007, Learning to rank (ListNet).
    """

    _pads_left = True
    _sizes = ()

    def __init__(
        self,
        language_model: str = DEFAULT_LANGUAGE_MODEL,
        *,
        loss: Literal["listnet", "mse", "pairwise"] = "listnet",
        head: Literal["mlp", "linear"] = "mlp",
        tuning: Literal["full", "frozen", "lora"] = "full",
        lora_rank: int = 8,
        n_audio_tokens: int = 100,
        max_tokens: int = 256,
        dropout: float = 0.1,
        initial: str | None = None,
        learning_rate: float = 6.2e-6,
        weight_decay: float = 0.01,
        epochs: int = 150,
        batch_size: int = 16,
        micro_batch: int | None = None,
        gradient_checkpointing: bool = False,
        max_gradient: float | None = 1.0,
        patience: int | None = 20,
        validation_fraction: float = 0.1,
        precision: Literal["bfloat16", "float32"] = "bfloat16",
        device: str = "auto",
        checkpoints: str | Path | None = None,
        checkpoint_minutes: float = 10.0,
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.language_model = language_model
        self.loss = loss
        self.head = head
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

    def check_settings(self) -> None:
        """Check the settings, without data and without PyTorch; errors as of the base class."""
        super().check_settings()
        check_choice("loss", self.loss, LOSSES)
        check_choice("head", self.head, ("mlp", "linear"))

    def check_state(self) -> None:
        """Check weights and settings that come from a file; errors as of `NeuralRegressor`."""
        super().check_state()
        if self.head not in ("mlp", "linear"):
            raise ModelFileError(f"head is {self.head!r}.")
        if not isinstance(self.calibration_, MonotoneCalibration | None):
            raise ModelFileError(f"calibration_ is a {type(self.calibration_).__name__}.")

    def _prepare(self, scores: FloatArray, weights: FloatArray) -> None:
        self.calibration_: MonotoneCalibration | None = None

    def _loss(self, predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        return LOSSES[self.loss](predicted, target, weights)

    def _targets(self, scores: FloatArray) -> FloatArray:
        return centred(scores)

    def _finish(self, predicted: FloatArray, scores: FloatArray, weights: FloatArray) -> None:
        if self.loss != "mse":
            self.calibration_ = MonotoneCalibration().fit(predicted, scores, weights)

    def _to_scores(self, predicted: FloatArray) -> FloatArray:
        if self.calibration_ is not None:
            return self.calibration_.predict(predicted)
        return uncentred(predicted)
