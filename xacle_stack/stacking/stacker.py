"""The stacker: level-0 learners out-of-fold, a ridge on top.

Source: Wolpert 1992 (stacked generalisation); Li, Li and Shinozaki 2026 for the preset "paper".
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Literal, Self

import numpy as np
from joblib import Parallel, cpu_count, delayed, effective_n_jobs
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._threads import one_thread
from xacle_stack._types import FloatArray
from xacle_stack._validation import (
    check_choice,
    check_positive_numbers,
    check_score_range,
    check_whole_number,
    group_labels,
    row_weights,
)
from xacle_stack.errors import StackingError
from xacle_stack.stacking.calibration import (
    MonotoneCalibration,
    check_in_range,
    keep_in_range,
    scale_of,
)
from xacle_stack.stacking.columns import (
    ArrayColumns,
    Columns,
    are_columns,
    check_same_columns,
    row_blocks,
)
from xacle_stack.stacking.compress import BlockPCA
from xacle_stack.stacking.explain import (
    Explanation,
    check_same_training,
    explain_stack,
    training_facts,
)
from xacle_stack.stacking.folds import (
    check_enough_groups,
    check_fold_weights,
    fold_numbers,
    split_folds,
)
from xacle_stack.stacking.learners import PRESETS, TARGETS, family_ridges
from xacle_stack.stacking.level0 import (
    Level0Task,
    check_they_take_weights,
    fit_estimator,
    named_learners,
    naming,
    predict_level0,
    without_idle,
)
from xacle_stack.stacking.ridge import PENALTIES, GroupedRidge

# Columns of the meta-regressor are few and already predictions: weaker penalties than level 0.
META_PENALTIES = tuple(float(penalty) for penalty in np.logspace(-2, 4, 13))


class Stacker(RegressorMixin, BaseEstimator):
    """Predict scores from a feature table by an out-of-fold stack.

    For every fold, each level-0 learner is trained on the other folds and predicts the held-out
    rows.  A ridge is trained on these out-of-fold predictions.

    Parameters
    ----------
    learners : sequence of (str, regressor), optional
        Level-0 learners on all columns and the raw score, in place of the preset's.
    meta : regressor, optional
        By default a :class:`GroupedRidge`.  Like any learner it gets the groups if its own `fit`
        takes them; a pipeline's does not.
    preset : {"best", "paper"}, default="best"
        "best" is a Gaussian process that learns how much each block of columns matters, beside
        boosting.  "paper" is the published system: for each family a ridge on the score and one on
        its ranks, and boosting; it scores millions of pairs in minutes.
    n_splits : int, optional
        Folds; by default 5 for "best" and 3 for "paper" and for `learners`.
    penalties : sequence of float, default=PENALTIES
        Candidates of the ridges of "paper"; nothing else uses them.
    n_components : int, optional
        Principal components that learners see instead of the columns: by default 128 of each
        block for "best", 64 of all columns for "paper".
    target : {"score", "rank"}, default="score"
        What the meta-regressor is trained on.  Predicted ranks are brought to the scale of the
        scores by a strictly increasing map.
    score_range : (float, float), "auto" or None, default="auto"
        Bounds of the predictions: what comes near them is bent inwards, strictly increasing.
        "auto" is this library's scale, (0, 10), if all training scores lie in it, some of them in
        its upper half, and otherwise no bounds, as None.
    n_jobs : int, optional
        Things done side by side, in joblib's convention.  Never changes a result.
    random_state : int, RandomState or None, default=None
        Of the folds and the learners.

    Attributes
    ----------
    oof_predictions_ : ndarray of shape (n_pairs, n_level0)
        Level-0 predictions of the training pairs by models that were not trained on them, nor
        on any pair of their group.
    level0_names_ : list of str
        Their columns, ``"learner/target"``.
    level0_models_ : list of FittedLearner
        For each learner what it sees and the models whose predictions are averaged: one a fold
        for "paper" and `learners`, one that was trained on all rows for "best".
    folds_ : ndarray of shape (n_pairs,)
        The fold that held each pair out.
    meta_ : regressor
    calibration_ : MonotoneCalibration or None
    score_range_ : (float, float) or None
        What predictions are kept in.
    compression_ : BlockPCA or None
    families_, blocks_ : dict of str to slice
    seed_ : int
        The `random_state` that makes the same fit again; drawn if none was given.
    training_ : dict of str to ndarray
        What `explain` tells the training pairs by: scores, weights, groups, and the means of the
        features of some rows.

    Notes
    -----
    While `fit` and `predict` run, BLAS has one thread in the whole process, so that the machine's
    number of processors changes no digit of a result.  Stacks may be fitted and used side by side
    in threads; the last to end restores the threads that the first found.

    References
    ----------
    Wolpert 1992, "Stacked generalization", Neural Networks 5(2).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(90, 4))
    >>> stacker = Stacker(preset="paper", random_state=0).fit(X, X[:, 0])
    >>> stacker.oof_predictions_.shape, stacker.level0_names_
    ((90, 3), ['ridge all/score', 'ridge all/rank', 'boosting/score'])
    """

    def __init__(
        self,
        learners: Sequence[tuple[str, BaseEstimator]] | None = None,
        meta: BaseEstimator | None = None,
        *,
        preset: str = "best",
        n_splits: int | None = None,
        penalties: Sequence[float] = PENALTIES,
        n_components: int | None = None,
        target: Literal["score", "rank"] = "score",
        score_range: tuple[float, float] | Literal["auto"] | None = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.learners = learners
        self.meta = meta
        self.preset = preset
        self.n_splits = n_splits
        self.penalties = penalties
        self.n_components = n_components
        self.target = target
        self.score_range = score_range
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train level 0 out-of-fold, then level 1.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, n_features)
            A plain array is one family.
        y : array-like of shape (n_pairs,)
            Scores.
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are held out together.  Give the captions where captions
            repeat and new pairs bring new ones: otherwise the out-of-fold predictions answer
            another, usually easier question.
        sample_weight : array-like of shape (n_pairs,), optional
            For example the number of listeners of each pair.  Honoured by every learner and by
            every choice among candidates.

        Returns
        -------
        self : Stacker

        Raises
        ------
        StackingError
            If there are too few groups for the folds, scores outside `score_range`, a setting of
            an unknown name or a wrong type, weights that a learner cannot take or that leave a
            fold nothing to be trained on, or a learner that fails or predicts no finite number a
            pair.  What else goes wrong in a learner is the error's cause.
        """
        self._check_settings(sample_weight is not None)
        columns, scores = self._check_training(X, y)
        weights = row_weights(len(scores), sample_weight)
        self.families_ = dict(columns.families)
        self.blocks_ = dict(columns.blocks)
        if isinstance(self.score_range, str):
            self.score_range_ = scale_of(scores)
        else:
            self.score_range_ = self.score_range
        if self.score_range_ is not None:
            check_in_range(scores, *self.score_range_)
        labels = None if groups is None else group_labels(len(scores), groups)
        self.training_ = training_facts(columns, scores, weights, labels)
        n_splits = self.n_splits
        if n_splits is None:
            n_splits = PRESETS["paper" if self.learners is not None else self.preset].n_splits
        check_enough_groups(n_splits, labels, len(scores))
        # One number that makes this fit again.
        given = self.random_state
        drawn = check_random_state(given).randint(2**31 - 1)
        self.seed_ = int(given if isinstance(given, Integral) else drawn)
        rng = check_random_state(self.seed_)
        folds = split_folds(len(scores), labels, n_splits, rng)
        check_fold_weights(folds, weights)
        seed = int(rng.randint(2**31 - 1))
        self.folds_ = fold_numbers(folds)

        # One BLAS thread a task: tasks run side by side, and the last digits of a product depend
        # on the number of threads.
        with one_thread():
            task = Level0Task(columns, scores, weights, labels, folds, self.n_jobs)
            self.compression_ = None
            if self.learners is None:
                preset = PRESETS[self.preset]
                self.compression_ = self._new_compression(columns, seed)
                ridges = family_ridges(columns.families) if preset.ridges else []
                level0 = task.fit_preset(preset, ridges, self.compression_, self.penalties, seed)
            else:
                level0 = task.fit_estimators(self.learners)
            self.level0_names_ = [name for one in level0 for name in one.names]
            self.level0_models_ = [one.fitted for one in level0]
            self.oof_predictions_ = np.concatenate([one.oof for one in level0], axis=1)
            targets = TARGETS[self.target](scores, weights)
            meta = GroupedRidge(META_PENALTIES) if self.meta is None else self.meta
            of_level0 = [name.rpartition("/")[2] for name in self.level0_names_]
            spreads = np.array([TARGETS[name](scores, weights).std() for name in of_level0])
            evidence = without_idle(self.oof_predictions_, spreads)
            with naming(f"the learner 'meta' ({type(meta).__name__}) could not be fitted"):
                self.meta_ = fit_estimator(meta, evidence, targets, labels, sample_weight)
            self.calibration_ = None
            if self.target != "score":
                ranks = self.meta_.predict(self.oof_predictions_)
                self.calibration_ = MonotoneCalibration().fit(ranks, scores, weights)
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the scores of pairs.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, n_features)
            Of a table, a block of rows is built at a time.

        Returns
        -------
        scores : ndarray of shape (n_pairs,)
            On the scale of the training scores, within `score_range_` if there is one.

        Raises
        ------
        StackingError
            If a FeatureTable has other families than the one given to `fit`, or a learner fails or
            predicts NaN or infinity.
        """
        return self.meta_predict(self.level0_predict(X))

    def level0_predict(self, X: ArrayLike) -> FloatArray:
        """Return each level-0 learner's prediction.

        Returns
        -------
        predictions : ndarray of shape (n_pairs, n_level0)
            Columns as in `level0_names_`.

        Raises
        ------
        StackingError
            As `predict`.
        """
        check_is_fitted(self)
        columns, learners, names = self._check_new(X), self.level0_models_, self.level0_names_
        predictions = np.empty((columns.shape[0], len(names)))

        @one_thread()
        def score(rows: slice) -> None:
            predictions[rows] = predict_level0(
                learners, names, columns.rows(rows), self.compression_, self.families_
            )

        jobs = None if self.n_jobs is None else min(effective_n_jobs(self.n_jobs), cpu_count())
        with one_thread():
            Parallel(n_jobs=jobs, prefer="threads", require="sharedmem")(
                delayed(score)(rows) for rows in row_blocks(len(predictions))
            )
        return predictions

    def meta_predict(self, level0: FloatArray) -> FloatArray:
        """Return scores from level-0 predictions of shape (n_pairs, n_level0)."""
        check_is_fitted(self)
        who = f"the learner 'meta' ({type(self.meta_).__name__})"
        with one_thread(), naming(f"{who} could not predict {len(level0)} pairs"):
            scores: FloatArray = self.meta_.predict(level0)
        if self.calibration_ is not None:
            scores = self.calibration_.predict(scores)
        return scores if self.score_range_ is None else keep_in_range(scores, *self.score_range_)

    def explain(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Explanation:
        """Tell what each learner and each family contributes.

        Parameters
        ----------
        X, y, groups, sample_weight
            Those given to `fit`.  The stack is fitted once more without each family.

        Returns
        -------
        explanation : Explanation
            A table, as text, Markdown or a plot.

        Raises
        ------
        StackingError
            If they are not those given to `fit`, in the same order.
        """
        check_is_fitted(self)
        columns, scores = self._check_new(X), column_or_1d(np.asarray(y, dtype=np.float64))
        labels = None if groups is None else group_labels(len(scores), groups)
        weights = row_weights(len(scores), sample_weight)
        check_same_training(self.training_, training_facts(columns, scores, weights, labels))
        return explain_stack(self, columns, scores, groups, sample_weight)

    def _new_compression(self, columns: Columns, seed: int) -> BlockPCA:
        preset = PRESETS[self.preset]
        n_components = preset.n_components if self.n_components is None else self.n_components
        everything = {"everything": slice(0, columns.shape[1])}
        return BlockPCA(columns.blocks if preset.by_block else everything, n_components, seed)

    def _check_settings(self, has_weights: bool) -> None:
        check_choice("preset", self.preset, PRESETS)
        check_choice("target", self.target, TARGETS)
        if self.n_splits is not None:
            check_whole_number("n_splits", self.n_splits, minimum=2)
        if self.n_components is not None:
            check_whole_number("n_components", self.n_components, minimum=1)
        check_positive_numbers("penalties", self.penalties)
        if isinstance(self.score_range, str):
            check_choice("score_range", self.score_range, ["auto"])
        elif self.score_range is not None:
            check_score_range(self.score_range)
        learners = [] if self.learners is None else named_learners(self.learners)
        if has_weights:
            meta = [] if self.meta is None else [("meta", self.meta)]
            check_they_take_weights([*learners, *meta])

    def _check_training(self, X: ArrayLike, y: ArrayLike) -> tuple[Columns, FloatArray]:
        scores: FloatArray
        if are_columns(X):
            if y is None:
                raise StackingError("there are no scores to fit on: y is None.")
            scores = column_or_1d(
                check_array(y, ensure_2d=False, dtype=np.float64, input_name="y"), warn=True
            )
            if len(scores) != X.shape[0]:
                raise StackingError(f"{len(scores)} scores for {X.shape[0]} pairs.")
            self.n_features_in_ = X.shape[1]
            if hasattr(self, "feature_names_in_"):  # of an earlier fit
                del self.feature_names_in_
            return X, scores
        table, scores = validate_data(self, X, y, y_numeric=True, dtype=[np.float64, np.float32])
        return ArrayColumns(table), scores.astype(np.float64)

    def _check_new(self, X: ArrayLike) -> Columns:
        if are_columns(X):
            check_same_columns(X, self.families_, self.blocks_)
            return X
        return ArrayColumns(validate_data(self, X, reset=False, dtype=[np.float64, np.float32]))
