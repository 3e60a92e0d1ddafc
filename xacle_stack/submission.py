"""Reads and writes predicted scores, and writes metrics, as CSV files in the challenge's form.

The columns are ``wav_file_name,prediction_score`` for test and ``wav_file_name,pred_score`` for any
other set; scores have two decimals.  Files with the columns ``id`` and ``score`` are read as well.
Rows are matched by id, never by position.  A file with several captions has several pairs, which
are named by their ids ``FILE#1``, ``FILE#2`` …
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from xacle_stack._csv_table import CsvTable, csv_text, plain_number, write_csv
from xacle_stack._rows import repeated_rows, row_blocks
from xacle_stack._types import FloatArray
from xacle_stack.errors import SubmissionError, bullet_list
from xacle_stack.metrics import Evaluation

_ID, _TEST_SCORE, _SCORE = "wav_file_name", "prediction_score", "pred_score"
# The spellings that are read; `score` is that of tables of scored pairs.
_IDS, _SCORES = (_ID, "id"), (_SCORE, _TEST_SCORE, "score")


def write_predictions(
    path: Path | str, pair_ids: Sequence[str], scores: ArrayLike, split: str
) -> None:
    """Write predictions in the official form of a split; the file is replaced in one step.

    Parameters
    ----------
    path : path-like
    pair_ids : sequence of str of length n_pairs
        Written unchanged, because they identify the rows.  A spreadsheet reads an id that begins
        with ``=`` as a formula.
    scores : array-like of shape (n_pairs,)
        Written with two decimals.
    split : str
        The name of the set; that of "test" has another column of scores.

    Raises
    ------
    SubmissionError
        If a score is not finite, an id is repeated, the lengths differ, or the file cannot be
        written.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(pair_ids),):
        raise SubmissionError(f"{len(pair_ids)} pairs but scores of shape {scores.shape}.")
    twice = sorted({pair_ids[row] for row in repeated_rows(pair_ids)})
    if twice:
        raise SubmissionError(f"pair ids that are repeated:\n{bullet_list(twice)}")
    bad = [pair_ids[row] for row in np.flatnonzero(~np.isfinite(scores)).tolist()]
    if bad:
        raise SubmissionError(f"scores that are NaN or infinite:\n{bullet_list(bad)}")
    column = _TEST_SCORE if split == "test" else _SCORE

    def pieces() -> Iterator[str]:
        yield csv_text([(_ID, column)])
        for rows in row_blocks(0, len(scores)):
            # Adding zero turns a rounded -0.00 into 0.00.
            texts = [f"{round(score, 2) + 0.0:.2f}" for score in scores[rows].tolist()]
            yield csv_text(zip(pair_ids[rows], texts, strict=True))

    write_csv(Path(path), pieces(), SubmissionError)


def write_evaluation(path: Path | str, evaluation: Evaluation) -> None:
    """Write metrics in the form of the organisers' evaluation; the file is replaced in one step.

    Its columns are ``metric,value``, its rows SRCC, LCC, KTAU, MSE and N, the number of pairs.  All
    digits are written.  A correlation that is undefined is 0.0 there, as the organisers define it.

    Parameters
    ----------
    path : path-like
    evaluation : Evaluation
        Of the scores in a file of predictions, with their two decimals, as :func:`read_predictions`
        returns them.

    Raises
    ------
    SubmissionError
        If the file cannot be written.
    """
    values = {name: float(estimate) for name, estimate in evaluation.as_dict().items()}
    rows = [(name, 0.0 if math.isnan(value) else value) for name, value in values.items()]
    text = csv_text([("metric", "value"), *rows, ("N", evaluation.n_pairs)])
    write_csv(Path(path), [text], SubmissionError)


def read_predictions(path: Path | str, pair_ids: Sequence[str]) -> FloatArray:
    """Read predictions in the order of ``pair_ids``.

    Parameters
    ----------
    path : path-like
        A CSV with the columns ``wav_file_name`` or ``id``, and ``pred_score``,
        ``prediction_score`` or ``score``.
    pair_ids : sequence of str of length n_pairs

    Returns
    -------
    scores : ndarray of shape (n_pairs,)

    Raises
    ------
    SubmissionError
        With every missing, surplus, repeated or unusable prediction; at most 20 are shown.
    """
    expected = set(pair_ids)
    scores: dict[str, float] = {}
    mistakes: list[str] = []
    for where, record in _open(path).rows(mistakes):
        pair_id = record["id"].strip()
        if pair_id in scores:
            mistakes.append(f"{where}: a second prediction for {pair_id!r}")
            continue
        if pair_id not in expected:
            mistakes.append(f"{where}: {_no_pair(pair_id, expected)}")
        scores[pair_id] = plain_number(record["score"])
        if math.isnan(scores[pair_id]):
            mistakes.append(
                f"{where}: the score of {pair_id!r} is {record['score']!r}, not a number"
            )
    mistakes += [f"no prediction for {name!r}" for name in pair_ids if name not in scores]
    if mistakes:
        raise SubmissionError(
            f"{path}: {len(mistakes)} mistake(s); every pair needs exactly one prediction:\n"
            + bullet_list(mistakes)
        )
    return np.array([scores[pair_id] for pair_id in pair_ids])


def predicted_ids(path: Path | str) -> tuple[str, ...]:
    """Return the distinct pair ids in a file of predictions, in its order.

    Raises
    ------
    SubmissionError
        If it is not a file of predictions, or is empty.
    """
    mistakes: list[str] = []
    ids = dict.fromkeys(record["id"].strip() for _, record in _open(path).rows(mistakes))
    if not ids and not mistakes:
        raise SubmissionError(f"{path}: the file has a header but no predictions.")
    return tuple(ids)


def predicted_split(path: Path | str) -> str:
    """Return "validation", "test" or "pairs", by the name of the column of scores."""
    found = {_SCORE: "validation", _TEST_SCORE: "test"}
    return found.get(_open(path).columns["score"], "pairs")


def _open(path: Path | str) -> CsvTable:
    path = Path(path)
    if not path.exists():
        raise SubmissionError(f"{path}: no such file of predictions. Check the path.")
    return CsvTable.read(path, {"id": _IDS, "score": _SCORES}, error=SubmissionError)


def _no_pair(pair_id: str, expected: Collection[str]) -> str:
    if f"{pair_id}#1" in expected:
        return (
            f"{pair_id!r} is the file of several pairs of this split; write their ids, "
            f"{pair_id + '#1'!r}, {pair_id + '#2'!r} and so on in the order of the split's CSV file"
        )
    return f"{pair_id!r} is not a pair of this split"
