"""The command line: features, stack, score, evaluate, compare, encoders, cache and demo.

The only part that prints, configures logging or exits.  Commands import what they need themselves,
so that help and mistakes answer at once.
"""

import io
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xacle_stack._printable import printable_name
from xacle_stack.cli.app import App
from xacle_stack.cli.compare import compare
from xacle_stack.cli.ensemble import ensemble
from xacle_stack.cli.listing import cache_app, encoders
from xacle_stack.cli.options import (
    DATA_HELP,
    DEFAULT_RECIPE,
    DEFAULT_STORE,
    BatchSize,
    Checkpoints,
    Code,
    Data,
    Device,
    Jobs,
    PrecisionName,
    Quiet,
    RecipeFile,
    Store,
    by_name,
    chosen_recipe,
)
from xacle_stack.cli.show import (
    console,
    error_console,
    fail,
    noun,
    print_results,
    show_logs,
    stop_on_failures,
    warnings_logged,
)
from xacle_stack.errors import PairsError, XacleStackError

if TYPE_CHECKING:
    from xacle_stack.pairs import Pairs

app = App(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"xacle-stack {version('xacle-stack')}")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Predict how well a sound matches a text, 0-10, as listeners would score it."""


@app.command()
def features(
    data: Data,
    recipe: RecipeFile = DEFAULT_RECIPE,
    store: Store = DEFAULT_STORE,
    device: Device = "auto",
    batch_size: BatchSize = None,
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Encode every clip and caption of a data set, once, into the cache."""
    from xacle_stack.experiment import fill_cache

    settings = chosen_recipe(recipe, precision, checkpoint, code)
    try:
        report = fill_cache(
            data,
            settings,
            store,
            device=device,
            batch_size=batch_size,
            n_jobs=jobs,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        error_console.print("\nStopped. What is encoded is kept: type the same command to go on.")
        raise
    for name, modality in report.encoded | report.reused:
        console.print(
            f"{name}: {report.encoded[name, modality]} {noun(modality)} encoded, "
            f"{report.reused[name, modality]} were in the cache"
        )
    stop_on_failures(report)


@app.command()
def stack(
    data: Data,
    recipe: RecipeFile = DEFAULT_RECIPE,
    store: Store = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; default runs/RECIPE-DATA."),
    ] = None,
    precision: PrecisionName = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Fit the stack on the train split; print, and save, results for the other splits."""
    from xacle_stack.experiment import MODEL_FILE, run_experiment

    settings = chosen_recipe(recipe, precision, checkpoint, code)
    folder = out or Path("runs") / f"{settings.name}-{data.resolve().name}"
    results, published = run_experiment(
        data, settings, store, folder, n_jobs=jobs, progress=not quiet
    )
    print_results([*results, *published])
    if not results:
        console.print("No split but train has scores, so there is nothing to evaluate on.")
    console.print(f"Model, scores and tables: {folder / MODEL_FILE} and beside it", soft_wrap=True)


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="A model.skops that `stack` wrote, or its folder.")],
    data: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None,
    split: Annotated[str, typer.Option(help="Which split of the data folder.")] = "test",
    audio: Annotated[
        list[Path] | None, typer.Option(help="Score this clip ...; repeatable.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="... against this caption; give one for all clips, or one for each."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where the CSV goes; default scores-SPLIT.csv."),
    ] = None,
    store: Store = DEFAULT_STORE,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="Needed if the model has an encoder from a Python file."),
    ] = None,
    device: Device = "auto",
    checkpoint: Checkpoints = None,
    code: Code = None,
    max_model_bytes: Annotated[
        int | None,
        typer.Option("--max-model-bytes", min=1, help="The largest model to read; default 4 GiB."),
    ] = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Score a split of a data folder into a submission CSV, or single clips and captions.

    The score of one clip is printed alone; those of several follow their clips, after a tab.
    """
    if bool(audio) != bool(text) or bool(audio) == (data is not None):
        raise typer.BadParameter("give either --data, or both --audio and --text, not all three.")

    from xacle_stack.experiment import load_system, score_pairs
    from xacle_stack.pairs import read_pairs
    from xacle_stack.recipe import read_recipe
    from xacle_stack.submission import write_predictions

    if audio and text:
        pairs = _single_pairs(audio, text)
    elif data is not None:
        pairs = read_pairs(data, split)
    system, settings = load_system(
        model,
        None if recipe is None else read_recipe(recipe),
        checkpoints=by_name(checkpoint, "--checkpoint"),
        code=by_name(code, "--code"),
        **({} if max_model_bytes is None else {"max_bytes": max_model_bytes}),
    )
    if data is None:
        with tempfile.TemporaryDirectory() as folder:
            scores, report = score_pairs(system, settings, pairs, Path(folder), device=device)
        if report.failures:
            fail("\n".join(report.failures.values()))
    else:
        scores, report = score_pairs(
            system, settings, pairs, store, device=device, n_jobs=jobs, progress=not quiet
        )
    stop_on_failures(report)
    if scores is None:
        return
    if audio:
        for path, of_clip in zip(audio, scores.tolist(), strict=True):
            # A console would turn the tab into spaces.
            typer.echo(
                f"{printable_name(path)}\t{of_clip:.2f}" if len(audio) > 1 else f"{of_clip:.2f}"
            )
        return
    path = out or Path(f"scores-{split}.csv")
    write_predictions(path, pairs.ids, scores, split)
    console.print(f"{len(pairs)} scores: {path}", soft_wrap=True)


@app.command()
def evaluate(
    predictions: Annotated[
        list[Path], typer.Argument(help="CSV files: wav_file_name and a score column.")
    ],
    data: Data,
    split: Annotated[str, typer.Option(help="Which split they predict.")] = "validation",
) -> None:
    """Compare files of predictions with the human scores of a split."""
    from xacle_stack.metrics import evaluate as evaluate_scores
    from xacle_stack.pairs import read_pairs
    from xacle_stack.results import Result, published_for
    from xacle_stack.submission import read_predictions

    pairs = read_pairs(data, split)
    scores = {str(path): read_predictions(path, pairs.ids) for path in predictions}
    results = [
        Result(name, split, "file", evaluate_scores(pairs.scores, of_file))
        for name, of_file in scores.items()
    ]
    print_results([*results, *published_for(pairs)])


app.command()(compare)
app.command()(ensemble)
app.command()(encoders)
app.add_typer(cache_app, name="cache")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist.")],
    pairs: Annotated[int, typer.Option(help="How many pairs, all splits together.")] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed, other sounds and listeners.")] = 0,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Write the embedded demo data set: synthesised sounds, simulated listeners."""
    from xacle_stack.pairs import list_splits, read_pairs
    from xacle_stack.synth.demo import write_demo

    write_demo(folder, n_pairs=pairs, seed=seed, n_jobs=jobs, progress=not quiet)
    for split in list_splits(folder):
        console.print(str(read_pairs(folder, split)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a mistake in the user's files ends in one message and exit code 1."""
    show_logs()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal or a pipe that cannot show a letter
        sys.stdout.reconfigure(errors="backslashreplace")
    # A scheduler's polite stop is handled like Ctrl-C: what is encoded is kept.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with warnings_logged():
            app(args=arguments)
    except XacleStackError as error:
        fail(str(error))
    except BrokenPipeError:  # `xacle-stack … | head`
        raise SystemExit(1) from None
    except OSError as error:  # a folder without permission, a full disk: the system says it best
        where = "what this command prints or keeps" if error.filename is None else error.filename
        fail(f"{where}: {error.strerror or error}.")


def _single_pairs(audio: list[Path], texts: list[str]) -> "Pairs":
    from xacle_stack.pairs import Pairs
    from xacle_stack.pairs.record import is_utf8

    if len(texts) not in (1, len(audio)):
        raise typer.BadParameter(
            f"{len(audio)} --audio and {len(texts)} --text: give one text for all clips, or one "
            "for each, in the same order."
        )
    for text in texts:
        if not text.strip():
            raise PairsError("--text is empty. Give the caption to score the clip against.")
        if not is_utf8(text):
            raise PairsError(f"--text is not UTF-8: {text!r}.")
    captions = [text.strip() for text in (texts if len(texts) > 1 else texts * len(audio))]
    ids = tuple(f"clip {number}" for number in range(len(audio)))
    return Pairs("test", ids, tuple(audio), tuple(captions))
