"""Trains level-0 learners out-of-fold, and predicts with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import has_fit_parameter
from tqdm import tqdm

from xacle_stack._tasks import run_tasks
from xacle_stack._threads import one_thread
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError, XacleStackError
from xacle_stack.stacking.block_pca import BlockPCA
from xacle_stack.stacking.folds import Fold
from xacle_stack.stacking.learners import (
    PRESETS,
    TARGETS,
    EstimatorLearner,
    Families,
    FittedLearner,
    Preset,
    RidgeLearner,
    kind_of_learner,
)
from xacle_stack.stacking.ridge import fit_blocks
from xacle_stack.table import FeatureTable

# A learner that varies less than this share of its target's standard deviation is constant.
_MIN_SPREAD = 1e-3


@dataclass(frozen=True, eq=False)
class Level0Result:
    """One learner after training, and its out-of-fold predictions, (n_pairs, n_targets)."""

    fitted: FittedLearner
    oof: FloatArray


@dataclass(frozen=True, eq=False)
class Level0Plan:
    """The learners of a stack, and what they are trained with.

    The preset gives the estimators that see compressed blocks; it and the compression are None
    where a caller's learners are all.  A caller's learners, `on_columns`, see all columns and
    predict the raw score.  `penalties` are the ridges' candidates, `random_state` seeds the
    preset's estimators, and `boosting_library` trains its trees.  Kinds of the preset's learners
    may be left out.
    """

    ridges: Sequence[RidgeLearner]
    preset: Preset | None
    compression: BlockPCA | None
    on_columns: Sequence[EstimatorLearner]
    penalties: Sequence[float]
    random_state: int
    boosting_library: str
    left_out: Sequence[str] = ()

    @property
    def refit(self) -> bool:
        """Whether the estimators are trained once more on all rows, to score new pairs."""
        return self.preset is not None and self.preset.refit

    def estimators(self, families: Families, blocks: Mapping[str, slice]) -> list[EstimatorLearner]:
        """Return the preset's estimators, for the columns of the compressed blocks."""
        if self.preset is None:
            return []
        learners = self.preset.estimators(
            families, blocks, self.random_state, self.boosting_library
        )
        return [one for one in learners if kind_of_learner(one.name) not in self.left_out]

    def n_fits(self, families: Families, n_splits: int) -> int:
        """Return how many fits there will be in all."""
        blocks = {} if self.compression is None else self.compression.blocks
        n_estimators = len(self.estimators(families, blocks)) + len(self.on_columns)
        return len(self.ridges) * n_splits + n_estimators * (n_splits + self.refit)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What all learners are trained with beside the features."""

    scores: FloatArray
    weights: FloatArray
    groups: IntArray | None
    folds: Sequence[Fold]


@dataclass(frozen=True, eq=False)
class Level0Data(TrainingData):
    """The data that the level-0 learners are trained on."""

    table: FeatureTable

    def targets(self, names: Sequence[str], rows: IntArray) -> FloatArray:
        """Return targets of some rows, (n_rows, n_targets).

        Ranks are taken among these rows only: a held-out score must not move its own prediction.
        """
        weights = self.weights[rows]
        return np.column_stack([TARGETS[name](self.scores[rows], weights) for name in names])


@dataclass(frozen=True)
class _Split:
    """A task: to train a learner without some folds and predict them, or on all rows.

    The fields are the number of the learner among all, and the numbers of the folds.
    """

    learner: int
    folds: tuple[int, ...]


def fit_level0(
    data: Level0Data, plan: Level0Plan, n_jobs: int | None, progress: tqdm[Any]
) -> tuple[list[Level0Result], BlockPCA | None]:
    """Train all learners out-of-fold, side by side; the compression of the plan is fitted first.

    The work is cut into tasks without shared memory: the ridges of a family, the compression, and
    then each estimator with each fold.  `progress` counts the fits.
    """
    # The widest ridges come first, so that little is left to wait for at the end.
    widths = [data.table.width(*(one.view.blocks or data.table.blocks)) for one in plan.ridges]
    order = sorted(range(len(widths)), key=lambda index: -widths[index])
    first: list[RidgeLearner | BlockPCA] = [] if plan.compression is None else [plan.compression]
    first += [plan.ridges[index] for index in order]
    prepare = partial(_prepare, data, plan.penalties, n_jobs)
    by_width: list[Level0Result] = []
    compression = plan.compression
    for result in run_tasks(prepare, first, n_jobs=n_jobs):
        if isinstance(result, Level0Result):
            by_width.append(result)
            progress.update(len(data.folds))
        else:
            compression = result
    ridges = [by_width[order.index(index)] for index in range(len(order))]

    blocks = {} if compression is None else compression.blocks_
    learners = [*plan.estimators(data.table.families, blocks), *plan.on_columns]
    splits = [
        _Split(number, folds)
        for number, learner in enumerate(learners)
        for folds in [*([()] if plan.refit else []), *_fold_groups(learner, data, plan)]
    ]
    # Those that share a kernel take longest.
    splits.sort(key=lambda split: not _shares_folds(learners[split.learner]))
    fit = partial(_fit_split, data, _Seen(data.table, compression), learners, not plan.refit)
    oof = [np.empty((len(data.scores), len(one.targets))) for one in learners]
    models: list[list[Any]] = [[] for _ in learners]
    fits = run_tasks(fit, splits, n_jobs=n_jobs)
    for split, (model, predicted) in zip(splits, fits, strict=True):
        progress.update(max(1, len(split.folds)))
        for fold, of_fold in zip(split.folds, predicted, strict=True):
            oof[split.learner][data.folds[fold][1]] = of_fold
        models[split.learner] += [] if model is None else [model]
    estimators = [
        Level0Result(FittedLearner(one.name, one.targets, one.view, of_one), of_all)
        for one, of_one, of_all in zip(learners, models, oof, strict=True)
    ]
    return [*ridges, *estimators], compression


class _Seen:
    """What learners see of a table; each process makes it once, and no array travels.

    A table that reads a cache is pickled as the keys of its rows.
    """

    def __init__(self, table: FeatureTable, compression: BlockPCA | None) -> None:
        self._table, self._compression = table, compression
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Seen, (self._table, self._compression)

    def by(self, learner: EstimatorLearner) -> FeatureTable | FloatArray:
        """Return the table, or the array of the columns that a learner sees."""
        if learner.view.as_table:
            return self._table
        with self._lock:
            if self._compression is None or not learner.view.compressed:
                return self._columns
            compressed = self._compressed
        return learner.view.select(compressed, self._compression.blocks_)

    @cached_property
    def _columns(self) -> FloatArray:
        return self._table.values

    @cached_property
    def _compressed(self) -> FloatArray:
        assert self._compression is not None
        return self._compression.transform(self._table)


def _shares_folds(learner: EstimatorLearner) -> bool:
    """Return whether an estimator predicts several held-out folds at once, which is less work."""
    return hasattr(learner.estimator, "predict_held_out")


def _fold_groups(
    learner: EstimatorLearner, data: Level0Data, plan: Level0Plan
) -> list[tuple[int, ...]]:
    """Return the folds that are fitted together; by themselves, if the folds' models are kept."""
    n_folds = len(data.folds)
    if not (plan.refit and _shares_folds(learner)):
        return [(fold,) for fold in range(n_folds)]
    return [tuple(group) for group in learner.estimator.fold_groups(len(data.scores), n_folds)]


def _prepare(
    data: Level0Data,
    penalties: Sequence[float],
    n_jobs: int | None,
    step: RidgeLearner | BlockPCA,
) -> Level0Result | BlockPCA:
    """Train the ridges of a family, or fit the compression."""
    with one_thread():
        if isinstance(step, BlockPCA):
            return step.fit(data.table, data.weights)
        # Held-out rows get the mean, which tells nothing about them.
        targets = np.empty((len(data.folds), len(data.scores), len(step.targets)))
        for fold, (train, held_out) in enumerate(data.folds):
            targets[fold, train] = data.targets(step.targets, train)
            targets[fold, held_out] = targets[fold, train].mean(axis=0)
        with naming(f"the learner {step.name!r}", "could not be fitted out-of-fold"):
            oof, model, _ = fit_blocks(
                data.table,
                step.view.blocks,
                data.folds,
                data.groups,
                targets,
                data.weights,
                penalties,
                n_jobs,
            )
        return Level0Result(FittedLearner(step.name, step.targets, step.view, [model]), oof)


def _fit_split(
    data: Level0Data,
    seen_by: _Seen,
    learners: Sequence[EstimatorLearner],
    keeps_models: bool,
    split: _Split,
) -> tuple[Any, list[FloatArray]]:
    """Train a learner on some rows and predict those held out; return it, if it is kept.

    A model that only predicts its fold is not kept: a Gaussian process is as large as its rows.
    """
    learner = learners[split.learner]
    seen: Any = seen_by.by(learner)
    held_out = [data.folds[fold][1] for fold in split.folds]
    weighs = not (data.weights == 1).all()
    who = f"the learner {learner.name!r} ({type(learner.estimator).__name__})"
    with one_thread():
        if held_out and not keeps_models and _shares_folds(learner):
            numbers = ", ".join(map(str, split.folds))
            with naming(who, f"could not be fitted on the rows outside the folds {numbers}"):
                predicted = clone(learner.estimator).predict_held_out(
                    seen,
                    held_out,
                    partial(data.targets, learner.targets),
                    data.weights if weighs else None,
                )
            return None, predicted
        train = data.folds[split.folds[0]][0] if held_out else np.arange(len(data.scores))
        targets = data.targets(learner.targets, train)
        n_rows = f"{len(train)} rows"
        on_what = f"the {n_rows} outside fold {split.folds[0]}" if held_out else n_rows
        with naming(who, f"could not be fitted on {on_what}"):
            model = fit_estimator(
                learner.estimator,
                seen[train],
                targets[:, 0] if len(learner.targets) == 1 else targets,
                None if data.groups is None else data.groups[train],
                data.weights[train] if weighs else None,
            )
        predicted = []
        for fold, rows in zip(split.folds, held_out, strict=True):
            with naming(who, f"could not predict the {len(rows)} rows of fold {fold}"):
                of_fold = model.predict(seen[rows])
            predicted.append(_check_predicted(learner, model, of_fold, len(rows)))
    return model if keeps_models or not held_out else None, predicted


def _check_predicted(
    learner: EstimatorLearner, model: BaseEstimator, predicted: ArrayLike, n_pairs: int
) -> FloatArray:
    """Return predictions as an array of shape (n_pairs, n_targets), once they are numbers."""
    values, n_targets = np.asarray(predicted), len(learner.targets)
    what = f"the learner {learner.name!r} ({type(model).__name__})"
    shapes = [(n_pairs, n_targets), (n_pairs,)][: 2 if n_targets == 1 else 1]
    if values.shape not in shapes or values.dtype.kind not in "fiub":
        raise StackingError(
            f"{what} predicts an array of shape {values.shape} and type {values.dtype} for "
            f"{n_pairs} pairs; expected numbers, of shape {shapes[-1]}."
        )
    n_bad = n_pairs - int(np.isfinite(values.reshape(n_pairs, -1)).all(axis=1).sum())
    if n_bad:
        raise StackingError(
            f"{what} predicts NaN or infinity for {n_bad} of the {n_pairs} pairs of a fold."
        )
    return values.reshape(n_pairs, -1)


def predict_level0(
    learners: Sequence[FittedLearner], table: FeatureTable, compression: BlockPCA | None
) -> FloatArray:
    """Return the level-0 predictions of some pairs, of shape (n_pairs, n_level0).

    All columns of the table are held in memory.  The compression is None where no learner sees
    compressed blocks.  A StackingError says which learner predicts NaN or infinity, or fails.
    """
    compressed = None if compression is None else compression.transform_values(table.values)
    outputs = []
    for learner in learners:
        with naming(f"the learner {learner.name!r}", f"could not predict {len(table)} pairs"):
            seen: FloatArray | FeatureTable = table
            if not learner.view.compressed and not learner.view.as_table:
                seen = table.rows(slice(None), learner.view.blocks)
            elif learner.view.compressed:
                if compression is None or compressed is None:
                    raise StackingError("it sees compressed blocks, and there is no compression.")
                seen = learner.view.select(compressed, compression.blocks_)
            outputs.append(learner.predict(seen).reshape(len(table), -1))
        n_bad = len(table) - int(np.isfinite(outputs[-1]).all(axis=1).sum())
        if n_bad:
            raise StackingError(
                f"the learner {learner.name!r} predicts NaN or infinity for {n_bad} of "
                f"{len(table)} pairs."
            )
    return np.column_stack(outputs)


@contextmanager
def naming(who: str, failure: str) -> Iterator[None]:
    """Put in front of an exception's message which learner failed at what.

    This library's own errors keep their type; others become a StackingError with the exception as
    its cause.  An interrupt, a lack of memory and a warning that is an error pass unchanged.
    """
    try:
        yield
    except (MemoryError, Warning):
        raise
    except XacleStackError as error:
        if who in str(error):
            raise
        raise type(error)(f"{who} {failure}: {error}") from error
    except Exception as error:
        raise StackingError(f"{who} {failure}: {type(error).__name__}: {error}") from error


def named_learners(parameter: str, learners: object) -> list[tuple[str, BaseEstimator]]:
    """Return a caller's learners, once each has a name of its own.

    A StackingError says that they are no pairs of name and regressor, there are none, or two share
    a name.
    """
    if isinstance(learners, str) and learners in PRESETS:
        raise StackingError(f"{learners!r} is a preset: write preset={learners!r}.")
    try:
        named = [(name, estimator) for name, estimator in learners]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        named = [("", None)]
    if not all(isinstance(name, str) and hasattr(one, "fit") for name, one in named):
        raise StackingError(
            f"{parameter} must be a list of (name, regressor), for example "
            f"[('linear', LinearRegression())], got {learners!r}."
        )
    names = [name for name, _ in named]
    if not names or len(set(names)) != len(names):
        raise StackingError(f"{parameter} need different names and at least one, got {names}.")
    return named


def check_they_take_weights(named: Sequence[tuple[str, BaseEstimator]]) -> None:
    """Check that the `fit` of every estimator takes ``sample_weight``."""
    for name, estimator in named:
        if not has_fit_parameter(estimator, "sample_weight"):
            raise StackingError(
                f"sample_weight: the learner {name!r} ({type(estimator).__name__}) takes none. "
                "Leave the weights out, or give a learner that does."
            )


def fit_estimator(
    estimator: BaseEstimator,
    X: FloatArray,
    y: FloatArray,
    labels: IntArray | None,
    sample_weight: ArrayLike | None,
    context: Mapping[str, FloatArray] | None = None,
) -> BaseEstimator:
    """Return a fitted clone; it gets groups if its `fit` takes them, and all of the context."""
    model = clone(estimator)
    extra: dict[str, Any] = dict(context or {})
    if has_fit_parameter(model, "groups"):
        extra["groups"] = labels
    if sample_weight is not None:
        extra["sample_weight"] = sample_weight
    return model.fit(X, y, **extra)


def zero_constant_columns(oof: FloatArray, target_spreads: FloatArray) -> FloatArray:
    """Zero out-of-fold columns that are nearly constant beside their targets' standard deviations.

    Standardising them would amplify rounding noise into a signal.  A ridge at its strongest
    penalty predicts such a column, and its model of all rows may vary more on new pairs.

    Examples
    --------
    >>> zero_constant_columns(np.array([[4.0, 0.5], [6.0, 0.5001]]), np.array([3.0, 0.3]))
    array([[4., 0.],
           [6., 0.]])
    """
    return np.where(oof.std(axis=0) > _MIN_SPREAD * target_spreads, oof, 0.0)
