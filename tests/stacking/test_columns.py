import numpy as np
import pandas as pd
import pytest

from xacle_stack.errors import StackingError
from xacle_stack.features import FeatureTable
from xacle_stack.stacking.columns import (
    BLOCK_ROWS,
    ArrayColumns,
    are_columns,
    check_same_columns,
    column_moments,
    row_blocks,
)


def test_an_array_is_one_family_of_single_columns_or_one_block() -> None:
    assert ArrayColumns(np.zeros((3, 32))).blocks["31"] == slice(31, 32)
    wide = ArrayColumns(np.zeros((3, 33)))
    assert wide.blocks == wide.families == {"all": slice(0, 33)}
    np.testing.assert_array_equal(ArrayColumns(np.eye(4)).rows(slice(1, 3), "all"), np.eye(4)[1:3])


def test_only_tables_of_families_are_columns() -> None:
    table = FeatureTable(np.zeros((2, 3)), {"a": slice(0, 3)}, ("x", "y"))
    assert are_columns(table)
    assert are_columns(ArrayColumns(np.zeros((2, 3))))
    for other in (np.zeros((2, 3)), pd.DataFrame({"families": [1], "rows": [2]}), [[1, 2]], None):
        assert not are_columns(other)


def test_a_table_of_other_families_or_blocks_is_told() -> None:
    table = FeatureTable(np.zeros((2, 3)), {"a": slice(0, 1), "b": slice(1, 3)}, ("x", "y"))
    check_same_columns(table, {"b": slice(1, 3), "a": slice(0, 1)}, dict(table.blocks))
    with pytest.raises(StackingError, match=r"families {'a': 1, 'b': 2}, but .* on {'a': 3}"):
        check_same_columns(table, {"a": slice(0, 3)}, dict(table.blocks))
    with pytest.raises(StackingError, match=r"blocks \['a/all', 'b/all'\], but .* on \['a/all'\]"):
        check_same_columns(table, dict(table.families), {"a/all": slice(0, 3)})


def test_blocks_of_rows_cover_all_rows() -> None:
    n_rows = 2 * BLOCK_ROWS + 1
    rows = np.concatenate([np.arange(n_rows)[block] for block in row_blocks(n_rows)])
    np.testing.assert_array_equal(rows, np.arange(n_rows))
    assert list(row_blocks(0)) == []


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_the_weighted_ones_over_several_blocks(rng, offset: float) -> None:
    n_rows = 2 * BLOCK_ROWS + 100
    X = rng.normal(size=(n_rows, 3)) * [1e-12, 1, 1e8] + offset * np.array([1e-12, 1, 1e8])
    weights = rng.integers(0, 4, size=n_rows).astype(float)
    weights[:BLOCK_ROWS] = 0  # a block that does not count
    mean, scale = column_moments(ArrayColumns(X), weights)
    repeated = np.repeat(X, weights.astype(int), axis=0)
    np.testing.assert_allclose(mean, repeated.mean(axis=0), rtol=1e-9, atol=1e-20)
    np.testing.assert_allclose(scale, repeated.std(axis=0), rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_a_constant_column_has_an_infinite_scale(rng, dtype, value: float) -> None:
    X = np.full((3 * BLOCK_ROWS + 7, 2), value, dtype=dtype)
    X[:, 1] = rng.normal(size=len(X))
    _, scale = column_moments(ArrayColumns(X), rng.uniform(0.1, 3, size=len(X)))
    assert np.isinf(scale[0])
    assert np.isfinite(scale[1])


def test_one_family_has_its_own_columns(rng) -> None:
    X = rng.normal(size=(50, 5))
    table = FeatureTable(X, {"a": slice(0, 2), "b": slice(2, 5)}, tuple(map(str, range(50))))
    mean, _ = column_moments(table, np.ones(50), "b")
    np.testing.assert_allclose(mean, X[:, 2:].mean(axis=0))


def test_values_that_are_no_finite_numbers_are_told(rng) -> None:
    X = rng.normal(size=(5000, 3))
    X[4500, 2] = np.nan
    with pytest.raises(StackingError, match=r"column 2 .* NaN, infinite or .* rows 4096 to 4999"):
        column_moments(ArrayColumns(X), np.ones(5000))
    with pytest.raises(StackingError, match="must be floating-point numbers, got int64"):
        column_moments(ArrayColumns(np.ones((5, 2), dtype=np.int64)), np.ones(5))
