"""Which level-0 learners a stack has: the presets, one table entry each.

Source of "paper": Li, Li and Shinozaki 2026: for every family a ridge on the raw and on the
rank-transformed score, and histogram gradient boosting on an SVD-compressed concatenation of
everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.ridge import GroupedRidge

# What a learner sees, when it is not one family by name.
ALL_COLUMNS, COMPRESSED = "<all>", "<compressed>"


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
    _, place = np.unique(y, return_inverse=True)
    of_value = np.bincount(place, weights)
    ranks: FloatArray = (np.cumsum(of_value) - 0.5 * of_value)[place] / of_value.sum()
    return ranks


TARGETS: Mapping[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "score": lambda y, weights: y,
    "rank": rank_target,
}


@dataclass(frozen=True)
class Level0Learner:
    """A learner, what it sees and what it is trained on.

    Attributes
    ----------
    name : str
    sees : str
        A family, :data:`ALL_COLUMNS`, or :data:`COMPRESSED`: the principal components of the
        blocks.
    estimator : regressor, optional
        Cloned for each fold; None for a ridge on a family.
    targets : tuple of str
        Names of :data:`TARGETS`; with several, an estimator must take them all at once.
    columns : ndarray, optional
        Which columns of what it sees; by default all.
    """

    name: str
    sees: str
    estimator: BaseEstimator | None = None
    targets: tuple[str, ...] = ("score",)
    columns: IntArray | None = None

    def select(self, table: FloatArray) -> FloatArray:
        """Return the columns that it is trained on."""
        return table if self.columns is None else table[:, self.columns]

    @property
    def output_names(self) -> list[str]:
        """Names of its columns among the out-of-fold predictions."""
        return [f"{self.name}/{target}" for target in self.targets]


@dataclass(frozen=True, eq=False)
class FittedLearner:
    """A level-0 learner after `fit`.

    Attributes
    ----------
    sees : str
    columns : ndarray or None
        As in :class:`Level0Learner`.
    models : list
        Their predictions are averaged: one a fold, or the one trained on all rows.  Of a ridge it
        is the mean of the folds' models.
    """

    sees: str
    columns: IntArray | None
    models: list[Any]

    def predict(self, table: FloatArray) -> FloatArray:
        """Return predictions from the table that it sees, (n_rows,) or (n_rows, n_targets)."""
        seen = table if self.columns is None else table[:, self.columns]
        predicted: FloatArray = np.mean([model.predict(seen) for model in self.models], axis=0)
        return predicted


@dataclass(frozen=True)
class Preset:
    """A kind of stack.

    Attributes
    ----------
    n_splits : int
        Folds.
    n_components : int
        Principal components: of everything, or of each block.
    by_block : bool
    refit : bool
        Whether new pairs are scored by estimators that were trained once more, on all rows, rather
        than by the mean of the folds' estimators.
    ridges : bool
        Whether there is a ridge on the score and one on the rank for each family.
    estimators : callable
        From the blocks of the compressed table and a seed to learners on that table.
    """

    n_splits: int
    n_components: int
    by_block: bool
    refit: bool
    ridges: bool
    estimators: Callable[[Mapping[str, slice], int], list[Level0Learner]]


def family_ridges(families: Iterable[str]) -> list[Level0Learner]:
    """Return the ridges of the published system."""
    return [Level0Learner(f"ridge {name}", name, None, ("score", "rank")) for name in families]


def _of_paper(blocks: Mapping[str, slice], random_state: int) -> list[Level0Learner]:
    # Scoring millions of pairs takes as long as there are trees.
    boosting = BoostedTrees(200, learning_rate=0.045, random_state=random_state)
    return [Level0Learner("boosting", COMPRESSED, boosting)]


def _of_best(blocks: Mapping[str, slice], random_state: int) -> list[Level0Learner]:
    gaussian_process = BlockGaussianProcess(dict(blocks), random_state=random_state)
    # Trees take long over many columns, and find what they need in the leading components.
    leading = np.concatenate(
        [np.arange(block.start, min(block.stop, block.start + 16)) for block in blocks.values()]
    )
    boosting = BoostedTrees(colsample_bytree=0.2, random_state=random_state)
    families: dict[str, list[IntArray]] = {}
    for name, block in blocks.items():
        family = name.rpartition("/")[0] if "/" in name else "all"
        families.setdefault(family, []).append(np.arange(block.start, block.stop))
    ridges = [
        Level0Learner(
            f"ridge {family}",
            COMPRESSED,
            GroupedRidge(scales=False),
            ("score", "rank"),
            np.concatenate(columns),
        )
        for family, columns in families.items()
    ]
    return [
        *ridges,
        Level0Learner("gaussian process", COMPRESSED, gaussian_process, ("score", "rank")),
        Level0Learner("boosting", COMPRESSED, boosting, columns=leading),
    ]


PRESETS: Mapping[str, Preset] = {
    "best": Preset(5, 128, by_block=True, refit=True, ridges=False, estimators=_of_best),
    "paper": Preset(3, 64, by_block=False, refit=False, ridges=True, estimators=_of_paper),
}
