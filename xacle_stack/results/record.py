"""The record of one system on one split, which every table and plot is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from xacle_stack.errors import MetricError, PairsError
from xacle_stack.metrics import (
    Estimate,
    Evaluation,
    evaluate,
    probability_better,
    rank_systems,
    srcc_gain,
)
from xacle_stack.pairs import Pairs
from xacle_stack.results.learning_curve import LearningCurve

PUBLISHED_KIND = "published"
# The split of a result on the training pairs, each scored by a fit without it.
CROSS_VALIDATION = "cross-validation"


@dataclass(frozen=True)
class Result:
    """One system's figures on one split.

    Attributes
    ----------
    system : str
        The system's name.
    split : str
    kind : str
        What the system is: ``"stack"``, ``"cosine"`` and the other kinds of a recipe, ``"rank
        ensemble"`` and ``"mean ensemble"`` for averages, ``"file"`` for a file of predictions,
        ``"published"`` for a row of the literature.
    evaluation : Evaluation
        The four metrics with their intervals; the means over the seeds if there are several.
    n_seeds : int, default=1
        How many fits with different seeds the figures are means of.
    srcc_spread : float, default=NaN
        The standard deviation of the SRCC over the seeds; NaN if there is one seed.
    difference : Estimate, optional
        The system's SRCC minus the reference's, with its paired bootstrap interval; the mean over
        the seeds.  None for the reference itself and for published results.
    probability_better : float, default=NaN
        The probability that the system's SRCC is higher than the reference's, by the same
        bootstrap.  NaN where there is no difference.
    fit_s : float, optional
        Seconds to train from the cached embeddings.
    score_ms : float, optional
        Milliseconds to score a pair from the cached embeddings.
    n_parameters : int, optional
        How many learned numbers the system needs to score.
    chose_epoch_here : bool, default=False
        Whether the system chose its epoch on this split, so that its figures do not hold for
        unseen pairs.
    learning_curve : LearningCurve, optional
        How the SRCC grows with the training pairs, where that was measured.
    """

    system: str
    split: str
    kind: str
    evaluation: Evaluation
    n_seeds: int = 1
    srcc_spread: float = math.nan
    difference: Estimate | None = None
    probability_better: float = math.nan
    fit_s: float | None = None
    score_ms: float | None = None
    n_parameters: int | None = None
    chose_epoch_here: bool = False
    learning_curve: LearningCurve | None = None

    @classmethod
    def from_scores(
        cls,
        system: str,
        split: str,
        kind: str,
        y_true: ArrayLike | None,
        scores: Sequence[ArrayLike],
        *,
        reference_scores: Sequence[ArrayLike] | None = None,
        groups: Sequence[str] | None = None,
        fit_s: float | None = None,
        score_ms: float | None = None,
        n_parameters: int | None = None,
        chose_epoch_here: bool = False,
        learning_curve: LearningCurve | None = None,
    ) -> Self:
        """Evaluate a system's scores and compare them with the reference's.

        Parameters
        ----------
        system, split, kind : str
        y_true : array-like of shape (n_pairs,)
            Human scores.
        scores : sequence of array-like of shape (n_pairs,)
            The system's scores, one array for each seed.
        reference_scores : sequence of array-like of shape (n_pairs,), optional
            The reference's scores.  Each seed of the system is compared with the reference's fit
            of the same number; where the reference has fewer, they are used in turn.
        groups : sequence of str of length n_pairs, optional
            Pairs that intervals resample together; see :func:`xacle_stack.metrics.evaluate`.
        fit_s, score_ms, n_parameters, chose_epoch_here, learning_curve
            See :class:`Result`.

        Raises
        ------
        MetricError
            If there are no scores, or the scores cannot be evaluated; see
            :func:`xacle_stack.metrics.evaluate`.

        Examples
        --------
        >>> y_true = [1, 2, 3, 4, 5, 6, 7]
        >>> swapped = [1, 2, 3, 4, 5, 7, 6]
        >>> result = Result.from_scores(
        ...     "stack", "test", "stack", y_true, [y_true], reference_scores=[swapped]
        ... )
        >>> round(result.difference.value, 4)
        0.0357
        """
        if len(scores) == 0:
            raise MetricError(f"{system!r} has no scores. Pass one array for each seed.")
        evaluations = [evaluate(y_true, seed_scores, groups=groups) for seed_scores in scores]
        spread = np.std([float(e.srcc) for e in evaluations], ddof=1) if len(scores) > 1 else np.nan
        difference, better = None, math.nan
        if reference_scores is not None:
            matched = [
                (seed_scores, reference_scores[seed % len(reference_scores)])
                for seed, seed_scores in enumerate(scores)
            ]
            gains = [srcc_gain(y_true, *both, groups=groups) for both in matched]
            difference = _mean_estimate(gains)
            better = float(
                np.mean([probability_better(y_true, *both, groups=groups) for both in matched])
            )
        return cls(
            system,
            split,
            kind,
            mean_evaluation(evaluations),
            n_seeds=len(scores),
            srcc_spread=float(spread),
            difference=difference,
            probability_better=better,
            fit_s=fit_s,
            score_ms=score_ms,
            n_parameters=n_parameters,
            chose_epoch_here=chose_epoch_here,
            learning_curve=learning_curve,
        )

    @property
    def is_published(self) -> bool:
        """Whether this is a result from the literature."""
        return self.kind == PUBLISHED_KIND


def mean_evaluation(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the means of the metrics and of the ends of their intervals, over seeds."""
    first = evaluations[0]
    means: dict[str, Any] = {
        name.lower(): _mean_estimate([evaluation.as_dict()[name] for evaluation in evaluations])
        for name in first.as_dict()
    }
    return replace(first, **means)


def by_split(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Return the results of each split, the best system first and published results last.

    Systems are ranked by SRCC, and ties are broken as in the challenge; published results keep
    their order.
    """
    results = list(results)
    return {
        split: _ranked([result for result in results if result.split == split])
        for split in dict.fromkeys(result.split for result in results)
    }


def reference_of(results: Iterable[Result]) -> str | None:
    """Return the name of the system that the others are compared with, or None."""
    own = [result for result in results if not result.is_published]
    if all(result.difference is None for result in own):
        return None
    return next((result.system for result in own if result.difference is None), None)


def with_learning_curve(results: Iterable[Result]) -> list[tuple[Result, LearningCurve]]:
    """Return the result whose learning curve was measured, and the curve; empty if there is none.

    A run measures it for its reference only.
    """
    return [(r, r.learning_curve) for r in results if r.learning_curve is not None][:1]


def splits_with_scores(data: Path, splits: Mapping[str, Pairs]) -> dict[str, Pairs]:
    """Return the splits that have scores; a PairsError says that one has a single pair."""
    found = {split: pairs for split, pairs in splits.items() if pairs.scores is not None}
    for split, pairs in found.items():
        if len(pairs) < 2:
            raise PairsError(f"{data}: the split {split!r} has one pair; metrics need two or more.")
    return found


def _ranked(results: list[Result]) -> list[Result]:
    own = [result for result in results if not result.is_published]
    order = rank_systems({str(index): result.evaluation for index, result in enumerate(own)})
    published = [result for result in results if result.is_published]
    return [own[int(index)] for index in order] + published


def _mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    means = np.mean([(e.value, e.low, e.high) for e in estimates], axis=0)
    return Estimate(*map(float, means))
