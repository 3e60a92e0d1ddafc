"""``xacle-stack caption``: captions of clips, by a model that has learned to write them."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack._files import name_in_files
from xacle_stack.cli.options import (
    DATA_HELP,
    DEFAULT_STORE,
    AudioColumn,
    AudioRoot,
    Checkpoints,
    Code,
    Device,
    Jobs,
    Quiet,
    Store,
    TextColumn,
    chosen_set,
)
from xacle_stack.cli.scorers import chosen_scorer
from xacle_stack.cli.show import console, new_store_said


def caption(
    model: Annotated[
        Path, typer.Argument(help="A captioner: models/NAME-captioning.skops of a run.")
    ],
    data: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Which set; default test in a folder, the only one in a table."),
    ] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="Caption this clip; repeatable.")] = None,
    beams: Annotated[
        int, typer.Option(min=1, help="Continuations that are followed; 1 is the quickest.")
    ] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longer captions are cut.")] = 64,
    similarity: Annotated[
        str | None,
        typer.Option(
            help="An encoder of captions, such as all-minilm-l6-v2: how alike each caption is to "
            "that of the data."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where the CSV goes; default captions-SPLIT.csv."),
    ] = None,
    store: Store = DEFAULT_STORE,
    device: Device = "auto",
    checkpoint: Checkpoints = None,
    code: Code = None,
    max_model_bytes: Annotated[
        int | None,
        typer.Option("--max-model-bytes", min=1, help="The largest model to read; default 4 GiB."),
    ] = None,
    audio_column: AudioColumn = None,
    text_column: TextColumn = None,
    audio_root: AudioRoot = None,
    jobs: Jobs = -1,
    quiet: Quiet = False,
) -> None:
    """Write a caption for every clip of a set into a CSV, or print those of single clips."""
    if (data is None) == (not audio):
        raise typer.BadParameter("give either --data or --audio.")
    if similarity is not None and data is None:
        raise typer.BadParameter("--similarity is to the captions of --data.")

    from xacle_stack._csv_table import csv_text, not_a_formula, write_csv
    from xacle_stack.captions import caption_similarity, write_captions
    from xacle_stack.pairs import Pairs

    if data is not None:
        pairs = chosen_set(data, split, audio_column, text_column, audio_root)
    else:
        clips = tuple(audio or ())
        ids = tuple(str(number) for number in range(len(clips)))
        pairs = Pairs("clips", ids, clips, ("?",) * len(clips))  # the captions are not read
    scorer = chosen_scorer(
        model,
        None,
        reference=None,
        checkpoint=checkpoint,
        code=code,
        max_bytes=max_model_bytes,
        store=store,
        device=device,
        n_jobs=jobs,
        progress=not quiet,
    )
    with new_store_said(store):
        written = write_captions(scorer, pairs, n_beams=beams, max_new_tokens=max_tokens)
    if data is None:
        for clip, text in zip(pairs.audio, written, strict=True):
            typer.echo(f"{clip}\t{text}" if len(written) > 1 else text)
        return
    columns: dict[str, list[object]] = {
        "id": [*map(not_a_formula, pairs.ids)],
        "caption": [*map(not_a_formula, written)],
    }
    if similarity is not None:
        found = caption_similarity(written, pairs.captions, similarity, device=device)
        columns |= {
            "reference": [*map(not_a_formula, pairs.captions)],
            "similarity": [f"{x:.4f}" for x in found],
        }
    path = out or Path(f"captions-{name_in_files(pairs.split)}.csv")
    write_csv(path, [csv_text([tuple(columns), *zip(*columns.values(), strict=True)])])
    console.print(f"{len(pairs)} captions: {path}", soft_wrap=True)
    if similarity is not None:
        console.print(
            f"mean similarity to the captions of the data, by {similarity}: {found.mean():.3f}"
        )
