import numpy as np
import pytest
from scipy import stats

from xacle_stack.errors import MetricError, UnknownNameError
from xacle_stack.metrics import (
    METRICS,
    Estimate,
    Evaluation,
    evaluate,
    ktau,
    lcc,
    mse,
    probability_better,
    rank_systems,
    resampled_srcc_gains,
    srcc,
    srcc_gain,
)


@pytest.mark.parametrize("seed", range(20))
def test_metrics_equal_scipy_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, 11, size=rng.integers(2, 300)).astype(float)
    y_true[0], y_true[1] = 0, 10
    y_pred = np.round(y_true + rng.normal(scale=4, size=len(y_true)), 1)
    y_pred[1] = y_pred[0] + 1
    assert srcc(y_true, y_pred) == pytest.approx(
        stats.spearmanr(y_true, y_pred).statistic, abs=1e-12
    )
    assert lcc(y_true, y_pred) == pytest.approx(stats.pearsonr(y_true, y_pred).statistic, abs=1e-12)
    assert ktau(y_true, y_pred) == pytest.approx(
        stats.kendalltau(y_true, y_pred, variant="b").statistic, abs=1e-12
    )
    assert mse(y_true, y_pred) == pytest.approx(((y_true - y_pred) ** 2).mean(), abs=1e-12)


def test_ktau_equals_its_definition(rng: np.random.Generator) -> None:
    a, b = rng.integers(0, 4, size=(2, 30)).astype(float)
    signs_a, signs_b = np.sign(a[:, None] - a), np.sign(b[:, None] - b)
    tau_b = (signs_a * signs_b).sum() / np.sqrt((signs_a**2).sum() * (signs_b**2).sum())
    assert ktau(a, b) == pytest.approx(tau_b, abs=1e-12)


def test_correlations_survive_extreme_scales(rng: np.random.Generator) -> None:
    y = rng.normal(size=50)
    for scale in (1e-200, 1e150):
        assert lcc(y, y * scale) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_constant_has_no_correlation() -> None:
    assert np.isnan(srcc([1, 2, 3], [5, 5, 5]))
    assert np.isnan(lcc([1, 2, 3], [5, 5, 5]))
    assert np.isnan(ktau([1, 2, 3], [5, 5, 5]))


def test_intervals_hold_the_value_and_narrow_with_data(rng: np.random.Generator) -> None:
    widths = []
    for n in (50, 800):
        y_true = rng.normal(size=n)
        evaluation = evaluate(y_true, y_true + rng.normal(size=n), n_bootstrap=200)
        for estimate in evaluation.as_dict().values():
            assert estimate.low < estimate.value < estimate.high
        widths.append(evaluation.srcc.high - evaluation.srcc.low)
    assert widths[1] < widths[0] / 2


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        truth, noise = rng.normal(size=(2, 80))
        estimate = evaluate(truth, 0.6 * truth + 0.8 * noise, n_bootstrap=100).lcc
        covered += estimate.low <= 0.6 <= estimate.high
    assert covered >= 51  # 95 % of 60 is 57; fewer than 51 has a chance below 1 %


def test_interval_is_scipys_percentile_bootstrap(rng: np.random.Generator) -> None:
    y_true = rng.normal(size=60)
    y_pred = y_true + rng.normal(size=60)
    expected = stats.bootstrap(
        (y_true, y_pred),
        lcc,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        random_state=np.random.default_rng(1),
    ).confidence_interval
    found = evaluate(y_true, y_pred, n_bootstrap=2000).lcc
    assert found.low == pytest.approx(expected.low, abs=0.03)
    assert found.high == pytest.approx(expected.high, abs=0.03)


def test_groups_are_resampled_whole(rng: np.random.Generator) -> None:
    truth = np.repeat(rng.normal(size=60), 4)
    predicted = truth + np.repeat(rng.normal(size=60), 4) + 0.01 * rng.normal(size=240)
    groups = [f"caption {row // 4}" for row in range(240)]
    alone = [f"caption {row}" for row in range(240)]
    plain, grouped = evaluate(truth, predicted), evaluate(truth, predicted, groups=groups)
    assert evaluate(truth, predicted, groups=alone).srcc == plain.srcc
    assert (grouped.n_groups, plain.n_groups) == (60, None)
    for name, estimate in grouped.as_dict().items():
        assert estimate.value == plain.as_dict()[name].value
        width = plain.as_dict()[name].high - plain.as_dict()[name].low
        # Four equal pairs tell as much as one, so the interval is twice as wide.
        assert estimate.high - estimate.low == pytest.approx(2 * width, rel=0.25)
    once = evaluate(truth[::4], predicted[::4])
    assert grouped.srcc.low == pytest.approx(once.srcc.low, abs=0.01)
    assert srcc_gain(truth, predicted, predicted, groups=groups).high == 0
    assert probability_better(truth, truth, -truth, groups=groups) == 1
    assert "240 pairs in 60 groups" in repr(grouped)


def test_unusable_groups_are_told() -> None:
    with pytest.raises(MetricError, match="3 pairs but 2 labels"):
        evaluate([1, 2, 3], [1, 2, 3], groups=["a", "b"])
    with pytest.raises(MetricError, match="one group"):
        evaluate([1, 2, 3], [1, 2, 3], groups=["a", "a", "a"])


def test_same_seed_same_interval(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 40))
    assert evaluate(a, b, n_bootstrap=50) == evaluate(a, b, n_bootstrap=50)
    assert evaluate(a, b, n_bootstrap=50) != evaluate(a, b, n_bootstrap=50, random_state=1)


def plain_paired_bootstrap(
    truth: np.ndarray, a: np.ndarray, b: np.ndarray, name: str, n_bootstrap: int, seed: int
) -> np.ndarray:
    """Return each resample's two metrics, by SciPy and plain loops."""
    by_scipy = {
        "SRCC": lambda x, y: stats.spearmanr(x, y).statistic,
        "LCC": lambda x, y: stats.pearsonr(x, y).statistic,
        "KTAU": lambda x, y: stats.kendalltau(x, y).statistic,
        "MSE": lambda x, y: ((x - y) ** 2).mean(),
    }[name]
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n_bootstrap):
        rows = rng.integers(len(truth), size=len(truth))
        found.append([by_scipy(truth[rows], system[rows]) for system in (a, b)])
    return np.round(found, 10)


@pytest.mark.parametrize("metric", METRICS)
def test_probability_better_equals_a_plain_loop(metric: str) -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 11, size=40).astype(float)
    better, worse = truth + rng.normal(size=40), truth + rng.normal(scale=1.2, size=40)
    pairs = plain_paired_bootstrap(truth, better, worse, metric, 150, 7)
    sign = -1 if metric == "MSE" else 1
    expected = np.mean([1.0 if x > y else 0.5 if x == y else 0.0 for x, y in sign * pairs])
    found = probability_better(truth, better, worse, metric=metric, n_bootstrap=150, random_state=7)
    assert 0 < found < 1
    assert found == expected
    turned = probability_better(
        truth, worse, better, metric=metric, n_bootstrap=150, random_state=7
    )
    assert turned == pytest.approx(1 - expected)


def test_gain_and_probability_see_the_same_resamples(rng: np.random.Generator) -> None:
    truth = rng.normal(size=50)
    a, b = truth + rng.normal(size=50), truth + rng.normal(scale=1.1, size=50)
    pairs = plain_paired_bootstrap(truth, a, b, "SRCC", 200, 5)
    gains = pairs[:, 0] - pairs[:, 1]
    gain = srcc_gain(truth, a, b, n_bootstrap=200, random_state=5)
    np.testing.assert_allclose([gain.low, gain.high], np.quantile(gains, [0.025, 0.975]), atol=1e-9)
    assert gain.value == pytest.approx(srcc(truth, a) - srcc(truth, b))
    probability = probability_better(truth, a, b, n_bootstrap=200, random_state=5)
    assert probability == np.mean(gains > 0)
    assert gain != srcc_gain(truth, a, b, n_bootstrap=200, random_state=6)


def test_equal_systems_tie(rng: np.random.Generator) -> None:
    truth, system = rng.normal(size=(2, 30))
    assert probability_better(truth, system, system, n_bootstrap=50) == 0.5
    # A strictly increasing map changes no rank.
    assert probability_better(truth, np.exp(system), system, n_bootstrap=50) == 0.5
    assert probability_better(truth, 2 * truth, truth, metric="MSE", n_bootstrap=50) == 0.0


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_an_undefined_metric_is_the_worst(rng: np.random.Generator) -> None:
    truth, constant = rng.normal(size=30), np.ones(30)
    for metric in ("SRCC", "LCC", "KTAU"):
        assert probability_better(truth, constant, -truth, metric=metric, n_bootstrap=9) == 0.0
        assert probability_better(truth, constant, constant, metric=metric, n_bootstrap=9) == 0.5
    gain = srcc_gain(truth, constant, truth, n_bootstrap=9)
    assert np.isnan([gain.value, gain.low, gain.high]).all()


def make(srcc: float, lcc: float, ktau: float, mse: float) -> Evaluation:
    estimates = [Estimate(value, value, value) for value in (srcc, lcc, ktau, mse)]
    return Evaluation(*estimates, n_pairs=10, confidence=0.95)


def test_ranking_breaks_ties_officially() -> None:
    ranked = rank_systems(
        {
            "low": make(0.1, 0.9, 0.9, 0.0),
            "by lcc": make(0.5, 0.6, 0.1, 9.0),
            "by mse": make(0.5, 0.5, 0.4, 1.0),
            "worse mse": make(0.5, 0.5, 0.4, 2.0),
            "undefined": make(np.nan, 0.9, 0.9, 0.0),
            "by ktau": make(0.5, 0.5, 0.5, 9.0),
        }
    )
    assert ranked == ["by lcc", "by ktau", "by mse", "worse mse", "low", "undefined"]


@pytest.mark.parametrize(
    ("y_true", "y_pred", "message"),
    [
        ([1, 2, 3], [1, 2], "3 human scores but 2 predicted ones"),
        ([1], [1], "at least 2 pairs"),
        ([1, np.nan], [1, 2], "human scores: 1 value"),
        ([1, 2], [1, np.inf], "predicted scores: 1 value.*row 1"),
        ([[1, 2]], [1, 2], r"human scores: .* \(1, 2\)"),
        ([1, 2], ["a", "b"], "predicted scores: expected one number"),
    ],
)
def test_bad_scores_are_refused(y_true: object, y_pred: object, message: str) -> None:
    for metric in (srcc, lcc, ktau, mse, evaluate):
        with pytest.raises(MetricError, match=message):
            metric(y_true, y_pred)


def test_a_split_without_scores_is_explained() -> None:
    with pytest.raises(MetricError, match="has none"):
        evaluate(None, [1, 2])
    with pytest.raises(MetricError, match="confidence .*between 0 and 1"):
        evaluate([1, 2], [1, 2], confidence=95)
    with pytest.raises(MetricError, match="n_bootstrap must be 1 or more, got 0"):
        evaluate([1, 2], [1, 2], n_bootstrap=0)
    for compare in (probability_better, srcc_gain):
        with pytest.raises(MetricError, match="has none"):
            compare(None, [1, 2], [1, 2])
        with pytest.raises(MetricError, match="2 human scores but 3 predicted"):
            compare([1, 2], [1, 2], [1, 2, 3])
        with pytest.raises(MetricError, match="n_bootstrap must be 1 or more, got 0"):
            compare([1, 2], [1, 2], [1, 2], n_bootstrap=0)
    with pytest.raises(MetricError, match="confidence .*got 1.5"):
        srcc_gain([1, 2], [1, 2], [2, 1], confidence=1.5)
    with pytest.raises(UnknownNameError, match="'srcc'.* SRCC, LCC, KTAU, MSE"):
        probability_better([1, 2], [1, 2], [1, 2], metric="srcc")


def test_equal_but_for_rounding_is_equal() -> None:
    # Other ranks, whose differences from the truth's have the same squares.
    truth, one, other = [1, 2, 3, 4, 5], [2, 1, 3, 4, 5], [1, 2, 3, 5, 4]
    nearly = make(float(np.nextafter(0.5, 1)), 0.2, 0.5, 1.0)
    assert rank_systems({"nearly": nearly, "b": make(0.5, 0.6, 0.5, 1.0)}) == ["b", "nearly"]
    errors = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    same_mse = probability_better(
        np.zeros(5), errors, 3 * (errors / 3), metric="MSE", n_bootstrap=20
    )
    assert same_mse == 0.5
    assert srcc_gain(truth, one, other, n_bootstrap=9).value == 0


def test_repr_shows_all_metrics() -> None:
    shown = repr(evaluate([0, 2, 5, 9, 10], [1, 2, 4, 7, 9], n_bootstrap=20))
    for part in ("SRCC 1.00 [", "LCC", "KTAU", "MSE  1.40 [", "5 pairs"):
        assert part in shown


def test_gains_of_resamples_are_those_of_the_interval(rng) -> None:
    truth, a, b = rng.normal(size=(3, 30))
    groups = [str(row % 10) for row in range(30)]
    gains = resampled_srcc_gains(truth, a, b, groups=groups, n_bootstrap=50, random_state=3)
    gain = srcc_gain(truth, a, b, groups=groups, n_bootstrap=50, random_state=3)
    assert gains.shape == (50,)
    assert (gain.low, gain.high) == tuple(np.quantile(gains, [0.025, 0.975]))
