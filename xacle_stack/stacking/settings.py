"""Checks of estimators' settings: what is unusable is told, with what was expected instead."""

from collections.abc import Iterable
from numbers import Integral, Real

import numpy as np

from xacle_stack.errors import StackingError


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Check that a setting is one of the names of a table."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise StackingError(f"{name} must be one of {names}, got {value!r}.")


def check_whole_number(name: str, value: object, least: int) -> None:
    """Check that a setting is a whole number, and not too small.

    Examples
    --------
    >>> check_whole_number("n_splits", 2.5, least=2)
    Traceback (most recent call last):
    xacle_stack.errors.StackingError: n_splits must be a whole number, 2 or more, got 2.5.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise StackingError(f"{name} must be a whole number, {least} or more, got {value!r}.")


def check_positive_numbers(name: str, values: object) -> None:
    """Check that a setting is a list of one or more finite numbers above 0."""
    try:
        listed = list(values)  # type: ignore[call-overload]
    except TypeError:
        listed = []
    if not listed or not all(_is_number(value) and 0 < value < np.inf for value in listed):
        raise StackingError(
            f"{name} must be numbers above 0 in a list, for example [1.0, 100.0], got {values!r}."
        )


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


def check_score_range(score_range: object) -> None:
    """Check that a range is a lower and a higher bound."""
    bounds = np.asarray(score_range, dtype=object)
    is_range = bounds.shape == (2,) and all(_is_number(bound) for bound in bounds)
    if not is_range or not -np.inf < bounds[0] < bounds[1] < np.inf:
        raise StackingError(
            f"score_range must be a lower and a higher bound, both finite, got {score_range!r}."
        )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
