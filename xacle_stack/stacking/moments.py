"""Weighted means and standard deviations of a table's columns, in one pass over its rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError
from xacle_stack.table import FeatureTable

# Rows that are read and multiplied at a time: enough for fast products, little memory.
BLOCK_ROWS = 1024


def column_moments(
    table: FeatureTable, weights: FloatArray, blocks: Sequence[str] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the weighted means and standard deviations of the columns of all blocks, or of some.

    The deviation of a constant column is infinite, so that dividing by it gives zeros.  A
    StackingError says that the table does not hold finite floating-point numbers.

    References
    ----------
    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".
    """
    mean = np.zeros(table.width(*(table.blocks if blocks is None else blocks)))
    squares, weight, precision = np.zeros_like(mean), 0.0, 0.0
    for rows in row_blocks(0, len(table), BLOCK_ROWS):
        w = weights[rows]
        total = float(w.sum())
        if total == 0:
            continue
        values = table.rows(rows, blocks)
        if values.dtype.kind != "f":
            raise StackingError(f"features must be floating-point numbers, got {values.dtype}.")
        precision = float(np.finfo(values.dtype).eps)
        values = values.astype(np.float64, copy=False)
        block_mean = w @ values / total
        if not np.isfinite(block_mean).all():
            column = int(np.flatnonzero(~np.isfinite(block_mean))[0])
            raise StackingError(
                f"column {_column_name(table, column, blocks)} of the features holds a value that "
                f"is NaN, infinite or too large in rows {rows.start} to {rows.stop - 1}."
            )
        step = (block_mean - mean) * (total / (weight + total))
        squares += w @ np.square(values - block_mean) + step * (block_mean - mean) * weight
        mean, weight = mean + step, weight + total
    scale = np.sqrt(squares / weight)
    # A constant column varies by the rounding of its values only.
    return mean, np.where(scale > 8 * precision * np.abs(mean), scale, np.inf)


def _column_name(table: FeatureTable, column: int, blocks: Sequence[str] | None) -> str:
    """Return the number of a column in the whole table, and its block where that has a name."""
    for name in table.blocks if blocks is None else blocks:
        width = table.width(name)
        if column < width:
            return f"{table.blocks[name].start + column} (block {name!r})"
        column -= width
    raise IndexError(column)
