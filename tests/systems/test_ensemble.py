import numpy as np
import pytest
from scipy.stats import rankdata

from xacle_stack.errors import StackingError
from xacle_stack.systems.ensemble import average, rank_average


def test_mean_rank_scaled_to_the_range(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=20), rng.integers(0, 4, size=20).astype(float)
    expected = ((rankdata(a) + rankdata(b)) / 2 - 1) / 19 * 10
    np.testing.assert_allclose(rank_average([a, b]), expected)
    np.testing.assert_array_equal(rank_average([a]), rank_average([np.exp(a)]))
    scaled = rank_average([a], score_range=(1, 5))
    assert (scaled.min(), scaled.max()) == (1, 5)


def test_one_pair_has_no_rank() -> None:
    assert rank_average([[3.0], [9.0]]).tolist() == [5.0]


def test_average_is_the_mean(rng: np.random.Generator) -> None:
    systems = rng.normal(size=(3, 20))
    np.testing.assert_allclose(average(systems), systems.sum(axis=0) / 3)
    np.testing.assert_array_equal(average(list(systems)), average(systems))
    weighted = (2 * systems[0] + 0.5 * systems[2]) / 2.5
    np.testing.assert_allclose(average(systems, weights=[2, 0, 0.5]), weighted)
    np.testing.assert_allclose(average(systems, weights=[4, 4, 4]), average(systems))


def test_average_of_a_pair_alone_equals_that_among_others(rng: np.random.Generator) -> None:
    systems = rng.normal(size=(3, 20))
    for weights in (None, [1, 2, 3]):
        together = average(systems, weights)
        alone = [average(systems[:, [i]], weights)[0] for i in range(20)]
        np.testing.assert_allclose(alone, together, rtol=1e-15)


def test_what_is_given_is_not_changed(rng: np.random.Generator) -> None:
    systems = rng.normal(size=(2, 5))
    kept = systems.copy()
    for combine in (average, rank_average):
        combine(systems)[:] = 0
        np.testing.assert_array_equal(systems, kept)


@pytest.mark.parametrize("combine", [average, rank_average])
def test_bad_systems_are_told(combine: object) -> None:
    assert callable(combine)
    with pytest.raises(StackingError, match=r"arrays of shape \[\(2,\), \(3,\)\]"):
        combine([[1, 2], [1, 2, 3]])
    with pytest.raises(StackingError, match=r"arrays of shape \[\]"):
        combine([])
    with pytest.raises(StackingError, match=r"arrays of shape \[\(1, 2\)\]"):
        combine([[[1, 2]]])
    with pytest.raises(StackingError, match="system 1 .*nan in row 2"):
        combine([[1, 2, 3], [4, 5, np.nan]])


@pytest.mark.parametrize(
    "weights", [[1.0], [1.0, 1.0, 1.0], [1.0, -1.0], [0.0, 0.0], [np.nan, 1.0], 2.0]
)
def test_bad_weights_are_told(weights: object) -> None:
    with pytest.raises(StackingError, match="weights: .* 2 systems"):
        average([[1, 2], [3, 4]], weights=weights)


@pytest.mark.parametrize("score_range", [(10, 0), (5, 5), (0, np.inf), 10])
def test_a_bad_score_range_is_told(score_range: object) -> None:
    with pytest.raises(StackingError, match="score_range .*bound"):
        rank_average([[1, 2, 3]], score_range=score_range)
