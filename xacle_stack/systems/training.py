"""The one training loop of the systems that learn by gradient, and prediction by blocks of rows.

On the CPU, fits with the same seed and the same number of PyTorch's threads are equal to the last
bit.  They leave the state of every random generator of the process as it was.  A stack holds other
libraries to one thread; PyTorch keeps its own here, so that a network does not depend on how the
stack shares its work.
"""

from __future__ import annotations

import copy
import logging
import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from xacle_stack._optional import require, stand_ins
from xacle_stack._progress import progress_bar
from xacle_stack._threads import usual_openmp_threads
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError
from xacle_stack.metrics import srcc
from xacle_stack.systems.plan import Optimizer, TrainingPlan, learning_rate_at

logger = logging.getLogger(__name__)

Tensor = Any  # torch is imported where it is used
Module = Any
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (predicted, target, weights) → no axes
# Rows → what the network's forward takes, on its device.  Only training gives a generator, for what
# is drawn at random for each batch.
Inputs = Callable[[IntArray, np.random.Generator | None], tuple[Tensor, ...]]

MOMENTUM = 0.9
BLOCK_ROWS = 512
LOSS_ROWS = 2048  # a loss over row pairs takes memory that grows with the square of the rows
# The whole process shares the generator that PyTorch's dropout draws from: trainings in several
# threads, as in a stack with n_jobs, would take each other's numbers.  PyTorch uses all cores by
# itself, so that waiting costs little.
_ONE_TRAINING = threading.Lock()


@dataclass(frozen=True)
class Examples:
    """Rows to train on, or to choose the epoch on.

    Attributes
    ----------
    inputs : callable
        (row numbers, generator or None) → tuple of tensors for the network.
    rows : ndarray of shape (n_rows,)
        Row numbers that `inputs` knows.
    targets, weights : ndarray of shape (n_rows,)
    """

    inputs: Inputs
    rows: IntArray
    targets: FloatArray
    weights: FloatArray


@dataclass(frozen=True)
class Training:
    """A network after training.

    Attributes
    ----------
    weights : dict of str to ndarray
        The network's state after its best epoch.
    n_parameters : int
    best_epoch : int
        From 1.
    validation_srcc : ndarray of shape (n_epochs,)
        NaN where it is undefined, because all predictions or all targets were equal.
    validation_loss : ndarray of shape (n_epochs,)
        For more than 2048 rows, the mean over blocks of about equal size, weighted by their rows.
    interrupt : KeyboardInterrupt, optional
        The one that ended the training, which the caller raises once the network is usable.
    """

    weights: dict[str, Any]
    n_parameters: int
    best_epoch: int
    validation_srcc: FloatArray
    validation_loss: FloatArray
    interrupt: KeyboardInterrupt | None


def train(
    build: Callable[[], Module],
    loss: Loss,
    plan: TrainingPlan,
    examples: Examples,
    validation: Examples,
    *,
    seed: int,
    device: str = "cpu",
    title: str = "training",
    shown: bool = False,
) -> Training:
    """Train a network and keep its state after the epoch with the best validation SRCC.

    Among epochs whose SRCC is equal or undefined, the one with the lowest validation loss is best.
    A KeyboardInterrupt after the first epoch ends the training, which is logged, and is returned
    with the best state so far.  During the first epoch there is nothing to keep: it is raised.

    Parameters
    ----------
    build : callable
        Returns the new network, whose initial weights may be drawn from PyTorch's generator.
    loss : callable
    plan : TrainingPlan
    examples, validation : Examples
        At least two rows to validate on.
    seed : int
    device : str, default="cpu"
    title : str, default="training"
        The label of the progress bar.
    shown : bool, default=False
        Whether there is a progress bar.

    Returns
    -------
    training : Training

    Raises
    ------
    StackingError
        If predictions are not finite after the first epoch.
    """
    torch = require("torch", extra="neural", purpose="training a network")
    with _reproducible(torch, seed, device):
        network = build().to(device)
        run = _Run(torch, network, loss, plan, examples, validation, seed, device)
        with progress_bar(title, plan.epochs, "epochs", shown=shown) as bar:
            run.go(bar)
        parameters = network.parameters()
        return Training(
            weights={name: tensor.cpu().numpy() for name, tensor in run.best_state.items()},
            n_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            best_epoch=run.best_epoch,
            validation_srcc=np.array(run.validation_srcc),
            validation_loss=np.array(run.validation_loss),
            interrupt=run.interrupt,
        )


def predict(network: Module, inputs: Inputs, rows: IntArray) -> FloatArray:
    """Return a network's outputs for some rows, shape (n_rows,), float32; nothing is dropped out.

    Rows are computed in blocks.  A row's output depends on the other rows only by rounding, about
    1e-6 of its value, because matrix products of another shape add up in another order.
    """
    torch = require("torch", extra="neural", purpose="a network's prediction")
    network.eval()
    blocks = [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]
    with torch.inference_mode(), usual_openmp_threads():
        parts = [network(*inputs(block, None)).float().cpu().numpy() for block in blocks]
    predicted: FloatArray = np.concatenate(parts)
    return predicted


def load_network(build: Callable[[], Module], weights: Mapping[str, Any], device: str) -> Module:
    """Return a network with trained weights; on the CPU it shares their memory."""
    torch = require("torch", extra="neural", purpose="a trained network")
    with torch.device("meta"):  # without initial weights
        network = build()
    tensors = {
        # PyTorch warns of arrays that it may not write to, such as those of a memory map.
        name: torch.from_numpy(array if array.flags.writeable else array.copy())
        for name, array in weights.items()
    }
    network.load_state_dict(tensors, assign=True)
    return network.to(device)


class _Run:
    """One training, with the state of its optimiser and the best state of its network."""

    def __init__(
        self,
        torch: Any,
        network: Module,
        loss: Loss,
        plan: TrainingPlan,
        examples: Examples,
        validation: Examples,
        seed: int,
        device: str,
    ) -> None:
        self.network, self.loss, self.plan = network, loss, plan
        self.examples, self.validation = examples, validation
        self.rng = np.random.default_rng(seed)

        def tensor(values: FloatArray) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(device)

        self.targets, self.weights = tensor(examples.targets), tensor(examples.weights)
        self.validation_tensors = tensor(validation.targets), tensor(validation.weights)
        self.tensor = tensor
        kind, enabled = torch.device(device).type, plan.precision == "bfloat16"
        self.autocast = partial(torch.autocast, kind, torch.bfloat16, enabled)
        self.optimizer = _OPTIMIZERS[plan.optimizer](torch, network.parameters(), plan)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=0.5, patience=plan.plateau_patience
        )
        self.validation_srcc: list[float] = []
        self.validation_loss: list[float] = []
        self.best_epoch = 0
        self.best = (-math.inf, -math.inf)
        self.best_state: dict[str, Tensor] = {}
        self.interrupt: KeyboardInterrupt | None = None

    def go(self, bar: tqdm[Any]) -> None:
        """Train until the plan, the user or an output that is not finite ends it."""
        try:
            for epoch in range(self.plan.epochs):
                self._train_epoch(epoch)
                if not self._validate(epoch + 1):
                    self._end_without_finite_predictions()
                    break
                bar.update()
                rank = f"{self.best[0]:.4f}" if math.isfinite(self.best[0]) else "undefined"
                bar.set_postfix_str(f"SRCC {rank}")
                if self._is_out_of_patience():
                    break
        except KeyboardInterrupt as interrupt:
            if not self.best_state:
                raise
            self.interrupt = interrupt
            logger.warning("Training was interrupted %s", self._what_is_kept())

    def _end_without_finite_predictions(self) -> None:
        if not self.best_state:
            raise StackingError(
                "the network's predictions are not finite after its first epoch. Give a smaller "
                "learning_rate, or scores of a smaller range."
            )
        warnings.warn(
            f"the predictions are no longer finite: training ended {self._what_is_kept()}",
            stacklevel=5,
        )

    def _what_is_kept(self) -> str:
        return (
            f"after {len(self.validation_srcc)} of {self.plan.epochs} epochs. The network keeps "
            f"its state after epoch {self.best_epoch}, the best so far."
        )

    def _train_epoch(self, epoch: int) -> None:
        self.network.train()
        order = self.rng.permutation(len(self.examples.rows))
        starts = range(0, len(order), self.plan.batch_size)
        for step, start in enumerate(starts):
            if self.plan.schedule == "cosine":
                rate = learning_rate_at(self.plan, epoch + (step + 1) / len(starts))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
            batch = order[start : start + self.plan.batch_size]
            inputs = self.examples.inputs(self.examples.rows[batch], self.rng)
            # Only the forward pass is inside: autocast keeps its copies of the weights to the end.
            with self.autocast():
                predicted = self.network(*inputs).float()
            loss = self.loss(predicted, self.targets[batch], self.weights[batch])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()

    def _validate(self, epoch: int) -> bool:
        """Keep the network's state if it is the best so far; return whether outputs are finite."""
        predicted = predict(self.network, self.validation.inputs, self.validation.rows)
        if not np.isfinite(predicted).all():
            return False
        rank = srcc(self.validation.targets, predicted)
        loss = self._validation_loss(predicted)
        if self.plan.schedule == "plateau":
            self.plateau.step(loss)
        reached = (-math.inf if math.isnan(rank) else rank, -loss)
        if not self.best_state or reached > self.best:
            state = copy.deepcopy(self.network.state_dict())
            self.best_state, self.best, self.best_epoch = state, reached, epoch
        self.validation_srcc.append(rank)
        self.validation_loss.append(loss)
        return True

    def _validation_loss(self, predicted: FloatArray) -> float:
        """Return the mean loss of blocks of rows, weighted by their number of rows."""
        tensors = (self.tensor(predicted), *self.validation_tensors)
        n_blocks = math.ceil(len(predicted) / LOSS_ROWS)
        blocks = zip(*(tensor.chunk(n_blocks) for tensor in tensors), strict=True)
        parts = [float(self.loss(*block)) * (len(block[0]) / len(predicted)) for block in blocks]
        return sum(parts)

    def _is_out_of_patience(self) -> bool:
        patience = self.plan.patience
        return patience is not None and len(self.validation_srcc) - self.best_epoch >= patience


def _lars(torch: Any, parameters: Iterator[Tensor], plan: TrainingPlan) -> Any:
    if "timm.optim" not in sys.modules:
        # Importing timm imports its models, which need torchvision; its optimisers do not.
        with stand_ins(["torchvision"]):
            require("timm.optim", extra="neural", purpose="the optimiser LARS")
    return sys.modules["timm.optim"].Lars(
        list(parameters), plan.learning_rate, momentum=MOMENTUM, weight_decay=plan.weight_decay
    )


def _adam(torch: Any, parameters: Iterator[Tensor], plan: TrainingPlan) -> Any:
    return torch.optim.Adam(
        list(parameters), plan.learning_rate, weight_decay=plan.weight_decay, fused=True
    )


_OPTIMIZERS: Mapping[Optimizer, Callable[[Any, Iterator[Tensor], TrainingPlan], Any]] = {
    "lars": _lars,
    "adam": _adam,
}


@contextmanager
def _reproducible(torch: Any, seed: int, device: str) -> Iterator[None]:
    """Seed PyTorch's generators, and restore their state at the end."""
    on_cpu = torch.device(device).type == "cpu"
    with (
        _ONE_TRAINING,
        torch.random.fork_rng(devices=[] if on_cpu else [torch.device(device)]),
        usual_openmp_threads(),
    ):
        torch.manual_seed(seed)
        yield
