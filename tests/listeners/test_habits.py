import numpy as np
import pytest
from scipy import optimize, stats
from simulated_ratings import Simulated, simulate

from xacle_stack.listeners.crossed import CrossedEquations, Effects, NumberedRatings
from xacle_stack.listeners.habits import listener_scales, pair_prior, relative_noise


def fitted(data: Simulated) -> tuple[NumberedRatings, Effects]:
    numbered = NumberedRatings(
        data.pair, data.listener, data.ratings - 5, len(data.truth), len(data.bias)
    )
    ones = np.ones(len(data.bias))
    return numbered, CrossedEquations(numbered, ones, ones).most_likely()


def test_noise_follows_the_listeners() -> None:
    data = simulate(0, bias=0.5, carelessness=0.6, n_pairs=600)
    numbered, effects = fitted(data)
    noise = relative_noise(numbered, effects)
    assert np.mean(1 / noise[data.listener]) == pytest.approx(1)
    assert np.corrcoef(np.log(noise), np.log(data.noise))[0, 1] > 0.85
    # Shrunk: closer together than they are.
    assert 0.5 < np.log(noise).std() / (2 * np.log(data.noise)).std() < 1


def plain_overdispersion(squares: np.ndarray, listener: np.ndarray) -> float:
    others = [
        np.delete(squares, row)[np.delete(listener, row) == listener[row]].mean()
        for row in range(len(squares))
    ]
    return max((np.sum(squares**2) / np.sum(squares * others) - 1) / 2, 1.0)


def test_noise_has_the_greatest_marginal_likelihood() -> None:
    # A variance s²ν/χ²(ν) makes rss/df follow s² F(df, ν).
    data = simulate(1, carelessness=0.4, n_listeners=30)
    numbered, effects = fitted(data)
    overdispersion = plain_overdispersion(effects.residuals**2, data.listener)
    assert 1 < overdispersion < 1.5
    squares = numbered.by_listener(effects.residuals**2) / overdispersion
    freedom = numbered.by_listener(1 - effects.leverage) / overdispersion

    def deviance(parameters: np.ndarray) -> float:
        common, df = np.exp(parameters)
        return float(-stats.f.logpdf(squares / freedom, freedom, df, scale=common).sum())

    common, df = np.exp(optimize.minimize(deviance, [0.0, 2.0], method="Nelder-Mead").x)
    assert 4 < df < 1e4  # else a bound would hold
    shrunk = (df * common + squares) / (df + freedom)
    expected = shrunk * np.mean(1 / shrunk[data.listener])
    np.testing.assert_allclose(relative_noise(numbered, effects), expected, rtol=1e-3)


def test_equal_noise_stays_equal() -> None:
    different = 0
    for seed in range(20):
        noise = relative_noise(*fitted(simulate(seed, n_pairs=80, n_listeners=20)))
        different += not (noise == 1).all()
    assert different <= 1  # 1 % each


def test_hard_pairs_are_not_careless_listeners() -> None:
    # All agree on nine pairs of ten, and nobody on the others.
    different = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        data = simulate(seed, n_pairs=150, n_listeners=40, per_pair=8)
        hard = rng.random(150) < 0.1
        noise = np.where(hard, 3.0, 0.05)[data.pair] * rng.normal(size=len(data.pair))
        ratings = data.truth[data.pair] + noise
        numbered = NumberedRatings(data.pair, data.listener, ratings, 150, 40)
        effects = CrossedEquations(numbered, np.ones(40), np.ones(40)).solve(0.0)
        different += not (relative_noise(numbered, effects) == 1).all()
    assert different <= 1


def test_scales_follow_the_listeners() -> None:
    data = simulate(2, bias=0.5, spread=0.3, n_pairs=600)
    numbered, effects = fitted(data)
    scale = listener_scales(numbered, effects, np.ones(60))
    assert scale[data.listener].mean() == pytest.approx(1)
    assert np.corrcoef(scale, data.scale)[0, 1] > 0.9
    assert 0.5 < scale.std() / data.scale.std() < 1  # the first step of several


def test_equal_scales_stay_close() -> None:
    numbered, effects = fitted(simulate(3, bias=0.5, n_pairs=600))
    assert listener_scales(numbered, effects, np.ones(60)).std() < 0.03


def test_reliability_is_the_share_of_truth() -> None:
    rng = np.random.default_rng(0)
    errors = np.tile([0.5, 2.0], 5000)
    truth = 4 + 1.5 * rng.normal(size=10_000)
    scores = truth + np.sqrt(errors) * rng.normal(size=10_000)
    variance, mean, reliability = pair_prior(scores, errors)
    assert (variance, mean) == (pytest.approx(2.25, rel=0.05), pytest.approx(4, abs=0.05))
    np.testing.assert_allclose(reliability, variance / (variance + errors))
    posterior = mean + reliability * (scores - mean)
    for error in (0.5, 2.0):
        of = errors == error
        expected = 2.25 * error / (2.25 + error)
        assert np.mean((posterior - truth)[of] ** 2) == pytest.approx(expected, rel=0.05)


def test_without_variance_nothing_is_reliable() -> None:
    variance, mean, reliability = pair_prior(np.array([1.0, 2.0, 3.0]), np.full(3, 5.0))
    assert (variance, mean, reliability.tolist()) == (0.0, 2.0, [0.0, 0.0, 0.0])
    for scores, errors in (([3.0], [1.0]), ([3.0, 5.0], [np.nan, np.nan])):
        variance, mean, reliability = pair_prior(np.array(scores), np.array(errors))
        assert np.isnan(variance)
        assert (mean, set(reliability)) == (np.mean(scores), {1.0})
