"""``xacle-stack score``: score a split, or single clips and captions, with a scorer or cosines."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xacle_stack._files import name_in_files
from xacle_stack._printable import printable_name
from xacle_stack.cli.cluster import on_cluster
from xacle_stack.cli.label_free import print_scale
from xacle_stack.cli.options import (
    DATA_HELP,
    DEFAULT_INTERVAL,
    DEFAULT_STORE,
    AudioColumn,
    AudioRoot,
    Checkpoints,
    Cluster,
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
from xacle_stack.errors import PairsError

if TYPE_CHECKING:
    from xacle_stack.scorer import Scorer


class Method(StrEnum):
    """How pairs are scored without ratings."""

    cosine = "cosine"


def score(
    model: Annotated[
        Path | None,
        typer.Argument(help="A model that a run or Scorer.save wrote, or its folder."),
    ] = None,
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
        typer.Option(
            "--recipe",
            help="With --method: whose encoders. With MODEL: needed if it has an encoder from a "
            "Python file.",
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            help="In place of MODEL, without ratings: the mean of the cosines of a recipe's spaces."
        ),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(
            help="How sure the columns low and high shall be; default 0.9 for a table, none for "
            "a folder, whose CSV has the challenge's form."
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="With --method: pairs that the scale is learned from, laid out as DATA."),
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
    cluster: Cluster = None,
    quiet: Quiet = False,
) -> None:
    """Score a set of a folder or a table into a CSV of predictions, or single clips and captions.

    The score of one clip is printed alone; those of several follow their clips, after a tab.
    With --method cosine the CSV also has each space's own cosine.
    """
    if (model is None) == (method is None):
        raise typer.BadParameter("give either a MODEL, or --method cosine and a --recipe.")
    if method is None and reference is not None:
        raise typer.BadParameter("--reference is for --method cosine; a MODEL has its own scale.")
    if method is not None and recipe is None:
        raise typer.BadParameter("--method cosine needs --recipe, which names the encoders.")
    if method is not None and audio and reference is None:
        raise typer.BadParameter("--method cosine needs --reference to score single clips.")
    if bool(audio) != bool(text) or bool(audio) == (data is not None):
        raise typer.BadParameter("give either --data, or both --audio and --text, not all three.")

    from xacle_stack.submission import write_predictions

    captions = _captions(audio, text) if audio and text else []
    pairs = None
    if data is not None:
        pairs = chosen_set(data, split, audio_column, text_column, audio_root)
    with on_cluster(None if pairs is None else cluster):
        scorer = chosen_scorer(
            model,
            recipe,
            reference=reference,
            checkpoint=checkpoint,
            code=code,
            max_bytes=max_model_bytes,
            store=store,
            device=device,
            n_jobs=jobs,
            progress=not quiet,
        )
        if pairs is None:
            _print_scores(audio or [], scorer, captions, interval)
            return
        path = out or Path(f"scores-{name_in_files(pairs.split)}.csv")
        is_official = data is not None and data.is_dir() and model is not None and interval is None
        with new_store_said(store):
            if not scorer.can_score:  # label-free, without a reference
                scorer.fit(pairs)
            if is_official:
                write_predictions(path, pairs.ids, scorer.score(pairs), pairs.split)
            else:
                if interval is None and scorer.has_intervals:
                    interval = DEFAULT_INTERVAL
                scored = scorer.assess(pairs, interval=interval)
                scored.write(path)
                if model is None:
                    print_scale(scorer, scored, reference)
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


def _print_scores(
    clips: list[Path], scorer: "Scorer", captions: list[str], interval: float | None
) -> None:
    if interval is None:
        texts = [f"{score:.2f}" for score in scorer.score_clips(clips, captions).tolist()]
    else:
        scored = scorer.score_clips(clips, captions, interval=interval)
        texts = [f"{score:.2f}" for score in scored.scores.tolist()]
        if scored.low is not None and scored.high is not None:
            ends = zip(texts, scored.low, scored.high, strict=True)
            texts = [f"{text} [{low:.1f}, {high:.1f}]" for text, low, high in ends]
    for clip, text in zip(clips, texts, strict=True):
        # A console would turn the tab into spaces.
        name = f"{printable_name(clip)}\t" if len(clips) > 1 else ""
        typer.echo(f"{name}{text}")
