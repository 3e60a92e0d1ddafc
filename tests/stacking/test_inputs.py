import numpy as np
import pytest

from xacle_stack.errors import StackingError
from xacle_stack.stacking.inputs import check_same_columns, table_from_array
from xacle_stack.table import FeatureTable


def test_an_array_is_one_family_of_single_columns_or_one_block() -> None:
    narrow = table_from_array(np.zeros((3, 32)))
    assert narrow.blocks["31"] == slice(31, 32)
    assert narrow.families == {"all": tuple(map(str, range(32)))}
    wide = table_from_array(np.zeros((3, 33)))
    assert (wide.blocks, wide.families) == ({"all": slice(0, 33)}, {"all": ("all",)})
    np.testing.assert_array_equal(table_from_array(np.eye(4)).family("all"), np.eye(4))


def test_a_table_of_other_families_or_blocks_is_told() -> None:
    table = FeatureTable(np.zeros((2, 3)), {"a": slice(0, 1), "b": slice(1, 3)})
    check_same_columns(table, {"b": ("b",), "a": ("a",)}, table.blocks)
    with pytest.raises(StackingError, match=r"'a': \('a',\).*fitted on {'a': \('a', 'b'\)}"):
        check_same_columns(table, {"a": ("a", "b")}, table.blocks)
    with pytest.raises(StackingError, match=r"{'a': 1, 'b': 2}.*fitted on {'a': 3}.*FeatureBu"):
        check_same_columns(table, table.families, {"a": slice(0, 3)})
