"""Folds that keep a group on one side."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils import check_random_state

from xacle_stack._types import IntArray
from xacle_stack.errors import StackingError

Fold = tuple[IntArray, IntArray]


def split_folds(
    n_pairs: int,
    groups: ArrayLike | None,
    n_splits: int,
    random_state: int | np.random.RandomState | None,
) -> list[Fold]:
    """Split rows into folds at random, never a group between two.

    Parameters
    ----------
    n_pairs : int
    groups : array-like of shape (n_pairs,), optional
        Rows with equal labels stay together: the captions, where captions repeat.  None if every
        row stands for itself.
    n_splits : int
        2 or more.
    random_state : int, RandomState or None

    Returns
    -------
    folds : list of n_splits (train, held_out) row numbers
        Every row is held out exactly once.

    Raises
    ------
    StackingError
        If there are fewer groups than folds, or another number of labels than rows.

    Examples
    --------
    >>> train, held_out = split_folds(4, ["dog", "dog", "cat", "cat"], 2, 0)[0]
    >>> len(train), len(held_out)
    (2, 2)
    """
    if n_splits < 2:
        raise StackingError(f"n_splits must be 2 or more, got {n_splits!r}.")
    labels = group_labels(n_pairs, groups)
    n_groups = int(labels.max(initial=-1)) + 1
    if n_groups < n_splits:
        what = "pairs" if groups is None else "groups"
        raise StackingError(
            f"{n_splits} folds need at least {n_splits} {what}, got n_samples = {n_pairs} with "
            f"{n_groups} {what}. Give more data or a smaller n_splits."
        )
    rng = check_random_state(random_state)
    rows = np.arange(n_pairs)
    if groups is None:
        return list(KFold(n_splits, shuffle=True, random_state=rng).split(rows))
    return list(GroupKFold(n_splits, shuffle=True, random_state=rng).split(rows, groups=labels))


def group_labels(n_pairs: int, groups: ArrayLike | None) -> IntArray:
    """Return a whole number for each row's group, shape (n_pairs,), in order of appearance."""
    if groups is None:
        return np.arange(n_pairs)
    # A dictionary, not an array: one long caption would pad all others to its length.
    listed = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)  # type: ignore[arg-type]
    if len(listed) != n_pairs or any(isinstance(label, list) for label in listed):
        raise StackingError(
            f"groups: expected one label for each of {n_pairs} pairs, got shape {np.shape(groups)}."
        )
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in listed], dtype=np.intp)
