import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from lightgbm import LGBMRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import MissingExtraError, ModelFileError, StackingError
from xacle_stack.stacking.boosted_trees import BoostedTrees

# Libraries beside LightGBM, each with an extra of its name.
OTHERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            find_spec(name) is None, reason=f"the extra {name} is not installed"
        ),
    )
    for name in ("xgboost", "catboost")
]


@parametrize_with_checks(
    [
        BoostedTrees(30, learning_rate=0.2, min_child_samples=5, library=name)
        for name in ("lightgbm", "xgboost", "catboost")
        if find_spec(name) is not None
    ],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "rows are drawn for each tree, and a leaf "
        "needs a number of rows"
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def of_lightgbm(**settings) -> LGBMRegressor:
    """Return LightGBM's own regressor with the settings of BoostedTrees."""
    given = {"n_estimators": 40, "learning_rate": 0.03, "num_leaves": 15, "random_state": 0}
    fixed = {"deterministic": True, "force_row_wise": True, "n_jobs": 1, "verbosity": -1}
    rows = {"min_child_samples": 20, "subsample": 0.8, "subsample_freq": 1}
    columns = {"colsample_bytree": 0.5, "reg_lambda": 1.0}
    return LGBMRegressor(**{**given, **fixed, **rows, **columns, **settings})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("n_rows", "settings"),
    [
        (200, {}),
        (200, {"num_leaves": 4, "colsample_bytree": 1.0, "random_state": 7}),
        (200, {"num_leaves": 2, "subsample": 1.0, "reg_lambda": 0.0}),
        (41, {"min_child_samples": 1, "learning_rate": 0.5}),
        (10, {}),  # too few rows for a split: a single leaf
    ],
)
@pytest.mark.parametrize("target", ["scores", "constant", "tiny", "large"])
def test_predictions_are_lightgbms_to_the_last_digit(
    rng, n_rows: int, settings: dict, weighted: bool, dtype: type, target: str
) -> None:
    X = rng.normal(size=(n_rows, 6)).astype(dtype)
    X[:, 2] = 0.25  # a column that is constant
    X[:, 3] = X[:, 3].round()
    scores = X[:, 0] + np.abs(X[:, 1]) + rng.normal(size=n_rows)
    y = {"scores": scores, "constant": np.full(n_rows, 4.2), "tiny": scores * 1e-30}.get(
        target, scores * 1e20
    )
    weights = rng.uniform(0, 3, size=n_rows) if weighted else None
    theirs = of_lightgbm(**settings).fit(X, y, weights)
    ours = BoostedTrees(**{"n_estimators": 40, **settings}).fit(X, y, weights)
    # Columns at and beyond the thresholds and the ends of what was trained on.
    new = np.concatenate([X, 3 * rng.normal(size=(100, 6)).astype(dtype), np.zeros((1, 6), dtype)])
    expected = theirs.predict(new)
    for model in (ours, pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        np.testing.assert_array_equal(model.predict(new), expected)
    np.testing.assert_array_equal(ours.gain_, theirs.booster_.feature_importance("gain"))


def of_xgboost(weights: np.ndarray | None, **settings) -> Any:
    """Return XGBoost's own regressor with the settings of BoostedTrees."""
    from xgboost import XGBRegressor

    leaf = settings.pop("min_child_samples", 20)
    renamed = {
        "max_leaves": settings.pop("num_leaves", 15),
        "min_child_weight": leaf * (1.0 if weights is None else float(np.mean(weights))),
    }
    given = {"n_estimators": 40, "learning_rate": 0.03, "random_state": 0, "max_bin": 255}
    shares = {"subsample": 0.8, "colsample_bytree": 0.5, "reg_lambda": 1.0}
    fixed = {"tree_method": "hist", "grow_policy": "lossguide", "max_depth": 0, "n_jobs": 1}
    return XGBRegressor(**{**given, **shares, **fixed, **renamed, **settings})


def of_catboost(weights: np.ndarray | None, **settings) -> Any:
    """Return CatBoost's own regressor with the settings of BoostedTrees."""
    from catboost import CatBoostRegressor

    settings.pop("min_child_samples", None)
    rows = {"bootstrap_type": "Bernoulli", "subsample": settings.pop("subsample", 0.8)}
    return CatBoostRegressor(
        iterations=settings.pop("n_estimators", 40),
        learning_rate=settings.pop("learning_rate", 0.03),
        depth={2: 1, 4: 2, 15: 4}[settings.pop("num_leaves", 15)],
        rsm=settings.pop("colsample_bytree", 0.5),
        l2_leaf_reg=settings.pop("reg_lambda", 1.0),
        border_count=254,
        random_seed=settings.pop("random_state", 0),
        **({"bootstrap_type": "No"} if rows["subsample"] == 1.0 else rows),
        **settings,
        thread_count=1,
        allow_writing_files=False,
        verbose=False,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("library", OTHERS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_leaves": 4, "colsample_bytree": 1.0, "random_state": 7},
        {"num_leaves": 2, "subsample": 1.0, "reg_lambda": 0.0},
        {"min_child_samples": 1, "learning_rate": 0.5},
    ],
)
def test_predictions_are_those_of_the_other_libraries(
    rng, library: str, settings: dict, weighted: bool, dtype: type
) -> None:
    X = rng.normal(size=(200, 6)).astype(dtype)
    X[:, 2] = 0.25
    X[:, 3] = X[:, 3].round()
    y = X[:, 0] + np.abs(X[:, 1]) + rng.normal(size=200)
    weights = rng.uniform(0, 3, size=200) if weighted else None
    own = {"xgboost": of_xgboost, "catboost": of_catboost}[library]
    theirs = own(weights, **settings).fit(X, y, sample_weight=weights)
    ours = BoostedTrees(**{"n_estimators": 40, "library": library, **settings}).fit(X, y, weights)
    # Columns at and beside the thresholds, where float64 is rounded to float32 to compare.
    at = np.zeros((len(ours.threshold_), 6))
    at[np.arange(len(at)), ours.split_feature_] = ours.threshold_
    near = [at, np.nextafter(at, np.inf), np.nextafter(at, -np.inf)]
    new = np.concatenate([X, 3 * rng.normal(size=(100, 6)), *near]).astype(dtype)
    new[np.abs(new) < 1e-35] = 0
    expected = theirs.predict(new)
    assert np.ptp(expected) > 0.1
    for model in (ours, pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        np.testing.assert_allclose(model.predict(new), expected, rtol=1e-5, atol=1e-5)
    ours.check_state()
    if library == "catboost":
        np.testing.assert_allclose(ours.gain_, theirs.feature_importances_, atol=1e-6)
    else:
        gain = theirs.get_booster().get_score(importance_type="total_gain")
        expected = [gain.get(f"f{feature}", 0.0) for feature in range(6)]
        np.testing.assert_allclose(ours.gain_, expected, rtol=1e-5)


@pytest.mark.parametrize("library", OTHERS)
def test_scores_or_features_that_are_constant_predict_their_mean(rng, library: str) -> None:
    X, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    weights = rng.uniform(1, 2, size=50)
    trees = BoostedTrees(5, library=library)
    np.testing.assert_allclose(trees.fit(X, np.full(50, 4.25)).predict(X), 4.25, rtol=1e-6)
    mean = np.average(y, weights=weights)
    # XGBoost's first leaves have rows of their own, and weigh them by float32.
    constant = trees.set_params(subsample=1.0).fit(X * 0 + 7, y, weights)
    np.testing.assert_allclose(constant.predict(X), mean, rtol=1e-5)


@pytest.mark.parametrize("library", OTHERS)
def test_features_beyond_float32_are_told(rng, library: str) -> None:
    X = rng.normal(size=(60, 3))
    with pytest.raises(StackingError, match=r"features .*e\+30\d .*float32"):
        BoostedTrees(3, library=library).fit(X * 1e305, X[:, 0])


@pytest.mark.parametrize("library", ["lightgbm", *OTHERS])
def test_a_random_state_object_draws_the_seed(rng, library: str) -> None:
    X = rng.normal(size=(120, 4))
    state = np.random.RandomState
    models = [BoostedTrees(5, random_state=state(3), library=library) for _ in range(2)]
    one, same = (model.fit(X, X[:, 0]).predict(X) for model in models)
    np.testing.assert_array_equal(one, same)
    other = BoostedTrees(5, random_state=4, library=library).fit(X, X[:, 0])
    assert (other.predict(X) != one).any()


@pytest.mark.parametrize("library", ["xgboost", "catboost"])
def test_a_library_that_is_not_installed_is_told_before_anything_else(
    rng, monkeypatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    X = rng.normal(size=(60, 3))
    with pytest.raises(MissingExtraError, match=rf"'{library}'.*xacle-stack\[{library}\]"):
        BoostedTrees(3, library=library).fit(X, X[:, 0])


@pytest.mark.parametrize("library", OTHERS)
def test_prediction_needs_no_other_library(rng, monkeypatch, library: str) -> None:
    X = rng.normal(size=(60, 3))
    saved = pickle.dumps(BoostedTrees(3, library=library).fit(X, X[:, 0]))
    monkeypatch.setitem(sys.modules, library, None)
    assert np.isfinite(pickle.loads(saved).predict(X)).all()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"library": "adaboost"}, "library .*'lightgbm', 'xgboost', 'catboost'.*'adaboost'"),
        ({"num_leaves": 1}, "num_leaves .* 2 or more, got 1"),
        ({"subsample": 1.5}, "subsample must be above 0 and at most 1, got 1.5"),
        ({"colsample_bytree": 0}, "colsample_bytree must be .* above 0, got 0"),
        ({"learning_rate": "fast"}, "learning_rate .*'fast'"),
    ],
)
def test_a_setting_that_is_unusable_is_told(settings: dict, told: str) -> None:
    with pytest.raises(StackingError, match=told):
        BoostedTrees(**settings).fit(np.eye(4), np.arange(4))


def test_neither_pickle_nor_copy_carries_lightgbms_text(fitted: BoostedTrees) -> None:
    assert b"num_leaves=" not in pickle.dumps(fitted)
    assert vars(copy.deepcopy(fitted)).keys() == vars(fitted).keys() - {"_booster"}
    bad = {**fitted.__getstate__(), "_booster": "num_leaves=4000000000"}
    fresh = BoostedTrees()
    fresh.__setstate__(bad)
    X = np.zeros((1, 4))
    np.testing.assert_array_equal(fresh.predict(X), fitted.predict(X))


def test_scores_beyond_float32_are_told(rng) -> None:
    X = rng.normal(size=(60, 3))
    with pytest.raises(StackingError, match=r"scores .*e\+30\d .*float32"):
        BoostedTrees(3).fit(X, X[:, 0] * 1e305)


@pytest.fixture(scope="module")
def fitted() -> BoostedTrees:
    X = np.random.default_rng(0).normal(size=(300, 4))
    return BoostedTrees(4, num_leaves=5).fit(X, X[:, 0] + X[:, 1])


def spoiled(fitted: BoostedTrees, name: str, place: object, value: object) -> BoostedTrees:
    model = copy.deepcopy(fitted)
    array = getattr(model, name).copy()
    array[place] = value
    setattr(model, name, array)
    return model


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("split_feature_", 3, 4, "split_feature_ holds 4, expected numbers below 4"),
        ("split_feature_", 3, -1, "split_feature_ holds -1, expected 0 or more"),
        ("left_child_", 1, 1, r"left_child_ .*split 1 .* 4 splits to 1;"),
        ("left_child_", 2, 0, "to 0;"),
        ("right_child_", 0, 4, "right_child_ .*split 0 .* 4 splits to 4;"),
        ("right_child_", 5, -6, "right_child_ .*split 1 .* 4 splits to -6"),
        ("right_child_", slice(None), -1, "each leaf once"),
        ("left_child_", 0, -(2**63), "to -9223372036854775808;"),
        ("n_leaves_", 0, 0, "n_leaves_ holds 0, expected 1 or more"),
        ("n_leaves_", 0, 4_000_000_000, "n_leaves_ holds 4000000000, expected numbers below"),
        ("n_leaves_", 0, 6, r"split_feature_ has shape \(16,\), expected \(17,\)"),
        ("threshold_", 0, np.nan, "threshold_ holds NaN"),
        ("leaf_value_", 19, np.inf, "leaf_value_ .*infinity"),
        ("gain_", 0, np.nan, "gain_ holds NaN"),
    ],
)
def test_arrays_that_are_no_trees_never_reach_lightgbm(
    fitted: BoostedTrees, name: str, place: object, value: object, message: str
) -> None:
    assert fitted.n_leaves_.tolist() == [5] * 4
    with pytest.raises(ModelFileError, match=message):
        spoiled(fitted, name, place, value).predict(np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("threshold_", np.zeros(15), r"threshold_ has shape \(15,\), expected \(16,\)"),
        ("leaf_value_", np.zeros((20, 1)), r"leaf_value_ has shape \(20, 1\)"),
        ("left_child_", np.zeros(16), "left_child_ .*float64.* whole numbers"),
        ("split_feature_", np.zeros(16), "split_feature_ .*float64.* whole"),
        ("n_leaves_", "five", "n_leaves_ .*type str"),
        ("gain_", np.zeros(3), r"gain_ has shape \(3,\), expected \(4,\)"),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(
    fitted: BoostedTrees, name: str, value: object, message: str
) -> None:
    model = copy.deepcopy(fitted)
    setattr(model, name, value)
    with pytest.raises(ModelFileError, match=message):
        model.predict(np.zeros((1, 4)))


def test_a_pair_of_splits_that_lead_to_each_other_is_refused(fitted: BoostedTrees) -> None:
    """Each is the child of one split, but nothing leads there from the first."""
    model = copy.deepcopy(fitted)
    model.left_child_, model.right_child_ = model.left_child_.copy(), model.right_child_.copy()
    model.left_child_[:4], model.right_child_[:4] = [-1, 2, 1, -3], [-2, -5, -4, 3]
    with pytest.raises(ModelFileError, match="split 2 .* 4 splits to 1"):
        model.predict(np.zeros((1, 4)))


FORKED = """
import multiprocessing, sys, functools
import numpy as np
from lightgbm import LGBMRegressor
from xacle_stack.stacking.boosted_trees import BoostedTrees

rng = np.random.default_rng(0)
X = rng.normal(size=(400, 5))
New = functools.partial(BoostedTrees, 20, library=sys.argv[2])
model = New().fit(X, X[:, 0])
if sys.argv[1] == "theirs":  # several threads in the parent, opened by someone else
    LGBMRegressor(n_estimators=5, n_jobs=4, verbosity=-1).fit(X, X[:, 0]).predict(X)
copied = BoostedTrees()
copied.__setstate__(model.__getstate__())
expected = model.predict(X)

def work(queue):
    again = BoostedTrees()
    again.__setstate__(model.__getstate__())
    same = [np.array_equal(one.predict(X), expected) for one in (model, copied, again)]
    same.append(np.array_equal(New().fit(X, X[:, 0]).predict(X), expected))
    queue.put(same)

context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
child = context.Process(target=work, args=(queue,), daemon=True)
child.start()
child.join(60)
print("hung" if child.is_alive() else queue.get())
child.kill()
"""


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork"
)
@pytest.mark.parametrize("library", ["lightgbm", *OTHERS])
@pytest.mark.parametrize("threads_of", ["ours", "theirs"])
def test_a_forked_process_fits_and_predicts(threads_of: str, library: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, threads_of, library],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "4"},
    )
    assert done.stdout.strip() == str([True] * 4)
