"""Brings what the stacker is fitted on to one form: a plain array becomes a feature table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import validate_data

from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError
from xacle_stack.table import FeatureTable

# A plain array has no named blocks; with this many columns or fewer, each is a block of its own.
_MAX_SINGLE_COLUMNS = 32


def table_from_array(values: FloatArray) -> FeatureTable:
    """Return a plain array as a table with one family, ``"all"``.

    Examples
    --------
    >>> table_from_array(np.zeros((5, 2))).blocks
    {'0': slice(0, 1, None), '1': slice(1, 2, None)}
    """
    n_features = values.shape[1]
    if n_features > _MAX_SINGLE_COLUMNS:
        return FeatureTable(values, {"all": slice(0, n_features)})
    blocks = {str(column): slice(column, column + 1) for column in range(n_features)}
    return FeatureTable(values, blocks, families={"all": tuple(blocks)})


def check_targets(estimator: Any, X: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return X and one or several targets of an estimator, checked as scikit-learn does."""
    floats = [np.float64, np.float32]
    checked: tuple[FloatArray, FloatArray] = validate_data(
        estimator, X, y, multi_output=True, y_numeric=True, ensure_min_samples=2, dtype=floats
    )
    return checked


def check_same_columns(
    table: FeatureTable, families: Mapping[str, Sequence[str]], blocks: Mapping[str, slice]
) -> None:
    """Check that a table has the families and blocks of the table that was fitted."""
    if table.blocks != blocks:
        raise StackingError(
            f"features of the blocks {_widths(table.blocks)}, but the stacker was fitted on "
            f"{_widths(blocks)}. Use the FeatureBuilder that made the training table."
        )
    if table.families != families:
        raise StackingError(
            f"features of the families {table.families}, but the stacker was fitted on "
            f"{dict(families)}. Use the FeatureBuilder that made the training table."
        )


def _widths(blocks: Mapping[str, slice]) -> dict[str, int]:
    return {name: block.stop - block.start for name, block in blocks.items()}
