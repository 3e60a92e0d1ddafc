"""States of a training in a file, from which it goes on after the process was killed."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._files import is_regular_file, open_atomically
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError

logger = logging.getLogger(__name__)

DEFAULT_MINUTES = 10.0


class TrainingCheckpoint:
    """The file with the last state of one training.

    A training that is started again with the same settings and data finds its state, and ends with
    the result of an undisturbed one.  The file appears by a rename, so a kill leaves the last
    complete state.  A training that has ended leaves its result there, without the state of the
    optimiser.

    Parameters
    ----------
    folder : path-like
        It may hold the states of several trainings.
    identity : str
        The digest of whatever decides the result; see :func:`digest_of`.
    minutes : float, default=10
        A state is written after this time, and after every epoch.
    """

    def __init__(self, folder: Path | str, identity: str, minutes: float = DEFAULT_MINUTES) -> None:
        self.path = Path(folder) / f"training-{identity}.pt"
        self.minutes = minutes
        self._written_s = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last state is older than `minutes`."""
        return time.monotonic() - self._written_s >= 60 * self.minutes

    def read(self) -> dict[str, Any] | None:
        """Return the last state, or None if there is none; a StackingError if it is damaged."""
        import torch

        if not self.path.exists():
            return None
        try:
            if not is_regular_file(self.path):
                raise ValueError("not a regular file")
            state = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # each kind of damage has its own exception
            raise StackingError(
                f"{self.path}: the state of a training cannot be read "
                f"({type(error).__name__}: {str(error)[:200]}). Delete the file: the training then "
                "begins anew."
            ) from None
        logger.info("%s: the training goes on after epoch %d.", self.path, state["epoch"])
        return dict(state)

    def write(self, state: Mapping[str, Any]) -> None:
        """Replace the last state; a StackingError says why it cannot be written."""
        import torch

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open_atomically(self.path) as file:
                torch.save(dict(state), file)
        except OSError as error:
            raise StackingError(
                f"{self.path}: the state of the training cannot be written ({error.strerror}). "
                "Make room, or name another folder; the last state is kept."
            ) from error
        self._written_s = time.monotonic()


def digest_of(*facts: str | bytes | FloatArray | IntArray) -> str:
    """Return a digest of texts and arrays, 32 hexadecimal digits.

    Examples
    --------
    >>> digest_of("a", "b") == digest_of("ab")
    False
    """
    digest = hashlib.blake2b(digest_size=16)
    for fact in facts:
        if isinstance(fact, np.ndarray):
            digest.update(f"{fact.dtype.str}{fact.shape}".encode())
            fact = np.ascontiguousarray(fact).tobytes()
        content = fact.encode() if isinstance(fact, str) else fact
        digest.update(f"{len(content)}:".encode())
        digest.update(content)
    return digest.hexdigest()
