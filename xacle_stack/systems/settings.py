"""Checks of a network's settings: what is unusable is told, with what was expected instead."""

from numbers import Real

import numpy as np

from xacle_stack.errors import StackingError


def check_not_negative(name: str, value: object) -> None:
    """Check that a setting is a finite number, 0 or more."""
    if not _is_number(value) or not 0 <= value < np.inf:  # type: ignore[operator]
        raise StackingError(f"{name} must be a finite number, 0 or more, got {value!r}.")


def check_positive(name: str, value: object) -> None:
    """Check that a setting is a finite number above 0."""
    if not _is_number(value) or not 0 < value < np.inf:  # type: ignore[operator]
        raise StackingError(f"{name} must be a finite number above 0, got {value!r}.")


def check_share(name: str, value: object) -> None:
    """Check that a setting is a share that is not the whole, such as that of a dropout.

    Examples
    --------
    >>> check_share("dropout", 20)
    Traceback (most recent call last):
    xacle_stack.errors.StackingError: dropout must be 0 or more and below 1, got 20.
    """
    if not _is_number(value) or not 0 <= value < 1:  # type: ignore[operator]
        raise StackingError(f"{name} must be 0 or more and below 1, got {value!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
