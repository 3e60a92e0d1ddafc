"""The stacker: level-0 learners out-of-fold, a ridge on top, fold-averaged prediction.

Source: Wolpert 1992 (stacked generalisation); Li, Li and Shinozaki 2026 for the learners.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data
from threadpoolctl import threadpool_limits

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError
from xacle_stack.stacking.folds import Fold, group_labels, split_folds
from xacle_stack.stacking.learners import Level0Learner, published_learners, targets_matrix
from xacle_stack.stacking.ridge import PENALTIES, GroupedRidge

# Columns of the meta-regressor are few and already predictions: weaker penalties than level 0.
META_PENALTIES = tuple(float(penalty) for penalty in np.logspace(-2, 4, 13))


class Stacker(RegressorMixin, BaseEstimator):  # type: ignore[misc]  # untyped bases
    """Predict scores from a feature table by an out-of-fold stack.

    For every fold, each level-0 learner is trained on the other folds and predicts the held-out
    rows.  A ridge is trained on these out-of-fold predictions.  A new pair gets the mean of the
    fold models' predictions, then the ridge.

    Parameters
    ----------
    learners : sequence of (str, regressor), optional
        Level-0 learners on all columns and the raw score.  By default those of the published
        system: see :func:`~xacle_stack.stacking.learners.published_learners`.
    meta : regressor, optional
        By default a :class:`GroupedRidge`.  Like any learner it gets the groups if its own `fit`
        takes them; a pipeline's does not.
    n_splits : int, default=3
        Folds.
    penalties : sequence of float, default=PENALTIES
        Candidates of the level-0 ridges.
    n_components : int, default=64
        What the concatenated families are compressed to for boosting.
    score_range : (float, float), optional
        Bounds of the predictions, for example (0, 10).  By default there are none.
    n_jobs : int, optional
        Learners fitted side by side, in joblib's convention.  Never changes a result.
    random_state : int, RandomState or None, default=None
        Of the folds, the compression and the boosting.

    Attributes
    ----------
    oof_predictions_ : ndarray of shape (n_pairs, n_level0)
        Level-0 predictions of the training pairs by models that were not trained on them, nor
        on any pair of their group.
    level0_names_ : list of str
        Their columns, ``"learner/target"``.
    fold_models_ : list of list of regressor
        For each learner, one model a fold.
    folds_ : ndarray of shape (n_pairs,)
        The fold that held each pair out.
    meta_ : regressor
    families_ : dict of str to slice

    References
    ----------
    Wolpert 1992, "Stacked generalization", Neural Networks 5(2).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(90, 4))
    >>> stacker = Stacker(random_state=0).fit(X, X[:, 0])
    >>> stacker.oof_predictions_.shape, stacker.level0_names_
    ((90, 3), ['ridge all/score', 'ridge all/rank', 'boosting/score'])
    """

    def __init__(
        self,
        learners: Sequence[tuple[str, BaseEstimator]] | None = None,
        meta: BaseEstimator | None = None,
        *,
        n_splits: int = 3,
        penalties: Sequence[float] = PENALTIES,
        n_components: int = 64,
        score_range: tuple[float, float] | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.learners = learners
        self.meta = meta
        self.n_splits = n_splits
        self.penalties = penalties
        self.n_components = n_components
        self.score_range = score_range
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
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

        Returns
        -------
        self : Stacker

        Raises
        ------
        StackingError
            If there are too few groups for the folds, or scores outside `score_range`.
        """
        families = _families_of(X)
        table: FloatArray
        scores: FloatArray
        table, scores = validate_data(self, X, y, y_numeric=True, dtype=[np.float64, np.float32])
        scores = scores.astype(np.float64)
        self.families_ = dict(families) if families else {"all": slice(0, table.shape[1])}
        self._check_scores(scores)
        labels = None if groups is None else group_labels(len(scores), groups)
        n_groups = len(scores) if labels is None else int(labels.max()) + 1
        # Two groups must stay to train on, or there is nothing to choose a penalty by.
        n_needed = 4 if self.n_splits == 2 else self.n_splits
        if n_groups < n_needed:
            raise StackingError(
                f"{self.n_splits} folds need at least {n_needed} groups of pairs (with the "
                f"captions as groups: {n_needed} different captions), got n_samples = "
                f"{len(scores)} in {n_groups} groups. Give more data, or no groups."
            )
        rng = check_random_state(self.random_state)
        folds = split_folds(len(scores), labels, self.n_splits, rng)
        learners = self._learners(table.shape[1], int(rng.randint(2**31 - 1)))

        # One BLAS thread a task: learners run side by side, and the last digits of a product
        # depend on the number of threads.
        with threadpool_limits(1):
            tasks = [(learner, fold) for learner in learners for fold in folds]
            fitted = Parallel(n_jobs=self.n_jobs, prefer="threads")(
                delayed(_fit_fold)(learner, table, scores, labels, fold) for learner, fold in tasks
            )
            self.level0_names_ = [name for learner in learners for name in learner.output_names]
            self.oof_predictions_ = np.empty((len(scores), len(self.level0_names_)))
            self.fold_models_, column = [], 0
            for place, learner in enumerate(learners):
                of_learner = fitted[place * len(folds) : (place + 1) * len(folds)]
                columns = slice(column, column + len(learner.targets))
                for (_, held_out), (_, predicted) in zip(folds, of_learner, strict=True):
                    self.oof_predictions_[held_out, columns] = predicted
                self.fold_models_.append([model for model, _ in of_learner])
                column = columns.stop
            meta = GroupedRidge(META_PENALTIES) if self.meta is None else self.meta
            self.meta_ = _fit(meta, self.oof_predictions_, scores, labels)
        self.level0_columns_ = [learner.columns for learner in learners]
        self.folds_ = np.empty(len(scores), dtype=np.intp)
        for number, (_, held_out) in enumerate(folds):
            self.folds_[held_out] = number
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the scores of pairs.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, n_features)

        Returns
        -------
        scores : ndarray of shape (n_pairs,)
            On the scale of the training scores, within `score_range` if there is one.

        Raises
        ------
        StackingError
            If a FeatureTable has other families than the one given to `fit`.
        """
        with threadpool_limits(1):
            scores: FloatArray = self.meta_predict(self.level0_predict(X))
        return scores

    def level0_predict(self, X: ArrayLike) -> FloatArray:
        """Return each level-0 learner's prediction, the mean over its fold models.

        Returns
        -------
        predictions : ndarray of shape (n_pairs, n_level0)
            Columns as in `level0_names_`.
        """
        check_is_fitted(self)
        self._check_families(X)
        table = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return np.column_stack(
            [
                np.mean([model.predict(table[:, columns]) for model in models], axis=0)
                for models, columns in zip(self.fold_models_, self.level0_columns_, strict=True)
            ]
        )

    def meta_predict(self, level0: FloatArray) -> FloatArray:
        """Return scores from level-0 predictions of shape (n_pairs, n_level0)."""
        check_is_fitted(self)
        scores: FloatArray = self.meta_.predict(level0)
        return scores if self.score_range is None else np.clip(scores, *self.score_range)

    def _learners(self, n_features: int, seed: int) -> list[Level0Learner]:
        if self.learners is None:
            return published_learners(
                self.families_,
                n_features,
                penalties=self.penalties,
                n_components=self.n_components,
                random_state=seed,
            )
        names = [name for name, _ in self.learners]
        if not names or len(set(names)) != len(names):
            raise StackingError(f"learners need different names and at least one, got {names}.")
        return [Level0Learner(name, estimator) for name, estimator in self.learners]

    def _check_scores(self, y: FloatArray) -> None:
        if self.score_range is None:
            return
        low, high = self.score_range
        outside = np.flatnonzero((y < low) | (y > high))
        if len(outside):
            raise StackingError(
                f"{len(outside)} scores lie outside score_range={self.score_range!r}, the first is "
                f"{y[outside[0]]} in row {outside[0]}. Rescale them or widen the range."
            )

    def _check_families(self, X: object) -> None:
        families = _families_of(X)
        if families is not None and dict(families) != self.families_:
            raise StackingError(
                f"features of the families {_sizes(families)}, but the stacker was fitted on "
                f"{_sizes(self.families_)}. Use the FeatureBuilder that made the training table."
            )


def _families_of(X: object) -> Mapping[str, slice] | None:
    families = getattr(X, "families", None)
    return families if isinstance(families, Mapping) else None  # a DataFrame's column is not


def _fit_fold(
    learner: Level0Learner, X: FloatArray, y: FloatArray, labels: IntArray | None, fold: Fold
) -> tuple[Any, FloatArray]:
    """Train one learner without one fold and predict that fold; returns (model, predictions)."""
    train, held_out = fold
    model = _fit(
        learner.estimator,
        X[train, learner.columns],
        # Ranks within the training rows: a held-out score must not move its own prediction.
        targets_matrix(y[train], learner.targets),
        None if labels is None else labels[train],
    )
    predicted = np.asarray(model.predict(X[held_out, learner.columns]))
    return model, predicted.reshape(len(held_out), len(learner.targets))


def _fit(
    estimator: BaseEstimator, X: FloatArray, y: FloatArray, labels: IntArray | None
) -> BaseEstimator:
    model = clone(estimator)
    if has_fit_parameter(model, "groups"):
        return model.fit(X, y, groups=labels)
    return model.fit(X, y)


def _sizes(families: Mapping[str, slice]) -> dict[str, int]:
    return {name: columns.stop - columns.start for name, columns in families.items()}
