"""``xacle-stack stack``: fit the stack of a recipe, and the smaller ones beside it."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.options import (
    DEFAULT_RECIPE,
    DEFAULT_STORE,
    AudioColumn,
    AudioRoot,
    Checkpoints,
    Code,
    Data,
    Folds,
    Jobs,
    PrecisionName,
    Quiet,
    RecipeName,
    Store,
    TextColumn,
    TrainSet,
    chosen_recipe,
    chosen_sets,
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
    train: TrainSet = None,
    cv: Folds = 5,
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    audio_column: AudioColumn = None,
    text_column: TextColumn = None,
    audio_root: AudioRoot = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Fit the stack on the train split; print, and save, results for the other splits.

    Where no other split has scores, the results are those of a cross-validation on train.
    """
    from xacle_stack.pairs import data_name

    settings = chosen_recipe(recipe, precision, checkpoint, code)
    folder = out or Path("runs") / f"{settings.name}-{data_name(data)}"
    splits = chosen_sets(data, audio_column, text_column, audio_root)
    run_and_print(
        *(data, splits, settings, settings.stack_systems, store, folder),
        train=train,
        n_folds=cv,
        jobs=jobs,
        quiet=quiet,
    )
