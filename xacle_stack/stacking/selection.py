"""Choosing a stack on the training pairs: presets, parts of the features, and learners.

Source: the one-standard-error rule of Breiman et al. 1984, section 3.4.3; Hastie et al. 2009,
section 7.10.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import check_random_state

from xacle_stack._csv_table import csv_text, not_a_formula
from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray
from xacle_stack._validation import check_choice, check_scores, group_labels
from xacle_stack.errors import StackingError
from xacle_stack.features import AGREEMENT
from xacle_stack.metrics import Estimate, format_number, percentile_interval, resampled_srcc_gains
from xacle_stack.metrics import srcc as srcc_of
from xacle_stack.stacking.learners import PRESETS, kind_of_learner
from xacle_stack.stacking.stacker import Stacker
from xacle_stack.table import FeatureTable

if TYPE_CHECKING:
    from xacle_stack.results.text_table import TextTable

_LOGGER = logging.getLogger(__name__)
# Every candidate has this many folds, unless the stacker says otherwise: presets with folds of
# their own would differ by what they are trained on.
N_SPLITS = 5
# The presets, the simplest first.
_BY_SIMPLICITY = ("paper", "best")
# With fewer independent pairs, a standard error hides what a part is worth.
_MIN_GROUPS = 200
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class StackCandidate:
    """One stack among those compared.

    Attributes
    ----------
    preset : str
    parts : tuple of str
        The parts of the features that it has.
    dropped : tuple of str
        Those that it does not have.
    left_out : tuple of str
        The kinds of the preset's learners that it does not have.
    n_spaces : int
        How many of its parts are spaces; of a feature table, families.
    n_learners : int
        How many kinds of learners it has.
    srcc : float
        The SRCC of its cross-fitted scores, ``Stacker.oof_scores_``.
    difference : Estimate
        Its SRCC less that of the best candidate, with the 95 % interval of a paired bootstrap.
    standard_error : float
        The standard deviation of the difference in that bootstrap.
    """

    preset: str
    parts: tuple[str, ...]
    dropped: tuple[str, ...]
    left_out: tuple[str, ...]
    n_spaces: int
    n_learners: int
    srcc: float
    difference: Estimate
    standard_error: float

    @property
    def name(self) -> str:
        """What it is called in a table.

        Examples
        --------
        >>> zero = Estimate(0.0, 0.0, 0.0)
        >>> StackCandidate("best", ("a",), ("b",), ("boosting",), 1, 2, 0.7, zero, 0.0).name
        'best without b, boosting'
        """
        missing = [*self.dropped, *self.left_out]
        return f"{self.preset} without {', '.join(missing)}" if missing else self.preset

    @property
    def is_close(self) -> bool:
        """Whether it loses at most one standard error against the best."""
        return bool(-self.difference.value <= self.standard_error)


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """What :func:`select_stack` found; shown as a table, in a notebook as HTML.

    Attributes
    ----------
    candidates : tuple of StackCandidate
        From the highest SRCC to the lowest.
    chosen : StackCandidate
        The simplest that loses at most one standard error against the first.
    n_splits : int
        The number of folds of every candidate.
    n_pairs : int
    n_groups : int or None
        The number of groups that folds and bootstrap keep together; None without groups.
    n_fits : int
        How many stacks were fitted.
    seconds : float
        How long it took.
    """

    candidates: tuple[StackCandidate, ...]
    chosen: StackCandidate
    n_splits: int
    n_pairs: int
    n_groups: int | None
    n_fits: int
    seconds: float

    @property
    def best(self) -> StackCandidate:
        """The candidate of the highest SRCC."""
        return self.candidates[0]

    @property
    def finding(self) -> str:
        """The choice, in a sentence."""
        chosen = self.chosen
        if chosen is self.best:
            return (
                f"Chosen: {chosen.name!r}. It has the highest SRCC, and every simpler stack loses "
                "more than one standard error."
            )
        return (
            f"Chosen: {chosen.name!r}. It is the simplest that loses at most one standard error "
            f"({format_number(chosen.standard_error)}) against the best, {self.best.name!r}: "
            f"{chosen.difference:+} of SRCC."
        )

    def table(self) -> TextTable:
        """Return the candidates as a table, with notes on how to read it."""
        # Only what is shown needs the results, and they need modules that read files.
        from xacle_stack.results.text_table import TextTable

        rows = [
            [
                one.name,
                format_number(one.srcc),
                "–" if one is self.best else f"{one.difference:+}",
                "–" if one is self.best else format_number(one.standard_error),
                self._verdict(one),
            ]
            for one in self.candidates
        ]
        pairs = f"{self.n_pairs:,} training pairs"
        if self.n_groups is not None:
            pairs += f" in {self.n_groups:,} groups"
        title = f"Stacks compared out-of-fold on {pairs}, {self.n_splits} folds"
        return TextTable(
            title, ["stack", "SRCC", "to the best", "SE", "verdict"], rows, [*self._notes()]
        )

    def to_markdown(self) -> str:
        """Return the table and its notes as Markdown."""
        return self.table().to_markdown()

    def to_csv(self) -> str:
        """Return one row for each candidate, with all of its fields."""
        header = ["stack", "preset", "parts", "dropped", "left_out", "n_spaces", "n_learners"]
        header += ["SRCC", "difference", "difference_low", "difference_high", "standard_error"]
        rows: list[Sequence[object]] = [[*header, "is_close", "is_chosen"]]
        for one in self.candidates:
            named = ("; ".join(names) for names in (one.parts, one.dropped, one.left_out))
            gap = one.difference
            numbers = (one.srcc, gap.value, gap.low, gap.high, one.standard_error)
            rows.append(
                [
                    *map(not_a_formula, [one.name, one.preset, *named]),
                    *(one.n_spaces, one.n_learners),
                    *(f"{number:.6f}" for number in numbers),
                    *(int(one.is_close), int(one is self.chosen)),
                ]
            )
        return csv_text(rows)

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        return self.table().to_html()

    def _verdict(self, one: StackCandidate) -> str:
        words = ["best"] if one is self.best else []
        if one is self.chosen:
            words.append("chosen")
        elif one.is_close and not words:
            words.append("within 1 SE")
        return ", ".join(words)

    def _notes(self) -> Iterator[str]:
        yield self.finding
        yield (
            "SE is the standard error of the difference: both stacks are scored on the same "
            "resamples. The simplest stack has the fewest spaces, then the fewest other parts, "
            'then the preset "paper", then the fewest learners.'
        )
        yield (
            f"The figures are the highest of {len(self.candidates)} on the same pairs, so those of "
            "the chosen stack are a little too good. No other set was looked at: measure it there."
        )
        n_groups = self.n_groups or self.n_pairs
        if n_groups < _MIN_GROUPS:
            what = "pairs" if self.n_groups is None else "groups"
            yield (
                f"{n_groups} {what} are few: a standard error is large, and the rule drops what "
                "more ratings may show to help."
            )


def select_stack(
    X: Any,
    y: ArrayLike,
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    *,
    builder: Any = None,
    stacker: Stacker | None = None,
    presets: Sequence[str] = _BY_SIMPLICITY,
    progress: bool = False,
) -> Selection:
    """Compare stacks on the training pairs alone, and choose the simplest of the good ones.

    Each preset is fitted with all parts of the features.  Then the part whose absence costs least
    is dropped, again and again, until that costs more than one standard error.  Of the stack that
    is chosen so, every set of learners is compared, which takes no further fit of level 0.

    Parameters
    ----------
    X : FeatureTable, or CachedPairs or PairEmbeddings
        The parts of a table are its families.  Those of embeddings, which take a `builder`, are
        its spaces, its auxiliaries and the agreement features; these are made of the spaces that
        are left.
    y : array-like of shape (n_pairs,)
        Scores.
    groups : array-like of shape (n_pairs,), optional
        Pairs with equal labels, such as those of one caption, are held out and resampled together.
    sample_weight : array-like of shape (n_pairs,), optional
        As of :meth:`Stacker.fit`.  The SRCC counts all pairs alike.
    builder : FeatureBuilder, optional
        What makes the table of embeddings.
    stacker : Stacker, optional
        The settings that are not compared: all but its preset and `left_out`.  Without `n_splits`,
        every candidate has five folds.
    presets : sequence of str, default=("paper", "best")
    progress : bool, default=False

    Returns
    -------
    selection : Selection

    Raises
    ------
    StackingError
        If the scores are all equal, there are too few groups for the folds, the stacker has
        `learners`, or embeddings come without a builder.

    Notes
    -----
    All candidates have the same folds.  The standard error is that of the difference to the best,
    by a bootstrap in which both see the same pairs or groups.  It is smaller than the standard
    error among folds of the classical rule, because what is hard about a pair is hard for both: so
    less is dropped.

    References
    ----------
    Breiman, Friedman, Olshen and Stone 1984, "Classification and Regression Trees", section 3.4.3.
    Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", section 7.10.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = rng.normal(size=(120, 6))
    >>> table = FeatureTable(values, {"signal": slice(0, 3), "noise": slice(3, 6)})
    >>> y = values[:, 0] + 0.3 * rng.normal(size=120)
    >>> stacker = Stacker(random_state=0)
    >>> select_stack(table, y, stacker=stacker, presets=["paper"]).chosen.dropped
    ('noise',)
    """
    parts, table_of = _parts(X, builder)
    base = _checked_stacker(stacker, presets)
    scores = check_scores(y, len(X))
    if np.ptp(scores) == 0:
        raise StackingError("all scores are equal: no stack can be told from another by them.")
    labels = None if groups is None else group_labels(len(scores), groups)
    start = time.perf_counter()
    search = _Search(
        parts,
        table_of,
        base,
        scores,
        None if labels is None else labels.tolist(),
        sample_weight,
    )
    chosen = search.run(list(dict.fromkeys(presets)), progress)
    order = sorted(search.found, key=_Scored.rank)
    candidates = tuple(search.candidate(one) for one in order)
    return Selection(
        candidates,
        candidates[order.index(chosen)],
        base.n_folds,
        len(scores),
        None if labels is None else int(labels.max()) + 1,
        len(search.fits),
        time.perf_counter() - start,
    )


@dataclass(frozen=True, eq=False)
class _Scored:
    """A candidate's cross-fitted scores, and what says how simple it is."""

    preset: str
    parts: tuple[str, ...]
    left_out: tuple[str, ...]
    n_spaces: int
    n_learners: int
    scores: FloatArray
    srcc: float

    def rank(self) -> tuple[float, ...]:
        """Return what sorts the highest SRCC first; an undefined one counts as the worst."""
        loss = math.inf if math.isnan(self.srcc) else -self.srcc
        return loss, *self._simplicity

    def simplicity_rank(self) -> tuple[float, ...]:
        """Return what sorts the simplest first."""
        return *self._simplicity, *self.rank()

    @property
    def _simplicity(self) -> tuple[int, ...]:
        preset = _BY_SIMPLICITY.index(self.preset)
        return self.n_spaces, len(self.parts), preset, self.n_learners


class _Search:
    """Fits candidates and compares them; `parts` says of each part whether it is a space."""

    def __init__(
        self,
        parts: Mapping[str, bool],
        table_of: Callable[[Sequence[str]], FeatureTable],
        stacker: Stacker,
        y: FloatArray,
        groups: list[Any] | None,
        sample_weight: ArrayLike | None,
    ) -> None:
        self.parts, self.table_of, self.stacker = parts, table_of, stacker
        self.y, self.groups, self.sample_weight = y, groups, sample_weight
        self.found: list[_Scored] = []
        # For each preset and its parts the candidate, and its stack without models of level 0.
        self.fits: dict[tuple[str, tuple[str, ...]], tuple[_Scored, Stacker]] = {}
        self._gaps: dict[tuple[_Scored, _Scored], tuple[Estimate, float]] = {}

    def run(self, presets: Sequence[str], progress: bool) -> _Scored:
        """Fit candidates until nothing more can be dropped, and return the chosen one."""
        n_parts = len(self.parts)
        n_most = n_parts * (n_parts + 1) // 2
        _LOGGER.info(
            "Selection: at most %d stacks are fitted, of up to %d parts: %s.",
            n_most * len(presets),
            n_parts,
            ", ".join(self.parts),
        )
        with progress_bar("selecting", n_most * len(presets), "stacks", shown=progress) as bar:
            seconds = []
            for preset in presets:
                start = time.perf_counter()
                self._fit(preset, tuple(self.parts), bar.update)
                seconds.append(time.perf_counter() - start)
            _LOGGER.info(
                "Selection: those of all parts took %s, so the smaller ones take at most about %s.",
                _duration(sum(seconds)),
                _duration((n_most - 1) * sum(seconds)),
            )
            for preset in presets:
                kept: tuple[str, ...] = tuple(self.parts)
                while rests := [*self._rests(kept)]:
                    fits = [self._fit(preset, rest, bar.update) for rest in rests]
                    smaller = min(fits, key=_Scored.rank)
                    if not self._is_close(smaller):
                        break
                    kept = smaller.parts
        self.found += self._with_fewer_learners(self._choose())
        return self._choose()

    def best(self) -> _Scored:
        """Return the one of the highest SRCC, the simplest of those."""
        return min(self.found, key=_Scored.rank)

    def candidate(self, one: _Scored) -> StackCandidate:
        """Return the public record of a candidate."""
        difference, standard_error = self._gap(one, self.best())
        return StackCandidate(
            one.preset,
            one.parts,
            tuple(part for part in self.parts if part not in one.parts),
            one.left_out,
            one.n_spaces,
            one.n_learners,
            one.srcc,
            difference,
            standard_error,
        )

    def _choose(self) -> _Scored:
        close = (one for one in self.found if self._is_close(one))
        return min(close, key=_Scored.simplicity_rank)

    def _is_close(self, one: _Scored) -> bool:
        return self.candidate(one).is_close

    def _gap(self, one: _Scored, best: _Scored) -> tuple[Estimate, float]:
        """Return the difference of an SRCC to the best one, and its standard error."""
        if one is best:
            return Estimate(0.0, 0.0, 0.0), 0.0
        if (one, best) not in self._gaps:
            gains = resampled_srcc_gains(self.y, one.scores, best.scores, groups=self.groups)
            low, high = percentile_interval(gains, _CONFIDENCE)
            difference = Estimate(round(one.srcc - best.srcc, 12), low, high)
            defined = gains[~np.isnan(gains)]
            error = float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan
            self._gaps[one, best] = difference, error
        return self._gaps[one, best]

    def _rests(self, kept: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        """Yield what is left without each part; agreement features need a space."""
        for dropped in kept:
            rest = tuple(part for part in kept if part != dropped)
            if self.parts[dropped] and not any(self.parts[part] for part in rest):
                rest = tuple(part for part in rest if part != AGREEMENT)
            if rest:
                yield rest

    def _fit(self, preset: str, parts: tuple[str, ...], done: Callable[[], object]) -> _Scored:
        """Fit a candidate, once; return its record."""
        if (preset, parts) not in self.fits:
            stacker = clone(self.stacker).set_params(preset=preset)
            stacker.fit(self.table_of(parts), self.y, self.groups, self.sample_weight)
            # They are large, and level 1 is trained again without them.
            stacker.compression_ = None
            stacker.level0_models_ = [replace(one, models=[]) for one in stacker.level0_models_]
            scored = self._scored(preset, parts, (), len(self._kinds(stacker)), stacker.oof_scores_)
            self.fits[preset, parts] = scored, stacker
            self.found.append(scored)
            done()
        return self.fits[preset, parts][0]

    def _with_fewer_learners(self, one: _Scored) -> Iterator[_Scored]:
        """Yield what a candidate is without some kinds of learners."""
        _, stacker = self.fits[one.preset, one.parts]
        kinds = self._kinds(stacker)
        table = self.table_of(one.parts) if len(kinds) > 1 else None
        for n_left_out in range(1, len(kinds)):
            for left_out in combinations(kinds, n_left_out):
                scores = stacker.without(left_out, table).oof_scores_
                n_learners = len(kinds) - n_left_out
                yield self._scored(one.preset, one.parts, left_out, n_learners, scores)

    def _scored(
        self,
        preset: str,
        parts: tuple[str, ...],
        left_out: tuple[str, ...],
        n_learners: int,
        scores: FloatArray,
    ) -> _Scored:
        n_spaces = sum(self.parts[part] for part in parts)
        return _Scored(
            preset, parts, left_out, n_spaces, n_learners, scores, srcc_of(self.y, scores)
        )

    @staticmethod
    def _kinds(stacker: Stacker) -> list[str]:
        """Return the kinds of the preset's learners that a stack has."""
        added = {name for name, _ in stacker.added_learners or ()}
        names = (one.name for one in stacker.level0_models_ if one.name not in added)
        return [*dict.fromkeys(map(kind_of_learner, names))]


def _parts(X: Any, builder: Any) -> tuple[dict[str, bool], Callable[[Sequence[str]], FeatureTable]]:
    """Return the parts of the features, whether each is a space, and what makes tables of some."""
    if isinstance(X, FeatureTable):
        if builder is not None:
            raise StackingError(
                "X is a FeatureTable already: leave the builder out, or give the embeddings."
            )
        return dict.fromkeys(X.families, True), X.select
    if builder is None:
        raise StackingError(
            f"X is a {type(X).__name__}: give a FeatureTable, or embeddings and "
            "builder=FeatureBuilder(...) that makes a table of them."
        )
    auxiliary, text_auxiliary = [*builder.auxiliary], [*builder.text_auxiliary]
    parts = dict.fromkeys(builder.spaces, True) | dict.fromkeys(auxiliary + text_auxiliary, False)
    if builder.spaces and builder.agreement:
        parts[AGREEMENT] = False

    def table_of(kept: Sequence[str]) -> FeatureTable:
        smaller = clone(builder).set_params(
            spaces=[name for name in builder.spaces if name in kept],
            auxiliary=[name for name in auxiliary if name in kept],
            text_auxiliary=[name for name in text_auxiliary if name in kept],
            agreement=AGREEMENT in kept,
        )
        table: FeatureTable = smaller.fit_transform(X)
        return table

    return parts, table_of


def _checked_stacker(stacker: Stacker | None, presets: Sequence[str]) -> Stacker:
    """Return the stacker of all candidates, with folds and a seed that they share."""
    if isinstance(presets, str) or not presets:
        raise StackingError(f"presets must be a list, such as ['paper', 'best'], got {presets!r}.")
    for preset in presets:
        check_choice("presets", preset, PRESETS)
    base: Stacker = clone(Stacker() if stacker is None else stacker)
    if base.learners is not None:
        raise StackingError(
            "the stacker has `learners` in place of a preset's, but presets and their learners are "
            "compared. Give them as added_learners, which every candidate has."
        )
    given = base.random_state
    seed = given if isinstance(given, Integral) else check_random_state(given).randint(2**31 - 1)
    n_splits = N_SPLITS if base.n_splits is None else base.n_splits
    return base.set_params(n_splits=n_splits, random_state=int(seed), verbose=False, left_out=())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
