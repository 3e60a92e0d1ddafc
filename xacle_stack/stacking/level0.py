"""Trains level-0 learners out-of-fold, and predicts with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import has_fit_parameter
from tqdm import tqdm

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
    predict the raw score.  `penalties` are the ridges' candidates, and `random_state` seeds the
    preset's estimators.
    """

    ridges: Sequence[RidgeLearner]
    preset: Preset | None
    compression: BlockPCA | None
    on_columns: Sequence[EstimatorLearner]
    penalties: Sequence[float]
    random_state: int

    @property
    def refit(self) -> bool:
        """Whether the estimators are trained once more on all rows, to score new pairs."""
        return self.preset is not None and self.preset.refit

    def estimators(self, families: Families, blocks: Mapping[str, slice]) -> list[EstimatorLearner]:
        """Return the preset's estimators, for the columns of the compressed blocks."""
        if self.preset is None:
            return []
        return self.preset.estimators(families, blocks, self.random_state)

    def n_fits(self, families: Families, n_splits: int) -> int:
        """Return how many fits there will be in all."""
        blocks = {} if self.compression is None else self.compression.blocks
        n_estimators = len(self.estimators(families, blocks)) + len(self.on_columns)
        return len(self.ridges) * n_splits + n_estimators * (n_splits + self.refit)


@dataclass(frozen=True, eq=False)
class Level0Task:
    """The data that all learners are trained on; `progress` counts the fits."""

    table: FeatureTable
    scores: FloatArray
    weights: FloatArray
    groups: IntArray | None
    folds: Sequence[Fold]
    n_jobs: int | None
    progress: tqdm[Any]

    def _count(self, n_fits: int = 1) -> None:
        with tqdm.get_lock():  # fits end in several threads
            self.progress.update(n_fits)

    def fit_all(self, plan: Level0Plan) -> list[Level0Result]:
        """Train all learners out-of-fold, side by side; this fits the plan's compression."""

        @one_thread()
        def fit_ridge(learner: RidgeLearner) -> list[Level0Result]:
            return [self._fit_ridge(learner, plan.penalties)]

        @one_thread()
        def fit_compressed() -> list[Level0Result]:
            if plan.compression is None:
                return []
            plan.compression.fit(self.table, self.weights)
            values, blocks = plan.compression.transform(self.table), plan.compression.blocks_
            learners = plan.estimators(self.table.families, blocks)
            return [
                self._fit_estimator(one, one.view.select(values, blocks), plan.refit)
                for one in learners
            ]

        @one_thread()
        def fit_on_columns() -> list[Level0Result]:
            needs_array = any(not one.view.as_table for one in plan.on_columns)
            values = self.table.values if needs_array else None
            return [
                self._fit_estimator(one, self.table if one.view.as_table else values, plan.refit)
                for one in plan.on_columns
            ]

        # The widest first: little is then left to wait for at the end.
        ridges = plan.ridges
        widths = [self.table.width(*(one.view.blocks or self.table.blocks)) for one in ridges]
        order = sorted(range(len(ridges)), key=lambda index: -widths[index])
        *by_width, compressed, on_columns = Parallel(
            n_jobs=self.n_jobs, prefer="threads", require="sharedmem"
        )(
            [
                *(delayed(fit_ridge)(ridges[index]) for index in order),
                delayed(fit_compressed)(),
                delayed(fit_on_columns)(),
            ]
        )
        in_order = [by_width[order.index(index)] for index in range(len(ridges))]
        return [one for part in [*in_order, compressed, on_columns] for one in part]

    def _fit_ridge(self, learner: RidgeLearner, penalties: Sequence[float]) -> Level0Result:
        targets = self._targets_by_fold(learner.targets)
        with naming(f"the learner {learner.name!r}", "could not be fitted out-of-fold"):
            oof, model, _ = fit_blocks(
                self.table,
                learner.view.blocks,
                self.folds,
                self.groups,
                targets,
                self.weights,
                penalties,
                self.n_jobs,
            )
        self._count(len(self.folds))
        fitted = FittedLearner(learner.name, learner.targets, learner.view, [model])
        return Level0Result(fitted, oof)

    def _fit_estimator(
        self, learner: EstimatorLearner, seen: FloatArray | FeatureTable | None, refit: bool
    ) -> Level0Result:
        splits: list[tuple[IntArray, IntArray | None]] = list(self.folds)
        if refit:
            splits.append((np.arange(len(self.scores)), None))
        results = Parallel(n_jobs=self.n_jobs, prefer="threads", require="sharedmem")(
            delayed(self._fit_split)(learner, seen, split, fold, keeps_model=not refit)
            for fold, split in enumerate(splits)
        )
        oof = np.empty((len(self.scores), len(learner.targets)))
        for (_, held_out), (_, predicted) in zip(self.folds, results, strict=False):
            oof[held_out] = predicted
        models = [model for model, _ in results if model is not None]
        fitted = FittedLearner(learner.name, learner.targets, learner.view, models)
        return Level0Result(fitted, oof)

    @one_thread()
    def _fit_split(
        self,
        learner: EstimatorLearner,
        seen: Any,
        split: tuple[IntArray, IntArray | None],
        fold: int,
        *,
        keeps_model: bool,
    ) -> tuple[Any, FloatArray | None]:
        """Train a learner on some rows and predict those held out.

        A model that only predicts its fold is not kept: a Gaussian process is as large as its rows.
        """
        train, held_out = split
        weights = self.weights[train]
        targets = [TARGETS[target](self.scores[train], weights) for target in learner.targets]
        who = f"the learner {learner.name!r} ({type(learner.estimator).__name__})"
        n_rows = f"{len(train)} rows"
        rows = n_rows if held_out is None else f"the {n_rows} outside fold {fold}"
        with naming(who, f"could not be fitted on {rows}"):
            model = fit_estimator(
                learner.estimator,
                seen[train],
                targets[0] if len(targets) == 1 else np.column_stack(targets),
                None if self.groups is None else self.groups[train],
                None if (self.weights == 1).all() else weights,
            )
        self._count()
        if held_out is None:
            return model, None
        with naming(who, f"could not predict the {len(held_out)} rows of fold {fold}"):
            predicted = model.predict(seen[held_out])
        predicted = _check_predicted(learner, model, predicted, len(held_out))
        return model if keeps_model else None, predicted

    def _targets_by_fold(self, targets: Sequence[str]) -> FloatArray:
        """Return what the models of each fold are trained on, (n_folds, n_pairs, n_targets).

        Ranks are taken among the rows trained on: a held-out score must not move its own
        prediction.  Held-out rows get the mean, which tells nothing about them.
        """
        by_fold = np.empty((len(self.folds), len(self.scores), len(targets)))
        for fold, (train, held_out) in enumerate(self.folds):
            for index, target in enumerate(targets):
                values = TARGETS[target](self.scores[train], self.weights[train])
                by_fold[fold, train, index] = values
                by_fold[fold, held_out, index] = values.mean()
        return by_fold


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
) -> BaseEstimator:
    """Return a fitted clone; it gets groups if its `fit` takes them."""
    model = clone(estimator)
    extra: dict[str, Any] = {}
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
