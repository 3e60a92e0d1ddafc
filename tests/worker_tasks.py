"""Tasks of tests, in a module that workers can import."""

import os
import signal
from pathlib import Path

import numpy as np

from xacle_stack.errors import CacheError


def square(offset: float, number: float) -> tuple[float, int]:
    return number**2 + offset, os.getpid()


def fail_on_three(number: int) -> int:
    if number == 3:
        raise CacheError("the disk is full")
    if number == 4:
        raise ZeroDivisionError("by nothing")
    return number


def count_unpickled(values: np.ndarray, number: int) -> tuple[int, int, int]:
    return os.getpid(), id(values), number


def die_once(marker: Path, number: int) -> int:
    if number == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def slow(number: int) -> int:
    import time

    time.sleep(0.5)
    return number
