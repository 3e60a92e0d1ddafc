"""The feature table: named blocks of columns that know their rows.

A block is a run of columns with a name, such as ``"mini-mel/audio"`` or ``"beats/logits"``.  A
family is a tuple of block names: what one learner sees.  A block may belong to several families,
and it stands in the table once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Protocol

import numpy as np

from xacle_stack._rows import picked, row_blocks, row_numbers
from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError, UnknownNameError, bullet_list


class BlockSource(Protocol):
    """Makes the values of named blocks when they are asked for, so that no array need hold them."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def __getitem__(self, rows: Any) -> BlockSource:
        """Return the source of some pairs: `rows` is a slice or an array of row numbers."""

    def build(self, rows: slice, blocks: Sequence[str], out: FloatArray) -> None:
        """Write the columns of some blocks, side by side in the order asked for.

        Every row must have the same bits in whichever run of rows it is made.

        Parameters
        ----------
        rows : slice
            With a start and a stop, without a step.
        blocks : sequence of str
        out : ndarray of shape (n_rows, n_columns)
            Written in place.
        """


class FeatureTable:
    """Features of pairs, in named blocks of columns.

    A table holds an array, or a source that makes the rows and blocks that it is asked for; what
    does not fit into memory is then read in runs of rows.  Indexed by rows, ``table[rows]``, it is
    a table of those pairs with the same blocks and families.  So scikit-learn's
    ``cross_val_score``, ``train_test_split`` and ``GridSearchCV`` take it, and judge what a
    :class:`~xacle_stack.Stacker` makes of the families.  Whatever would turn it into an array
    without names is refused: `values` is that array.

    Parameters
    ----------
    values : ndarray of shape (n_pairs, n_features), or BlockSource
        The features, or what makes them.
    blocks : mapping of str to slice
        The columns of each block; together they cover all columns, each once.
    pair_ids : sequence of str, optional
        By default the row numbers.
    families : mapping of str to sequence of str, optional
        The blocks of each family.  By default every block is a family of its own.

    Raises
    ------
    FeatureError
        If the values are no matrix with one row a pair, the blocks leave columns out or share some,
        or a family names a block that there is not.

    Attributes
    ----------
    blocks : dict of str to slice
        In the order of the columns.
    families : dict of str to tuple of str
    pair_ids : tuple of str

    Examples
    --------
    >>> blocks = {"mine/audio": slice(0, 2), "mine/text": slice(2, 4), "beats/logits": slice(4, 5)}
    >>> families = {"mine": ("mine/audio", "mine/text", "beats/logits"), "beats": ("beats/logits",)}
    >>> table = FeatureTable(np.arange(10.0).reshape(2, 5), blocks, ("a", "b"), families)
    >>> table
    FeatureTable(2 pairs, 5 features: mine 5, beats 1)
    >>> table.family("beats")
    array([[4.],
           [9.]])
    >>> table[[1]].pair_ids
    ('b',)
    """

    def __init__(
        self,
        values: FloatArray | BlockSource,
        blocks: Mapping[str, slice],
        pair_ids: Sequence[str] | None = None,
        families: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._is_lazy = callable(getattr(values, "build", None))
        if not self._is_lazy:
            values = np.asarray(values)
            if values.ndim != 2:
                raise FeatureError(
                    f"values: expected shape (n_pairs, n_features), got {values.shape}."
                )
        n_rows = len(values)
        if pair_ids is None:
            pair_ids = tuple(map(str, range(n_rows)))
        if n_rows != len(pair_ids):
            raise FeatureError(
                f"values: {n_rows} rows for {len(pair_ids)} pair_ids; expected one row a pair."
            )
        self.blocks = _in_order(blocks)
        n_features = next(reversed(self.blocks.values())).stop
        if not self._is_lazy and n_features != values.shape[1]:  # type: ignore[union-attr]
            raise FeatureError(
                f"blocks must cover each of the {values.shape[1]} columns once: "  # type: ignore[union-attr]
                f"together they have {n_features}."
            )
        self.families = _checked_families(families, self.blocks)
        self.pair_ids = tuple(pair_ids)
        self._values: Any = values

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_pairs, n_features)``."""
        return len(self.pair_ids), next(reversed(self.blocks.values())).stop

    @property
    def values(self) -> FloatArray:
        """The whole array, of shape (n_pairs, n_features); a lazy source makes it anew each time.

        It has no names: a stack fitted on it sees one family.
        """
        return self.rows(slice(None))

    def __len__(self) -> int:
        return len(self.pair_ids)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {self.width(*blocks)}" for name, blocks in self.families.items())
        return f"FeatureTable({len(self)} pairs, {self.shape[1]} features: {sizes})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        raise FeatureError(
            "a feature table is not turned into an array by itself: the names of its blocks and "
            "families would be lost, and another model fitted. Give the table to an estimator of "
            "xacle_stack, or write table.values where an array without names is wanted."
        )

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
        kept = row_numbers(
            rows,
            len(self),
            "a feature table",
            "For columns write table.block(name), table.family(name) or table.select(families).",
        )
        pair_ids = picked(self.pair_ids, kept)
        return FeatureTable(self._values[kept], self.blocks, pair_ids, self.families)

    def select(self, families: Sequence[str]) -> FeatureTable:
        """Return the table of some families, with the blocks that these have.

        Parameters
        ----------
        families : sequence of str

        Returns
        -------
        table : FeatureTable
            Its blocks keep their order.

        Raises
        ------
        UnknownNameError
            If there is no such family.

        Examples
        --------
        >>> table = FeatureTable(np.eye(3), {"a": slice(0, 1), "b": slice(1, 3)})
        >>> table.select(["b"])
        FeatureTable(3 pairs, 2 features: b 2)
        """
        for name in families:
            self._check_known("family", name, self.families)
        wanted = {block for name in families for block in self.families[name]}
        names = [name for name in self.blocks if name in wanted]
        values = self._values if self._is_lazy else self._columns(slice(None), names)
        return FeatureTable(
            values,
            consecutive({name: self.width(name) for name in names}),
            self.pair_ids,
            {name: self.families[name] for name in families},
        )

    def block(self, name: str) -> FloatArray:
        """Return the columns of one block, shape (n_pairs, n_columns)."""
        return self.rows(slice(None), (name,))

    def family(self, name: str) -> FloatArray:
        """Return the columns of one family's blocks, side by side, shape (n_pairs, n_columns)."""
        self._check_known("family", name, self.families)
        return self.rows(slice(None), self.families[name])

    def width(self, *blocks: str) -> int:
        """Return how many columns some blocks have together."""
        return sum(self.blocks[name].stop - self.blocks[name].start for name in blocks)

    def rows(self, rows: slice, blocks: Sequence[str] | None = None) -> FloatArray:
        """Return neighbouring rows of some blocks, or of all.

        Parameters
        ----------
        rows : slice
            Without a step.
        blocks : sequence of str, optional
            Their columns stand side by side in the order asked for; by default all columns.

        Returns
        -------
        values : ndarray of shape (n_rows, n_columns)
            float32 of a lazy source; of an array its own type, and a view where that is possible.

        Raises
        ------
        UnknownNameError
            If there is no such block.
        FeatureError
            If an embedding of these rows is zero or not finite.
        CacheError
            If one cannot be read.
        """
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise FeatureError(f"expected neighbouring rows, a slice without a step, got {rows}.")
        names = list(self.blocks) if blocks is None else list(blocks)
        for name in names:
            self._check_known("block", name, self.blocks)
        if not self._is_lazy:
            return self._columns(slice(start, stop), names)
        values = np.empty((max(0, stop - start), self.width(*names)), dtype=np.float32)
        for run in row_blocks(start, stop):
            self._values.build(run, names, values[run.start - start : run.stop - start])
        return values

    def get_feature_names_out(self) -> FloatArray:
        """Return a name for each column, ``"BLOCK[i]"``, in their order."""
        names = [f"{name}[{i}]" for name in self.blocks for i in range(self.width(name))]
        return np.array(names, dtype=object)

    def _columns(self, rows: slice, names: Sequence[str]) -> FloatArray:
        spans = _merged(self.blocks[name] for name in names)
        values: FloatArray = self._values
        if len(spans) == 1:
            return values[rows, spans[0]]
        return np.concatenate([values[rows, span] for span in spans], axis=1)

    @staticmethod
    def _check_known(what: str, name: str, known: Mapping[str, object]) -> None:
        if name not in known:
            raise UnknownNameError(f"no {what} {name!r}; there are: {', '.join(known)}.")


def consecutive(widths: Mapping[str, int]) -> dict[str, slice]:
    """Return the columns of blocks that follow one another.

    Examples
    --------
    >>> consecutive({"a": 2, "b": 3})
    {'a': slice(0, 2, None), 'b': slice(2, 5, None)}
    """
    stops = np.cumsum([*widths.values()]).tolist()
    return {
        name: slice(stop - width, stop)
        for (name, width), stop in zip(widths.items(), stops, strict=True)
    }


def _in_order(blocks: Mapping[str, slice]) -> dict[str, slice]:
    """Return blocks in the order of their columns, which they must cover without a gap."""
    if not blocks:
        raise FeatureError("blocks: there are none; expected a name for each run of columns.")
    ordered = dict(sorted(blocks.items(), key=lambda item: _ends(*item)))
    stop = 0
    for name, block in ordered.items():
        if block.start != stop:
            raise FeatureError(
                f"blocks must cover each column once: {name!r} begins at column {block.start}, "
                f"where {stop} would follow."
            )
        stop = block.stop
    return ordered


def _ends(name: str, block: object) -> tuple[int, int]:
    if isinstance(block, slice) and block.step in (None, 1):
        start, stop = block.start, block.stop
        if isinstance(start, Integral) and isinstance(stop, Integral):
            ends = int(start), int(stop)
            if 0 <= ends[0] <= ends[1]:
                return ends
    raise FeatureError(
        "blocks: expected a slice with a start and a stop, such as slice(0, 3), for "
        f"{name!r}, got {block!r}."
    )


def _checked_families(
    families: Mapping[str, Sequence[str]] | None, blocks: Mapping[str, slice]
) -> dict[str, tuple[str, ...]]:
    if families is None:
        return {name: (name,) for name in blocks}
    mistakes = []
    for family, names in families.items():
        if isinstance(names, str | slice) or not names:
            mistakes.append(f"{family!r}: expected a list of block names, got {names!r}")
            continue
        unknown = [name for name in names if name not in blocks]
        if unknown:
            mistakes.append(f"{family!r}: there are no blocks {unknown}, only {list(blocks)}")
        if len(set(names)) < len(names):
            mistakes.append(f"{family!r}: a block is named twice in {list(names)}")
    if not mistakes:
        in_families = {name for names in families.values() for name in names}
        left_out = [name for name in blocks if name not in in_families]
        mistakes += [f"blocks that are in no family: {left_out}"] if left_out else []
    if mistakes:
        raise FeatureError(f"families:\n{bullet_list(mistakes)}")
    return {family: tuple(names) for family, names in families.items()}


def _merged(spans: Any) -> list[slice]:
    """Join runs of columns that follow one another."""
    merged: list[slice] = []
    for span in spans:
        if merged and merged[-1].stop == span.start:
            merged[-1] = slice(merged[-1].start, span.stop)
        else:
            merged.append(span)
    return merged
