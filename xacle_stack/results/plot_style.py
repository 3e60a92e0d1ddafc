"""The style of every plot: titles that state the finding, light grids, names beside the marks.

Colours are of Okabe and Ito's palette, which colour-blind readers can tell apart, and whatever a
colour says a mark says too.  Names never stand over a mark, an axis or another name.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.optimize import isotonic_regression

from xacle_stack._optional import require
from xacle_stack._printable import printable_name, short_name
from xacle_stack.metrics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
BLACK, GREY, LIGHT_GREY = "#000000", "#666666", "#DDDDDD"
DPI = 130

FONT_SIZE = 9
_LINE_HEIGHT = 1.25  # of the font size
_POINTS_PER_INCH = 72
MAX_NAME_CHARS = 44
_MARK_RADIUS = 6  # points, with some room around the mark

# Left, bottom, right and top, in pixels.
_Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class MarkStyle:
    """How the marks of one series look."""

    colour: str
    marker: str
    is_filled: bool = True

    @property
    def glyph(self) -> str:
        """The character that looks like the mark."""
        return _GLYPHS[self.marker][not self.is_filled]

    def settings(self) -> dict[str, Any]:
        """Return Matplotlib's settings of a line that consists of such marks."""
        face = self.colour if self.is_filled else "white"
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": face,
            "linestyle": "none",
        }


_GLYPHS = {"o": "●○", "D": "◆◇", "^": "▲△", "s": "■□", "x": "××"}

# The last of several splits, which is usually the test split, has the first style.
SERIES_STYLES = (
    MarkStyle(BLUE, "o"),
    MarkStyle(ORANGE, "D", is_filled=False),
    MarkStyle(GREEN, "^"),
    MarkStyle(BLACK, "s", is_filled=False),
)
MUTED_STYLE = MarkStyle(GREY, "x")


def new_axes(width: float, height: float, n_rows: int = 1) -> list[Axes]:
    """Return the axes of a new figure, one below the other.

    The figure does not belong to pyplot, so nothing has to close it.

    Parameters
    ----------
    width, height : float
        The size of the whole figure in inches.
    n_rows : int, default=1

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    module = require("matplotlib.figure", extra="plots", purpose="drawing a plot")
    figure = module.Figure(figsize=(width, height), layout="constrained")
    if n_rows == 1:
        return [figure.subplots()]
    # In a figure of its own, each row keeps its width when names are written beside another row.
    return [row.subplots() for row in figure.subfigures(n_rows, 1, squeeze=False)[:, 0]]


def figure_of(ax: Axes) -> Figure:
    """Return the whole figure that axes belong to."""
    return cast("Figure", ax.get_figure(root=True))  # None only for axes that were removed


def style_axes(ax: Axes, *, x_label: str, y_label: str = "", grid: str = "both") -> None:
    """Set the labels, the light grid and the frame of axes.

    Parameters
    ----------
    ax : Axes
    x_label, y_label : str
        With units.
    grid : {"both", "x", "y"}, default="both"
    """
    ax.set_xlabel(x_label, fontsize=FONT_SIZE)
    ax.set_ylabel(y_label, fontsize=FONT_SIZE)
    ax.tick_params(labelsize=FONT_SIZE, color=GREY)
    ax.grid(axis=grid, color=LIGHT_GREY, linewidth=0.8)  # type: ignore[arg-type]  # a literal
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GREY)


def set_finding(ax: Axes, finding: str) -> None:
    """Write a title that states the finding, at the left and in as many lines as it needs.

    Call this last: the width depends on what stands beside the axes.

    Parameters
    ----------
    ax : Axes
    finding : str
    """
    text = plain_text(finding)
    figure = figure_of(ax)
    figure.draw_without_rendering()
    frame = ax.get_window_extent()
    # The title ends before the next panel.
    panels = [other.get_tightbbox() for other in figure.axes if other is not ax]
    starts = [panel.x0 for panel in panels if panel is not None and panel.x0 > frame.x1]
    available = min([figure.bbox.width, *starts]) - frame.x0
    style: dict[str, Any] = {"fontsize": FONT_SIZE + 1, "fontweight": "bold"}
    max_chars = 0.95 * len(text) * available / _text_size(ax, text, **style)[0]
    ax.set_title(textwrap.fill(text, max(10, int(max_chars))), loc="left", **style)


def plain_text(text: str) -> str:
    r"""Return a text on one line that Matplotlib does not take for a formula.

    Examples
    --------
    >>> print(plain_text("costs $5"))
    costs \$5
    """
    return printable_name(text).replace("$", r"\$")


def draw_dot_rows(
    ax: Axes,
    names: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    *,
    muted: Collection[int] = (),
    signed: bool = False,
) -> None:
    """Draw a row of dots with intervals for each name, and write the numbers at the right.

    Parameters
    ----------
    ax : Axes
    names : sequence of str
        From top to bottom.
    series : mapping of str to sequence of Estimate or None
        For each series, an estimate for each name, None where there is none.  Up to four series
        have styles of their own; their names stand above their numbers.
    muted : collection of int, optional
        Rows to draw in grey and with another mark.
    signed : bool, default=False
        Whether the numbers are differences, which have signs.
    """
    rows = np.arange(len(names))
    ax.set_yticks(rows, [plain_text(short_name(name, MAX_NAME_CHARS)) for name in names])
    ax.set_ylim(len(names) - 0.4, -1.1)  # the first row is at the top, below the headers
    figure_of(ax).draw_without_rendering()  # settles the height of the axes
    font_size = font_size_for(ax, len(names) + 1)
    ax.tick_params(axis="y", length=0, labelsize=font_size)
    for row in muted:
        ax.get_yticklabels()[row].set_color(GREY)
    texts = {
        name: ["" if e is None else f"{e:+}" if signed else str(e) for e in estimates]
        for name, estimates in series.items()
    }
    column = 8.0  # points from the axes
    for position, (name, estimates) in enumerate(series.items()):
        style = SERIES_STYLES[(len(series) - 1 - position) % len(SERIES_STYLES)]
        offset = 0.0 if len(series) == 1 else 0.36 * (position / (len(series) - 1) - 0.5)
        header = f"{style.glyph} {plain_text(name)}" if len(series) > 1 else plain_text(name)
        for row, estimate in enumerate(estimates):
            if estimate is None or math.isnan(estimate.value):
                continue
            row_style = MUTED_STYLE if row in muted else style
            if not math.isnan(estimate.low) and not math.isnan(estimate.high):
                ends = [estimate.low, estimate.high]
                ax.plot(ends, [row + offset] * 2, color=row_style.colour, linewidth=1.6)
            ax.plot(estimate.value, row + offset, markersize=6, **row_style.settings())
        for y, text in [(-0.8, header), *enumerate(texts[name])]:
            ax.annotate(
                text,
                (1, y),
                xycoords=ax.get_yaxis_transform(),
                xytext=(column, 0),
                textcoords="offset points",
                fontsize=font_size,
                va="center",
                color=GREY if y in muted else style.colour,
                annotation_clip=False,
            )
        widest = max(_text_size(ax, text, fontsize=font_size)[0] for text in [header, *texts[name]])
        column += widest / figure_of(ax).dpi * _POINTS_PER_INCH + 12


def label_points(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    *,
    muted: Collection[int] = (),
) -> None:
    """Write each point's name beside it, or all names at the right with lines to their points.

    Names stand beside their points only if all of them have room there.  Call this last, when the
    marks are drawn and the limits of the axes are set.

    Parameters
    ----------
    ax : Axes
    points : sequence of (float, float)
        In the units of the axes.
    names : sequence of str
        One for each point.
    muted : collection of int, optional
        Names to write in grey.
    """
    shown = [plain_text(short_name(name, MAX_NAME_CHARS)) for name in names]
    figure_of(ax).draw_without_rendering()  # settles the size of the axes
    offsets = _offsets_beside(ax, points, shown)
    pixels_per_point = figure_of(ax).dpi / _POINTS_PER_INCH
    colours = [GREY if index in muted else BLACK for index in range(len(names))]
    if offsets is None:
        _label_at_the_right(ax, points, shown, colours)
        return
    for point, offset, name, colour in zip(points, offsets, shown, colours, strict=True):
        ax.annotate(
            name,
            point,
            xytext=(offset[0] / pixels_per_point, offset[1] / pixels_per_point),
            textcoords="offset points",  # at any resolution that the figure is saved with
            fontsize=FONT_SIZE,
            color=colour,
            va="bottom",
            in_layout=False,
        )


def _offsets_beside(
    ax: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]
) -> list[tuple[float, float]] | None:
    """Return where each name's lower left corner goes, in pixels from its point, or None."""
    pixels_per_point = figure_of(ax).dpi / _POINTS_PER_INCH
    gap = _MARK_RADIUS * pixels_per_point
    inside = ax.get_window_extent()
    marks = [ax.transData.transform(point) for point in points]
    taken = [(x - gap, y - gap, x + gap, y + gap) for x, y in marks]
    # Lines such as the diagonal, as small boxes along them.
    for line in ax.get_lines():
        if line.get_linestyle() != "None":
            ends = ax.transData.transform(line.get_xydata())
            for x, y in np.linspace(ends[0], ends[-1], 200):
                taken.append((x - 1, y - 1, x + 1, y + 1))
    offsets = []
    for (x, y), name in zip(marks, names, strict=True):
        width, height = _text_size(ax, name)
        candidates = [
            (gap, -height / 2),
            (-gap - width, -height / 2),
            (-width / 2, gap),
            (-width / 2, -gap - height),
            *((dx, dy) for dx in (gap, -gap - width) for dy in (gap / 2, -gap / 2 - height)),
        ]
        for dx, dy in candidates:
            box = (x + dx, y + dy, x + dx + width, y + dy + height)
            fits = inside.x0 + 2 < box[0] and box[2] < inside.x1
            fits = fits and inside.y0 + 2 < box[1] and box[3] < inside.y1
            if fits and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                offsets.append((dx, dy))
                break
        else:
            return None
    return offsets


def _label_at_the_right(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
) -> None:
    """Write the names in a column outside the axes, in the order of their points."""
    to_fractions = ax.transData + ax.transAxes.inverted()
    heights = np.array([to_fractions.transform(point)[1] for point in points])
    order = np.lexsort((-np.arange(len(points)), heights))  # of equal ones the first is higher
    font_size = font_size_for(ax, len(points))
    line = _LINE_HEIGHT * font_size / axes_height(ax)
    # The places nearest to the points, in the least squares, with a line between neighbours.
    steps = line * np.arange(len(points))
    places = isotonic_regression(heights[order] - steps).x
    places = np.clip(places, line / 2, max(line / 2, 1 - line / 2 - steps[-1])) + steps
    for row, place in zip(order, places, strict=True):
        ax.annotate(
            names[row],
            points[row],
            xytext=(1.03, place),
            textcoords="axes fraction",
            fontsize=font_size,
            color=colours[row],
            va="center",
            annotation_clip=False,
            zorder=1,  # no line crosses a mark
            arrowprops={
                "arrowstyle": "-",
                "color": "#BBBBBB",
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": _MARK_RADIUS,
                "relpos": (0, 0.5),
            },
        )


def axes_height(ax: Axes) -> float:
    """Return the height of axes in points."""
    figure = figure_of(ax)
    return float(ax.get_window_extent().height / figure.dpi * _POINTS_PER_INCH)


def font_size_for(ax: Axes, n_lines: int) -> float:
    """Return the size of type in which so many lines fit beside the axes."""
    return min(FONT_SIZE, axes_height(ax) / (_LINE_HEIGHT * n_lines))


def _text_size(ax: Axes, text: str, **style: Any) -> tuple[float, float]:
    """Return the width and the height of a text in pixels."""
    artist = ax.text(0, 0, text, **{"fontsize": FONT_SIZE, **style})
    extent = artist.get_window_extent()
    artist.remove()
    return float(extent.width), float(extent.height)


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
