import csv
import io
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from xacle_stack.metrics import Estimate, Evaluation, evaluate
from xacle_stack.results import PUBLISHED, Result, ResultsTable

LONG = "laion-clap-unfused + ms-clap-2023 + beats, target rank"


def evaluation(srcc: float = 0.7341, mse: float = 3.0149) -> Evaluation:
    correlation = Estimate(srcc, srcc - 0.03, srcc + 0.03)
    error = Estimate(mse, mse - 0.2, mse + 0.2)
    return Evaluation(*[correlation] * 3, mse=error, n_pairs=60, confidence=0.95)


def results(n_systems: int = 2, name: str = "system") -> list[Result]:
    """Results of a reference and of ever better systems on two splits."""
    reference = Result(
        "reference",
        "validation",
        "stack",
        evaluation(0.5),
        n_seeds=3,
        srcc_spread=0.011,
        fit_s=12.34,
    )
    others = [
        Result(
            f"{name} {number}",
            "validation",
            "lstm",
            evaluation(0.5 + number / 100),
            n_seeds=3,
            difference=Estimate(number / 100, number / 100 - 0.02, number / 100 + 0.02),
            probability_better=0.9,
            fit_s=1234.5,
            score_ms=0.25,
            n_parameters=1_234_567,
        )
        for number in range(1, n_systems)
    ]
    return [reference, *others, Result("reference", "test", "stack", evaluation(0.4))]


def printed(table: ResultsTable, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def csv_rows(table: ResultsTable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table.to_csv(), newline="")))


def test_csv_holds_every_number_in_full() -> None:
    rows = csv_rows(ResultsTable(results()))
    assert [(row["split"], row["rank"], row["system"]) for row in rows] == [
        ("validation", "1", "system 1"),
        ("validation", "2", "reference"),
        ("test", "1", "reference"),
    ]
    first, reference, _ = rows
    assert (first["SRCC"], first["MSE_low"]) == ("0.510000", "2.814900")
    assert (first["SRCC_difference"], first["SRCC_difference_high"]) == ("0.010000", "0.030000")
    assert (first["kind"], first["n_seeds"], first["n_parameters"]) == ("lstm", "3", "1234567")
    assert (reference["SRCC_difference"], reference["n_parameters"]) == ("", "")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_no_spreadsheet_runs_the_name_of_a_system(name: str) -> None:
    table = ResultsTable([Result(name, "test", "file", evaluation())])
    assert csv_rows(table)[0]["system"] == f"'{name}"


def test_a_name_is_one_cell_of_a_markdown_table() -> None:
    table = ResultsTable([Result("a | b\n<script>", "test", "file", evaluation())])
    assert r"| 1 | a \| b\\n&lt;script> |" in table.to_markdown()


def test_a_name_is_text_in_html() -> None:
    table = ResultsTable([Result("a & b\n<script>", "te<st", "file", evaluation())])
    texts: list[str] = []
    parser = HTMLParser()
    parser.handle_data = texts.append  # type: ignore[method-assign]
    parser.feed(table.to_html())
    assert r"a & b\n<script>" in "".join(texts)
    assert "<script>" not in table.to_html()


def test_every_format_writes_a_number_in_the_same_way() -> None:
    table = ResultsTable([Result("one", "test", "file", evaluation())])
    for text in (table.to_markdown(), table.to_html(), printed(table, 200)):
        assert ".734 [.704, .764]" in text
        assert "3.01 [2.81, 3.21]" in text


def test_published_results_stand_below_in_every_format() -> None:
    table = ResultsTable([*PUBLISHED, *results()])
    validation, test = table.to_markdown().split("## test")
    lines = [line for line in validation.splitlines() if line.startswith("|")]
    assert lines[2].startswith("| 1 | system 1 |")
    assert lines[4].startswith(
        "| – | published: first of the challenge | .668 | .680 | .486 | 3.33"
    )
    assert "published: 3-CLAP stack | .593 |" in test
    for text in (table.to_html(), printed(table, 80)):
        assert text.index("system 1") < text.index("published: TMU")
    assert csv_rows(table)[2]["kind"] == "published"


@pytest.mark.parametrize("width", [80, 100, 128, 200])
@pytest.mark.parametrize("name", ["system", LONG])
def test_no_cell_wraps_in_a_terminal(width: int, name: str) -> None:
    table = ResultsTable([*results(12, name), *PUBLISHED])
    lines = printed(table, width).splitlines()
    assert max(map(len, lines)) <= width
    end = next(index for index, line in enumerate(lines) if line.startswith("test:"))
    ranked = [line for line in lines[:end] if line[:3].strip().isdigit()]
    # Each system has one line, or one in each of two tables.
    assert len(ranked) in (12, 24)


def test_a_narrow_terminal_shows_the_intervals_of_the_srcc_and_of_the_difference() -> None:
    text = printed(ResultsTable(results()), 80)
    assert ".510 [.480, .540]  .510  .510  3.01" in text
    assert "+.010 [-.010, +.030]" in text


def test_a_wide_terminal_shows_everything_in_one_table() -> None:
    lines = printed(ResultsTable(results()), 240).splitlines()
    (line,) = [line for line in lines if "system 1" in line]
    for part in ("3.01 [2.81, 3.21]", "+.010 [-.010, +.030]", "0.90", "1234.5", "1,234,567"):
        assert part in line


def test_a_system_that_chose_its_epoch_on_the_split_is_marked_there() -> None:
    chosen = Result("net", "validation", "lstm", evaluation(), chose_epoch_here=True)
    table = ResultsTable([chosen, Result("net", "test", "lstm", evaluation())])
    for text in (table.to_markdown(), table.to_html(), printed(table, 80)):
        validation, test = text.split("test:", 1)
        assert "net †" in validation
        assert "unseen pairs" in validation
        assert "†" not in test


def test_an_undefined_correlation_is_explained() -> None:
    y = np.arange(5.0)
    constant = evaluate(np.ones(5), y, n_bootstrap=5)
    table = ResultsTable([Result("one", "test", "file", constant)])
    for text in (table.to_markdown(), table.to_html(), printed(table, 80)):
        assert "nan: a correlation is undefined" in text
    assert math.isnan(float(csv_rows(table)[0]["SRCC"]))


def test_the_reference_of_the_difference_is_named() -> None:
    table = ResultsTable(results())
    assert "minus that of reference" in table.to_markdown().split("## test")[0]
    assert "minus that" not in table.to_markdown().split("## test")[1]


def test_columns_without_any_figure_are_left_out() -> None:
    header = ResultsTable([Result("one", "test", "file", evaluation())]).to_markdown()
    assert "| rank | system | SRCC | LCC | KTAU | MSE |" in header


def test_control_characters_of_names_do_not_reach_the_terminal() -> None:
    text = printed(ResultsTable([Result("a\x1b[2J", "test", "file", evaluation())]), 80)
    assert "\x1b[2J" not in text
    assert r"a\x1b[2J" in text
