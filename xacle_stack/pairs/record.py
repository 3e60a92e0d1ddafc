"""The pairs of a split and their ratings as records that check their content."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np

from xacle_stack._rows import repeated_rows
from xacle_stack._types import FloatArray
from xacle_stack.audio import ClipSource
from xacle_stack.errors import PairsError, bullet_list

MIN_SCORE, MAX_SCORE = 0.0, 10.0


@dataclass(frozen=True, eq=False)
class Ratings:
    """The ratings of single listeners, one in each row.

    Any sequences are accepted and converted to the types below.

    Attributes
    ----------
    pair_ids, listener_ids : tuple of str
    scores : ndarray of shape (n_ratings,)
        From 0 to 10.

    Raises
    ------
    PairsError
        With every unsuitable value; at most 20 are shown.
    """

    pair_ids: tuple[str, ...]
    listener_ids: tuple[str, ...]
    scores: FloatArray

    def __post_init__(self) -> None:
        mistakes: list[str] = []
        pair_ids = _texts("pair_ids", self.pair_ids, mistakes)
        listener_ids = _texts("listener_ids", self.listener_ids, mistakes)
        scores = _scores(self.scores, len(pair_ids), "ratings", mistakes)
        if len(listener_ids) != len(pair_ids):
            mistakes.append(_wrong_length("listener_ids", listener_ids, pair_ids, "pair_ids"))
        _raise("Ratings", mistakes)
        _store(self, pair_ids=pair_ids, listener_ids=listener_ids, scores=scores)

    def __len__(self) -> int:
        return len(self.pair_ids)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one split, in the order of their table.

    Any sequences are accepted, also of paths as text, and converted to the types below.

    Attributes
    ----------
    split : str
        The name of the set that they are, such as ``"test"``.
    ids : tuple of str
        Distinct ids, usually the names of the audio files.
    audio : tuple of Path or ClipSource
        The clips.  Empty if only the captions of the pairs are used.
    captions : tuple of str
        Texts that are not blank.
    scores : ndarray of shape (n_pairs,), optional
        Mean human scores from 0 to 10; None for a split without scores.
    ratings : Ratings, optional
        None if there is no per-listener file.
    columns : mapping of str to tuple
        What else their table says of them: a value for each pair, by the name of the column.

    Raises
    ------
    PairsError
        With every unsuitable value; at most 20 are shown.
    """

    split: str
    ids: tuple[str, ...]
    audio: tuple[Path | ClipSource, ...]
    captions: tuple[str, ...]
    scores: FloatArray | None = None
    ratings: Ratings | None = None
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        mistakes: list[str] = []
        if not (isinstance(self.split, str) and self.split):
            mistakes.append(f"split: {reprlib.repr(self.split)}; expected a name such as 'test'")
        ids = _texts("ids", self.ids, mistakes)
        audio = _clips("audio", self.audio, mistakes)
        captions = _texts("captions", self.captions, mistakes)
        columns = _columns(self.columns, mistakes)
        parts = {"audio": audio, "captions": captions}
        parts |= {f"column {name!r}": values for name, values in columns.items()}
        for part, values in parts.items():
            if len(values) != len(ids) and (values or part != "audio"):
                mistakes.append(_wrong_length(part, values, ids, "ids"))
        mistakes += [
            f"ids, row {row}: {ids[row]!r} is already in row {first}"
            for row, first in repeated_rows(ids).items()
        ]
        scores = self.scores
        if scores is not None:
            scores = _scores(scores, len(ids), "pairs", mistakes)
        if self.ratings is not None:
            mistakes += _rating_mistakes(self.ratings, ids)
        _raise(f"Pairs of the split {self.split!r}", mistakes)
        _store(self, ids=ids, audio=audio, captions=captions, scores=scores, columns=columns)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        scores = "scores" if self.scores is not None else "no scores"
        n_ratings = 0 if self.ratings is None else len(self.ratings)
        return f"Pairs({self.split!r}, {len(self)} pairs, {scores}, {n_ratings} ratings)"

    def take(self, rows: Sequence[int]) -> Self:
        """Return some of the pairs with their ratings, in the order of `rows`.

        Rows may be repeated, as in a bootstrap.
        """
        part = copy(self)
        _store(
            part,
            ids=tuple(self.ids[row] for row in rows),
            audio=tuple(self.audio[row] for row in rows) if self.audio else (),
            captions=tuple(self.captions[row] for row in rows),
            scores=None if self.scores is None else self.scores[list(rows)],
            columns={
                name: tuple(values[row] for row in rows) for name, values in self.columns.items()
            },
        )
        if self.ratings is not None:
            kept = set(part.ids)
            indices = [i for i, pair_id in enumerate(self.ratings.pair_ids) if pair_id in kept]
            ratings = copy(self.ratings)
            _store(
                ratings,
                pair_ids=tuple(self.ratings.pair_ids[i] for i in indices),
                listener_ids=tuple(self.ratings.listener_ids[i] for i in indices),
                scores=self.ratings.scores[indices],
            )
            _store(part, ratings=ratings)
        return part


def _store(record: Pairs | Ratings, **fields: object) -> None:
    for name, value in fields.items():
        object.__setattr__(record, name, value)


def _raise(what: str, mistakes: Sequence[str]) -> None:
    if mistakes:
        raise PairsError(f"{what}: {len(mistakes)} mistake(s):\n{bullet_list(mistakes)}")


def _wrong_length(field: str, values: Sequence[object], ids: Sequence[object], other: str) -> str:
    return f"{field}: {len(values)} value(s), but {other} has {len(ids)}; expected as many"


def _items(field: str, kind: str, values: object, mistakes: list[str]) -> tuple[Any, ...]:
    if not isinstance(values, str | bytes | Mapping):  # a text would be a sequence of letters
        try:
            return tuple(values)  # type: ignore[arg-type]  # TypeError if it is not iterable
        except TypeError:
            pass
    mistakes.append(f"{field}: expected a sequence of {kind}, got {reprlib.repr(values)}")
    return ()


def _texts(field: str, values: object, mistakes: list[str]) -> tuple[str, ...]:
    items = _items(field, "str", values, mistakes)
    for row, value in enumerate(items):
        if not isinstance(value, str):
            mistakes.append(
                f"{field}, row {row}: {reprlib.repr(value)} is not a text; expected a str"
            )
        elif not value or value.isspace():
            mistakes.append(f"{field}, row {row}: {value!r} is empty; expected a text")
        elif not value.isascii() and not is_utf8(value):
            mistakes.append(f"{field}, row {row}: {reprlib.repr(value)} is not UTF-8")
    return items if all(type(value) is str for value in items) else tuple(map(str, items))


def _columns(values: object, mistakes: list[str]) -> dict[str, tuple[Any, ...]]:
    if not isinstance(values, Mapping):
        mistakes.append(f"columns: expected a mapping of names to values, got {values!r:.200}")
        return {}
    return {
        str(name): _items(f"column {name!r}", "values", column, mistakes)
        for name, column in values.items()
    }


def _clips(field: str, values: object, mistakes: list[str]) -> tuple[Path | ClipSource, ...]:
    items = _items(field, "paths", values, mistakes)
    clips: list[Path | ClipSource] = []
    for row, value in enumerate(items):
        if isinstance(value, ClipSource):
            clips.append(value)
            continue
        is_path = isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str)
        if not is_path or not os.fspath(value) or "\0" in os.fspath(value):
            mistakes.append(
                f"{field}, row {row}: {reprlib.repr(value)} is not the path of a file; expected a "
                "str or a Path"
            )
            value = ""
        clips.append(value if isinstance(value, Path) else Path(value))
    return tuple(clips)


def _scores(values: object, n_rows: int, rows: str, mistakes: list[str]) -> FloatArray:
    expected = f"a number from {MIN_SCORE:g} to {MAX_SCORE:g}"
    try:
        array = np.asarray(values)
    except ValueError:  # rows of unequal lengths
        array = np.array([], dtype=str)
    if array.dtype.kind == "O" and array.ndim == 1:
        unusable = [
            f"scores, row {row}: {reprlib.repr(value)}; expected {expected}"
            for row, value in enumerate(array)
            if isinstance(value, bool) or not isinstance(value, Real)
        ]
        if unusable:
            mistakes += unusable
            return np.zeros(n_rows)
    elif array.dtype.kind not in "fiu" and array.size + n_rows:
        mistakes.append(f"scores: expected numbers, got {reprlib.repr(values)}")
        return np.zeros(n_rows)
    if array.shape != (n_rows,):
        mistakes.append(
            f"scores: an array of shape {array.shape} for {n_rows} {rows}; expected one number each"
        )
        return np.zeros(n_rows)
    scores = array.astype(np.float64, copy=False)
    mistakes += [
        f"scores, row {row}: {scores[row]}; expected {expected}"
        for row in np.flatnonzero(~((scores >= MIN_SCORE) & (scores <= MAX_SCORE))).tolist()
    ]
    return scores


def _rating_mistakes(ratings: object, ids: Sequence[str]) -> list[str]:
    """Return the mistakes of ratings for the pairs with these ids."""
    pair_ids = getattr(ratings, "pair_ids", None)
    if pair_ids is None:
        return [f"ratings: expected Ratings or None, got {reprlib.repr(ratings)}"]
    known = set(ids)
    return [
        f"ratings, row {row}: {pair_id!r} is not an id of the pairs"
        for row, pair_id in enumerate(pair_ids)
        if pair_id not in known
    ]


def is_utf8(text: str) -> bool:
    """Return whether a text is UTF-8; other bytes of a file are surrogates in it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
