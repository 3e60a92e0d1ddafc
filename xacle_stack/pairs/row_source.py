"""Gives the rows of any table one form: CSV, TSV, JSONL and Parquet files, frames, lists of dicts.

Nothing here knows what the columns mean.  Files are read with limits on rows and fields, so that a
huge or hostile file gives an error message instead of filling the memory.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xacle_stack._csv_table import MAX_MISTAKES, MAX_ROW_CHARS, MAX_ROWS, CsvTable
from xacle_stack._files import is_regular_file
from xacle_stack._optional import require
from xacle_stack.errors import MissingExtraError, PairsError, bullet_list

# The content of a Parquet file, audio in its cells included, as it is in memory.
MAX_PARQUET_BYTES = 4 << 30
# Few rows at a time: a column of repeats grows when it is decoded.
_PARQUET_BATCH = 256
# What a set without a column of splits is called where its table has no file name.
UNNAMED = "pairs"

# Where a row is, in the words of messages, and its cells by the names of the columns.
Row = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class RowSource:
    """The rows of a table.

    Attributes
    ----------
    name : str
        What messages call the table.
    stem : str
        What its set is called if it has no column of splits.
    folder : Path or None
        Where relative paths start.
    header : tuple of str
        The names of the columns.
    rows : callable
        Yields every well-formed row, and adds the mistakes of the others to the list that it is
        given.  Its second argument names the column of clips, which stay in a Hugging Face
        ``Dataset`` until they are read: the cells are then of type `StoredCell`.
    """

    name: str
    stem: str
    folder: Path | None
    header: tuple[str, ...]
    rows: Callable[[list[str], str | None], Iterator[Row]]


@dataclass(frozen=True)
class StoredCell:
    """A cell of a Hugging Face ``Dataset`` that is read when it is asked for."""

    dataset: Any
    row: int
    column: str

    def read(self) -> object:
        """Return the cell's value."""
        return self.dataset[self.row][self.column]


def open_rows(data: object) -> RowSource:
    """Return the rows of a file or of an object in memory.

    Parameters
    ----------
    data : path-like, pandas or Polars frame, pyarrow Table, Hugging Face Dataset or list of dict

    Raises
    ------
    PairsError
        If it is none of these, cannot be read, or is larger than the limits; or if two of its
        columns have one name.
    MissingExtraError
        If it is a Parquet file and pyarrow is not installed.
    """
    source = _open_file(Path(data)) if isinstance(data, str | Path) else _open_object(data)
    twice = sorted({name for name in source.header if name and source.header.count(name) > 1})
    if twice:
        raise PairsError(
            f"{source.name}: several columns are called {', '.join(map(repr, twice))}. Rename them."
        )
    return source


# Files -------------------------------------------------------------------------------------------


def _open_file(path: Path) -> RowSource:
    if path.is_dir():
        raise PairsError(f"{path}: this is a folder. Give a table: {', '.join(TABLE_ENDINGS)}.")
    if not path.exists():
        near = [p.name for p in _siblings(path) if p.stem.casefold() == path.stem.casefold()]
        hint = f" Did you mean {near[0]!r}?" if near else " Check the path."
        raise PairsError(f"{path}: no such file.{hint}")
    opener = _OPENERS.get(path.suffix.casefold())
    if opener is None and path.suffix.casefold() in (".zip", ".tar", ".gz", ".tgz"):
        raise PairsError(f"{path}: this is an archive. Unpack it and give the folder or the table.")
    if opener is None:
        raise PairsError(
            f"{path}: tables are read from {', '.join(TABLE_ENDINGS)} files. Save it as one of "
            "these, or rename it if it is one."
        )
    try:
        if not is_regular_file(path):
            raise PairsError(f"{path}: this is not a regular file. Give the path of a table.")
        return opener(path)
    except OSError as error:
        raise PairsError(f"{path}: cannot be read ({error.strerror or error}).") from None


def _siblings(path: Path) -> list[Path]:
    try:
        return sorted(p for p in path.parent.iterdir() if p.suffix.casefold() in TABLE_ENDINGS)
    except OSError:
        return []


def _open_separated(path: Path, delimiter: str) -> RowSource:
    table = CsvTable.with_all_columns(path, delimiter)
    return RowSource(
        str(path), path.stem, path.parent, table.header, lambda mistakes, _: table.rows(mistakes)
    )


def _open_jsonl(path: Path) -> RowSource:
    """Read all of a file of JSON objects, one a line, because only all rows name all columns."""
    records: list[tuple[int, dict[str, Any]]] = []
    found: list[str] = []
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_ROW_CHARS + 1), b""), 1):
            if len(line) > MAX_ROW_CHARS:
                raise PairsError(
                    f"{path}, line {number}: longer than {MAX_ROW_CHARS:,} bytes. Expected one "
                    "JSON object in each line; samples belong into audio files."
                )
            if number > MAX_ROWS:
                raise PairsError(f"{path}: more than {MAX_ROWS:,} rows. Divide the file.")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                records.append((number, _json_object(line)))
            except (ValueError, RecursionError) as error:
                found.append(f"{path.name}, line {number}: {_why_no_object(error)}")
            if len(found) > MAX_MISTAKES:
                raise _too_many(str(path), found)

    def rows(mistakes: list[str], _: str | None) -> Iterator[Row]:
        mistakes += found
        for number, record in records:
            yield f"{path.name}, line {number}", record

    if found and not records:
        raise PairsError(f"{path}: no line can be read as a row:\n{bullet_list(found)}")
    return RowSource(str(path), path.stem, path.parent, _all_keys(r for _, r in records), rows)


def _json_object(line: bytes) -> dict[str, Any]:
    record = json.loads(line.decode(), object_pairs_hook=_without_repeats)
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}")
    return record


def _without_repeats(items: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(items)
    if len(record) < len(items):
        raise ValueError("a name occurs twice in it")
    return record


def _why_no_object(error: Exception) -> str:
    reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if isinstance(error, UnicodeDecodeError):
        reason = "it is not UTF-8"
    return f'not a JSON object ({reason[:200]}); expected {{"audio": …, "text": …}} in one line'


def _open_parquet(path: Path) -> RowSource:
    try:
        pyarrow = require("pyarrow", extra="tables", purpose=f"{path}: a Parquet file")
        parquet = require("pyarrow.parquet", extra="tables", purpose=f"{path}: a Parquet file")
    except MissingExtraError:
        raise
    except ImportError as error:  # such as a pyarrow for a newer NumPy
        raise PairsError(
            f"{path}: the pyarrow that is installed cannot be used ({error}). Install one that "
            "fits, or save the table as CSV."
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            about = file.metadata
            n_bytes = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            _check_size(path, about.num_rows, n_bytes)
            header = tuple(map(str, file.schema_arrow.names))
            records: list[dict[str, Any]] = []
            n_bytes = 0
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH, use_threads=False):
                n_bytes += batch.nbytes
                _check_size(path, len(records) + batch.num_rows, n_bytes)
                records += batch.to_pylist()
    # A damaged file raises whatever pyarrow's parts raise.
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        if isinstance(error, PairsError):
            raise
        raise PairsError(
            f"{path}: cannot be read as Parquet ({str(error).strip()[:300] or 'damaged'}). Write "
            "or copy it again."
        ) from None
    return RowSource(
        str(path), path.stem, path.parent, header, _numbered(records, f"{path.name}, ")
    )


def _check_size(path: Path, n_rows: int, n_bytes: int) -> None:
    if n_rows > MAX_ROWS or n_bytes > MAX_PARQUET_BYTES:
        raise PairsError(
            f"{path}: {n_rows:,} rows and {n_bytes:,} bytes; at most {MAX_ROWS:,} rows and "
            f"{MAX_PARQUET_BYTES:,} bytes are read. Divide the file; one that holds sounds opens "
            "without reading them all as datasets.load_dataset('parquet', data_files=…)."
        )


_OPENERS: dict[str, Callable[[Path], RowSource]] = {
    ".csv": lambda path: _open_separated(path, ","),
    ".tsv": lambda path: _open_separated(path, "\t"),
    ".jsonl": _open_jsonl,
    ".ndjson": _open_jsonl,
    ".parquet": _open_parquet,
}
TABLE_ENDINGS = tuple(_OPENERS)


# Objects in memory -------------------------------------------------------------------------------


def _open_object(data: Any) -> RowSource:
    if hasattr(data, "collect") and not hasattr(data, "iter_rows"):  # a lazy frame of Polars
        data = data.collect()
    if all(
        hasattr(data, name) for name in ("column_names", "features", "select_columns", "__len__")
    ):
        return _open_dataset(data)
    if hasattr(data, "iter_rows"):
        names = tuple(map(str, data.columns))
        return _in_memory("the frame", names, lambda: data.iter_rows())
    if hasattr(data, "itertuples"):
        names = tuple(map(str, data.columns))
        return _in_memory("the frame", names, lambda: data.itertuples(index=False, name=None))
    if hasattr(data, "to_batches"):
        names = tuple(map(str, data.schema.names))
        records = [record for batch in data.to_batches() for record in batch.to_pylist()]
        return RowSource("the table", UNNAMED, None, names, _numbered(records))
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        for row, record in enumerate(data):
            if not isinstance(record, Mapping):
                raise PairsError(
                    f"the list, row {row}: expected a dict such as "
                    f"{{'audio': …, 'text': …}}, got {type(record).__name__}."
                )
        return RowSource("the list", UNNAMED, None, _all_keys(data), _numbered(data))
    raise PairsError(
        "expected a folder, the path of a table, a pandas or Polars frame, a Hugging Face Dataset "
        f"or a list of dicts, got {type(data).__name__}."
    )


def _open_dataset(dataset: Any) -> RowSource:
    dataset = dataset.with_format(None)
    for name, feature in dataset.features.items():
        # Sounds are decoded as files are, by this library; pictures and videos not at all.
        if getattr(feature, "decode", False) is True and hasattr(feature, "decode_example"):
            dataset = dataset.cast_column(name, type(feature)(decode=False))

    def rows(_: list[str], audio: str | None) -> Iterator[Row]:
        stored = [
            name
            for name, feature in dataset.features.items()
            if hasattr(feature, "decode_example")
            or (name == audio and getattr(feature, "dtype", None) != "string")
        ]
        plain = dataset.remove_columns(stored)
        records = iter(plain) if plain.column_names else ({} for _ in range(len(dataset)))
        clips = dataset.select_columns([audio]) if audio in stored else None
        for row, record in enumerate(records):
            if audio is not None and clips is not None:
                record = record | {audio: StoredCell(clips, row, audio)}
            yield f"row {row}", record

    return RowSource("the data set", UNNAMED, None, tuple(dataset.column_names), rows)


def _in_memory(
    name: str, names: tuple[str, ...], tuples: Callable[[], Iterable[Sequence[Any]]]
) -> RowSource:
    def rows(_: list[str], __: str | None) -> Iterator[Row]:
        for row, cells in enumerate(tuples()):
            yield f"row {row}", dict(zip(names, cells, strict=True))

    return RowSource(name, UNNAMED, None, names, rows)


def _numbered(
    records: Sequence[Mapping[str, Any]], prefix: str = ""
) -> Callable[[list[str], str | None], Iterator[Row]]:
    def rows(_: list[str], __: str | None) -> Iterator[Row]:
        for row, record in enumerate(records):
            yield f"{prefix}row {row}", record

    return rows


def _all_keys(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(name) for record in records for name in record))


def _too_many(name: str, mistakes: Sequence[str]) -> PairsError:
    return PairsError(
        f"{name}: more than {MAX_MISTAKES:,} mistakes; is it the right file? The first:\n"
        f"{bullet_list(mistakes)}"
    )
