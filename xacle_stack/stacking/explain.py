"""Explains what each learner and each family contributes to a stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from xacle_stack._optional import require
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError, UnknownNameError
from xacle_stack.metrics import Estimate, srcc
from xacle_stack.stacking.block_pca import BlockPCA
from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.learners import FittedLearner
from xacle_stack.table import FeatureTable

# Features that are made again on another machine may differ by this share of the largest.
_ROUNDING = 1e-4
# `explain` recognises the training pairs by this many runs of this many rows.
_N_RUNS, _RUN_ROWS = 8, 16
_SAME = "Give explain the X, y, groups and sample_weight that fit was given, in the same order."
_NEGATIVE = (
    "A negative share: the final score moves against this prediction, because the meta-regressor "
    "uses it to correct others that resemble it. All shares sum to 100 %."
)


@dataclass(frozen=True)
class LearnerShare:
    """One level-0 prediction in a stack.

    Attributes
    ----------
    name : str
        ``"learner/target"``.
    oof_srcc : float
        The SRCC of its out-of-fold predictions with the scores.
    weight : float
        The meta-regressor's weight for a prediction of unit standard deviation, in units of the
        final score's standard deviation; the mean over the pairs where it depends on the pair, and
        NaN where the meta-regressor has no weights.
    share : float
        Its part of the final score's variance: ``cov(weight · prediction, final) / var(final)``.
        All shares sum to 1.
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
        Its part of the final score's variance.  A learner on several families is divided by the
        relevance or gain that it learned for their columns, and a block that families share is
        divided equally among them.  NaN if a learner does not tell.
    srcc_without : float
        The out-of-fold SRCC of the stack when it is fitted without the family; NaN if it is the
        only one.
    loss : Estimate or None
        The whole stack's out-of-fold SRCC less `srcc_without`, with its 95 % interval from a
        bootstrap of the pairs; None if this is the only family.
    """

    name: str
    share: float
    srcc_without: float
    loss: Estimate | None


Share = TypeVar("Share", LearnerShare, FamilyShare)


class ShareTable(Sequence[Share], Generic[Share]):
    """Records in rows, found by number or by name.

    Parameters
    ----------
    records : sequence of LearnerShare or of FamilyShare
    headings : mapping of str to str
        What the columns are called in a table, by field.

    Examples
    --------
    >>> table = ShareTable([LearnerShare("ridge/score", 0.7, 1.0, 1.0)], {"name": "prediction"})
    >>> table["ridge/score"].oof_srcc, len(table)
    (0.7, 1)
    """

    def __init__(self, records: Sequence[Share], headings: Mapping[str, str]) -> None:
        self._records: tuple[Share, ...] = tuple(records)
        self._headings = dict(headings)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Share]:
        return iter(self._records)

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return self._records[key]
        for record in self._records:
            if record.name == key:
                return record
        names = ", ".join(repr(record.name) for record in self._records)
        raise UnknownNameError(f"no row {key!r}; there are: {names}.")

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{escape(text)}</th>" for text in self._headings.values())
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._cells()
        )
        return f"<table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>"

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [list(self._headings.values()), ["---"] * len(self._headings), *self._cells()]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, one row a record, with intervals as columns of their own."""
        pandas = require("pandas", extra="notebooks", purpose="the table as a data frame")
        rows = []
        for record in self._records:
            row = asdict(record)
            if isinstance(record, FamilyShare):
                loss = record.loss or Estimate(np.nan, np.nan, np.nan)
                row |= {"loss": loss.value, "loss_low": loss.low, "loss_high": loss.high}
            rows.append(row)
        return pandas.DataFrame(rows).set_index("name")

    def _cells(self) -> list[list[str]]:
        return [[_shown(field, getattr(one, field)) for field in self._headings] for one in self]


@dataclass(frozen=True, repr=False)
class Explanation:
    """The contributions to a stack; made by :meth:`~xacle_stack.Stacker.explain`.

    It is shown as two tables, in a notebook as HTML.

    Attributes
    ----------
    oof_srcc : float
        The SRCC of the meta-regressor on the out-of-fold predictions that it was trained on: its
        few weights make it a little better than on new pairs.
    learners : ShareTable of LearnerShare
    families : ShareTable of FamilyShare
    """

    oof_srcc: float
    learners: ShareTable[LearnerShare]
    families: ShareTable[FamilyShare]

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        tables = (self.learners._repr_html_(), self.families._repr_html_())
        texts = [f"<p>{escape(text)}</p>" for text in (self._title, *self._notes)]
        return "".join([texts[0], *tables, *texts[1:]])

    def to_markdown(self) -> str:
        """Return two tables."""
        tables = (self.learners.to_markdown(), self.families.to_markdown())
        return "\n\n".join([self._title, *tables, *self._notes])

    def to_frame(self) -> Any:
        """Return a pandas DataFrame of the families; `learners` has a ``to_frame`` of its own."""
        return self.families.to_frame()

    def plot(self, ax: Any = None) -> Any:
        """Draw the SRCC that is lost without each family, with 95 % intervals.

        A stack of one family has nothing to leave out; of it, the out-of-fold SRCC of each level-0
        prediction is drawn.  By default the axes are those of a new figure.
        """
        # Only a plot needs the results, and they need modules that read files.
        from xacle_stack.results.plot_style import (
            GREY,
            draw_dot_rows,
            new_axes,
            set_finding,
            style_axes,
        )

        points: list[tuple[str, Estimate]]
        is_loss = len(self.families) > 1
        if is_loss:
            points = [(one.name, one.loss) for one in self.families if one.loss is not None]
            finding, header = self._finding, "SRCC lost"
            label = "out-of-fold SRCC lost without the family, 95% bootstrap interval"
        else:
            points = [(one.name, Estimate(one.oof_srcc, np.nan, np.nan)) for one in self.learners]
            finding, header = "How well each level-0 prediction ranks the pairs", "SRCC"
            label = "out-of-fold SRCC"
        points.sort(key=lambda point: -point[1].value)
        names, estimates = zip(*points, strict=True)
        if ax is None:
            (ax,) = new_axes(8.0, 1.4 + 0.3 * len(points))
        draw_dot_rows(ax, names, {header: estimates}, signed=is_loss)
        style_axes(ax, x_label=label, grid="x")
        if is_loss:
            ax.axvline(0, color=GREY, linewidth=1, zorder=1)
        set_finding(ax, finding)
        return ax

    @property
    def _finding(self) -> str:
        losses = {one.name: one.loss for one in self.families if one.loss is not None}
        name, loss = max(losses.items(), key=lambda item: item[1].value)
        if loss.low > 0:
            return f"Without {name} the stack loses most: {loss} of SRCC"
        return "The stack is not clearly worse without any one family"

    @property
    def _title(self) -> str:
        return f"Out-of-fold SRCC of the stack: {self.oof_srcc:.4f}"

    @property
    def _notes(self) -> list[str]:
        shares = [*(one.share for one in self.learners), *(one.share for one in self.families)]
        return [_NEGATIVE] if min(shares, default=0.0) < 0 else []


def explanation(
    oof_srcc: float,
    learners: Sequence[LearnerShare],
    family_shares: Mapping[str, float],
    losses: Mapping[str, tuple[float, Estimate]],
) -> Explanation:
    """Put the parts of an explanation together.

    `losses` has, for each family that was left out, the SRCC without it and what is lost.
    """
    families = [
        FamilyShare(name, share, *losses.get(name, (float("nan"), None)))
        for name, share in family_shares.items()
    ]
    learner_headings = ["level-0 prediction", "out-of-fold SRCC", "meta weight", "share of score"]
    family_headings = ["family", "share of score", "SRCC without it", "SRCC lost [95 % interval]"]
    return Explanation(
        oof_srcc,
        ShareTable(learners, _headings(LearnerShare, learner_headings)),
        ShareTable(families, _headings(FamilyShare, family_headings)),
    )


def learner_shares(
    names: Sequence[str],
    oof: FloatArray,
    y: FloatArray,
    meta: Any,
    context: Mapping[str, FloatArray],
) -> list[LearnerShare]:
    """Return what each level-0 prediction contributes.

    `oof` has the out-of-fold predictions in columns, on which the regressor `meta` was fitted, and
    `context` what else it was given of the pairs.
    """
    final = meta.predict(oof, **context)
    variance = float(np.var(final)) or 1.0
    coef = np.ravel(getattr(meta, "coef_", np.full(oof.shape[1], np.nan)))
    parts = meta.contributions(oof, **context) if hasattr(meta, "contributions") else coef * oof
    parts = parts - parts.mean(axis=0)
    shares = (parts * (final - final.mean())[:, np.newaxis]).mean(axis=0) / variance
    weights = coef * oof.std(axis=0) / np.sqrt(variance)
    return [
        LearnerShare(name, srcc(y, column), float(weight), float(share))
        for name, column, weight, share in zip(names, oof.T, weights, shares, strict=True)
    ]


def family_shares(
    families: Mapping[str, Sequence[str]],
    blocks: Mapping[str, slice],
    learners: Sequence[FittedLearner],
    shares: Sequence[float],
    compression: BlockPCA | None,
) -> dict[str, float]:
    """Divide the shares of the learners, one for each of their outputs, among the families."""
    totals = dict.fromkeys(families, 0.0)
    by_blocks = {tuple(names): family for family, names in families.items()}
    remaining = iter(shares)
    for learner in learners:
        share = sum(next(remaining) for _ in learner.targets)
        if len(totals) == 1:
            parts = dict.fromkeys(families, 1.0)
        elif learner.view.blocks in by_blocks:
            parts = {by_blocks[learner.view.blocks]: 1.0}
        else:
            relevances = _block_relevances(learner, blocks, compression)
            parts = dict.fromkeys(families, 0.0 if relevances else float("nan"))
            for block, relevance in relevances.items():
                owners = [family for family, names in families.items() if block in names]
                for family in owners:
                    parts[family] += relevance / len(owners)
        for family, part in parts.items():
            totals[family] += share * part
    return totals


def _block_relevances(
    learner: FittedLearner, blocks: Mapping[str, slice], compression: BlockPCA | None
) -> dict[str, float]:
    """Return each compressed block's part, of sum 1, in a learner; none if it does not tell."""
    if not learner.view.compressed or compression is None:
        return {}
    by_column = np.zeros(max(block.stop for block in blocks.values()))
    for model in learner.models:
        component = np.zeros(compression.n_features_out_)
        if isinstance(model, BlockGaussianProcess):
            relevance = model.amplitude_ @ model.relevance_
            for span, value in zip(compression.blocks_.values(), relevance, strict=True):
                component[span] = value / (span.stop - span.start)
        elif isinstance(model, BoostedTrees):
            columns = np.arange(float(len(component)))[np.newaxis]
            seen = learner.view.select(columns, compression.blocks_)[0].astype(np.intp)
            component[seen] = model.gain_
        else:
            return {}
        for name, span in compression.blocks_.items():
            # A column's part in a principal component is its squared loading.
            axes = compression.axes_.get(name, np.eye(span.stop - span.start))
            by_column[compression.blocks[name]] += np.square(axes) @ component[span]
    total = by_column.sum()
    return {name: float(by_column[s].sum() / total) for name, s in blocks.items()} if total else {}


def training_facts(
    table: FeatureTable, scores: FloatArray, weights: FloatArray, labels: IntArray | None
) -> dict[str, NDArray[Any]]:
    """Return what identifies training pairs; it is small, whatever the number of features."""
    n_rows = len(table)
    starts = {int(start) for start in np.linspace(0, max(n_rows - _RUN_ROWS, 0), _N_RUNS)}
    rows = [table.rows(slice(first, min(first + _RUN_ROWS, n_rows))) for first in sorted(starts)]
    return {
        "y": scores,
        "sample_weight": weights,
        "groups": np.arange(len(scores)) if labels is None else labels,
        "X": np.concatenate(rows).mean(axis=1, dtype=np.float64),
    }


def check_same_training(
    fitted: Mapping[str, NDArray[Any]], given: Mapping[str, NDArray[Any]]
) -> None:
    """Check that pairs are those of the fit, in its order; a StackingError names what differs."""
    n_fitted, n_given = len(fitted["y"]), len(given["y"])
    if n_fitted != n_given:
        raise StackingError(
            f"{n_given} pairs to explain, but the stacker was fitted on {n_fitted}. {_SAME}"
        )
    for name, expected in fitted.items():
        rounding = _ROUNDING * float(np.abs(expected).max(initial=0.0)) if name == "X" else 0.0
        is_same = np.isclose(given[name], expected, rtol=1e-9, atol=rounding)
        if not is_same.all():
            what = f"{name} is not the one that the stacker was fitted on"
            if name != "X":
                row = int(np.flatnonzero(~is_same)[0])
                what += f": in row {row} it is {given[name][row]}, not {expected[row]}"
            raise StackingError(f"{what}. {_SAME}")


def _headings(record: type, headings: Sequence[str]) -> dict[str, str]:
    return dict(zip((field.name for field in fields(record)), headings, strict=True))


def _shown(field: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or np.isnan(float(value)):
        return "–"
    if isinstance(value, Estimate):
        return str(value)
    return format(value, {"share": ".1%", "weight": "+.3f"}.get(field, ".4f"))
