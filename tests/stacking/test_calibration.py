import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags

from xacle_stack.errors import StackingError
from xacle_stack.metrics import ktau, mse, srcc
from xacle_stack.stacking import calibration
from xacle_stack.stacking.calibration import (
    MonotoneCalibration,
    check_in_range,
    keep_in_range,
)

QUICK = settings(deadline=None, derandomize=True, max_examples=25)


def test_it_is_an_estimator_of_one_dimensional_input(rng) -> None:
    # For such estimators, as its own IsotonicRegression, scikit-learn has no checks.
    tags = get_tags(MonotoneCalibration()).input_tags
    assert tags.one_d_array
    assert not tags.two_d_array
    x = rng.normal(size=30)
    model = MonotoneCalibration()
    with pytest.raises(NotFittedError):
        model.predict(x)
    y, before = x + 1, x.copy()
    assert model.fit(x, y) is model
    np.testing.assert_array_equal(x, before)
    assert not vars(clone(model))
    np.testing.assert_array_equal(clone(model).fit(x, y).predict(x), model.predict(x))
    np.testing.assert_array_equal(
        clone(model).fit(x[:, np.newaxis], y).predict(x), model.predict(x)
    )
    assert model.score(x, y) > 0.99


@QUICK
@given(
    st.integers(0, 2**31),
    st.integers(2, 400),
    st.sampled_from(["random", "tied", "skewed", "clustered"]),
    st.floats(-6, 6),
    st.booleans(),
)
def test_ranks_stay_and_no_straight_line_is_nearer(seed, n, kind, log_scale, weighted) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    if kind == "tied":
        x = np.round(x, 1)
    elif kind == "skewed":
        x = np.exp(2 * x)
    elif kind == "clustered":
        x = np.sign(x) + x * 1e-3
    y = np.clip(np.round(5 + 3 * np.tanh(x) + rng.normal(size=n), 1), 0, 10)
    x = x * 10.0**log_scale
    weights = rng.uniform(0.1, 3, size=n) if weighted else np.ones(n)
    model = MonotoneCalibration().fit(x, y, weights)
    calibrated = model.predict(x)
    assert len(np.unique(calibrated)) == len(np.unique(x))
    for metric in (srcc, ktau):
        if len(np.unique(x)) > 1 and len(np.unique(y)) > 1:
            assert metric(y, calibrated) == metric(y, x)
    wide = np.sort(np.concatenate([x, 3 * x, x.mean() + 5 * x.std() * rng.normal(size=50)]))
    wide = wide[np.diff(wide, prepend=-np.inf) > 1e-9 * np.abs(wide).max()]
    assert (np.diff(model.predict(wide)) > 0).all()
    assert (np.diff(model.knots_) > 0).all()
    assert (np.diff(model.values_) > 0).all()
    if np.cov(x, y, aweights=weights)[0, 1] > 0:
        line = np.polyval(
            np.polyfit(x / 10.0**log_scale, y, 1, w=np.sqrt(weights)), x / 10.0**log_scale
        )
        error, of_line = (weights @ np.square(y - p) / weights.sum() for p in (calibrated, line))
        assert error <= of_line * (1 + 1e-9) + 1e-12


def test_it_bends_where_the_truth_bends(rng) -> None:
    x = rng.uniform(size=600)
    y = 10 * x**3 + 0.3 * rng.normal(size=600)
    model = MonotoneCalibration().fit(x, y)
    line = np.polyval(np.polyfit(x, y, 1), x)
    assert mse(y, model.predict(x)) < 0.2 * mse(y, line)
    assert len(model.knots_) == 11


@pytest.mark.parametrize("n", [15, 300])
def test_predictions_that_fall_or_say_nothing(rng, n: int) -> None:
    x = rng.normal(size=n)
    y = 5 - x
    model = MonotoneCalibration().fit(x, y)
    calibrated = model.predict(x)
    assert srcc(x, calibrated) == pytest.approx(1, abs=1e-12)  # the ranks are not turned round
    assert mse(y, calibrated) < 1.01 * np.var(y)
    for constant in (0.0, 3.7):
        model = MonotoneCalibration().fit(np.full(n, constant), y)
        np.testing.assert_allclose(model.predict(np.full(4, constant)), y.mean())
        assert (np.diff(model.predict([-1.0, 0.0, 1.0, 2.0])) > 0).all()
    model = MonotoneCalibration().fit(x, np.full(n, 4.0))
    np.testing.assert_allclose(model.predict(x), 4.0, atol=0.01)
    assert len(np.unique(model.predict(x))) == n
    assert MonotoneCalibration().fit([2.0], [3.0]).predict([2.0]) == [3.0]


def test_a_weight_is_a_number_of_rows(rng) -> None:
    x = rng.normal(size=400)
    y, weights = x + rng.normal(size=400), rng.integers(1, 4, size=400)
    weighted = MonotoneCalibration().fit(x, y, weights)
    repeated = MonotoneCalibration().fit(np.repeat(x, weights), np.repeat(y, weights))
    np.testing.assert_array_equal(weighted.knots_, repeated.knots_)
    np.testing.assert_allclose(weighted.predict(x), repeated.predict(x), rtol=1e-9)
    weights[::4] = 0
    zeroed = MonotoneCalibration().fit(x, np.where(weights == 0, 99, y), weights)
    kept = weights > 0
    without = MonotoneCalibration().fit(x[kept], y[kept], weights[kept])
    np.testing.assert_array_equal(zeroed.predict(x), without.predict(x))
    falling = MonotoneCalibration().fit(-x, x, weights).predict(x)
    repeated = MonotoneCalibration().fit(-np.repeat(x, weights), np.repeat(x, weights)).predict(x)
    np.testing.assert_allclose(falling, repeated, rtol=1e-9)


def test_bad_input_is_told() -> None:
    with pytest.raises(StackingError, match="3 predictions for 2 scores"):
        MonotoneCalibration().fit([1, 2, 3], [1, 2])
    with pytest.raises(StackingError, match="0 predictions for 0 scores"):
        MonotoneCalibration().fit(np.empty(0), np.empty(0))
    for bad in ([1.0, np.nan], [1.0, np.inf], ["a", "b"], [[1.0, 2.0], [3.0, 4.0]]):
        with pytest.raises(StackingError, match=r"one finite number a pair.*\d"):
            MonotoneCalibration().fit(bad, [1, 2])
    with pytest.raises(StackingError, match="weights .*zero"):
        MonotoneCalibration().fit([1, 2], [1, 2], [0, 0])


@pytest.mark.parametrize(("low", "high"), [(0.0, 10.0), (-1.0, 1.0), (1.0, 5.0)])
def test_the_range_bounds_and_keeps_the_order(rng, low: float, high: float) -> None:
    size = high - low
    scores = np.sort(rng.uniform(low - size, high + size, size=2000))
    bent = keep_in_range(scores, low, high)
    assert (np.diff(bent) > 0).all()
    assert low < bent.min() < bent.max() < high
    inside = (scores > low + 0.05 * size) & (scores < high - 0.05 * size)
    np.testing.assert_allclose(bent[inside], scores[inside], rtol=1e-14, atol=1e-15)
    far = keep_in_range(np.array([-1e9, 1e9]), low, high)
    assert low <= far[0] < far[1] <= high


def test_scores_outside_the_range_are_counted() -> None:
    check_in_range(np.array([0.0, 10.0, 3.0]), 0, 10)
    with pytest.raises(StackingError, match=r"2 scores .* score_range=\(0, 10\)"):
        check_in_range(np.array([5.0, -0.1, 10.1]), 0, 10)


def test_least_squares_that_do_not_converge_are_told(rng, monkeypatch) -> None:
    x = rng.normal(size=100)
    unfinished = OptimizeResult(x=np.zeros(6), success=False, message="The maximum was reached.")
    monkeypatch.setattr(calibration, "lsq_linear", lambda *args, **options: unfinished)
    with pytest.raises(StackingError, match="100 predictions .* not found: The maximum was"):
        MonotoneCalibration().fit(x, x)
