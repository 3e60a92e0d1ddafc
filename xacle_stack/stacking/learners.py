"""The level-0 learners of the published stack, one table entry each.

Source: Li, Li and Shinozaki 2026: for every family a ridge on the raw and on the rank-transformed
score, and histogram gradient boosting on an SVD-compressed concatenation of everything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lightgbm import LGBMRegressor
from scipy.stats import rankdata
from sklearn.base import BaseEstimator
from sklearn.decomposition import TruncatedSVD
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xacle_stack._types import FloatArray
from xacle_stack.stacking.ridge import GroupedRidge


def rank_target(y: FloatArray) -> FloatArray:
    """Return the average rank of each score, scaled to (0, 1): ``(rank − ½) / n``.

    Examples
    --------
    >>> rank_target(np.array([10.0, 3.0, 3.0, 0.0]))
    array([0.875, 0.5  , 0.5  , 0.125])
    """
    ranks: FloatArray = (rankdata(y) - 0.5) / len(y)
    return ranks


TARGETS: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "score": lambda y: y,
    "rank": rank_target,
}


@dataclass(frozen=True)
class Level0Learner:
    """An estimator, the columns that it sees and the targets that it is trained on.

    Attributes
    ----------
    name : str
    estimator : regressor
        Cloned for each fold.  It gets ``groups`` if its ``fit`` takes them.
    columns : slice
    targets : tuple of str
        Names of :data:`TARGETS`; with several, the estimator must take them all at once.
    """

    name: str
    estimator: BaseEstimator
    columns: slice = field(default_factory=lambda: slice(None))
    targets: tuple[str, ...] = ("score",)

    @property
    def output_names(self) -> list[str]:
        """Names of its columns among the out-of-fold predictions."""
        return [f"{self.name}/{target}" for target in self.targets]


def published_learners(
    families: Mapping[str, slice],
    n_features: int,
    *,
    penalties: Sequence[float],
    n_components: int,
    random_state: int,
) -> list[Level0Learner]:
    """Return the learners of the published system for some families.

    Parameters
    ----------
    families : mapping of str to slice
    n_features : int
        Of all families together.
    penalties : sequence of float
        Candidates of every ridge.
    n_components : int
        What the concatenation is compressed to before boosting; narrower tables are not.
    random_state : int

    Returns
    -------
    learners : list of Level0Learner
    """
    ridges = [
        Level0Learner(f"ridge {name}", GroupedRidge(penalties), columns, ("score", "rank"))
        for name, columns in families.items()
    ]
    steps: list[Any] = [StandardScaler()]
    if n_features > n_components:
        steps.append(TruncatedSVD(n_components, random_state=random_state))
    steps.append(_boosting(random_state))
    return [*ridges, Level0Learner("boosting", make_pipeline(*steps))]


def _boosting(random_state: int) -> LGBMRegressor:
    return LGBMRegressor(
        n_estimators=300,
        learning_rate=0.03,
        num_leaves=15,
        min_child_samples=20,
        subsample=0.8,
        subsample_freq=1,
        colsample_bytree=0.5,
        reg_lambda=1.0,
        random_state=random_state,
        # Equal bytes whatever the machine's load; the stacker runs learners side by side.
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    )


def targets_matrix(y: FloatArray, targets: Sequence[str]) -> FloatArray:
    """Return one column a target; a single target as a vector."""
    columns = [TARGETS[target](y) for target in targets]
    return columns[0] if len(columns) == 1 else np.column_stack(columns)
