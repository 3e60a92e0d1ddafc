"""``xacle-stack demo``: write the embedded demo data set."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.options import Jobs, Quiet
from xacle_stack.cli.show import console


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
