"""Trains level-0 learners out-of-fold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import has_fit_parameter

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.stacking.columns import Columns
from xacle_stack.stacking.compress import BlockPCA
from xacle_stack.stacking.folds import Fold
from xacle_stack.stacking.learners import (
    ALL_COLUMNS,
    TARGETS,
    FittedLearner,
    Level0Learner,
    Preset,
)
from xacle_stack.stacking.ridge import fit_family


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

        def fit_ridge(learner: Level0Learner) -> list[Level0Result]:
            targets = self._targets_by_fold(learner.targets)
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

        def fit_estimators() -> list[Level0Result]:
            compression.fit(self.columns, self.weights)
            table = compression.transform(self.columns)
            learners = preset.estimators(compression.blocks_, random_state)
            return [self._fit_estimator(learner, table, preset.refit) for learner in learners]

        last, *first = Parallel(n_jobs=self.n_jobs, prefer="threads", require="sharedmem")(
            [delayed(fit_estimators)(), *(delayed(fit_ridge)(ridge) for ridge in ridges)]
        )
        return [one for part in [*first, last] for one in part]

    def _fit_estimator(
        self, learner: Level0Learner, table: FloatArray, refits: bool
    ) -> Level0Result:
        splits: list[tuple[IntArray, IntArray | None]] = list(self.folds)
        if refits:
            splits.append((np.arange(len(self.scores)), None))
        seen = learner.select(table)
        results = Parallel(n_jobs=self.n_jobs, prefer="threads", require="sharedmem")(
            delayed(_fit_split)(
                learner, seen, self.scores, self.weights, self.groups, split, keeps=not refits
            )
            for split in splits
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


def _fit_split(
    learner: Level0Learner,
    table: FloatArray,
    y: FloatArray,
    weights: FloatArray,
    groups: IntArray | None,
    split: tuple[IntArray, IntArray | None],
    *,
    keeps: bool,
) -> tuple[Any, FloatArray | None]:
    """Train a learner on some rows and predict those held out.

    A model that only predicts its fold is not kept: a Gaussian process is as large as its rows.
    """
    train, held_out = split
    of_train = [TARGETS[target](y[train], weights[train]) for target in learner.targets]
    model = fit_estimator(
        learner.estimator,
        table[train],
        of_train[0] if len(of_train) == 1 else np.column_stack(of_train),
        None if groups is None else groups[train],
        None if (weights == 1).all() else weights[train],
    )
    if held_out is None:
        return model, None
    predicted = np.asarray(model.predict(table[held_out])).reshape(len(held_out), -1)
    return model if keeps else None, predicted


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
