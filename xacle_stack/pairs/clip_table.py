"""Reads pairs from the rows of any table with a column of clips and one of texts.

A pair's id is that of its row in the column ``id``, else the number of its row, counted from 0.
Rows with a listener and a score are ratings: those of one pair are brought together, its score is
their mean, and its id, if the table has none, the number of its first row.
"""

import difflib
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._csv_table import MAX_FIELD_CHARS, MAX_MISTAKES, plain_number
from xacle_stack.errors import AudioError, PairsError, bullet_list
from xacle_stack.pairs.audio_folder import AudioFolder
from xacle_stack.pairs.clip_cell import path_in, sound_in
from xacle_stack.pairs.record import MAX_SCORE, MIN_SCORE, Pairs, Ratings, is_utf8
from xacle_stack.pairs.row_source import RowSource

logger = logging.getLogger(__name__)

# The accepted spellings, as `_plain` writes them.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "audio": (
        *("audio", "audio_path", "audio_file", "audio_filename", "audio_file_name", "path"),
        *("file", "file_path", "filepath", "file_name", "filename", "clip", "wav", "wav_path"),
        *("wav_file", "wav_file_name", "wave_file_name"),
    ),
    "text": ("text", "caption", "prompt", "description"),
    "id": ("id", "pair_id"),
    "score": (
        *("score", "average_score", "human_score"),
        *("average_semantic_alignement_score", "average_semantic_alignment_score"),
        *("semantic_alignement_score", "semantic_alignment_score"),
    ),
    "listener": ("listener_id", "listener"),
    "split": ("split",),
    "system": ("system", "generator"),
    "group": ("group", "group_id"),
    "rate": ("sampling_rate", "sample_rate", "sample_rate_hz"),
}
# An unread column is no extra one if its name is nearly one of these.
_TYPOS_OF = ("score", "average_score", "listener_id", "split", "system", "group")
# Of fewer scores, a narrow range says nothing about their scale.
_MIN_SCORES_FOR_SCALE = 10


@dataclass(frozen=True)
class TableOptions:
    """How a table is read.

    Attributes
    ----------
    audio_column, text_column : str, optional
        The columns of clips and of texts, where their names do not tell.
    audio_root : Path, optional
        Where relative paths start; by default at the folder of the table.
    sample_rate_hz : int, optional
        The rate of all arrays that come without one.
    with_audio : bool
        If False, clips are not looked for, and the pairs have none.
    with_ids : bool
        Whether there must be a column of ids.
    """

    audio_column: str | None = None
    text_column: str | None = None
    audio_root: Path | None = None
    sample_rate_hz: int | None = None
    with_audio: bool = True
    with_ids: bool = False


def list_sets(source: RowSource) -> list[str]:
    """Return the names of the sets in a table, in the order of their first rows.

    Raises
    ------
    PairsError
        If a row cannot be read or names no set.
    """
    column = _find_columns(source, TableOptions(with_audio=False), required=()).get("split")
    if column is None:
        return [source.stem]
    mistakes: list[str] = []
    names = dict.fromkeys(
        _set_name(where, record.get(column), mistakes)
        for where, record in source.rows(mistakes, None)
    )
    _raise_if(source, mistakes)
    return list(names)


def read_sets(
    source: RowSource, options: TableOptions, split: str | None = None
) -> dict[str, Pairs]:
    """Return the pairs of a table by the names of their sets.

    Parameters
    ----------
    source : RowSource
    options : TableOptions
    split : str, optional
        Read this set only.

    Raises
    ------
    PairsError
        With every mistake, of which at most 20 are shown.
    """
    wanted = {"id": options.with_ids, "audio": options.with_audio, "text": True}
    required = [role for role, is_wanted in wanted.items() if is_wanted]
    columns = _find_columns(source, options, required)
    extras = _extra_columns(source, columns)
    mistakes: list[str] = []
    clips = _Clips(source, options, mistakes)
    sets: dict[str, _Set] = {}
    audio = columns.get("audio") if options.with_audio else None
    for number, (where, record) in enumerate(source.rows(mistakes, audio)):
        name = source.stem
        if "split" in columns:
            name = _set_name(where, record.get(columns["split"]), mistakes)
        if split is None or name == split:
            if name not in sets:
                sets[name] = _Set(name, columns, extras, clips, mistakes)
            sets[name].add(number, where, record)
        if len(mistakes) > MAX_MISTAKES:
            raise PairsError(
                f"{source.name}: more than {MAX_MISTAKES:,} mistakes up to {where}; is it the "
                f"right table? The first:\n{bullet_list(mistakes)}"
            )
    clips.note_if_all_are_lost()
    for part in sets.values():
        part.check()
    scores = [score for part in sets.values() for score in part.scores]
    mistakes[:0] = _scale_mistakes(scores)
    _raise_if(source, mistakes)
    if not sets:
        known = list_sets(source)
        if split is not None and known not in ([], [split]):
            raise PairsError(
                f"{source.name}: there is no set {split!r}. The column 'split' names: "
                f"{', '.join(map(repr, known))}."
            )
        raise PairsError(f"{source.name}: there are no rows.")
    _warn_of_scale(source.name, scores)
    return {name: part.pairs() for name, part in sets.items()}


def _raise_if(source: RowSource, mistakes: Sequence[str]) -> None:
    if mistakes:
        raise PairsError(
            f"{source.name}: {len(mistakes)} mistake(s). Mend them and read it again:\n"
            f"{bullet_list(mistakes)}"
        )


# Columns -----------------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "_").replace("-", "_")


def _find_columns(
    source: RowSource, options: TableOptions, required: Collection[str]
) -> dict[str, str]:
    """Return the table's name of each of our columns that it has."""
    if not source.header:
        raise PairsError(f"{source.name}: there are no rows and no columns.")
    named = {"audio": options.audio_column, "text": options.text_column}
    columns = {}
    for role, spellings in _SPELLINGS.items():
        if (name := named.get(role)) is not None:
            columns[role] = _named_column(source, role, name)
            continue
        free = [name for name in source.header if name not in named.values()]
        found = [name for name in free if _plain(name) in spellings]
        exact = [name for name in found if name == spellings[0]]
        if len(found) > 1 and role in ("audio", "text", "score", "id"):
            if role in ("audio", "text") and role not in required:
                continue
            option = f"{role}_column=…, or --{role}-column" if role in named else ""
            raise PairsError(
                f"{source.name}: the columns {' and '.join(map(repr, found))} could both be the "
                f"{role}. "
                + (f"Say which one with {option}." if option else "Rename or remove all but one.")
            )
        if found:
            columns[role] = (exact or found)[0]
    missing = [role for role in required if role not in columns]
    if missing:
        raise PairsError(
            f"{source.name}: the table lacks "
            + " and ".join(
                f"a column for the {role} (called {', '.join(map(repr, _SPELLINGS[role][:4]))}, …)"
                for role in missing
            )
            + f"; it has {list(source.header)}. Rename a column"
            + "".join(
                f", or name it with {r}_column=… (--{r}-column)" for r in missing if r in named
            )
            + f".{''.join(_hints(source.header, missing))}"
        )
    _refuse_typos(source, columns)
    return columns


def _extra_columns(source: RowSource, columns: Mapping[str, str]) -> dict[str, str]:
    """Return the table's name of each column that is kept with the pairs, by its name there."""
    read = {columns[role] for role in columns if role not in ("system", "group", "rate")}
    ours = {columns[role]: role for role in ("system", "group") if role in columns}
    return {ours.get(name, name): name for name in source.header if name and name not in read}


def _named_column(source: RowSource, role: str, name: str) -> str:
    if name not in source.header:
        near = difflib.get_close_matches(name, source.header, n=1, cutoff=0.6)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise PairsError(
            f"{source.name}: there is no column {name!r} for the {role}; it has "
            f"{list(source.header)}.{hint}"
        )
    return name


def _hints(header: Sequence[str], missing: Sequence[str]) -> Iterator[str]:
    for role in missing:
        for name in header:
            near = difflib.get_close_matches(_plain(name), _SPELLINGS[role], n=1, cutoff=0.75)
            if near:
                yield f" Did you mean {near[0]!r} by {name!r}?"
                break


def _refuse_typos(source: RowSource, columns: Mapping[str, str]) -> None:
    """Raise for a column whose name is nearly one that is not there: it would be ignored."""
    for name in source.header:
        if name in columns.values():
            continue
        for near in difflib.get_close_matches(_plain(name), _TYPOS_OF, n=1, cutoff=0.85):
            role = next(role for role, spellings in _SPELLINGS.items() if near in spellings)
            if role not in columns and near != _plain(name):
                raise PairsError(
                    f"{source.name}: did you mean {near!r} by the column {name!r}? Rename it: to "
                    f"that, or, if it is something else, to another name."
                )


# Cells -------------------------------------------------------------------------------------------


def _is_missing(cell: object) -> bool:
    """Return whether a cell is empty: None, an empty text, NaN, or pandas' NA."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    if isinstance(cell, float):
        return math.isnan(cell)
    return type(cell).__name__ in ("NAType", "NaTType")


def _number(cell: object) -> float:
    """Return the finite number in a cell, or NaN if there is none."""
    if isinstance(cell, str):
        return plain_number(cell)
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, Real | Decimal):
        return math.nan
    try:
        number = float(cell)
    except (OverflowError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _text_mistake(cell: object) -> str | None:
    if not isinstance(cell, str):
        kind = type(cell).__name__
        several = "; write a row for each of several texts" if isinstance(cell, list) else ""
        return f"{str(cell)[:80]!r} is not a text but of type {kind}{several}"
    if len(cell) > MAX_FIELD_CHARS:
        return f"a text of more than {MAX_FIELD_CHARS:,} characters"
    if not is_utf8(cell):
        shown = cell.encode("utf-8", errors="backslashreplace")[:80]
        return f"{shown!r} is not UTF-8; save the table as UTF-8"
    return None


def _name_in(cell: object) -> object:
    """Return a cell of names, where whole numbers are names as well."""
    if isinstance(cell, bool | str):
        return cell.strip() if isinstance(cell, str) else cell
    # A column of whole numbers with gaps is one of floats in pandas.
    if isinstance(cell, Integral) or (isinstance(cell, float) and cell.is_integer()):
        return str(int(cell))
    return cell


def _set_name(where: str, cell: object, mistakes: list[str]) -> str:
    return _name(where, "split", cell, mistakes)


def _name(where: str, what: str, cell: object, mistakes: list[str]) -> str:
    if _is_missing(cell):
        mistakes.append(f"{where}: the {what} is empty")
        return ""
    name = _name_in(cell)
    mistake = _text_mistake(name)
    if mistake is not None:
        mistakes.append(f"{where}: the {what}: {mistake}")
        return ""
    return str(name)


class _Clips:
    """Finds the clips that cells name, each file once."""

    def __init__(self, source: RowSource, options: TableOptions, mistakes: list[str]) -> None:
        self.are_wanted = options.with_audio
        self._mistakes = mistakes
        self._rate = options.sample_rate_hz
        self._root = options.audio_root or source.folder or Path()
        self._folder = AudioFolder(self._root)
        self._found: dict[str, Path] = {}
        self._n_lost = 0

    def get(self, where: str, cells: Mapping[str, Any]) -> object:
        """Return a row's clip, and note what is wrong with it; what stands there if unwanted."""
        cell = cells.get("audio")
        if not self.are_wanted:
            return path_in(cell)
        if _is_missing(cell) or (
            isinstance(cell, Mapping)
            and all(cell.get(part) is None for part in ("array", "bytes", "path"))
        ):
            self._mistakes.append(f"{where}: the clip is empty")
            return Path()
        path = path_in(cell)
        if path is None:
            rate = _number(cells.get("rate"))
            try:
                return sound_in(cell, f"the clip in {where}", int(rate) if rate > 0 else self._rate)
            except AudioError as error:
                self._mistakes.append(str(error))
                return Path()
        path = path.strip()
        if path not in self._found:
            self._found[path] = self._find(where, path)
        return self._found[path]

    def _find(self, where: str, path: str) -> Path:
        mistake = "a NUL byte stands in its path" if "\0" in path else _text_mistake(path)
        if mistake is not None:
            self._mistakes.append(f"{where}: the clip: {mistake}")
            return Path()
        if "://" in path:
            self._mistakes.append(
                f"{where}: {path!r} is an address; download the clip and give its path"
            )
            return Path()
        found: list[str] = []
        clip = self._folder.find(path, found)
        self._mistakes += [f"{where}: {mistake}" for mistake in found]
        self._n_lost += bool(found)
        return clip

    def note_if_all_are_lost(self) -> None:
        """Note first of all where paths start, if no file was found there."""
        if self._n_lost == len(self._found) > 1:
            self._mistakes.insert(
                0,
                f"none of the {self._n_lost} audio files is there: relative paths start at "
                f"{self._root.absolute()}; give another folder with audio_root=… (--audio-root)",
            )


# Sets --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Set:
    """The pairs of one set, as their rows are read."""

    name: str
    columns: Mapping[str, str]
    extras: Mapping[str, str]
    clips: _Clips
    mistakes: list[str]
    # One for each pair.
    wheres: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    clips_and_texts: list[tuple[Any, str]] = field(default_factory=list)
    kept: dict[str, list[Any]] = field(default_factory=dict)
    # One for each row.
    pair_of_row: list[int] = field(default_factory=list)
    listeners: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept = {name: [] for name in self.extras}
        self._pairs: dict[Any, int] = {}
        self._varying: set[str] = set()
        self._are_ratings = {"listener", "score"} <= self.columns.keys()

    def add(self, number: int, where: str, record: Mapping[str, Any]) -> None:
        """Add a row, and note what is wrong with it."""
        cells = {role: record.get(name) for role, name in self.columns.items()}
        content = self.clips.get(where, cells), self._text(where, cells["text"])
        pair_id = str(number)
        if "id" in cells:
            pair_id = _name(where, "id", cells["id"], self.mistakes)
        extras = {name: record.get(column) for name, column in self.extras.items()}
        pair = self._pair(where, pair_id, content)
        if pair is None:
            pair = len(self.ids)
            self._pairs.setdefault(pair_id if "id" in cells else content, pair)
            self.wheres.append(where)
            self.ids.append(pair_id)
            self.clips_and_texts.append(content)
            for name, value in extras.items():
                self.kept[name].append(value)
        else:
            self._varying |= {
                name for name, value in extras.items() if str(value) != str(self.kept[name][pair])
            }
        self.pair_of_row.append(pair)
        if self._are_ratings:
            self.listeners.append(_name(where, "listener", cells["listener"], self.mistakes))
        if "score" in cells:
            self.scores.append(self._score(where, cells["score"]))

    def _text(self, where: str, cell: object) -> str:
        if _is_missing(cell):
            self.mistakes.append(f"{where}: the text is empty")
            return ""
        mistake = _text_mistake(cell)
        if mistake is not None:
            self.mistakes.append(f"{where}: the text: {mistake}")
        return str(cell).strip()

    def _pair(self, where: str, pair_id: str, content: tuple[Any, str]) -> int | None:
        """Return the pair that a rating belongs to, if an earlier row has it."""
        has_ids = "id" in self.columns
        if not has_ids and not isinstance(content[0], Path | str):
            if self._are_ratings:
                self.mistakes.append(
                    f"{where}: a rating, but nothing says of which pair, because its clip is no "
                    "file; add a column 'id' with the ids of the pairs"
                )
            return None
        first = self._pairs.get(pair_id if has_ids else content)
        if first is None:
            return None
        if self._are_ratings:
            if content != self.clips_and_texts[first]:
                self.mistakes.append(
                    f"{where}: the id {pair_id!r} has another clip or text than in "
                    f"{self.wheres[first]}"
                )
            return first
        if has_ids:
            self.mistakes.append(f"{where}: the id {pair_id!r} is already in {self.wheres[first]}")
        elif "score" in self.columns:
            self.mistakes.append(
                f"{where}: this clip with this text is already in {self.wheres[first]}; if the "
                "rows are single ratings, add a column 'listener_id', else remove one"
            )
        return None

    def _score(self, where: str, cell: object) -> float:
        if _is_missing(cell):
            self.unscored.append(where)
            return math.nan
        score = _number(cell)
        if not MIN_SCORE <= score <= MAX_SCORE:
            self.mistakes.append(
                f"{where}: {self.columns['score']} is {cell if score == score else str(cell)!r}; "
                f"expected a number from {MIN_SCORE:g} to {MAX_SCORE:g}"
            )
        return score

    def check(self) -> None:
        """Note what is wrong with the set as a whole."""
        n_rows = len(self.scores)
        if 0 < len(self.unscored) < n_rows:
            self.mistakes.append(
                f"the set {self.name!r}: {len(self.unscored)} of {n_rows} rows have no score, the "
                f"first in {self.unscored[0]}; remove these rows, or put them into a set of their "
                "own with a column 'split'"
            )

    def pairs(self) -> Pairs:
        """Return the pairs, once no mistake was noted."""
        scores, ratings = None, None
        if self.scores and not self.unscored:
            scores = np.array(self.scores)
            if self._are_ratings:
                ids = tuple(self.ids[pair] for pair in self.pair_of_row)
                ratings = Ratings(ids, tuple(self.listeners), scores)
                of_pair: list[list[float]] = [[] for _ in self.ids]
                for pair, score in zip(self.pair_of_row, self.scores, strict=True):
                    of_pair[pair].append(score)
                scores = np.array([math.fsum(found) / len(found) for found in of_pair])
        if self._varying:
            logger.warning(
                "the set %r: the columns %s differ between the ratings of one pair and are left "
                "out.",
                self.name,
                sorted(self._varying),
            )
        return Pairs(
            self.name,
            tuple(self.ids),
            tuple(clip for clip, _ in self.clips_and_texts) if self.clips.are_wanted else (),
            tuple(text for _, text in self.clips_and_texts),
            scores,
            ratings,
            {
                name: tuple(values)
                for name, values in self.kept.items()
                if name not in self._varying
            },
        )


# The scale of scores -----------------------------------------------------------------------------

_SCALES = {
    (0, 1): "10 × score",
    (-1, 1): "5 × (score + 1)",
    (1, 5): "2.5 × (score − 1)",
    (0, 100): "score / 10",
}


def _scale_mistakes(scores: Sequence[float]) -> list[str]:
    """Return how to bring scores to 0-10, if some are outside."""
    known = [score for score in scores if not math.isnan(score)]
    if not known or (min(known) >= MIN_SCORE and max(known) <= MAX_SCORE):
        return []
    for (low, high), formula in _SCALES.items():
        if low <= min(known) and max(known) <= high:
            return [
                f"all scores lie from {min(known):g} to {max(known):g}; if they were given from "
                f"{low} to {high}, write {formula} in their place"
            ]
    return [
        f"the scores lie from {min(known):g} to {max(known):g}; write 10 × (score − lowest) / "
        "(highest − lowest) in their place, with the ends of their scale"
    ]


def _warn_of_scale(name: str, scores: Sequence[float]) -> None:
    """Warn if scores lie from 0 to 10, but as if their scale were narrower."""
    known = [score for score in scores if not math.isnan(score)]
    if len(known) < _MIN_SCORES_FOR_SCALE:
        return
    for low, high in ((0, 1), (1, 5)):
        if low <= min(known) and max(known) <= high:
            logger.warning(
                "%s: all %d scores lie from %g to %g, and are taken as scores from 0 to 10. If "
                "they were given from %d to %d, write %s in their place.",
                name,
                len(known),
                min(known),
                max(known),
                low,
                high,
                _SCALES[low, high],
            )
            return


def system_scores(source: RowSource) -> dict[tuple[str, str], float]:
    """Return the mean human score of each clip that a table names by its system and its id.

    Raises
    ------
    PairsError
        With every mistake, of which at most 20 are shown.
    """
    columns = _find_columns(source, TableOptions(with_audio=False), ("id", "system", "score"))
    mistakes: list[str] = []
    ratings: dict[tuple[str, str], list[float]] = {}
    for where, record in source.rows(mistakes, None):
        cells = {role: record.get(name) for role, name in columns.items()}
        key = (
            _name(where, "system", cells["system"], mistakes),
            _name(where, "id", cells["id"], mistakes),
        )
        score = _number(cells["score"])
        if not MIN_SCORE <= score <= MAX_SCORE:
            mistakes.append(
                f"{where}: the score is {cells['score']!r}; expected a number from {MIN_SCORE:g} "
                f"to {MAX_SCORE:g}"
            )
        ratings.setdefault(key, []).append(score)
    _raise_if(source, mistakes)
    return {key: math.fsum(scores) / len(scores) for key, scores in ratings.items()}
