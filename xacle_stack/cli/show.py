"""What the commands print: tables on stdout, one message for a mistake on stderr."""

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.text import Text

from xacle_stack._printable import printable
from xacle_stack.errors import bullet_list

if TYPE_CHECKING:
    from xacle_stack.extract import ExtractionReport
    from xacle_stack.results import Result


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
def stages_told(*, shown: bool) -> Iterator[None]:
    """Show the stages of long work, how long they may take, and where a killed one goes on."""
    loggers = [
        logging.getLogger(f"xacle_stack.{name}")
        for name in ("pretraining", "systems.checkpoints", "stacking.selection")
    ]
    for logger in loggers if shown else ():
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger in loggers:
            logger.setLevel(logging.NOTSET)


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


@contextmanager
def new_store_said(store: Path) -> Iterator[None]:
    """Say where a cache is if what is done within has made it."""
    was_there = store.exists()
    yield
    if not was_there and store.exists():
        console.print(f"New cache of embeddings: {store.absolute()}", soft_wrap=True)


def noun(modality: str) -> str:
    """Return what users call the items of a modality."""
    return "clips" if modality == "audio" else "captions"


def print_results(results: "Iterable[Result]") -> None:
    """Print the table of results, so that it fits the terminal."""
    from xacle_stack.results import ResultsTable

    console.print(ResultsTable(results))
