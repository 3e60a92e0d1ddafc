"""The comparison as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xacle_stack._files import path_in_errors
from xacle_stack._optional import require
from xacle_stack.comparison.compared_system import ComparedSystem
from xacle_stack.comparison.tables import ranked, splits_of

# Matplotlib's colours repeat after ten.
_N_COLOURS, _MARKS = 10, "osD^v"


def write_plots(systems: Sequence[ComparedSystem], out: Path) -> list[Path]:
    """Draw SRCC with intervals, SRCC against MSE, and validation against test.

    Parameters
    ----------
    systems : sequence of ComparedSystem
    out : Path
        The folder for ``srcc.png``, ``srcc-mse.png`` and, if there are two splits with scores,
        ``validation-test.png``.

    Returns
    -------
    paths : list of Path

    Raises
    ------
    MissingExtraError
        If there is no Matplotlib.
    """
    figure = require("matplotlib.figure", extra="notebooks", purpose="drawing the comparison")
    splits = splits_of(systems)
    drawn = {"srcc": _intervals(figure, systems, splits)}
    drawn["srcc-mse"] = _scatters(figure, systems, splits)
    if len(splits) > 1:
        drawn["validation-test"] = _between_splits(figure, systems, *splits[:2])
    paths = []
    for name, picture in drawn.items():
        paths.append(out / f"{name}.png")
        with path_in_errors(paths[-1]):
            paths[-1].unlink(missing_ok=True)  # a published folder may share the file
            picture.savefig(paths[-1], dpi=120)
    return paths


def _intervals(figure: Any, systems: Sequence[ComparedSystem], splits: list[str]) -> Any:
    picture = figure.Figure(
        figsize=(3 + 4 * len(splits), 1.2 + 0.34 * len(systems)), layout="constrained"
    )
    order = ranked(systems, splits[-1])[::-1]
    axes = picture.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for split, ax in zip(splits, axes, strict=True):
        estimates = [system.evaluations[split].srcc for system in order]
        values = [estimate.value for estimate in estimates]
        errors = [
            [max(0.0, e.value - e.low) for e in estimates],
            [max(0.0, e.high - e.value) for e in estimates],
        ]
        ax.errorbar(values, range(len(order)), xerr=errors, fmt="o", capsize=3, color="tab:blue")
        ax.set_xlabel("SRCC, 95 % bootstrap interval")
        ax.set_title(f"{split}: {order[0].evaluations[split].n_pairs} pairs")
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(order)), [_plain(system.name) for system in order])
    return picture


def _scatters(figure: Any, systems: Sequence[ComparedSystem], splits: list[str]) -> Any:
    picture = figure.Figure(figsize=(2.4 + 5.2 * len(splits), 5), layout="constrained")
    systems = ranked(systems, splits[-1])
    axes = picture.subplots(1, len(splits), squeeze=False)[0]
    for split, ax in zip(splits, axes, strict=True):
        points = [
            (system.evaluations[split].srcc.value, system.evaluations[split].mse.value)
            for system in systems
        ]
        _label(ax, systems, points)
        ax.set_xlabel("SRCC (higher is better)")
        ax.set_ylabel("MSE (lower is better)")
        ax.set_title(split)
    _legend(picture, axes[-1], splits[-1])
    return picture


def _between_splits(figure: Any, systems: Sequence[ComparedSystem], one: str, other: str) -> Any:
    picture = figure.Figure(figsize=(7.6, 5.2), layout="constrained")
    ax = picture.subplots()
    systems = ranked(systems, other)
    points = [
        (system.evaluations[one].srcc.value, system.evaluations[other].srcc.value)
        for system in systems
    ]
    _label(ax, systems, points)
    low, high = min(min(point) for point in points), max(max(point) for point in points)
    ax.plot([low, high], [low, high], color="grey", linewidth=0.8, linestyle="--")
    ax.set_xlabel(f"SRCC on {one}")
    ax.set_ylabel(f"SRCC on {other}")
    _legend(picture, ax, other)
    return picture


def _label(ax: Any, systems: Sequence[ComparedSystem], points: list[tuple[float, float]]) -> None:
    """Draw one numbered point a system: names would overlap."""
    for place, (system, (x, y)) in enumerate(zip(systems, points, strict=True), start=1):
        mark = _MARKS[(place - 1) // _N_COLOURS % len(_MARKS)]
        name = _plain(system.name)
        ax.scatter(x, y, label=f"{place}  {name}", color=f"C{place - 1}", marker=mark)
        ax.annotate(str(place), (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    ax.grid(alpha=0.3)


def _legend(picture: Any, ax: Any, split: str) -> None:
    handles, labels = ax.get_legend_handles_labels()
    title = f"rank on {split}"
    picture.legend(handles, labels, title=title, fontsize=7, loc="outside right upper")


def _plain(name: str) -> str:
    """Return a name that Matplotlib does not take for a formula."""
    return name.replace("$", r"\$")
