"""How a network is trained, and its learning rate at every step."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from xacle_stack._validation import (
    check_choice,
    check_not_negative,
    check_positive,
    check_whole_number,
)

Optimizer = Literal["lars", "adam", "adamw"]
Schedule = Literal["cosine", "cosine-by-epoch", "plateau"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained.

    Attributes
    ----------
    batch_size : int
        Rows in each step; the last batch of an epoch may be shorter.
    learning_rate : float
        The highest rate.
    optimizer : {"lars", "adam", "adamw"}
        LARS is timm's, with momentum 0.9.  Without weight decay, timm's LARS does not adapt to
        the layers and is gradient descent with momentum.
    schedule : {"cosine", "cosine-by-epoch", "plateau"}
        "cosine" follows a cosine down to `final_learning_rate` step by step, after a linear rise
        over the first `warmup_epochs`; "cosine-by-epoch" falls once an epoch.  "plateau" halves the
        rate whenever the validation loss has not fallen for more than `plateau_patience` epochs.
    patience : int, optional
        Training stops after this many epochs without a better one; by default never.
    precision : {"float32", "bfloat16"}
        The precision of the matrix products in training; weights, loss and validation stay float32.
    max_gradient : float, optional
        A gradient whose norm is larger is scaled down to it; by default none is.
    micro_batch : int, optional
        How many rows go through the network at once, where a batch does not fit into memory.  The
        loss is that of the whole batch: what it takes is computed first, without gradients, and
        each part once more with them, so that a step takes a third longer.  By default all rows.
    block_rows : int, default=512
        How many rows are predicted at once.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Optimizer = "adam"
    weight_decay: float = 0.0
    schedule: Schedule = "cosine"
    warmup_epochs: float = 0.0
    final_learning_rate: float = 0.0
    plateau_patience: int = 5
    patience: int | None = None
    precision: Precision = "float32"
    max_gradient: float | None = None
    micro_batch: int | None = None
    block_rows: int = 512

    def __post_init__(self) -> None:
        check_whole_number("epochs", self.epochs, 1)
        check_whole_number("batch_size", self.batch_size, 1)
        check_whole_number("block_rows", self.block_rows, 1)
        for name in ("patience", "micro_batch"):
            if getattr(self, name) is not None:
                check_whole_number(name, getattr(self, name), 1)
        if self.max_gradient is not None:
            check_positive("max_gradient", self.max_gradient)
        check_whole_number("plateau_patience", self.plateau_patience, 0)
        check_choice("optimizer", self.optimizer, get_args(Optimizer))
        check_choice("schedule", self.schedule, get_args(Schedule))
        check_choice("precision", self.precision, get_args(Precision))
        check_positive("learning_rate", self.learning_rate)
        for name in ("weight_decay", "warmup_epochs", "final_learning_rate"):
            check_not_negative(name, getattr(self, name))


def learning_rate_at(plan: TrainingPlan, epoch: float) -> float:
    """Return the learning rate of the cosine schedule after a number of epochs.

    With t for `epoch`, which may be a fraction: ``rate · t/warmup`` while t < warmup, then
    ``end + (rate − end)(1 + cos(π t/epochs))/2``.  As in timm the cosine starts at t = 0, so that
    it has already fallen a little where the rise ends.

    Examples
    --------
    >>> plan = TrainingPlan(10, 32, 1e-3, warmup_epochs=2)
    >>> [round(learning_rate_at(plan, t), 6) for t in (1, 2, 5, 10)]
    [0.0005, 0.000905, 0.0005, 0.0]
    """
    if epoch < plan.warmup_epochs:
        return plan.learning_rate * epoch / plan.warmup_epochs
    fall = (1 + math.cos(math.pi * epoch / plan.epochs)) / 2
    return plan.final_learning_rate + (plan.learning_rate - plan.final_learning_rate) * fall
