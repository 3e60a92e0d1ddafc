"""What the commands share that run an experiment: they run it, print its table, say where it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xacle_stack.cli.options import ReportAudioChoice
from xacle_stack.cli.show import console, error_console, print_results, stages_told

if TYPE_CHECKING:
    from xacle_stack.pairs import Pairs
    from xacle_stack.recipe import Recipe
    from xacle_stack.results import Result
    from xacle_stack.run_record import Command
    from xacle_stack.stacking import Selection
    from xacle_stack.systems.specs import AnySpec


def recorded_command(*, audio_root: Path | None, **options: Any) -> "Command":
    """Return what a run records of the command that was given."""
    from xacle_stack.run_record import Command

    root = None if audio_root is None else str(audio_root.resolve())
    return Command(audio_root=root, **options)


def run_and_print(
    data: Path,
    splits: "Mapping[str, Pairs]",
    recipe: "Recipe",
    systems: Mapping[str, "AnySpec"],
    store: Path,
    out: Path,
    *,
    train: str | None,
    n_folds: int,
    report_audio: ReportAudioChoice,
    command: "Command",
    jobs: int,
    quiet: bool,
    select: bool = False,
) -> None:
    """Run an experiment and print its table; what is finished is told where it is stopped."""
    from xacle_stack.experiment import run_experiment
    from xacle_stack.results import CROSS_VALIDATION

    if (out / "results.csv").exists():
        console.print(
            f"The results of an earlier run in {out} are replaced as soon as the first system of "
            "this run is finished; --out names another folder.",
            soft_wrap=True,
        )
    results: list[Result] = []
    selections: list[Selection] = []
    n_finished = 0
    try:
        with stages_told(shown=not quiet):
            for found in run_experiment(
                *(data, recipe, systems, store, out),
                splits=splits,
                train=train,
                n_folds=n_folds,
                n_jobs=jobs,
                progress=not quiet,
                report_audio=report_audio.value,
                select=selections.append if select else None,
                command=command,
            ):
                results, n_finished = found, n_finished + 1
    except KeyboardInterrupt:
        there = f"their table, and the models so far: {out}" if n_finished else "no table yet."
        error_console.print(
            f"\nStopped. {n_finished} of {len(systems)} systems are finished; {there}",
            soft_wrap=True,
        )
        raise
    print_results(results)
    if not results:
        console.print(
            "No set but the one fitted on has scores, and --cv is 0: nothing to evaluate."
        )
    if any(result.split == CROSS_VALIDATION for result in results):
        console.print(
            "The models are fitted on all pairs; the figures are of fits without each fold."
        )
    console.print(f"Models, scores, tables and plots: {out}", soft_wrap=True)
    for selection in selections:
        _print_selection(selection, recipe, out)
    if (page := out / "report" / "index.html").exists():
        console.print(f"A page to look at and to listen to: {page}", soft_wrap=True)


def _print_selection(selection: "Selection", recipe: "Recipe", out: Path) -> None:
    """Print which stack was chosen, and how a recipe asks for it."""
    from xacle_stack.recipe import chosen_settings

    console.print(selection.table())
    console.print(
        f"\nThe models in {out} are those of the recipe as it is. These settings make the chosen "
        "stack; write them into a copy of the recipe, in place of those of the same names:",
        soft_wrap=True,
    )
    console.print(f"\n{chosen_settings(recipe, selection)}\n", soft_wrap=True)
