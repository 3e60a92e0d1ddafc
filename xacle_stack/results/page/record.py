"""What a page shows: sentences, tables, plots and clips, as records without any markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xacle_stack.audio import ClipSource
from xacle_stack.results.text_section import TextSection
from xacle_stack.results.text_table import TextTable


@dataclass(frozen=True)
class Plot:
    """A plot as an SVG document, drawn for a light background; it is shown as a picture.

    The title says what is drawn, for readers who do not see it.
    """

    title: str
    svg: str
    caption: str = ""


@dataclass(frozen=True, eq=False)
class ClipEntry:
    """A scored pair.

    Attributes
    ----------
    id, text : str
        The pair's id and its caption.
    system : str or None
        The generator that the clip comes from.
    audio : Path or ClipSource or None
    score : float
        From 0 to 10.
    low, high : float, optional
        The ends of the score's interval.
    novelty : float, optional
        Above 1, the pair is unlike those that the scorer was fitted on.
    human : float, optional
        The mean human score, from 0 to 10.
    columns : mapping of str to value, optional
        What else the user's table says of the pair.
    dispute : float, optional
        How much the pair is disputed; by default the distance of the human score and the score.
        :attr:`Report.dispute` says in words what it is.
    """

    id: str
    text: str
    system: str | None
    audio: Path | ClipSource | None
    score: float
    low: float | None = None
    high: float | None = None
    novelty: float | None = None
    human: float | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    dispute: float | None = None

    @property
    def width(self) -> float | None:
        """The width of the interval."""
        return None if self.low is None or self.high is None else self.high - self.low

    @property
    def disputed_by(self) -> float | None:
        """How much the pair is disputed, or None if nothing is known of it."""
        if self.dispute is not None:
            return self.dispute
        return None if self.human is None else abs(self.human - self.score)


@dataclass(frozen=True, eq=False)
class Report:
    """The content of a page.

    Attributes
    ----------
    title : str
    summary : sequence of str
        Sentences at the top, a paragraph each.
    tables : sequence of TextTable
    plots : sequence of Plot
    clips : sequence of ClipEntry
        Every scored pair, in any order.
    confidence : float, optional
        That of the clips' intervals, such as 0.9.
    dispute : str, optional
        What it means that a clip is disputed.
    card : sequence of TextSection, optional
        What the model is that the scores are from; above the clips, folded.
    card_title : str, optional
    """

    title: str
    summary: Sequence[str] = ()
    tables: Sequence[TextTable] = ()
    plots: Sequence[Plot] = ()
    clips: Sequence[ClipEntry] = ()
    confidence: float | None = None
    dispute: str = "the distance between the human and the predicted score"
    card: Sequence[TextSection] = ()
    card_title: str = "The model"


def rank_lists(clips: Sequence[ClipEntry]) -> list[list[int]]:
    """Return the rows of the clips, ordered as each of the page's lists orders them.

    The lists are: worst, best, most uncertain, most novel, most disputed; those that nothing is
    known for are left out.

    Examples
    --------
    >>> rank_lists([ClipEntry("a", "rain", None, None, 7), ClipEntry("b", "a dog", None, None, 2)])
    [[1, 0], [0, 1]]
    """
    keys: list[list[float | None]] = [
        [-clip.score for clip in clips],
        [clip.score for clip in clips],
        [clip.width for clip in clips],
        [clip.novelty for clip in clips],
        [clip.disputed_by for clip in clips],
    ]
    lists = []
    for values in keys:
        known = {
            row: value
            for row, value in enumerate(values)
            if value is not None and not math.isnan(value)
        }
        if known:
            lists.append(sorted(known, key=lambda row: -known[row]))
    return lists
