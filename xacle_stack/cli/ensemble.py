"""``xacle-stack ensemble``: one file of predictions from several."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.show import console


class Method(StrEnum):
    """How scores are combined."""

    rank = "rank"
    mean = "mean"


def ensemble(
    predictions: Annotated[
        list[Path],
        typer.Argument(help="CSV files: wav_file_name and a score column, of the same pairs."),
    ],
    method: Annotated[
        Method, typer.Option(help="Mean of the ranks, scaled to 0-10, or of the scores.")
    ] = Method.rank,
    split: Annotated[
        str | None,
        typer.Option(help="Which split they predict; default as the first file's score column."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the CSV goes; default ensemble-SPLIT.csv.")
    ] = None,
) -> None:
    """Combine files of predictions; the first one says which pairs, in which order."""
    from xacle_stack.submission import (
        predicted_ids,
        predicted_split,
        read_predictions,
        write_predictions,
    )
    from xacle_stack.systems.ensemble import average, rank_average

    if len(predictions) < 2:
        raise typer.BadParameter("give two files or more to combine.")
    split = split or predicted_split(predictions[0])
    pair_ids = predicted_ids(predictions[0])
    scores = [read_predictions(path, pair_ids) for path in predictions]
    combined = rank_average(scores) if method is Method.rank else average(scores)
    path = out or Path(f"ensemble-{split}.csv")
    write_predictions(path, pair_ids, combined, split)
    console.print(f"{len(pair_ids)} scores of {len(scores)} systems: {path}", soft_wrap=True)
