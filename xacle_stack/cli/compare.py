"""``xacle-stack compare``: every system of a recipe, in one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Column, Table

from xacle_stack.cli.options import (
    DEFAULT_STORE,
    Checkpoints,
    Code,
    Data,
    Jobs,
    PrecisionName,
    Quiet,
    Store,
    chosen_recipe,
)
from xacle_stack.cli.show import console, error_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xacle_stack.comparison import ComparedSystem


def compare(
    recipe: Annotated[Path, typer.Argument(help="TOML file that names encoders and systems.")],
    data: Data,
    store: Store = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; default runs/compare-RECIPE-DATA."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Fits of each system; default as in the recipe.")
    ] = None,
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Train every system of a recipe on the train split and compare them on the others."""
    from xacle_stack.comparison import compare_systems

    settings = chosen_recipe(recipe, precision, checkpoint, code)
    if seeds is not None:
        settings = settings.with_seeds(seeds)
    folder = out or Path("runs") / f"compare-{settings.name}-{data.resolve().name}"
    systems: Sequence[ComparedSystem] = []
    try:
        for finished in compare_systems(
            data, settings, store, folder, n_jobs=jobs, progress=not quiet
        ):
            systems = finished
    except KeyboardInterrupt:
        n_finished, n_systems = len(systems), len(settings.contenders)
        there = f"their table, and the models so far: {folder}" if systems else "no table yet."
        error_console.print(
            f"\nStopped. {n_finished} of {n_systems} systems are finished; {there}", soft_wrap=True
        )
        raise
    _print(systems)
    console.print(f"Tables, plots, scores and models: {folder}", soft_wrap=True)


def _print(systems: "Sequence[ComparedSystem]") -> None:
    from xacle_stack.comparison import (
        CHOSEN_HERE,
        cell,
        chose_epoch_on,
        ranked,
        shown_name,
        splits_of,
    )
    from xacle_stack.results import METRIC_NAMES

    for split in splits_of(systems):
        evaluation = systems[0].evaluations[split]
        table = Table(
            Column("system", overflow="fold"),
            "seeds",
            *(Column(name, overflow="fold") for name in METRIC_NAMES),
            f"P(> {systems[0].name})",
            "fit, s",
            "ms/pair",
            title=f"{split}: {evaluation.n_pairs} pairs, {evaluation.confidence:.0%} intervals, "
            "means over the seeds",
            box=box.SIMPLE_HEAD,
        )
        for system in ranked(systems, split):
            better = system.probability_better[split]
            table.add_row(
                shown_name(system, split),
                str(system.n_seeds),
                *map(cell, system.evaluations[split].as_dict().values()),
                "–" if better != better else f"{better:.2f}",
                f"{system.fit_s:.1f}",
                f"{system.score_ms:.3f}",
            )
        console.print(table)
        if any(chose_epoch_on(system, split) for system in systems):
            console.print(CHOSEN_HERE)
