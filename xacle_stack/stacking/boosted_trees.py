"""Gradient boosted regression trees, kept as plain arrays and evaluated by LightGBM.

LightGBM's own text format is parsed without checks: an edited one makes it write outside of its
memory.  So a fitted model is arrays here, and LightGBM is only given text that is made anew from
arrays that have been checked.  Whichever library has trained the trees, LightGBM evaluates them.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._state_checks import check_indices, check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import (
    check_choice,
    check_not_negative,
    check_positive,
    check_whole_number,
    row_weights,
)
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.stacking.tree_libraries import LIBRARIES, Trees, check_library, train_trees

# What LightGBM allows; a tree of one leaf has no splits.
_MAX_LEAVES = 131_072
# One thread opens no pool of OpenMP threads, which a forked process would wait for in vain.
_ONE_THREAD = {"num_threads": 1}


class BoostedTrees(RegressorMixin, BaseEstimator):
    """Gradient boosted regression trees.

    They are those of a library, with the settings below and otherwise its defaults.  Training
    and prediction take one thread, so that results do not depend on the machine's load, and so
    that a process may be forked after either.  Only training needs the library.

    Parameters
    ----------
    n_estimators : int, default=300
        The number of trees.
    learning_rate : float, default=0.03
    num_leaves : int, default=15
        The largest number of leaves of one tree.
    min_child_samples : int, default=20
        The smallest number of rows in a leaf.
    subsample : float, default=0.8
        Share of the rows that each tree is trained on, in (0, 1].
    colsample_bytree : float, default=0.5
        Share of the columns that each tree sees, in (0, 1].
    reg_lambda : float, default=1.0
        L2 penalty of the leaves, 0 or more.
    max_bin : int, default=255
        The largest number of different values that a column is rounded to.
    random_state : int, RandomState or None, default=0
        Decides which rows and columns each tree sees.
    library : {"lightgbm", "xgboost", "catboost"}, default="lightgbm"
        What trains the trees.  The last two have an extra each, of the same name.

    Attributes
    ----------
    n_leaves_ : ndarray of shape (n_trees,)
    split_feature_, threshold_ : ndarray of shape (n_splits,)
        The splits of all trees, one tree after the other; a tree of n leaves has n − 1 splits.  A
        row goes to the left if its feature is no greater than the threshold.
    left_child_, right_child_ : ndarray of shape (n_splits,)
        A split of the same tree, which always comes after its parent; or a leaf k as −1 − k.
    leaf_value_ : ndarray of shape (n_all_leaves,)
        The leaves of all trees, one tree after the other.  A prediction is the sum of one leaf of
        each tree.
    gain_ : ndarray of shape (n_features,)
        The total gain of the splits on each feature, in the units of the library's loss; of
        CatBoost, how much predictions change with the feature, in percent of all features.

    Notes
    -----
    XGBoost takes all settings.  Like LightGBM it splits the leaf that gains most, and
    `min_child_samples` is the smallest weight of a leaf, with weights of mean one.

    CatBoost's trees have the same split everywhere on a level, and its boosting is "Plain".  Their
    depth is log₂ of `num_leaves`, rounded up, so 15 leaves become 16.  It draws columns for every
    level instead of every tree, and it has nothing like `min_child_samples`.

    Both round features to float32.  Predictions are theirs but for the rounding of sums, and for
    features nearer to zero than 1e-35, which LightGBM takes for zero.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> model = BoostedTrees().fit(X, X[:, 1] > 0)
    >>> int(model.gain_.argmax()), model.predict([[0.0, 2.0, 0.0]]).round(1)
    (1, array([1.]))
    """

    # Trees that were saved before there were other libraries do not say which is theirs.
    library = "lightgbm"

    def __init__(
        self,
        n_estimators: int = 300,
        *,
        learning_rate: float = 0.03,
        num_leaves: int = 15,
        min_child_samples: int = 20,
        subsample: float = 0.8,
        colsample_bytree: float = 0.5,
        reg_lambda: float = 1.0,
        max_bin: int = 255,
        random_state: int | np.random.RandomState | None = 0,
        library: str = "lightgbm",
    ) -> None:
        self.n_estimators = n_estimators
        self.learning_rate = learning_rate
        self.num_leaves = num_leaves
        self.min_child_samples = min_child_samples
        self.subsample = subsample
        self.colsample_bytree = colsample_bytree
        self.reg_lambda = reg_lambda
        self.max_bin = max_bin
        self.random_state = random_state
        self.library = library

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train the trees.

        Parameters
        ----------
        X : array-like of shape (n_pairs, n_features)
        y : array-like of shape (n_pairs,)
        sample_weight : array-like of shape (n_pairs,), optional

        Raises
        ------
        StackingError
            If a setting is unusable, numbers are too large for float32, or the weights leave
            nothing to train on.
        MissingExtraError
            If the library is not installed.
        """
        self.check_settings()
        check_library(self.library)
        table, scores = validate_data(
            self, X, y, y_numeric=True, ensure_min_samples=2, dtype=[np.float64, np.float32]
        )
        weights = None if sample_weight is None else row_weights(len(scores), sample_weight)
        seed = self.random_state
        if seed is None or isinstance(seed, np.random.RandomState):
            seed = int(check_random_state(seed).randint(np.iinfo(np.int32).max))
        settings = {**self.get_params(), "random_state": seed}
        self._keep(train_trees(settings.pop("library"), table, scores, weights, **settings))
        self._booster = self._new_booster()
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return predictions of shape (n_pairs,)."""
        check_is_fitted(self)
        table = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        if not hasattr(self, "_booster"):  # saved, pickled or copied
            self._booster = self._new_booster()
        predicted: FloatArray = self._booster.predict(table, **_ONE_THREAD)
        return predicted

    def check_settings(self) -> None:
        """Check the settings that can be judged without data; else a StackingError is raised."""
        check_choice("library", self.library, LIBRARIES)
        for name, minimum in (
            ("n_estimators", 1),
            ("num_leaves", 2),
            ("min_child_samples", 0),
            ("max_bin", 2),
        ):
            check_whole_number(name, getattr(self, name), minimum=minimum)
        check_positive("learning_rate", self.learning_rate)
        check_not_negative("reg_lambda", self.reg_lambda)
        for name in ("subsample", "colsample_bytree"):
            share = getattr(self, name)
            check_positive(name, share)
            if share > 1:
                raise StackingError(f"{name} must be above 0 and at most 1, got {share!r}.")

    def _keep(self, trees: Trees) -> None:
        self.n_leaves_: IntArray = trees.n_leaves
        self.split_feature_: IntArray = trees.split_feature
        self.threshold_: FloatArray = trees.threshold
        self.left_child_: IntArray = trees.left_child
        self.right_child_: IntArray = trees.right_child
        self.leaf_value_: FloatArray = trees.leaf_value
        self.gain_: FloatArray = trees.gain

    def check_state(self) -> None:
        """Check that the arrays from a file are trees: no index outside, no cycle."""
        check_numbers("n_leaves_", self.n_leaves_, (None,), minimum=1)
        check_indices("n_leaves_", self.n_leaves_, None, _MAX_LEAVES + 1)
        n_splits = self.n_leaves_ - 1
        n_all = int(n_splits.sum())
        check_indices("split_feature_", self.split_feature_, n_all, self.n_features_in_)
        check_numbers("threshold_", self.threshold_, (n_all,))
        check_numbers("leaf_value_", self.leaf_value_, (n_all + len(n_splits),))
        check_numbers("gain_", self.gain_, (self.n_features_in_,), minimum=0, finite=False)
        own = np.arange(n_all) - np.repeat(np.cumsum(n_splits) - n_splits, n_splits)
        n_own = np.repeat(n_splits, n_splits)
        taken = np.zeros(2 * n_all + len(n_splits), dtype=np.int64)
        first_split = np.arange(n_all) - own  # of each split's tree, counted among all splits
        first_leaf = n_all + first_split + np.repeat(np.arange(len(n_splits)), n_splits)
        for name in ("left_child_", "right_child_"):
            child = getattr(self, name)
            check_numbers(name, child, (n_all,))
            if child.dtype.kind != "i":
                raise ModelFileError(f"{name} is of type {child.dtype}, expected whole numbers.")
            is_wrong = np.where(child >= 0, (child <= own) | (child >= n_own), ~child > n_own)
            if is_wrong.any():
                split = int(is_wrong.argmax())
                raise ModelFileError(
                    f"{name} leads from split {own[split]} of a tree with {n_own[split]} splits to "
                    f"{child[split]}; expected a later split, or a leaf as -1 - k."
                )
            np.add.at(taken, np.where(child >= 0, first_split + child, first_leaf + ~child), 1)
        # In each tree every split and leaf is the child of one split, except the root.
        wanted = np.ones_like(taken)
        wanted[(np.cumsum(n_splits) - n_splits)[n_splits > 0]] = 0
        wanted[n_all + (np.cumsum(n_splits + 1) - n_splits - 1)[n_splits == 0]] = 0
        if (taken != wanted).any():
            raise ModelFileError("left_child_ and right_child_ do not lead to each leaf once.")

    def _new_booster(self) -> Any:
        """Return LightGBM's form of the trees, made from arrays that are checked first."""
        from lightgbm import Booster

        self.check_state()
        booster = Booster(model_str=self._text())
        # A caller's setting of LightGBM's parameters would go before ours.
        booster.params = {}
        return booster

    def _text(self) -> str:
        """Return the trees as LightGBM's text, without ``tree_sizes``, which bring more threads."""
        columns = range(self.n_features_in_)
        lines = [
            "tree",
            "version=v4",
            "num_class=1",
            "num_tree_per_iteration=1",
            "label_index=0",
            f"max_feature_idx={self.n_features_in_ - 1}",
            "objective=regression",
            f"feature_names={' '.join(f'Column_{column}' for column in columns)}",
            f"feature_infos={' '.join('none' for _ in columns)}",
        ]
        split = leaf = 0
        for tree, n_leaves in enumerate(self.n_leaves_.tolist()):
            splits, leaves = slice(split, split + n_leaves - 1), slice(leaf, leaf + n_leaves)
            split, leaf = splits.stop, leaves.stop
            lines += [
                "",
                f"Tree={tree}",
                f"num_leaves={n_leaves}",
                "num_cat=0",
                f"split_feature={_joined(self.split_feature_[splits])}",
                f"threshold={_joined(self.threshold_[splits])}",
                f"decision_type={' '.join('2' * (n_leaves - 1))}",
                f"left_child={_joined(self.left_child_[splits])}",
                f"right_child={_joined(self.right_child_[splits])}",
                f"leaf_value={_joined(self.leaf_value_[leaves])}",
                "is_linear=0",
                "shrinkage=1",
                "",
            ]
        return "\n".join([*lines, "", "end of trees", ""])

    def __getstate__(self) -> dict[str, Any]:
        """Return what is saved, pickled and copied: not LightGBM's form, which has no checks."""
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_booster"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({name: value for name, value in state.items() if name != "_booster"})


def _joined(numbers: FloatArray | IntArray) -> str:
    """Return numbers as text that is read as the very same numbers."""
    return " ".join(map(repr, numbers.tolist()))
