"""The options that several commands share."""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xacle_stack.pairs import Pairs
    from xacle_stack.recipe import Recipe


def _some_jobs(jobs: int) -> int:
    if jobs == 0:
        raise typer.BadParameter("give 1 or more, or -1 for one a core.")
    return jobs


def _an_address(address: str | None) -> str | None:
    if address is not None and not re.fullmatch(r"\S+:\d+", address):
        raise typer.BadParameter(f"{address!r}: expected an address such as tcp://scheduler:8786.")
    return address


DATA_HELP = "Folder in the XACLE layout, or a table: CSV, TSV, JSONL, Parquet."
Data = Annotated[Path, typer.Option("--data", help=DATA_HELP)]
AudioColumn = Annotated[
    str | None,
    typer.Option("--audio-column", help="The table's column of clips, where its name is unclear."),
]
TextColumn = Annotated[
    str | None,
    typer.Option("--text-column", help="The table's column of texts, where its name is unclear."),
]
AudioRoot = Annotated[
    Path | None,
    typer.Option("--audio-root", help="Where the table's paths start; default at its folder."),
]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe", help="A recipe that comes with this library, by name, or a TOML file."
    ),
]
TrainSet = Annotated[
    str | None,
    typer.Option("--train", help="The set to fit on; default train, or the only one."),
]
Folds = Annotated[
    int,
    typer.Option(
        "--cv",
        min=0,
        help="Folds of the cross-validation, if no other set has scores; 0 for none.",
    ),
]
Store = Annotated[Path, typer.Option("--store", help="Folder of the cached embeddings.")]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", "-j", callback=_some_jobs, help="Tasks side by side; -1 for one a core."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        callback=_an_address,
        envvar="DASK_SCHEDULER_ADDRESS",
        help="A Dask scheduler whose workers do the work; default this machine.",
    ),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, or several: cuda:0,cuda:1.")
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Clips encoded at once; default by memory."),
]
PrecisionName = Annotated[
    str | None,
    typer.Option("--precision", help="float32, bfloat16 or float16; default the recipe's."),
]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        metavar="NAME=PLACE",
        help="An encoder's hub id, folder or file; repeatable.",
    ),
]
Code = Annotated[
    list[str] | None,
    typer.Option(
        "--code",
        metavar="NAME=FOLDER",
        help="Allow code of yours to be run for an encoder that needs it; repeatable.",
    ),
]


class ReportAudioChoice(StrEnum):
    """What the page of results plays."""

    COPY = "copy"
    LINK = "link"
    NONE = "none"


ReportAudio = Annotated[
    ReportAudioChoice,
    typer.Option(
        "--report-audio",
        help="What the page plays: copies beside it, links to the files of the data set, or none.",
    ),
]
DEFAULT_REPORT_AUDIO = ReportAudioChoice.LINK
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]

DEFAULT_RECIPE = "mini"
DEFAULT_INTERVAL = 0.9
DEFAULT_STORE = Path("features/store")


def chosen_sets(
    data: Path, audio_column: str | None, text_column: str | None, audio_root: Path | None
) -> "dict[str, Pairs]":
    """Read all sets of a folder or a table."""
    from xacle_stack.pairs import read_splits

    return read_splits(
        data, audio_column=audio_column, text_column=text_column, audio_root=audio_root
    )


def chosen_set(
    data: Path,
    split: str | None,
    audio_column: str | None,
    text_column: str | None,
    audio_root: Path | None,
) -> "Pairs":
    """Read one set: of a folder by default test, of a table the only one."""
    from xacle_stack.pairs import read_pairs

    return read_pairs(
        data,
        split or ("test" if data.is_dir() else None),
        audio_column=audio_column,
        text_column=text_column,
        audio_root=audio_root,
    )


def chosen_recipe(
    recipe: str, precision: str | None, checkpoint: list[str] | None, code: list[str] | None
) -> "Recipe":
    """Read a recipe and apply the options that go before it."""
    from xacle_stack.recipe import read_recipe

    return read_recipe(recipe).override(
        checkpoints=by_name(checkpoint, "--checkpoint"),
        code=by_name(code, "--code"),
        precision=precision,
    )


def by_name(values: list[str] | None, option: str) -> dict[str, str]:
    """Read repeated NAME=PLACE options."""
    found: dict[str, str] = {}
    for value in values or []:
        name, equals, place = value.partition("=")
        if not (name and equals and place):
            raise typer.BadParameter(f"{option} {value!r}: expected NAME=PLACE, as in beats=x.pt.")
        if name in found:
            raise typer.BadParameter(
                f"{option} names {name!r} twice: {found[name]!r} and {place!r}. Give one."
            )
        found[name] = place
    return found
