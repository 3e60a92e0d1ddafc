import numpy as np
import pytest
from scipy.stats import rankdata

from xacle_stack.errors import StackingError
from xacle_stack.systems import rank_average


def test_mean_rank_scaled_to_the_range(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=20), rng.integers(0, 4, size=20).astype(float)
    expected = ((rankdata(a) + rankdata(b)) / 2 - 1) / 19 * 10
    np.testing.assert_allclose(rank_average([a, b]), expected)
    np.testing.assert_array_equal(rank_average([a]), rank_average([np.exp(a)]))
    scaled = rank_average([a], score_range=(1, 5))
    assert (scaled.min(), scaled.max()) == (1, 5)


def test_one_pair_has_no_rank() -> None:
    assert rank_average([[3.0], [9.0]]).tolist() == [5.0]


def test_bad_systems_are_told() -> None:
    with pytest.raises(StackingError, match=r"arrays of shape \[\(2,\), \(3,\)\]"):
        rank_average([[1, 2], [1, 2, 3]])
    with pytest.raises(StackingError, match=r"arrays of shape \[\]"):
        rank_average([])
    with pytest.raises(StackingError, match="one of the systems has NaN"):
        rank_average([[1, np.nan]])
