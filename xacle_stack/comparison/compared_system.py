"""One row of a comparison."""

from collections.abc import Mapping
from dataclasses import dataclass

from xacle_stack.metrics import Evaluation


@dataclass(frozen=True, eq=False)
class ComparedSystem:
    """One row of the comparison.

    Attributes
    ----------
    name, kind : str
    n_seeds : int
        Fits that the figures are means of.
    evaluations : dict of str to Evaluation
        For each split with scores, means over the seeds of the metrics and their intervals' ends.
    srcc_spread : dict of str to float
        Standard deviation of the SRCC over the seeds; NaN of a single fit.
    probability_better : dict of str to float
        That its SRCC is higher than the reference's, by paired bootstrap; mean over the seeds.
    fit_s : float
        Seconds to train, from the cached embeddings.
    score_ms : float
        Milliseconds to score a pair, from the cached embeddings.
    n_parameters : int
        Learned numbers that it needs to score.
    chose_epoch_on_validation : bool
        So that its figures there are not those of unseen pairs.
    """

    name: str
    kind: str
    n_seeds: int
    evaluations: Mapping[str, Evaluation]
    srcc_spread: Mapping[str, float]
    probability_better: Mapping[str, float]
    fit_s: float
    score_ms: float
    n_parameters: int
    chose_epoch_on_validation: bool = False
