"""Tasks of tests, in a module that workers can import."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from xacle_stack.errors import CacheError
from xacle_stack.systems import CosineMean


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


class CannotTravelError(Exception):
    """Can be pickled, and not be unpickled."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} {why}")


class _Stays:
    def __reduce__(self) -> str:
        raise TypeError("it stays here")


def raise_what_stays(number: int) -> int:
    raise CannotTravelError("bad", "input") from ValueError(_Stays())


def return_what_stays(number: int) -> object:
    return _Stays()


def wait_for_release(folder: Path, number: int) -> int:
    """Say that the task runs, and go on when the folder says so."""
    (folder / f"started-{number}").touch()
    while not (folder / "released").exists():
        time.sleep(0.01)
    return number


class DyingCosines(CosineMean):
    """The first process that predicts the pairs of a whole block kills itself."""

    marker: Path

    def cosines(self, X: object) -> np.ndarray:
        if len(X) == 2048 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().cosines(X)


class DyingRegressor(RegressorMixin, BaseEstimator):
    """A linear regression; the first process that fits one kills itself."""

    def __init__(self, marker: str | None = None) -> None:
        self.marker = marker

    def fit(self, X: np.ndarray, y: np.ndarray) -> "DyingRegressor":
        if self.marker is not None and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        self.coef_ = np.linalg.lstsq(X, y, rcond=None)[0]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return X @ self.coef_


class FailingRegressor(DyingRegressor):
    """Fails to fit."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "FailingRegressor":
        raise ValueError("too few rows")


def plain_network() -> Any:
    """Return a network without dropout: a row's output is the same whatever is drawn."""
    import torch

    return torch.nn.Sequential(
        torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh()), torch.nn.Linear(8, 1)
    ).append(torch.nn.Flatten(0))


class TableInputs:
    """Rows of a table as what a network takes."""

    def __init__(self, X: np.ndarray) -> None:
        self.X = X

    def __call__(self, rows: np.ndarray, rng: object) -> tuple[Any]:
        import torch

        return (torch.from_numpy(self.X[rows]),)
