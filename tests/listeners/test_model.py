import logging
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from simulated_ratings import Simulated, few_ratings, simulate
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from xacle_stack.errors import PairsError
from xacle_stack.listeners import ListenerModel
from xacle_stack.pairs import read_pairs

NO_ENDS = (-np.inf, np.inf)


def fit(data: Simulated, **settings: object) -> ListenerModel:
    model = ListenerModel(**settings)  # type: ignore[arg-type]
    return model.fit(data.pair, data.listener, data.ratings)


def plain_means(data: Simulated) -> np.ndarray:
    return np.array([data.ratings[data.pair == i].mean() for i in range(len(data.truth))])


def squared_error(scores: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean((scores - truth) ** 2))


def test_scores_are_best_linear_unbiased() -> None:
    # Henderson's equations, dense, with the variances that the model found.
    data = few_ratings(0)
    model = fit(data, noise=False, score_range=NO_ENDS)
    assert model.listener_variance_ > 0
    n_pairs, n_listeners, rows = 12, 7, np.arange(len(data.pair))
    X, Z = np.zeros((len(rows), n_pairs)), np.zeros((len(rows), n_listeners))
    X[rows, data.pair], Z[rows, data.listener] = 1, 1
    ratio = model.noise_variance_ / model.listener_variance_
    left = np.block([[X.T @ X, X.T @ Z], [Z.T @ X, Z.T @ Z + ratio * np.eye(n_listeners)]])
    solution = np.linalg.solve(left, np.concatenate([X.T, Z.T]) @ data.ratings)
    found = [*model.scores_for(range(n_pairs)), *by_listener(model, model.bias_)]
    np.testing.assert_allclose(found, solution, atol=1e-8)
    errors = np.diag(np.linalg.inv(left))[:n_pairs] * model.noise_variance_
    reliability = model.pair_variance_ / (model.pair_variance_ + errors)
    uncertainty = by_pair(model, model.uncertainty_)
    np.testing.assert_allclose(uncertainty, reliability * errors, rtol=1e-8)
    np.testing.assert_allclose(
        model.weights_for(range(n_pairs)), reliability / reliability.mean(), rtol=1e-8
    )


def by_listener(model: ListenerModel, values: np.ndarray) -> np.ndarray:
    return values[np.argsort(model.listener_ids_)]


def by_pair(model: ListenerModel, values: np.ndarray) -> np.ndarray:
    return values[np.argsort(model.pair_ids_)]


@pytest.mark.parametrize(
    ("habits", "settings"),
    [
        ({"bias": 1.0}, {}),
        ({"carelessness": 0.8}, {}),
        ({"bias": 1.0, "carelessness": 0.8}, {}),
        ({"bias": 1.0, "spread": 0.4}, {"scale": True}),
    ],
    ids=str,
)
def test_truth_is_recovered_better_than_by_the_mean(
    habits: dict[str, float], settings: dict[str, bool]
) -> None:
    for seed in range(3):
        data = simulate(seed, **habits)
        model = fit(data, **settings)
        scores, plain = model.scores_for(range(300)), plain_means(data)
        assert squared_error(scores, data.truth) < 0.9 * squared_error(plain, data.truth)
        assert spearmanr(scores, data.truth)[0] > spearmanr(plain, data.truth)[0]
        posterior = by_pair(model, model.posterior_means_)
        assert squared_error(posterior, data.truth) < squared_error(scores, data.truth)


def test_habits_are_those_of_the_listeners() -> None:
    data = simulate(5, bias=1.0, spread=0.3, carelessness=0.5, n_pairs=900)
    model = fit(data, scale=True)
    for found, known, least in (
        (model.bias_, data.bias, 0.95),
        (model.scale_, data.scale, 0.85),
        (np.log(model.noise_), np.log(data.noise), 0.8),
    ):
        assert np.corrcoef(by_listener(model, found), known)[0, 1] > least
    assert model.listener_variance_ == pytest.approx(data.bias.var(), rel=0.3)
    assert model.pair_variance_ == pytest.approx(4, rel=0.2)


def test_uncertainty_is_the_error_that_is_left() -> None:
    errors, said = [], []
    for seed in range(5):
        data = simulate(seed, bias=0.7, carelessness=0.5)
        model = fit(data)
        truth = data.truth[np.array(model.pair_ids_)]
        errors.append(squared_error(model.posterior_means_, truth))
        said.append(model.uncertainty_.mean())
    assert np.mean(said) == pytest.approx(np.mean(errors), rel=0.15)


def test_more_ratings_weigh_more(rng: np.random.Generator) -> None:
    pair = np.repeat(np.arange(100), np.tile([2, 8], 50))
    listener = rng.integers(30, size=len(pair))
    ratings = rng.normal(size=100)[pair] + rng.normal(size=len(pair))
    model = ListenerModel().fit(pair, listener, ratings)
    assert model.weights_.mean() == pytest.approx(1)
    weights = model.weights_for(range(100)).reshape(-1, 2)
    assert (weights[:, 0] < weights[:, 1]).all()


def test_without_evidence_scores_are_the_plain_means() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        data = simulate(seed, n_pairs=100)
        ratings = np.clip(data.ratings.round(), 0, 10)
        model = ListenerModel().fit(data.pair, data.listener, ratings)
        plain = np.array([ratings[data.pair == i].mean() for i in range(100)])
        assert model.scores_for(range(100)).tolist() == plain.tolist()
        assert not model.bias_.any()
        order = rng.permutation(len(ratings))
        again = ListenerModel().fit(data.pair[order], data.listener[order], ratings[order])
        assert again.scores_for(range(100)).tolist() == plain.tolist()


def test_a_batch_of_good_pairs_is_no_batch_of_lenient_listeners() -> None:
    # Each batch of pairs has listeners of its own, who agree on all of them.
    rng = np.random.default_rng(0)
    batch = np.arange(20).repeat(10)
    truth = np.linspace(0, 10, 20)[batch] + 0.5 * rng.normal(size=200)
    pair = np.arange(200).repeat(4)
    listener = 4 * batch[pair] + np.tile(np.arange(4), 200)
    bias = 0.5 * rng.normal(size=80)
    ratings = truth[pair] + bias[listener] + 0.5 * rng.normal(size=800)
    model = ListenerModel().fit(pair, listener, ratings)
    assert model.listener_variance_ > 0
    plain = ratings.reshape(-1, 4).mean(axis=1)
    by_batch = model.scores_for(range(200)).reshape(20, 10).mean(axis=1)
    np.testing.assert_allclose(by_batch, plain.reshape(20, 10).mean(axis=1), atol=0.03)


def test_unanimous_pairs_at_an_end_stay_there() -> None:
    data = simulate(0, bias=1.5)
    ratings = np.clip(data.ratings.round(), 3, 7)
    model = ListenerModel().fit(data.pair, data.listener, ratings)
    assert model.listener_variance_ > 0
    scores = model.scores_for(range(300))
    pair_ratings = ratings.reshape(-1, 4)
    for end in (3, 7):
        at_end = (pair_ratings == end).all(axis=1)
        assert at_end.sum() > 5
        assert (scores[at_end] == end).all()
    assert scores.min() >= 3
    assert scores.max() <= 7
    free = ListenerModel(score_range=NO_ENDS).fit(data.pair, data.listener, ratings)
    assert free.scores_.max() > 7
    wide = ListenerModel(score_range=(0, 10)).fit(data.pair, data.listener, ratings)
    assert wide.scores_.max() > 7


def test_equal_ratings_give_equal_scores_whatever_their_weights() -> None:
    data = simulate(1, carelessness=0.8)
    ratings = data.ratings.round()
    ratings[data.pair < 50] = 5.1
    model = ListenerModel().fit(data.pair, data.listener, ratings)
    assert np.ptp(model.noise_) > 0.1
    assert model.listener_variance_ == 0
    assert set(model.scores_for(range(50))) == {5.1}


@pytest.mark.parametrize("settings", [{}, {"scale": True}, {"standardize": True}], ids=str)
def test_rows_may_come_in_any_order(settings: dict[str, bool], rng: np.random.Generator) -> None:
    data = simulate(2, bias=1.0, carelessness=0.5)
    order = rng.permutation(len(data.pair))
    shuffled = Simulated(
        data.pair[order], data.listener[order], data.ratings[order], *([data.truth] * 4)
    )
    first, second = fit(data, **settings), fit(shuffled, **settings)
    assert first.pair_ids_ != second.pair_ids_
    np.testing.assert_allclose(
        second.scores_for(range(300)), first.scores_for(range(300)), rtol=1e-6
    )
    np.testing.assert_allclose(
        second.weights_for(range(300)), first.weights_for(range(300)), rtol=1e-6
    )
    np.testing.assert_allclose(
        by_listener(second, second.bias_), by_listener(first, first.bias_), atol=1e-6
    )


def test_another_scale_gives_the_same_scores_on_it() -> None:
    data = simulate(3, bias=1.0, carelessness=0.5, spread=0.2)
    moved = Simulated(data.pair, data.listener, 1 + 0.4 * data.ratings, *([data.truth] * 4))
    first, second = fit(data, scale=True), fit(moved, scale=True)
    np.testing.assert_allclose(second.scores_, 1 + 0.4 * first.scores_, rtol=1e-6)
    np.testing.assert_allclose(second.bias_, 0.4 * first.bias_, atol=1e-6)
    np.testing.assert_allclose(second.noise_, 0.4 * first.noise_, rtol=1e-6)
    np.testing.assert_allclose(second.weights_, first.weights_, rtol=1e-6)


def test_a_listeners_constant_goes_into_the_bias() -> None:
    data = simulate(4, bias=1.0, per_pair=8)
    shifted = data.ratings + 3 * (data.listener == 0)
    plain, first = plain_means(data), fit(data, score_range=NO_ENDS)
    second = ListenerModel(score_range=NO_ENDS).fit(data.pair, data.listener, shifted)
    moved = np.abs(second.scores_for(range(300)) - first.scores_for(range(300)))
    assert moved.max() < 0.1
    shifted_mean = np.array([shifted[data.pair == i].mean() for i in range(300)])
    assert np.abs(shifted_mean - plain).max() == pytest.approx(3 / 8)


def test_one_listener_leaves_the_plain_means(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = ListenerModel(scale=True).fit(["a", "b", "a"], ["me"] * 3, [1.0, 5.0, 2.0])
    assert "nobody can tell a good pair from a lenient listener" in caplog.text
    assert model.scores_for(["a", "b"]).tolist() == [1.5, 5.0]
    assert model.bias_.tolist() == [0.0]


def test_one_rating_a_pair_leaves_the_ratings(caplog: pytest.LogCaptureFixture) -> None:
    model = ListenerModel().fit(["a", "b", "c"], ["x", "y", "x"], [1, 5, 2])
    assert "No pair was rated by two listeners" in caplog.text
    assert model.scores_.tolist() == [1, 5, 2]
    assert model.weights_.tolist() == [1, 1, 1]
    assert np.isnan([*model.uncertainty_, model.noise_variance_, model.pair_variance_]).all()


def test_one_pair_and_one_rating() -> None:
    assert ListenerModel().fit(["a"] * 3, ["x", "y", "z"], [1, 5, 3]).scores_.tolist() == [3]
    model = ListenerModel().fit(["a"], ["x"], [4])
    assert (model.scores_.tolist(), model.posterior_means_.tolist()) == ([4], [4])


@pytest.mark.parametrize("settings", [{}, {"scale": True}, {"standardize": True}], ids=str)
def test_constant_ratings(settings: dict[str, bool], rng: np.random.Generator) -> None:
    pair, listener = np.repeat(np.arange(20), 3), rng.integers(5, size=60)
    model = ListenerModel(**settings).fit(pair, listener, np.full(60, 7.3))
    assert set(model.scores_) == set(model.posterior_means_) == {7.3}
    assert (set(model.weights_), set(model.uncertainty_)) == ({1.0}, {0.0})
    assert not model.noise_.any()


@pytest.mark.parametrize("settings", [{}, {"scale": True}, {"standardize": True}], ids=str)
def test_ratings_without_noise(settings: dict[str, bool]) -> None:
    data = few_ratings(1)
    exact = data.truth[data.pair] + data.bias[data.listener]
    model = ListenerModel(score_range=NO_ENDS, **settings).fit(data.pair, data.listener, exact)
    scores = model.scores_for(range(12))
    rated_twice = np.bincount(data.pair, minlength=12) > 1
    off = (scores - data.truth)[rated_twice]
    assert np.ptp(off) < 0.01


def test_pairs_that_share_no_listener_are_kept_apart(rng: np.random.Generator) -> None:
    # Two experiments that never met: each is corrected within itself.
    first, second = simulate(0, bias=1.0, n_pairs=100), simulate(1, bias=1.0, n_pairs=100)
    model = ListenerModel(noise=False).fit(
        [*first.pair.tolist(), *(second.pair + 100).tolist()],
        [*first.listener.tolist(), *(second.listener + 60).tolist()],
        [*first.ratings, *second.ratings],
    )
    for data, rows in ((first, range(100)), (second, range(100, 200))):
        found = squared_error(model.scores_for(rows), data.truth)
        assert found < 0.9 * squared_error(plain_means(data), data.truth)


def test_labels_may_be_anything_hashable() -> None:
    data = simulate(0, bias=1.0, n_pairs=50)
    names = [("wav", int(i)) for i in data.pair]
    listeners = [f"L{i}" if i % 2 else int(i) for i in data.listener]
    named = ListenerModel().fit(names, listeners, data.ratings)
    assert named.pair_ids_[0] == ("wav", 0)
    numbered = fit(data)
    assert named.scores_.tolist() == numbered.scores_.tolist()
    assert named.scores_for([("wav", 3)]).tolist() == numbered.scores_for([3]).tolist()


def test_what_is_given_is_not_changed_and_settings_are_kept() -> None:
    data = simulate(0, bias=1.0, n_pairs=50)
    kept = data.ratings.copy()
    model = fit(data, scale=True, score_range=NO_ENDS)
    np.testing.assert_array_equal(data.ratings, kept)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert (copy.scale, copy.score_range) == (True, NO_ENDS)
    again = copy.fit(data.pair, data.listener, data.ratings)
    assert again.scores_.tolist() == model.scores_.tolist()


@pytest.mark.parametrize(
    ("pairs", "listeners", "ratings", "message"),
    [
        (["a", "b"], ["x", "y"], [1, np.nan], r"1 rating\(s\) are NaN .* row 1, of pair 'b'"),
        (["a", "b"], ["x", "y"], [np.inf, 1], "row 0, of pair 'a'"),
        (["a", "b"], ["x", None], [1, 2], "row 1 .*listener id: None"),
        (["a", "b"], ["x", ""], [1, 2], "row 1 .*listener id: ''"),
        (["a", float("nan")], ["x", "y"], [1, 2], "row 1 .*pair id: nan"),
        (["a"], ["x", "y"], [1, 2], "1 pair ids, 2 listener ids and 2 ratings"),
        (["a", "b"], ["x", "y"], ["1", "2"], "ratings: expected one number"),
        (["a", "b"], ["x", "y"], [[1, 2]], r"shape \(1, 2\)"),
        ([], [], np.empty(0), "no rating"),
    ],
)
def test_bad_ratings_are_told(
    pairs: list[object], listeners: list[object], ratings: object, message: str
) -> None:
    with pytest.raises(PairsError, match=message):
        ListenerModel().fit(pairs, listeners, ratings)  # type: ignore[arg-type]


def test_other_mistakes_are_told() -> None:
    with pytest.raises(PairsError, match=r"1 rating.* score_range=\(0, 5\).*row 1: 9"):
        ListenerModel(score_range=(0, 5)).fit(["a", "b"], ["x", "x"], [1, 9])
    model = ListenerModel().fit(["a", "a"], ["x", "y"], [1, 2])
    with pytest.raises(PairsError, match=r"2 pair\(s\) have no rating(.|\n)*'b'"):
        model.scores_for(["a", "b", "c"])
    with pytest.raises(PairsError, match=r"'a'.*\['a'\]"):
        model.weights_for("a")
    with pytest.raises(NotFittedError):
        ListenerModel().scores_for(["a"])


PLAIN = {"biases": False, "noise": False}


def test_without_any_effect_the_scores_are_plain_means() -> None:
    data = simulate(0, bias=1.0, spread=0.3, carelessness=0.5)
    assert fit(data).listener_variance_ > 0
    np.testing.assert_array_equal(fit(data, **PLAIN).scores_for(range(300)), plain_means(data))


def test_standardised_ratings_are_closer_to_the_truth() -> None:
    data = simulate(0, bias=1.0, spread=0.5, n_pairs=600)
    model = fit(data, standardize=True, score_range=NO_ENDS, **PLAIN)
    found = squared_error(model.scores_for(range(600)), data.truth)
    assert found < 0.7 * squared_error(plain_means(data), data.truth)
    assert np.corrcoef(by_listener(model, model.bias_), data.bias)[0, 1] > 0.8
    assert np.corrcoef(by_listener(model, model.scale_), data.scale)[0, 1] > 0.8
    # Unlike the mixed model, it can compare listeners who share no pair.
    alone = data.pair * 60 + data.listener
    model = ListenerModel(standardize=True).fit(alone, data.listener, data.ratings)
    assert np.corrcoef(by_listener(model, model.bias_), data.bias)[0, 1] > 0.8


@pytest.mark.parametrize("more", [PLAIN, {}, {"scale": True}], ids=str)
def test_habits_are_said_on_each_listeners_own_scale(more: dict[str, bool]) -> None:
    data = simulate(1, bias=1.0, spread=0.4)
    model = fit(data, standardize=True, score_range=NO_ENDS, **more)
    scores = model.scores_for(range(300))[data.pair]
    own = [by_listener(model, of)[data.listener] for of in (model.bias_, model.scale_)]
    residuals = (
        data.ratings - data.ratings.mean() - own[0] - own[1] * (scores - data.ratings.mean())
    )
    off = [residuals[data.listener == listener].mean() for listener in range(60)]
    assert np.std(off) < 0.4 < data.bias.std()
    noise = by_listener(model, model.noise_)[data.listener]
    assert np.sqrt(np.mean((residuals / noise) ** 2)) == pytest.approx(np.sqrt(3 / 4), rel=0.1)


def test_listeners_alike_are_not_standardised() -> None:
    changed = 0
    for seed in range(20):
        data = simulate(seed, n_pairs=100)
        scores = fit(data, standardize=True, **PLAIN).scores_for(range(100))
        changed += (scores != plain_means(data)).any()
    assert changed <= 3  # two tests at 1 %, and a margin


def test_good_pairs_make_a_listener_look_lenient_to_standardisation() -> None:
    # Each batch of pairs has listeners of its own.
    batch = np.arange(20).repeat(10)
    truth = np.linspace(0, 10, 20)[batch]
    pair = np.arange(200).repeat(4)
    listener = 4 * batch[pair] + np.tile(np.arange(4), 200)
    ratings = truth[pair] + np.random.default_rng(0).normal(size=800)
    mixed = ListenerModel().fit(pair, listener, ratings)
    wrong = ListenerModel(standardize=True, **PLAIN).fit(pair, listener, ratings)
    assert np.corrcoef(mixed.scores_, truth)[0, 1] > 0.95
    assert np.ptp(wrong.scores_.reshape(20, 10).mean(axis=1)) < 1


def test_screening_leaves_out_ratings_that_no_other_confirms(caplog) -> None:
    pairs = ["a", "a", "a", "b", "b", "c", "d", "d"]
    listeners = ["x", "y", "z", "x", "y", "x", "x", "only here"]
    ratings = [1.0, 3.0, 9.0, 2.0, 8.0, 5.0, 3.3, 8.3]
    with caplog.at_level(logging.INFO):
        model = ListenerModel(screening=5, **PLAIN).fit(pairs, listeners, ratings)
    assert model.counted_.tolist() == [True, True, False, True, True, True, True, True]
    assert model.scores_for(["a", "b", "c", "d"]).tolist() == pytest.approx([2, 5, 5, 5.8])
    assert model.unconfirmed_pair_ids_ == ("b", "c")
    assert "1 of 8 ratings do not count" in caplog.text
    assert "2 of 4 pair(s) have no two ratings within 5 points" in caplog.text
    assert "all 3 ratings of these pairs count:\n  - 'b'\n  - 'c'" in caplog.text
    assert ListenerModel().fit(pairs, listeners, ratings).counted_.all()


@pytest.mark.parametrize("settings", [{"standardize": True}, {"standardize": True, "scale": True}])
def test_a_listener_without_a_rating_that_counts_is_average(settings: dict[str, bool]) -> None:
    data = simulate(0, bias=1.0, spread=0.3)
    pair, listener = [*data.pair, 0], [*data.listener, 60]
    ratings = [*data.ratings, data.ratings.max() + 6]
    model = ListenerModel(screening=5, **settings).fit(pair, listener, ratings)
    assert model.listener_ids_[-1] == 60
    assert not model.counted_[-1]
    assert abs(model.bias_[-1]) < 0.2
    assert model.scale_[-1] == pytest.approx(1, abs=0.1)
    assert np.isfinite(model.noise_[-1])


def test_unusable_settings_are_told_together() -> None:
    data = few_ratings(0)
    model = ListenerModel(biases="no", noise=1, screening=float("nan"), score_range=(10, 0))
    with pytest.raises(PairsError, match="4 settings are unusable") as told:
        model.fit(data.pair, data.listener, data.ratings)
    for fact in ("biases .*'no'", "noise must be True or False, got 1", "screening .*above 0.*nan"):
        assert re.search(fact, str(told.value))
    assert "score_range must be a lower and a higher number, got (10, 0)" in str(told.value)
    for screening in (0, -1, np.inf, "5", True):
        with pytest.raises(PairsError, match="screening must be a finite number above 0"):
            ListenerModel(screening=screening).fit(data.pair, data.listener, data.ratings)


def test_half_of_the_real_listeners_predict_the_others(real_data: Path) -> None:
    ratings = read_pairs(real_data / "esc10", "validation").ratings
    assert ratings is not None
    listeners = np.array(ratings.listener_ids)
    pairs = np.array(ratings.pair_ids)
    names = np.unique(listeners)
    gains = []
    for seed in range(10):
        half = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
        first = np.isin(listeners, half)
        model = ListenerModel().fit(pairs[first], listeners[first], ratings.scores[first])
        both = sorted(set(pairs[first]) & set(pairs[~first]))
        plain = [ratings.scores[first & (pairs == pair)].mean() for pair in both]
        target = [ratings.scores[~first & (pairs == pair)].mean() for pair in both]
        scores = model.scores_for(both)
        gains.append(
            [
                spearmanr(scores, target)[0] - spearmanr(plain, target)[0],
                squared_error(np.array(plain), np.array(target))
                - squared_error(scores, np.array(target)),
            ]
        )
    srcc_gain, mse_gain = np.mean(gains, axis=0)
    assert srcc_gain > -1e-3
    assert mse_gain > 0
