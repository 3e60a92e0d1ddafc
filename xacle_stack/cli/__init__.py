"""The command line: ``xacle-stack features | stack | score | evaluate | encoders | cache | demo``.

The only module that prints, configures logging or exits.
"""

import logging
import math
import signal
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Column, Table

from xacle_stack.errors import PairsError, XacleStackError, bullet_list

# Commands import what they need themselves, so that help and mistakes answer at once.
if TYPE_CHECKING:
    from xacle_stack.cache import FeatureCache
    from xacle_stack.extract import ExtractionReport
    from xacle_stack.metrics import Estimate
    from xacle_stack.pairs import Pairs
    from xacle_stack.results import PublishedResult, SystemResult

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cache_app = typer.Typer(help="Look after the cached embeddings.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")

# A log file or a pipe has no width of its own; the results table needs about this.
_LOG_WIDTH = 128
# Paths and captions are shown as they are, whatever brackets they hold.
console = Console(width=None if sys.stdout.isatty() else _LOG_WIDTH, markup=False, highlight=False)
error_console = Console(stderr=True, markup=False, highlight=False)


def _some_jobs(jobs: int) -> int:
    if jobs == 0:
        raise typer.BadParameter("give 1 or more, or -1 for one a core.")
    return jobs


DATA_HELP = "Folder in the XACLE layout: meta_data/ and wav/."
Data = Annotated[Path, typer.Option("--data", help=DATA_HELP)]
RecipeFile = Annotated[
    Path, typer.Option("--recipe", help="TOML file that names encoders and settings.")
]
Store = Annotated[Path, typer.Option("--store", help="Folder of the cached embeddings.")]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", callback=_some_jobs, help="Tasks side by side; -1 for one a core."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]

DEFAULT_RECIPE = Path("features/recipes/mini.toml")
DEFAULT_STORE = Path("features/store")


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
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Encode every clip and caption of a data set, once, into the cache."""
    from xacle_stack.experiment import fill_cache
    from xacle_stack.recipe import read_recipe

    try:
        report = fill_cache(data, read_recipe(recipe), store, n_jobs=jobs, progress=not quiet)
    except KeyboardInterrupt:
        error_console.print("\nStopped. What is encoded is kept: type the same command to go on.")
        raise
    for name, modality in report.encoded | report.reused:
        console.print(
            f"{name}: {report.encoded[name, modality]} {_noun(modality)} encoded, "
            f"{report.reused[name, modality]} were in the cache"
        )
    _stop_on_failures(report)


@app.command()
def stack(
    data: Data,
    recipe: RecipeFile = DEFAULT_RECIPE,
    store: Store = DEFAULT_STORE,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the results; default runs/RECIPE-DATA."),
    ] = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Fit the stack on the train split; print, and save, results for the other splits."""
    from xacle_stack.experiment import MODEL_FILE, run_experiment
    from xacle_stack.recipe import read_recipe

    settings = read_recipe(recipe)
    folder = out or Path("runs") / f"{settings.name}-{data.resolve().name}"
    results, published = run_experiment(
        data, settings, store, folder, n_jobs=jobs, progress=not quiet
    )
    _print_results(results, published)
    if not results:
        console.print("No split but train has scores, so there is nothing to evaluate on.")
    console.print(f"Model, scores and tables: {folder / MODEL_FILE} and beside it", soft_wrap=True)


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="A model.skops that `stack` wrote, or its folder.")],
    data: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None,
    split: Annotated[str, typer.Option(help="Which split of the data folder.")] = "test",
    audio: Annotated[Path | None, typer.Option(help="Score this one clip ...")] = None,
    text: Annotated[str | None, typer.Option(help="... against this one caption.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where the CSV goes; default scores-SPLIT.csv."),
    ] = None,
    store: Store = DEFAULT_STORE,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="Needed if the model has an encoder from a Python file."),
    ] = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Score a split of a data folder into a submission CSV, or one clip and caption."""
    if (audio is None) != (text is None) or (audio is None) == (data is None):
        raise typer.BadParameter("give either --data, or both --audio and --text, not all three.")

    from xacle_stack.experiment import load_system, score_pairs
    from xacle_stack.pairs import read_pairs
    from xacle_stack.recipe import read_recipe
    from xacle_stack.submission import write_predictions

    if audio is not None and text is not None:
        pairs = _one_pair(audio, text)
    elif data is not None:
        pairs = read_pairs(data, split)
    system, settings = load_system(model, None if recipe is None else read_recipe(recipe))
    if data is None:
        with tempfile.TemporaryDirectory() as folder:
            scores, report = score_pairs(system, settings, pairs, Path(folder))
        if report.failures:
            _fail("\n".join(report.failures.values()))
    else:
        scores, report = score_pairs(
            system, settings, pairs, store, n_jobs=jobs, progress=not quiet
        )
    _stop_on_failures(report)
    if scores is None:
        return
    if data is None:
        console.print(f"{scores[0]:.2f}")
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
    from xacle_stack.results import SystemResult, published_for
    from xacle_stack.submission import read_predictions

    pairs = read_pairs(data, split)
    scores = {str(path): read_predictions(path, pairs.ids) for path in predictions}
    results = [
        SystemResult(name, split, evaluate_scores(pairs.scores, of_file))
        for name, of_file in scores.items()
    ]
    _print_results(results, published_for(pairs))


@app.command()
def encoders() -> None:
    """List the encoders that a recipe can name."""
    from xacle_stack.encoders import encoder_names, get_encoder

    table = Table("encoder", "what", "audio", "text", "rate (Hz)", "licence", box=box.SIMPLE_HEAD)
    for name in encoder_names():
        info = get_encoder(name).info
        audio, text = (
            ", ".join(f"{output} {n_dims}" for output, n_dims in info.outputs(m).items()) or "–"
            for m in ("audio", "text")
        )
        table.add_row(
            name, info.summary, audio, text, str(info.sample_rate_hz or "–"), info.licence
        )
    console.print(table)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist.")],
    pairs: Annotated[int, typer.Option(help="How many pairs, all splits together.")] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed, other sounds and listeners.")] = 0,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Write the embedded demo data set: synthesised sounds, simulated listeners."""
    from xacle_stack.demo import write_demo
    from xacle_stack.pairs import list_splits, read_pairs

    write_demo(folder, n_pairs=pairs, seed=seed, n_jobs=jobs, progress=not quiet)
    for split in list_splits(folder):
        console.print(str(read_pairs(folder, split)))


@cache_app.command("ls")
def cache_ls(store: Store = DEFAULT_STORE) -> None:
    """List what the cache holds."""
    table = Table(
        "encoder", "fingerprint", "of", "rows", "outputs", "segments", "MB", box=box.SIMPLE_HEAD
    )
    for summary in _existing(store).summaries():
        table.add_row(
            summary.store.encoder,
            summary.store.fingerprint,
            summary.modality,
            str(summary.n_rows),
            ", ".join(f"{name} {n_dims}" for name, n_dims in summary.outputs.items()),
            str(summary.n_segments),
            f"{summary.n_bytes / 1e6:.1f}",
        )
    console.print(table)


@cache_app.command("verify")
def cache_verify(store: Store = DEFAULT_STORE) -> None:
    """Check every byte of the cache; exit with 1 if anything is damaged."""
    faults, n_segments = [], 0
    for path, fault in _existing(store).verify():
        n_segments += 1
        if fault is not None:
            faults.append(fault if str(path) in fault else f"{path}: {fault}")
    if faults:
        _fail(f"{len(faults)} of {n_segments} segments are damaged:\n{bullet_list(faults)}")
    console.print(f"{n_segments} segments, all sound")


@cache_app.command("compact")
def cache_compact(store: Store = DEFAULT_STORE) -> None:
    """Merge small segments into large ones and drop duplicate rows."""
    for summary in _existing(store).compact():
        console.print(
            f"{summary.store.folder} {summary.modality}: {summary.n_rows} rows in "
            f"{summary.n_segments} segment(s)",
            soft_wrap=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a mistake in the user's files ends in one message and exit code 1."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    # A scheduler's polite stop is handled like Ctrl-C: what is encoded is kept.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        app(args=arguments)
    except XacleStackError as error:
        _fail(str(error))
    except BrokenPipeError:  # `xacle-stack … | head`
        raise SystemExit(1) from None
    except OSError as error:  # a folder without permission, a full disk: the system says it best
        _fail(f"{error.filename or 'output'}: {error.strerror or error}.")


def _fail(message: str) -> None:
    error_console.print(f"error: {message}", style="red", soft_wrap=True)
    raise SystemExit(1)


def _stop_on_failures(report: "ExtractionReport") -> None:
    if report.failures:
        _fail(
            f"{len(report.failures)} audio file(s) could not be used; all others are in the "
            f"cache:\n{bullet_list(report.failures.values())}"
        )


def _existing(store: Path) -> "FeatureCache":
    from xacle_stack.cache import FeatureCache

    cache = FeatureCache(store)
    if not cache.stores():
        _fail(f"{store}: there is no cache here. Make one with `make features`, or give --store.")
    return cache


def _one_pair(audio: Path, text: str) -> "Pairs":
    from xacle_stack.pairs import Pairs

    if not text.strip():
        raise PairsError("--text is empty. Give the caption to score the clip against.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PairsError(f"--text is not UTF-8: {text!r}.") from None
    return Pairs("test", (audio.name,), (audio,), (text.strip(),))


def _noun(modality: str) -> str:
    return "clips" if modality == "audio" else "captions"


def _print_results(
    results: "Sequence[SystemResult]", published: "Sequence[PublishedResult]"
) -> None:
    from xacle_stack.results import METRIC_NAMES, rank_of

    for split in dict.fromkeys(result.split for result in results):
        of_split = [result for result in results if result.split == split]
        ranks = rank_of(of_split)
        evaluation = of_split[0].evaluation
        table = Table(
            "rank",
            Column("system", overflow="fold"),
            *(Column(name, overflow="fold") for name in METRIC_NAMES),
            title=f"{split}: {evaluation.n_pairs} pairs, {evaluation.confidence:.0%} "
            "bootstrap intervals",
            box=box.SIMPLE_HEAD,
        )
        for result in of_split:
            metrics = [_metric(estimate) for estimate in result.evaluation.as_dict().values()]
            table.add_row(str(ranks[result.system]), result.system, *metrics)
        for row in published:
            if row.split == split:
                table.add_row(
                    "–", f"published: {row.system}", *map(_number, row.values), style="dim"
                )
        console.print(table)
    if any(math.isnan(r.evaluation.srcc.value) for r in results):
        console.print("nan: a correlation with scores that are all equal is undefined.")


def _metric(estimate: "Estimate") -> str:
    interval = f"[{_number(estimate.low)}, {_number(estimate.high)}]"
    return f"{_number(estimate.value)} {interval}"


def _number(value: float) -> str:
    """Return three digits: a correlation as papers write it, an error with two decimals."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"
