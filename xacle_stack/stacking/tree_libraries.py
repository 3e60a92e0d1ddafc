"""Trains boosted trees with LightGBM, XGBoost or CatBoost, and takes them out as plain arrays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from xacle_stack._optional import check_installed
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import ModelFileError, StackingError

# The difference of two such numbers is still a float32.
_MAX_FLOAT32 = float(np.finfo(np.float32).max) / 4
# Bits of LightGBM's decision type other than the default direction, which only missing values take.
_NOT_NUMERICAL = 0b1101


@dataclass(frozen=True, eq=False)
class Trees:
    """Regression trees as arrays; what they mean is said at :class:`BoostedTrees`."""

    n_leaves: IntArray
    split_feature: IntArray
    threshold: FloatArray
    left_child: IntArray
    right_child: IntArray
    leaf_value: FloatArray
    gain: FloatArray


def train_trees(
    library: str,
    table: FloatArray,
    scores: FloatArray,
    weights: FloatArray | None,
    **settings: Any,
) -> Trees:
    """Train trees with a library of :data:`LIBRARIES`, whose package is known to be installed.

    The settings are the parameters of :class:`BoostedTrees`, the seed a number.  A StackingError
    says that numbers are too large for what trees are trained in.
    """
    _check_float32("scores", scores)
    if library != "lightgbm":  # it compares float64
        _check_float32("features", table)
    return LIBRARIES[library](table, scores, weights, **settings)


def check_library(library: str) -> None:
    """Raise MissingExtraError if a library of :data:`LIBRARIES` is not installed."""
    check_installed(library, extra=library, purpose=f"training trees with library={library!r}")


def _check_float32(what: str, numbers: FloatArray) -> None:
    largest = np.abs(numbers).max()
    if largest > _MAX_FLOAT32:
        raise StackingError(
            f"{what} of up to {largest:g} leave the range of float32, in which trees are trained. "
            "Give them in another unit."
        )


def _by_lightgbm(
    table: FloatArray, scores: FloatArray, weights: FloatArray | None, **settings: Any
) -> Trees:
    from lightgbm import LGBMRegressor  # takes half a second

    model = LGBMRegressor(
        **settings,
        subsample_freq=1,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    ).fit(table, scores, weights)
    booster = model.booster_
    _, *texts = booster.model_to_string().partition("\nend of trees")[0].split("\nTree=")
    trees = [dict(line.partition("=")[::2] for line in text.splitlines()) for text in texts]

    def joined(name: str, dtype: type) -> Any:
        return np.array([value for tree in trees for value in tree[name].split()], dtype=dtype)

    if (joined("decision_type", int) & _NOT_NUMERICAL).any():
        raise ModelFileError("LightGBM has made splits that are no comparisons of numbers.")
    return Trees(
        n_leaves=joined("num_leaves", np.int64),
        split_feature=joined("split_feature", np.int64),
        threshold=joined("threshold", np.float64),
        left_child=joined("left_child", np.int64),
        right_child=joined("right_child", np.int64),
        leaf_value=joined("leaf_value", np.float64),
        gain=np.asarray(booster.feature_importance("gain"), dtype=np.float64),
    )


def _by_xgboost(
    table: FloatArray,
    scores: FloatArray,
    weights: FloatArray | None,
    *,
    n_estimators: int,
    learning_rate: float,
    num_leaves: int,
    min_child_samples: int,
    subsample: float,
    colsample_bytree: float,
    reg_lambda: float,
    max_bin: int,
    random_state: int,
) -> Trees:
    import xgboost

    settings = {
        "tree_method": "hist",
        # The leaf with the largest gain is split next, as LightGBM does, whatever its depth.
        "grow_policy": "lossguide",
        "max_leaves": num_leaves,
        "max_depth": 0,
        "learning_rate": learning_rate,
        # The weight of a leaf's rows, in which a row counts one on average.
        "min_child_weight": min_child_samples * (1 if weights is None else weights.mean()),
        "subsample": subsample,
        "colsample_bytree": colsample_bytree,
        "reg_lambda": reg_lambda,
        "max_bin": max_bin,
        "seed": random_state,
        "nthread": 1,
        "verbosity": 0,
    }
    with xgboost.config_context(nthread=1):  # its settings do not reach all of its code
        data = xgboost.QuantileDMatrix(table, scores, weight=weights, nthread=1, max_bin=max_bin)
        text = bytes(xgboost.train(settings, data, n_estimators).save_raw("json"))
    learner = json.loads(text)["learner"]
    # A list of one number since XGBoost 3.1.
    base = float(learner["learner_model_param"]["base_score"].strip("[]"))
    trees = [
        _of_xgboost(tree, table.shape[1]) for tree in learner["gradient_booster"]["model"]["trees"]
    ]
    return _joined([_constant(base), *trees], np.sum([tree.gain for tree in trees], axis=0))


def _of_xgboost(tree: Mapping[str, Any], n_features: int) -> Trees:
    """Return one tree with the numbers of its splits and leaves."""
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    splits: list[int] = []
    leaves: list[int] = []
    waiting = [0]
    while waiting:  # a split comes before its children; nodes that were pruned are never met
        node = waiting.pop()
        (leaves if left[node] < 0 else splits).append(node)
        if left[node] >= 0:
            waiting += [right[node], left[node]]
    number = np.zeros(len(left), dtype=np.int64)
    number[splits] = np.arange(len(splits))
    number[leaves] = ~np.arange(len(leaves))
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    # XGBoost goes to the left where a value is less.
    below = np.nextafter(conditions[splits], np.float32(-np.inf))
    features = np.array(tree["split_indices"], dtype=np.int64)[splits]
    return Trees(
        n_leaves=np.array([len(leaves)]),
        split_feature=features,
        threshold=_largest_rounded_to(below),
        left_child=number[left[splits]],
        right_child=number[right[splits]],
        leaf_value=conditions[leaves].astype(np.float64),
        gain=np.bincount(
            features, np.array(tree["loss_changes"])[splits], minlength=n_features
        ).astype(np.float64),
    )


def _by_catboost(
    table: FloatArray,
    scores: FloatArray,
    weights: FloatArray | None,
    *,
    n_estimators: int,
    learning_rate: float,
    num_leaves: int,
    min_child_samples: int,
    subsample: float,
    colsample_bytree: float,
    reg_lambda: float,
    max_bin: int,
    random_state: int,
) -> Trees:
    from catboost import CatBoostRegressor

    gain = np.zeros(table.shape[1])
    if np.ptp(scores) == 0 or not np.ptp(table, axis=0).any():  # which CatBoost refuses
        return _joined([_constant(float(np.average(scores, weights=weights)))], gain)
    rows = {"bootstrap_type": "Bernoulli", "subsample": subsample}
    model = CatBoostRegressor(
        iterations=n_estimators,
        learning_rate=learning_rate,
        depth=int(np.ceil(np.log2(num_leaves))),
        **({"bootstrap_type": "No"} if subsample == 1 else rows),
        rsm=colsample_bytree,
        l2_leaf_reg=reg_lambda,
        boosting_type="Plain",  # as in the others; ordered boosting takes nine times as long
        border_count=max_bin - 1,
        random_seed=random_state,
        thread_count=1,
        allow_writing_files=False,
        logging_level="Silent",
    ).fit(table, scores, sample_weight=weights)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trees.json"
        model.save_model(str(path), format="json")
        found = json.loads(path.read_text(encoding="utf-8"))
    scale, (bias,) = found["scale_and_bias"]
    trees = [_of_catboost(tree, scale) for tree in found["oblivious_trees"]]
    gain = np.asarray(model.get_feature_importance(type="PredictionValuesChange"))
    return _joined([_constant(bias), *trees], gain)


def _of_catboost(tree: Mapping[str, Any], scale: float) -> Trees:
    """Return one tree whose splits on a level are all the same.

    In CatBoost's numbers of leaves, the first split is the lowest bit.  So the last one is the root
    here, the splits are numbered level by level, and the leaves keep their numbers.
    """
    levels = (tree.get("splits") or [])[::-1]
    n_splits = 2 ** len(levels) - 1
    times = 2 ** np.arange(len(levels))
    borders = np.array([split["border"] for split in levels], dtype=np.float32)
    features = np.array([split["float_feature_index"] for split in levels], dtype=np.int64)
    child = 2 * np.arange(n_splits) + 1
    left, right = (
        np.where(number < n_splits, number, ~(number - n_splits)) for number in (child, child + 1)
    )
    return Trees(
        n_leaves=np.array([n_splits + 1]),
        split_feature=np.repeat(features, times),
        threshold=np.repeat(_largest_rounded_to(borders), times),
        left_child=left,
        right_child=right,
        leaf_value=scale * np.array(tree["leaf_values"], dtype=np.float64),
        gain=np.zeros(0),
    )


def _largest_rounded_to(limits: FloatArray) -> FloatArray:
    """Return the largest float64 numbers that become no more than some float32 numbers.

    XGBoost and CatBoost round what they are given to float32 before they compare it.  To compare
    with these numbers is the same, without rounding: half-way between a limit and the next float32
    the rounding changes, and half-way itself goes to the even one.

    Examples
    --------
    >>> limit = np.array([1.0], dtype=np.float32)
    >>> highest = _largest_rounded_to(limit)
    >>> highest.astype(np.float32), np.nextafter(highest, 2).astype(np.float32) > limit
    (array([1.], dtype=float32), array([ True]))
    """
    limits = limits.astype(np.float32)
    middle = (limits.astype(np.float64) + np.nextafter(limits, np.float32(np.inf))) / 2
    return np.where(middle.astype(np.float32) <= limits, middle, np.nextafter(middle, -np.inf))


def _constant(value: float) -> Trees:
    """Return a tree of one leaf."""
    no_splits = np.zeros(0, dtype=np.int64)
    return Trees(
        np.ones(1, dtype=np.int64),
        no_splits,
        np.zeros(0),
        no_splits,
        no_splits,
        np.array([value]),
        np.zeros(0),
    )


def _joined(trees: Sequence[Trees], gain: FloatArray) -> Trees:
    """Return trees side by side, with the gain of all."""

    def joined(name: str) -> Any:
        return np.concatenate([getattr(tree, name) for tree in trees])

    arrays = {name: joined(name) for name in Trees.__dataclass_fields__}
    return Trees(**{**arrays, "gain": gain})


# How each library trains; what it is called is also its package and its extra.
LIBRARIES: Mapping[str, Callable[..., Trees]] = {
    "lightgbm": _by_lightgbm,
    "xgboost": _by_xgboost,
    "catboost": _by_catboost,
}
