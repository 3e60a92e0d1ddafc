"""The stacker: level-0 learners out-of-fold, a ridge on top.

Source: Wolpert 1992 (stacked generalisation); Li, Li and Shinozaki 2026 for the preset "paper".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from numbers import Integral
from typing import Any, Literal, Self, overload

import numpy as np
from joblib import Parallel, cpu_count, delayed, effective_n_jobs
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._progress import progress_bar
from xacle_stack._rows import row_blocks
from xacle_stack._state_checks import check_numbers, check_spans, check_width
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
from xacle_stack.errors import FeatureError, ModelFileError, StackingError
from xacle_stack.metrics import srcc, srcc_gain
from xacle_stack.stacking.block_pca import BlockPCA
from xacle_stack.stacking.calibration import (
    check_in_range,
    default_score_range,
)
from xacle_stack.stacking.explain import (
    Explanation,
    check_same_training,
    explanation,
    family_shares,
    learner_shares,
    training_facts,
)
from xacle_stack.stacking.folds import (
    check_enough_groups,
    check_fold_weights,
    fold_numbers,
    split_folds,
)
from xacle_stack.stacking.gated_blend import GatedBlend
from xacle_stack.stacking.inputs import check_same_columns, table_from_array
from xacle_stack.stacking.intervals import ConformalInterval, check_confidence
from xacle_stack.stacking.learners import (
    LEARNER_KINDS,
    PRESETS,
    TARGETS,
    EstimatorLearner,
    FittedLearner,
    kind_of_learner,
    raw_view,
    table_view,
)
from xacle_stack.stacking.level0 import (
    Level0Data,
    Level0Plan,
    TrainingData,
    check_they_take_weights,
    fit_level0,
    named_learners,
    predict_level0,
)
from xacle_stack.stacking.level1 import Level1, Level1Data, context_of
from xacle_stack.stacking.moments import BLOCK_ROWS
from xacle_stack.stacking.ridge import META_PENALTIES, PENALTIES, GroupedRidge
from xacle_stack.stacking.tree_libraries import LIBRARIES, check_library
from xacle_stack.table import FeatureTable

_LOGGER = logging.getLogger(__name__)
# The meta-regressors that have a name.
METAS: Mapping[str, Callable[[], BaseEstimator]] = {
    "ridge": lambda: GroupedRidge(META_PENALTIES),
    "gate": GatedBlend,
}
# A fit with an estimate above this is announced.
_LONG_S = 300.0
# The most threads that a model from a file may ask for.
_MAX_JOBS = 1024


class Stacker(RegressorMixin, TransformerMixin, _BaseComposition):
    """Predict scores from a feature table by an out-of-fold stack.

    For every fold, each level-0 learner is trained on the other folds and predicts the held-out
    rows.  A ridge is trained on these out-of-fold predictions.

    Parameters
    ----------
    learners : list of (str, regressor), optional
        Level-0 learners on all columns and the raw score, in place of the preset's.
    meta : {"ridge", "gate"} or regressor, optional
        By default "ridge", a :class:`GroupedRidge`.  "gate" is a :class:`GatedBlend`, whose weights
        depend on the pair.  Like any learner it gets the groups if its own `fit` takes them; a
        pipeline's does not.  With an attribute ``context_blocks``, its `fit` and `predict` get the
        columns of these blocks, as far as the table has them, as `context`.
    added_learners : list of (str, regressor), optional
        Further level-0 learners on all columns and the raw score, beside the preset's or
        `learners`.  A learner with the attribute ``takes_tables``, such as this library's
        networks, gets the FeatureTable itself.
    preset : {"best", "paper"}, default="best"
        "best" is a Gaussian process that learns how much each block of columns matters, beside
        boosting.  "paper" is the published system: for each family a ridge on the score and one on
        its ranks, and boosting; it scores millions of pairs in minutes.
    n_splits : int, optional
        The number of folds: by default 5 for "best" and 3 for "paper" and for `learners`.
    penalties : sequence of float, default=PENALTIES
        Candidate penalties of the ridges on raw columns: those of "paper", and the one that "best"
        has where it compresses a plain array.
    n_components : int, optional
        The number of principal components that learners see instead of the columns: by default
        128 of each block for "best", 64 of all columns for "paper".
    boosting_library : {"lightgbm", "xgboost", "catboost"}, default="lightgbm"
        The library that trains the preset's trees; see :class:`BoostedTrees`.
    target : {"score", "rank"}, default="score"
        What the meta-regressor is trained on.  Predicted ranks are brought to the scale of the
        scores by a strictly increasing map.
    score_range : (float, float), "auto" or None, default="auto"
        Bounds of the predictions: what comes near them is bent inwards, strictly increasing.
        "auto" means this library's scale, (0, 10), if all training scores lie in it and some lie
        in its upper half, and otherwise no bounds, like None.
    n_jobs : int, optional
        How many fits run side by side, in joblib's convention.  Never changes a result.
    random_state : int, RandomState or None, default=None
        Seeds the folds and the learners.
    verbose : bool, default=False
        Whether `fit` shows a progress bar with the time left.
    left_out : sequence of str, default=()
        Kinds of the preset's learners that are left out: "ridges", "gaussian process", "boosting".
        "paper" has no Gaussian process, and leaving it out changes nothing there.

    Attributes
    ----------
    oof_predictions_ : ndarray of shape (n_pairs, n_level0)
        Level-0 predictions of the training pairs by models that were not trained on them, nor
        on any pair of their group.
    oof_scores_ : ndarray of shape (n_pairs,)
        Final scores of the training pairs by a meta-regressor that was not trained on them either:
        it is trained once more without each fold.  Intervals are learned from them.
    level0_names_ : list of str
        The columns of `oof_predictions_`, ``"learner/target"``.
    level0_models_ : list of FittedLearner
        For each learner its name, the columns that it sees, and the models whose predictions are
        averaged: one a fold for "paper" and `learners`, one that was trained on all rows for
        "best".
    folds_ : ndarray of shape (n_pairs,)
        The fold that held each pair out.
    meta_ : regressor
    calibration_ : MonotoneCalibration or None
    score_range_ : (float, float) or None
        The bounds of the predictions.
    compression_ : BlockPCA or None
    families_ : dict of str to tuple of str
        The blocks of each family.
    blocks_ : dict of str to slice
        The columns of each block.
    seed_ : int
        The `random_state` that makes the same fit again; drawn if none was given.
    training_ : dict of str to ndarray
        By these `explain` recognises the training pairs: scores, weights, groups, and the means of
        the features of some rows.

    Notes
    -----
    The learners' parameters are set by their names, as in scikit-learn's ``StackingRegressor``:
    ``stacker.set_params(svr__C=2.0)``, also in a grid search, and ``meta__alpha``.

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

    takes_tables = True
    # What stacks that were saved before there were these parameters have.
    left_out: Sequence[str] = ()
    boosting_library: str = "lightgbm"

    def __init__(
        self,
        learners: Sequence[tuple[str, BaseEstimator]] | None = None,
        meta: BaseEstimator | str | None = None,
        *,
        added_learners: Sequence[tuple[str, BaseEstimator]] | None = None,
        preset: str = "best",
        n_splits: int | None = None,
        penalties: Sequence[float] = PENALTIES,
        n_components: int | None = None,
        boosting_library: str = "lightgbm",
        target: Literal["score", "rank"] = "score",
        score_range: tuple[float, float] | Literal["auto"] | None = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
        left_out: Sequence[str] = (),
    ) -> None:
        self.learners = learners
        self.meta = meta
        self.added_learners = added_learners
        self.preset = preset
        self.n_splits = n_splits
        self.penalties = penalties
        self.n_components = n_components
        self.boosting_library = boosting_library
        self.target = target
        self.score_range = score_range
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose
        self.left_out = left_out

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with `deep`, also those of the learners, by their names."""
        params: dict[str, Any] = self._get_params("learners", deep=deep)
        return {**params, **self._get_params("added_learners", deep=deep)}

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also those of the learners: ``svr__C`` is one of the learner ``svr``."""
        if "added_learners" in params:
            self.added_learners = params.pop("added_learners")
        try:
            added = {name for name, _ in self.added_learners or ()}
        except (TypeError, ValueError):  # no list of learners, which only fit refuses
            added = set()
        for_added = {key: params.pop(key) for key in list(params) if key.split("__")[0] in added}
        self._set_params("added_learners", **for_added)
        self._set_params("learners", **params)
        return self

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
            A plain array is one family.  Where "best" compresses it, a ridge on all its columns is
            added, so that nothing is lost that such a ridge finds.
        y : array-like of shape (n_pairs,)
            Scores.
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are held out together.  Give the captions where captions
            repeat and new pairs bring new ones: otherwise the out-of-fold predictions answer
            another, usually easier question.
        sample_weight : array-like of shape (n_pairs,), optional
            For example the number of listeners of each pair.  Honoured by every learner and by
            every choice among candidates.

        Raises
        ------
        StackingError
            If there are too few groups for the folds, scores outside `score_range`, a setting of
            an unknown name or a wrong type, weights that a learner cannot take or that leave a
            fold nothing to be trained on, or a learner that fails or predicts no finite number a
            pair.  Any other exception of a learner is the error's cause.
        MissingExtraError
            If the library that trains the preset's trees is not installed.
        """
        added = self._check_settings(sample_weight is not None)
        if self.learners is None:
            check_library(self.boosting_library)
        table, scores = self._check_training(X, y)
        weights = row_weights(len(scores), sample_weight)
        self.families_ = dict(table.families)
        self.blocks_ = dict(table.blocks)
        if isinstance(self.score_range, str):
            self.score_range_ = default_score_range(scores)
        else:
            self.score_range_ = self.score_range
        if self.score_range_ is not None:
            check_in_range(scores, *self.score_range_)
        labels = None if groups is None else group_labels(len(scores), groups)
        self.training_ = training_facts(table, scores, weights, labels)
        n_splits = self.n_folds
        check_enough_groups(n_splits, labels, len(scores))
        given = self.random_state
        drawn = check_random_state(given).randint(2**31 - 1)
        self.seed_ = int(given if isinstance(given, Integral) else drawn)
        rng = check_random_state(self.seed_)
        folds = split_folds(len(scores), labels, n_splits, rng)
        check_fold_weights(folds, weights)
        seed = int(rng.randint(2**31 - 1))
        self.folds_ = fold_numbers(folds)

        # Each task has one BLAS thread: tasks run side by side, and the last digits of a product
        # depend on the number of threads.
        plan = self._plan(table, added, seed, is_array=not isinstance(X, FeatureTable))
        n_fits = plan.n_fits(table.families, n_splits)
        with one_thread(), progress_bar("stack", n_fits, "fits", shown=self.verbose) as progress:
            data = Level0Data(scores, weights, labels, folds, table)
            level0, self.compression_ = fit_level0(data, plan, self.n_jobs, progress)
            self.level0_models_ = [one.fitted for one in level0]
            self.oof_predictions_ = np.concatenate([one.oof for one in level0], axis=1)
            self._fit_level1(data, table, sample_weight)
        return self

    @property
    def n_folds(self) -> int:
        """The number of folds that `fit` makes: `n_splits`, or else the preset's."""
        if self.n_splits is not None:
            return self.n_splits
        return PRESETS["paper" if self.learners is not None else self.preset].n_splits

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[False] = False) -> FloatArray: ...

    @overload
    def predict(self, X: ArrayLike, return_std: Literal[True]) -> tuple[FloatArray, FloatArray]: ...

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Return the scores of pairs.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, n_features)
            A table may be larger than memory: its rows are built a block at a time.
        return_std : bool, default=False
            Whether to return a standard deviation for each score, too.

        Returns
        -------
        scores : ndarray of shape (n_pairs,)
            On the scale of the training scores, within `score_range_` if there is one.
        std : ndarray of shape (n_pairs,)
            With `return_std`: the root mean square of what the scores of similar training pairs
            were off, out-of-fold.  It includes the noise of the human scores.

        Raises
        ------
        StackingError
            If a FeatureTable has other families than the one given to `fit`, or a learner fails or
            predicts NaN or infinity.
        """
        scores = self._predict_by_blocks(X, self.meta_predict)
        return (scores, self._conformal_interval().deviation(scores)) if return_std else scores

    def predict_interval(
        self, X: ArrayLike, confidence: float = 0.9
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the scores of pairs, and the ends of their prediction intervals.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, n_features)
        confidence : float, default=0.9
            The share of new pairs whose human score is expected to lie in its interval.

        Returns
        -------
        scores, low, high : ndarray of shape (n_pairs,)
            Within `score_range_` if there is one.  Otherwise the ends are infinite if the stack was
            trained on too few pairs to be so sure.

        Raises
        ------
        StackingError
            If `confidence` is not between 0 and 1, the stack was fitted by a version that kept no
            `oof_scores_`, or for the reasons of `predict`.

        See Also
        --------
        xacle_stack.stacking.intervals.ConformalInterval : How they are made.
        """
        check_confidence("confidence", confidence)
        interval = self._conformal_interval()
        scores = self.predict(X)
        low, high = interval.predict(scores, confidence)
        if self.score_range_ is not None:
            low, high = (np.clip(end, *self.score_range_) for end in (low, high))
        return scores, low, high

    def transform(self, X: ArrayLike) -> FloatArray:
        """Return each level-0 learner's prediction, of shape (n_pairs, n_level0).

        The columns are as in `level0_names_`, X and the errors as of `predict`.  For the training
        pairs use `fit_transform` or `oof_predictions_`: the models that predict here were trained
        on those pairs.
        """
        return self._predict_by_blocks(X, lambda level0, _: level0)

    def fit_transform(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> FloatArray:
        """Fit, and return the out-of-fold predictions of the training pairs, (n_pairs, n_level0).

        They differ from ``fit(X, y).transform(X)``, as in scikit-learn's ``TargetEncoder``: what
        is trained on them must not have seen the scores.  The parameters are those of `fit`.
        """
        return self.fit(X, y, groups, sample_weight).oof_predictions_

    @property
    def level0_names_(self) -> list[str]:
        """The columns of `oof_predictions_`, ``"learner/target"``."""
        return [name for learner in self.level0_models_ for name in learner.output_names]

    def get_feature_names_out(self, input_features: object = None) -> FloatArray:
        """Return the names of the columns that `transform` returns, those in `level0_names_`."""
        check_is_fitted(self)
        return np.array(self.level0_names_, dtype=object)

    def meta_predict(self, level0: FloatArray, X: ArrayLike | None = None) -> FloatArray:
        """Return scores from level-0 predictions of shape (n_pairs, n_level0).

        X, as of `predict`, is only needed if the meta-regressor looks at the pairs, as "gate" does.
        """
        check_is_fitted(self)
        context = context_of(self.meta_, None if X is None else self._check_new(X))
        level1 = Level1(self.meta_, self.calibration_, self.score_range_)
        return level1.predict(level0, context)

    def without(self, learners: Sequence[str], X: FeatureTable | None = None) -> Stacker:
        """Return the stack without some kinds of learners; only its level 1 is trained again.

        Parameters
        ----------
        learners : sequence of str
            Of "ridges", "gaussian process" and "boosting".
        X : FeatureTable, optional
            That of `fit`; only needed if the meta-regressor looks at the pairs, as "gate" does.

        Returns
        -------
        stacker : Stacker
            What a fit with these in `left_out` would be, to the rounding of level 1.

        Raises
        ------
        StackingError
            If no learner would be left, or there is no such kind.
        """
        check_is_fitted(self)
        other = copy(self)
        other.left_out = [*self.left_out, *learners]
        added = {name for name, _ in other._check_settings(has_weights=False)}
        other.level0_models_ = [
            one
            for one in self.level0_models_
            if one.name in added or kind_of_learner(one.name) not in learners
        ]
        if not other.level0_models_:
            raise _nothing_left(other.left_out)
        kept = np.isin(self.level0_names_, other.level0_names_)
        other.oof_predictions_ = self.oof_predictions_[:, kept]
        facts, numbers = self.training_, range(int(self.folds_.max()) + 1)
        has_groups = not np.array_equal(facts["groups"], np.arange(len(self.folds_)))
        data = TrainingData(
            facts["y"],
            facts["sample_weight"],
            facts["groups"] if has_groups else None,
            [
                (np.flatnonzero(self.folds_ != number), np.flatnonzero(self.folds_ == number))
                for number in numbers
            ],
        )
        with one_thread():
            other._fit_level1(data, X, None if (data.weights == 1).all() else data.weights)
        return other

    def explain(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Explanation:
        """Return what each learner and each family contributes.

        Parameters
        ----------
        X, y, groups, sample_weight
            Those given to `fit`.  The stack is fitted once more without each family.

        Returns
        -------
        explanation : Explanation
            Two tables, which can be shown as text, Markdown, HTML, data frames or a plot.

        Raises
        ------
        StackingError
            If they are not those given to `fit`, in the same order.
        """
        check_is_fitted(self)
        table, scores = self._check_new(X), column_or_1d(np.asarray(y, dtype=np.float64))
        labels = None if groups is None else group_labels(len(scores), groups)
        weights = row_weights(len(scores), sample_weight)
        check_same_training(self.training_, training_facts(table, scores, weights, labels))
        oof = self.oof_predictions_
        predicted = self.meta_predict(oof, table)
        context = context_of(self.meta_, table)
        learners = learner_shares(self.level0_names_, oof, scores, self.meta_, context)
        shares = family_shares(
            self.families_,
            self.blocks_,
            self.level0_models_,
            [learner.share for learner in learners],
            self.compression_,
        )
        losses = {}
        for family in self.families_ if len(self.families_) > 1 else ():
            rest = table.select([name for name in self.families_ if name != family])
            other = clone(self).set_params(random_state=self.seed_)
            other.fit(rest, scores, groups, sample_weight)
            without = other.meta_predict(other.oof_predictions_, rest)
            losses[family] = srcc(scores, without), srcc_gain(scores, predicted, without)
        return explanation(srcc(scores, predicted), learners, shares, losses)

    def check_state(self) -> None:
        """Check that the parts of a stack from a file fit together, or raise a ModelFileError."""
        n_columns = check_width(self.n_features_in_)
        check_spans("blocks_", self.blocks_, n_columns)
        if not isinstance(self.families_, dict):
            raise ModelFileError(f"families_ is a {type(self.families_).__name__}.")
        try:
            FeatureTable(np.empty((0, n_columns)), self.blocks_, families=self.families_)
        except (FeatureError, AttributeError, TypeError) as error:
            raise ModelFileError(f"families_ and blocks_ make no table: {error}") from error
        jobs = self.n_jobs
        if jobs is not None and (type(jobs) is not int or not 0 < abs(jobs) <= _MAX_JOBS):
            raise ModelFileError(f"n_jobs is {jobs!r}, the most is {_MAX_JOBS}.")
        if self.score_range_ is not None:
            check_score_range(self.score_range_)
        compressed = {} if self.compression_ is None else self.compression_.blocks_
        if self.compression_ is not None:
            check_numbers("compression_.mean_", self.compression_.mean_, (n_columns,))
        for learner in self.level0_models_:
            if type(learner) is not FittedLearner:
                raise ModelFileError(f"level0_models_ has a {type(learner).__name__}.")
            known = compressed if learner.view.compressed else self.blocks_
            unknown = [name for name in learner.view.blocks or () if name not in known]
            if unknown or not known:
                told = ", ".join(map(repr, unknown)) or "all"
                raise ModelFileError(f"a learner sees blocks that there are not: {told}.")
        names = self.level0_names_
        check_numbers("oof_predictions_", self.oof_predictions_, (None, len(names)))
        n_pairs = len(self.oof_predictions_)
        check_numbers("folds_", self.folds_, (n_pairs,))
        if hasattr(self, "oof_scores_"):  # models of the same format may come from before it
            check_numbers("oof_scores_", self.oof_scores_, (n_pairs,))
        shapes = {"y": n_pairs, "sample_weight": n_pairs, "groups": n_pairs, "X": None}
        if not isinstance(self.training_, dict) or set(self.training_) != set(shapes):
            raise ModelFileError(f"training_ is no dict of {sorted(shapes)}.")
        for name, length in shapes.items():
            check_numbers(f"training_[{name!r}]", self.training_[name], (length,))
        for n_rows in (1, 3):  # arrays that fit one row only do not fit three
            ones = FeatureTable(np.ones((n_rows, n_columns)), self.blocks_, families=self.families_)
            with np.errstate(all="ignore"):
                level0 = predict_level0(self.level0_models_, ones, self.compression_)
                check_numbers("what the learners predict", level0, (n_rows, len(names)))
                scores = self.meta_predict(level0, ones)
            check_numbers("what the meta-regressor predicts", scores, (n_rows,))

    def _plan(
        self,
        table: FeatureTable,
        added: Sequence[tuple[str, BaseEstimator]],
        seed: int,
        *,
        is_array: bool,
    ) -> Level0Plan:
        """Return which learners are trained on what."""
        named = [*(self.learners or ()), *added]
        on_columns = [
            EstimatorLearner(
                name, table_view() if _takes_tables(one) and not is_array else raw_view(), one
            )
            for name, one in named
        ]
        if self.learners is not None:
            return Level0Plan(
                (), None, None, on_columns, self.penalties, seed, self.boosting_library
            )
        preset = PRESETS[self.preset]
        compression = self._new_compression(table, seed)
        has_compressed_array = is_array and _is_compressed(compression)
        ridges = preset.ridge_learners(table.families, has_compressed_array=has_compressed_array)
        if "ridges" in self.left_out:
            ridges = []
        plan = Level0Plan(
            ridges,
            preset,
            compression,
            on_columns,
            self.penalties,
            seed,
            self.boosting_library,
            self.left_out,
        )
        estimators = plan.estimators(table.families, compression.blocks)
        if not (ridges or estimators or on_columns):
            raise _nothing_left(self.left_out)
        taken = [*(ridge.name for ridge in ridges), *(one.name for one in estimators)]
        for name, _ in added:
            if name in taken:
                raise StackingError(
                    f"added_learners: the preset {self.preset!r} has a learner {name!r} already. "
                    "Give the added one another name."
                )
        if "gaussian process" in taken:
            self._announce_long_fit(table)
        return plan

    def _new_compression(self, table: FeatureTable, seed: int) -> BlockPCA:
        preset = PRESETS[self.preset]
        n_components = preset.n_components if self.n_components is None else self.n_components
        blocks = table.blocks if preset.by_block else {"everything": slice(0, table.shape[1])}
        compression = BlockPCA(blocks, n_components, seed)
        if self.n_components is not None and not _is_compressed(compression):
            what = "block of columns" if preset.by_block else "table"
            widest = max(block.stop - block.start for block in blocks.values())
            _LOGGER.warning(
                "n_components=%d has no effect: the widest %s has %d columns, and only one with "
                "more columns than components is compressed.",
                n_components,
                what,
                widest,
            )
        return compression

    def check_settings(self) -> None:
        """Check the settings that can be judged without data; else a StackingError is raised."""
        self._check_settings(has_weights=False)

    def _predict_by_blocks(
        self, X: ArrayLike, finish: Callable[[FloatArray, FeatureTable], FloatArray]
    ) -> FloatArray:
        """Return what `finish` makes of the level-0 predictions and features, block by block.

        The level-0 predictions of all pairs would need several times the memory of their scores.
        """
        check_is_fitted(self)
        table = self._check_new(X)

        @one_thread()
        def score(rows: slice) -> FloatArray:
            part = FeatureTable(table.rows(rows), table.blocks, families=table.families)
            return finish(predict_level0(self.level0_models_, part, self.compression_), part)

        blocks = [*row_blocks(0, len(table), BLOCK_ROWS)]
        # Joblib waits for threads in steps of 10 ms, for one block in vain.
        is_alone = self.n_jobs is None or len(blocks) == 1
        jobs = 1 if is_alone else min(effective_n_jobs(self.n_jobs), cpu_count())
        with one_thread():  # each entry on its own looks for the libraries again
            parts: list[FloatArray] = Parallel(n_jobs=jobs, prefer="threads", require="sharedmem")(
                delayed(score)(rows) for rows in blocks
            )
        if parts:
            return np.concatenate(parts)
        return finish(np.empty((0, len(self.level0_names_))), table)

    def _fit_level1(
        self, data: TrainingData, table: FeatureTable | None, sample_weight: ArrayLike | None
    ) -> None:
        """Train the meta-regressor on all out-of-fold predictions, and once without each fold."""
        meta = METAS[self.meta or "ridge"]() if _is_name(self.meta) else self.meta
        output_targets = [name for learner in self.level0_models_ for name in learner.targets]
        level1_data = Level1Data(
            data,
            self.oof_predictions_,
            output_targets,
            self.target,
            context_of(meta, table),
            sample_weight,
        )
        level1 = level1_data.fit(meta, self.score_range_)
        self.meta_, self.calibration_ = level1.meta, level1.calibration
        self.oof_scores_: FloatArray = level1_data.cross_fit(meta, self.score_range_)

    def _conformal_interval(self) -> ConformalInterval:
        check_is_fitted(self)
        if not hasattr(self, "oof_scores_"):
            raise StackingError(
                "this stack was fitted by an earlier version, which did not keep how far its "
                "out-of-fold scores are off, so it has no intervals. Fit it again."
            )
        facts = self.training_
        return ConformalInterval().fit(
            self.oof_scores_, facts["y"], self.folds_, facts["sample_weight"]
        )

    def _announce_long_fit(self, table: FeatureTable) -> None:
        n_jobs = 1 if self.n_jobs is None else min(effective_n_jobs(self.n_jobs), cpu_count())
        seconds = _seconds_of_best(table) / min(n_jobs, 3)
        if seconds > _LONG_S:
            _LOGGER.warning(
                'Fitting preset="best" may take about %d minutes for %d pairs with %d columns; '
                'preset="paper" takes much less.',
                round(seconds / 60),
                *table.shape,
            )

    def _check_settings(self, has_weights: bool) -> list[tuple[str, BaseEstimator]]:
        """Return the added learners, once all settings are usable."""
        check_choice("preset", self.preset, PRESETS)
        if self.meta is not None and not hasattr(self.meta, "fit"):
            check_choice("meta", self.meta, METAS)
        check_choice("boosting_library", self.boosting_library, LIBRARIES)
        check_choice("target", self.target, TARGETS)
        if self.n_splits is not None:
            check_whole_number("n_splits", self.n_splits, minimum=2)
        if self.n_components is not None:
            check_whole_number("n_components", self.n_components, minimum=1)
        check_positive_numbers("penalties", self.penalties)
        _check_left_out(self.left_out)
        if self.learners is not None and self.left_out:
            raise StackingError(
                f"left_out={self.left_out!r} names learners of the preset, which `learners` "
                "replaces. Leave one of the two out."
            )
        if isinstance(self.score_range, str):
            check_choice("score_range", self.score_range, ["auto"])
        elif self.score_range is not None:
            check_score_range(self.score_range)
        learners, added = (
            [] if getattr(self, name) is None else named_learners(name, getattr(self, name))
            for name in ("learners", "added_learners")
        )
        self._check_names([name for name, _ in [*learners, *added]])
        if has_weights:
            meta = [] if _is_name(self.meta) else [("meta", self.meta)]
            check_they_take_weights([*learners, *added, *meta])
        return added

    def _check_names(self, names: Sequence[str]) -> None:
        """Check that names of learners work in `set_params` and differ from one another."""
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise StackingError(f"learners and added_learners share the name {twice[0]!r}.")
        parameters = self.get_params(deep=False)
        for name in names:
            if name in parameters or "__" in name:
                raise StackingError(
                    f"a learner may not be called {name!r}: expected a name without '__' that is "
                    "no parameter of the Stacker, so that set_params can tell them apart."
                )

    def _check_training(self, X: ArrayLike, y: ArrayLike) -> tuple[FeatureTable, FloatArray]:
        scores: FloatArray
        if isinstance(X, FeatureTable):
            if y is None:
                raise StackingError("there are no scores to fit on: y is None.")
            scores = column_or_1d(
                check_array(y, ensure_2d=False, dtype=np.float64, input_name="y"), warn=True
            )
            if len(scores) != len(X):
                raise StackingError(f"{len(scores)} scores for {len(X)} pairs.")
            self.n_features_in_ = X.shape[1]
            if hasattr(self, "feature_names_in_"):  # left by an earlier fit
                del self.feature_names_in_
            return X, scores
        values, scores = validate_data(self, X, y, y_numeric=True, dtype=[np.float64, np.float32])
        return table_from_array(values), scores.astype(np.float64)

    def _check_new(self, X: ArrayLike) -> FeatureTable:
        if isinstance(X, FeatureTable):
            check_same_columns(X, self.families_, self.blocks_)
            return X
        table = table_from_array(
            validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        )
        if table.blocks != self.blocks_ or table.families != self.families_:
            raise StackingError(
                "X is an array without names, but the stacker was fitted on a FeatureTable of the "
                f"families {list(self.families_)}. Give the table of its FeatureBuilder: in an "
                "array nobody can tell whether the columns are in the same order."
            )
        return table


def _check_left_out(kinds: object) -> None:
    """Check that these are kinds of the presets' learners, or raise a StackingError."""
    if isinstance(kinds, str) or not isinstance(kinds, Sequence):
        raise StackingError(
            f"left_out must be a list of kinds of learners, such as ['boosting'], got {kinds!r}."
        )
    for kind in kinds:
        check_choice("left_out", kind, LEARNER_KINDS)


def _nothing_left(left_out: Sequence[str]) -> StackingError:
    return StackingError(
        f"left_out={list(left_out)!r} leaves no learner. Name fewer of {', '.join(LEARNER_KINDS)}."
    )


def _is_name(meta: object) -> bool:
    """Return whether a meta-regressor is one of :data:`METAS`, or the default."""
    return meta is None or isinstance(meta, str)


def _takes_tables(estimator: BaseEstimator) -> bool:
    """Return whether an estimator finds its blocks by name; others get an array of all columns."""
    return bool(getattr(estimator, "takes_tables", False))


def _is_compressed(compression: BlockPCA) -> bool:
    widths = [block.stop - block.start for block in compression.blocks.values()]
    return max(widths) > compression.n_components


def _seconds_of_best(table: FeatureTable) -> float:
    """Return roughly how long the Gaussian processes of "best" take on one core.

    The constants are measured: the learning of a kernel on at most 2,000 rows grows with its
    blocks, an exact solution with the cube of the rows, and one by landmarks with the rows.
    Learning is done on all rows and twice on half as many, solving on all rows and for each fold.
    """
    n_pairs, n_blocks = len(table), len(table.blocks)
    learning = 2.5e-8 * min(n_pairs, 2000) ** 2 * (n_blocks + 10)
    solving = 1.2e-11 * n_pairs**3 if n_pairs <= 12288 else 3e-11 * n_pairs * 4096**2
    return 2 * learning + 3 * solving
