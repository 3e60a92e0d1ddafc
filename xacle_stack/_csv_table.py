"""CSV files by our own column names, with the line of every row."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from xacle_stack.errors import PairsError


@dataclass
class CsvTable:
    """A CSV file's rows by our own column names, with their line numbers."""

    path: Path
    columns: Mapping[str, str]
    records: list[tuple[int, dict[str, str]]]

    @classmethod
    def read(
        cls,
        path: Path,
        expected: Mapping[str, tuple[str, ...]],
        optional: tuple[str, ...] = (),
        optional_beside: tuple[str, ...] = (),
    ) -> Self:
        """Read a file.

        Parameters
        ----------
        path : Path
        expected : mapping of str to tuple of str
            Our name of a column, and the spellings of it that are accepted.
        optional : tuple of str
            Our names of columns that may be missing.
        optional_beside : tuple of str
            Columns that may be missing where the file has all others and nothing else; beside
            an unknown column one of these is more likely misspelled.

        Raises
        ------
        PairsError
            If the file cannot be read as CSV, or a column is missing.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise PairsError(f"{path}: cannot be read ({error.strerror}).") from None
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise PairsError(f"{path}: this file is UTF-16. Save it as UTF-8.")
        # Bytes that are not UTF-8 survive as surrogates, so that each can be named by its line.
        text = content.decode("utf-8-sig", errors="surrogateescape")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        begun = 1
        lines = []
        try:
            for fields in reader:
                lines.append((reader.line_num, fields))
                begun = reader.line_num + 1
        except csv.Error as error:
            raise PairsError(
                f"{path}, the row that begins in line {begun}: its double quotes do not match "
                f"({error}). Put a text that holds quotes or commas in double quotes, and double "
                "the quotes inside."
            ) from None
        if not lines:
            raise PairsError(f"{path}: the file is empty. Expected a header and one row a pair.")
        header = [name.strip() for name in lines.pop(0)[1]]
        if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
            raise PairsError(
                f"{path}: the columns are separated by {';' if ';' in header[0] else 'tabs'}. "
                "Save the file with commas between them."
            )
        if len(header) == len(expected) - len(optional_beside):
            optional = (*optional, *optional_beside)
        places, missing = {}, []
        for column, spellings in expected.items():
            place = next((header.index(name) for name in spellings if name in header), None)
            if place is not None:
                places[column] = place
            elif column not in optional:
                missing.append(" or ".join(repr(name) for name in spellings))
        if missing:
            raise PairsError(
                f"{path}: the header lacks the column(s) {', '.join(missing)}; it has "
                f"{header}. Rename the columns, separated by commas, in the file's first line."
            )
        records = []
        for line, fields in lines:
            if not fields:
                continue
            record = {
                column: fields[place] if place < len(fields) else ""
                for column, place in places.items()
            }
            if len(fields) != len(header):
                record["ragged"] = f"{len(fields)} fields instead of {len(header)}"
            records.append((line, record))
        return cls(path, {column: header[place] for column, place in places.items()}, records)

    def rows(self, mistakes: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield (where, record) for every row whose fields could be told apart."""
        for line, record in self.records:
            where = f"{self.path.name}, line {line}"
            if "ragged" in record:
                mistakes.append(
                    f"{where}: {record['ragged']}; put a caption that holds commas in double "
                    "quotes, and write numbers with a point"
                )
            else:
                yield where, record
