"""``xacle-stack evaluate``: judge files of predictions, or a recipe by cross-validation."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.cluster import on_cluster
from xacle_stack.cli.options import (
    DATA_HELP,
    DEFAULT_RECIPE,
    DEFAULT_REPORT_AUDIO,
    DEFAULT_STORE,
    AudioColumn,
    AudioRoot,
    Checkpoints,
    Cluster,
    Code,
    Device,
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
from xacle_stack.cli.runs import recorded_command, run_and_print
from xacle_stack.cli.show import console, new_store_said, print_results, stop_on_failures


def evaluate(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="CSV files with an id and a predicted score for each pair; with --cv, the "
            "data set with human scores."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option("--data", help=f"The human scores. {DATA_HELP}")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Which set; default validation in a folder, the only one in a table."),
    ] = None,
    cv: Annotated[
        int | None,
        typer.Option(
            "--cv", min=2, help="Cross-validate a recipe in so many folds, then fit it on all."
        ),
    ] = None,
    recipe: RecipeName = DEFAULT_RECIPE,
    train: TrainSet = None,
    store: Store = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="With --cv: folder of the results; default runs/RECIPE-DATA. Without: folder of "
            "evaluation_result.csv for one file of predictions, in the organisers' form.",
        ),
    ] = None,
    device: Device = "auto",
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    jobs: Jobs = -1,
    cluster: Cluster = None,
    audio_column: AudioColumn = None,
    text_column: TextColumn = None,
    audio_root: AudioRoot = None,
    quiet: Quiet = False,
) -> None:
    """Compare files of predictions with human scores, and with the first file.

    With --cv there are no predictions yet: a recipe is fitted and evaluated on the pairs of one
    data set, each by a fit that did not see it.  All other options are those of --cv.
    """
    if cv is None:
        if data is not None:
            if out is not None and len(files) != 1:
                raise typer.BadParameter("--out takes one file of predictions.")
            _evaluate_files(files, data, split, text_column, out)
            return
        raise typer.BadParameter(
            "give the human scores with --data DATA, or --cv 5 to evaluate a recipe on a data set "
            "with scores."
        )
    if data is not None or split is not None or len(files) != 1:
        raise typer.BadParameter(
            "--cv takes one data set with human scores, as in `xacle-stack evaluate --cv 5 "
            "ratings.csv`, without --data and --split."
        )

    from xacle_stack.experiment import fill_cache
    from xacle_stack.pairs import data_name
    from xacle_stack.targets import training_set

    (place,) = files
    settings = chosen_recipe(recipe, precision, checkpoint, code)
    sets = chosen_sets(place, audio_column, text_column, audio_root)
    name = training_set(sets, train, source=place)
    rated = {name: sets[name]}
    with on_cluster(cluster):
        with new_store_said(store):
            report = fill_cache(
                *(place, settings, store),
                splits=rated,
                train=name,
                device=device,
                n_jobs=jobs,
                progress=not quiet,
            )
        stop_on_failures(report)
        reference, spec = next(iter(settings.stack_systems.items()))
        folder = out or Path("runs") / f"{settings.name}-{data_name(place)}"
        run_and_print(
            *(place, rated, settings, {reference: spec}, store, folder),
            train=name,
            n_folds=cv,
            report_audio=DEFAULT_REPORT_AUDIO,
            command=recorded_command(
                name="evaluate",
                precision=precision,
                audio_column=audio_column,
                text_column=text_column,
                audio_root=audio_root,
            ),
            jobs=jobs,
            quiet=quiet,
        )


def _evaluate_files(
    files: list[Path], data: Path, split: str | None, text_column: str | None, out: Path | None
) -> None:
    from xacle_stack.pairs import read_pairs
    from xacle_stack.results import Result, published_for
    from xacle_stack.submission import read_predictions, write_evaluation

    pairs = read_pairs(
        data,
        split or ("validation" if data.is_dir() else None),
        text_column=text_column,
        with_audio=False,
    )
    scores = {str(path): read_predictions(path, pairs.ids) for path in files}
    reference, *_ = scores
    results = [
        Result.from_scores(
            name,
            pairs.split,
            "file",
            pairs.scores,
            [predicted],
            reference_scores=None if name == reference else [scores[reference]],
        )
        for name, predicted in scores.items()
    ]
    print_results([*results, *published_for(pairs)])
    if out is not None:
        path = out / "evaluation_result.csv"
        write_evaluation(path, results[0].evaluation)
        console.print(f"All digits, in the organisers' form: {path}", soft_wrap=True)
