"""``xacle-stack rate``: compare text-to-audio generators by the scores of their clips."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.options import (
    DEFAULT_RECIPE,
    DEFAULT_STORE,
    Checkpoints,
    Code,
    Device,
    Jobs,
    PrecisionName,
    Quiet,
    Store,
    TextColumn,
)


def rate(
    prompts: Annotated[
        Path,
        typer.Argument(
            help="Table of prompts with columns id and prompt; or, without folders, a table of "
            "clips and texts with a column system."
        ),
    ],
    generators: Annotated[
        list[Path] | None,
        typer.Argument(help="A folder for each generator, with a clip ID.wav for each prompt."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="A model that a run or Scorer.save wrote; default: no model."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", help=f"Whose cosines score without a model; default {DEFAULT_RECIPE}."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", help="Clips and texts that fix the scale of the cosines, any data set."
        ),
    ] = None,
    ratings: Annotated[
        Path | None,
        typer.Option("--ratings", help="Human scores: a table with columns id, system, score."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.")] = Path("report"),
    below: Annotated[float, typer.Option(help="Report the share of clips below this score.")] = 5.0,
    interval: Annotated[
        float, typer.Option(help="How sure the interval of each clip's score shall be.")
    ] = 0.9,
    report_audio: Annotated[
        str, typer.Option("--report-audio", help="copy: a folder to send; link; none.")
    ] = "copy",
    store: Store = DEFAULT_STORE,
    device: Device = "auto",
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    text_column: TextColumn = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Score the clips of text-to-audio generators, compare the generators, and write a page."""
