import sys
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import FeatureError, MissingExtraError, ModelFileError, StackingError
from xacle_stack.metrics import ktau, mse, srcc
from xacle_stack.stacking import GroupedRidge, Stacker
from xacle_stack.stacking.calibration import keep_in_range
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.learners import FittedLearner, rank_target, raw_view
from xacle_stack.stacking.ridge import fit_blocks
from xacle_stack.stacking.stacker import META_PENALTIES
from xacle_stack.table import FeatureTable

PRESETS = ("best", "paper")
OUT_OF_FOLD = "fit_transform returns out-of-fold predictions, which transform cannot know"


@parametrize_with_checks(
    [Stacker(n_splits=2, random_state=0), Stacker(preset="paper", random_state=0)],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "folds, and the rows that trees and "
        "kernels are learned on, are drawn over rows: repeated rows are drawn otherwise",
        "check_transformer_general": OUT_OF_FOLD,
        "check_transformer_data_not_an_array": OUT_OF_FOLD,
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize("preset", PRESETS)
def test_another_library_trains_the_trees_of_a_preset(rng, monkeypatch, preset: str) -> None:
    pytest.importorskip("catboost", reason="the extra catboost is not installed")
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    stacks = [
        Stacker(preset=preset, boosting_library=library, random_state=0).fit(X, y)
        for library in ("lightgbm", "catboost")
    ]
    is_boosting = np.array(["boosting" in name for name in stacks[0].level0_names_])
    differs = (stacks[0].oof_predictions_ != stacks[1].oof_predictions_).any(axis=0)
    np.testing.assert_array_equal(differs, is_boosting)
    monkeypatch.setitem(sys.modules, "catboost", None)
    with pytest.raises(MissingExtraError, match=r"xacle-stack\[catboost\]"):
        clone(stacks[1]).fit(X, y)
    own = [("linear", LinearRegression())]  # no preset's learners
    Stacker(own, boosting_library="catboost").fit(X, y)
    assert np.isfinite(stacks[1].predict(X)).all()


def test_oof_predictions_never_see_their_own_label(rng) -> None:
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    memoriser = KNeighborsRegressor(n_neighbors=1)  # in-sample it returns y exactly
    stacker = Stacker([("memoriser", memoriser)], random_state=0).fit(X, y)
    assert not np.any(stacker.oof_predictions_[:, 0] == y)


def test_more_pairs_than_a_block_are_scored_as_its_parts_are(rng) -> None:
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    stacker = Stacker(preset="paper", n_splits=2, random_state=0).fit(X, y)
    new = rng.normal(size=(5000, 3))
    scores = stacker.predict(new)
    np.testing.assert_allclose(scores, stacker.meta_predict(stacker.transform(new)), rtol=1e-9)
    np.testing.assert_allclose(scores[4000:], stacker.predict(new[4000:]), rtol=1e-9)
    np.testing.assert_array_equal(scores, stacker.set_params(n_jobs=2).predict(new))


def test_oof_predictions_never_see_their_groups_labels(rng) -> None:
    X = np.repeat(rng.normal(size=(30, 3)), 2, axis=0)  # each row has a twin
    y = np.repeat(rng.normal(size=30), 2)
    groups = np.repeat(np.arange(30), 2)
    memoriser = [("memoriser", KNeighborsRegressor(n_neighbors=1))]
    grouped = Stacker(memoriser, random_state=0).fit(X, y, groups=groups)
    ungrouped = Stacker(memoriser, random_state=0).fit(X, y)
    assert not np.any(grouped.oof_predictions_[:, 0] == y)
    assert np.mean(ungrouped.oof_predictions_[:, 0] == y) > 0.4


def test_stack_is_wolperts_by_hand(rng) -> None:
    X, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    new = rng.normal(size=(7, 3))
    stacker = Stacker(
        [("linear", LinearRegression()), ("mean", DummyRegressor())],
        meta=LinearRegression(),
        random_state=3,
    ).fit(X, y)
    oof, of_new = np.empty((50, 2)), np.zeros((7, 2))
    for fold in range(3):
        held = stacker.folds_ == fold
        linear = LinearRegression().fit(X[~held], y[~held])
        oof[held] = np.column_stack([linear.predict(X[held]), np.full(held.sum(), y[~held].mean())])
        of_new += np.column_stack([linear.predict(new), np.full(7, y[~held].mean())]) / 3
    np.testing.assert_allclose(stacker.oof_predictions_, oof)
    np.testing.assert_allclose(stacker.transform(new), of_new)
    expected = LinearRegression().fit(oof, y).predict(of_new)
    np.testing.assert_allclose(stacker.predict(new), expected)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("grouped", [False, True])
def test_no_own_label_moves_an_oof_prediction(problem, preset: str, grouped: bool) -> None:
    X, y, groups = problem(60)
    groups = groups if grouped else None
    stacker = Stacker(preset=preset, n_splits=3, random_state=0, target="rank")
    before = stacker.fit(X, y, groups)
    oof, folds = before.oof_predictions_, before.folds_
    if grouped:
        assert all(len(set(folds[groups == group])) == 1 for group in groups)
    for row in (0, 31):
        changed = y.copy()
        changed[row] += 5.0  # moves every later rank as well
        after = stacker.fit(X, changed, groups)
        same_fold = folds == folds[row]
        np.testing.assert_array_equal(after.oof_predictions_[same_fold], oof[same_fold])
        assert (after.oof_predictions_[~same_fold] != oof[~same_fold]).any()


@pytest.mark.parametrize("n_splits", [2, 3])
def test_no_label_of_a_fold_moves_its_oof_predictions(problem, rng, n_splits: int) -> None:
    X, y, _ = problem(60)
    weights = rng.uniform(0.5, 2, size=60)
    stacker = Stacker(preset="paper", n_splits=n_splits, random_state=0)
    oof, folds = stacker.fit(X, y, None, weights).oof_predictions_, stacker.folds_
    for fold in range(n_splits):
        changed = np.where(folds == fold, rng.permutation(y) * 3, y)
        after = stacker.fit(X, changed, None, weights).oof_predictions_
        np.testing.assert_array_equal(after[folds == fold], oof[folds == fold])


def test_the_ridges_of_paper_are_those_of_its_blocks(problem) -> None:
    X, y, groups = problem(60)
    stacker = Stacker(preset="paper", penalties=[1.0, 100.0], random_state=0).fit(X, y, groups)
    _, labels = np.unique(groups, return_inverse=True)
    rows = np.arange(60)
    folds = [(rows[stacker.folds_ != k], rows[stacker.folds_ == k]) for k in range(3)]
    targets = np.zeros((3, 60, 2))
    for fold, (train, _) in enumerate(folds):
        targets[fold, train] = np.column_stack([y[train], rank_target(y[train])])
    ones = np.ones(60)
    oof, model, _ = fit_blocks(X, X.families["two"], folds, labels, targets, ones, [1.0, 100.0])
    columns = [stacker.level0_names_.index(f"ridge two/{of}") for of in ("score", "rank")]
    np.testing.assert_allclose(stacker.oof_predictions_[:, columns], oof, atol=1e-9)
    predicted = stacker.transform(X)[:, columns]
    np.testing.assert_allclose(predicted, model.predict(X.family("two")), atol=1e-9)


def test_a_process_of_ones_own_keeps_a_model_for_each_fold(problem) -> None:
    X, y, _ = problem(60)
    stacker = Stacker([("mine", BlockGaussianProcess())], random_state=0).fit(X, y)
    (learner,) = stacker.level0_models_
    assert len(learner.models) == 3
    for fold, model in enumerate(learner.models):
        held_out = stacker.folds_ == fold
        predicted = model.predict(X.values[held_out])
        np.testing.assert_allclose(stacker.oof_predictions_[held_out, 0], predicted)


def test_learners_of_best_are_trained_once_more_on_all_rows(problem) -> None:
    X, y, _ = problem(60)
    stacker = Stacker(random_state=0).fit(X, y)
    assert {len(learner.models) for learner in stacker.level0_models_} == {1}
    models = [learner.models[0] for learner in stacker.level0_models_]
    process = next(model for model in models if isinstance(model, BlockGaussianProcess))
    assert process.landmarks_.shape[1] == 60
    expected = process.predict(stacker.compression_.transform(X)).reshape(60, -1)[:, 0]
    index = stacker.level0_names_.index("gaussian process/score")
    np.testing.assert_allclose(stacker.transform(X)[:, index], expected, rtol=1e-6)
    paper = Stacker(preset="paper", random_state=0).fit(X, y)
    assert [len(learner.models) for learner in paper.level0_models_] == [1, 1, 1, 3]


@pytest.mark.parametrize("preset", PRESETS)
def test_it_learns_and_the_table_makes_families(problem, preset: str) -> None:
    X, y, groups = problem(300)
    stacker = Stacker(preset=preset, n_splits=3, random_state=0).fit(X, y, groups=groups)
    assert list(stacker.families_) == ["one", "two", "agreement"]
    assert stacker.oof_predictions_.shape == (300, len(stacker.level0_names_))
    stacked = srcc(y, stacker.meta_predict(stacker.oof_predictions_))
    if preset == "paper":
        assert len(stacker.level0_names_) == 7
        of_single_spaces = [srcc(y, column) for column in stacker.oof_predictions_[:, :4].T]
        assert stacked > max(of_single_spaces) + 0.1  # each space knows half of the truth
    new, truth, _ = problem(300, seed=1)
    assert min(stacked, srcc(truth, stacker.predict(new))) > 0.6


def test_a_plain_array_is_one_family(problem) -> None:
    X, y, _ = problem(60)
    stacker = Stacker(preset="paper", random_state=0).fit(X.values, y)
    assert stacker.families_ == {"all": ("all",)}
    assert stacker.level0_names_ == ["ridge all/score", "ridge all/rank", "boosting/score"]
    stacker = Stacker(n_splits=2, random_state=0).fit(X.values, y)
    assert {"gaussian process/score", "boosting/score"} <= set(stacker.level0_names_)


@pytest.mark.parametrize("preset", PRESETS)
def test_same_seed_same_bytes_whatever_the_workers(problem, preset: str) -> None:
    X, y, groups = problem(60)
    given = {"preset": preset, "n_splits": 3, "target": "rank", "score_range": (-100, 100)}
    first, second, parallel = (
        Stacker(**given, random_state=0, n_jobs=n_jobs).fit(X, y, groups) for n_jobs in (1, 1, 2)
    )
    for other in (second, parallel, first.set_params(n_jobs=2)):
        assert other.oof_predictions_.tobytes() == first.oof_predictions_.tobytes()
        assert other.predict(X).tobytes() == first.predict(X).tobytes()
    oof = first.oof_predictions_
    assert first.fit(X, y, groups).oof_predictions_.tobytes() == oof.tobytes()
    assert (Stacker(**given, random_state=1).fit(X, y, groups).folds_ != first.folds_).any()


@pytest.mark.parametrize("preset", PRESETS)
def test_score_range_bends_the_predictions_inside(problem, preset: str) -> None:
    X, y, _ = problem(60)
    y = np.clip(y, 0, 10)
    given = {"preset": preset, "n_splits": 2, "random_state": 0}
    new = FeatureTable(X.values * 3, X.blocks, X.pair_ids, X.families)
    free = Stacker(**given, score_range=None).fit(X, y).predict(new)
    bounded = Stacker(**given, score_range=(0, 10)).fit(X, y).predict(new)
    np.testing.assert_array_equal(bounded, keep_in_range(free, 0, 10))
    assert srcc(free, bounded) == srcc(free, free)
    assert 0 < bounded.min() < bounded.max() < 10
    if preset == "paper":
        assert free.min() < 0
    with pytest.raises(StackingError, match=r"1 scores .*score_range=\(0, 10\).* row 4"):
        Stacker(score_range=(0, 10)).fit(X, np.where(np.arange(60) == 4, 11.0, y))


@pytest.mark.parametrize("preset", PRESETS)
def test_predicted_ranks_are_brought_to_the_scale_of_the_scores(problem, preset: str) -> None:
    X, y, groups = problem(150)
    new, truth, _ = problem(150, seed=1)
    y, truth = (np.clip(10 / (1 + np.exp(-(scores - 5))), 0, 10) for scores in (y, truth))
    of = {
        target: Stacker(preset=preset, n_splits=3, random_state=0, target=target).fit(X, y, groups)
        for target in ("score", "rank")
    }
    assert of["score"].calibration_ is None
    ranks = of["rank"].meta_.predict(of["rank"].transform(new))
    predicted = of["rank"].predict(new)
    assert -0.5 < ranks.min() < ranks.max() < 1.5
    assert abs(predicted.mean() - truth.mean()) < 1
    assert (srcc(truth, predicted), ktau(truth, predicted)) == (
        srcc(truth, ranks),
        ktau(truth, ranks),
    )
    assert mse(truth, predicted) <= 1.02 * mse(truth, of["score"].predict(new))


@pytest.mark.parametrize("preset", PRESETS)
def test_inputs_stay_untouched(problem, preset: str) -> None:
    X, y, groups = problem(60)
    table = FeatureTable(X.values, X.blocks, X.pair_ids, X.families)
    values, scores, weights = table.values.copy(), y.copy(), np.arange(1.0, 61.0)
    Stacker(preset=preset, n_splits=2, random_state=0).fit(table, y, groups, weights).predict(table)
    np.testing.assert_array_equal(table.values, values)
    np.testing.assert_array_equal(y, scores)
    np.testing.assert_array_equal(weights, np.arange(1.0, 61.0))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_table_of_values_is_a_table_that_makes_them(problem, preset: str) -> None:
    X, y, _ = problem(60)
    made = FeatureTable(X.values, X.blocks, X.pair_ids, X.families)
    lazy = Stacker(preset=preset, n_splits=2, random_state=0).fit(X, y)
    eager = Stacker(preset=preset, n_splits=2, random_state=0).fit(made, y)
    assert eager.oof_predictions_.tobytes() == lazy.oof_predictions_.tobytes()
    assert eager.predict(X).tobytes() == lazy.predict(made).tobytes() == lazy.predict(X).tobytes()
    held = FeatureTable(X.values, X.blocks, X.pair_ids, X.families)
    np.testing.assert_allclose(lazy.predict(held), lazy.predict(X), rtol=1e-6)
    # As one family it is the array, where both have the same blocks.
    blocks = {str(column): slice(column, column + 1) for column in range(20)}
    one = FeatureTable(X.values[:, :20], blocks, X.pair_ids, {"all": tuple(blocks)})
    of_table = Stacker(preset=preset, n_splits=2, random_state=0).fit(one, y)
    of_array = Stacker(preset=preset, n_splits=2, random_state=0).fit(X.values[:, :20], y)
    assert of_table.oof_predictions_.tobytes() == of_array.oof_predictions_.tobytes()
    assert of_table.predict(one).tobytes() == of_array.predict(one.values).tobytes()


@pytest.mark.parametrize("preset", PRESETS)
def test_any_layout_and_type_of_the_values(rng, preset: str) -> None:
    X = rng.integers(-20, 20, size=(60, 5)).astype(float)
    y = rng.integers(0, 11, size=60)
    stacker = Stacker(preset=preset, n_splits=2, random_state=0)
    expected = stacker.fit(X, y).predict(X)
    wide = np.empty((120, 10))
    wide[::2, ::2] = X
    for other in (
        X.astype(np.float16),
        X.astype(np.float32),
        X.astype(np.int16),
        np.asfortranarray(X),
        wide[::2, ::2],
        X[::-1][::-1],
        pd.DataFrame(X, columns=list("abcde")),
    ):
        predicted = stacker.fit(other, y.astype(np.float32)).predict(other)
        np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-4)
    table = FeatureTable(X.astype(np.float16), {"all": slice(0, 5)})
    assert np.isfinite(stacker.fit(table, y).predict(table)).all()


Changed = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@pytest.mark.parametrize("target", ["score", "rank"])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "change",
    [
        lambda X, y: (X, np.full(60, 3.0)),
        lambda X, y: (np.where(np.arange(4) == 2, 7.0, X), y),
        lambda X, y: (np.ones_like(X), y),
        lambda X, y: (X[:, :1], y),
        lambda X, y: (X[:6], y[:6]),
        lambda X, y: (X[np.arange(60) % 20], y[np.arange(60) % 20]),
        lambda X, y: (X * [1e-12, 1e8, 1, 1], y),
        lambda X, y: (X[:, [0, 0, 1, 1]], y * 1e6),
        lambda X, y: (np.hstack([X] * 50), y),
    ],
    ids=[
        "constant target",
        "constant column",
        "only constant columns",
        "one column",
        "six rows",
        "duplicate rows",
        "mixed scales",
        "duplicate columns",
        "more columns than rows",
    ],
)
def test_degenerate_data(rng, preset: str, target: str, change: Changed) -> None:
    X = rng.normal(size=(60, 4))
    X, y = change(X, X[:, 0] + rng.normal(size=60))
    stacker = Stacker(preset=preset, target=target, random_state=0).fit(X, y)
    predicted = stacker.predict(X)
    assert np.isfinite(predicted).all()
    assert np.isfinite(stacker.oof_predictions_).all()
    assert y.min() - np.ptp(y) - 1e-9 <= predicted.min() <= predicted.max()
    assert predicted.max() <= y.max() + np.ptp(y) + 1e-9


@pytest.mark.parametrize("preset", PRESETS)
def test_a_group_larger_than_a_fold_stays_together(rng, preset: str) -> None:
    X, y = rng.normal(size=(60, 4)), rng.normal(size=60)
    groups = np.r_[np.zeros(40, dtype=int), np.arange(1, 21)]
    stacker = Stacker(preset=preset, n_splits=3, random_state=0).fit(X, y, groups)
    assert len(set(stacker.folds_[:40])) == 1
    assert np.isfinite(stacker.oof_predictions_).all()


def test_a_weight_of_zero_moves_no_model_of_paper(problem) -> None:
    X, y, groups = problem(60)
    weights = np.where(np.arange(60) % 4, 1.0, 0.0)
    changed = np.where(weights == 0, 9.0, y)
    first, second = (
        Stacker(preset="paper", random_state=0, target="rank").fit(X, scores, groups, weights)
        for scores in (y, changed)
    )
    np.testing.assert_allclose(first.predict(X), second.predict(X), rtol=1e-9)


@pytest.mark.parametrize("preset", PRESETS)
def test_weights_of_one_are_no_weights(problem, preset: str) -> None:
    X, y, groups = problem(60)
    stacker = Stacker(preset=preset, n_splits=2, random_state=0)
    plain = stacker.fit(X, y, groups).predict(X)
    np.testing.assert_array_equal(stacker.fit(X, y, groups, np.ones(60)).predict(X), plain)
    weights = np.arange(1, 61)
    assert (stacker.fit(X, y, groups, weights).predict(X) != plain).any()


def test_other_families_are_refused(problem) -> None:
    X, y, _ = problem(60)
    stacker = Stacker(preset="paper", random_state=0).fit(X, y)
    families = dict(reversed(X.families.items()))
    swapped = FeatureTable(X.values, X.blocks, X.pair_ids, families)
    stacker.predict(swapped)  # the same columns under the same names
    renamed = {f"new {name}": columns for name, columns in X.families.items()}
    with pytest.raises(StackingError, match="families {'new one'.*fitted on {'one"):
        stacker.predict(FeatureTable(X.values, X.blocks, X.pair_ids, renamed))
    with pytest.raises(ValueError, match="array without names.*FeatureTable"):
        stacker.predict(X.values)


def test_the_meta_regressor_gets_the_groups(problem) -> None:
    X, y, groups = problem(60)
    stacker = Stacker(preset="paper", random_state=0).fit(X, y, groups)
    expected = GroupedRidge(META_PENALTIES).fit(stacker.oof_predictions_, y, groups)
    np.testing.assert_array_equal(stacker.meta_.cv_mse_, expected.cv_mse_)
    without = GroupedRidge(META_PENALTIES).fit(stacker.oof_predictions_, y)
    assert (without.cv_mse_ != expected.cv_mse_).any()


def test_a_data_frame_with_a_column_called_families_is_a_plain_array(problem) -> None:
    X, y, _ = problem(60)
    frame = pd.DataFrame(X.values[:, :3], columns=["families", "b", "c"])
    stacker = Stacker(preset="paper", random_state=0).fit(frame, y)
    assert list(stacker.families_) == ["all"]
    stacker.predict(frame)


@pytest.mark.parametrize("preset", PRESETS)
def test_bad_data_are_told(problem, preset: str) -> None:
    X, y, _ = problem(60)
    stacker = Stacker(preset=preset)
    n_splits = {"best": 5, "paper": 3}[preset]
    with pytest.raises(StackingError, match=f"{n_splits} folds .* {n_splits} groups"):
        stacker.fit(X, y, groups=["a", "b"] * 30)
    with pytest.raises(StackingError, match=r"\d pairs, .*n_samples = 2\. .*more"):
        stacker.fit(X.values[:2], y[:2])
    with pytest.raises(StackingError, match="label.* 60 pairs"):
        stacker.fit(X, y, groups=["a", "b"])
    with pytest.raises(ValueError, match="requires y to be passed"):
        stacker.fit(X.values, None)
    with pytest.raises(StackingError, match="59 scores for 60 pairs"):
        stacker.fit(X, y[:59])
    holes = X.values.copy()
    holes[7, 3] = np.nan
    with pytest.raises(StackingError, match=r"column 3 .*'one/audio'.* NaN"):
        stacker.fit(FeatureTable(holes, X.blocks, X.pair_ids, X.families), y)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        stacker.fit(holes, y)
    for scores in (np.where(np.arange(60) == 3, np.nan, y), np.where(y > 5, np.inf, y)):
        for table in (X, X.values):
            with pytest.raises(ValueError, match="contains (NaN|infinity)"):
                stacker.fit(table, scores)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"60 pairs.* \(3,\) .*float64"),
        (np.ones((60, 1)), r"got shape \(60, 1\)"),
        (-np.ones(60), "60 weights .*negative .* -1.0 in row 0"),
        (np.full(60, np.nan), "60 weights .*finite, .* nan in row 0"),
        (np.zeros(60), "weights .*zero"),
        (np.eye(60)[4], "weight 0: only 1 of 60 rows .*more"),
    ],
)
def test_bad_weights_are_told(problem, preset: str, weights, message: str) -> None:
    X, y, _ = problem(60)
    with pytest.raises(StackingError, match=message):
        Stacker(preset=preset, random_state=0).fit(X, y, sample_weight=weights)


def test_learners_that_take_no_weights_are_told(problem) -> None:
    X, y, _ = problem(60)
    neighbours = KNeighborsRegressor()
    message = r"the learner '{}' \(KNeighborsRegressor\) takes none. Leave the weights out, or give"
    for stacker, name in (
        (Stacker([("near", neighbours)]), "near"),
        (Stacker([("linear", LinearRegression())], neighbours), "meta"),
        (Stacker(meta=neighbours, n_splits=2), "meta"),
        (Stacker(preset="paper", meta=neighbours), "meta"),
    ):
        with pytest.raises(StackingError, match=message.format(name)):
            stacker.fit(X, y, sample_weight=np.ones(60))
        assert np.isfinite(stacker.fit(X, y).predict(X)).all()


def test_bad_settings_are_told(problem) -> None:
    X, y, _ = problem(60)
    for given, message in (
        ({"preset": "worst"}, r"preset .*\['best', 'paper'\].* 'worst'"),
        ({"target": "ranks"}, r"target .*\['score', 'rank'\].* 'ranks'"),
        ({"n_splits": 2.5}, "n_splits .* 2 .*got 2.5"),
        ({"n_components": "8"}, "n_components .* 1 .*got '8'"),
        ({"preset": "paper", "penalties": "x"}, "penalties .*above 0 .* got 'x'"),
        ({"score_range": (10, 0)}, r"score_range .*\(10, 0\)"),
        ({"score_range": "wide"}, r"score_range .*\['auto'\].* 'wide'"),
        ({"learners": []}, "names .*one"),
    ):
        with pytest.raises(StackingError, match=message):
            Stacker(**given).fit(X, y)
    with pytest.raises(StackingError, match=r"2 folds .* 4 groups "):
        Stacker(n_splits=2).fit(X, y, groups=["a", "b", "c"] * 20)
    for preset in PRESETS:
        stacker = Stacker(preset=preset, n_splits=2, random_state=0)
        stacker.fit(X, y, groups=["a", "b", "c", "d"] * 15)


def test_pairs_without_scores_or_labels_are_told(problem) -> None:
    X, y, _ = problem(60)
    with pytest.raises(StackingError, match="no scores .*y is None"):
        Stacker().fit(X, None)
    groups = [str(row // 2) for row in range(60)]
    for nothing in (None, float("nan")):
        with pytest.raises(StackingError, match="1 pairs .*no label.* row 7"):
            Stacker().fit(X, y, groups=[*groups[:7], nothing, *groups[8:]])
    with pytest.raises(StackingError, match="label.* 60 pairs"):
        Stacker().fit(X, y, groups=3)


def test_a_table_with_its_blocks_changed_is_refused(problem) -> None:
    X, y, _ = problem(60)
    stacker = Stacker(preset="paper", random_state=0).fit(X, y)
    names = list(X.blocks)
    names[:2] = names[1::-1]
    blocks = dict(zip(names, X.blocks.values(), strict=True))
    swapped = FeatureTable(X.values, blocks, X.pair_ids, X.families)
    with pytest.raises(
        StackingError, match=r"'one/text': 4, 'one/audio'.* {'one/audio': 4, 'one/text'"
    ):
        stacker.predict(swapped)


def test_a_fit_can_be_made_again_from_its_seed(problem) -> None:
    X, y, groups = problem(60)
    first = Stacker(preset="paper").fit(X, y, groups)
    again = Stacker(preset="paper", random_state=first.seed_).fit(X, y, groups)
    assert again.oof_predictions_.tobytes() == first.oof_predictions_.tobytes()


def test_a_wide_plain_array_is_no_worse_than_a_ridge_on_it(rng) -> None:
    X = rng.normal(size=(900, 300))  # independent: 128 principal components lose most of them
    y = X @ rng.normal(size=300) / np.sqrt(300) + 0.5 * rng.normal(size=900)
    train, new = slice(0, 600), slice(600, 900)
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11))).fit(X[train], y[train])
    stacker = Stacker(random_state=0).fit(X[train], y[train])
    assert "ridge all columns/score" in stacker.level0_names_
    of_stacker, of_ridge = (r2_score(y[new], m.predict(X[new])) for m in (stacker, ridge))
    assert of_stacker > of_ridge - 0.02
    narrow = Stacker(n_splits=2, random_state=0).fit(X[:60, :40], y[:60])
    assert not any("all columns" in name for name in narrow.level0_names_)


def test_components_that_compress_nothing_are_told(rng, caplog) -> None:
    X, y = rng.normal(size=(40, 6)), rng.normal(size=40)
    Stacker(preset="paper", n_components=8, random_state=0).fit(X, y)
    assert "n_components=8 has no effect" in caplog.text
    assert "6 columns" in caplog.text
    caplog.clear()
    Stacker(preset="paper", n_components=3, random_state=0).fit(X, y)
    Stacker(preset="paper", random_state=0).fit(X, y)
    assert not caplog.text


@pytest.mark.parametrize("preset", PRESETS)
def test_learners_are_added_to_a_preset(problem, preset: str) -> None:
    X, y, groups = problem(60)
    plain = Stacker(preset=preset, n_splits=3, random_state=0).fit(X, y, groups)
    added = [("linear", LinearRegression()), ("near", KNeighborsRegressor())]
    stacker = Stacker(preset=preset, n_splits=3, random_state=0, added_learners=added)
    stacker.fit(X, y, groups)
    n = len(plain.level0_names_)
    assert stacker.level0_names_ == [*plain.level0_names_, "linear/score", "near/score"]
    assert stacker.oof_predictions_[:, :n].tobytes() == plain.oof_predictions_.tobytes()
    for fold in range(3):
        held = stacker.folds_ == fold
        linear = LinearRegression().fit(X.values[~held], y[~held])
        expected = linear.predict(X.values[held])
        np.testing.assert_allclose(stacker.oof_predictions_[held, n], expected, rtol=1e-6)
    refitted = 1 if preset == "best" else 3
    assert [len(one.models) for one in stacker.level0_models_[-2:]] == [refitted, refitted]
    if preset == "best":
        expected = LinearRegression().fit(X.values, y).predict(X.values)
        np.testing.assert_allclose(stacker.transform(X)[:, n], expected, rtol=1e-6)


def test_names_of_learners_must_differ_and_work_as_parameters(rng) -> None:
    X, y = rng.normal(size=(30, 2)), rng.normal(size=30)
    one = LinearRegression()
    for given, told in (
        ({"learners": [("a", one)], "added_learners": [("a", one)]}, "name 'a'"),
        ({"added_learners": [("boosting", one)]}, "'best' .*'boosting'"),
        ({"added_learners": [("meta", one)]}, "called 'meta'"),
        ({"learners": [("a__b", one)]}, "called 'a__b'"),
        ({"added_learners": one}, "added_learners .*list"),
    ):
        with pytest.raises(StackingError, match=told):
            Stacker(**given).fit(X, y)


def test_learners_parameters_are_set_by_name(rng) -> None:
    X, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    stacker = Stacker([("svr", SVR())], Ridge(), added_learners=[("near", KNeighborsRegressor())])
    stacker.set_params(svr__C=3.0, near__n_neighbors=2, meta__alpha=7.0, n_splits=2)
    params = stacker.get_params()
    assert (params["svr__C"], params["near__n_neighbors"], params["meta__alpha"]) == (3.0, 2, 7.0)
    assert params["svr"] is stacker.learners[0][1]
    assert "svr" not in stacker.get_params(deep=False)
    stacker.set_params(near=DummyRegressor(), svr=LinearRegression(), random_state=0)
    assert [type(one) for _, one in (*stacker.learners, *stacker.added_learners)] == [
        LinearRegression,
        DummyRegressor,
    ]
    stacker.set_params(added_learners=[("new", SVR())], new__C=2.0)
    assert stacker.added_learners[0][1].C == 2.0
    with pytest.raises(ValueError, match="near"):
        stacker.set_params(near__n_neighbors=3)
    search = GridSearchCV(
        Stacker([("svr", SVR())], random_state=0), {"svr__C": [0.1, 10.0]}, cv=2
    ).fit(X, y)
    for C, score in zip([0.1, 10.0], search.cv_results_["mean_test_score"], strict=True):
        by_hand = cross_val_score(Stacker([("svr", SVR(C=C))], random_state=0), X, y, cv=2)
        assert score == by_hand.mean()


def test_transform_is_level_0_and_fit_transform_out_of_fold(problem) -> None:
    X, y, groups = problem(60)
    stacker = Stacker(preset="paper", random_state=0)
    oof = stacker.fit_transform(X, y, groups)
    assert oof.tobytes() == stacker.oof_predictions_.tobytes()
    level0 = stacker.transform(X)
    assert level0.shape == oof.shape
    assert stacker.meta_predict(level0).tobytes() == stacker.predict(X).tobytes()
    assert stacker.get_feature_names_out().tolist() == stacker.level0_names_
    frame = Stacker(preset="paper", random_state=0).set_output(transform="pandas")
    assert list(frame.fit_transform(X, y, groups).columns) == stacker.level0_names_


def test_progress_counts_the_fits_of_learners_and_folds(rng, capsys) -> None:
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    Stacker(preset="paper", random_state=0, verbose=True).fit(X, y)
    assert "6/6" in capsys.readouterr().err  # a ridge and boosting, three folds
    added = [("linear", LinearRegression())]
    Stacker(n_splits=2, random_state=0, added_learners=added, verbose=True).fit(X, y)
    assert "12/12" in capsys.readouterr().err  # four estimators, two folds and once more
    Stacker(preset="paper", random_state=0).fit(X, y)
    assert capsys.readouterr().err == ""


def test_a_long_fit_is_announced_with_the_faster_preset(rng, caplog, monkeypatch) -> None:
    X, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    Stacker(n_splits=2, random_state=0).fit(X, y)
    assert not caplog.text
    monkeypatch.setattr("xacle_stack.stacking.stacker._LONG_S", 0.0)
    Stacker(n_splits=2, random_state=0).fit(X, y)
    assert "40 pairs with 3 columns" in caplog.text
    assert 'preset="paper"' in caplog.text


@pytest.fixture(scope="module")
def of_a_file(problem):
    X, y, _ = problem(60)
    return Stacker(n_splits=2, target="rank", random_state=0).fit(X, y)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: setattr(s, "n_features_in_", 10**12), "n_features_in_ is 1000000000000"),
        (lambda s: setattr(s, "families_", 3), "families_ is a int"),
        (lambda s: setattr(s, "families_", {"one": ("loud",)}), "loud"),
        (lambda s: setattr(s, "blocks_", {"one/audio": slice(0, 4)}), "covers 4 of"),
        (lambda s: setattr(s, "n_jobs", 10**9), "n_jobs is 1000000000"),
        (lambda s: setattr(s, "oof_predictions_", np.ones((60, 2))), "oof_predictions_ has shape"),
        (lambda s: setattr(s, "training_", 3), "training_ .*dict"),
        (lambda s: s.level0_models_.append(Idle()), "level0_models_ has a Idle"),
        (
            lambda s: s.level0_models_.append(
                FittedLearner("x", ("score",), raw_view(("loud",)), [1])
            ),
            "'loud'",
        ),
        (lambda s: setattr(s.compression_, "mean_", np.ones(2)), "compression_.mean_ has shape"),
    ],
)
def test_parts_from_a_file_that_do_not_fit_are_told(of_a_file, change, told: str) -> None:
    of_a_file.check_state()
    changed = deepcopy(of_a_file)
    change(changed)
    with pytest.raises(ModelFileError, match=told):
        changed.check_state()


class Idle(RegressorMixin, BaseEstimator):
    """Says the same of all rows, but for what looks like rounding."""

    def fit(self, X, y):
        return self

    def predict(self, X):
        return 5 + 1e-9 * X[:, 0]


def test_a_learner_that_says_nearly_nothing_is_not_blown_up(rng) -> None:
    X = rng.normal(size=(60, 2))
    stacker = Stacker([("idle", Idle()), ("mean", DummyRegressor())]).fit(X, X[:, 0])
    assert np.ptp(stacker.predict(1e6 * X)) < 1e-3


def test_scores_on_this_librarys_scale_bound_the_predictions(problem) -> None:
    X, y, _ = problem(60)
    stacker = Stacker([("linear", LinearRegression())], random_state=0)
    for scores, expected in (
        (np.clip(y, 0, 10), (0, 10)),
        (np.clip(y, -1, 10), None if y.min() < 0 else (0, 10)),
        (np.clip(y, 0, 10) / 10, None),  # shares: half of their range would be bent
        (np.clip(y, 0, 10) * 10, None),
        (1 + np.clip(y, 0, 10) * 0.4, None),  # 1 to 5
    ):
        fitted = stacker.fit(X, scores)
        assert fitted.score_range_ == expected
        chosen = clone(stacker).set_params(score_range=expected).fit(X, scores)
        assert chosen.predict(X).tobytes() == fitted.predict(X).tobytes()
    assert stacker.set_params(score_range=(-100, 100)).fit(X, y).score_range_ == (-100, 100)


class Failing(RegressorMixin, BaseEstimator):
    """Raises where it is told to."""

    def __init__(self, fault: BaseException, in_fit: bool = True, on_rows: int = 0) -> None:
        self.fault, self.in_fit, self.on_rows = fault, in_fit, on_rows

    def __sklearn_clone__(self) -> "Failing":
        return self  # exceptions are no settings to be compared

    def fit(self, X, y):
        if self.in_fit:
            raise self.fault
        return self

    def predict(self, X):
        if len(X) >= self.on_rows:
            raise self.fault
        return np.arange(len(X), dtype=float)


def test_a_learner_that_fails_is_named_with_where_and_why(rng) -> None:
    X = rng.normal(size=(60, 3))
    y = X[:, 0] + 0.1 * rng.normal(size=60)
    fault = KeyError("no such thing")
    linear = [("linear", LinearRegression())]
    who = r"the learner 'odd' \(Failing\)"
    for stacker, message in (
        (
            Stacker([*linear, ("odd", Failing(fault))]),
            f"{who} .*fitted on the 40 rows",
        ),
        (
            Stacker([("odd", Failing(fault, in_fit=False))]),
            f"{who} .* 20 rows of fold 0: KeyError: 'no such thing'",
        ),
        (Stacker(linear, Failing(fault)), r"'meta' \(Failing\) .*fitted"),
    ):
        with pytest.raises(StackingError, match=message) as told:
            stacker.fit(X, y)
        assert told.value.__cause__ is fault
    stacker = Stacker([("odd", Failing(fault, in_fit=False, on_rows=60))], random_state=0).fit(X, y)
    with pytest.raises(StackingError, match="'odd' .*predict 60 pairs: KeyError"):
        stacker.predict(X)
    stacker = Stacker(linear, Failing(fault, in_fit=False, on_rows=60), random_state=0).fit(X, y)
    with pytest.raises(StackingError, match=r"'meta' \(Failing\) .*predict 60 pairs: KeyError"):
        stacker.predict(X)


def test_an_error_of_this_library_keeps_its_type_and_gets_the_name(rng) -> None:
    X = rng.normal(size=(60, 3))
    for fault in (FeatureError("a row is zero."), MissingExtraError("torch is not installed.")):
        stacker = Stacker([("odd", Failing(fault))])
        with pytest.raises(type(fault), match=f"^the learner 'odd' .* outside fold 0: {fault}$"):
            stacker.fit(X, X[:, 0])


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), MemoryError(), SystemExit()], ids=repr)
def test_what_is_no_fault_of_a_learner_passes(rng, fault: BaseException) -> None:
    X = rng.normal(size=(60, 3))
    with pytest.raises(type(fault)) as told:
        Stacker([("odd", Failing(fault))]).fit(X, X[:, 0])
    assert told.value is fault


def test_final_out_of_fold_scores_see_neither_label_nor_group(problem) -> None:
    X, y, groups = problem(120)
    before = Stacker(preset="paper", random_state=0).fit(X, y, groups)
    meta = GroupedRidge(META_PENALTIES)
    for fold in range(3):
        rest, held_out = before.folds_ != fold, before.folds_ == fold
        labels = np.unique(groups[rest], return_inverse=True)[1]
        again = clone(meta).fit(before.oof_predictions_[rest], y[rest], groups=labels)
        expected = again.predict(before.oof_predictions_[held_out])
        inside = (expected > 1) & (expected < 9)  # beyond that, they are bent into the range
        np.testing.assert_allclose(before.oof_scores_[held_out][inside], expected[inside])


@pytest.mark.parametrize("settings", [{}, {"target": "rank"}, {"score_range": None}], ids=str)
def test_intervals_cover_new_pairs_and_keep_the_range(problem, settings) -> None:
    X, y, groups = problem(400)
    y = np.clip(y, 0, 10)
    stacker = Stacker(preset="paper", random_state=0, **settings)
    stacker.fit(X[:250], y[:250], groups[:250])
    scores, low, high = stacker.predict_interval(X[250:], 0.8)
    np.testing.assert_array_equal(scores, stacker.predict(X[250:]))
    assert binom(150, 0.8).ppf(1e-3) <= np.sum((low <= y[250:]) & (y[250:] <= high))
    assert ((low <= scores) & (scores <= high)).all()
    if stacker.score_range_ is not None:
        assert low.min() >= 0
        assert high.max() <= 10
    alone = np.array([stacker.predict_interval(X[row : row + 1], 0.8) for row in range(250, 260)])
    # Some processors' products of float32 round one row otherwise than many.
    np.testing.assert_allclose(alone[..., 0].T, (scores[:10], low[:10], high[:10]), rtol=1e-5)
    again, std = stacker.predict(X[250:], return_std=True)
    np.testing.assert_array_equal(again, scores)
    assert 0.5 < np.sqrt(np.mean(std**2) / np.mean((y[250:] - scores) ** 2)) < 2


def test_a_stack_of_an_earlier_version_scores_but_has_no_intervals(problem) -> None:
    X, y, groups = problem(90)
    stacker = Stacker(preset="paper", random_state=0).fit(X, y, groups)
    del stacker.oof_scores_
    stacker.check_state()
    assert len(stacker.predict(X)) == 90
    for ask in (stacker.predict_interval, lambda X: stacker.predict(X, return_std=True)):
        with pytest.raises(StackingError, match="earlier version.*Fit it again"):
            ask(X)


def test_any_regressor_has_intervals_as_a_stack_of_one_learner(problem) -> None:
    X, y, groups = problem(90)
    stacker = Stacker([("linear", LinearRegression())], random_state=0).fit(X, y, groups)
    _, low, high = stacker.predict_interval(X)
    assert (low < high).all()


@pytest.mark.parametrize("target", ["score", "rank"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_stack_without_learners_is_a_fit_without_them(
    problem, rng, target: str, weighted: bool
) -> None:
    X, y, captions = problem(90)
    weights = rng.integers(1, 4, size=90) if weighted else None
    stacker = Stacker(n_splits=2, target=target, random_state=0)
    fitted = stacker.fit(X, y, captions, weights)
    before = fitted.oof_scores_.copy()
    for left_out in (["ridges"], ["boosting", "gaussian process"]):
        smaller = fitted.without(left_out)
        expected = clone(stacker).set_params(left_out=left_out).fit(X, y, captions, weights)
        assert smaller.level0_names_ == expected.level0_names_
        np.testing.assert_array_equal(smaller.oof_predictions_, expected.oof_predictions_)
        np.testing.assert_allclose(smaller.oof_scores_, expected.oof_scores_, atol=1e-8)
        np.testing.assert_allclose(smaller.predict(X), expected.predict(X), atol=1e-8)
        assert smaller.left_out == left_out
    np.testing.assert_array_equal(fitted.oof_scores_, before)
    assert fitted.left_out == ()


def test_some_learner_must_be_left(problem) -> None:
    X, y, _ = problem(60)
    paper = Stacker(preset="paper", n_splits=2, random_state=0)
    with pytest.raises(StackingError, match=r"\['ridges', 'boosting'\] leaves no learner"):
        clone(paper).set_params(left_out=["ridges", "boosting"]).fit(X, y)
    fitted = clone(paper).set_params(added_learners=[("ridge mine", LinearRegression())]).fit(X, y)
    alone = fitted.without(["ridges", "boosting"])
    assert alone.level0_names_ == ["ridge mine/score"]
    with pytest.raises(StackingError, match="leaves no learner"):
        paper.fit(X, y).without(["ridges", "boosting"])
    with pytest.raises(StackingError, match="left_out must be one of .*'boostin'"):
        fitted.without(["boostin"])
    for left_out, message in (("boosting", "a list of kinds"), (["ridge one"], "'ridge one'")):
        with pytest.raises(StackingError, match=message):
            Stacker(left_out=left_out).fit(X, y)
    with pytest.raises(StackingError, match="`learners` replaces"):
        Stacker([("mine", LinearRegression())], left_out=["boosting"]).fit(X, y)
