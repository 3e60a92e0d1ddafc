"""Pairs of a clip and a caption, read from a folder in the XACLE layout.

::

    XACLE_dataset/meta_data/{train,validation,test}_average.csv   one row a pair
    XACLE_dataset/meta_data/{train,validation,test}.csv           one row a rating (optional)
    XACLE_dataset/wav/{train,validation,test}/00000.wav …

A pair's id is its audio file name, unique within a split.  Both header spellings that are in
circulation are read.  A split whose per-listener file has no score column (a challenge's hidden
test part) gives pairs without scores.

Source: Okamoto et al., XACLE challenge 2026; the organisers' README and baseline code.
"""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np

from xacle_stack._csv_table import CsvTable
from xacle_stack._types import FloatArray
from xacle_stack.errors import PairsError, bullet_list

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
MIN_SCORE, MAX_SCORE = 0.0, 10.0

_ID = ("wav_file_name", "wave_file_name")
_CAPTION = ("text",)
# Both misspelled and mended forms of the organisers' README column are accepted.
_AVERAGE = (
    "average_score",
    "average_semantic_alignement_score",
    "average_semantic_alignment_score",
)
_RATING = ("score", "semantic_alignement_score", "semantic_alignment_score")
_LISTENER = ("listener_id",)


@dataclass(frozen=True, eq=False)
class Ratings:
    """What each listener said, one row a rating.

    Attributes
    ----------
    pair_ids, listener_ids : tuple of str
    scores : ndarray of shape (n_ratings,)
        0–10.
    """

    pair_ids: tuple[str, ...]
    listener_ids: tuple[str, ...]
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.pair_ids)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one split, in the order of their CSV file.

    Attributes
    ----------
    split : str
    ids : tuple of str
        Audio file names, without duplicates.
    audio_paths : tuple of Path
    captions : tuple of str
    scores : ndarray of shape (n_pairs,), optional
        Mean human score, 0–10; None for a split without scores.
    ratings : Ratings, optional
        None where there is no per-listener file.
    """

    split: str
    ids: tuple[str, ...]
    audio_paths: tuple[Path, ...]
    captions: tuple[str, ...]
    scores: FloatArray | None = None
    ratings: Ratings | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        scores = "scores" if self.scores is not None else "no scores"
        n_ratings = 0 if self.ratings is None else len(self.ratings)
        return f"Pairs({self.split!r}, {len(self)} pairs, {scores}, {n_ratings} ratings)"

    def take(self, rows: Sequence[int]) -> Self:
        """Return some of the pairs, with their ratings, in the order asked for."""
        kept = {self.ids[row] for row in rows}
        ratings = self.ratings
        if ratings is not None:
            places = [i for i, pair_id in enumerate(ratings.pair_ids) if pair_id in kept]
            ratings = Ratings(
                tuple(ratings.pair_ids[i] for i in places),
                tuple(ratings.listener_ids[i] for i in places),
                ratings.scores[places],
            )
        return type(self)(
            self.split,
            tuple(self.ids[row] for row in rows),
            tuple(self.audio_paths[row] for row in rows),
            tuple(self.captions[row] for row in rows),
            None if self.scores is None else self.scores[list(rows)],
            ratings,
        )


def list_splits(data: Path | str) -> list[str]:
    """Return the splits that a data folder holds, in the order train, validation, test.

    Raises
    ------
    PairsError
        If the folder is not in the XACLE layout.
    """
    meta_data = _find_meta_data(Path(data))
    found = [
        split
        for split in SPLITS
        if (meta_data / f"{split}_average.csv").is_file() or (meta_data / f"{split}.csv").is_file()
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


def read_splits(data: Path | str) -> dict[str, "Pairs"]:
    """Read every split that a data folder holds.

    Raises
    ------
    PairsError
        With the mistakes of all splits.
    """
    splits, errors = {}, []
    for split in list_splits(data):
        try:
            splits[split] = read_pairs(data, split)
        except PairsError as error:
            errors.append(str(error))
    if errors:
        raise PairsError("\n".join(errors))
    return splits


def read_pairs(data: Path | str, split: str) -> Pairs:
    """Read and check one split.

    Parameters
    ----------
    data : path-like
        The folder that holds ``meta_data/`` and ``wav/``.
    split : {"train", "validation", "test"}

    Returns
    -------
    pairs : Pairs

    Raises
    ------
    PairsError
        With every mistake found, at most 20 shown: missing columns, audio files that are missing
        or cannot be opened, duplicate file names, scores that are no numbers in 0–10, empty
        captions, captions that are not UTF-8, ratings that fit no pair.
    """
    if split not in SPLITS:
        raise PairsError(f"unknown split {split!r}. Expected one of: {', '.join(SPLITS)}.")
    data = Path(data)
    meta_data = _find_meta_data(data)
    average_csv, listener_csv = meta_data / f"{split}_average.csv", meta_data / f"{split}.csv"
    mistakes: list[str] = []
    if average_csv.is_file():
        columns = {"id": _ID, "caption": _CAPTION, "score": _AVERAGE}
        rows = _read_averages(
            CsvTable.read(average_csv, columns, optional_beside=("score",)), mistakes
        )
        ratings = None
        if listener_csv.is_file():
            ratings = _read_ratings(_listener_table(listener_csv), rows, mistakes)
    elif listener_csv.is_file():
        rows, ratings = _read_without_averages(_listener_table(listener_csv), mistakes)
    else:
        raise PairsError(
            f"{data}: the split {split!r} is not here: neither {average_csv.name} nor "
            f"{listener_csv.name} stands in {meta_data}. {_which_splits(meta_data)}"
        )
    audio_paths = tuple(data / "wav" / split / pair_id for pair_id in rows)
    mistakes += _audio_mistakes(data / "wav" / split, audio_paths)
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
        ids=tuple(rows),
        audio_paths=audio_paths,
        captions=tuple(row.caption for row in rows.values()),
        scores=None if scores[0] is None else np.array(scores, dtype=np.float64),
        ratings=ratings,
    )


@dataclass
class _Row:
    caption: str
    score: float | None


def _listener_table(path: Path) -> CsvTable:
    expected = {"id": _ID, "caption": _CAPTION, "score": _RATING, "listener": _LISTENER}
    return CsvTable.read(path, expected, optional=("score", "listener"))


def _read_averages(table: CsvTable, mistakes: list[str]) -> dict[str, _Row]:
    rows: dict[str, _Row] = {}
    first_seen: dict[str, str] = {}
    for where, record in _rows(table, mistakes):
        pair_id = record["id"].strip()
        if pair_id in rows:
            mistakes.append(
                f"{where}: {pair_id!r} stands already in {first_seen[pair_id]}; a file name "
                "may stand once in a split"
            )
            continue
        first_seen[pair_id] = where
        rows[pair_id] = _Row(
            _caption(where, record, mistakes),
            _score(where, table.columns.get("score"), record.get("score", ""), mistakes),
        )
    return rows


def _read_ratings(table: CsvTable, rows: Mapping[str, _Row], mistakes: list[str]) -> Ratings | None:
    if "score" not in table.columns:
        return None
    if "listener" not in table.columns:
        raise PairsError(
            f"{table.path}: the file has scores but no column 'listener_id', so nobody can tell "
            "whose they are. Add the column."
        )
    pair_ids, listeners, scores = [], [], []
    for where, record in _rows(table, mistakes):
        pair_id = record["id"].strip()
        caption = _caption(where, record, mistakes)
        if pair_id not in rows:
            mistakes.append(f"{where}: a rating of {pair_id!r}, which is no pair of this split")
        elif caption != rows[pair_id].caption:
            mistakes.append(
                f"{where}: {pair_id!r} has the caption {caption!r} here but "
                f"{rows[pair_id].caption!r} elsewhere"
            )
        if not record["listener"].strip():
            mistakes.append(f"{where}: the listener id is empty")
        pair_ids.append(pair_id)
        listeners.append(record["listener"].strip())
        scores.append(_score(where, table.columns["score"], record["score"], mistakes))
    return Ratings(tuple(pair_ids), tuple(listeners), np.array(scores, dtype=np.float64))


def _read_without_averages(
    table: CsvTable, mistakes: list[str]
) -> tuple[dict[str, _Row], Ratings | None]:
    """Read a split that has only its per-listener file, or only a list of pairs."""
    if "score" not in table.columns:
        return _read_averages(table, mistakes), None
    rows: dict[str, _Row] = {}
    for where, record in _rows(table, []):
        rows.setdefault(record["id"].strip(), _Row(_caption(where, record, []), 0.0))
    ratings = _read_ratings(table, rows, mistakes)
    if ratings is not None:
        by_pair: dict[str, list[float]] = {pair_id: [] for pair_id in rows}
        for pair_id, score in zip(ratings.pair_ids, ratings.scores, strict=True):
            by_pair[pair_id].append(float(score))
        for pair_id, of_pair in by_pair.items():
            rows[pair_id].score = math.fsum(of_pair) / len(of_pair)
    return rows, ratings


def _caption(where: str, record: Mapping[str, str], mistakes: list[str]) -> str:
    caption = record["caption"].strip()
    if not caption:
        mistakes.append(f"{where}: the caption of {record['id']!r} is empty")
    if not _is_utf8(caption):
        shown = caption.encode("utf-8", errors="surrogateescape")
        mistakes.append(
            f"{where}: the caption of {record['id']!r} is not UTF-8: {shown!r}; save the file "
            "as UTF-8"
        )
    return caption


def _rows(table: CsvTable, mistakes: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (where, record) for every row that names a file."""
    for where, record in table.rows(mistakes):
        mistake = _id_mistake(record["id"].strip())
        if mistake is None:
            yield where, record
        else:
            mistakes.append(f"{where}: {mistake}")


def _id_mistake(pair_id: str) -> str | None:
    if not pair_id:
        return "the audio file name is empty"
    path = PurePosixPath(pair_id)
    if path.is_absolute() or ".." in path.parts or str(path) != pair_id or "\\" in pair_id:
        return (
            f"{pair_id!r} is not the plain name of a file in the split's wav folder; subfolders "
            "are written as 'a/b.wav'"
        )
    if not _is_utf8(pair_id):
        return f"the audio file name {pair_id!r} is not UTF-8; rename the file"
    return None


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _score(where: str, column: str | None, text: str, mistakes: list[str]) -> float | None:
    if column is None:  # a split without scores
        return None
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not MIN_SCORE <= score <= MAX_SCORE:
        mistakes.append(f"{where}: {column} is {text!r}; expected a number from 0 to 10")
    return score


def _audio_mistakes(folder: Path, paths: Sequence[Path]) -> list[str]:
    if not folder.is_dir():
        return [f"{folder}: no such folder of audio files"]
    mistakes = []
    for path in paths:
        if path.is_dir():
            mistakes.append(f"{path}: this is a folder, not an audio file")
        elif not path.exists():
            mistakes.append(f"{path}: no such audio file")
        elif not os.access(path, os.R_OK):
            mistakes.append(f"{path}: not readable; change its permissions")
    return mistakes


def _find_meta_data(data: Path) -> Path:
    meta_data = data / "meta_data"
    if meta_data.is_dir():
        return meta_data
    if not data.exists():
        raise PairsError(
            f"{data}: no such folder. Give the folder that holds meta_data/ and wav/; `make stack` "
            "makes a demo data set in data/demo."
        )
    near = [p.parent for p in (*data.glob("*/meta_data"), data.parent / "meta_data") if p.is_dir()]
    hint = f" Did you mean {str(near[0])!r}?" if near else ""
    if not data.is_dir():
        raise PairsError(f"{data}: this is a file. Give the folder that holds meta_data/ and wav/.")
    raise PairsError(
        f"{data}: there is no folder meta_data/ in it. Give the folder that holds meta_data/ and "
        f"wav/ in the XACLE layout.{hint}"
    )


def _which_splits(meta_data: Path) -> str:
    names = sorted(path.name for path in meta_data.glob("*.csv"))
    return f"It holds: {', '.join(names)}." if names else "It holds no CSV file."
