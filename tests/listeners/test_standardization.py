import numpy as np
import pytest
from scipy import optimize, stats
from simulated_ratings import Simulated, simulate

from xacle_stack.listeners.crossed import NumberedRatings
from xacle_stack.listeners.standardization import offsets_and_scales


def numbered(data: Simulated) -> NumberedRatings:
    values = data.ratings - data.ratings.mean()
    return NumberedRatings(data.pair, data.listener, values, len(data.truth), len(data.bias))


def test_means_have_the_greatest_restricted_likelihood() -> None:
    # With equal spreads, the scale is 1 and the offset is the shrunken mean about the average.
    data = simulate(0, bias=0.8, n_pairs=200)
    ratings = numbered(data)
    offset, scale = offsets_and_scales(ratings)
    assert (scale == 1).all()
    counts = np.bincount(data.listener)
    means = np.bincount(data.listener, ratings.values) / counts
    squares = (ratings.values - means[data.listener]) ** 2
    errors = squares.sum() / (counts - 1).sum() / counts
    contrasts = np.linalg.svd(np.ones((1, 60)))[2][1:]

    def deviance(log_variance: float) -> float:
        covariance = contrasts @ np.diag(errors + np.exp(log_variance)) @ contrasts.T
        return -stats.multivariate_normal.logpdf(contrasts @ means, cov=covariance)

    variance = np.exp(optimize.minimize_scalar(deviance, bounds=(-5, 3), method="bounded").x)
    center = np.average(means, weights=1 / (variance + errors))
    expected = variance / (variance + errors) * (means - center)
    np.testing.assert_allclose(offset, expected, atol=1e-3)
    assert np.corrcoef(offset, data.bias)[0, 1] > 0.8


def test_few_ratings_are_shrunk_more() -> None:
    data = simulate(1, bias=1.0, spread=0.5, n_pairs=400)
    few = (data.listener >= 30) & (np.arange(len(data.pair)) % 4 > 0)
    kept = Simulated(data.pair[~few], data.listener[~few], data.ratings[~few], *[data.truth] * 4)
    ratings = numbered(kept)
    ratings = NumberedRatings(ratings.pair, ratings.listener, ratings.values, 400, 60)
    offset, scale = offsets_and_scales(ratings)
    assert scale[kept.listener].mean() == pytest.approx(1)
    counts = np.bincount(kept.listener)
    means = np.bincount(kept.listener, ratings.values) / counts
    squares = np.bincount(kept.listener, (ratings.values - means[kept.listener]) ** 2)
    spreads = np.sqrt(squares / (counts - 1))
    often = np.arange(60) < 30
    slopes = [np.polyfit(means[of], offset[of], 1)[0] for of in (often, ~often)]
    assert slopes[1] < slopes[0] <= 1
    slopes = [np.polyfit(np.log(spreads[of]), np.log(scale[of]), 1)[0] for of in (often, ~often)]
    assert slopes[1] < slopes[0] <= 1


def test_means_move_with_the_ratings_and_spreads_do_not() -> None:
    data = simulate(2, bias=1.0, spread=0.5)
    ratings = numbered(data)
    offset, scale = offsets_and_scales(ratings)
    stretched = NumberedRatings(data.pair, data.listener, 3 * ratings.values, 300, 60)
    offsets, scales = offsets_and_scales(stretched)
    np.testing.assert_allclose(offsets, 3 * offset, atol=1e-4)
    np.testing.assert_allclose(scales, scale, rtol=1e-4)


@pytest.mark.parametrize("values", [[1.0, 5.0, 3.0], [2.0, 2.0, 2.0]], ids=str)
def test_one_rating_each_or_equal_ones_say_nothing(values: list[float]) -> None:
    for listener in ([0, 1, 2], [0, 0, 0]):
        ratings = NumberedRatings(np.arange(3), np.array(listener), np.array(values), 3, 3)
        offset, scale = offsets_and_scales(ratings)
        assert offset.tolist() == [0, 0, 0]
        assert scale.tolist() == [1, 1, 1]
