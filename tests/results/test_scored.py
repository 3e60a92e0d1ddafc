import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest

from xacle_stack.audio import SampleSource
from xacle_stack.errors import PairsError
from xacle_stack.pairs import Pairs
from xacle_stack.results import ScoredPairs


@pytest.fixture
def pairs() -> Pairs:
    return Pairs(
        "test",
        ["a", "b"],
        ["x/a.wav", SampleSource(np.zeros(800), 8000, "in memory")],
        ["a dog, barking", "=rain"],
        columns={"system": ["one", "two"], "Length (s)": [1.5, math.nan], "low": [7, 8]},
    )


def test_the_table_of_the_pairs_comes_out_again_with_what_was_found(pairs: Pairs) -> None:
    scored = ScoredPairs(
        *(pairs, pairs.ids, np.array([7.31256, 0.0])),
        *(np.array([5.9, -0.0]), np.array([8.4, 1.0]), 0.9, np.array([0.5, 2.0])),
        {"cosine of mini-mel": np.array([0.25, -0.5])},
    )
    header, *rows = csv.reader(io.StringIO(scored.to_csv()))
    assert header == [
        *("id", "audio", "text", "system", "Length (s)", "score", "low", "high", "novelty"),
        "cosine of mini-mel",
    ]
    assert rows[0] == [
        *("a", str(pairs.audio[0]), "a dog, barking", "one", "1.5"),
        *("7.3126", "5.9000", "8.4000", "0.5000", "0.2500"),
    ]
    assert rows[1][:6] == ["b", "in memory", "=rain", "two", "", "0.0000"]
    assert rows[1][6] == "0.0000"


def test_what_is_not_known_has_no_column() -> None:
    scored = ScoredPairs(None, ("a",), np.array([5.0]))
    assert scored.to_csv() == "id,score\na,5.0000\n"
    assert len(scored) == 1


def test_arrays_that_do_not_fit_are_told_at_once(pairs: Pairs) -> None:
    with pytest.raises(PairsError, match=r"3 mistake") as told:
        ScoredPairs(pairs, ("b", "a"), np.array([1.0, np.nan]), np.zeros(2))
    for mistake in ("score: expected 2 finite", "both or neither", "those of the pairs"):
        assert mistake in str(told.value)


def test_many_rows_are_written_as_they_are_told(tmp_path: Path) -> None:
    n_pairs = 5000  # of several blocks
    ids = tuple(f"clip, {row}" for row in range(n_pairs))
    scored = ScoredPairs(None, ids, np.arange(n_pairs) / 500)
    scored.write(tmp_path / "new" / "scores.csv")
    text = (tmp_path / "new" / "scores.csv").read_bytes().decode()
    assert text == scored.to_csv()
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["id", "score"]
    assert [row[0] for row in rows] == [*ids]
    assert [float(row[1]) for row in rows] == [row / 500 for row in range(n_pairs)]
