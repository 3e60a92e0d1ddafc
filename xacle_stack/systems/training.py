"""The one training loop of the systems that learn by gradient, and prediction by blocks of rows.

Fits are the same to the last bit on the CPU, for the same seed and the same number of PyTorch's
threads, and leave the state of every random generator of the process as it was.
"""

from __future__ import annotations

import copy
import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from xacle_stack._optional import require, stand_ins
from xacle_stack._progress import progress_bar
from xacle_stack._threads import openmp_threads
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError
from xacle_stack.metrics import srcc
from xacle_stack.systems.plan import Optimizer, TrainingPlan, learning_rate_at

Tensor = Any  # torch is imported where it is used
Module = Any
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (predicted, target, weights) → no axes
# Rows → what the network's forward takes, on its device.  The generator is given in training only,
# for what a batch draws: an augmented view, a crop.
Inputs = Callable[[IntArray, np.random.Generator | None], tuple[Tensor, ...]]

MOMENTUM = 0.9
BLOCK_ROWS = 512
LOSS_ROWS = 2048  # losses of pairs of rows take memory by the square
# PyTorch's dropout draws from one generator in the process: trainings in several threads, as in a
# stack with n_jobs, would draw each other's numbers.  PyTorch fills the cores by itself.
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
        Of more than 2048 rows the mean over blocks of about equal size, by their rows.
    was_interrupted : bool
        Whether a KeyboardInterrupt ended it.
    """

    weights: dict[str, Any]
    n_parameters: int
    best_epoch: int
    validation_srcc: FloatArray
    validation_loss: FloatArray
    was_interrupted: bool


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

    Of epochs whose SRCC is equal or undefined, the one with the least validation loss is the best.
    A KeyboardInterrupt ends the training with a warning; before the end of the first epoch, when
    there is nothing to keep, it goes on to the caller.

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
        Of the progress bar.
    shown : bool, default=False

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
            was_interrupted=run.was_interrupted,
        )


def predict(network: Module, inputs: Inputs, rows: IntArray) -> FloatArray:
    """Return a network's outputs for some rows, shape (n_rows,), float32; nothing is dropped out.

    Rows are computed in blocks.  A row's output does not depend on the others, but for the last
    bits: about 1e-6 of it, since products of other shapes add up in another order.
    """
    torch = require("torch", extra="neural", purpose="a network's prediction")
    network.eval()
    blocks = [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]
    with torch.inference_mode(), _usual_threads(torch):
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
    """One training: the state of the optimiser, and the best state of the network."""

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
        self.on_validation = tensor(validation.targets), tensor(validation.weights)
        self.tensor = tensor
        where, enabled = torch.device(device).type, plan.precision == "bfloat16"
        self.autocast = partial(torch.autocast, where, torch.bfloat16, enabled)
        self.optimizer = _OPTIMIZERS[plan.optimizer](torch, network.parameters(), plan)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=0.5, patience=plan.plateau_patience
        )
        self.validation_srcc: list[float] = []
        self.validation_loss: list[float] = []
        self.best_epoch = 0
        self.best = (-math.inf, -math.inf)
        self.best_state: dict[str, Tensor] = {}
        self.was_interrupted = False

    def go(self, bar: tqdm[Any]) -> None:
        """Train until the plan, the user or an output that is not finite ends it."""
        why = ""
        try:
            for epoch in range(self.plan.epochs):
                self._train_epoch(epoch)
                if not self._validate(epoch + 1):
                    why = "the predictions are no longer finite"
                    break
                bar.update()
                rank = f"{self.best[0]:.4f}" if math.isfinite(self.best[0]) else "undefined"
                bar.set_postfix_str(f"validation SRCC {rank}")
                if self._is_out_of_patience():
                    break
        except KeyboardInterrupt:
            if not self.best_state:
                raise
            self.was_interrupted = True
            why = "interrupted"
        if not self.best_state:
            raise StackingError(
                "the network's predictions are not finite after its first epoch. Give a smaller "
                "learning_rate, or scores of a smaller range."
            )
        if why:
            warnings.warn(
                f"training ended after {len(self.validation_srcc)} of {self.plan.epochs} epochs "
                f"({why}); the state after epoch {self.best_epoch} is kept, the best until then.",
                stacklevel=4,
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
            # Around the forward pass only: autocast keeps its copies of the weights until its end.
            with self.autocast():
                predicted = self.network(*inputs).float()
            loss = self.loss(predicted, self.targets[batch], self.weights[batch])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()

    def _validate(self, epoch: int) -> bool:
        """Note how good the network is, keep its state if it is the best; False if not finite."""
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
        """Return the mean loss of blocks of rows, by their number of rows."""
        tensors = (self.tensor(predicted), *self.on_validation)
        n_blocks = math.ceil(len(predicted) / LOSS_ROWS)
        blocks = zip(*(tensor.chunk(n_blocks) for tensor in tensors), strict=True)
        parts = [float(self.loss(*block)) * (len(block[0]) / len(predicted)) for block in blocks]
        return sum(parts)

    def _is_out_of_patience(self) -> bool:
        patience = self.plan.patience
        return patience is not None and len(self.validation_srcc) - self.best_epoch >= patience


def _lars(torch: Any, parameters: Iterator[Tensor], plan: TrainingPlan) -> Any:
    if "timm.optim" not in sys.modules:
        # timm's models want torchvision, its optimisers do not.
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
    """Seed PyTorch, and give its generators their state back at the end."""
    on_cpu = torch.device(device).type == "cpu"
    with (
        _ONE_TRAINING,
        torch.random.fork_rng(devices=[] if on_cpu else [torch.device(device)]),
        _usual_threads(torch),
    ):
        torch.manual_seed(seed)
        yield


@contextmanager
def _usual_threads(torch: Any) -> Iterator[None]:
    """Compute with the threads that PyTorch is set to, whatever thread this is.

    A stack holds other libraries at one thread, in its own thread only: the last digits of a
    network's products, and so its training, would depend on how the stack shares its work.
    """
    with ThreadPoolExecutor(1) as fresh:
        n_threads = fresh.submit(torch.get_num_threads).result()
    with openmp_threads(n_threads):
        yield
