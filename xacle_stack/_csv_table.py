"""Reads CSV files row by row under our own column names, and writes them.

A file is read as a stream with limits on fields, rows and their number, so that a huge file of
another kind gives an error message instead of filling the memory.
"""

import csv
import difflib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from xacle_stack._files import is_regular_file, write_atomically
from xacle_stack.errors import PairsError, XacleStackError, bullet_list

# No caption is longer.  The limit is below the 131,072 characters of Python's csv module, which
# could only be changed for the whole process.
MAX_FIELD_CHARS = 100_000
MAX_ROW_CHARS = 1_000_000
MAX_ROWS = 20_000_000
# A file with more mistakes is likely not the intended one.
MAX_MISTAKES = 10_000

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
# A spreadsheet reads a cell as a formula if it begins with one of these.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def plain_number(text: str) -> float:
    """Return the number in a cell, or NaN if there is none.

    This is stricter than ``float``, which also takes ``0_5``, ``infinity``, ``nan`` and digits of
    other scripts.

    Examples
    --------
    >>> plain_number(" 7.5 "), plain_number("1e-1"), plain_number("0_5")
    (7.5, 0.1, nan)
    """
    text = text.strip()
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else math.nan


def not_a_formula(cell: str) -> str:
    """Return a cell with an apostrophe before it if a spreadsheet would read it as a formula.

    Examples
    --------
    >>> not_a_formula("=1+1"), not_a_formula("stack")
    ("'=1+1", 'stack')
    """
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    r"""Return rows as the text of a CSV file.

    Examples
    --------
    >>> csv_text([["a", "b, c"], [1, "d\re"]])
    'a,"b, c"\n"1","d\re"\n'
    """
    file = io.StringIO()
    as_needed = csv.writer(file, lineterminator="\n")
    # With this line terminator, older Pythons leave a carriage return unquoted.
    always = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (always if any("\r" in str(cell) for cell in row) else as_needed).writerow(row)
    return file.getvalue()


def write_csv(path: Path, pieces: Iterable[str], error: type[XacleStackError] = PairsError) -> None:
    """Write the pieces of a CSV file's text in UTF-8; the file is replaced in one step.

    Raises
    ------
    XacleStackError
        Of the type `error`, if the file or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (piece.encode() for piece in pieces))
    except OSError as failure:
        raise error(f"{path}: cannot be written: {failure.strerror}.") from None


@dataclass(frozen=True)
class CsvTable:
    """A CSV file with a checked header; its rows are returned under our own column names.

    Attributes
    ----------
    path : Path
    header : tuple of str
    columns : mapping of str to str
        The header's spelling of each of our columns that the file has.
    error : type of XacleStackError
        The type of error that is raised.
    delimiter : str
        What separates the columns: a comma, or a tab.
    """

    path: Path
    header: tuple[str, ...]
    columns: Mapping[str, str]
    error: type[XacleStackError] = PairsError
    delimiter: str = ","

    @classmethod
    def with_all_columns(
        cls, path: Path, delimiter: str = ",", error: type[XacleStackError] = PairsError
    ) -> Self:
        """Read a file's header, whose names then are those of the columns.

        Raises
        ------
        XacleStackError
            If the file cannot be read as CSV.
        """
        first = next(_records(path, delimiter, error), None)
        if first is None:
            raise error(f"{path}: the file is empty. Expected a header and one row for each pair.")
        header = tuple(name.strip() for name in first[1])
        found = [mark for mark in ",;\t" if mark != delimiter and mark in header[0]]
        if len(header) == 1 and found:
            separators = {",": "commas", ";": ";", "\t": "tabs"}
            raise error(
                f"{path}: the columns are separated by {separators[found[0]]}. Save the file with "
                f"{separators[delimiter]} between them."
            )
        return cls(path, header, {name: name for name in header if name}, error, delimiter)

    @classmethod
    def read(
        cls,
        path: Path,
        expected: Mapping[str, tuple[str, ...]],
        optional: tuple[str, ...] = (),
        error: type[XacleStackError] = PairsError,
    ) -> Self:
        """Read a file's header.

        Parameters
        ----------
        path : Path
        expected : mapping of str to tuple of str
            Our column names, with the accepted spellings of each.
        optional : tuple of str
            Our names of columns that may be missing.
        error : type of XacleStackError
            The type of error to raise.

        Raises
        ------
        XacleStackError
            If the file cannot be read as CSV, or a column is missing or occurs twice.
        """
        header = cls.with_all_columns(path, error=error).header
        columns: dict[str, str] = {}
        missing: list[str] = []
        hints: list[str] = []
        for column, spellings in expected.items():
            found = [name for name in header if name in spellings]
            if len(found) > 1:
                raise error(
                    f"{path}: the columns {' and '.join(map(repr, found))} mean the same. Keep one."
                )
            if found:
                columns[column] = found[0]
            elif column not in optional:
                missing.append(" or ".join(repr(name) for name in spellings))
                hints += _hints(header, spellings)
        if missing:
            raise error(
                f"{path}: the header lacks the column(s) {', '.join(missing)}; it has "
                f"{list(header)}. Rename the columns, separated by commas, in the file's first "
                f"line.{''.join(hints)}"
            )
        return cls(path, header, columns, error)

    @property
    def unread(self) -> list[str]:
        """The named columns that are not read."""
        return [name for name in self.header if name and name not in self.columns.values()]

    def rows(self, mistakes: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield (where, record) for every well-formed row, and note the mistakes of the others.

        Empty rows, which spreadsheets leave at the end, are skipped.
        """
        indices = {column: self.header.index(name) for column, name in self.columns.items()}
        records = _records(self.path, self.delimiter, self.error)
        next(records)
        for line, fields in records:
            where = f"{self.path.name}, line {line}"
            if len(fields) != len(self.header):
                mistakes.append(
                    f"{where}: {len(fields)} fields instead of {len(self.header)}; put a caption "
                    "that holds commas in double quotes, and write numbers with a point"
                )
            elif any(field[0].isspace() and field.lstrip()[:1] == '"' for field in fields if field):
                mistakes.append(
                    f"{where}: a tab or another blank stands before a double quote; remove it, or "
                    "the quotes become part of the text"
                )
            else:
                yield where, {column: fields[index] for column, index in indices.items()}
            if len(mistakes) > MAX_MISTAKES:
                raise self.error(
                    f"{self.path}: more than {MAX_MISTAKES:,} mistakes up to line {line}; is it "
                    f"the right file? The first:\n{bullet_list(mistakes)}"
                )


def _hints(header: tuple[str, ...], spellings: tuple[str, ...]) -> Iterator[str]:
    """Yield a hint if a column's name is close to one of the spellings."""
    for spelling in spellings:
        for name in header:
            if difflib.get_close_matches(name.casefold(), [spelling], n=1, cutoff=0.75):
                yield f" Did you mean {spelling!r} by {name!r}?"
                return


def _records(
    path: Path, delimiter: str, error: type[XacleStackError]
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty, with the number of its last line."""
    begun, n_chars = 1, 0

    def lines() -> Iterator[str]:
        nonlocal n_chars
        while line := file.readline(MAX_ROW_CHARS + 1):
            n_chars += len(line)
            if n_chars > MAX_ROW_CHARS:
                raise too_long("this row", MAX_ROW_CHARS)
            if "\0" in line:
                raise error(
                    f"{path}, line {reader.line_num + 1}: there are NUL bytes, as in UTF-16 or "
                    "in a file that is not text. Save it as CSV in UTF-8."
                )
            yield line

    def too_long(what: str, n_allowed: int) -> XacleStackError:
        return error(
            f"{path}, the row that begins in line {begun}: {what} has more than {n_allowed:,} "
            "characters. No caption is so long: shorten it, or close the double quote that is open."
        )

    try:
        if not is_regular_file(path):
            raise error(f"{path}: this is not a regular file. Give the path of a CSV file.")
        with path.open("rb") as bytes_:
            if bytes_.read(2) in (b"\xff\xfe", b"\xfe\xff"):
                raise error(f"{path}: this file is UTF-16. Save it as UTF-8.")
        # Bytes that are not UTF-8 become surrogates, so that an error can name their line.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(lines(), delimiter=delimiter, strict=True, skipinitialspace=True)
            for number, fields in enumerate(reader):
                if number > MAX_ROWS:
                    raise error(f"{path}: more than {MAX_ROWS:,} rows. Divide the file.")
                if any(len(field) > MAX_FIELD_CHARS for field in fields):
                    raise too_long("a field", MAX_FIELD_CHARS)
                if any(field.strip() for field in fields):
                    yield reader.line_num, fields
                begun, n_chars = reader.line_num + 1, 0
    except csv.Error as found:
        if "field limit" in str(found):
            raise too_long("a field", min(MAX_FIELD_CHARS, csv.field_size_limit())) from None
        raise error(
            f"{path}, the row that begins in line {begun}: its double quotes do not match "
            f"({found}). Put a text that holds quotes or commas in double quotes, double the "
            "quotes inside, and leave nothing between the closing one and the comma."
        ) from None
    except OSError as found:
        if isinstance(found, XacleStackError):
            raise
        raise error(f"{path}: cannot be read ({found.strerror}).") from None
