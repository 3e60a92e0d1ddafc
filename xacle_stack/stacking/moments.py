"""Weighted means and standard deviations of a table's columns, and standardising by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError
from xacle_stack.table import FeatureTable

# Rows that are read and multiplied at a time: enough for fast products, little memory.
BLOCK_ROWS = 1024
# Columns that are converted to float64 at a time: they stay in the processor's cache.
_TILE = 128


class ColumnMoments:
    """The weighted means and sums of squared deviations of columns, from blocks of rows.

    References
    ----------
    Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".

    Examples
    --------
    >>> moments = ColumnMoments(1)
    >>> moments.add(np.array([[1.0], [3.0]]), np.ones(2))
    >>> moments.mean, moments.deviation, moments.weight
    (array([2.]), array([1.]), 2.0)
    """

    def __init__(self, n_columns: int) -> None:
        self.weight = 0.0
        self.mean: FloatArray = np.zeros(n_columns)
        self.squares: FloatArray = np.zeros(n_columns)

    @property
    def deviation(self) -> FloatArray:
        """Standard deviations of shape (n_columns,)."""
        deviation: FloatArray = np.sqrt(self.squares / self.weight)
        return deviation

    def add(self, values: FloatArray, weights: FloatArray) -> None:
        """Add rows, values of shape (n_rows, n_columns); `check_finite` finds what is no number."""
        total = float(weights.sum())
        if total == 0:
            return
        rows = ColumnMoments(len(self.mean))
        rows.weight = total
        with np.errstate(invalid="ignore", over="ignore"):
            for tile in row_blocks(0, len(self.mean), _TILE):
                exact = values[:, tile].astype(np.float64)
                rows.mean[tile] = weights @ exact / total
                exact -= rows.mean[tile]
                rows.squares[tile] = weights @ np.square(exact, out=exact)
            self.merge(rows)

    def merge(self, other: ColumnMoments) -> None:
        """Add the rows of other moments."""
        if other.weight == 0:
            return
        share = other.weight / (self.weight + other.weight)
        step = other.mean - self.mean
        self.squares += other.squares + np.square(step) * (self.weight * share)
        self.mean += step * share
        self.weight += other.weight


def scale_of_columns(moments: ColumnMoments, precision: float) -> FloatArray:
    """Return the standard deviations, infinite for constant columns: dividing gives zeros.

    A constant column varies by the rounding of its values only; `precision` is their type's.
    """
    deviation = moments.deviation
    return np.where(deviation > 8 * precision * np.abs(moments.mean), deviation, np.inf)


def column_moments(
    table: FeatureTable, weights: FloatArray, blocks: Sequence[str] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the weighted means and standard deviations of the columns of all blocks, or of some.

    The deviation of a constant column is infinite, so that dividing by it gives zeros.  A
    StackingError says that the table does not hold finite floating-point numbers.
    """
    moments = ColumnMoments(table.width(*(table.blocks if blocks is None else blocks)))
    precision = 0.0
    for rows in row_blocks(0, len(table), BLOCK_ROWS):
        values = table.rows(rows, blocks)
        precision = check_floats(values)
        moments.add(values, weights[rows])
        check_finite(moments, table, blocks, rows)
    return moments.mean, scale_of_columns(moments, precision)


def standardise(values: FloatArray, mean: FloatArray, scale: FloatArray, out: FloatArray) -> None:
    """Write ``(x − m) / s`` to an array, in the precision that it has.

    No digit of a large mean is lost: the difference is taken in the more precise of the two types,
    and what that cannot hold of the mean is subtracted after it.

    Examples
    --------
    >>> out = np.empty((1, 2), dtype=np.float32)
    >>> standardise(np.array([[1e9 + 1, 5.0]]), np.array([1e9, 3.0]), np.array([2.0, np.inf]), out)
    >>> out
    array([[0.5, 0. ]], dtype=float32)
    """
    work = np.result_type(values.dtype, out.dtype)
    rounded = mean.astype(work)
    rest = (mean - rounded).astype(work)
    Z = np.subtract(values, rounded, out=out if out.dtype == work else None)
    if rest.any():
        Z -= rest
    np.multiply(Z, (1 / scale).astype(work), out=out, casting="same_kind")


def check_floats(values: FloatArray) -> float:
    """Return the precision of the values' type, or raise a StackingError if it is not floating."""
    if values.dtype.kind != "f":
        raise StackingError(f"features must be floating-point numbers, got {values.dtype}.")
    return float(np.finfo(values.dtype).eps)


def check_finite(
    moments: ColumnMoments, table: FeatureTable, blocks: Sequence[str] | None, rows: slice
) -> None:
    """Check the means after `rows` were added; a StackingError names a column that is not finite.

    Rows of weight 0 are not looked at.
    """
    bad = np.flatnonzero(~np.isfinite(moments.mean))
    if len(bad):
        raise StackingError(
            f"column {_column_name(table, int(bad[0]), blocks)} of the features holds a value that "
            f"is NaN, infinite or too large in rows {rows.start} to {rows.stop - 1}."
        )


def _column_name(table: FeatureTable, column: int, blocks: Sequence[str] | None) -> str:
    """Return the number of a column in the whole table, and its block where that has a name."""
    for name in table.blocks if blocks is None else blocks:
        width = table.width(name)
        if column < width:
            return f"{table.blocks[name].start + column} (block {name!r})"
        column -= width
    raise IndexError(column)
