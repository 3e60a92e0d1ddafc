import numpy as np
import pytest
from scipy.stats import betabinom, binom, spearmanr

from xacle_stack.errors import StackingError
from xacle_stack.stacking.intervals import ConformalInterval

CONFIDENCES = (0.5, 0.8, 0.9, 0.95)


def draw(rng: np.random.Generator, n_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions, and scores that are less certain where these are high."""
    predicted = rng.uniform(0, 10, n_pairs)
    return predicted, predicted + (0.2 + 0.3 * predicted) * rng.standard_t(4, n_pairs)


def fitted(rng: np.random.Generator, n_pairs: int) -> ConformalInterval:
    return ConformalInterval().fit(*draw(rng, n_pairs), rng.integers(5, size=n_pairs))


def covered(interval: ConformalInterval, rng, n_pairs: int, confidence: float) -> np.ndarray:
    predicted, y = draw(rng, n_pairs)
    low, high = interval.predict(predicted, confidence)
    return (low <= y) & (y <= high)


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("n_pairs", [99, 199, 999])
def test_new_pairs_are_covered_as_often_as_said(rng, confidence: float, n_pairs: int) -> None:
    # Of k pairs among n, the share of new pairs below the k-th is Beta(k, n + 1 - k).
    n_new, needed = 1000, round((n_pairs + 1) * confidence)
    law = betabinom(n_new, needed, n_pairs + 1 - needed)
    n_covered = covered(fitted(rng, n_pairs), rng, n_new, confidence).sum()
    assert law.ppf(1e-3) <= n_covered <= law.ppf(1 - 1e-3)


def test_small_sets_are_covered_on_average(rng) -> None:
    hits = [covered(fitted(rng, 49), rng, 1, 0.9)[0] for _ in range(400)]
    law = binom(400, 0.9)
    assert law.ppf(1e-3) <= sum(hits) <= law.ppf(1 - 1e-3)


def test_hard_pairs_have_wide_intervals_and_all_are_covered(rng) -> None:
    interval = fitted(rng, 2000)
    predicted, y = draw(rng, 3000)
    low, high = interval.predict(predicted, 0.9)
    assert spearmanr(high - low, predicted).statistic > 0.9
    for third in np.array_split(np.argsort(high - low), 3):
        inside = (low[third] <= y[third]) & (y[third] <= high[third])
        assert 0.87 <= inside.mean() <= 0.93
    expected = (0.2 + 0.3 * predicted) * np.sqrt(2)  # the deviation of Student's t with 4
    assert np.median(np.abs(interval.deviation(predicted) / expected - 1)) < 0.15


def test_more_confidence_is_never_narrower(rng) -> None:
    interval = fitted(rng, 150)
    predicted, _ = draw(rng, 500)
    widths = [np.subtract(*interval.predict(predicted, c)[::-1]) for c in np.linspace(0.1, 0.98)]
    assert (np.diff(widths, axis=0) >= 0).all()
    assert np.isfinite(widths).all()


def test_alone_equals_together(rng) -> None:
    interval = fitted(rng, 150)
    predicted, _ = draw(rng, 20)
    together = np.array(interval.predict(predicted, 0.9))
    alone = [np.ravel(interval.predict(predicted[[row]], 0.9)) for row in range(20)]
    np.testing.assert_array_equal(together.T, alone)


def test_too_few_pairs_are_sure_of_nothing(rng) -> None:
    low, high = fitted(rng, 18).predict([5.0], 0.95)
    assert (low[0], high[0]) == (-np.inf, np.inf)
    low, high = fitted(rng, 40).predict([5.0], 0.5)
    assert np.isfinite([low, high]).all()


def test_coarse_predictions_and_exact_scores_have_intervals(rng) -> None:
    predicted = np.repeat([0.0, 10.0], 60)
    y = predicted.copy()
    y[::10] = 5
    interval = ConformalInterval().fit(predicted, y, np.arange(120) // 10 % 5)
    low, high = interval.predict([0.0, 5.0, 10.0], 0.8)
    np.testing.assert_array_equal(low, high)
    low, high = interval.predict([0.0, 10.0], 0.95)
    np.testing.assert_array_equal(high, [5.0, 15.0])
    constant = ConformalInterval().fit(np.ones(60), rng.normal(size=60), np.arange(60) % 5)
    low, high = constant.predict([0.0, 1.0, 2.0], 0.9)
    np.testing.assert_allclose(np.ptp(high - low), 0, atol=1e-12)


def test_pairs_without_weight_are_as_if_they_were_not_there(rng) -> None:
    predicted, y = draw(rng, 120)
    folds = np.arange(120) % 4
    some = rng.integers(2, size=120).astype(bool)
    weighted = ConformalInterval().fit(predicted, y, folds, some.astype(float))
    without = ConformalInterval().fit(predicted[some], y[some], folds[some])
    for one, other in zip(weighted.predict(y, 0.9), without.predict(y, 0.9), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_pair_held_out_by_itself_costs_no_more_than_ten_folds(rng) -> None:
    predicted, y = draw(rng, 3000)
    low, high = ConformalInterval().fit(predicted, y, np.arange(3000)).predict(predicted, 0.9)
    assert 0.88 <= np.mean((low <= y) & (y <= high)) <= 0.92


@pytest.mark.parametrize("confidence", [0, 1, 90, -0.1, "0.9", None, True, np.nan])
def test_a_confidence_is_between_0_and_1(rng, confidence: object) -> None:
    with pytest.raises(StackingError, match=r"confidence must be above 0 and below 1.*got"):
        fitted(rng, 60).predict([5.0], confidence)
