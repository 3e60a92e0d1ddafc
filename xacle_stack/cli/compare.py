"""``xacle-stack compare``: every system of a recipe, in one table."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from xacle_stack.cli.show import console, error_console, print_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xacle_stack.results import Result


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
    results: Sequence[Result] = []
    try:
        for finished in compare_systems(
            data, settings, store, folder, n_jobs=jobs, progress=not quiet
        ):
            results = finished
    except KeyboardInterrupt:
        n_finished = len({result.system for result in results})
        n_systems = len(settings.contenders)
        there = f"their table, and the models so far: {folder}" if results else "no table yet."
        error_console.print(
            f"\nStopped. {n_finished} of {n_systems} systems are finished; {there}", soft_wrap=True
        )
        raise
    print_results(results)
    console.print(f"Tables, plots, scores and models: {folder}", soft_wrap=True)
