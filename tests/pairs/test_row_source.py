import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from support import hf_dataset

from xacle_stack._csv_table import MAX_ROW_CHARS
from xacle_stack.errors import MissingExtraError, PairsError
from xacle_stack.pairs.row_source import open_rows

RECORDS = [
    {"audio": "a.wav", "text": 'a "dog", barking', "n": 1},
    {"audio": "b.wav", "text": "雨の音", "n": 2},
]
HEADER = ("audio", "text", "n")


def rows_of(data: object) -> list[tuple[str, dict[str, Any]]]:
    mistakes: list[str] = []
    found = [(where, dict(record)) for where, record in open_rows(data).rows(mistakes, "audio")]
    assert mistakes == []
    return found


def as_text(record: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in record.items()}


def written(folder: Path, ending: str) -> Path:
    path = folder / f"t{ending}"
    if ending == ".parquet":
        parquet().write_table(sys.modules["pyarrow"].Table.from_pylist(RECORDS), path)
    elif ending in (".jsonl", ".ndjson"):
        path.write_text("".join(json.dumps(r) + "\n\n" for r in RECORDS), "utf-8-sig")
    else:
        pd.DataFrame(RECORDS).to_csv(path, sep="\t" if ending == ".tsv" else ",", index=False)
    return path


def parquet() -> Any:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    return pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, ending)
    source = open_rows(str(path))
    assert (source.name, source.stem, source.folder) == (str(path), "t", tmp_path)
    assert source.header == HEADER
    first = "row 0" if ending == ".parquet" else "line 1" if "j" in ending else "line 2"
    rows = rows_of(path)
    assert rows[0][0] == f"{path.name}, {first}"
    assert [as_text(record) for _, record in rows] == [as_text(record) for record in RECORDS]


OBJECTS = {
    "list": lambda: RECORDS,
    "tuple": lambda: tuple(RECORDS),
    "pandas": lambda: pd.DataFrame(RECORDS),
    "pandas with an index": lambda: pd.DataFrame(RECORDS, index=[7, 7]),
    "polars": lambda: pl.DataFrame(RECORDS),
    "lazy polars": lambda: pl.DataFrame(RECORDS).lazy(),
    "pyarrow": lambda: arrow_table(),
    "datasets": lambda: hf_dataset({name: [row[name] for row in RECORDS] for name in HEADER}),
}


def arrow_table() -> Any:
    return pytest.importorskip("pyarrow", exc_type=ImportError).Table.from_pylist(RECORDS)


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_object_gives_the_same_rows(kind: str) -> None:
    data = OBJECTS[kind]()
    source = open_rows(data)
    assert (source.stem, source.folder, source.header) == ("pairs", None, HEADER)
    assert rows_of(data) == [(f"row {row}", record) for row, record in enumerate(RECORDS)]


def test_rows_may_lack_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n{"b": [1, {"c": null}], "a": NaN}\n')
    assert open_rows(path).header == open_rows([{"a": 1}, {"b": 2}]).header == ("a", "b")
    assert rows_of(path)[1][1]["b"] == [1, {"c": None}]


NOT_ROWS = {
    '{"a": 1}\n{"a": 2\n': "line 2: not a JSON object",
    '{"a": 1}\n[1]\n': "line 2: not a JSON object (a JSON list)",
    '{"a": 1}\n\n{"a": 1, "a": 2}\n': "line 3: not a JSON object (a name occurs twice",
    '{"a": 1}\n' + "[" * 200_000 + "\n": "line 2: not a JSON object (it is nested too deeply)",
    '{"a": 1}\n{"a": ' + "9" * 5_000 + "}\n": "line 2: not a JSON object",
    '{"a": 1}\n"\\ud800"\n': "line 2: not a JSON object",
}


@pytest.mark.parametrize("content", NOT_ROWS, ids=lambda text: text[9:30])
def test_lines_that_are_no_objects_are_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    mistakes: list[str] = []
    assert len(list(open_rows(path).rows(mistakes, None))) == 1
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"t.jsonl, {NOT_ROWS[content]}")


def test_a_line_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(PairsError, match=r"t.jsonl, line 1.*not UTF-8"):
        open_rows(path)


def test_a_huge_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        file.truncate(10 * MAX_ROW_CHARS)
    with pytest.raises(PairsError, match=r"t\.jsonl, line 2: longer than 1,000,000 bytes"):
        open_rows(path)


def test_a_file_of_something_else_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("x\n" * 20_000)
    with pytest.raises(PairsError, match="more than 10,000 mistakes"):
        open_rows(path)


def test_a_parquet_file_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch) -> None:
    pq = parquet()
    monkeypatch.setattr("xacle_stack.pairs.row_source.MAX_PARQUET_BYTES", 1_000_000)
    pa = sys.modules["pyarrow"]
    path = tmp_path / "t.parquet"
    # The file has one long text, which its rows repeat.
    pq.write_table(pa.table({"text": ["x" * 10_000] * 5_000}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(PairsError, match=r"t\.parquet: .* at most .* bytes are read.*load_dataset"):
        open_rows(path)


@pytest.mark.parametrize("spoil", [lambda b: b[:50], lambda b: b[:-1], lambda b: b"PAR1" * 99])
def test_a_damaged_parquet_file_is_told(tmp_path: Path, spoil) -> None:
    parquet()
    path = written(tmp_path, ".parquet")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(PairsError, match=r"t\.parquet: cannot be read as Parquet"):
        open_rows(path)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "t.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"t\.parquet.*pip install 'xacle-stack\[tables\]'"):
        open_rows(tmp_path / "t.parquet")


def test_a_pyarrow_that_does_not_fit_is_told(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "t.parquet").touch()
    (tmp_path / "pyarrow.py").write_text("raise ImportError('pyarrow requires NumPy 9')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    with pytest.raises(PairsError, match=r"t\.parquet: .*\(pyarrow requires NumPy 9\)"):
        open_rows(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("t.zip", r"t\.zip: this is an archive. Unpack it"),
        ("t.xlsx", r"t\.xlsx: tables are read from \.csv, \.tsv, \.jsonl"),
        ("T.csv", r"T\.csv: no such file\. Did you mean 't\.csv'"),
        ("t.tsv", r"t\.tsv: no such file\. Did you mean 't\.csv'"),
        ("other.csv", r"other\.csv: no such file\. Check the path"),
        ("folder.csv", r"folder\.csv: this is a folder"),
        ("none/t.csv", r"t\.csv: no such file"),
    ],
)
def test_other_paths_get_a_hint(tmp_path: Path, name: str, told: str) -> None:
    for there in ("t.csv", "t.xlsx", "t.zip"):
        (tmp_path / there).touch()
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(PairsError, match=told):
        open_rows(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (3, "got int"),
        ({"a": 1}.items(), "got dict_items"),
        ([{"a": 1}, "b"], "row 1: expected a dict .* got str"),
        (np.zeros(3), "got ndarray"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "several columns are called 'a'"),
    ],
)
def test_other_objects_are_refused(data: object, told: str) -> None:
    with pytest.raises(PairsError, match=told):
        open_rows(data)


def test_a_table_of_tabs_is_no_table_of_commas(tmp_path: Path) -> None:
    for ending, content, told in [
        (".csv", "a\tb\n", "separated by tabs. Save the file with commas"),
        (".tsv", "a,b\n", "separated by commas. Save the file with tabs"),
        (".csv", "a,b,a\n", "several columns are called 'a'"),
    ]:
        path = tmp_path / f"t{ending}"
        path.write_text(content)
        with pytest.raises(PairsError, match=told):
            open_rows(path)
