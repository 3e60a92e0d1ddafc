import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from simulated_ratings import Simulated, few_ratings, simulate

from xacle_stack.listeners.crossed import CrossedEquations, NumberedRatings


@pytest.fixture
def small() -> Simulated:
    return few_ratings(0)


def dense(
    data: Simulated, ratio: float, scale: np.ndarray, noise: np.ndarray
) -> dict[str, np.ndarray]:
    """Solve by generalised least squares with the full covariance of the ratings."""
    n, rows = len(data.ratings), np.arange(len(data.ratings))
    X, Z = np.zeros((n, len(data.truth))), np.zeros((n, len(data.bias)))
    X[rows, data.pair] = scale[data.listener]
    Z[rows, data.listener] = 1
    V = np.diag(noise[data.listener]) + ratio * Z @ Z.T
    Vi = np.linalg.inv(V)
    errors = np.linalg.inv(X.T @ Vi @ X)
    scores = errors @ X.T @ Vi @ data.ratings
    bias = ratio * Z.T @ Vi @ (data.ratings - X @ scores)
    left = data.ratings - X @ scores
    square = left @ Vi @ left
    freedom = n - X.shape[1]
    # The error of a fitted value is that of X m + Z b, b about its prediction.
    gain = ratio * Z.T @ Vi
    to_fit = X @ errors @ X.T @ Vi + Z @ gain @ (np.eye(n) - X @ errors @ X.T @ Vi)
    to_error = to_fit @ V @ to_fit.T - to_fit @ Z @ Z.T * ratio - (to_fit @ Z @ Z.T * ratio).T
    leverage = np.diag(to_error + ratio * Z @ Z.T)
    deviance = (
        np.linalg.slogdet(V)[1] + np.linalg.slogdet(X.T @ Vi @ X)[1] + freedom * np.log(square)
    )
    return {
        "scores": scores,
        "bias": bias,
        "errors": np.diag(errors) * square / freedom,
        "variance": square / freedom,
        "residuals": left - Z @ bias,
        "leverage": leverage,
        "deviance": deviance,
    }


def equations(data: Simulated, scale: np.ndarray, noise: np.ndarray) -> CrossedEquations:
    numbered = NumberedRatings(
        data.pair, data.listener, data.ratings, len(data.truth), len(data.bias)
    )
    return CrossedEquations(numbered, scale, noise)


def turned(data: Simulated) -> Simulated:
    """More listeners than pairs, so that the other block is eliminated."""
    keep = data.listener < len(data.bias) - 1
    pair, listener = data.listener[keep], data.pair[keep]
    return Simulated(
        pair, listener, data.ratings[keep], np.zeros(6), np.zeros(12), np.ones(12), np.ones(12)
    )


@pytest.mark.parametrize("which", ["more pairs", "more listeners"])
@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.7, 300.0])
def test_solution_equals_dense_least_squares(
    small: Simulated, rng: np.random.Generator, which: str, ratio: float
) -> None:
    data = small if which == "more pairs" else turned(small)
    scale, noise = rng.uniform(0.5, 2, size=(2, len(data.bias)))
    found = equations(data, scale, noise).solve(ratio)
    expected = dense(data, ratio, scale, noise)
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-8)
    np.testing.assert_allclose(found.bias, expected["bias"], atol=1e-8)
    np.testing.assert_allclose(found.errors, expected["errors"], rtol=1e-8)
    np.testing.assert_allclose(found.noise_variance, expected["variance"], rtol=1e-8)
    np.testing.assert_allclose(found.residuals, expected["residuals"], atol=1e-8)
    np.testing.assert_allclose(found.leverage, expected["leverage"], atol=1e-8)


@pytest.mark.parametrize("which", ["more pairs", "more listeners"])
def test_deviance_is_the_restricted_likelihood(
    small: Simulated, rng: np.random.Generator, which: str
) -> None:
    data = small if which == "more pairs" else turned(small)
    scale, noise = rng.uniform(0.5, 2, size=(2, len(data.bias)))
    system = equations(data, scale, noise)
    ratios = [0.01, 0.3, 5.0]
    found = [system.deviance(ratio) for ratio in ratios]
    expected = [float(dense(data, ratio, scale, noise)["deviance"]) for ratio in ratios]
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-8)


def test_most_likely_ratio_is_that_of_a_dense_search(small: Simulated) -> None:
    ones = np.ones(len(small.bias))
    found = equations(small, ones, ones).most_likely()
    expected = minimize_scalar(
        lambda log: dense(small, np.exp(log), ones, ones)["deviance"], bounds=(-9, 9)
    )
    assert np.log(found.ratio) == pytest.approx(expected.x, abs=0.02)
    without, best = (dense(small, r, ones, ones)["deviance"] for r in (0.0, found.ratio))
    assert without - best > 5.41  # else there would be no biases


def test_variances_are_recovered() -> None:
    ratios, variances = [], []
    for seed in range(5):
        data = simulate(seed, bias=0.7)
        ones = np.ones(len(data.bias))
        found = equations(data, ones, ones).most_likely()
        ratios.append(found.ratio)
        variances.append(found.noise_variance)
    assert np.mean(variances) == pytest.approx(1, abs=0.05)
    assert np.mean(ratios) == pytest.approx(0.49, abs=0.1)


def test_no_biases_without_evidence() -> None:
    found = []
    for seed in range(20):
        data = simulate(seed, n_pairs=60, n_listeners=15)
        ones = np.ones(len(data.bias))
        found.append(equations(data, ones, ones).most_likely())
    assert sum(effects.ratio > 0 for effects in found) <= 1  # 1 % each
    unbiased = next(effects for effects in found if effects.ratio == 0)
    assert not unbiased.bias.any()


def test_errors_say_how_far_scores_are_off() -> None:
    ratios = []
    for seed in range(5):
        data = simulate(seed, bias=0.7)
        ones = np.ones(len(data.bias))
        found = equations(data, ones, ones).most_likely()
        ratios.append(np.mean((found.scores - data.truth) ** 2) / found.errors.mean())
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)
