import numpy as np
import pytest

from xacle_stack._validation import group_labels
from xacle_stack.errors import StackingError
from xacle_stack.stacking.folds import (
    check_enough_groups,
    check_fold_weights,
    split_folds,
)


@pytest.mark.parametrize("groups", [None, [f"caption {i // 4}" for i in range(50)]])
def test_every_row_is_held_out_once(groups) -> None:
    folds = split_folds(50, groups, 3, 0)
    held_out = np.concatenate([held for _, held in folds])
    assert sorted(held_out) == list(range(50))
    for train, held in folds:
        assert sorted([*train, *held]) == list(range(50))


def test_groups_stay_on_one_side() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(20, size=90).astype(str)
    for train, held in split_folds(90, groups, 4, 0):
        assert not set(groups[train]) & set(groups[held])


def test_seed_decides(rng: np.random.Generator) -> None:
    def held(seed: int) -> list[list[int]]:
        return [fold[1].tolist() for fold in split_folds(40, None, 3, seed)]

    assert held(1) == held(1)
    assert held(1) != held(2)


def test_too_few_groups_are_told() -> None:
    with pytest.raises(StackingError, match=r"3 folds .* 3 groups.* 6 .* 2 groups"):
        split_folds(6, list("aaabbb"), 3, 0)
    with pytest.raises(StackingError, match="5 folds .* 5 pairs, .*n_samples = 4"):
        split_folds(4, None, 5, 0)
    for n_splits in (1, 2.0, "2", True):
        with pytest.raises(StackingError, match=r"n_splits .* 2 .*got"):
            split_folds(4, None, n_splits, 0)
    with pytest.raises(StackingError, match=r"label.* 4 pairs.* \(3,\)"):
        split_folds(4, list("abc"), 2, 0)


def test_labels_count_from_zero() -> None:
    assert group_labels(4, ["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert group_labels(4, np.array([7, 3, 7, 9])).tolist() == [0, 1, 0, 2]
    assert group_labels(3, ["a", "a\0", 1]).tolist() == [0, 1, 2]
    assert group_labels(3, None).tolist() == [0, 1, 2]
    with pytest.raises(StackingError, match=r"got shape \(2, 2\)"):
        group_labels(2, np.zeros((2, 2)))


def test_folds_without_a_weight_to_train_on_are_told() -> None:
    folds = split_folds(9, None, 3, 0)
    weights = np.ones(9)
    weights[folds[1][0]] = 0  # all rows but those that fold 1 holds out
    message = "trained on have weight 0: only 3 of 9 rows have one above 0. .* leave out those wit"
    with pytest.raises(StackingError, match=message):
        check_fold_weights(folds, weights)
    weights[folds[1][0][0]] = 0.1
    check_fold_weights(folds, weights)


def test_groups_must_be_enough_to_choose_within() -> None:
    check_enough_groups(3, np.array([0, 1, 2]), 3)
    check_enough_groups(2, None, 4)
    with pytest.raises(StackingError, match=r"2 folds .* 4 groups .* 3 groups"):
        check_enough_groups(2, np.array([0, 1, 2, 2]), 4)


@pytest.mark.parametrize(
    ("n_splits", "labels", "remedy"),
    [
        (5, None, "5 folds .* 5 pairs, .*n_samples = 3.* more data.* smaller"),
        (2, None, r"2 folds .* 4 pairs, .*n_samples = 3\. Give more data\.$"),
        (5, np.zeros(3, int), r"in 1 groups\. .*more data, .*n_splits .*no groups\.$"),
        (2, np.zeros(3, int), r"4 groups .* in 1 groups\. .*more data or no groups\.$"),
    ],
)
def test_only_remedies_that_are_at_hand_are_named(n_splits: int, labels, remedy: str) -> None:
    with pytest.raises(StackingError, match=remedy):
        check_enough_groups(n_splits, labels, 3)


def test_two_folds_cannot_be_fewer() -> None:
    with pytest.raises(StackingError, match=r"2 pairs, got n_samples = 1 with 1 pairs\. Give"):
        split_folds(1, None, 2, 0)
    with pytest.raises(StackingError, match=r"1 groups\. .*more data or no groups\.$"):
        split_folds(4, list("aaaa"), 2, 0)
