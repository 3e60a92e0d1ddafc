"""What each learner and each family contributes to a stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from xacle_stack._optional import require
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError
from xacle_stack.metrics import srcc
from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.columns import Columns, sampled_rows
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.learners import COMPRESSED, FittedLearner
from xacle_stack.stacking.ridge import GroupedRidge

if TYPE_CHECKING:
    from xacle_stack.stacking.stacker import Stacker

# Of the largest: how much features that are made again on another machine may differ by rounding.
_ROUNDING = 1e-4
_SAME = "Give explain the X, y, groups and sample_weight that fit was given, in the same order."


@dataclass(frozen=True)
class LearnerShare:
    """One level-0 prediction in a stack.

    Attributes
    ----------
    name : str
    oof_srcc : float
        Of its out-of-fold predictions with the scores.
    weight : float
        The meta-regressor's, for a prediction of unit standard deviation, in units of the final
        score's standard deviation; NaN where the meta-regressor is not linear.
    share : float
        Of the final score's variance: ``cov(weight · prediction, final) / var(final)``.  All
        shares sum to 1.
    """

    name: str
    oof_srcc: float
    weight: float
    share: float


@dataclass(frozen=True)
class FamilyShare:
    """One family in a stack.

    Attributes
    ----------
    name : str
    share : float
        Of the final score (an auxiliary that stands in every family counts for the first): its
        learners' shares; a learner on several families is divided by the
        total relevance or gain that it learned for their columns.  NaN if a learner does not tell.
    srcc_without : float
        Out-of-fold SRCC of the stack when it is fitted without the family; NaN if it is the only
        one.
    loss : float
        What is lost by leaving it out: the whole stack's out-of-fold SRCC less that.
    """

    name: str
    share: float
    srcc_without: float
    loss: float


@dataclass(frozen=True)
class Explanation:
    """What contributes to a stack; made by :meth:`~xacle_stack.Stacker.explain`.

    Attributes
    ----------
    oof_srcc : float
        Of the meta-regressor on the out-of-fold predictions that it was trained on: its few
        weights make it a little better than on new pairs.
    learners : tuple of LearnerShare
    families : tuple of FamilyShare
    """

    oof_srcc: float
    learners: tuple[LearnerShare, ...]
    families: tuple[FamilyShare, ...]

    def __repr__(self) -> str:
        return self.to_markdown()

    def to_markdown(self) -> str:
        """Return two tables."""
        lines = [
            f"Out-of-fold SRCC of the stack: {self.oof_srcc:.4f}",
            "",
            "| level-0 prediction | out-of-fold SRCC | meta weight | share of the score |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {one.name} | {_number(one.oof_srcc)} | {_number(one.weight, '+.3f')} | "
            f"{_percent(one.share)} |"
            for one in self.learners
        ]
        lines += [
            "",
            "| family | share of the score | SRCC without it | loss |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {one.name} | {_percent(one.share)} | {_number(one.srcc_without)} | "
            f"{_number(one.loss)} |"
            for one in self.families
        ]
        return "\n".join(lines)

    def plot(self) -> Any:
        """Return a matplotlib figure: shares of learners and families, and losses."""
        require("matplotlib", extra="plots", purpose="the plot of an explanation")
        import matplotlib.pyplot as plt

        n_rows = max(len(self.learners), len(self.families))
        size = (11, 1.4 + 0.4 * n_rows)
        figure, axes = plt.subplots(1, 3, figsize=size, layout="constrained")
        panels: list[tuple[str, Sequence[LearnerShare | FamilyShare], str]] = [
            ("Level-0 predictions: share of the score", self.learners, "share"),
            ("Families: share of the score", self.families, "share"),
            ("Families: SRCC lost without", self.families, "loss"),
        ]
        for place, (title, bars, form) in enumerate(panels):
            values = [getattr(one, form) for one in bars]
            axis = axes[place]
            drawn = axis.barh([one.name for one in bars], np.nan_to_num(values), color="#0072b2")
            labels = [_percent(value) if form == "share" else _number(value) for value in values]
            axis.bar_label(drawn, labels, padding=3, fontsize=8)
            axis.margins(x=0.25)
            axis.invert_yaxis()
            axis.axvline(0, color="black", lw=0.8)
            axis.set_title(title, loc="left", fontsize=9)
            axis.spines[["top", "right", "left"]].set_visible(False)
            axis.tick_params(labelsize=8)
        return figure


class _WithoutFamily:
    """A table without the columns of one family."""

    def __init__(self, columns: Columns, family: str) -> None:
        self._columns = columns
        self._span = columns.families[family]
        self.shape = (columns.shape[0], columns.shape[1] - self._size)
        self.families = self._kept(columns.families)
        self.blocks = self._kept(columns.blocks)

    @property
    def _size(self) -> int:
        return int(self._span.stop - self._span.start)

    def _kept(self, spans: Mapping[str, slice]) -> dict[str, slice]:
        shift = {
            name: self._size if span.start >= self._span.stop else 0
            for name, span in spans.items()
            if not self._span.start <= span.start < self._span.stop
        }
        return {
            name: slice(spans[name].start - by, spans[name].stop - by) for name, by in shift.items()
        }

    def rows(self, rows: slice, family: str | None = None) -> FloatArray:
        if family is not None:
            return self._columns.rows(rows, family)
        kept: FloatArray = np.delete(self._columns.rows(rows), self._span, axis=1)
        return kept


def training_facts(
    columns: Columns, scores: FloatArray, weights: FloatArray, labels: IntArray | None
) -> dict[str, NDArray[Any]]:
    """Return what training pairs are told by; small, whatever the number of features."""
    return {
        "y": scores,
        "sample_weight": weights,
        "groups": np.arange(len(scores)) if labels is None else labels,
        "X": sampled_rows(columns).mean(axis=1, dtype=np.float64),
    }


def check_same_training(
    fitted: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]]
) -> None:
    """Check that pairs are those of the fit, in its order.

    Raises
    ------
    StackingError
        If they are not; it names what differs.
    """
    n_fitted, n_given = len(fitted["y"]), len(given["y"])
    if n_fitted != n_given:
        raise StackingError(
            f"{n_given} pairs to explain, but the stacker was fitted on {n_fitted}. {_SAME}"
        )
    for name, of_fit in fitted.items():
        rounding = _ROUNDING * float(np.abs(of_fit).max(initial=0.0)) if name == "X" else 0.0
        is_same = np.isclose(given[name], of_fit, rtol=1e-9, atol=rounding)
        if not is_same.all():
            what = f"{name} is not that which the stacker was fitted on"
            if name != "X":
                row = int(np.flatnonzero(~is_same)[0])
                what += f": in row {row} it is {given[name][row]}, not {of_fit[row]}"
            raise StackingError(f"{what}. {_SAME}")


def explain_stack(
    stacker: Stacker,
    columns: Columns,
    y: FloatArray,
    groups: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> Explanation:
    """Return what contributes to a fitted stack; see :meth:`Stacker.explain`."""
    oof = stacker.oof_predictions_
    whole = srcc(y, stacker.meta_predict(oof))
    final = stacker.meta_.predict(oof)
    variance = float(np.var(final)) or 1.0
    coef = np.ravel(getattr(stacker.meta_, "coef_", np.full(oof.shape[1], np.nan)))
    parts = coef * (oof - oof.mean(axis=0))
    shares = (parts * (final - final.mean())[:, np.newaxis]).mean(axis=0) / variance
    weights = coef * oof.std(axis=0) / np.sqrt(variance)
    learners = tuple(
        LearnerShare(name, srcc(y, oof[:, place]), float(weights[place]), float(shares[place]))
        for place, name in enumerate(stacker.level0_names_)
    )
    of_families = _family_shares(stacker, shares)
    families = []
    for name in stacker.families_:
        without = float("nan")
        if len(stacker.families_) > 1:
            rest: Any = clone(stacker).set_params(random_state=stacker.seed_)
            rest.fit(_WithoutFamily(columns, name), y, groups, sample_weight)
            without = srcc(y, rest.meta_predict(rest.oof_predictions_))
        families.append(FamilyShare(name, of_families[name], without, whole - without))
    return Explanation(whole, learners, tuple(families))


def _family_shares(stacker: Stacker, shares: FloatArray) -> dict[str, float]:
    totals = dict.fromkeys(stacker.families_, 0.0)
    of_learners: dict[str, float] = {}
    for name, of_output in zip(stacker.level0_names_, shares.tolist(), strict=True):
        learner_name = name.rpartition("/")[0]
        of_learners[learner_name] = of_learners.get(learner_name, 0.0) + of_output
    for learner, share in zip(stacker.level0_models_, of_learners.values(), strict=True):
        if learner.sees in totals:
            totals[learner.sees] += share
        elif len(totals) == 1:
            totals[next(iter(totals))] += share
        else:
            divided = _relevances(stacker, learner)
            for name in totals:
                totals[name] += share * divided.get(name, float("nan"))
    return totals


def _relevances(stacker: Stacker, learner: FittedLearner) -> dict[str, float]:
    """Return the part of each family in what a learner on compressed blocks has learned."""
    compression = stacker.compression_
    if learner.sees != COMPRESSED or compression is None:
        return {}
    by_family = dict.fromkeys(stacker.families_, 0.0)
    for model in learner.models:
        by_column = np.zeros(compression.n_features_out_)
        columns = slice(None) if learner.columns is None else learner.columns
        if isinstance(model, BlockGaussianProcess):
            relevance = model.amplitude_ @ model.relevance_
            for span, value in zip(compression.blocks_.values(), relevance, strict=True):
                by_column[span] = value / (span.stop - span.start)
        elif isinstance(model, BoostedTrees):
            by_column[columns] = model.gain_
        elif isinstance(model, GroupedRidge):  # of one family: whatever is above zero
            by_column[columns] = 1.0
        else:
            return {}
        for name, span in compression.blocks_.items():
            # Of a principal component each column has its squared loading.
            axes = compression.axes_.get(name, np.eye(span.stop - span.start))
            of_block = np.square(axes) @ by_column[span]
            start = compression.blocks[name].start
            for family, of_family in stacker.families_.items():
                low, high = (np.clip(end - start, 0, len(of_block)) for end in _ends(of_family))
                by_family[family] += float(of_block[low:high].sum())
    total = sum(by_family.values())
    return {family: value / total for family, value in by_family.items()} if total else {}


def _ends(span: slice) -> tuple[int, int]:
    return span.start, span.stop


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"


def _number(value: float, form: str = ".4f") -> str:
    return "–" if np.isnan(value) else format(value, form)
