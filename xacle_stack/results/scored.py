"""The scores of pairs as a record, with what is known of how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._csv_table import csv_text, write_csv
from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray
from xacle_stack.errors import PairsError, bullet_list
from xacle_stack.pairs import Pairs

_DECIMALS = 4


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Scores of pairs, with what is known of how sure they are.

    Attributes
    ----------
    pairs : Pairs or None
        Who was scored; None for embeddings without pairs.
    pair_ids : tuple of str
    scores : ndarray of shape (n_pairs,)
        From 0 to 10.
    low, high : ndarray of shape (n_pairs,), or None
        The ends of each pair's prediction interval, from 0 to 10; None where the scorer was fitted
        without scores, so that nobody knows how far it is off.
    confidence : float or None
        The share of new pairs whose human score is expected to lie between `low` and `high`.
    novelty : ndarray of shape (n_pairs,), or None
        How unlike the training pairs a pair is: 1 stands for the 99 % quantile of the training
        pairs, and above it the score is an extrapolation.
    parts : mapping of str to ndarray of shape (n_pairs,)
        What else was measured of the pairs, such as ``"cosine of mini-mel"``.

    Raises
    ------
    PairsError
        If there is not one finite number for each pair, or only one of `low` and `high`.

    Examples
    --------
    >>> scored = ScoredPairs(None, ("a.wav",), np.array([7.31]), np.array([5.9]), np.array([8.4]))
    >>> print(scored.to_csv(), end="")
    id,score,low,high
    a.wav,7.3100,5.9000,8.4000
    """

    pairs: Pairs | None
    pair_ids: tuple[str, ...]
    scores: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None
    confidence: float | None = None
    novelty: FloatArray | None = None
    parts: Mapping[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n_pairs = len(self.pair_ids)
        mistakes = [
            f"{name}: expected {n_pairs} finite numbers, got shape {np.shape(values)}"
            for name, values in self._numbers().items()
            if np.shape(values) != (n_pairs,) or not np.isfinite(values).all()
        ]
        if (self.low is None) != (self.high is None):
            mistakes.append("low and high: expected both or neither")
        if self.pairs is not None and self.pairs.ids != self.pair_ids:
            mistakes.append("pair_ids: expected those of the pairs, in the same order")
        if mistakes:
            raise PairsError(f"ScoredPairs: {len(mistakes)} mistake(s):\n{bullet_list(mistakes)}")

    def __len__(self) -> int:
        return len(self.pair_ids)

    def to_csv(self) -> str:
        """Return one row for each pair, in its order; every number has four decimals.

        The columns are ``id``, ``audio``, ``text``, ``human_score`` if there are some, those that
        the pairs' own table has beside them, then ``score``, ``low``, ``high``, ``novelty`` and the
        parts, as far as they are known.  A column of the table that has the name of one of these is
        replaced; the others are written unchanged, so a spreadsheet reads a text that begins with
        ``=`` as a formula.
        """
        return "".join(self._csv_pieces())

    def _csv_pieces(self) -> Iterator[str]:
        """Yield the CSV in runs of rows, because its text may need more memory than all else."""
        columns: dict[str, tuple[Any, Callable[[Any], str]]] = {"id": (self.pair_ids, str)}
        if self.pairs is not None:
            if self.pairs.audio:
                columns["audio"] = self.pairs.audio, str
            columns["text"] = self.pairs.captions, str
            if self.pairs.scores is not None:
                columns["human_score"] = self.pairs.scores, "{:g}".format
            for name, values in self.pairs.columns.items():
                columns.setdefault(name, (values, _cell))
        for name, numbers in self._numbers().items():
            columns.pop(name, None)
            columns[name] = numbers, _decimal
        yield csv_text([list(columns)])
        for rows in row_blocks(0, len(self)):
            texts = (map(text, values[rows]) for values, text in columns.values())
            yield csv_text(zip(*texts, strict=True))

    def write(self, path: Path) -> None:
        """Write the CSV; a PairsError says that this cannot be done."""
        write_csv(path, self._csv_pieces())

    def _numbers(self) -> dict[str, FloatArray]:
        """Return what is known of each pair, by the name of its column."""
        known = {"score": self.scores, "low": self.low, "high": self.high, "novelty": self.novelty}
        return {name: values for name, values in known.items() if values is not None} | {
            **self.parts
        }


def _decimal(number: float) -> str:
    # Adding zero turns a rounded -0.0 into 0.0.
    return f"{round(float(number), _DECIMALS) + 0.0:.{_DECIMALS}f}"


def _cell(value: Any) -> str:
    """Return a value of the table of the pairs as text, an unknown one as an empty cell."""
    return "" if value is None or value != value else str(value)
