"""``xacle-stack score``: score a split, or single clips and captions, with a saved scorer."""

from pathlib import Path
from typing import Annotated

import typer

from xacle_stack._printable import printable_name
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
    by_name,
)
from xacle_stack.cli.show import console, say_new_store
from xacle_stack.errors import PairsError


def score(
    model: Annotated[
        Path, typer.Argument(help="A model that a run or Scorer.save wrote, or its folder.")
    ],
    data: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Which set; default test in a folder, the only one in a table."),
    ] = None,
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
        str | None,
        typer.Option("--recipe", help="Needed if the model has an encoder from a Python file."),
    ] = None,
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
    """Score a set of a folder or a table into a CSV of predictions, or single clips and captions.

    The score of one clip is printed alone; those of several follow their clips, after a tab.
    """
    if bool(audio) != bool(text) or bool(audio) == (data is not None):
        raise typer.BadParameter("give either --data, or both --audio and --text, not all three.")

    from xacle_stack.model_file import MAX_MODEL_BYTES
    from xacle_stack.pairs import read_pairs
    from xacle_stack.scorer import Scorer
    from xacle_stack.submission import write_predictions
    from xacle_stack.systems.specs import file_name

    captions = _captions(audio, text) if audio and text else []
    pairs = None
    if data is not None:
        pairs = read_pairs(
            data,
            split or ("test" if data.is_dir() else None),
            audio_column=audio_column,
            text_column=text_column,
            audio_root=audio_root,
        )
    scorer = Scorer.load(
        model,
        recipe,
        checkpoints=by_name(checkpoint, "--checkpoint"),
        code=by_name(code, "--code"),
        store=store,
        device=device,
        n_jobs=jobs,
        progress=not quiet,
        max_bytes=max_model_bytes or MAX_MODEL_BYTES,
    )
    if pairs is None:
        _print_scores(audio or [], scorer.score_clips(audio or [], captions).tolist())
        return
    path, was_there = out or Path(f"scores-{file_name(pairs.split)}.csv"), store.exists()
    write_predictions(path, pairs.ids, scorer.score(pairs), pairs.split)
    if not was_there:
        say_new_store(store)
    console.print(f"{len(pairs)} scores: {path}", soft_wrap=True)


def _captions(audio: list[Path], texts: list[str]) -> list[str]:
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
    return [text.strip() for text in (texts if len(texts) > 1 else texts * len(audio))]


def _print_scores(clips: list[Path], scores: list[float]) -> None:
    for clip, score in zip(clips, scores, strict=True):
        # A console would turn the tab into spaces.
        name = f"{printable_name(clip)}\t" if len(clips) > 1 else ""
        typer.echo(f"{name}{score:.2f}")
