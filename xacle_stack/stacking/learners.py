"""The level-0 learners of a stack: typed records, and the presets in one table.

Source of "paper": Li, Li and Shinozaki 2026: for every family a ridge on the raw and on the
rank-transformed score, and histogram gradient boosting on an SVD-compressed concatenation of
everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from xacle_stack._types import FloatArray
from xacle_stack.errors import ModelFileError
from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.ridge import GroupedRidge
from xacle_stack.table import FeatureTable

Families = Mapping[str, Sequence[str]]


def rank_target(y: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Return the share of scores below each one, ties counting half: ``(rank − ½) / n``.

    Parameters
    ----------
    y : ndarray of shape (n_pairs,)
    weights : ndarray of shape (n_pairs,), optional
        A score of weight 2 counts as two.

    Examples
    --------
    >>> rank_target(np.array([10.0, 3.0, 3.0, 0.0]))
    array([0.875, 0.5  , 0.5  , 0.125])
    """
    _, value_index = np.unique(y, return_inverse=True)
    value_weights = np.bincount(value_index, weights)
    midpoints = np.cumsum(value_weights) - 0.5 * value_weights
    ranks: FloatArray = midpoints[value_index] / value_weights.sum()
    return ranks


TARGETS: Mapping[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "score": lambda y, weights: y,
    "rank": rank_target,
}


@dataclass(frozen=True)
class BlockView:
    """The columns that a learner sees.

    Attributes
    ----------
    blocks : tuple of str or None
        The blocks, side by side; None for the whole table.
    compressed : bool
        Whether it sees their principal components in place of their columns.
    n_leading : int or None
        How many columns of each block it sees at most.
    as_table : bool
        Whether it gets the whole :class:`~xacle_stack.FeatureTable`, and finds its blocks by name.
    """

    blocks: tuple[str, ...] | None
    compressed: bool
    n_leading: int | None
    as_table: bool

    def select(self, values: FloatArray, blocks: Mapping[str, slice]) -> FloatArray:
        """Return the columns that are seen of an array whose columns the blocks divide."""
        if self.blocks is None and self.n_leading is None:
            return values
        spans = [blocks[name] for name in (blocks if self.blocks is None else self.blocks)]
        if self.n_leading is not None:
            spans = [slice(s.start, min(s.stop, s.start + self.n_leading)) for s in spans]
        return values[:, np.concatenate([np.arange(span.start, span.stop) for span in spans])]

    def check_state(self) -> None:
        """Check the names and the settings of a view from a file, or raise a ModelFileError."""
        names = self.blocks
        is_names = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
        if not (names is None or (is_names and 0 < len(names) == len(set(names)))):
            raise ModelFileError(f"blocks is {str(names)[:40]!r}, expected block names or None.")
        if {type(self.compressed), type(self.as_table)} != {bool} or (
            self.n_leading is not None and (type(self.n_leading) is not int or self.n_leading < 1)
        ):
            raise ModelFileError(
                f"compressed={self.compressed!r}, as_table={self.as_table!r} and "
                f"n_leading={self.n_leading!r}, expected bools and a number of columns or None."
            )


def raw_view(blocks: Sequence[str] | None = None) -> BlockView:
    """Return the view of the columns of some blocks, by default of the whole table."""
    return BlockView(
        None if blocks is None else tuple(blocks), compressed=False, n_leading=None, as_table=False
    )


def table_view() -> BlockView:
    """Return the view of a learner that finds its blocks in the table by name."""
    return BlockView(None, compressed=False, n_leading=None, as_table=True)


def compressed_view(blocks: Sequence[str] | None = None, n_leading: int | None = None) -> BlockView:
    """Return the view of the principal components of some blocks, by default of all."""
    return BlockView(
        None if blocks is None else tuple(blocks),
        compressed=True,
        n_leading=n_leading,
        as_table=False,
    )


# The kinds of learners that the presets have.
LEARNER_KINDS = ("ridges", "gaussian process", "boosting")


def kind_of_learner(name: str) -> str:
    """Return which of :data:`LEARNER_KINDS` a preset's learner is.

    Examples
    --------
    >>> kind_of_learner("ridge mini-mel"), kind_of_learner("boosting")
    ('ridges', 'boosting')
    """
    return "ridges" if name.startswith("ridge ") else name


@dataclass(frozen=True)
class RidgeLearner:
    """Ridges on raw columns, one for each target, each fold's penalty chosen without that fold.

    `targets` are names of :data:`TARGETS`, and the view is not compressed.
    """

    name: str
    view: BlockView
    targets: tuple[str, ...] = ("score", "rank")


@dataclass(frozen=True)
class EstimatorLearner:
    """A regressor as a level-0 learner, cloned for each fold.

    `targets` are names of :data:`TARGETS`; the estimator must take several all at once.
    """

    name: str
    view: BlockView
    estimator: BaseEstimator
    targets: tuple[str, ...] = ("score",)


@dataclass(frozen=True, eq=False)
class FittedLearner:
    """A level-0 learner after `fit`; each of its outputs predicts one of its targets.

    Its prediction is the mean of its models': one model a fold, or the one trained on all rows.  A
    :class:`RidgeLearner` has the mean of the folds' models.
    """

    name: str
    targets: tuple[str, ...]
    view: BlockView
    models: list[Any]

    @property
    def output_names(self) -> list[str]:
        """The names of its outputs, ``"learner/target"``."""
        return [f"{self.name}/{target}" for target in self.targets]

    def predict(self, seen: FloatArray | FeatureTable) -> FloatArray:
        """Return predictions from what its view shows, (n_rows,) or (n_rows, n_targets)."""
        predicted: FloatArray = np.mean([model.predict(seen) for model in self.models], axis=0)
        return predicted

    def check_state(self) -> None:
        """Check the types of a learner's parts from a file, or raise a ModelFileError."""
        if not isinstance(self.models, list) or not self.models:
            raise ModelFileError(f"models is {str(self.models)[:40]!r}, expected a list of them.")
        if type(self.view) is not BlockView:
            raise ModelFileError(f"view is a {type(self.view).__name__}, expected a BlockView.")
        if not isinstance(self.name, str) or not isinstance(self.targets, tuple):
            raise ModelFileError(f"{self.name!r} and {self.targets!r} are no name and targets.")


@dataclass(frozen=True)
class Preset:
    """A kind of stack.

    Attributes
    ----------
    n_splits : int
        The number of folds.
    n_components : int
        The number of principal components, of all columns or of each block.
    by_block : bool
        Whether each block has components of its own.
    refit : bool
        Whether new pairs are scored by estimators that were trained once more, on all rows, rather
        than by the mean of the folds' estimators.
    ridges : bool
        Whether each family has a :class:`RidgeLearner`.
    estimators : callable
        Makes the learners that see compressed blocks: from the families, the columns of the
        compressed blocks, a seed and the library that trains trees.
    """

    n_splits: int
    n_components: int
    by_block: bool
    refit: bool
    ridges: bool
    estimators: Callable[[Families, Mapping[str, slice], int, str], list[EstimatorLearner]]

    def ridge_learners(
        self, families: Families, *, has_compressed_array: bool
    ) -> list[RidgeLearner]:
        """Return the ridges on raw columns, given the blocks of each family.

        Where the features are a plain array, of which the other learners see principal components,
        a ridge on all columns is added: components may lose what it finds.
        """
        if self.ridges:
            return [
                RidgeLearner(f"ridge {family}", raw_view(blocks))
                for family, blocks in families.items()
            ]
        return [RidgeLearner("ridge all columns", raw_view())] if has_compressed_array else []


def _paper_estimators(
    families: Families, compressed: Mapping[str, slice], random_state: int, boosting: str
) -> list[EstimatorLearner]:
    # Few trees: the time to score millions of pairs grows with their number.
    trees = BoostedTrees(200, learning_rate=0.045, random_state=random_state, library=boosting)
    return [EstimatorLearner("boosting", compressed_view(), trees)]


def _best_estimators(
    families: Families, compressed: Mapping[str, slice], random_state: int, boosting: str
) -> list[EstimatorLearner]:
    gaussian_process = BlockGaussianProcess(dict(compressed), random_state=random_state)
    # Fewer bins than usual take half of the time and predict as well.
    trees = BoostedTrees(
        colsample_bytree=0.2, max_bin=63, random_state=random_state, library=boosting
    )
    ridges = [
        EstimatorLearner(
            f"ridge {family}",
            compressed_view(blocks),
            GroupedRidge(scales=False),
            ("score", "rank"),
        )
        for family, blocks in families.items()
    ]
    return [
        *ridges,
        EstimatorLearner(
            "gaussian process", compressed_view(), gaussian_process, ("score", "rank")
        ),
        # Trees take long over many columns, and find what they need in the leading components.
        EstimatorLearner("boosting", compressed_view(n_leading=16), trees),
    ]


PRESETS: Mapping[str, Preset] = {
    "best": Preset(5, 128, by_block=True, refit=True, ridges=False, estimators=_best_estimators),
    "paper": Preset(3, 64, by_block=False, refit=False, ridges=True, estimators=_paper_estimators),
}
