"""The plots of results: each function draws into axes and returns them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xacle_stack._files import name_in_files, path_in_errors
from xacle_stack._printable import short_name
from xacle_stack.errors import MetricError
from xacle_stack.metrics import Estimate, format_number
from xacle_stack.results.plot_style import (
    DPI,
    FONT_SIZE,
    GREY,
    MAX_NAME_CHARS,
    MUTED_STYLE,
    SERIES_STYLES,
    draw_dot_rows,
    figure_of,
    label_points,
    new_axes,
    plain_text,
    set_finding,
    style_axes,
)
from xacle_stack.results.record import Result, by_split, reference_of, with_learning_curve
from xacle_stack.results.table import shown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH = 8.0  # inches, about the width of a README's column


def plot_srcc(results: Iterable[Result], *, ax: Axes | None = None) -> Axes:
    """Draw each system's SRCC with its interval, on every split.

    Parameters
    ----------
    results : iterable of Result
        Published results are drawn in grey below the others.
    ax : Axes, optional
        Where to draw; by default in a new figure of a fitting size.

    Returns
    -------
    ax : Axes

    Raises
    ------
    MissingExtraError
        If Matplotlib is not installed.
    """
    splits = by_split(results)
    best, last = _best_of_last_split(splits)
    ax = _plot_rows(
        ax,
        splits,
        lambda result: result.evaluation.srcc,
        f"SRCC, {best.evaluation.confidence:.0%} bootstrap interval",
    )
    set_finding(ax, f"{_title_name(best)} has the highest SRCC on {last}: {best.evaluation.srcc}")
    return ax


def plot_difference(results: Iterable[Result], *, ax: Axes | None = None) -> Axes:
    """Draw the difference of each system's SRCC to the reference's, with its interval.

    The title calls a system clearly better if its whole interval lies above 0.  Everything else is
    as in :func:`plot_srcc`; a MetricError says that no result has a difference.
    """
    results = list(results)
    splits = by_split(result for result in results if result.difference is not None)
    if not splits:
        raise MetricError(
            "no result has a difference to draw. Pass the reference's scores to Result.from_scores."
        )
    best, last = _best_of_last_split(splits)
    reference = short_name(reference_of(results) or "the reference", MAX_NAME_CHARS)
    interval = f"{best.evaluation.confidence:.0%} paired bootstrap interval"
    ax = _plot_rows(
        ax,
        splits,
        lambda result: result.difference,
        f"SRCC minus that of {plain_text(reference)}\n{interval}",
        signed=True,
    )
    ax.axvline(0, color=GREY, linewidth=1, zorder=1)
    lows = [result.difference.low for result in splits[last] if result.difference is not None]
    n_better = sum(low > 0 for low in lows)
    if n_better:
        verb = "is" if n_better == 1 else "are"
        finding = f"{n_better} of {len(lows)} systems {verb} clearly better than {reference}"
    else:
        finding = f"No system is clearly better than {reference}"
    finding += f" on {last}"
    set_finding(ax, finding)
    return ax


def plot_srcc_and_mse(
    results: Iterable[Result], *, split: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw each system's SRCC against its mean squared error, on a split or on the last one.

    Everything else is as in :func:`plot_srcc`.
    """
    splits = by_split(results)
    split = list(splits)[-1] if split is None else split
    shown = splits[split]
    if ax is None:
        (ax,) = new_axes(_WIDTH, _points_height(len(shown)))
    style_axes(
        ax, x_label="SRCC (higher is better)", y_label="MSE, squared points (lower is better)"
    )
    best = shown[0]
    closest = min(
        (result for result in shown if not result.is_published),
        key=lambda result: float(result.evaluation.mse),
    )
    if best is closest:
        finding = f"{_title_name(best)} has the highest SRCC and the lowest MSE on {split}"
    else:
        finding = (
            f"{_title_name(best)} has the highest SRCC on {split}, "
            f"{_title_name(closest)} the lowest MSE"
        )
    _plot_points(
        ax,
        shown,
        [(float(result.evaluation.srcc), float(result.evaluation.mse)) for result in shown],
    )
    set_finding(ax, finding)
    return ax


def plot_two_splits(
    results: Iterable[Result],
    *,
    splits: tuple[str, str] = ("validation", "test"),
    ax: Axes | None = None,
) -> Axes:
    """Draw each system's SRCC on one split against that on another.

    The splits are those of the horizontal and of the vertical axis.  A system without a result on
    both is left out.  Everything else is as in :func:`plot_srcc`.
    """
    found = by_split(results)
    first, second = (
        {(result.system, result.kind): result for result in found[split]} for split in splits
    )
    shown = [result for key, result in second.items() if key in first]
    points = [
        (float(first[result.system, result.kind].evaluation.srcc), float(result.evaluation.srcc))
        for result in shown
    ]
    if ax is None:
        (ax,) = new_axes(_WIDTH, _points_height(len(shown)))
    style_axes(ax, x_label=f"SRCC on {splits[0]}", y_label=f"SRCC on {splits[1]}")
    low, high = min(map(min, points)), max(map(max, points))
    ax.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle="--")
    _plot_points(ax, shown, points)
    n_lower = sum(y < x for x, y in points)
    n_systems = f"{n_lower} of {len(points)} systems"
    set_finding(ax, f"The SRCC is lower on {splits[1]} than on {splits[0]} for {n_systems}")
    return ax


def plot_learning_curve(results: Iterable[Result], *, ax: Axes | None = None) -> Axes:
    """Draw the SRCC, with its interval, against the number of training pairs.

    Shows the first result with a learning curve; a MetricError says that there is none.  Everything
    else is as in :func:`plot_srcc`.
    """
    found = with_learning_curve(results)
    if not found:
        raise MetricError("no result has a learning curve to draw. cross_validate measures one.")
    result, curve = found[0]
    if ax is None:
        (ax,) = new_axes(_WIDTH, 3.4)
    confidence = f"{result.evaluation.confidence:.0%}"
    style_axes(
        ax,
        x_label="training pairs, on a logarithmic scale",
        y_label=f"SRCC on held-out pairs,\n{confidence} bootstrap interval",
    )
    ax.set_xscale("log", base=2)
    ax.set_xticks(curve.n_training_pairs, [f"{n:,}" for n in curve.n_training_pairs])
    ax.minorticks_off()
    style = SERIES_STYLES[0]
    values = [estimate.value for estimate in curve.srcc]
    ax.plot(curve.n_training_pairs, values, color=style.colour, linewidth=0.8)
    following = [*values[1:], values[-1]]
    for n_pairs, estimate, after in zip(curve.n_training_pairs, curve.srcc, following, strict=True):
        if math.isnan(estimate.value):
            continue
        ax.plot([n_pairs] * 2, [estimate.low, estimate.high], color=style.colour, linewidth=1.6)
        ax.plot(n_pairs, estimate.value, markersize=6, **style.settings())
        ax.annotate(
            format_number(estimate.value),
            (n_pairs, estimate.value),
            xytext=(7, -14 if after >= estimate.value else 6),  # beside the line to the next mark
            textcoords="offset points",
            fontsize=FONT_SIZE,
        )
    ax.margins(x=0.08)
    set_finding(ax, curve.finding)
    return ax


def write_plots(results: Sequence[Result], out: Path) -> list[Path]:
    """Draw every plot that the results allow, and return the paths of the files.

    These are ``srcc.png``, ``srcc-mse.png``, ``difference.png`` if there is a reference, if there
    are two splits a plot of the one against the other, such as ``validation-test.png``, and
    ``learning-curve.png`` if a learning curve was measured.
    """
    splits = by_split(results)
    panels = new_axes(
        _WIDTH, sum(_points_height(len(shown)) for shown in splits.values()), len(splits)
    )
    for split, panel in zip(splits, panels, strict=True):
        plot_srcc_and_mse(results, split=split, ax=panel)
    drawn = {"srcc": plot_srcc(results), "srcc-mse": panels[0]}
    if len(splits) > 1:
        first, second, *_ = splits
        drawn[f"{name_in_files(first)}-{name_in_files(second)}"] = plot_two_splits(
            results, splits=(first, second)
        )
    if reference_of(results) is not None:
        drawn["difference"] = plot_difference(results)
    if any(len(curve.srcc) > 1 for _, curve in with_learning_curve(results)):
        drawn["learning-curve"] = plot_learning_curve(results)
    paths = []
    for name, ax in drawn.items():
        path = out / f"{name}.png"
        with path_in_errors(path):
            path.unlink(missing_ok=True)  # a published folder may share the file
            figure_of(ax).savefig(path, dpi=DPI)
        paths.append(path)
    return paths


def _plot_rows(
    ax: Axes | None,
    splits: Mapping[str, Sequence[Result]],
    estimate_of: Callable[[Result], Estimate | None],
    x_label: str,
    *,
    signed: bool = False,
) -> Axes:
    """Draw a row for each system, in the order of the last split, and a series for each split."""
    # Keys of rows: a system may have the name of a published one.
    estimates = {
        split: {(result.is_published, result.system): estimate_of(result) for result in shown}
        for split, shown in splits.items()
    }
    keys = list(dict.fromkeys(key for shown in reversed(estimates.values()) for key in shown))
    keys.sort(key=lambda key: key[0])
    chose_epoch = {
        (result.is_published, result.system): split
        for split, shown in splits.items()
        for result in shown
        if result.chose_epoch_here
    }
    names = [
        ("published: " if key[0] else "") + key[1] + " †" * (key in chose_epoch) for key in keys
    ]
    if chose_epoch:
        x_label += f"\n† chose its epoch on {', '.join(sorted(set(chose_epoch.values())))}"
    if ax is None:
        row_height = 0.24 if len(splits) == 1 else 0.32
        (ax,) = new_axes(_WIDTH, 1.3 + row_height * len(keys))
    style_axes(ax, x_label=x_label, grid="x")
    draw_dot_rows(
        ax,
        names,
        {split: [shown.get(key) for key in keys] for split, shown in estimates.items()},
        muted=[row for row, key in enumerate(keys) if key[0]],
        signed=signed,
    )
    return ax


def _plot_points(
    ax: Axes, results: Sequence[Result], points: Sequence[tuple[float, float]]
) -> None:
    defined = [
        (result, point)
        for result, point in zip(results, points, strict=True)
        if not any(map(math.isnan, point))
    ]
    for result, point in defined:
        style = MUTED_STYLE if result.is_published else SERIES_STYLES[0]
        ax.plot(*point, markersize=6, **style.settings())
    ax.margins(0.08)
    label_points(
        ax,
        [point for _, point in defined],
        [shown_name(result) for result, _ in defined],
        muted=[index for index, (result, _) in enumerate(defined) if result.is_published],
    )


def _points_height(n_points: int) -> float:
    return max(4.2, 1.2 + 0.17 * n_points)


def _best_of_last_split(splits: Mapping[str, Sequence[Result]]) -> tuple[Result, str]:
    last = list(splits)[-1]
    return splits[last][0], last


def _title_name(result: Result) -> str:
    return short_name(result.system, MAX_NAME_CHARS)
