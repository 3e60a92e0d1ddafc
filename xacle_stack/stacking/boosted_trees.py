"""Gradient boosted regression trees, trained by LightGBM and kept as plain arrays.

LightGBM's own text format is parsed without checks: an edited one makes it write outside of its
memory.  So a fitted model is arrays here, and LightGBM is only given text that is made anew from
arrays that have been checked.
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
from xacle_stack._validation import row_weights
from xacle_stack.errors import ModelFileError, StackingError

# What LightGBM allows; a tree of one leaf has no splits.
_MAX_LEAVES = 131_072
# Bits of LightGBM's decision type other than the default direction, which only missing values take.
_NOT_NUMERICAL = 0b1101
# The difference of two such scores is still a float32.
_MAX_SCORE = float(np.finfo(np.float32).max) / 4
# One thread opens no pool of OpenMP threads, which a forked process would wait for in vain.
_ONE_THREAD = {"num_threads": 1}


class BoostedTrees(RegressorMixin, BaseEstimator):
    """Gradient boosted regression trees.

    They are LightGBM's, with the settings below and otherwise its defaults.  Training
    and prediction take one thread, so that results do not depend on the machine's load, and so
    that a process may be forked after either.

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
        The total gain of the splits on each feature, in the units of the loss.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> model = BoostedTrees().fit(X, X[:, 1] > 0)
    >>> int(model.gain_.argmax()), model.predict([[0.0, 2.0, 0.0]]).round(1)
    (1, array([1.]))
    """

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
            If scores are too large for float32, or the weights leave nothing to train on.
        """
        from lightgbm import LGBMRegressor  # takes half a second

        table, scores = validate_data(
            self, X, y, y_numeric=True, ensure_min_samples=2, dtype=[np.float64, np.float32]
        )
        if np.abs(scores).max() > _MAX_SCORE:
            raise StackingError(
                f"scores of up to {np.abs(scores).max():g} leave the range of float32, in which "
                "trees are trained. Give them in another unit."
            )
        weights = None if sample_weight is None else row_weights(len(scores), sample_weight)
        seed = self.random_state
        if seed is None or isinstance(seed, np.random.RandomState):
            seed = int(check_random_state(seed).randint(np.iinfo(np.int32).max))
        settings = {**self.get_params(), "random_state": seed}
        trained = LGBMRegressor(
            **settings,
            subsample_freq=1,
            n_jobs=1,
            deterministic=True,
            force_row_wise=True,
            verbosity=-1,
        ).fit(table, scores, weights)
        self._keep(trained.booster_)
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

    def _keep(self, booster: Any) -> None:
        """Take the trees out of what LightGBM has trained."""
        _, *texts = booster.model_to_string().partition("\nend of trees")[0].split("\nTree=")
        trees = [dict(line.partition("=")[::2] for line in text.splitlines()) for text in texts]

        def joined(name: str, dtype: type) -> Any:
            return np.array([value for tree in trees for value in tree[name].split()], dtype=dtype)

        if (joined("decision_type", int) & _NOT_NUMERICAL).any():
            raise ModelFileError("LightGBM has made splits that are no comparisons of numbers.")
        self.n_leaves_: IntArray = joined("num_leaves", np.int64)
        self.split_feature_: IntArray = joined("split_feature", np.int64)
        self.threshold_: FloatArray = joined("threshold", np.float64)
        self.left_child_: IntArray = joined("left_child", np.int64)
        self.right_child_: IntArray = joined("right_child", np.int64)
        self.leaf_value_: FloatArray = joined("leaf_value", np.float64)
        self.gain_: FloatArray = np.asarray(booster.feature_importance("gain"), dtype=np.float64)

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
