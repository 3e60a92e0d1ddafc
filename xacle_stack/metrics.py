"""How well predicted scores follow human ones: the four metrics of the XACLE challenge.

Conventions: SRCC is Spearman's correlation with average ranks for ties, LCC is Pearson's, KTAU
is Kendall's tau-b, MSE the mean squared error on the scale of the scores.  A correlation with a
constant is undefined: it is NaN, as in SciPy.  Intervals are percentile bootstrap intervals over
pairs, or over groups of pairs where `groups` are given: pairs of one caption are no independent
evidence, and intervals over single pairs are too narrow for them.  Two systems are compared on the
same resamples.  Systems are ranked by SRCC, ties by LCC, then KTAU, then MSE.

Source: Okamoto et al., XACLE challenge 2026.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import MetricError, UnknownNameError


def srcc(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return Spearman's rank correlation, in [-1, 1].

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_pairs,)
        Human and predicted scores; row ``i`` of both belongs to pair ``i``.

    Raises
    ------
    MetricError
        If the lengths differ, there are fewer than two pairs, or a score is not finite.

    Examples
    --------
    >>> round(srcc([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 7, 6]), 4)
    0.9643
    """
    y_true, y_pred = _check(y_true, y_pred)
    return _pearson(stats.rankdata(y_true), stats.rankdata(y_pred))


def lcc(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return Pearson's linear correlation, in [-1, 1].  Arguments and errors as in `srcc`.

    Examples
    --------
    >>> round(lcc([1, 2, 3], [1, 2, 4]), 4)
    0.982
    """
    return _pearson(*_check(y_true, y_pred))


def ktau(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return Kendall's tau-b, in [-1, 1].  Arguments and errors as in `srcc`.

    Examples
    --------
    >>> round(ktau([1, 2, 3, 4], [1, 3, 2, 4]), 4)
    0.6667
    """
    y_true, y_pred = _check(y_true, y_pred)
    return float(stats.kendalltau(y_true, y_pred).statistic)


def mse(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """Return the mean squared error, 0 or more.  Arguments and errors as in `srcc`.

    Examples
    --------
    >>> mse([1, 2], [1, 4])
    2.0
    """
    y_true, y_pred = _check(y_true, y_pred)
    return float(np.mean((y_true - y_pred) ** 2))


METRICS: Mapping[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "SRCC": srcc,
    "LCC": lcc,
    "KTAU": ktau,
    "MSE": mse,
}


# What metrics are compared to; the digits beyond differ between processors.
_DIGITS = 12


def format_number(value: float, *, signed: bool = False) -> str:
    """Return a number as every table, plot and message of this library shows it.

    Numbers below 1 have three decimals and no zero before the point, as papers write
    correlations; others have two decimals.

    Parameters
    ----------
    value : float
    signed : bool, default=False
        Whether to write ``+`` before a positive number, as before a difference.

    Examples
    --------
    >>> format_number(0.7341), format_number(3.0149), format_number(0.021, signed=True)
    ('.734', '3.01', '+.021')
    """
    rounded = round(value, 3)
    sign = "+" if signed and rounded > 0 else ""
    if not abs(rounded) < 1:
        return f"{sign}{value:.2f}"
    # Adding zero turns -0.0 into 0.0.
    return sign + f"{rounded + 0.0:.3f}".replace("0.", ".", 1)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; ``float(estimate)`` is the value.

    The ends of the interval are NaN where it is unknown.

    Examples
    --------
    >>> str(Estimate(0.734, 0.701, 0.765)), f"{Estimate(0.02, -0.01, 0.05):+}"
    ('.734 [.701, .765]', '+.020 [-.010, +.050]')
    """

    value: float
    low: float
    high: float

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self:}"

    def __format__(self, spec: str) -> str:
        """Return the value and its interval; the specification ``+`` writes signs."""
        if spec not in ("", "+"):
            raise MetricError(f"an estimate has the formats '' and '+', got {spec!r}.")
        value, low, high = (
            format_number(number, signed=spec == "+")
            for number in (self.value, self.low, self.high)
        )
        has_interval = not (math.isnan(self.low) or math.isnan(self.high))
        return f"{value} [{low}, {high}]" if has_interval else value


@dataclass(frozen=True)
class Evaluation:
    """The four metrics of one system on one split.

    `n_groups` is the number of groups that the intervals are over, or None if they are over pairs.
    """

    srcc: Estimate
    lcc: Estimate
    ktau: Estimate
    mse: Estimate
    n_pairs: int
    confidence: float
    n_groups: int | None = None

    def as_dict(self) -> dict[str, Estimate]:
        """Metrics by their usual names, in the challenge's order."""
        return {"SRCC": self.srcc, "LCC": self.lcc, "KTAU": self.ktau, "MSE": self.mse}

    def __repr__(self) -> str:
        lines = [f"{name:<5}{estimate}" for name, estimate in self.as_dict().items()]
        lines.append(f"({self.basis})")
        return "\n".join(lines)

    @property
    def basis(self) -> str:
        """What the figures and their intervals are made from, in words."""
        pairs, intervals = f"{self.n_pairs:,} pairs", f"{self.confidence:.0%} bootstrap intervals"
        if self.n_groups is None:
            return f"{pairs}, {intervals}"
        return f"{pairs} in {self.n_groups:,} groups, {intervals} over the groups"


def evaluate(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Evaluation:
    """Compute the four metrics with bootstrap intervals.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_pairs,)
        Human and predicted scores; row ``i`` of both belongs to pair ``i``.
    groups : sequence of str of length n_pairs, optional
        Pairs with equal labels, such as those of one caption, are resampled together.
    n_bootstrap : int, default=1000
        Number of resamples.  One in which a correlation is undefined is left out of that
        correlation's interval.
    confidence : float, default=0.95
        In (0, 1).
    random_state : int, default=0

    Returns
    -------
    evaluation : Evaluation

    Raises
    ------
    MetricError
        If there are no human scores, the lengths differ, there are fewer than two pairs, or a
        score is not finite.

    Examples
    --------
    >>> evaluation = evaluate([0, 2, 5, 9, 10], [1, 2, 4, 7, 9])
    >>> float(evaluation.srcc)
    1.0
    """
    truth, predicted = _check(_existing(y_true), y_pred)
    rows_of = _group_rows(len(truth), groups)
    resampled = _bootstrap(
        lambda rows: [metric(truth[rows], predicted[rows]) for metric in METRICS.values()],
        rows_of,
        n_bootstrap,
        random_state,
    )
    estimates = {}
    for column, (name, metric) in enumerate(METRICS.items()):
        low, high = percentile_interval(resampled[:, column], confidence)
        estimates[name.lower()] = Estimate(metric(truth, predicted), low, high)
    return Evaluation(
        **estimates,
        n_pairs=len(truth),
        confidence=confidence,
        n_groups=None if groups is None else len(rows_of),
    )


def srcc_gain(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    y_reference: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: int = 0,
) -> Estimate:
    """Return how much higher a system's SRCC is than another's, with a paired bootstrap interval.

    Parameters
    ----------
    y_true, y_pred, y_reference : array-like of shape (n_pairs,)
        Human scores, the system's and the other's; row ``i`` of all belongs to pair ``i``.
    groups : sequence of str of length n_pairs, optional
        Pairs with equal labels, such as those of one caption, are resampled together.
    n_bootstrap : int, default=1000
        Number of resamples; both systems see the same pairs in each.
    confidence : float, default=0.95
        In (0, 1).
    random_state : int, default=0

    Returns
    -------
    gain : Estimate
        In [-2, 2].

    Raises
    ------
    MetricError
        As :func:`evaluate`.

    Examples
    --------
    >>> truth = [1, 2, 3, 4, 5, 6, 7]
    >>> round(srcc_gain(truth, truth, [1, 2, 3, 4, 5, 7, 6]).value, 4)
    0.0357
    """
    resampled = resampled_srcc_gains(
        y_true,
        y_pred,
        y_reference,
        groups=groups,
        n_bootstrap=n_bootstrap,
        random_state=random_state,
    )
    low, high = percentile_interval(resampled, confidence)
    truth, predicted, reference = _check_both(y_true, y_pred, y_reference)
    value = round(srcc(truth, predicted) - srcc(truth, reference), _DIGITS)
    return Estimate(value, low, high)


def resampled_srcc_gains(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    y_reference: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> FloatArray:
    """Return the gain of :func:`srcc_gain` in every resample, of shape (n_bootstrap,).

    Their standard deviation is the gain's standard error.  The gain is NaN in a resample in which a
    correlation is undefined.  Arguments and errors as in :func:`srcc_gain`.
    """
    truth, predicted, reference = _check_both(y_true, y_pred, y_reference)
    resampled = _bootstrap(
        lambda rows: [srcc(truth[rows], system[rows]) for system in (predicted, reference)],
        _group_rows(len(truth), groups),
        n_bootstrap,
        random_state,
    )
    gains: FloatArray = resampled[:, 0] - resampled[:, 1]
    return gains


def probability_better(
    y_true: ArrayLike | None,
    y_pred: ArrayLike,
    y_reference: ArrayLike,
    *,
    metric: str = "SRCC",
    groups: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    random_state: int = 0,
) -> float:
    """Return how probable it is that a system is better than another, by a paired bootstrap.

    The share of resamples of the pairs in which its metric is better (higher; of MSE lower); a tie
    counts half.

    Parameters
    ----------
    y_true, y_pred, y_reference : array-like of shape (n_pairs,)
        Human scores, the system's and the other's; row ``i`` of all belongs to pair ``i``.
    metric : {"SRCC", "LCC", "KTAU", "MSE"}, default="SRCC"
        An undefined one counts as the worst value, as in `rank_systems`.
    groups : sequence of str of length n_pairs, optional
        Pairs with equal labels, such as those of one caption, are resampled together.
    n_bootstrap : int, default=1000
        Number of resamples; both systems see the same pairs in each.
    random_state : int, default=0

    Returns
    -------
    probability : float
        In [0, 1]; 0.5 of two systems that are the same.

    Raises
    ------
    MetricError
        As :func:`evaluate`.
    UnknownNameError
        If there is no such metric.

    Examples
    --------
    >>> truth = np.arange(20)
    >>> probability_better(truth, truth, -truth), probability_better(truth, truth, truth)
    (1.0, 0.5)
    """
    if metric not in METRICS:
        raise UnknownNameError(f"unknown metric {metric!r}. Expected one of: {', '.join(METRICS)}.")
    truth, predicted, reference = _check_both(y_true, y_pred, y_reference)
    compute = METRICS[metric]
    resampled = _bootstrap(
        lambda rows: [compute(truth[rows], system[rows]) for system in (predicted, reference)],
        _group_rows(len(truth), groups),
        n_bootstrap,
        random_state,
    )
    # Values that are equal but for rounding tie on every processor.
    resampled = np.round(-resampled if metric == "MSE" else resampled, _DIGITS)
    own, other = np.where(np.isnan(resampled), -np.inf, resampled).T
    return float(np.mean((own > other) + 0.5 * (own == other)))


def rank_systems(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return the names from best to worst: SRCC, then LCC, KTAU and MSE break ties.

    An undefined metric counts as the worst value.
    """

    def worst_first(name: str) -> tuple[float, ...]:
        of = evaluations[name]
        values = (float(of.srcc), float(of.lcc), float(of.ktau), -float(of.mse))
        return tuple(-np.inf if np.isnan(value) else round(value, _DIGITS) for value in values)

    return sorted(evaluations, key=worst_first, reverse=True)


def _group_rows(n_pairs: int, groups: Sequence[str] | None) -> Sequence[IntArray]:
    """Return the rows of each group; without groups every row is one."""
    labels: Sequence[object] = range(n_pairs) if groups is None else list(groups)
    if len(labels) != n_pairs:
        raise MetricError(f"{n_pairs} pairs but {len(labels)} labels of groups: give one a pair.")
    rows: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    if len(rows) < 2:
        raise MetricError("all pairs are in one group: an interval over groups needs two or more.")
    return [np.array(numbers, dtype=np.intp) for numbers in rows.values()]


def _bootstrap(
    compute: Callable[[IntArray], list[float]],
    rows_of: Sequence[IntArray],
    n_bootstrap: int,
    random_state: int,
) -> FloatArray:
    """Return what is computed from the rows of resampled groups, (n_bootstrap, n_values)."""
    if n_bootstrap < 1:
        raise MetricError(f"n_bootstrap must be 1 or more, got {n_bootstrap!r}.")
    rng = np.random.default_rng(random_state)
    n_groups, rows = len(rows_of), np.concatenate(rows_of)

    def resample() -> IntArray:
        drawn = rng.integers(n_groups, size=n_groups)
        if len(rows) == n_groups:
            return rows[drawn]  # the same, but quicker
        return np.concatenate([rows_of[group] for group in drawn])

    with warnings.catch_warnings():  # a resample may be constant, which SciPy warns of
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return np.array([compute(resample()) for _ in range(n_bootstrap)])


def percentile_interval(resampled: FloatArray, confidence: float) -> tuple[float, float]:
    """Return the ends of a bootstrap interval, from the resamples in which the value is defined."""
    if not 0 < confidence < 1:
        raise MetricError(f"confidence must lie between 0 and 1, got {confidence!r}.")
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _pearson(a: FloatArray, b: FloatArray) -> float:
    if (a == a[0]).all() or (b == b[0]).all():  # means round, so centred constants may not be 0
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    # Scaled first: 1e-200 squared would underflow.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def _existing(y_true: ArrayLike | None) -> ArrayLike:
    if y_true is None:
        raise MetricError(
            "there are no human scores to compare with: this split has none. "
            "Evaluate on a split whose *_average.csv holds scores."
        )
    return y_true


def _check_both(
    y_true: ArrayLike | None, y_pred: ArrayLike, y_reference: ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    truth, predicted = _check(_existing(y_true), y_pred)
    return truth, predicted, _check(truth, y_reference)[1]


def _check(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[FloatArray, FloatArray]:
    arrays = []
    for name, values in (("human", y_true), ("predicted", y_pred)):
        array = np.asarray(values)
        if array.ndim != 1 or array.dtype.kind not in "fiub":
            raise MetricError(
                f"{name} scores: expected one number a pair, got an array of shape "
                f"{array.shape} and type {array.dtype}."
            )
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            rows = np.flatnonzero(~np.isfinite(array))
            raise MetricError(
                f"{name} scores: {len(rows)} value(s) are NaN or infinite, the first in row "
                f"{rows[0]}. Every pair needs a score."
            )
        arrays.append(array)
    a, b = arrays
    if len(a) != len(b):
        raise MetricError(
            f"{len(a)} human scores but {len(b)} predicted ones. Match them by pair id first; "
            "see xacle_stack.read_predictions."
        )
    if len(a) < 2:
        raise MetricError(f"metrics need at least 2 pairs, got {len(a)}.")
    return a, b
