"""Encodes batches, names the encoder that fails, and finds the items that make a batch fail.

An encoder may be a user's own code, so any exception can come out of it.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from xacle_stack.encoders.base import Encoder, EncoderInfo, Modality, Output
from xacle_stack.encoders.device import CPU_BATCH_SIZE, MAX_BATCH_SIZE, automatic_batch_size
from xacle_stack.encoders.outputs import check_outputs
from xacle_stack.errors import EncoderError, XacleStackError

# Items that wait for a full batch take up to this much memory.
MAX_WAITING_BYTES = 256 << 20
# A caption takes a fraction of a clip's work.
CAPTIONS_PER_CLIP = 4
_PROBE_CAPTION = "a dog barks"


class _Turn:
    """Whose turn it is to run an encoder's code."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.is_forked = False

    def before_fork(self) -> None:
        """Wait for the end of a batch: OpenBLAS ends its threads where a process forks."""
        self.lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let the next thread go on."""
        self.lock.release()

    def after_fork_in_child(self) -> None:
        """Forget the threads that the child does not have."""
        self.lock = threading.RLock()
        self.is_forked = True


_TURN = _Turn()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_TURN.before_fork,
        after_in_parent=_TURN.after_fork_in_parent,
        after_in_child=_TURN.after_fork_in_child,
    )


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one thread of the process run an encoder's code, and others wait.

    Model libraries keep state in the process: a tokenizer its padding, PyTorch the state of its
    random numbers, and the loading of a model puts stand-ins in place of modules.

    After a fork, PyTorch gets one thread: OpenMP would wait for ever for those that the child does
    not have.
    """
    with _TURN.lock:
        torch = sys.modules.get("torch") if _TURN.is_forked else None
        if torch is None:
            yield
            return
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)


@contextmanager
def encoder_errors(name: str, method: str) -> Iterator[None]:
    """Turn any exception of an encoder's code into an EncoderError that names the line."""
    try:
        yield
    except XacleStackError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise EncoderError(
                f"encoder {name!r}, {method}: there is too little memory. Give a smaller batch, "
                "such as batch_size=4 or --batch-size 4, or shorter clips."
            ) from None
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise EncoderError(
            f"encoder {name!r}, {method}: {type(error).__name__}: {error} ({line.filename}, line "
            f"{line.lineno})."
        ) from error


def encode_batch(
    encoder: Encoder, modality: Modality, items: Sequence[object]
) -> dict[str, Output]:
    """Encode clips or captions, and check the outputs against the encoder's contract.

    EncoderError if the encoder's code raises anything, or what it returns breaks the contract.
    """
    method = encoder.encode_audio if modality == "audio" else encoder.encode_text
    with one_at_a_time(), encoder_errors(encoder.info.name, f"encode_{modality}"):
        outputs = method(items)  # type: ignore[arg-type]  # clips or captions, by modality
        info = encoder.info.with_outputs(encoder.outputs)
        return check_outputs(info, modality, outputs, len(items))


def failing_items(
    encoder: Encoder, modality: Modality, items: Mapping[str, object], error: XacleStackError
) -> dict[str, str]:
    """Return the items of a failed batch that also fail alone, by key, with the reasons.

    Raises `error`, that of the whole batch, if the encoder itself is at fault: no item fails alone,
    or every item does and so does a probe that any encoder should take.
    """
    reasons = {}
    for key, item in items.items():
        if reason := _failure(encoder, modality, item):
            reasons[key] = reason
    if not reasons or (len(reasons) == len(items) and _failure(encoder, modality, None)):
        raise error
    return reasons


def _failure(encoder: Encoder, modality: Modality, item: object | None) -> str:
    """Return why an item fails alone, or an empty text; None stands for a probe."""
    if item is None:
        time = np.arange(encoder.info.sample_rate_hz or 1, dtype=np.float32)
        item = 0.1 * np.sin(0.1 * time) if modality == "audio" else _PROBE_CAPTION
    try:
        encode_batch(encoder, modality, [item])
    except XacleStackError as error:
        return str(error)
    return ""


class BatchQueue:
    """Collects the items of one encoder and modality, and encodes them batch by batch.

    An item that fails alone leaves its batch, and the others wait until the batch is full again.
    So the batches are the same with and without it.  `failures` holds the reasons by key.

    Parameters
    ----------
    info : EncoderInfo
    modality : {"audio", "text"}
    device : str
        Decides the batch size together with `batch_size`.
    batch_size : int, optional
        Clips in a batch; a batch of captions has :data:`CAPTIONS_PER_CLIP` times as many.  None
        chooses by the device's memory.
    get_encoder : callable
        Returns the loaded encoder.  It is called before each batch.
    store : callable
        Takes the keys and the outputs of a batch that was encoded.
    """

    def __init__(
        self,
        info: EncoderInfo,
        modality: Modality,
        device: str,
        batch_size: int | None,
        get_encoder: Callable[[], Encoder],
        store: Callable[[list[str], dict[str, Output]], None],
    ) -> None:
        n_clips = batch_size or automatic_batch_size(device, info.item_mb)
        self._batch_size = n_clips if modality == "audio" else n_clips * CAPTIONS_PER_CLIP
        self._modality = modality
        self._get_encoder = get_encoder
        self._store = store
        self._waiting: dict[str, object] = {}
        self._waiting_bytes = 0  # a running sum: a batch may have thousands of items
        self._passed_alone: set[str] = set()  # waiting items that are known not to fail
        self.failures: dict[str, str] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or key in self.failures

    def add(self, key: str, item: object) -> None:
        """Add an item; encode when the batch is full or takes too much memory."""
        self._waiting[key] = item
        self._waiting_bytes += _n_bytes(item)
        if len(self._waiting) >= self._batch_size or self._waiting_bytes >= MAX_WAITING_BYTES:
            self._encode_waiting()

    def finish(self) -> None:
        """Encode the items that still wait."""
        while self._waiting:
            self._encode_waiting()

    def _encode_waiting(self) -> None:
        """Encode and store the waiting items, or drop those that make the batch fail."""
        encoder = self._get_encoder()
        keys, items = list(self._waiting), list(self._waiting.values())
        try:
            outputs = encode_batch(encoder, self._modality, items)
        except XacleStackError as error:
            self._drop_failing(encoder, error)
            return
        self._store(keys, outputs)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._passed_alone.clear()

    def _drop_failing(self, encoder: Encoder, error: XacleStackError) -> None:
        untried = {k: item for k, item in self._waiting.items() if k not in self._passed_alone}
        failures = failing_items(encoder, self._modality, untried, error)
        self._passed_alone |= untried.keys() - failures.keys()
        for key in failures:
            self._waiting_bytes -= _n_bytes(self._waiting.pop(key))
        self.failures |= failures


def batch_multiple(modality: Modality, device: str, batch_size: int | None) -> int:
    """Return a number of items that is one of whole batches, whatever "auto" or "cuda" stands for.

    Examples
    --------
    >>> batch_multiple("audio", "cpu", None), batch_multiple("audio", "auto", None)
    (8, 256)
    """
    # All automatic sizes divide the largest.
    n_clips = batch_size or (CPU_BATCH_SIZE if device == "cpu" else MAX_BATCH_SIZE)
    return n_clips if modality == "audio" else n_clips * CAPTIONS_PER_CLIP


def _n_bytes(item: object) -> int:
    """Return the size of a clip; captions are negligible beside it."""
    return getattr(item, "nbytes", 0)
