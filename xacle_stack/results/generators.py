"""Generators compared by the scores of their clips, prompt by prompt.

Every figure is a mean over prompts.  Its interval comes from a bootstrap that draws prompts, so
all clips of a prompt are drawn together.  Two generators are compared on the prompts that both
have; these intervals and probabilities are corrected for the number of comparisons.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 for the percentile
interval; Bonferroni for the intervals of the differences; Holm 1979, Scandinavian Journal of
Statistics 6:65, for their probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from xacle_stack._types import FloatArray
from xacle_stack.errors import MetricError
from xacle_stack.metrics import Estimate, evaluate, format_number, percentile_interval, srcc
from xacle_stack.results.text_table import TextTable

# Resamples in work at once, so that a table of a million prompts needs no matrix of all.
_RESAMPLE_BLOCK = 100
# A rank correlation between fewer generators than this says nothing.
_MIN_GENERATORS_TO_RANK = 3
_SHOWN_PROMPTS = 10


@dataclass(frozen=True)
class Generator:
    """One generator's figures.

    Attributes
    ----------
    name : str
    n_clips : int
    n_missing : int
        Prompts of the comparison for which it has no clip.
    mean : Estimate
        The mean score over its prompts.
    mean_on_common : float
        The same over the prompts for which every generator has a clip; NaN if there are none.
    share_below : Estimate
        The share of its clips below the comparison's limit, with Wilson's interval.
    human_mean : float
        The mean human score; NaN where there are no ratings.
    """

    name: str
    n_clips: int
    n_missing: int
    mean: Estimate
    mean_on_common: float
    share_below: Estimate
    human_mean: float = math.nan


@dataclass(frozen=True)
class Difference:
    """How much higher one generator scores than another on the same prompts.

    Attributes
    ----------
    first, second : str
    n_prompts : int
        For which both have clips.
    value : Estimate
        Mean difference, with the interval that holds for all comparisons at once.
    p_value : float
        Two-sided, by Holm's procedure: how probable such a difference is by chance.
    """

    first: str
    second: str
    n_prompts: int
    value: Estimate
    p_value: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.value.low > 0 or self.value.high < 0


@dataclass(frozen=True)
class PromptSpread:
    """A prompt, and the generators that score highest and lowest on it."""

    prompt: str
    best: str
    best_score: float
    worst: str
    worst_score: float

    @property
    def spread(self) -> float:
        """The difference between the two."""
        return self.best_score - self.worst_score


@dataclass(frozen=True)
class HumanAgreement:
    """How well scores order clips, and generators, as people do.

    Attributes
    ----------
    n_clips : int
        Clips with ratings.
    srcc_of_clips : Estimate
    srcc_of_generators : float
        NaN with fewer than three generators.
    """

    n_clips: int
    srcc_of_clips: Estimate
    srcc_of_generators: float


@dataclass(frozen=True)
class GeneratorComparison:
    """Generators compared; :func:`compare_generators` makes it.

    Attributes
    ----------
    generators : tuple of Generator
        The highest mean score first.
    differences : tuple of Difference
        Every pair of generators, in that order.
    prompts : tuple of PromptSpread
        Those on which the generators differ most; the largest difference first.
    n_prompts, n_common_prompts : int
        All prompts, and those with a clip of every generator.
    below, confidence : float
    human : HumanAgreement or None
    """

    generators: tuple[Generator, ...]
    differences: tuple[Difference, ...]
    prompts: tuple[PromptSpread, ...]
    n_prompts: int
    n_common_prompts: int
    below: float
    confidence: float
    human: HumanAgreement | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON; what is unknown is None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def tables(self, texts: Mapping[str, str] | None = None) -> list[TextTable]:
        """Return the tables that a terminal and a page show; `texts` are those of the prompts."""
        tables = [self._generator_table()]
        if self.differences:
            tables.append(self._difference_table())
        if len(self.generators) > 1 and self.prompts:
            tables.append(self._prompt_table(texts or {}))
        return tables

    def sentences(self) -> list[str]:
        """Return what a reader should know beside the tables, a sentence or two each."""
        return [*self._missing_sentences(), *self._human_sentences()]

    def _generator_table(self) -> TextTable:
        has_gaps = any(one.n_missing for one in self.generators)
        header = ["generator", "clips", "mean score", f"below {self.below:g}"]
        header += ["missing", "mean, common prompts"] if has_gaps else []
        header += ["human mean"] if self.human else []
        rows = []
        for one in self.generators:
            row = [one.name, f"{one.n_clips:,}", str(one.mean), _percent(one.share_below)]
            if has_gaps:
                row += [f"{one.n_missing:,}", _number(one.mean_on_common)]
            row += [_number(one.human_mean)] if self.human else []
            rows.append(row)
        title = f"Generators: {self.n_prompts:,} prompts, {self.confidence:.0%} intervals"
        return TextTable(title, header, rows)

    def _difference_table(self) -> TextTable:
        rows = [
            [one.first, one.second, f"{one.n_prompts:,}", f"{one.value:+}", _p_value(one.p_value)]
            for one in self.differences
        ]
        n = len(self.differences)
        return TextTable(
            "Differences on the same prompts",
            ["generator", "minus", "prompts", "difference", "p"],
            rows,
            notes=[
                f"Intervals and p hold for all {n} comparisons at once (Bonferroni, Holm)."
                if n > 1
                else "Paired bootstrap over prompts."
            ],
        )

    def _prompt_table(self, texts: Mapping[str, str]) -> TextTable:
        rows = [
            [
                _with_text(prompt.prompt, texts.get(prompt.prompt)),
                _number(prompt.spread),
                f"{prompt.best} {_number(prompt.best_score)}",
                f"{prompt.worst} {_number(prompt.worst_score)}",
            ]
            for prompt in self.prompts[:_SHOWN_PROMPTS]
        ]
        return TextTable(
            "Prompts on which the generators differ most",
            ["prompt", "difference", "highest", "lowest"],
            rows,
        )

    def _missing_sentences(self) -> list[str]:
        lacking = [one for one in self.generators if one.n_missing]
        if not lacking:
            return []
        named = ", ".join(f"{one.name} {one.n_missing:,}" for one in lacking)
        sentence = (
            f"Clips are missing, of {self.n_prompts:,} prompts: {named}. A generator's mean is "
            "over the prompts that it has."
        )
        if not self.n_common_prompts:
            return [f"{sentence} No prompt has a clip of every generator."]
        largest = max(self.generators, key=lambda one: abs(one.mean.value - one.mean_on_common))
        change = largest.mean_on_common - largest.mean.value
        return [
            f"{sentence} Over the {self.n_common_prompts:,} prompts that all have, the mean of "
            f"{largest.name} changes by {format_number(change, signed=True)}, the most of them."
        ]

    def _human_sentences(self) -> list[str]:
        human = self.human
        if human is None:
            return []
        sentence = (
            f"On {human.n_clips:,} clips with human scores, the SRCC with them is "
            f"{human.srcc_of_clips}."
        )
        if math.isnan(human.srcc_of_generators):
            return [f"{sentence} Fewer than three generators have ratings, too few to rank them."]
        return [
            f"{sentence} The SRCC between the generators' mean scores and their mean human scores "
            f"is {format_number(human.srcc_of_generators)}."
        ]


def compare_generators(
    generators: Sequence[str],
    prompts: Sequence[str],
    scores: ArrayLike,
    *,
    human: ArrayLike | None = None,
    all_prompts: Sequence[str] = (),
    below: float = 5.0,
    confidence: float = 0.95,
    n_bootstrap: int = 10_000,
    random_state: int = 0,
) -> GeneratorComparison:
    """Compare generators by the scores of their clips.

    Parameters
    ----------
    generators, prompts : sequence of str of length n_clips
        Which generator made each clip, for which prompt.  Several clips of one generator for one
        prompt count as their mean.
    scores : array-like of shape (n_clips,)
    human : array-like of shape (n_clips,), optional
        Human scores; NaN where a clip has none.
    all_prompts : sequence of str, optional
        The prompts that there should be clips for, also where no generator has any.
    below : float, default=5.0
        The limit whose share of lower scores is reported.
    confidence : float, default=0.95
        In (0, 1).
    n_bootstrap : int, default=10000
        Number of resamples of the prompts, the same for all figures.
    random_state : int, default=0

    Returns
    -------
    comparison : GeneratorComparison

    Raises
    ------
    MetricError
        If the lengths differ, there is no clip, a score is not finite, or a setting is out of its
        range.

    Examples
    --------
    >>> comparison = compare_generators(
    ...     ["new", "old"] * 4, ["a", "a", "b", "b", "c", "c", "d", "d"], [7, 5, 8, 6, 6, 4, 9, 7]
    ... )
    >>> [one.name for one in comparison.generators], str(comparison.differences[0].value)
    (['new', 'old'], '2.00 [2.00, 2.00]')
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (len(generators),) or len(prompts) != len(generators):
        raise MetricError(
            f"{len(generators)} generators, {len(prompts)} prompts and scores of shape "
            f"{values.shape}; expected one of each for every clip."
        )
    if not len(values) or not np.isfinite(values).all():
        raise MetricError("scores: expected a finite number for each of one clip or more.")
    if not 0 < confidence < 1 or n_bootstrap < 1:
        raise MetricError(
            f"confidence must lie between 0 and 1 and n_bootstrap be 1 or more, got {confidence!r} "
            f"and {n_bootstrap!r}."
        )
    names, columns = _numbered(generators)
    prompt_names, rows = _numbered(prompts)
    n_unanswered = len(set(all_prompts) - set(prompt_names))
    cells = _cell_means(values, rows, columns, (len(prompt_names), len(names)))
    pairs = list(combinations(range(len(names)), 2))
    order = np.argsort(-np.nanmean(cells, axis=0), kind="stable")
    pairs = [(int(order[i]), int(order[j])) for i, j in pairs]
    contrasts = np.column_stack([cells, *(cells[:, i] - cells[:, j] for i, j in pairs)])
    means = np.array([_mean(column) for column in contrasts.T])
    resampled = _resampled_means(contrasts, n_bootstrap, random_state)
    is_common = ~np.isnan(cells).any(axis=1)
    people = None if human is None else np.asarray(human, dtype=np.float64)
    summaries = [
        Generator(
            names[i],
            int(np.sum(columns == i)),
            int(np.isnan(cells[:, i]).sum()) + n_unanswered,
            _estimate(means[i], resampled[:, i], confidence),
            _mean(cells[is_common, i]),
            _share_below(values[columns == i], below, confidence),
            math.nan if people is None else _mean(people[columns == i]),
        )
        for i in order.tolist()
    ]
    return GeneratorComparison(
        tuple(summaries),
        _differences(names, pairs, contrasts, means, resampled, confidence),
        _spreads(names, prompt_names, cells),
        len(prompt_names) + n_unanswered,
        int(is_common.sum()),
        below,
        confidence,
        None if people is None else _agreement(values, people, summaries, confidence),
    )


def _numbered(labels: Sequence[str]) -> tuple[list[str], Any]:
    """Return the distinct labels in the order in which they first come, and each label's number."""
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    return list(numbers), np.array([numbers[label] for label in labels])


def _cell_means(values: FloatArray, rows: Any, columns: Any, shape: tuple[int, int]) -> FloatArray:
    """Return the mean score of each prompt (row) and generator (column); NaN without a clip."""
    cells = rows * shape[1] + columns
    n_cells = shape[0] * shape[1]
    counts = np.bincount(cells, minlength=n_cells)
    sums = np.bincount(cells, weights=values, minlength=n_cells)
    means: FloatArray = np.where(counts, sums / np.maximum(counts, 1), np.nan).reshape(shape)
    return means


def _mean(values: FloatArray) -> float:
    """Return the mean of what is not NaN; NaN if there is nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _resampled_means(contrasts: FloatArray, n_bootstrap: int, random_state: int) -> FloatArray:
    """Return the means of columns over resampled rows, shape (n_bootstrap, n_columns)."""
    rng = np.random.default_rng(random_state)
    n_rows = len(contrasts)
    is_known = ~np.isnan(contrasts)
    filled, known = np.where(is_known, contrasts, 0.0), is_known.astype(np.float64)
    means = []
    for start in range(0, n_bootstrap, _RESAMPLE_BLOCK):
        n = min(_RESAMPLE_BLOCK, n_bootstrap - start)
        drawn = rng.integers(n_rows, size=(n, n_rows))
        counts = np.array([np.bincount(rows, minlength=n_rows) for rows in drawn], np.float64)
        with np.errstate(invalid="ignore"):  # a resample without any clip of a generator
            means.append((counts @ filled) / (counts @ known))
    return np.concatenate(means)


def _estimate(value: float, resampled: FloatArray, confidence: float) -> Estimate:
    return Estimate(float(value), *percentile_interval(resampled, confidence))


def _share_below(values: FloatArray, below: float, confidence: float) -> Estimate:
    n_below = int(np.sum(values < below))
    interval = stats.binomtest(n_below, len(values)).proportion_ci(confidence, method="wilson")
    return Estimate(n_below / len(values), float(interval.low), float(interval.high))


def _differences(
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    contrasts: FloatArray,
    means: FloatArray,
    resampled: FloatArray,
    confidence: float,
) -> tuple[Difference, ...]:
    if not pairs:
        return ()
    of_all = 1 - (1 - confidence) / len(pairs)  # Bonferroni
    p_values = [_two_sided(resampled[:, len(names) + k]) for k in range(len(pairs))]
    return tuple(
        Difference(
            names[i],
            names[j],
            int(np.sum(~np.isnan(contrasts[:, len(names) + k]))),
            _estimate(means[len(names) + k], resampled[:, len(names) + k], of_all),
            p_value,
        )
        for k, ((i, j), p_value) in enumerate(zip(pairs, _holm(p_values), strict=True))
    )


def _two_sided(resampled: FloatArray) -> float:
    """Return how often resampled differences lie on the rarer side of zero, twice."""
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return math.nan
    rarer = min(int(np.sum(defined <= 0)), int(np.sum(defined >= 0)))
    return float(min(1.0, 2 * (rarer + 1) / (len(defined) + 1)))


def _holm(p_values: Sequence[float]) -> list[float]:
    """Return probabilities corrected for their number.

    Examples
    --------
    >>> _holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [math.nan] * len(p_values), 0.0
    known = [k for k, p in enumerate(p_values) if not math.isnan(p)]
    for rank, k in enumerate(sorted(known, key=lambda k: p_values[k])):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[k]))
        corrected[k] = largest
    return corrected


def _spreads(
    names: Sequence[str], prompts: Sequence[str], cells: FloatArray
) -> tuple[PromptSpread, ...]:
    several = np.flatnonzero(np.sum(~np.isnan(cells), axis=1) > 1)
    best, worst = np.nanargmax(cells[several], axis=1), np.nanargmin(cells[several], axis=1)
    found = [
        PromptSpread(
            prompts[row], names[high], float(cells[row, high]), names[low], float(cells[row, low])
        )
        for row, high, low in zip(several.tolist(), best.tolist(), worst.tolist(), strict=True)
    ]
    apart = (prompt for prompt in found if prompt.spread > 0)
    return tuple(sorted(apart, key=lambda prompt: -prompt.spread))


def _agreement(
    values: FloatArray, people: FloatArray, generators: Sequence[Generator], confidence: float
) -> HumanAgreement | None:
    rated = ~np.isnan(people)
    if rated.sum() < 2:
        return None
    clips = evaluate(people[rated], values[rated], confidence=confidence).srcc
    ranked = [one for one in generators if not math.isnan(one.human_mean)]
    of_generators = math.nan
    if len(ranked) >= _MIN_GENERATORS_TO_RANK:
        of_generators = srcc([one.human_mean for one in ranked], [one.mean.value for one in ranked])
    return HumanAgreement(int(rated.sum()), clips, of_generators)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_text(prompt: str, text: str | None) -> str:
    return prompt if text in (None, prompt) else f"{prompt}: {text}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else format_number(value)


def _percent(share: Estimate) -> str:
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"


def _p_value(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< .001" if value < 0.001 else format_number(value)
