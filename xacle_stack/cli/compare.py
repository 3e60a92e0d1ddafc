"""``xacle-stack compare``: every system of a recipe, in one table."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.options import (
    DEFAULT_REPORT_AUDIO,
    DEFAULT_STORE,
    Checkpoints,
    Code,
    Data,
    Jobs,
    PrecisionName,
    Quiet,
    ReportAudio,
    Store,
    chosen_recipe,
)
from xacle_stack.cli.runs import run_and_print


def compare(
    recipe: Annotated[
        str, typer.Argument(help="A recipe's name or TOML file, with encoders and systems.")
    ],
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
    report_audio: ReportAudio = DEFAULT_REPORT_AUDIO,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Train every system of a recipe on the train split and compare them on the others."""
    settings = chosen_recipe(recipe, precision, checkpoint, code)
    if seeds is not None:
        settings = settings.with_seeds(seeds)
    folder = out or Path("runs") / f"compare-{settings.name}-{data.resolve().name}"
    run_and_print(
        data,
        settings,
        settings.compared_systems,
        store,
        folder,
        report_audio=report_audio,
        jobs=jobs,
        quiet=quiet,
    )
