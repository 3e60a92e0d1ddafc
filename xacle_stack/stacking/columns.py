"""What the stacker reads: named families of columns, built a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeGuard

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError

# Rows that are built and multiplied at a time: enough for fast products, little memory.
BLOCK_ROWS = 1024
# A plain array has no named blocks; with this many columns or fewer each stands for itself.
_MAX_OWN_BLOCKS = 32
# Rows by which blocks and tables are compared: so many runs of so many.
_N_RUNS, _RUN = 8, 16


class Columns(Protocol):
    """A table of features that need not exist as a whole.

    :class:`~xacle_stack.FeatureTable` is one.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_pairs, n_features)``."""

    @property
    def families(self) -> Mapping[str, slice]:
        """Columns of each family; together all columns."""

    @property
    def blocks(self) -> Mapping[str, slice]:
        """Columns of each block, finer than the families; together all columns."""

    def rows(self, rows: slice, family: str | None = None) -> FloatArray:
        """Return some rows of one family's columns, or of all."""


class ArrayColumns:
    """An array as one family.

    Parameters
    ----------
    values : ndarray of shape (n_pairs, n_features)

    Examples
    --------
    >>> ArrayColumns(np.zeros((5, 2))).blocks
    {'0': slice(0, 1, None), '1': slice(1, 2, None)}
    """

    def __init__(self, values: FloatArray) -> None:
        self._values = values
        n_features = values.shape[1]
        self.shape = values.shape
        self.families: Mapping[str, slice] = {"all": slice(0, n_features)}
        self.blocks = self.families
        if n_features <= _MAX_OWN_BLOCKS:
            self.blocks = {str(column): slice(column, column + 1) for column in range(n_features)}

    def rows(self, rows: slice, family: str | None = None) -> FloatArray:
        """Return some rows."""
        return self._values[rows]


def are_columns(X: object) -> TypeGuard[Columns]:
    """Tell a table of families from an array; a data frame may have a column of any name."""
    return callable(getattr(X, "rows", None)) and isinstance(getattr(X, "families", None), Mapping)


def check_same_columns(
    columns: Columns, families: Mapping[str, slice], blocks: Mapping[str, slice]
) -> None:
    """Check that a table has the families and blocks of the one that was fitted."""
    if dict(columns.families) != families:
        raise StackingError(
            f"features of the families {_sizes(columns.families)}, but the stacker was fitted on "
            f"{_sizes(families)}. Use the FeatureBuilder that made the training table."
        )
    if dict(columns.blocks) != blocks:
        raise StackingError(
            f"features of the blocks {list(columns.blocks)}, but the stacker was fitted on "
            f"{list(blocks)}. Use the FeatureBuilder that made the training table."
        )


def row_blocks(n_rows: int, height: int = BLOCK_ROWS) -> Iterator[slice]:
    """Cut the rows of a table into blocks.

    Examples
    --------
    >>> list(row_blocks(5, height=3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, n_rows, height):
        yield slice(start, min(start + height, n_rows))


def sampled_rows(columns: Columns) -> FloatArray:
    """Return runs of rows from the whole length of a table."""
    n_rows = columns.shape[0]
    starts = {int(start) for start in np.linspace(0, max(n_rows - _RUN, 0), _N_RUNS)}
    return np.concatenate(
        [columns.rows(slice(start, min(start + _RUN, n_rows))) for start in sorted(starts)]
    )


def column_moments(
    columns: Columns, weights: FloatArray, family: str | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the weighted means and standard deviations of columns, in one pass.

    Returns
    -------
    mean : ndarray of shape (n_features,)
    scale : ndarray of shape (n_features,)
        Infinite for a constant column, so that it becomes zero when divided by it.

    Raises
    ------
    StackingError
        If the table does not hold finite floating-point numbers.

    References
    ----------
    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".
    """
    span = slice(0, columns.shape[1]) if family is None else columns.families[family]
    mean = np.zeros(span.stop - span.start)
    squares, weight, precision = np.zeros_like(mean), 0.0, 0.0
    for rows in row_blocks(columns.shape[0]):
        w = weights[rows]
        total = float(w.sum())
        if total == 0:
            continue
        table = columns.rows(rows, family)
        if table.dtype.kind != "f":
            raise StackingError(f"features must be floating-point numbers, got {table.dtype}.")
        precision = float(np.finfo(table.dtype).eps)
        table = table.astype(np.float64, copy=False)
        of_block = w @ table / total
        if not np.isfinite(of_block).all():
            column = span.start + int(np.flatnonzero(~np.isfinite(of_block))[0])
            raise StackingError(
                f"column {column} of the features holds a value that is NaN, infinite or too large "
                f"in rows {rows.start} to {rows.stop - 1}."
            )
        step = (of_block - mean) * (total / (weight + total))
        squares += w @ np.square(table - of_block) + step * (of_block - mean) * weight
        mean, weight = mean + step, weight + total
    scale = np.sqrt(squares / weight)
    # The rounding of the values themselves is no variation.
    return mean, np.where(scale > 8 * precision * np.abs(mean), scale, np.inf)


def _sizes(families: Mapping[str, slice]) -> dict[str, int]:
    return {name: span.stop - span.start for name, span in families.items()}
