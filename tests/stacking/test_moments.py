import numpy as np
import pytest

from xacle_stack.errors import StackingError
from xacle_stack.stacking.inputs import table_from_array
from xacle_stack.stacking.moments import BLOCK_ROWS, column_moments
from xacle_stack.table import FeatureTable


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_the_weighted_ones_over_several_blocks(rng, offset: float) -> None:
    n_rows = 2 * BLOCK_ROWS + 100
    X = rng.normal(size=(n_rows, 3)) * [1e-12, 1, 1e8] + offset * np.array([1e-12, 1, 1e8])
    weights = rng.integers(0, 4, size=n_rows).astype(float)
    weights[:BLOCK_ROWS] = 0  # a block that does not count
    mean, scale = column_moments(table_from_array(X), weights)
    repeated = np.repeat(X, weights.astype(int), axis=0)
    np.testing.assert_allclose(mean, repeated.mean(axis=0), rtol=1e-9, atol=1e-20)
    np.testing.assert_allclose(scale, repeated.std(axis=0), rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_a_constant_column_has_an_infinite_scale(rng, dtype, value: float) -> None:
    X = np.full((3 * BLOCK_ROWS + 7, 2), value, dtype=dtype)
    X[:, 1] = rng.normal(size=len(X))
    _, scale = column_moments(table_from_array(X), rng.uniform(0.1, 3, size=len(X)))
    assert np.isinf(scale[0])
    assert np.isfinite(scale[1])


def test_blocks_have_their_own_columns(rng) -> None:
    X = rng.normal(size=(50, 6))
    table = FeatureTable(X, {"a": slice(0, 2), "b": slice(2, 5), "c": slice(5, 6)})
    mean, _ = column_moments(table, np.ones(50), ("c", "a"))
    np.testing.assert_allclose(mean, X[:, [5, 0, 1]].mean(axis=0))


def test_values_that_are_no_finite_numbers_are_told(rng) -> None:
    X = rng.normal(size=(5000, 3))
    X[4500, 2] = np.nan
    table = FeatureTable(X, {"a": slice(0, 1), "b": slice(1, 3)})
    for blocks in (None, ("b",)):
        with pytest.raises(StackingError, match=r"column 2 .*'b'.* NaN, infinite .* 4096 to 4999"):
            column_moments(table, np.ones(5000), blocks)
    with pytest.raises(StackingError, match="floating-point.* int64"):
        column_moments(table_from_array(np.ones((5, 2), dtype=np.int64)), np.ones(5))
