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

from xacle_stack._threads import one_thread
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError, XacleStackError
from xacle_stack.stacking.columns import Columns
from xacle_stack.stacking.compress import BlockPCA
from xacle_stack.stacking.folds import Fold
from xacle_stack.stacking.learners import (
    ALL_COLUMNS,
    COMPRESSED,
    PRESETS,
    TARGETS,
    FittedLearner,
    Level0Learner,
    Preset,
)
from xacle_stack.stacking.ridge import fit_family

# Of the target's: a learner that varies less says nothing.
_LEAST_SPREAD = 1e-3


@dataclass(frozen=True, eq=False)
class Level0Result:
    """One learner after training.

    Attributes
    ----------
    names : list of str
        Of its out-of-fold columns.
    fitted : FittedLearner
    oof : ndarray of shape (n_pairs, n_targets)
    """

    names: list[str]
    fitted: FittedLearner
    oof: FloatArray


@dataclass(frozen=True, eq=False)
class Level0Task:
    """What all learners are trained on.

    Attributes
    ----------
    columns : Columns
    scores, weights : ndarray of shape (n_pairs,)
    groups : ndarray of shape (n_pairs,) or None
    folds : sequence of (train, held_out) row numbers
    n_jobs : int or None
    """

    columns: Columns
    scores: FloatArray
    weights: FloatArray
    groups: IntArray | None
    folds: Sequence[Fold]
    n_jobs: int | None

    def fit_estimators(self, learners: Sequence[tuple[str, BaseEstimator]]) -> list[Level0Result]:
        """Train a caller's estimators on all columns."""
        table = self.columns.rows(slice(0, len(self.scores)))
        named = [Level0Learner(name, ALL_COLUMNS, estimator) for name, estimator in learners]
        return [self._fit_estimator(learner, table, refits=False) for learner in named]

    def fit_preset(
        self,
        preset: Preset,
        ridges: Sequence[Level0Learner],
        compression: BlockPCA,
        penalties: Sequence[float],
        random_state: int,
    ) -> list[Level0Result]:
        """Train the ridges and, beside them, the preset's estimators; fits `compression`."""

        @one_thread()
        def fit_ridge(learner: Level0Learner) -> list[Level0Result]:
            targets = self._targets_by_fold(learner.targets)
            with naming(f"the learner {learner.name!r} could not be fitted out-of-fold"):
                oof, model, _ = fit_family(
                    self.columns,
                    learner.sees,
                    self.folds,
                    self.groups,
                    targets,
                    self.weights,
                    penalties,
                    self.n_jobs,
                )
            fitted = FittedLearner(learner.sees, None, [model])
            return [Level0Result(learner.output_names, fitted, oof)]

        @one_thread()
        def fit_estimators() -> list[Level0Result]:
            compression.fit(self.columns, self.weights)
            table = compression.transform(self.columns)
            learners = preset.estimators(compression.blocks_, random_state)
            return [self._fit_estimator(learner, table, preset.refit) for learner in learners]

        def width(ridge: Level0Learner) -> int:
            columns = self.columns.families[ridge.sees]
            return int(columns.stop - columns.start)

        # The largest family first: what is left at the end is then small.
        order = sorted(range(len(ridges)), key=lambda place: -width(ridges[place]))
        *first, last = Parallel(n_jobs=self.n_jobs, prefer="threads", require="sharedmem")(
            [*(delayed(fit_ridge)(ridges[place]) for place in order), delayed(fit_estimators)()]
        )
        in_order = sorted(zip(order, first, strict=True), key=lambda one: one[0])
        return [one for part in [*(found for _, found in in_order), last] for one in part]

    def _fit_estimator(
        self, learner: Level0Learner, table: FloatArray, refits: bool
    ) -> Level0Result:
        splits: list[tuple[IntArray, IntArray | None]] = list(self.folds)
        if refits:
            splits.append((np.arange(len(self.scores)), None))
        seen = learner.select(table)
        results = Parallel(n_jobs=self.n_jobs, prefer="threads", require="sharedmem")(
            delayed(_fit_split)(
                learner, seen, self.scores, self.weights, self.groups, split, fold, keeps=not refits
            )
            for fold, split in enumerate(splits)
        )
        oof = np.empty((len(self.scores), len(learner.targets)))
        for (_, held_out), (_, predicted) in zip(self.folds, results, strict=False):
            oof[held_out] = predicted
        models = [model for model, _ in results if model is not None]
        fitted = FittedLearner(learner.sees, learner.columns, models)
        return Level0Result(learner.output_names, fitted, oof)

    def _targets_by_fold(self, targets: Sequence[str]) -> FloatArray:
        """Return what the models of each fold are trained on, (n_folds, n_pairs, n_targets).

        Ranks are those among the rows trained on: a held-out score must not move its own
        prediction.  Of held-out rows there is nothing but a mean.
        """
        by_fold = np.empty((len(self.folds), len(self.scores), len(targets)))
        for fold, (train, held_out) in enumerate(self.folds):
            for place, target in enumerate(targets):
                values = TARGETS[target](self.scores[train], self.weights[train])
                by_fold[fold, train, place] = values
                by_fold[fold, held_out, place] = values.mean()
        return by_fold


@one_thread()
def _fit_split(
    learner: Level0Learner,
    table: FloatArray,
    y: FloatArray,
    weights: FloatArray,
    groups: IntArray | None,
    split: tuple[IntArray, IntArray | None],
    fold: int,
    *,
    keeps: bool,
) -> tuple[Any, FloatArray | None]:
    """Train a learner on some rows and predict those held out.

    A model that only predicts its fold is not kept: a Gaussian process is as large as its rows.
    """
    train, held_out = split
    of_train = [TARGETS[target](y[train], weights[train]) for target in learner.targets]
    who = f"the learner {learner.name!r} ({type(learner.estimator).__name__})"
    rows = (
        f"{len(train)} rows" if held_out is None else f"the {len(train)} rows outside fold {fold}"
    )
    with naming(f"{who} could not be fitted on {rows}"):
        model = fit_estimator(
            learner.estimator,
            table[train],
            of_train[0] if len(of_train) == 1 else np.column_stack(of_train),
            None if groups is None else groups[train],
            None if (weights == 1).all() else weights[train],
        )
    if held_out is None:
        return model, None
    with naming(f"{who} could not predict the {len(held_out)} rows of fold {fold}"):
        predicted = model.predict(table[held_out])
    predicted = _check_predicted(learner, model, predicted, len(held_out))
    return model if keeps else None, predicted


def _check_predicted(
    learner: Level0Learner, model: BaseEstimator, predicted: ArrayLike, n_pairs: int
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
    learners: Sequence[FittedLearner],
    names: Sequence[str],
    table: FloatArray,
    compression: BlockPCA | None,
    families: Mapping[str, slice],
) -> FloatArray:
    """Return the level-0 predictions of rows that are at hand with all columns.

    Parameters
    ----------
    learners : sequence of FittedLearner
    names : sequence of str
        Of their outputs, ``"learner/target"``.
    table : ndarray of shape (n_rows, n_features)
    compression : BlockPCA or None
        None where no learner sees compressed blocks.
    families : mapping of str to slice

    Returns
    -------
    predictions : ndarray of shape (n_rows, n_level0)

    Raises
    ------
    StackingError
        If a learner predicts NaN or infinity, or fails.
    """
    views = {ALL_COLUMNS: table}
    if compression is not None:
        views[COMPRESSED] = compression.transform_rows(table)
    of_learners = []
    outputs = dict.fromkeys(name.rpartition("/")[0] for name in names)
    for name, learner in zip(outputs, learners, strict=True):
        sees = learner.sees
        with naming(f"the learner {name!r} could not predict {len(table)} pairs"):
            view = views[sees] if sees in views else table[:, families[sees]]
            of_learners.append(learner.predict(view))
    predictions = np.column_stack(of_learners)
    is_finite = np.isfinite(predictions)
    for name, of_learner in zip(names, is_finite.T, strict=True):
        if not of_learner.all():
            raise StackingError(
                f"the learner {name.rpartition('/')[0]!r} predicts NaN or infinity for "
                f"{len(table) - of_learner.sum()} of {len(table)} pairs."
            )
    return predictions


@contextmanager
def naming(failure: str) -> Iterator[None]:
    """Say in front of an exception's message which learner failed at what.

    This library's own errors stay what they are; others become a StackingError with the exception
    as its cause.  An interrupt, a lack of memory and a warning that is an error pass.
    """
    try:
        yield
    except (MemoryError, Warning):
        raise
    except XacleStackError as error:
        who = failure.partition(" could not ")[0]
        if who in str(error):
            raise
        raise type(error)(f"{failure}: {error}") from error
    except Exception as error:
        raise StackingError(f"{failure}: {type(error).__name__}: {error}") from error


def named_learners(learners: object) -> list[tuple[str, BaseEstimator]]:
    """Return a caller's learners, once each has a name of its own.

    Raises
    ------
    StackingError
        If they are no pairs of name and regressor, there are none, or two share a name.
    """
    if isinstance(learners, str) and learners in PRESETS:
        raise StackingError(f"{learners!r} is a preset: write preset={learners!r}.")
    try:
        named = [(name, estimator) for name, estimator in learners]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        named = [("", None)]
    if not all(isinstance(name, str) and hasattr(one, "fit") for name, one in named):
        raise StackingError(
            "learners must be a list of (name, regressor), for example "
            f"[('linear', LinearRegression())], got {learners!r}."
        )
    names = [name for name, _ in named]
    if not names or len(set(names)) != len(names):
        raise StackingError(f"learners need different names and at least one, got {names}.")
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
    fitted = model.fit(X, y, **extra)
    if getattr(fitted, "was_interrupted_", False):
        raise KeyboardInterrupt  # of one learner it kept the best state; a stack has none to keep
    return fitted


def without_idle(oof: FloatArray, target_spreads: FloatArray) -> FloatArray:
    """Return out-of-fold predictions with zeros where a learner says nearly the same of all rows.

    A ridge at its strongest penalty is such a one.  Standardised, its rounding would look like
    knowledge, and its model of all rows, which may vary more, would be blown up on new pairs.

    Parameters
    ----------
    oof : ndarray of shape (n_pairs, n_level0)
    target_spreads : ndarray of shape (n_level0,)
        Standard deviations of what the learners are trained on.

    Examples
    --------
    >>> without_idle(np.array([[4.0, 0.5], [6.0, 0.5001]]), np.array([3.0, 0.3]))
    array([[4., 0.],
           [6., 0.]])
    """
    return np.where(oof.std(axis=0) > _LEAST_SPREAD * target_spreads, oof, 0.0)
