"""What the commands print: tables on stdout, one message for a mistake on stderr."""

import logging
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from xacle_stack._printable import printable, printable_name
from xacle_stack.errors import bullet_list

if TYPE_CHECKING:
    from xacle_stack.extract import ExtractionReport
    from xacle_stack.metrics import Estimate
    from xacle_stack.results import PublishedResult, SystemResult


class _Console(Console):
    """Shows the control characters of names as escapes, in messages and in the cells of tables."""

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)


class _Formatter(logging.Formatter):
    """Does the same for what is logged."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


# A log file or a pipe has no width of its own; the results table needs about this.
_LOG_WIDTH = 128
# Paths and captions are shown as they are, whatever brackets they hold.
console = _Console(width=None if sys.stdout.isatty() else _LOG_WIDTH, markup=False, highlight=False)
error_console = _Console(stderr=True, markup=False, highlight=False)


def show_logs() -> None:
    """Print what is logged, from warnings on, on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


@contextmanager
def warnings_logged() -> Iterator[None]:
    """Show Python's warnings like what is logged: a library's may quote what a file says."""

    def show(message: Warning | str, *_: object) -> None:
        logging.getLogger("py.warnings").warning("%s", message)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]  # takes whatever comes
        yield


def fail(message: str) -> NoReturn:
    """Print one message on stderr and exit with 1."""
    error_console.print(f"error: {message}", style="red", soft_wrap=True)
    raise SystemExit(1)


def stop_on_failures(report: "ExtractionReport") -> None:
    """Exit with 1 if clips or captions could not be used, and name them."""
    if report.failures:
        fail(
            f"{len(report.failures)} clip(s) or caption(s) could not be used; all others are in "
            f"the cache:\n{bullet_list(report.failures.values())}"
        )


def say_new_store(store: Path) -> None:
    """Say where the cache will be, if there is none there yet."""
    if not store.exists():
        console.print(f"New cache of embeddings: {store.absolute()}", soft_wrap=True)


def noun(modality: str) -> str:
    """Return what users call the items of a modality."""
    return "clips" if modality == "audio" else "captions"


def print_results(
    results: "Sequence[SystemResult]", published: "Sequence[PublishedResult]"
) -> None:
    """Print a table a split: our systems with intervals, published rows below."""
    from xacle_stack.results import METRIC_NAMES, rank_of

    for split in dict.fromkeys(result.split for result in results):
        of_split = [result for result in results if result.split == split]
        ranks = rank_of(of_split)
        evaluation = of_split[0].evaluation
        table = Table(
            "rank",
            Column("system", overflow="fold"),
            *(Column(name, overflow="fold") for name in METRIC_NAMES),
            title=f"{split}: {evaluation.n_pairs} pairs, {evaluation.confidence:.0%} "
            "bootstrap intervals",
            box=box.SIMPLE_HEAD,
        )
        for result in of_split:
            metrics = [_metric(estimate) for estimate in result.evaluation.as_dict().values()]
            table.add_row(str(ranks[result.system]), printable_name(result.system), *metrics)
        for row in published:
            if row.split == split:
                table.add_row(
                    "–", f"published: {row.system}", *map(_number, row.values), style="dim"
                )
        console.print(table)
    if any(math.isnan(r.evaluation.srcc.value) for r in results):
        console.print("nan: a correlation with scores that are all equal is undefined.")


def _metric(estimate: "Estimate") -> str:
    interval = f"[{_number(estimate.low)}, {_number(estimate.high)}]"
    return f"{_number(estimate.value)} {interval}"


def _number(value: float) -> str:
    """Return three digits: a correlation as papers write it, an error with two decimals."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"
