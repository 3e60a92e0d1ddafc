"""Cross-validation: figures of a scorer on the very pairs that it is trained on.

Every fold gets a builder and a regressor of its own, which are fitted on the other folds.  With few
ratings this wastes none: all pairs are evaluated on, and at the end all are trained on.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_whole_number, group_labels
from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.errors import PairsError
from xacle_stack.metrics import METRICS
from xacle_stack.pairs import Pairs
from xacle_stack.recipe import Recipe
from xacle_stack.results import CROSS_VALIDATION, LearningCurve, Result, ResultsTable
from xacle_stack.scorer import DEFAULT_STORE, Scorer
from xacle_stack.stacking.folds import Fold, fold_numbers, split_folds
from xacle_stack.targets import fold_groups, labels_to_hold_out

logger = logging.getLogger(__name__)

# Parts of the training pairs that a learning curve is measured on, beside all of them.
_PARTS = (1 / 8, 1 / 4, 1 / 2)
# A fit on fewer pairs, or on fewer groups of them, says little about one on more.
_MIN_CURVE_PAIRS, _MIN_CURVE_GROUPS = 20, 10
# Fewer groups make a bootstrap interval a rough guess.
_MIN_GROUPS = 20


@dataclass(frozen=True, eq=False)
class HeldOutFolds:
    """Which pairs each fit of a cross-validation is trained on, and which it scores.

    Attributes
    ----------
    rows : list of (train, held_out) row numbers
        Every pair is held out once.
    groups : sequence of str of length n_pairs, optional
        What the folds keep together: groups or captions.  None for plain folds.
    """

    rows: list[Fold]
    groups: Sequence[str] | None

    def __len__(self) -> int:
        return len(self.rows)

    def parts(self, random_state: int = 0) -> list[list[Fold]]:
        """Return folds that are trained on less and held out alike, the smallest first.

        Each is trained on all that the smaller ones are trained on, and no group is divided.
        Parts of too few pairs are left out.
        """
        labels = group_labels(sum(len(held_out) for _, held_out in self.rows), self.groups)
        orders = [_by_group(train, labels, random_state) for train, _ in self.rows]
        found: dict[int, list[Fold]] = {}
        for part in _PARTS:
            folds = [
                (np.sort(order[: ends[np.searchsorted(ends, part * len(order))]]), held_out)
                for (order, ends), (_, held_out) in zip(orders, self.rows, strict=True)
            ]
            is_large_enough = all(
                len(train) >= _MIN_CURVE_PAIRS and len({*labels[train]}) >= _MIN_CURVE_GROUPS
                for train, _ in folds
            )
            if is_large_enough and mean_size(folds) < mean_size(self.rows):
                found.setdefault(mean_size(folds), folds)
        return [*found.values()]


def mean_size(folds: Sequence[Fold]) -> int:
    """Return how many pairs the folds are trained on, rounded."""
    return round(float(np.mean([len(train) for train, _ in folds])))


def _by_group(rows: IntArray, labels: IntArray, random_state: int) -> tuple[IntArray, IntArray]:
    """Return rows at random, group after group, and the number of rows up to each group's end."""
    groups, numbers = np.unique(labels[rows], return_inverse=True)
    ranks = check_random_state(random_state).permutation(len(groups))[numbers]
    return rows[np.argsort(ranks, kind="stable")], np.cumsum(np.bincount(ranks))


def held_out_folds(
    pairs: Pairs, recipe: Recipe, n_folds: int = 5, random_state: int = 0
) -> HeldOutFolds:
    """Divide pairs into folds: by `group`, else by caption, or by `system`, as the recipe says.

    With fewer captions than folds, ``group_by = "auto"`` takes plain folds and warns: the figures
    then hold for these captions only.

    Raises
    ------
    PairsError
        If there are too few pairs, or too few of the groups that the recipe asks for.
    """
    check_whole_number("n_folds", n_folds, minimum=2)
    group_by = recipe.stacker.group_by
    if len(pairs) < 2 * n_folds:
        raise PairsError(
            f"{len(pairs)} pairs of {pairs.split!r} are too few for a cross-validation in "
            f"{n_folds} folds, which takes {2 * n_folds} or more. Rate more pairs, or ask for "
            "fewer folds (--cv N; in Python n_folds=N)."
        )
    labels = labels_to_hold_out(pairs, group_by)
    n_labels = None if labels is None else len(set(labels))
    what = (
        "captions" if labels is pairs.captions else "systems" if group_by == "system" else "groups"
    )
    if n_labels is not None and n_labels < n_folds:
        if group_by != "auto":
            raise PairsError(
                f"{n_labels} different {what} of {pairs.split!r} are too few for {n_folds} folds "
                f"by {what}. Ask for fewer folds (--cv N; in Python n_folds=N), or set group_by = "
                '"none" under [stacker] in the recipe.'
            )
        logger.warning(
            "only %d different %s: too few for %d folds that hold some of them out, so plain folds "
            "are used; the figures then hold for these %s only.",
            n_labels,
            what,
            n_folds,
            what,
        )
        labels = None
    elif n_labels is not None and n_labels < _MIN_GROUPS:
        logger.warning(
            "only %d different %s: the folds hold some of them out, but intervals over so few are "
            "rough, and often too narrow.",
            n_labels,
            what,
        )
    return HeldOutFolds(split_folds(len(pairs), labels, n_folds, random_state), labels)


def out_of_fold_scores(
    scorer: Scorer, train: CachedPairs, folds: Sequence[Fold], done: Callable[[], object]
) -> FloatArray:
    """Return the score of every pair, each by a fit of a fresh copy without the pair's fold.

    The scorer itself stays as it is.  `done` is called after every fit.
    """
    scores = np.full(len(train), np.nan)
    for rows, held_out in folds:
        part, fresh = train[rows], copy(scorer)
        groups = fold_groups(part.pairs, scorer.recipe, scorer.regressor, warns=False)
        fresh.fit(part, groups=groups)
        scores[held_out] = fresh.score(train[held_out])
        done()
    return scores


def measured_curve(
    scorer: Scorer,
    train: CachedPairs,
    folds: HeldOutFolds,
    scores: FloatArray,
    done: Callable[[], object],
) -> LearningCurve:
    """Return the SRCC after training on parts of each fold's training pairs, and on all.

    `scores` are the out-of-fold scores after training on all of them.
    """
    by_size: dict[int, ArrayLike] = {
        mean_size(part): out_of_fold_scores(scorer, train, part, done) for part in folds.parts()
    }
    by_size[mean_size(folds.rows)] = scores
    return LearningCurve.from_scores(train.pairs.scores, by_size, groups=folds.groups)


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """What a cross-validation found; shown as a table, in a notebook as HTML.

    Attributes
    ----------
    pair_ids : tuple of str
    scores : ndarray of shape (n_pairs,)
        The score of each pair by the fit that did not see it.
    folds : ndarray of shape (n_pairs,)
        The number of the fold that held the pair out.
    groups : sequence of str of length n_pairs, optional
        What the folds kept together; the intervals are over these groups.  None for plain folds.
    result : Result
        The metrics with their intervals, and the learning curve.
    fold_metrics : mapping of str to ndarray of shape (n_folds,)
        Each metric within each fold; NaN where a fold has one pair or equal scores.
    scorer : Scorer
        Fitted on all pairs.
    """

    pair_ids: tuple[str, ...]
    scores: FloatArray
    folds: IntArray
    groups: Sequence[str] | None
    result: Result
    fold_metrics: Mapping[str, FloatArray]
    scorer: Scorer

    @property
    def learning_curve(self) -> LearningCurve | None:
        """How the SRCC grows with the training pairs; None if it was not asked for."""
        return self.result.learning_curve

    def __repr__(self) -> str:
        return ResultsTable([self.result]).to_markdown()

    def _repr_html_(self) -> str:
        return ResultsTable([self.result]).to_html()


def cross_validate(
    pairs: Pairs,
    recipe: Recipe | Path | str = "mini",
    *,
    regressor: Any = None,
    builder: Any = None,
    n_folds: int = 5,
    learning_curve: bool = True,
    random_state: int = 0,
    store: Path | str = DEFAULT_STORE,
    device: str = "auto",
    n_jobs: int | None = None,
    progress: bool = False,
) -> CrossValidation:
    """Evaluate a recipe on the pairs that it is trained on, and train it on all of them.

    Clips and captions are encoded once.  The folds are made by the column `group` where the pairs
    have one, else by caption, so that what a fit is evaluated on is new to it.

    Parameters
    ----------
    pairs : Pairs
        With scores; 200 are enough to begin with.
    recipe, regressor, builder, store, device, n_jobs, progress
        See :class:`~xacle_stack.Scorer`.
    n_folds : int, default=5
        2 or more; each fold is held out once.
    learning_curve : bool, default=True
        Whether to measure how the SRCC grows with the training pairs, which takes about as long
        again.
    random_state : int, default=0
        Seeds the folds and the parts of the learning curve.

    Returns
    -------
    found : CrossValidation
        Its `scorer` is fitted on all pairs.

    Raises
    ------
    PairsError
        If the pairs have no scores, there are too few of them, or a clip or caption could not be
        encoded.

    Examples
    --------
    >>> from xacle_stack import cross_validate, read_pairs
    >>> found = cross_validate(read_pairs("data/demo", "train"))  # doctest: +SKIP
    >>> print(found.learning_curve.finding)  # doctest: +SKIP
    >>> found.scorer.save("my_scorer.skops")  # doctest: +SKIP
    """
    if pairs.scores is None:
        raise PairsError(f"the set {pairs.split!r} has no scores, which a cross-validation needs.")
    scorer = Scorer(
        recipe,
        regressor,
        builder=builder,
        store=store,
        device=device,
        n_jobs=n_jobs,
        progress=progress,
    )
    if regressor is None:
        scorer.regressor = scorer.recipe.new_stacker(n_jobs)
    folds = held_out_folds(pairs, scorer.recipe, n_folds, random_state)
    scorer.fit(pairs)
    train = FeatureCache(scorer.store).load(pairs, scorer.fingerprints_)
    n_fits = n_folds * (1 + len(folds.parts()) * learning_curve)
    with progress_bar("cross-validating", n_fits, "fits", shown=progress) as bar:
        scores = out_of_fold_scores(scorer, train, folds.rows, bar.update)
        curve = None
        if learning_curve:
            curve = measured_curve(scorer, train, folds, scores, bar.update)
    result = Result.from_scores(
        scorer.recipe.name,
        CROSS_VALIDATION,
        "stack" if regressor is None else type(regressor).__name__,
        pairs.scores,
        [scores],
        groups=folds.groups,
        n_parameters=scorer.n_parameters,
        learning_curve=curve,
    )
    return CrossValidation(
        pairs.ids,
        scores,
        fold_numbers(folds.rows),
        folds.groups,
        result,
        _metrics_by_fold(pairs.scores, scores, folds.rows),
        scorer,
    )


def _metrics_by_fold(
    truth: FloatArray, scores: FloatArray, folds: Sequence[Fold]
) -> dict[str, FloatArray]:
    return {
        name: np.array(
            [metric(truth[rows], scores[rows]) if len(rows) > 1 else math.nan for _, rows in folds]
        )
        for name, metric in METRICS.items()
    }
