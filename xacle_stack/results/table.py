"""The one table of results: for a terminal, as CSV, as Markdown and as HTML.

To add a column, write a :class:`_Column` into :data:`_COLUMNS`; the CSV holds every number of a
:class:`Result` in full, and `to_csv` names them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xacle_stack._csv_table import csv_text, not_a_formula
from xacle_stack._files import write_atomically
from xacle_stack._printable import printable_name, short_name
from xacle_stack.metrics import METRICS, Estimate, format_number
from xacle_stack.results.record import Result, by_split, reference_of, with_learning_curve
from xacle_stack.results.text_table import TextTable, table_width

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

METRIC_NAMES = tuple(METRICS)
_UNKNOWN = "–"
# Columns are left out where names would be shorter than this.
_SHORT_NAME_WIDTH = 28
_CHOSE_EPOCH_NOTE = (
    "† This system chose its epoch on this split, so its figures do not hold for unseen pairs."
)
_RANKS_NOTE = (
    "An ensemble of ranks spreads its scores evenly over 0-10, so its MSE says little about it."
)
_NAN_NOTE = "nan: a correlation is undefined where all human or all predicted scores are equal."


@dataclass(frozen=True)
class _Column:
    """A column: its header, and the text of a result's cell, empty where nothing is known."""

    header: str
    text: Callable[[Result], str]
    short_text: Callable[[Result], str] | None = None
    is_detail: bool = False  # moves to a second table where the terminal is narrow


def _metric_column(name: str) -> _Column:
    def text(result: Result, form: Callable[[Estimate], str]) -> str:
        estimate = result.evaluation.as_dict()[name]
        return "" if _is_unpublished(result, estimate) else form(estimate)

    return _Column(
        name,
        lambda result: text(result, str),
        # The SRCC, which systems are ranked by, never goes without its interval.
        None
        if name == "SRCC"
        else lambda result: text(result, lambda estimate: format_number(float(estimate))),
    )


def _is_unpublished(result: Result, estimate: Estimate) -> bool:
    return result.is_published and math.isnan(float(estimate))


def _number(value: float | None, form: str) -> str:
    return "" if value is None or math.isnan(value) else format(value, form)


# In the order of their importance: the last are left out first where the terminal is narrow.
_COLUMNS = (
    *map(_metric_column, METRIC_NAMES),
    _Column(
        "SRCC difference",
        lambda result: "" if result.difference is None else f"{result.difference:+}",
        is_detail=True,
    ),
    _Column("P(better)", lambda result: _number(result.probability_better, ".2f"), is_detail=True),
    _Column("fit, s", lambda result: _number(result.fit_s, ".1f"), is_detail=True),
    _Column("ms/pair", lambda result: _number(result.score_ms, ".3f"), is_detail=True),
    _Column(
        "seeds", lambda result: "" if result.is_published else str(result.n_seeds), is_detail=True
    ),
    _Column(
        "SD over seeds",
        lambda result: "" if math.isnan(result.srcc_spread) else format_number(result.srcc_spread),
        is_detail=True,
    ),
    _Column("parameters", lambda result: _number(result.n_parameters, ","), is_detail=True),
)


class ResultsTable:
    """The results of systems as a table a split, the best system first, published rows below.

    Ranks follow the challenge: by SRCC, and ties by LCC, KTAU and MSE.  A notebook shows the
    table as HTML, and ``rich`` prints it so that it fits the terminal.

    Parameters
    ----------
    results : iterable of Result
        In any order, published results among them.

    Examples
    --------
    >>> from xacle_stack.metrics import evaluate
    >>> y_true = [1, 2, 3, 4, 5, 6, 7]
    >>> result = Result("mine", "test", "file", evaluate(y_true, y_true))
    >>> print(ResultsTable([result]).to_csv()[:38])
    split,rank,system,kind,chose_epoch_her
    """

    def __init__(self, results: Iterable[Result]) -> None:
        self.results = tuple(results)

    def to_csv(self) -> str:
        """Return one row for each system and split, with every number in full.

        A cell is empty where nothing is known.
        """
        interval = ("", "_low", "_high")
        header = ["split", "rank", "system", "kind", "chose_epoch_here", "n_seeds", "n_pairs"]
        header += [f"{name}{end}" for name in METRIC_NAMES for end in interval]
        header += ["SRCC_spread", *(f"SRCC_difference{end}" for end in interval)]
        header += ["probability_better", "fit_s", "score_ms", "n_parameters"]
        rows: list[list[object]] = [[*header]]
        for split, results in by_split(self.results).items():
            for rank, result in _with_ranks(results):
                row: list[object] = [split, rank, not_a_formula(result.system), result.kind]
                row += [int(result.chose_epoch_here), result.n_seeds, result.evaluation.n_pairs]
                for estimate in result.evaluation.as_dict().values():
                    row += _csv_estimate(None if _is_unpublished(result, estimate) else estimate)
                row += [_csv_number(result.srcc_spread), *_csv_estimate(result.difference)]
                row += [_csv_number(result.probability_better), _csv_number(result.fit_s)]
                row += [_csv_number(result.score_ms), result.n_parameters]
                rows.append(row)
        return csv_text(rows)

    def tables(self) -> list[TextTable]:
        """Return the table of each split."""
        return [
            TextTable(_title(split, results), *_cells(results), _notes(results))
            for split, results in by_split(self.results).items()
        ]

    def to_markdown(self) -> str:
        """Return a section for each split."""
        return "\n".join(f"{table.to_markdown()}\n" for table in self.tables())

    def to_html(self) -> str:
        """Return a table for each split, without styles."""
        return "\n".join(table.to_html() for table in self.tables())

    def _repr_html_(self) -> str:
        return self.to_html()

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield tables that fit the terminal without wrapping a cell.

        Everything stands in one table if it fits.  If not, the metrics come first, without the
        intervals of all but the SRCC if need be, and a second table holds as many of the other
        columns as fit.
        """
        from rich.text import Text

        for split, results in by_split(self.results).items():
            columns = _known_columns(results)
            metrics = [column for column in columns if not column.is_detail]
            details = [column for column in columns if column.is_detail]
            own = [result for result in results if not result.is_published]
            width = options.max_width

            yield Text(_title(split, results), style="bold")
            if table_width(console, _rich_table(results, columns)) <= width:
                yield _rich_table(results, columns)
            else:
                is_short = table_width(console, _rich_table(results, metrics)) > width
                yield _fitting_table(console, width, results, metrics, is_short)
                while len(details) > 1 and not _fits_with_short_names(console, width, own, details):
                    details.pop()
                if details:
                    yield _fitting_table(console, width, own, details)
            for note in _notes(results):
                yield Text(note)
            yield Text("")


def write_tables(results: Iterable[Result], out: Path) -> None:
    """Write ``results.csv`` and ``results.md`` into an existing folder.

    A learning curve is written to ``learning-curve.csv``.
    """
    table = ResultsTable(results)
    for _, curve in with_learning_curve(table.results):
        write_atomically(out / "learning-curve.csv", curve.to_csv().encode())
    write_atomically(out / "results.csv", table.to_csv().encode())
    write_atomically(out / "results.md", table.to_markdown().encode())


def shown_name(result: Result) -> str:
    """Return a system's name on one line, with a mark if it chose its epoch on the split.

    Examples
    --------
    >>> from xacle_stack.metrics import evaluate
    >>> evaluation = evaluate([1, 2, 3], [1, 2, 3])
    >>> shown_name(Result("lstm", "validation", "lstm", evaluation, chose_epoch_here=True))
    'lstm †'
    """
    name = printable_name(result.system)
    if result.is_published:
        return f"published: {name}"
    return f"{name} †" if result.chose_epoch_here else name


def _title(split: str, results: Sequence[Result]) -> str:
    evaluation = results[0].evaluation
    means = ", means over seeds" if any(result.n_seeds > 1 for result in results) else ""
    return f"{printable_name(split)}: {evaluation.basis}{means}"


def _notes(results: Sequence[Result]) -> list[str]:
    notes = []
    if any(result.chose_epoch_here for result in results):
        notes.append(_CHOSE_EPOCH_NOTE)
    if any(math.isnan(float(result.evaluation.srcc)) for result in results):
        notes.append(_NAN_NOTE)
    if any(result.kind == "rank ensemble" for result in results):
        notes.append(_RANKS_NOTE)
    reference = reference_of(results)
    if reference is not None:
        notes.append(
            f"SRCC difference: the SRCC minus that of {printable_name(reference)}, from the same "
            "resamples of the pairs."
        )
    for result, curve in with_learning_curve(results):
        notes += [f"{shown_name(result)}: {curve.points}", curve.finding]
    return notes


def _with_ranks(results: Sequence[Result]) -> Iterator[tuple[str, Result]]:
    """Yield each result with its rank; published results have none."""
    for rank, result in enumerate(results, start=1):
        yield "" if result.is_published else str(rank), result


def _known_columns(results: Sequence[Result]) -> list[_Column]:
    """Return the columns that tell something."""
    several_seeds = any(result.n_seeds > 1 for result in results)
    return [
        column
        for column in _COLUMNS
        if any(column.text(result) for result in results)
        and (several_seeds or column.header != "seeds")
    ]


def _cells(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    columns = _known_columns(results)
    header = ["rank", "system", *(column.header for column in columns)]
    rows = [
        [rank, shown_name(result), *(column.text(result) for column in columns)]
        for rank, result in _with_ranks(results)
    ]
    return header, [[cell or _UNKNOWN for cell in row] for row in rows]


def _rich_table(
    results: Sequence[Result],
    columns: Sequence[_Column],
    is_short: bool = False,
    max_name_width: int | None = None,
) -> Table:
    """Return a table for a terminal; names wider than `max_name_width` lose their middle."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("", justify="right", no_wrap=True),
        Column("system", no_wrap=True),
        *(Column(column.header, no_wrap=True) for column in columns),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for rank, result in _with_ranks(results):
        name = shown_name(result)
        if max_name_width is not None:
            name = _name_of_width(name, max_name_width)
        cells = [
            (column.short_text if is_short and column.short_text else column.text)(result)
            for column in columns
        ]
        row = [Text(cell or _UNKNOWN) for cell in (rank, name, *cells)]
        table.add_row(*row, style="dim" if result.is_published else None)
    return table


def _fitting_table(
    console: Console,
    width: int,
    results: Sequence[Result],
    columns: Sequence[_Column],
    is_short: bool = False,
) -> Table:
    """Return a table in which names are as long as the width allows."""
    no_names = table_width(console, _rich_table(results, columns, is_short, max_name_width=1))
    n_left = width - no_names + len("system")
    return _rich_table(results, columns, is_short, max_name_width=max(len("system"), n_left))


def _fits_with_short_names(
    console: Console, width: int, results: Sequence[Result], columns: Sequence[_Column]
) -> bool:
    table = _rich_table(results, columns, max_name_width=_SHORT_NAME_WIDTH)
    return table_width(console, table) <= width


def _name_of_width(name: str, width: int) -> str:
    """Return a name that takes so many cells of a terminal, in which some characters take two."""
    from rich.cells import cell_len

    shown = name
    while cell_len(shown) > width and len(shown) > 1:
        shown = short_name(name, len(shown) - 1)
    return shown


def _csv_number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _csv_estimate(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["", "", ""]
    return [_csv_number(number) for number in (estimate.value, estimate.low, estimate.high)]
