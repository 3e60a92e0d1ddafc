import numpy as np
import pytest

from xacle_stack._validation import (
    check_choice,
    check_positive_numbers,
    check_score_range,
    check_whole_number,
)
from xacle_stack.errors import StackingError


def test_usable_settings_pass() -> None:
    check_choice("preset", "paper", {"best": 1, "paper": 2})
    for number in (2, np.int64(2), np.uint8(200)):
        check_whole_number("n_splits", number, minimum=2)
    for numbers in ([1], (0.5, 10), np.logspace(1, 6, 11), [np.float32(3)]):
        check_positive_numbers("penalties", numbers)
    for bounds in ((0, 10), [-1.5, np.float64(2)], np.array([1, 5])):
        check_score_range(bounds)


@pytest.mark.parametrize("value", ["worst", None, 1, ["best"]])
def test_what_is_no_choice_is_told(value: object) -> None:
    with pytest.raises(StackingError, match=r"preset .*\['best', 'paper'\], got "):
        check_choice("preset", value, ["best", "paper"])


@pytest.mark.parametrize("value", [1, -3, 2.5, 2.0, "3", True, None, np.nan, [3]])
def test_what_is_no_whole_number_is_told(value: object) -> None:
    with pytest.raises(StackingError, match="n_splits .* 2 .*got "):
        check_whole_number("n_splits", value, minimum=2)


@pytest.mark.parametrize(
    "value", ["x", "", 10.0, None, [], [0.0], [-1.0], [np.inf], [np.nan], ["1"], [True], [[1.0]]]
)
def test_what_are_no_positive_numbers_is_told(value: object) -> None:
    with pytest.raises(StackingError, match="penalties .*above 0 "):
        check_positive_numbers("penalties", value)


@pytest.mark.parametrize(
    "value", [(5, 5), (10, 0), (0, np.inf), 10, (0, 10, 1), (0, None), ("0", "9"), [[0, 10]], True]
)
def test_what_is_no_range_is_told(value: object) -> None:
    with pytest.raises(StackingError, match="score_range .*bound"):
        check_score_range(value)
