"""``xacle-stack evaluate``: compare files of predictions with human scores."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack.cli.options import Data, TextColumn
from xacle_stack.cli.show import print_results


def evaluate(
    predictions: Annotated[
        list[Path], typer.Argument(help="CSV files: wav_file_name and a score column.")
    ],
    data: Data,
    split: Annotated[
        str | None,
        typer.Option(help="Which set; default validation in a folder, the only one in a table."),
    ] = None,
    text_column: TextColumn = None,
) -> None:
    """Compare files of predictions with the human scores of a split, and with the first file."""
    from xacle_stack.pairs import read_pairs
    from xacle_stack.results import Result, published_for
    from xacle_stack.submission import read_predictions

    pairs = read_pairs(
        data,
        split or ("validation" if data.is_dir() else None),
        text_column=text_column,
        with_audio=False,
    )
    scores = {str(path): read_predictions(path, pairs.ids) for path in predictions}
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
