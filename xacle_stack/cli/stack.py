"""``xacle-stack stack``: fit the stack of a recipe, and the smaller ones beside it."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.options import (
    DEFAULT_RECIPE,
    DEFAULT_REPORT_AUDIO,
    DEFAULT_STORE,
    Checkpoints,
    Code,
    Data,
    Jobs,
    PrecisionName,
    Quiet,
    RecipeName,
    ReportAudio,
    Store,
    chosen_recipe,
)
from xacle_stack.cli.runs import run_and_print


def stack(
    data: Data,
    recipe: RecipeName = DEFAULT_RECIPE,
    store: Store = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; default runs/RECIPE-DATA."),
    ] = None,
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    report_audio: ReportAudio = DEFAULT_REPORT_AUDIO,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Fit the stack on the train split; print, and save, results for the other splits."""
    settings = chosen_recipe(recipe, precision, checkpoint, code)
    folder = out or Path("runs") / f"{settings.name}-{data.resolve().name}"
    run_and_print(
        data,
        settings,
        settings.stack_systems,
        store,
        folder,
        report_audio=report_audio,
        jobs=jobs,
        quiet=quiet,
    )
