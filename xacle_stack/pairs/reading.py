"""Reads pairs from whatever holds clips and texts: a folder in the XACLE layout, or any table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from xacle_stack.errors import PairsError
from xacle_stack.pairs import xacle_layout
from xacle_stack.pairs.clip_table import TableOptions, list_sets, read_sets
from xacle_stack.pairs.record import Pairs
from xacle_stack.pairs.row_source import UNNAMED, RowSource, open_rows


def read_pairs(
    data: Any,
    split: str | None = None,
    *,
    audio_column: str | None = None,
    text_column: str | None = None,
    audio_root: Path | str | None = None,
    sample_rate_hz: int | None = None,
    with_audio: bool = True,
) -> Pairs:
    """Read and check the pairs of one set.

    Parameters
    ----------
    data : path-like, frame, Dataset or list of dict
        A folder in the XACLE layout; the path of a CSV, TSV, JSONL or Parquet file; a pandas or
        Polars frame; a Hugging Face ``Dataset``, or a dict of them by the names of their sets; a
        list of dicts.  A table has a column of clips (``audio``, ``path``, ``file_name`` …) and
        one of texts (``text``, ``caption``, ``prompt`` …), and may have ``id``, ``score``,
        ``listener_id`` and ``split``.  Its other columns are kept.  A clip is the path of a file,
        a dict with ``array`` and ``sampling_rate``, or an array.
    split : str, optional
        The name of the set.  It may be left out if there is only one.  A table without a column
        ``split`` is one set, named after its file, or ``"pairs"``.
    audio_column, text_column : str, optional
        The columns of clips and of texts, where their names do not tell.
    audio_root : path-like, optional
        Where the relative paths of a table start; by default at its folder.
    sample_rate_hz : int, optional
        The rate of arrays without one of their own.  It cannot be checked: samples at 48 kHz that
        are called 16 kHz are taken as a slower sound.
    with_audio : bool, default=True
        If False, the clips are not looked for, and the pairs have none: enough to evaluate scores.

    Returns
    -------
    pairs : Pairs
        A pair's id is that in the column ``id``, else the number of its row, counted from 0.  In
        the XACLE layout, it is the name of the audio file.

    Raises
    ------
    PairsError
        With every mistake, of which at most 20 are shown: missing columns, audio files that are
        missing or cannot be opened, repeated ids, scores that are not numbers from 0 to 10, empty
        texts, texts that are not UTF-8.
    MissingExtraError
        If the file is in Parquet and pyarrow is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> rows = [{"audio": np.zeros(16000), "text": "silence", "system": "mine"}]
    >>> pairs = read_pairs(rows, sample_rate_hz=16000)
    >>> pairs.ids, pairs.captions, pairs.columns
    (('0',), ('silence',), {'system': ('mine',)})
    """
    options = TableOptions(
        audio_column,
        text_column,
        None if audio_root is None else Path(audio_root),
        sample_rate_hz,
        with_audio,
    )
    sets = _read(data, options, split)
    if len(sets) > 1:
        raise PairsError(
            f"{data_name(data)}: there are several sets: {', '.join(sets)}. Name one of them: "
            "split=… (--split)."
        )
    (pairs,) = sets.values()
    return pairs


def read_splits(
    data: Any,
    *,
    audio_column: str | None = None,
    text_column: str | None = None,
    audio_root: Path | str | None = None,
    sample_rate_hz: int | None = None,
    with_audio: bool = True,
) -> dict[str, Pairs]:
    """Read all sets; parameters and errors are those of :func:`read_pairs`.

    Returns
    -------
    sets : dict of str to Pairs
        By name; in the XACLE layout in the order train, validation, test, else in that of the
        table.

    Raises
    ------
    PairsError
        With the mistakes of all sets.
    """
    options = TableOptions(
        audio_column,
        text_column,
        None if audio_root is None else Path(audio_root),
        sample_rate_hz,
        with_audio,
    )
    return _read(data, options)


def list_splits(data: Any) -> list[str]:
    """Return the names of the sets in a folder in the XACLE layout, or in a table.

    Raises
    ------
    PairsError
        If the data cannot be read at all.
    """
    if _is_folder(data):
        return xacle_layout.list_splits(data)
    return list(dict.fromkeys(name for source in _sources(data) for name in list_sets(source)))


def data_name(data: Any) -> str:
    """Return what the folders of runs on these data are called.

    Examples
    --------
    >>> data_name("ratings/pilot.csv"), data_name("data/demo/"), data_name([])
    ('pilot', 'demo', 'pairs')
    """
    if not isinstance(data, str | Path):
        return UNNAMED
    path = Path(data).resolve()
    return path.name if path.is_dir() else path.stem


def _is_folder(data: object) -> bool:
    """Return whether data are in the XACLE layout, or nothing that a table could be."""
    if not isinstance(data, str | Path):
        return False
    path = Path(data)
    return path.is_dir() or (not path.exists() and not path.suffix)


def _sources(data: Any) -> list[RowSource]:
    if isinstance(data, Mapping):  # such as a DatasetDict
        return [replace(open_rows(table), stem=str(name)) for name, table in data.items()]
    return [open_rows(data)]


def _read(data: Any, options: TableOptions, split: str | None = None) -> dict[str, Pairs]:
    if _is_folder(data):
        return xacle_layout.read_splits(data, split, with_audio=options.with_audio)
    sets: dict[str, Pairs] = {}
    errors: list[str] = []
    sources = _sources(data)
    names = [source.stem for source in sources]
    if len(sources) > 1 and split is not None:
        sources = [source for source in sources if source.stem == split]
        if not sources:
            raise PairsError(f"there is no set {split!r}. The sets are: {', '.join(names)}.")
    for source in sources:
        try:
            sets |= read_sets(source, options, split)
        except PairsError as error:
            errors.append(str(error))
    if errors:
        raise PairsError("\n".join(errors))
    return sets
