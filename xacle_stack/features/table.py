"""The feature table: named blocks of columns that are made when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError, UnknownNameError
from xacle_stack.features.columns import Columns, row_blocks
from xacle_stack.features.spans import check_cover, check_within


class FeatureTable:
    """Features of pairs, in named blocks of columns.

    The table that a :class:`FeatureBuilder` returns holds no values.  It makes the rows and
    columns that it is asked for from the embeddings, which stay where they are; so what does not
    fit into memory can be gone over in blocks of rows.  Every row has the same bits in whichever
    block it is made.  NumPy takes the table as the whole array, `values`.

    Indexed by rows, ``table[rows]``, it is a table of these pairs with the same families and
    blocks, and it holds no values either.  So scikit-learn's ``cross_val_score``,
    ``train_test_split`` and ``GridSearchCV`` take it, and judge what a
    :class:`~xacle_stack.Stacker` makes of the families.

    Parameters
    ----------
    values : ndarray of shape (n_pairs, n_features), or Columns
        The features, or what makes them.
    families : mapping of str to slice
        Columns of each family; together they cover all columns, each once.
    pair_ids : tuple of str
    blocks : mapping of str to slice, optional
        Columns of each block, ``"FAMILY/BLOCK"``, which lies within one family; together they cover
        all columns, each once.  By default every family is one block, ``"FAMILY/all"``.

    Raises
    ------
    FeatureError
        If the values are no matrix with one row a pair, or the families or blocks leave columns
        out or share some.

    Attributes
    ----------
    families : mapping of str to slice
    blocks : mapping of str to slice
        Finer than families, in the order of the columns: in a contrastive space's family the
        blocks of the pair features (audio, text, product, difference, square, cosine), then
        every auxiliary by its name; in the family ``"agreement"`` cosines, cosine differences,
        projections, products and differences.
    pair_ids : tuple of str
    """

    def __init__(
        self,
        values: FloatArray | Columns,
        families: Mapping[str, slice],
        pair_ids: tuple[str, ...],
        blocks: Mapping[str, slice] | None = None,
    ) -> None:
        if isinstance(values, Columns):
            n_rows, n_features = len(values.source.pair_ids), _end(values.families())
        else:
            values = np.asarray(values)
            if values.ndim != 2:
                raise FeatureError(
                    f"values: expected shape (n_pairs, n_features), got {values.shape}."
                )
            n_rows, n_features = values.shape
        if n_rows != len(pair_ids):
            raise FeatureError(
                f"values: {n_rows} rows for {len(pair_ids)} pair_ids; expected one row a pair."
            )
        check_cover("families", families, n_features)
        if blocks is None:
            in_order = sorted(families.items(), key=lambda family: int(family[1].start))
            blocks = {f"{name}/all": columns for name, columns in in_order}
        check_cover("blocks", blocks, n_features)
        check_within(blocks, families)
        self._values = values
        self.families = families
        self.blocks = blocks
        self.pair_ids = pair_ids

    @property
    def values(self) -> FloatArray:
        """The whole array, float32 of shape (n_pairs, n_features), made anew at each call."""
        return self.rows(slice(None))

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_pairs, n_features)``."""
        return len(self.pair_ids), _end(self.families)

    def __len__(self) -> int:
        return len(self.pair_ids)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        held = None if isinstance(self._values, Columns) else self._values
        is_same = held is not None and (dtype is None or np.dtype(dtype) == held.dtype)
        if copy is False and not is_same:
            raise FeatureError(
                "this table is no array without a copy: its values are made when they are asked "
                "for, or are of another type. Leave copy=False out."
            )
        values = self.values
        return np.asarray(values, dtype) if held is None or not copy else np.array(values, dtype)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {s.stop - s.start}" for name, s in self.families.items())
        return f"FeatureTable({len(self)} pairs, {self.shape[1]} features: {sizes})"

    def __getitem__(self, rows: Any) -> FeatureTable:
        """Return the table of some pairs.

        Parameters
        ----------
        rows : slice, or array-like of int or bool
            As NumPy indexes the first axis, in the order asked for.

        Returns
        -------
        table : FeatureTable

        Raises
        ------
        FeatureError
            If this is one row, or columns.
        IndexError
            If there is no such row, or a mask has another length than the table.

        Examples
        --------
        >>> table = FeatureTable(np.eye(3), {"all": slice(0, 3)}, ("a", "b", "c"))
        >>> table[[2, 0]].pair_ids
        ('c', 'a')
        """
        if isinstance(rows, tuple) and len(rows) == 2 and rows[1] is Ellipsis:
            rows = rows[0]  # what scikit-learn asks for
        numbers = None
        if isinstance(rows, slice):
            numbers = np.arange(len(self))[rows]
        elif not isinstance(rows, tuple) and np.ndim(rows) == 1:
            numbers = np.arange(len(self))[np.asarray(rows, None if len(rows) else np.intp)]
        if numbers is None:
            raise FeatureError(
                "a feature table is indexed by its rows: table[10:20], table[[3, 1]] or a mask, "
                f"got {rows!r}. For one row write table[3:4]; for the columns of a family "
                "table.family(name), and for others table.values[:, columns]."
            )
        is_run = isinstance(rows, slice) and rows.step in (None, 1)
        kept = rows if is_run else numbers  # of a run, nothing is copied
        values = self._values
        if isinstance(values, Columns):
            values = replace(values, source=values.source.take(kept))
        else:
            values = values[kept]
        pair_ids = tuple(self.pair_ids[row] for row in numbers)
        return FeatureTable(values, self.families, pair_ids, self.blocks)

    def family(self, name: str) -> FloatArray:
        """Return the columns of one family, shape (n_pairs, n_family_features)."""
        return self.rows(slice(None), name)

    def rows(self, rows: slice, family: str | None = None) -> FloatArray:
        """Return neighbouring rows, of one family or of all.

        Parameters
        ----------
        rows : slice
            Without a step.
        family : str, optional
            By default all columns.

        Returns
        -------
        values : ndarray of shape (n_rows, n_columns)
            float32.

        Raises
        ------
        UnknownNameError
            If there is no such family.
        FeatureError
            If an embedding of these rows is zero or not finite.
        CacheError
            If one cannot be read.
        """
        if family is not None and family not in self.families:
            raise UnknownNameError(f"no family {family!r}; there are: {', '.join(self.families)}.")
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise FeatureError(f"expected neighbouring rows, a slice without a step, got {rows}.")
        columns = slice(0, self.shape[1]) if family is None else self.families[family]
        if not isinstance(self._values, Columns):
            return self._values[start:stop, columns]
        values = np.empty((max(0, stop - start), columns.stop - columns.start), dtype=np.float32)
        for block in row_blocks(start, stop):
            out = values[block.start - start : block.stop - start]
            self._values.build(block, family, out)
        return values


def _end(spans: Mapping[str, slice]) -> int:
    return max(int(columns.stop) for columns in spans.values())
