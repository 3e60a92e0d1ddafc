"""Folds that keep a group on one side."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils import check_random_state

from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_whole_number, group_labels
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
        If there are fewer groups than folds, another number of labels than rows, or `n_splits` is
        no whole number of 2 or more.

    Examples
    --------
    >>> train, held_out = split_folds(4, ["dog", "dog", "cat", "cat"], 2, 0)[0]
    >>> len(train), len(held_out)
    (2, 2)
    """
    check_whole_number("n_splits", n_splits, minimum=2)
    labels = group_labels(n_pairs, groups)
    n_groups = int(labels.max(initial=-1)) + 1
    if n_groups < n_splits:
        what = "pairs" if groups is None else "groups"
        raise StackingError(
            f"{n_splits} folds need at least {n_splits} {what}, got n_samples = {n_pairs} with "
            f"{n_groups} {what}. {_remedy(n_splits, has_groups=groups is not None)}"
        )
    rng = check_random_state(random_state)
    rows = np.arange(n_pairs)
    if groups is None:
        return list(KFold(n_splits, shuffle=True, random_state=rng).split(rows))
    return list(GroupKFold(n_splits, shuffle=True, random_state=rng).split(rows, groups=labels))


def check_enough_groups(n_splits: int, labels: IntArray | None, n_pairs: int) -> None:
    """Check that there are groups enough for folds whose models choose a penalty within theirs."""
    n_groups = n_pairs if labels is None else int(labels.max()) + 1
    # Two groups must stay to train on, or there is nothing to choose a penalty by.
    n_needed = 4 if n_splits == 2 else n_splits
    if n_groups < n_needed:
        needed, got = f"{n_needed} pairs", f"n_samples = {n_pairs}"
        if labels is not None:
            needed = (
                f"{n_needed} groups of pairs (with the captions as groups: {n_needed} different "
                "captions)"
            )
            got = f"n_samples = {n_pairs} in {n_groups} groups"
        raise StackingError(
            f"{n_splits} folds need at least {needed}, got {got}. "
            f"{_remedy(n_splits, has_groups=labels is not None)}"
        )


def _remedy(n_splits: int, *, has_groups: bool) -> str:
    """Say what helps against too few pairs or groups; only what can be done is named."""
    remedies = ["more data", *(["a smaller n_splits"] if n_splits > 2 else [])]
    remedies += ["no groups"] if has_groups else []
    *first, last = remedies
    return f"Give {', '.join(first)} or {last}." if first else f"Give {last}."


def check_fold_weights(folds: list[Fold], weights: FloatArray) -> None:
    """Check that whatever fold is held out, rows of positive weight stay to train on."""
    if not all(weights[train].any() for train, _ in folds):
        raise StackingError(
            "all rows that one fold is trained on have weight 0: only "
            f"{np.count_nonzero(weights)} of {len(weights)} rows have one above 0. Give more rows "
            "a weight, or leave out those without, so that the folds are made of the others."
        )


def fold_numbers(folds: list[Fold]) -> IntArray:
    """Return the number of the fold that holds each row out, shape (n_pairs,).

    Examples
    --------
    >>> fold_numbers([(np.array([0]), np.array([1, 2])), (np.array([1, 2]), np.array([0]))])
    array([1, 0, 0])
    """
    numbers = np.empty(sum(len(held_out) for _, held_out in folds), dtype=np.intp)
    for number, (_, held_out) in enumerate(folds):
        numbers[held_out] = number
    return numbers
