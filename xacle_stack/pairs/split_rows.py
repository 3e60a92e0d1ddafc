"""Reads and checks the rows of a split's CSV files, each of which is a pair or a rating."""

import difflib
import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from xacle_stack._csv_table import CsvTable, plain_number
from xacle_stack.errors import PairsError, bullet_list
from xacle_stack.pairs.record import MAX_SCORE, MIN_SCORE, is_utf8

logger = logging.getLogger(__name__)

_FILE = ("wav_file_name", "wave_file_name")
_CAPTION = ("text",)
# Both the misspelled and the correct form of the column in the organisers' README are accepted.
_AVERAGE = (
    "average_score",
    "average_semantic_alignement_score",
    "average_semantic_alignment_score",
)
_RATING = ("score", "semantic_alignement_score", "semantic_alignment_score")
_LISTENER = ("listener_id",)
# A column with such a word in its name probably holds the scores.
_SCORE_WORDS = ("score", "scores", "average", "avg", "mean", "mos", "rating", "ratings")

# A pair is an audio file with a caption; a file may have several captions.
PairKey = tuple[str, str]


@dataclass
class PairRow:
    """One pair of a CSV file.

    Attributes
    ----------
    where : str
        File and line.
    score : float or None
        None in a split without scores.
    """

    where: str
    score: float | None


@dataclass
class RatingRows:
    """The ratings of a split, one in each row."""

    pairs: list[PairKey] = field(default_factory=list)
    listeners: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def numbered_ids(files: Sequence[str]) -> tuple[str, ...]:
    """Return each pair's id: the name of its file, with a number if the file has several pairs.

    Raises
    ------
    PairsError
        If a numbered id is the name of another file.

    Examples
    --------
    >>> numbered_ids(["a.wav", "b.wav", "b.wav"])
    ('a.wav', 'b.wav#1', 'b.wav#2')
    """
    total, seen = Counter(files), Counter[str]()
    ids = []
    for file in files:
        seen[file] += 1
        ids.append(file if total[file] == 1 else f"{file}#{seen[file]}")
    clashes = sorted({i for i, file in zip(ids, files, strict=True) if i != file and i in total})
    if clashes:
        raise PairsError(
            "an audio file of several pairs gives them the ids FILE#1, FILE#2, …, which are the "
            f"names of other files here. Rename those:\n{bullet_list(clashes)}"
        )
    return tuple(ids)


def read_average_rows(path: Path, mistakes: list[str]) -> dict[PairKey, PairRow]:
    """Read a file with one pair in each row."""
    columns = {"file": _FILE, "caption": _CAPTION, "score": _AVERAGE}
    table = CsvTable.read(path, columns, optional=("score",))
    _refuse_misspelled_scores(table, _AVERAGE)
    if "score" not in table.columns and table.unread:
        logger.warning(
            "%s: read as a split without scores, because none of its columns %s is %r.",
            path,
            list(table.header),
            _AVERAGE[0],
        )
    return _read_pair_rows(table, mistakes)


def read_listener_rows(
    path: Path, rows: dict[PairKey, PairRow] | None, mistakes: list[str]
) -> tuple[dict[PairKey, PairRow], RatingRows | None]:
    """Read a split's per-listener file, or its list of pairs without scores.

    Parameters
    ----------
    path : Path
    rows : dict of PairKey to PairRow, optional
        The split's pairs from another file.  Otherwise the pairs are those of this file, with the
        means of their ratings as scores.
    mistakes : list of str

    Returns
    -------
    rows : dict of PairKey to PairRow
    ratings : RatingRows or None
        None if the file has no scores.
    """
    columns = {"file": _FILE, "caption": _CAPTION, "score": _RATING, "listener": _LISTENER}
    table = CsvTable.read(path, columns, optional=("score", "listener"))
    _refuse_misspelled_scores(table, _RATING)
    if "score" not in table.columns:
        return (_read_pair_rows(table, mistakes) if rows is None else rows), None
    if "listener" not in table.columns:
        near = difflib.get_close_matches(_LISTENER[0], table.unread, n=1)
        raise PairsError(
            f"{path}: the file has scores but no column 'listener_id', which says "
            f"whose they are. {f'Rename {near[0]!r} to it.' if near else 'Add the column.'}"
        )
    if rows is not None:
        return rows, _read_ratings(table, rows, mistakes)
    rows = {}
    for where, file, caption, _ in _pairs_in(table, []):
        rows.setdefault((file, caption), PairRow(where, None))
    ratings = _read_ratings(table, rows, mistakes)
    by_pair: dict[PairKey, list[float]] = {pair: [] for pair in rows}
    for pair, score in zip(ratings.pairs, ratings.scores, strict=True):
        by_pair[pair].append(score)
    for pair, scores in by_pair.items():
        rows[pair].score = math.fsum(scores) / len(scores)
    return rows, ratings


def _read_pair_rows(table: CsvTable, mistakes: list[str]) -> dict[PairKey, PairRow]:
    rows: dict[PairKey, PairRow] = {}
    for where, file, caption, record in _pairs_in(table, mistakes):
        if (file, caption) in rows:
            mistakes.append(
                f"{where}: {file!r} with this caption is already in "
                f"{rows[file, caption].where}; a pair may occur only once in a split"
            )
            continue
        score = None if "score" not in record else _score(where, table, record, mistakes)
        rows[file, caption] = PairRow(where, score)
    return rows


def _read_ratings(
    table: CsvTable, rows: Mapping[PairKey, PairRow], mistakes: list[str]
) -> RatingRows:
    captions: dict[str, list[str]] = {}
    for file, caption in rows:
        captions.setdefault(file, []).append(caption)
    ratings = RatingRows()
    for where, file, caption, record in _pairs_in(table, mistakes):
        if file not in captions:
            mistakes.append(f"{where}: a rating of {file!r}, which is not a pair of this split")
        elif (file, caption) not in rows:
            known = captions[file]
            elsewhere = repr(known[0]) if len(known) == 1 else f"{len(known)} others"
            mistakes.append(
                f"{where}: {file!r} has the caption {caption!r} here but {elsewhere} elsewhere"
            )
        if not record["listener"].strip():
            mistakes.append(f"{where}: the listener id is empty")
        elif not is_utf8(record["listener"]):
            mistakes.append(f"{where}: the listener id {record['listener']!r} is not UTF-8")
        ratings.pairs.append((file, caption))
        ratings.listeners.append(record["listener"].strip())
        ratings.scores.append(_score(where, table, record, mistakes))
    return ratings


def _pairs_in(
    table: CsvTable, mistakes: list[str]
) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """Yield (where, file, caption, record) for every row that names a file."""
    for where, record in table.rows(mistakes):
        file = record["file"].strip()
        mistake = _file_mistake(file)
        if mistake is not None:
            mistakes.append(f"{where}: {mistake}")
            continue
        caption = record["caption"].strip()
        if not caption:
            mistakes.append(f"{where}: the caption of {file!r} is empty")
        if not is_utf8(caption):
            shown = caption.encode("utf-8", errors="surrogateescape")
            mistakes.append(
                f"{where}: the caption of {file!r} is not UTF-8: {shown!r}; save the file as UTF-8"
            )
        yield where, file, caption, record


def _file_mistake(file: str) -> str | None:
    if not file:
        return "the audio file name is empty"
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or str(path) != file or "\\" in file:
        return (
            f"{file!r} is not the plain name of a file in the split's wav folder; subfolders "
            "are written as 'a/b.wav'"
        )
    if not is_utf8(file):
        return f"the audio file name {file!r} is not UTF-8; rename the file"
    return None


def _score(where: str, table: CsvTable, record: Mapping[str, str], mistakes: list[str]) -> float:
    score = plain_number(record["score"])
    if not MIN_SCORE <= score <= MAX_SCORE:
        mistakes.append(
            f"{where}: {table.columns['score']} is {record['score']!r}; expected a number from "
            f"{MIN_SCORE:g} to {MAX_SCORE:g}"
        )
    return score


def _refuse_misspelled_scores(table: CsvTable, spellings: Sequence[str]) -> None:
    """Raise if a file without scores has a column that probably holds scores."""
    if "score" in table.columns:
        return
    for name in table.unread:
        words = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower())
        if difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0.85) or any(
            difflib.get_close_matches(word, _SCORE_WORDS, n=1, cutoff=0.85) for word in words
        ):
            raise PairsError(
                f"{table.path}: the header lacks the column {spellings[0]!r}, but {name!r} looks "
                f"like scores. Did you mean {spellings[0]!r}? A split without scores has no such "
                "column; rename or remove it."
            )
