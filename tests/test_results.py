import csv
import io

import numpy as np
import pytest

from xacle_stack.metrics import evaluate
from xacle_stack.pairs import Pairs
from xacle_stack.results import (
    PUBLISHED,
    SystemResult,
    published_for,
    rank_of,
    results_csv,
    results_markdown,
)


def results() -> list[SystemResult]:
    rng = np.random.default_rng(0)
    y = rng.normal(size=60)
    return [
        SystemResult(name, split, evaluate(y, y + rng.normal(scale=noise, size=60), n_bootstrap=20))
        for split in ("validation", "test")
        for name, noise in (("noisy", 3.0), ("good", 0.3))
    ]


def test_csv_holds_every_figure() -> None:
    rows = list(csv.DictReader(io.StringIO(results_csv(results()))))
    assert [(row["split"], row["system"], row["rank"]) for row in rows] == [
        ("validation", "noisy", "2"),
        ("validation", "good", "1"),
        ("test", "noisy", "2"),
        ("test", "good", "1"),
    ]
    evaluation = results()[3].evaluation
    assert float(rows[3]["SRCC_low"]) == round(evaluation.srcc.low, 6)
    assert float(rows[3]["MSE"]) == round(evaluation.mse.value, 6)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_a_system_is_no_formula_of_a_spreadsheet(name: str) -> None:
    one = results()[0]
    table = results_csv([SystemResult(name, "test", one.evaluation)])
    assert next(csv.DictReader(io.StringIO(table, newline="")))["system"] == f"'{name}"


def test_a_system_is_one_cell_of_a_markdown_table() -> None:
    result = SystemResult("a | b\n<script>", "test", results()[0].evaluation)
    assert r"| 1 | a \| b\n&lt;script> |" in results_markdown([result])


def test_markdown_has_a_section_a_split_and_published_rows_below() -> None:
    text = results_markdown(results(), PUBLISHED)
    validation, test = text.split("## test")
    assert "| 1 | good | 0.9" in validation
    assert (
        "published: 3-CLAP stack (rank target) | 0.6476 | 0.6718 | 0.4698 | 7.1189 |" in validation
    )
    assert "published: 3-CLAP stack | 0.5934" in test
    assert rank_of(results()[:2]) == {"good": 1, "noisy": 2}


def test_published_rows_are_for_xacle_only() -> None:
    ids = tuple(f"{number:05d}.wav" for number in range(10500, 13500))
    xacle = Pairs("test", ids, (), ids)
    assert {row.split for row in published_for(xacle)} == {"test"}
    assert published_for(Pairs("test", ids[:-1], (), ids[:-1])) == []
    assert published_for(Pairs("train", ids, (), ids)) == []
