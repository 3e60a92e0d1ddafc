"""Checks settings, groups and weights."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_array, column_or_1d

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Check that a setting is one of the known names."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        raise StackingError(f"{name} must be one of {names}, got {value!r}.")


def check_whole_number(name: str, value: object, minimum: int) -> None:
    """Check that a setting is a whole number of at least `minimum`.

    Examples
    --------
    >>> check_whole_number("n_splits", 2.5, minimum=2)
    Traceback (most recent call last):
    xacle_stack.errors.StackingError: n_splits must be a whole number, 2 or more, got 2.5.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < minimum:
        raise StackingError(f"{name} must be a whole number, {minimum} or more, got {value!r}.")


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
    """Check that a setting is at least 0 and below 1, for example a dropout probability.

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


def group_labels(n_pairs: int, groups: ArrayLike | None) -> IntArray:
    """Return the number of each row's group, shape (n_pairs,), counted in order of appearance."""
    if groups is None:
        return np.arange(n_pairs)
    # A dictionary, because an array would pad every caption to the length of the longest.
    try:
        listed = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)  # type: ignore[arg-type]
        unusable = len(listed) != n_pairs or any(isinstance(label, list) for label in listed)
        numbers: dict[object, int] = {}
        row_groups = [numbers.setdefault(label, len(numbers)) for label in listed]
    except TypeError:  # not a sequence, or its items cannot be labels
        unusable = True
    if unusable:
        raise StackingError(
            f"groups: expected one label for each of {n_pairs} pairs, got shape {np.shape(groups)}."
        )
    missing = [row for row, label in enumerate(listed) if label is None or label != label]
    if missing:
        raise StackingError(
            f"groups: {len(missing)} pairs have no label, the first is row {missing[0]}. Give each "
            "pair a label; a pair outside all groups needs a label of its own."
        )
    return np.array(row_groups, dtype=np.intp)


def check_scores(y: ArrayLike | None, n_pairs: int, where: str = "") -> FloatArray:
    """Return the scores of pairs as float64.

    Raises
    ------
    StackingError
        If there is not one score for each pair, or there are fewer than two pairs.
    """
    if y is None:
        raise StackingError(f"{where}there are no scores to fit on: y is None.")
    scores: FloatArray = column_or_1d(
        check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    )
    if len(scores) != n_pairs or n_pairs < 2:
        raise StackingError(
            f"{where}{len(scores)} scores for {n_pairs} pairs; expected one score for each pair, "
            "and two pairs or more."
        )
    return scores


def row_weights(n_pairs: int, sample_weight: ArrayLike | None) -> FloatArray:
    """Return the checked weights of the rows; None stands for ones.

    Raises
    ------
    StackingError
        If their number is wrong, a weight is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return np.ones(n_pairs)
    weights = np.asarray(sample_weight)
    if weights.shape != (n_pairs,) or weights.dtype.kind not in "fiub":
        raise StackingError(
            f"sample_weight: expected one number for each of {n_pairs} pairs, got shape "
            f"{weights.shape} of type {weights.dtype}."
        )
    weights = weights.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise StackingError(
            f"sample_weight: {len(bad)} weights are negative or not finite, the first is "
            f"{weights[bad[0]]} in row {bad[0]}."
        )
    if not weights.any():
        raise StackingError("sample_weight: all weights are zero; nothing is left to train on.")
    return weights


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
