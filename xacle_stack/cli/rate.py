"""``xacle-stack rate``: compare text-to-audio generators by the scores of their clips."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.cluster import on_cluster
from xacle_stack.cli.options import (
    DEFAULT_INTERVAL,
    DEFAULT_RECIPE,
    DEFAULT_STORE,
    Checkpoints,
    Cluster,
    Code,
    Device,
    Jobs,
    PrecisionName,
    Quiet,
    ReportAudio,
    ReportAudioChoice,
    Store,
    TextColumn,
)
from xacle_stack.cli.scorers import chosen_scorer
from xacle_stack.cli.show import console, new_store_said


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
    ] = DEFAULT_INTERVAL,
    report_audio: ReportAudio = ReportAudioChoice.COPY,
    store: Store = DEFAULT_STORE,
    device: Device = "auto",
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    text_column: TextColumn = None,
    jobs: Jobs = -1,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Score the clips of text-to-audio generators, compare the generators, and write a page."""
    if model is not None and reference is not None:
        raise typer.BadParameter(
            "--reference is for the cosines of a --recipe; a model has its own scale."
        )

    from xacle_stack.rating import rate as rate_generators

    with on_cluster(cluster):
        scorer = chosen_scorer(
            model,
            recipe if model is not None else recipe or DEFAULT_RECIPE,
            reference=reference,
            checkpoint=checkpoint,
            code=code,
            precision=precision,
            store=store,
            device=device,
            n_jobs=jobs,
            progress=not quiet,
        )
        with new_store_said(store):
            rating = rate_generators(
                prompts,
                generators or (),
                scorer,
                ratings=ratings,
                below=below,
                interval=interval,
                text_column=text_column,
            )
    page = rating.save(out, audio=report_audio.value)
    for table in rating.tables():
        console.print(table)
    for sentence in rating.sentences():
        console.print(sentence, soft_wrap=True)
    if model is None and recipe is None:
        console.print(
            "The encoders of the recipe mini are small, for first steps. For real work name "
            "another, such as --recipe singles; `xacle-stack encoders` lists the encoders.",
            soft_wrap=True,
        )
    console.print(f"Scores: {out / 'scores.csv'}; figures: {out / 'summary.json'}", soft_wrap=True)
    console.print(f"A page to look at and to listen to: {page}", soft_wrap=True)
