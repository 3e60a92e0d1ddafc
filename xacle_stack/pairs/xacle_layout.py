"""Reads pairs from a folder in the XACLE layout.

::

    XACLE_dataset/meta_data/{train,validation,test}_average.csv   a pair in each row
    XACLE_dataset/meta_data/{train,validation,test}.csv           a rating in each row (optional)
    XACLE_dataset/wav/{train,validation,test}/00000.wav …

The folder may have any name; that of the second challenge is called
XACLE_Challenge_2027_development_dataset.

A pair's id is its audio file name.  The pairs of a file with several captions, as in AudioCaps,
have the ids ``FILE#1``, ``FILE#2`` … in the order of their rows.  Both spellings of the header that
are in circulation are accepted.  A split whose files have no score column, such as the hidden test
part of a challenge, gives pairs without scores.

Source: Okamoto et al., XACLE challenge 2026; the organisers' READMEs and baseline code of both
challenges.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xacle_stack.errors import PairsError, bullet_list
from xacle_stack.pairs.audio_folder import AudioFolder
from xacle_stack.pairs.record import Pairs, Ratings
from xacle_stack.pairs.row_source import TABLE_ENDINGS
from xacle_stack.pairs.split_rows import (
    PairKey,
    PairRow,
    RatingRows,
    numbered_ids,
    read_average_rows,
    read_listener_rows,
)

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


def list_splits(data: Path | str) -> list[str]:
    """Return the splits in a data folder, in the order train, validation, test.

    Raises
    ------
    PairsError
        If the folder is not in the XACLE layout.
    """
    meta_data = _find_meta_data(Path(data))
    found = [
        split
        for split in SPLITS
        if (meta_data / f"{split}_average.csv").exists() or (meta_data / f"{split}.csv").exists()
    ]
    for path in sorted(meta_data.glob("*.csv")):
        if path.stem.removesuffix("_average") not in SPLITS:
            logger.warning("%s is not read: a split is called %s.", path, ", ".join(SPLITS))
    if not found:
        raise PairsError(
            f"{meta_data}: none of the files train_average.csv, validation_average.csv or "
            "test_average.csv is here. Expected the XACLE layout; see the README, 'Your own data'."
        )
    return found


def read_splits(
    data: Path | str, split: str | None = None, *, with_audio: bool = True
) -> dict[str, Pairs]:
    """Read all splits in a data folder, or one of them.

    Raises
    ------
    PairsError
        With the mistakes of all splits.
    """
    splits, errors = {}, []
    for name in list_splits(data) if split is None else [split]:
        try:
            splits[name] = _read_split(Path(data), name, with_audio)
        except PairsError as error:
            errors.append(str(error))
    if errors:
        raise PairsError("\n".join(errors))
    return splits


def _read_split(data: Path, split: str, with_audio: bool) -> Pairs:
    if split not in SPLITS:
        raise PairsError(f"unknown split {split!r}. Expected one of: {', '.join(SPLITS)}.")
    meta_data = _find_meta_data(data)
    average_csv, listener_csv = meta_data / f"{split}_average.csv", meta_data / f"{split}.csv"
    mistakes: list[str] = []
    ratings = None
    if average_csv.exists():
        rows = read_average_rows(average_csv, mistakes)
        if listener_csv.exists():
            rows, ratings = read_listener_rows(listener_csv, rows, mistakes)
    elif listener_csv.exists():
        rows, ratings = read_listener_rows(listener_csv, None, mistakes)
    else:
        raise PairsError(
            f"{data}: the split {split!r} is not here: neither {average_csv.name} nor "
            f"{listener_csv.name} is in {meta_data}. {_which_splits(meta_data)}"
        )
    try:
        ids = numbered_ids([file for file, _ in rows])
    except PairsError as error:
        mistakes.append(str(error))
    audio = _find_audio(data / "wav" / split, rows, mistakes) if with_audio else ()
    if mistakes:
        raise PairsError(
            f"{data}, split {split!r}: {len(mistakes)} mistake(s). Mend them and run again:\n"
            + bullet_list(mistakes)
        )
    if not rows:
        raise PairsError(f"{data}, split {split!r}: the file has a header but no pairs.")
    scores = [row.score for row in rows.values()]
    return Pairs(
        split=split,
        ids=ids,
        audio=audio,
        captions=tuple(caption for _, caption in rows),
        scores=None if scores[0] is None else np.array(scores, dtype=np.float64),
        ratings=None if ratings is None else _with_ids(ratings, dict(zip(rows, ids, strict=True))),
    )


def _find_audio(
    folder: Path, rows: Mapping[PairKey, PairRow], mistakes: list[str]
) -> tuple[Path, ...]:
    if not folder.is_dir():
        mistakes.append(f"{folder}: no such folder of audio files")
        return ()
    audio = AudioFolder(folder)
    found = {file: audio.find(file, mistakes) for file in dict.fromkeys(file for file, _ in rows)}
    return tuple(found[file] for file, _ in rows)


def _with_ids(ratings: RatingRows, ids: Mapping[PairKey, str]) -> Ratings:
    return Ratings(
        tuple(ids[pair] for pair in ratings.pairs),
        tuple(ratings.listeners),
        np.array(ratings.scores, dtype=np.float64),
    )


def _find_meta_data(data: Path) -> Path:
    meta_data = data / "meta_data"
    if meta_data.is_dir():
        return meta_data
    if not data.exists():
        raise PairsError(
            f"{data}: no such folder. Give the folder that holds meta_data/ and wav/, or a table; "
            "`xacle-stack demo FOLDER` makes an example."
        )
    below = sorted((*data.glob("*/meta_data"), *data.glob("*/*/meta_data")))
    above = [folder / "meta_data" for folder in data.absolute().parents[:2]]
    near = [path.parent for path in (*below, *above) if path.is_dir()]
    hint = f" Did you mean {' or '.join(repr(str(path)) for path in near[:3])}?" if near else ""
    tables = [str(p) for p in sorted(data.iterdir()) if p.suffix.casefold() in TABLE_ENDINGS]
    if tables and not hint:
        hint = f" Or give a table itself: {', '.join(tables[:3])}."
    raise PairsError(
        f"{data}: there is no folder meta_data/ in it. Give the folder that holds meta_data/ and "
        f"wav/ in the XACLE layout.{hint}"
    )


def _which_splits(meta_data: Path) -> str:
    names = sorted(path.name for path in meta_data.glob("*.csv"))
    return f"It holds: {', '.join(names)}." if names else "It holds no CSV file."
