"""The one training loop of the systems that learn by gradient, and prediction by blocks of rows.

On the CPU, fits with the same seed and the same number of PyTorch's threads are equal to the last
bit.  They leave the state of every random generator of the process as it was.  A stack holds other
libraries to one thread; PyTorch keeps its own here, so that a network does not depend on how the
stack shares its work.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from xacle_stack._optional import require, stand_ins
from xacle_stack._progress import progress_bar
from xacle_stack._rows import row_blocks
from xacle_stack._threads import one_thread, usual_openmp_threads
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError
from xacle_stack.metrics import srcc
from xacle_stack.systems.checkpoints import TrainingCheckpoint
from xacle_stack.systems.plan import Optimizer, Precision, TrainingPlan, learning_rate_at

logger = logging.getLogger(__name__)

Tensor = Any  # torch is imported where it is used
Module = Any
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (predicted, target, weights) → no axes
# Rows → what the network's forward takes, on its device.  Only training gives a generator, for what
# is drawn at random for each batch.
Inputs = Callable[[IntArray, np.random.Generator | None], tuple[Tensor, ...]]

MOMENTUM = 0.9
# With fewer products of a weight and a row in a batch, PyTorch's threads save little, and on busy
# cores they wait for each other most of the time.
_SMALL = 10**8
LOSS_ROWS = 2048  # a loss over row pairs takes memory that grows with the square of the rows
# The whole process shares the generator that PyTorch's dropout draws from: trainings in several
# threads, as in a stack with n_jobs, would take each other's numbers.  PyTorch uses all cores by
# itself, so that waiting costs little.
_ONE_TRAINING = threading.Lock()


@dataclass(frozen=True)
class Examples:
    """Rows to train on, or to choose the epoch on.

    `inputs` makes tensors for the network from row numbers that it knows, such as `rows`, and from
    a generator or None.
    """

    inputs: Inputs
    rows: IntArray
    targets: FloatArray
    weights: FloatArray


@dataclass(frozen=True)
class Training:
    """A network after training: its state after its best epoch, counted from 1.

    An SRCC is NaN where it is undefined, because all predictions or all targets were equal.  The
    loss of more than 2048 rows is the mean over blocks of about equal size, weighted by their rows.
    The caller raises `interrupt`, if one ended the training, once the network is usable.
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
    devices: Sequence[str] = ("cpu",),
    checkpoint: TrainingCheckpoint | None = None,
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
        Parameters that need no gradient keep their values.
    examples, validation : Examples
        At least two rows to validate on.
    devices : sequence of str, default=("cpu",)
        Several have a process each, and share the rows of every batch: the loss is that of the
        whole batch.  Then all that is given here must be picklable.
    checkpoint : TrainingCheckpoint, optional
        Where the state is kept, and where the training goes on that was killed.
    title : str, default="training"
        The label of the progress bar.
    shown : bool, default=False
        Whether there is a progress bar.

    Raises
    ------
    StackingError
        If predictions are not finite after the first epoch, or the checkpoint cannot be read or
        written.
    """
    fabric = _new_fabric(devices, plan.precision)
    task = partial(
        _train,
        task=(build, loss, plan, examples, validation, seed, checkpoint),
        title=title,
        shown=shown,
    )
    # Fabric changes dataclasses on their way between processes, or fails at frozen ones.
    return Training(**(task(fabric) if len(devices) == 1 else fabric.launch(task)))


def _new_fabric(devices: Sequence[str], precision: Precision) -> Any:
    """Return Lightning's Fabric, which starts the processes and knows precisions and devices."""
    lightning = require("lightning_fabric", extra="neural", purpose="training a network")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind = devices[0].partition(":")[0]
    return lightning.Fabric(
        accelerator=kind,
        devices=len(devices)
        if kind == "cpu"
        else [int(name.partition(":")[2]) for name in devices],
        strategy="auto" if len(devices) == 1 else "ddp_spawn",
        precision="bf16-mixed" if precision == "bfloat16" else "32-true",
    )


def _train(fabric: Any, task: tuple[Any, ...], title: str, shown: bool) -> dict[str, Any]:
    """Train in one of the processes; return the fields of the result, which all have."""
    import torch

    build, loss, plan, examples, validation, seed, checkpoint = task
    with _reproducible(torch, seed, fabric.device):
        run = _Run(fabric, build(), loss, plan, examples, validation, seed, checkpoint)
        n_batches = plan.epochs * run.n_steps
        shown = shown and fabric.global_rank == 0
        few_threads = one_thread() if run.is_small else nullcontext()
        with progress_bar(title, n_batches, "batches", shown=shown) as bar, few_threads:
            run.go(bar)
        return run.result()


def array_inputs(arrays: Sequence[FloatArray], device: str) -> Inputs:
    """Return inputs that are the same rows of several arrays, which are kept on the device."""
    torch = require("torch", extra="neural", purpose="a network's inputs")
    tensors = [torch.from_numpy(array.astype(np.float32, order="C")).to(device) for array in arrays]

    def inputs(rows: IntArray, rng: np.random.Generator | None) -> tuple[Tensor, ...]:
        return tuple(tensor[rows] for tensor in tensors)

    return inputs


def predict(
    network: Module, inputs: Inputs, rows: IntArray, block_rows: int = TrainingPlan.block_rows
) -> FloatArray:
    """Return a network's outputs for some rows, shape (n_rows,), float32; nothing is dropped out.

    Rows are computed in blocks.  A row's output depends on the other rows only by rounding, about
    1e-6 of its value, because matrix products of another shape add up in another order.
    """
    torch = require("torch", extra="neural", purpose="a network's prediction")
    network.eval()
    with torch.inference_mode(), usual_openmp_threads():
        parts = [
            network(*inputs(block, None)).float().cpu().numpy()
            for block in _split(rows, block_rows)
        ]
    predicted: FloatArray = np.concatenate(parts)
    return predicted


def load_network(build: Callable[[], Module], weights: Mapping[str, Any], device: str) -> Module:
    """Return a network with trained weights; on the CPU it shares their memory."""
    torch = require("torch", extra="neural", purpose="a trained network")
    with _without_draws(torch):
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
        fabric: Any,
        network: Module,
        loss: Loss,
        plan: TrainingPlan,
        examples: Examples,
        validation: Examples,
        seed: int,
        checkpoint: TrainingCheckpoint | None,
    ) -> None:
        import torch

        self.torch, self.fabric, self.loss, self.plan = torch, fabric, loss, plan
        self.examples, self.validation, self.checkpoint = examples, validation, checkpoint
        self.network = network.to(fabric.device)
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = _OPTIMIZERS[plan.optimizer](torch, trained, plan)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=0.5, patience=plan.plateau_patience
        )
        # What computes in the plan's precision, and on several devices adds gradients up.
        self.wrapped, self.stepper = fabric.setup(self.network, self.optimizer)
        self.rng = np.random.default_rng(seed)
        self.draws = self.rng  # for what the inputs draw
        if fabric.world_size > 1:
            self.draws = np.random.default_rng([seed, fabric.global_rank])
            torch.manual_seed(seed + fabric.global_rank)

        def tensor(values: FloatArray) -> Tensor:
            return torch.from_numpy(values.astype(np.float32)).to(fabric.device)

        self.targets, self.weights = tensor(examples.targets), tensor(examples.weights)
        self.validation_tensors = tensor(validation.targets), tensor(validation.weights)
        self.tensor = tensor
        self.n_steps = math.ceil(len(examples.rows) / plan.batch_size)
        self.epoch, self.step = 0, 0  # what is finished
        self.order: IntArray = np.empty(0, dtype=np.int64)
        self.has_ended = False
        self.validation_srcc: list[float] = []
        self.validation_loss: list[float] = []
        self.best_epoch = 0
        self.best = (-math.inf, -math.inf)
        self.best_state: dict[str, Tensor] = {}
        self.interrupt: KeyboardInterrupt | None = None
        if checkpoint is not None and (state := checkpoint.read()) is not None:
            self._restore(state)

    @property
    def is_small(self) -> bool:
        """Whether one thread takes as long for a batch as several, which wait for each other."""
        n_weights = sum(one.numel() for one in self.network.parameters())
        return self.fabric.device.type == "cpu" and n_weights * self.plan.batch_size < _SMALL

    def go(self, bar: tqdm[Any]) -> None:
        """Train until the plan, the user or an output that is not finite ends it."""
        bar.update(self.epoch * self.n_steps + self.step)
        try:
            while not self.has_ended and self.epoch < self.plan.epochs:
                self._train_epoch(bar)
                if not self._validate(self.epoch + 1):
                    self._end_without_finite_predictions()
                    break
                self.epoch, self.step = self.epoch + 1, 0
                self.has_ended = self._is_out_of_patience() or self.epoch == self.plan.epochs
                self._save()
        except KeyboardInterrupt as interrupt:
            if not self.best_state:
                raise
            self.interrupt = interrupt
            logger.warning("Training was interrupted %s", self._what_is_kept())

    def result(self) -> dict[str, Any]:
        """Return the fields of a Training: the network in its best state."""
        fixed = {k: v for k, v in self.network.state_dict().items() if k not in self.best_state}
        state = {**self.best_state, **_to_cpu(fixed)}
        return {
            "weights": {name: state[name].numpy() for name in self.network.state_dict()},
            "n_parameters": sum(p.numel() for p in self.network.parameters() if p.requires_grad),
            "best_epoch": self.best_epoch,
            "validation_srcc": np.array(self.validation_srcc),
            "validation_loss": np.array(self.validation_loss),
            "interrupt": self.interrupt,
        }

    def _end_without_finite_predictions(self) -> None:
        if not self.best_state:
            raise StackingError(
                "the network's predictions are not finite after its first epoch. Give a smaller "
                "learning_rate, or scores of a smaller range."
            )
        warnings.warn(
            f"the predictions are no longer finite: training ended {self._what_is_kept()}",
            stacklevel=6,
        )

    def _what_is_kept(self) -> str:
        return (
            f"after {len(self.validation_srcc)} of {self.plan.epochs} epochs. The network keeps "
            f"its state after epoch {self.best_epoch}, the best so far."
        )

    def _train_epoch(self, bar: tqdm[Any]) -> None:
        self.network.train()
        if self.step == 0:
            self.order = self.rng.permutation(len(self.examples.rows))
        while self.step < self.n_steps:
            if (rate := self._learning_rate()) is not None:
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
            start = self.step * self.plan.batch_size
            loss = self._train_batch(self.order[start : start + self.plan.batch_size])
            self.step += 1
            bar.update()
            if not bar.disable:
                rank, negative_loss = self.best
                best = f", best validation loss {-negative_loss:.4f}" if self.best_epoch else ""
                if math.isfinite(rank):
                    best = f", best SRCC {rank:.4f}"
                bar.set_postfix_str(
                    f"epoch {self.epoch + 1}/{self.plan.epochs}, loss {float(loss):.4f}{best}",
                    refresh=False,
                )
            if self._is_save_due():
                self._save()

    def _is_save_due(self) -> bool:
        """Return whether to write a state in the middle of an epoch; all processes agree."""
        if self.checkpoint is None or self.step == self.n_steps:
            return False
        return bool(self.fabric.broadcast(self.checkpoint.is_due))

    def _learning_rate(self) -> float | None:
        """Return the rate of the next step, or None where the validation loss decides it."""
        if self.plan.schedule == "plateau":
            return None
        is_by_epoch = self.plan.schedule == "cosine-by-epoch"
        part = 0 if is_by_epoch else (self.step + 1) / self.n_steps
        return learning_rate_at(self.plan, self.epoch + part)

    def _train_batch(self, batch: IntArray) -> Tensor:
        """Take one step of the optimiser, and return the loss of the batch.

        The loss needs the outputs of all rows, but the memory of a network's pass grows with the
        rows in it.  So the outputs of micro-batches are first computed without gradients, and each
        micro-batch is computed once more, with the same dropout, to pass on its part of the loss's
        gradient.  Processes share a batch in the same way.
        """
        torch, fabric = self.torch, self.fabric
        share = math.ceil(len(batch) / fabric.world_size)
        own = np.arange(share) + share * fabric.global_rank
        # So that all processes have as many rows, some are computed twice and not counted.
        rows = self.examples.rows[batch[own % len(batch)]]
        inputs = [
            self.examples.inputs(part, self.draws)
            for part in _split(rows, self.plan.micro_batch or share)
        ]
        states, outputs = [], []
        with torch.set_grad_enabled(len(inputs) == 1):
            for each in inputs:
                states.append(_random_state(torch, fabric.device))
                outputs.append(self.wrapped(*each).float())
        predicted = torch.cat(outputs).detach()
        if fabric.world_size > 1:
            predicted = fabric.all_gather(predicted).flatten()
        counted = predicted[: len(batch)].requires_grad_()
        loss = self.loss(counted, self.targets[batch], self.weights[batch])
        (gradient,) = torch.autograd.grad(loss, counted)
        # Fabric takes the mean over processes, of which each has a part of the sum.
        gradient = fabric.world_size * torch.cat(
            [gradient, gradient.new_zeros(len(predicted) - len(batch))]
        )
        parts = gradient[own[0] : own[-1] + 1].split([len(output) for output in outputs])
        self.optimizer.zero_grad(set_to_none=True)
        for number, (each, state, part) in enumerate(zip(inputs, states, parts, strict=True)):
            is_last = number + 1 == len(inputs)
            with fabric.no_backward_sync(self.wrapped, enabled=not is_last):
                if len(inputs) == 1:
                    output = outputs[0]
                else:
                    _set_random_state(torch, fabric.device, state)
                    output = self.wrapped(*each).float()
                fabric.backward(output, gradient=part)
        if self.plan.max_gradient is not None:
            fabric.clip_gradients(
                self.wrapped,
                self.stepper,
                max_norm=self.plan.max_gradient,
                error_if_nonfinite=False,  # predictions will not be finite either, which is told
            )
        self.stepper.step()
        return loss.detach()

    def _validate(self, epoch: int) -> bool:
        """Keep the network's state if it is the best so far; return whether outputs are finite."""
        predicted = self._predicted()
        if not np.isfinite(predicted).all():
            return False
        rank = srcc(self.validation.targets, predicted)
        loss = self._validation_loss(predicted)
        if self.plan.schedule == "plateau":
            self.plateau.step(loss)
        reached = (-math.inf if math.isnan(rank) else rank, -loss)
        if not self.best_state or reached > self.best:
            fixed = {name for name, p in self.network.named_parameters() if not p.requires_grad}
            state = self.network.state_dict()
            self.best_state = _to_cpu({k: v for k, v in state.items() if k not in fixed})
            self.best, self.best_epoch = reached, epoch
        self.validation_srcc.append(rank)
        self.validation_loss.append(loss)
        return True

    def _predicted(self) -> FloatArray:
        """Return the outputs for the validation rows, of which each process computes a share."""
        rows = self.validation.rows
        share = math.ceil(len(rows) / self.fabric.world_size)
        own = (np.arange(share) + share * self.fabric.global_rank) % len(rows)
        predicted = predict(self.network, self.validation.inputs, rows[own], self.plan.block_rows)
        if self.fabric.world_size > 1:
            gathered = self.fabric.all_gather(self.tensor(predicted)).flatten()
            predicted = gathered[: len(rows)].cpu().numpy()
        return predicted

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

    def _save(self) -> None:
        """Write the state from which the training goes on, or its result if it has ended."""
        if self.checkpoint is None:
            return
        state: dict[str, Any] = {name: getattr(self, name) for name in _KEPT}
        if not self.has_ended:
            own = _random_state(self.torch, self.fabric.device), _generator_state(self.draws)
            draws = [own] * self.fabric.world_size
            if self.fabric.world_size > 1:
                self.torch.distributed.all_gather_object(draws, own)
            state |= {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "plateau": self.plateau.state_dict(),
                "order": self.torch.from_numpy(self.order),
                "rng": _generator_state(self.rng),
                "draws": draws,
            }
        if self.fabric.global_rank == 0:
            self.checkpoint.write(state)
        self.fabric.barrier()

    def _restore(self, state: dict[str, Any]) -> None:
        for name in _KEPT:
            setattr(self, name, state[name])
        if self.has_ended:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.plateau.load_state_dict(state["plateau"])
        self.order = state["order"].numpy()
        self.rng.bit_generator.state = json.loads(state["rng"])
        random_state, draws = state["draws"][self.fabric.global_rank]
        _set_random_state(self.torch, self.fabric.device, random_state)
        self.draws.bit_generator.state = json.loads(draws)


# The methods of tensors that fill them at random.
_DRAWS = frozenset({"normal_", "uniform_", "trunc_normal_", "bernoulli_"})
# What of a run is in its checkpoint as it is.
_KEPT = (
    *("epoch", "step", "has_ended", "validation_srcc", "validation_loss"),
    *("best_epoch", "best", "best_state"),
)


def _without_draws(torch: Any) -> Any:
    """Return a context in which the random weights of a new network are not drawn.

    So they take neither time nor memory.  On the device "meta" a network would also lack what it
    computes for itself and does not keep in its state, such as the angles of rotary positions.
    """

    class WithoutDraws(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = kwargs or {}
            # A function of nn.init that draws calls the tensor's own only where no mode sees it.
            name, module = (getattr(function, key, "") for key in ("__name__", "__module__"))
            if name in _DRAWS or module == "torch.nn.init":
                return args[0] if args else given["tensor"]
            return function(*args, **given)

    return WithoutDraws()


def _split(rows: IntArray, n_rows: int) -> list[IntArray]:
    return [rows[block] for block in row_blocks(0, len(rows), n_rows)]


def _to_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of tensors in the memory of the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}


def _generator_state(rng: np.random.Generator) -> str:
    return json.dumps(rng.bit_generator.state)


def _random_state(torch: Any, device: Any) -> Tensor:
    """Return the state of the generator that dropout draws from."""
    return torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)


def _set_random_state(torch: Any, device: Any, state: Tensor) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.cuda.set_rng_state(state, device)


def _lars(torch: Any, parameters: list[Tensor], plan: TrainingPlan) -> Any:
    if "timm.optim" not in sys.modules:
        # Importing timm imports its models, which need torchvision; its optimisers do not.
        with stand_ins(["torchvision"]):
            require("timm.optim", extra="neural", purpose="the optimiser LARS")
    return sys.modules["timm.optim"].Lars(
        parameters, plan.learning_rate, momentum=MOMENTUM, weight_decay=plan.weight_decay
    )


def _adam(torch: Any, parameters: list[Tensor], plan: TrainingPlan) -> Any:
    kind = torch.optim.Adam if plan.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, plan.learning_rate, weight_decay=plan.weight_decay, fused=True)


_OPTIMIZERS: Mapping[Optimizer, Callable[[Any, list[Tensor], TrainingPlan], Any]] = {
    "lars": _lars,
    "adam": _adam,
    "adamw": _adam,
}


@contextmanager
def _reproducible(torch: Any, seed: int, device: Any) -> Iterator[None]:
    """Seed PyTorch's generators, and restore their state at the end."""
    with (
        _ONE_TRAINING,
        torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]),
        usual_openmp_threads(),
    ):
        torch.manual_seed(seed)
        yield
