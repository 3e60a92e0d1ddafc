"""Predicted scores as CSV files, in the challenge's form.

``wav_file_name,pred_score`` for validation, ``wav_file_name,prediction_score`` for test; scores
with two decimals.  Rows are matched by file name, never by their place.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from xacle_stack._files import write_atomically
from xacle_stack._types import FloatArray
from xacle_stack.errors import SubmissionError, bullet_list

_ID = "wav_file_name"
_SCORES = {"train": "pred_score", "validation": "pred_score", "test": "prediction_score"}


def write_predictions(
    path: Path | str, pair_ids: Sequence[str], scores: ArrayLike, split: str
) -> None:
    """Write predictions in the official form of a split, replacing the file in one step.

    Parameters
    ----------
    path : path-like
    pair_ids : sequence of str of length n_pairs
    scores : array-like of shape (n_pairs,)
        Written with two decimals.
    split : {"train", "validation", "test"}

    Raises
    ------
    SubmissionError
        If a score is not finite, an id stands twice, the lengths differ, the split is unknown, or
        the file cannot be written.
    """
    if split not in _SCORES:
        raise SubmissionError(f"unknown split {split!r}. Expected one of: {', '.join(_SCORES)}.")
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(pair_ids),):
        raise SubmissionError(f"{len(pair_ids)} pairs but scores of shape {scores.shape}.")
    twice = sorted({pair_id for pair_id, n in Counter(pair_ids).items() if n > 1})
    if twice:
        raise SubmissionError(f"pair ids that stand twice:\n{bullet_list(twice)}")
    bad = [pair_ids[row] for row in np.flatnonzero(~np.isfinite(scores)).tolist()]
    if bad:
        raise SubmissionError(f"scores that are NaN or infinite:\n{bullet_list(bad)}")
    path = Path(path)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([_ID, _SCORES[split]])
    # Adding zero turns a rounded -0.00 into 0.00.
    writer.writerows(
        [pair_id, f"{round(score, 2) + 0.0:.2f}"]
        for pair_id, score in zip(pair_ids, scores.tolist(), strict=True)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, file.getvalue().encode())
    except OSError as error:
        raise SubmissionError(f"{path}: cannot be written: {error.strerror}.") from None


def read_predictions(path: Path | str, pair_ids: Sequence[str]) -> FloatArray:
    """Read predictions and put them into the order of ``pair_ids``.

    Parameters
    ----------
    path : path-like
        A CSV with the columns ``wav_file_name`` and ``pred_score`` or ``prediction_score``.
    pair_ids : sequence of str of length n_pairs

    Returns
    -------
    scores : ndarray of shape (n_pairs,)

    Raises
    ------
    SubmissionError
        With every missing, extra, duplicate or unusable prediction, at most 20 shown.
    """
    rows, column = _read_rows(Path(path))
    expected = set(pair_ids)
    scores: dict[str, float] = {}
    mistakes = []
    for line, row in rows:
        pair_id, text = (row[_ID] or "").strip(), row[column]
        if None in row:  # where DictReader keeps surplus fields
            mistakes.append(f"line {line}: too many fields; write numbers with a point")
            continue
        if pair_id in scores:
            mistakes.append(f"line {line}: a second prediction for {pair_id!r}")
            continue
        if pair_id not in expected:
            mistakes.append(f"line {line}: {pair_id!r} is no pair of this split")
        try:
            scores[pair_id] = float(text)
        except (TypeError, ValueError):
            scores[pair_id] = np.nan
        if not np.isfinite(scores[pair_id]):
            mistakes.append(f"line {line}: the score of {pair_id!r} is {text!r}, not a number")
    named = {(row[_ID] or "").strip() for _, row in rows}
    mistakes += [f"no prediction for {name!r}" for name in pair_ids if name not in named]
    if mistakes:
        raise SubmissionError(
            f"{path}: {len(mistakes)} mistake(s); every pair needs exactly one prediction:\n"
            + bullet_list(mistakes)
        )
    return np.array([scores[pair_id] for pair_id in pair_ids])


def predicted_ids(path: Path | str) -> tuple[str, ...]:
    """Return the pairs that a file of predictions names, each once, in its order.

    Raises
    ------
    SubmissionError
        If it is no file of predictions, or holds none.
    """
    rows, _ = _read_rows(Path(path))
    if not rows:
        raise SubmissionError(f"{path}: the file has a header but no predictions.")
    return tuple(dict.fromkeys((row[_ID] or "").strip() for _, row in rows))


def predicted_split(path: Path | str) -> str:
    """Return "validation" or "test", whichever the column of scores is named for."""
    _, column = _read_rows(Path(path))
    return next(split for split in ("validation", "test") if _SCORES[split] == column)


def _read_rows(path: Path) -> tuple[list[tuple[int, dict[str, str]]], str]:
    """Return each row with its line number, and the name of the column of scores."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise SubmissionError(f"{path}: no such file of predictions. Check the path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SubmissionError(f"{path}: not readable as a UTF-8 CSV file ({error}).") from None
    column = next((name for name in sorted(set(_SCORES.values())) if name in header), None)
    if _ID not in header or column is None:
        raise SubmissionError(
            f"{path}: expected the columns '{_ID}' and 'pred_score' or 'prediction_score', "
            f"found {header}. Rename them in the first line."
        )
    return rows, column
