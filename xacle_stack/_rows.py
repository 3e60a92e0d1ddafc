"""Rows of tables: what may index them, and runs of them."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import FeatureError

T = TypeVar("T")
# Rows that are in work at once.  No value depends on it but the last digits of sums.
BLOCK_ROWS = 2048
_SHARDS_PER_WORKER = 4


def row_numbers(rows: Any, n_rows: int, what: str, hint: str = "") -> slice | IntArray:
    """Return what stands between brackets as a slice or as row numbers.

    Parameters
    ----------
    rows : object
        A slice, row numbers or a mask; ``(rows, ...)`` as well, which is what scikit-learn asks
        for.
    n_rows : int
    what : str
        What is indexed, for messages.
    hint : str, optional
        What else its user may have wanted, a sentence for messages.

    Returns
    -------
    rows : slice or ndarray of int
        A run of rows stays a slice, so that nothing need be copied for it.

    Raises
    ------
    FeatureError
        If this is one row, or columns.
    IndexError
        If there is no such row, or a mask has another length.

    Examples
    --------
    >>> row_numbers([True, False, True], 3, "a table")
    array([0, 2])
    """
    if isinstance(rows, tuple) and len(rows) == 2 and rows[1] is Ellipsis:
        rows = rows[0]
    if isinstance(rows, slice):
        return rows if rows.step in (None, 1) else np.arange(n_rows)[rows]
    if isinstance(rows, tuple) or np.ndim(rows) != 1:
        raise FeatureError(
            f"{what} is indexed by its rows, with a slice, row numbers or a mask, got {rows!r}. "
            f"For one row write [3:4]. {hint}".rstrip()
        )
    return np.arange(n_rows)[np.asarray(rows, None if len(rows) else np.intp)]


def row_blocks(start: int, stop: int, n_rows: int = BLOCK_ROWS) -> Iterator[slice]:
    """Cut rows into runs of `n_rows`.

    Examples
    --------
    >>> list(row_blocks(0, 3000))
    [slice(0, 2048, None), slice(2048, 3000, None)]
    """
    for first in range(start, stop, n_rows):
        yield slice(first, min(first + n_rows, stop))


def row_shards(n_rows: int, n_workers: int, *, at_most: int, whole: int = 1) -> Iterator[slice]:
    """Cut rows into shards for workers: several each, so that none waits long for the last.

    One worker alone waits for nobody, and gets as few as may be.

    Parameters
    ----------
    n_rows, n_workers : int
    at_most : int
        The rows of a shard, up to whole blocks.
    whole : int, default=1
        A shard is a multiple of so many rows.

    Examples
    --------
    >>> [rows.stop for rows in row_shards(70, n_workers=2, at_most=100, whole=4)]
    [12, 24, 36, 48, 60, 70]
    """
    n_shards = 1 if n_workers == 1 else n_workers * _SHARDS_PER_WORKER
    n_wanted = min(at_most, -(-n_rows // n_shards))
    return row_blocks(0, n_rows, whole * max(1, -(-n_wanted // whole)))


def picked(items: Sequence[T], rows: slice | IntArray) -> tuple[T, ...]:
    """Return some items, by what :func:`row_numbers` returned.

    Examples
    --------
    >>> picked("abc", slice(1, 3)), picked("abc", np.array([2, 0]))
    (('b', 'c'), ('c', 'a'))
    """
    return tuple(items[rows] if isinstance(rows, slice) else (items[row] for row in rows))


def repeated_rows(items: Sequence[Hashable]) -> dict[int, int]:
    """Return the rows of items that are there before, each with the item's first row.

    Of millions of different items it needs their hashes only, eight bytes each.

    Examples
    --------
    >>> repeated_rows(["a", "b", "a", "c", "a"])
    {2: 0, 4: 0}
    """
    hashes = np.fromiter(map(hash, items), np.int64, len(items))
    in_order = np.sort(hashes)
    twice = in_order[1:][in_order[1:] == in_order[:-1]]
    if not len(twice):
        return {}
    firsts: dict[Hashable, int] = {}
    repeated: dict[int, int] = {}
    for row in np.flatnonzero(np.isin(hashes, twice)).tolist():  # equal, or of equal hash only
        first = firsts.setdefault(items[row], row)
        if first != row:
            repeated[row] = first
    return repeated


def distinct_rows(arrays: Sequence[FloatArray]) -> tuple[IntArray, IntArray]:
    """Return the first row of each different item, and the item of each row.

    An item is what all arrays say of a row, to the last bit.  Items are in the order of their
    bytes, whatever the order of the rows.

    Examples
    --------
    >>> firsts, items = distinct_rows([np.array([[2.0], [1.0], [2.0]])])
    >>> len(firsts), bool(items[0] == items[2])
    (2, True)
    """
    rows = np.ascontiguousarray(np.concatenate(arrays, axis=1))
    as_bytes = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))[:, 0]
    _, firsts, items = np.unique(as_bytes, return_index=True, return_inverse=True)
    return firsts, items
