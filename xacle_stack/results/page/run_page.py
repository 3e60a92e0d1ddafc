"""The page of a run: its table, its plots, and the clips with the scores of the reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from xacle_stack._printable import printable_name
from xacle_stack._types import FloatArray
from xacle_stack.errors import MissingExtraError
from xacle_stack.pairs import Pairs
from xacle_stack.results.page.record import ClipEntry, Plot, Report
from xacle_stack.results.page.write import AudioChoice, write_page
from xacle_stack.results.plots import draw_plots, plot_human_and_predicted, svg_of
from xacle_stack.results.record import CROSS_VALIDATION, Result
from xacle_stack.results.scored import ScoredPairs
from xacle_stack.results.table import ResultsTable
from xacle_stack.results.text_section import TextSection

logger = logging.getLogger(__name__)

_PLOT_TITLES = {
    "srcc": "The SRCC of every system with its interval",
    "srcc-mse": "The SRCC of every system against its mean squared error",
    "difference": "The difference of every system's SRCC to the reference's, with its interval",
    "learning-curve": "The SRCC on held-out pairs against the number of training pairs",
}
_TWO_SPLITS = "The SRCC of every system on one split against that on the other"


def write_run_page(
    results: Sequence[Result],
    splits: Mapping[str, Pairs],
    scores: Mapping[str, Mapping[str, FloatArray]],
    folder: Path,
    *,
    title: str,
    audio: AudioChoice = "link",
    opened_in: Path | None = None,
    assessed: Mapping[str, ScoredPairs] | None = None,
    sections: Sequence[TextSection] = (),
) -> Path:
    """Write the page of a run.

    Parameters
    ----------
    results : sequence of Result
    splits : mapping of str to Pairs
        The pairs of each split that was scored.
    scores : mapping of str to mapping of str to ndarray of shape (n_pairs,)
        By system and split.  The first system is the reference, whose scores the clips have.
    folder, audio, opened_in
        See :func:`~xacle_stack.results.page.write_page`.
    title : str
    assessed : mapping of str to ScoredPairs, optional
        What is known of the reference's scores, by split: their intervals and novelty.
    sections : sequence of TextSection
        The card of the reference.

    Returns
    -------
    page : Path

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    return write_page(
        run_report(results, splits, scores, title=title, assessed=assessed, sections=sections),
        folder,
        audio=audio,
        opened_in=opened_in,
    )


def run_report(
    results: Sequence[Result],
    splits: Mapping[str, Pairs],
    scores: Mapping[str, Mapping[str, FloatArray]],
    *,
    title: str,
    assessed: Mapping[str, ScoredPairs] | None = None,
    sections: Sequence[TextSection] = (),
) -> Report:
    """Return what the page of a run shows; see :func:`write_run_page`."""
    reference, assessed = next(iter(scores)), assessed or {}
    rated = any(pairs.scores is not None for pairs in splits.values())
    clips = [
        entry
        for split, pairs in splits.items()
        for entry in _clips(
            *(split, pairs, [one[split] for one in scores.values()], assessed.get(split)),
            is_only_split=len(splits) == 1,
            is_rated=rated,
        )
    ]
    source = (
        " by fits without the clip's fold, as the figures" if CROSS_VALIDATION in splits else ""
    )
    summary = [f"The clips have the scores of {printable_name(reference)}{source}."]
    spread = "the standard deviation of the systems' scores"
    return Report(
        title,
        summary,
        ResultsTable(results).tables(),
        _plots(results, splits, scores[reference]),
        clips,
        confidence=next((one.confidence for one in assessed.values()), None),
        dispute=Report.dispute if rated else spread,
        card=sections,
        card_title=f"The model: {printable_name(reference)}",
    )


def _clips(
    split: str,
    pairs: Pairs,
    scores: Sequence[FloatArray],
    assessed: ScoredPairs | None,
    *,
    is_only_split: bool,
    is_rated: bool,
) -> list[ClipEntry]:
    known: dict[str, FloatArray | None] = {"human": pairs.scores}
    if len(scores) > 1 and not is_rated:
        known["dispute"] = np.std(scores, axis=0)
    if assessed is not None:
        known |= {"low": assessed.low, "high": assessed.high, "novelty": assessed.novelty}
    systems = pairs.columns.get("system")
    return [
        ClipEntry(
            pairs.ids[row],
            pairs.captions[row],
            None if systems is None else str(systems[row]),
            pairs.audio[row] if pairs.audio else None,
            float(scores[0][row]),
            **{name: float(values[row]) for name, values in known.items() if values is not None},
            columns={
                **({} if is_only_split else {"split": split}),
                **{n: values[row] for n, values in pairs.columns.items() if n != "system"},
            },
        )
        for row in range(len(pairs))
    ]


def _plots(
    results: Sequence[Result], splits: Mapping[str, Pairs], scores: Mapping[str, FloatArray]
) -> list[Plot]:
    if not results:
        return []
    try:
        plots = [
            Plot(_PLOT_TITLES.get(name, _TWO_SPLITS), svg_of(ax))
            for name, ax in draw_plots(results).items()
        ]
        plots += [
            Plot(
                f"Human and predicted scores on {split}",
                svg_of(plot_human_and_predicted(pairs.scores, scores[split], split=split)),
            )
            for split, pairs in splits.items()
            if pairs.scores is not None
        ]
    except MissingExtraError as error:
        logger.warning("No plots on the page: %s", error)
        return []
    return plots
