"""``xacle-stack compare``: every system of a recipe, in one table."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.cluster import on_cluster
from xacle_stack.cli.options import (
    DEFAULT_REPORT_AUDIO,
    DEFAULT_STORE,
    AudioColumn,
    AudioRoot,
    Checkpoints,
    Cluster,
    Code,
    Data,
    Folds,
    Jobs,
    PrecisionName,
    Quiet,
    ReportAudio,
    Store,
    TextColumn,
    TrainSet,
    chosen_recipe,
    chosen_sets,
)
from xacle_stack.cli.runs import recorded_command, run_and_print


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
    train: TrainSet = None,
    cv: Folds = 5,
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    audio_column: AudioColumn = None,
    text_column: TextColumn = None,
    audio_root: AudioRoot = None,
    report_audio: ReportAudio = DEFAULT_REPORT_AUDIO,
    jobs: Jobs = -1,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Train every system of a recipe on the train split and compare them on the others."""
    from xacle_stack.pairs import data_name

    settings = chosen_recipe(recipe, precision, checkpoint, code)
    if seeds is not None:
        settings = settings.with_seeds(seeds)
    folder = out or Path("runs") / f"compare-{settings.name}-{data_name(data)}"
    splits = chosen_sets(data, audio_column, text_column, audio_root)
    command = recorded_command(
        name="compare",
        seeds=seeds,
        precision=precision,
        audio_column=audio_column,
        text_column=text_column,
        audio_root=audio_root,
    )
    with on_cluster(cluster):
        run_and_print(
            *(data, splits, settings, settings.compared_systems, store, folder),
            train=train,
            n_folds=cv,
            report_audio=report_audio,
            command=command,
            jobs=jobs,
            quiet=quiet,
        )
