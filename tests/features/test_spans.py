import numpy as np
import pytest

from xacle_stack.errors import FeatureError
from xacle_stack.features.spans import check_cover, check_within

FAMILIES = {"late": slice(3, 5), "early": slice(np.int64(0), 3, 1)}


def test_spans_in_any_order_may_cover_a_table() -> None:
    check_cover("families", FAMILIES, 5)
    check_cover("families", {**FAMILIES, "empty": slice(3, 3)}, 5)
    check_within({"a": slice(0, 2), "b": slice(3, 5), "c": slice(2, 3)}, FAMILIES)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ({"a": slice(0, 2), "b": slice(3, 5)}, "once: 'b' begins at column 3, where 2 would fol"),
        ({"a": slice(0, 4), "b": slice(3, 5)}, "once: 'b' begins at column 3, where 4 would fol"),
        ({"a": slice(0, 5), "b": slice(0, 5)}, "once: 'b' begins at column 0, where 5 would fol"),
        ({"a": slice(1, 5)}, "once: 'a' begins at column 1, where 0 would follow"),
        ({"a": slice(0, 4)}, "each of the 5 columns once: together they have 4"),
        ({"a": slice(0, 6)}, "each of the 5 columns once: together they have 6"),
        ({}, "each of the 5 columns once: together they have 0"),
        ({"a": slice(None, 5)}, r"such as slice\(0, 3\), for 'a', got slice\(None, 5, None\)"),
        ({"a": slice(0, None)}, "a slice with a start and a stop"),
        ({"a": slice(-5, 5)}, "a slice with a start and a stop"),
        ({"a": slice(3, 0)}, "a slice with a start and a stop"),
        ({"a": slice(0, 5, 2)}, "a slice with a start and a stop"),
        ({"a": slice(0.0, 5.0)}, "a slice with a start and a stop"),
        ({"a": [0, 1, 2, 3, 4]}, r"for 'a', got \[0, 1, 2, 3, 4\]"),
        ({"a": 5}, "for 'a', got 5"),
    ],
)
def test_gaps_overlaps_and_what_is_no_span_are_told(spans, message: str) -> None:
    with pytest.raises(FeatureError, match=f"families.*{message}"):
        check_cover("families", spans, 5)


def test_a_block_across_families_is_told() -> None:
    with pytest.raises(
        FeatureError, match=r"block 'b' has columns 1 to 3, which are in no one fam"
    ):
        check_within({"a": slice(0, 1), "b": slice(1, 4), "c": slice(4, 5)}, FAMILIES)
