"""Parts of a model that do not fit together are refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_models import (
    X,
    add_attribute,
    refusal,
    set_attribute,
)
from sklearn.preprocessing import PowerTransformer, StandardScaler

from xacle_stack.errors import ModelFileError
from xacle_stack.features import (
    FeatureBuilder,
    PairEmbeddings,
    SequenceBuilder,
    VectorBuilder,
)
from xacle_stack.listeners import ListenerModel
from xacle_stack.model_file import load_model, save_model
from xacle_stack.model_file.states import check_states
from xacle_stack.stacking import GroupedRidge


def with_huge(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] = value
    return changed


STATES = [
    # LightGBM's: what its text could be edited to
    ("BoostedTrees", "split_feature_", lambda a: with_huge(a, 10**9), "split_feature_ holds"),
    ("BoostedTrees", "left_child_", lambda a: with_huge(a, 0), "leads from split 0"),
    ("BoostedTrees", "n_leaves_", lambda a: with_huge(a, 4 * 10**9), "n_leaves_ holds 4000000000"),
    ("BoostedTrees", "leaf_value_", lambda a: with_huge(a, np.inf), "leaf_value_ holds NaN or inf"),
    ("BlockGaussianProcess", "column_block_", lambda a: with_huge(a, 9), "column_block_ holds 9"),
    ("BlockGaussianProcess", "landmarks_", lambda a: a[..., 1:], r"landmarks_ has shape"),
    ("BlockGaussianProcess", "landmarks_", lambda a: a[1:], r"landmarks_ has shape"),
    ("BlockGaussianProcess", "axes_", lambda _: np.ones((2, 3, 4)), r"axes_ has shape"),
    ("BlockGaussianProcess", "row_weights_", np.zeros_like, "row_weights_ holds 0"),
    ("BlockGaussianProcess", "dual_coef_", lambda a: a[1:], r"dual_coef_ has shape"),
    ("BlockGaussianProcess", "amplitude_", lambda a: np.ones(10**4), "relevance_ has shape"),
    ("BlockPCA", "mean_", lambda a: a[1:], r"scale_ has shape"),
    ("BlockPCA", "n_features_out_", lambda _: 10**12, "n_features_out_ = 1000000000000"),
    ("GroupedRidge", "coef_", lambda a: np.ones((10**5, a.shape[-1])), "GroupedRidge: "),
    ("GroupedRidge", "intercept_", lambda _: "high", "intercept_ is of type str"),
    ("GroupedRidge", "n_features_in_", lambda _: 10**12, "n_features_in_ is 1000000000000"),
    ("MonotoneCalibration", "knots_", lambda a: a[::-1].copy(), "knots_ do not rise"),
    ("MonotoneCalibration", "values_", lambda a: a[1:], "values_ has shape"),
    ("BlockGaussianProcess", "amplitude_", lambda a: np.ones(5), "relevance_ has shape"),
    ("BlockPCA", "axes_", lambda _: 3, "axes_ is a int"),
    ("FittedLearner", "models", lambda _: 3, "models is '3', expected a list"),
    ("FittedLearner", "view", lambda _: 3, "view is a int"),
    ("BlockView", "n_leading", lambda _: -1, "n_leading=-1"),
    ("Stacker", "n_features_in_", lambda _: 10**12, "n_features_in_ is 1000000000000"),
    ("Stacker", "n_jobs", lambda _: 10**9, "n_jobs is 1000000000"),
    ("Stacker", "families_", lambda _: 3, "families_ is a int"),
    ("Stacker", "level0_models_", lambda _: None, "Stacker: TypeError"),
    ("Stacker", "oof_predictions_", lambda a: a[:, 1:], "oof_predictions_ has shape"),
    ("Stacker", "oof_scores_", lambda a: a[1:], "oof_scores_ has shape"),
    ("Stacker", "calibration_", lambda _: "x", "Stacker: AttributeError"),
    ("Stacker", "score_range_", lambda _: 7, "score_range must be"),
    ("Stacker", "training_", lambda _: 3, "training_ is no dict of"),
]


@pytest.mark.parametrize(("kind", "name", "change", "message"), STATES)
def test_parts_that_do_not_fit_are_refused(
    saved: Path, kind: str, name: str, change: Callable, message: str
) -> None:
    found = [load_model(saved)]
    while type(found[0]).__name__ != kind or not hasattr(found[0], name):
        first = found.pop(0)
        items = first.values() if isinstance(first, dict) else first
        found += list(items) if isinstance(first, dict | list) else list(vars(first).values())
        found = [one for one in found if isinstance(one, dict | list) or hasattr(one, "__dict__")]
    value = change(getattr(found[0], name))
    set_attribute(saved, kind, name, value)
    with pytest.raises(ModelFileError, match=f"not readable as a saved model .*{message}"):
        load_model(saved)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("Stacker", "predict", "an attribute 'predict', which its class has"),
        ("Stacker", "_check_new", "an attribute '_check_new', which its class has"),
        ("BoostedTrees", "check_state", "an attribute 'check_state', which its class has"),
        ("FittedLearner", "__class__", "an attribute '__class__', which its class has"),
        ("GroupedRidge", "n", "an attribute 'n', which its class does not know"),
        ("BlockPCA", "not a name", "an attribute 'not a name', which its class has"),
    ],
)
def test_attributes_that_a_class_does_not_give_are_refused(
    saved: Path, kind: str, name: str, message: str
) -> None:
    add_attribute(saved, kind, name, 1)
    assert f"{kind}: {message}" in refusal(saved)


def test_an_attribute_that_would_be_refused_is_not_saved(tmp_path: Path) -> None:
    model = GroupedRidge().fit(X, X[:, 0])
    model.note = "mine"
    with pytest.raises(ModelFileError, match="not saved: GroupedRidge: .*'note'"):
        save_model(tmp_path / "m.skops", [model])
    assert not list(tmp_path.iterdir())


def test_very_many_estimators_for_a_wide_table_are_refused() -> None:
    scaler = StandardScaler(with_mean=False, with_std=False)
    scaler.n_features_in_ = 2**20
    check_states([scaler] * 1000)
    with pytest.raises(ModelFileError, match="1050 estimators .* 1048576 columns"):
        check_states([scaler] * 1050)
    by_column = PowerTransformer()
    by_column.n_features_in_ = 2**20
    with pytest.raises(ModelFileError, match="2048 estimators .* 1048576 columns"):
        check_states([by_column] * 2)


def test_estimators_that_are_referred_to_twice_are_checked_once(monkeypatch) -> None:
    ridge, checked = GroupedRidge().fit(X, X[:, 0]), []
    monkeypatch.setattr(
        GroupedRidge, "check_state", lambda ridge: checked.append(ridge), raising=False
    )
    check_states([ridge, {"a": ridge, "b": [ridge]}])
    assert checked == [ridge]


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Return a file with one of each estimator that is no part of a stack."""
    a, b = np.random.default_rng(0).normal(size=(2, 30, 5))
    source = PairEmbeddings({"one": (a, b)})
    sequences = SequenceBuilder("byol-a:frames", "roberta-large")
    sequences.n_dims_ = (3, 4)
    model = {
        "builder": FeatureBuilder(["one"], n_components=2).fit(source),
        "spaces": VectorBuilder(["one"]).fit(source),
        "sequences": sequences,
        "listeners": ListenerModel().fit([0, 0, 1, 1], [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.5]),
    }
    return save_model(tmp_path_factory.mktemp("parts"), model)


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        # Not searched for each name in all names, which would take hours.
        ("FeatureBuilder", "spaces", np.arange(100_000).astype(str), "projections_ are not those"),
        ("FeatureBuilder", "projections_", 3, "projections_ .*spaces"),
        ("FeatureBuilder", "spaces", "one", "spaces .*encoder names"),
        (
            "FeatureBuilder",
            "n_components",
            -1,
            "n_components .* 1 or more, got -1",
        ),
        ("VectorBuilder", "n_dims_", 3, "n_dims_ .*spaces"),
        ("VectorBuilder", "spaces", 3, "VectorBuilder: TypeError"),
        ("SequenceBuilder", "n_dims_", 3, "n_dims_ is 3"),
        ("SequenceBuilder", "frames", 3, r"frames and text .*\(3, 'roberta-large'\)"),
        ("ListenerModel", "scores_", np.zeros(3), r"scores_ has shape \(3,\), expected \(2,\)"),
        ("ListenerModel", "weights_", np.full(2, np.nan), "weights_ holds NaN"),
        ("ListenerModel", "pair_ids_", None, "ListenerModel: TypeError"),
    ],
)
def test_other_parts_that_do_not_fit_are_refused(
    parts: Path, tmp_path: Path, kind: str, name: str, value: object, message: str
) -> None:
    for path in (parts, parts.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    load_model(tmp_path)
    set_attribute(tmp_path / parts.name, kind, name, value)
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path)
