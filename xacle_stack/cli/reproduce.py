"""``xacle-stack reproduce``: run a run again and compare the figures."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xacle_stack._printable import printable_name
from xacle_stack.cli.cluster import on_cluster
from xacle_stack.cli.options import (
    DATA_HELP,
    AudioRoot,
    Checkpoints,
    Cluster,
    Code,
    Device,
    Jobs,
    Quiet,
    by_name,
    chosen_recipe,
    chosen_sets,
)
from xacle_stack.cli.show import console, fail, new_store_said, stages_told, stop_on_failures
from xacle_stack.errors import CacheError, ModelFileError, PairsError, bullet_list

if TYPE_CHECKING:
    from xacle_stack.recipe import Recipe
    from xacle_stack.run_record import Command, RunRecord

# Half of the last digit that tables show.  The same run on another processor, or with another build
# of NumPy, differs in the last bits of its sums, and trees and ranks pass that on.
DEFAULT_TOLERANCE = 0.0005


def reproduce(
    run: Annotated[Path, typer.Argument(help="Folder of a run, with its results.json.")],
    data: Annotated[
        Path | None, typer.Option("--data", help=f"Default where they were. {DATA_HELP}")
    ] = None,
    audio_root: AudioRoot = None,
    store: Annotated[
        Path | None,
        typer.Option("--store", help="Folder of the cached embeddings; default where it was."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Take this recipe as it is now; default the settings that the run had. Needed "
            "where the recipe names a Python file, which is then run.",
        ),
    ] = None,
    checkpoint: Checkpoints = None,
    code: Code = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="A new folder to keep the results in; default they are not."),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", min=0, help="By how much figures may differ and count as equal."
        ),
    ] = DEFAULT_TOLERANCE,
    device: Device = "auto",
    jobs: Jobs = -1,
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Run a run again into a fresh folder, and compare its figures with those of then.

    It says first what is not as it was.  The exit code is 0 if all figures are equal, else 1.
    """
    from xacle_stack.cache import FeatureCache
    from xacle_stack.experiment import fill_cache, planned_record, run_experiment
    from xacle_stack.run_record import differences, read_record

    before = read_record(run)
    if (command := before.command) is None:
        raise ModelFileError(
            f"{run}: this run was started from Python, not by a command. Start it from there again."
        )
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelFileError(f"{out}: it is there already. Give a new folder with --out.")
    settings = _recipe(run, before, command, recipe, checkpoint, code)
    systems = command.systems(settings)
    place = data or Path(before.data)
    if not place.exists():
        raise PairsError(f"{place}: there are no data here any more. Say where with --data.")
    if store is None:
        store = Path(before.store)
        if not FeatureCache(store).stores():  # a record gives no permission to write elsewhere
            raise CacheError(
                f"{store}: there is no cache here any more. Say with --store where one is, or "
                "where to make a new one."
            )
    root = command.audio_root if data is None else None
    sets = chosen_sets(
        place,
        command.audio_column,
        command.text_column,
        audio_root or (None if root is None else Path(root)),
    )
    sets = {name: pairs for name, pairs in sets.items() if name in before.sets}
    with ExitStack() as stack:
        stack.enter_context(on_cluster(cluster))
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory()), "run")
        with new_store_said(store):
            report = fill_cache(
                *(place, settings, store),
                splits=sets,
                train=before.train,
                device=device,
                n_jobs=jobs,
                progress=not quiet,
            )
        stop_on_failures(report)
        planned = planned_record(
            *(place, settings, systems, store),
            splits=sets,
            train=before.train,
            n_folds=before.n_folds,
            command=command,
        )
        lines = differences(before, planned)
        console.print(
            f"Not as it was:\n{bullet_list(lines)}"
            if lines
            else "Data, recipe, fingerprints, versions and machine are as they were.",
            soft_wrap=True,
        )
        with stages_told(shown=not quiet):
            for _ in run_experiment(
                *(place, settings, systems, store, folder),
                splits=sets,
                train=before.train,
                n_folds=before.n_folds,
                n_jobs=jobs,
                progress=not quiet,
                report_audio="link" if out else "none",
                command=command,
            ):
                pass
        _compare(before, read_record(folder), tolerance)


def _recipe(
    run: Path,
    before: "RunRecord",
    command: "Command",
    recipe: str | None,
    checkpoint: list[str] | None,
    code: list[str] | None,
) -> "Recipe":
    """Return the recipe to run: that of the record, or another with the same options."""
    if recipe is None:
        chosen = before.recipe_again(f"{run}, its results.json")
        return chosen.override(
            checkpoints=by_name(checkpoint, "--checkpoint"), code=by_name(code, "--code")
        )
    chosen = chosen_recipe(recipe, command.precision, checkpoint, code)
    return chosen if command.seeds is None else chosen.with_seeds(command.seeds)


def _compare(before: "RunRecord", now: "RunRecord", tolerance: float) -> None:
    """Print the figures of both runs side by side, and exit with 1 if they differ."""
    from xacle_stack.results.text_table import TextTable
    from xacle_stack.run_record import changes

    found = changes(before, now)
    if not found:
        fail("the run has no figures to compare: no set but the one fitted on had scores.")
    differ = [change for change in found if not change.difference <= tolerance]
    for split in dict.fromkeys(change.split for change in found):
        rows = [
            [
                *(change.system, change.figure, str(change.before)),
                "–" if change.now is None else str(change.now),
                f"{change.difference:.2g}",
            ]
            for change in found
            if change.split == split and (change.figure == "SRCC" or change in differ)
        ]
        header = ["system", "figure", "before", "now", "difference"]
        note = "Of the other figures, those that differ are listed."
        console.print(TextTable(f"{printable_name(split)}: before and now", header, rows, [note]))
    if differ:
        largest = max(change.difference for change in differ)
        fail(
            f"not reproduced: {len(differ)} of {len(found)} figures, or ends of their intervals, "
            f"differ by more than {tolerance:g}, the largest by {largest:.2g}."
        )
    console.print(f"Reproduced: all {len(found)} figures are equal within {tolerance:g}.")
