"""Trains the last step of a stack, on out-of-fold predictions, and predicts with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator

from xacle_stack._threads import one_thread
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError
from xacle_stack.stacking.calibration import MonotoneCalibration, keep_in_range
from xacle_stack.stacking.learners import TARGETS
from xacle_stack.stacking.level0 import (
    TrainingData,
    fit_estimator,
    naming,
    zero_constant_columns,
)
from xacle_stack.table import FeatureTable


@dataclass(frozen=True, eq=False)
class Level1:
    """A meta-regressor, what brings predicted ranks to the scale of scores, and their bounds."""

    meta: BaseEstimator
    calibration: MonotoneCalibration | None
    score_range: tuple[float, float] | None

    def predict(self, level0: FloatArray, context: Mapping[str, FloatArray]) -> FloatArray:
        """Return scores from level-0 predictions, and from what `context_of` gives."""
        who = f"the learner 'meta' ({type(self.meta).__name__})"
        with one_thread(), naming(who, f"could not predict {len(level0)} pairs"):
            scores: FloatArray = self.meta.predict(level0, **context)
        if self.calibration is not None:
            scores = self.calibration.predict(scores)
        return scores if self.score_range is None else keep_in_range(scores, *self.score_range)


@dataclass(frozen=True, eq=False)
class Level1Data:
    """What a meta-regressor is trained on.

    `oof` are the out-of-fold predictions of the pairs in `training`, `output_targets` the target
    of each of their columns, and `target` that of the meta-regressor.  The weights of the pairs
    are given if it shall take some.
    """

    training: TrainingData
    oof: FloatArray
    output_targets: Sequence[str]
    target: str
    context: Mapping[str, FloatArray]
    sample_weight: ArrayLike | None

    def fit(
        self,
        meta: BaseEstimator,
        score_range: tuple[float, float] | None,
        rows: slice | IntArray = slice(None),
    ) -> Level1:
        """Train a clone of a meta-regressor on some rows."""
        data, oof, context = self.training, self.oof[rows], rows_of(self.context, rows)
        scores, weights = data.scores[rows], data.weights[rows]
        spreads = np.array([TARGETS[name](scores, weights).std() for name in self.output_targets])
        given = None if self.sample_weight is None else np.asarray(self.sample_weight)[rows]
        with naming(f"the learner 'meta' ({type(meta).__name__})", "could not be fitted"):
            fitted = fit_estimator(
                meta,
                zero_constant_columns(oof, spreads),
                TARGETS[self.target](scores, weights),
                None if data.groups is None else data.groups[rows],
                given,
                context,
            )
        calibration = None
        if self.target != "score":
            predicted = fitted.predict(oof, **context)
            calibration = MonotoneCalibration().fit(predicted, scores, weights)
        return Level1(fitted, calibration, score_range)

    def cross_fit(self, meta: BaseEstimator, score_range: tuple[float, float] | None) -> FloatArray:
        """Return final scores of each fold, by a meta-regressor that was trained without it."""
        scores: FloatArray = np.empty(len(self.oof))
        for train, held_out in self.training.folds:
            level1 = self.fit(meta, score_range, train)
            scores[held_out] = level1.predict(self.oof[held_out], rows_of(self.context, held_out))
        return scores


def context_of(meta: BaseEstimator, table: FeatureTable | None) -> dict[str, FloatArray]:
    """Return what a meta-regressor's `fit` and `predict` get beside the level-0 predictions.

    One with the attribute ``context_blocks`` gets these columns of the table.  A StackingError
    says that it needs the table, and there is none.
    """
    if not hasattr(meta, "context_blocks"):
        return {}
    if table is None:
        raise StackingError(
            f"the meta-regressor, a {type(meta).__name__}, looks at the pairs, too. Give their "
            "features as X."
        )
    blocks = [name for name in meta.context_blocks if name in table.blocks]
    return {"context": table.rows(slice(None), blocks) if blocks else np.empty((len(table), 0))}


def rows_of(context: Mapping[str, FloatArray], rows: slice | IntArray) -> dict[str, FloatArray]:
    """Return some rows of what `context_of` gives."""
    return {name: values[rows] for name, values in context.items()}
