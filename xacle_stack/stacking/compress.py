"""Principal components of each block of columns: a small table that keeps the distances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.stacking.columns import Columns, column_moments, row_blocks, sampled_rows
from xacle_stack.streamed_svd import streamed_svd

# Wider blocks get a randomised decomposition, which needs more passes but no square matrix.
_MAX_EXACT = 2048
# Relative differences of moments that are put down to the order of a sum.
_ROUNDING = 1e-6


class BlockPCA:
    """Standardises columns and keeps the leading principal axes of each block.

    A block with no more columns than components is standardised only.  Of blocks that hold the
    same values (auxiliary columns stand in every family) the first is kept.

    Parameters
    ----------
    blocks : mapping of str to slice
        Columns of each block.
    n_components : int
    random_state : int

    Attributes
    ----------
    blocks_ : dict of str to slice
        Columns of each block in the compressed table.
    axes_ : dict of str to ndarray of shape (n_columns, n_components)
    mean_, scale_ : ndarray of shape (n_features,)

    Examples
    --------
    >>> from xacle_stack.stacking.columns import ArrayColumns
    >>> table = ArrayColumns(np.random.default_rng(0).normal(size=(50, 6)))
    >>> pca = BlockPCA({"a": slice(0, 4), "b": slice(4, 6)}, 2, 0).fit(table, np.ones(50))
    >>> pca.transform(table).shape, pca.blocks_["b"]
    ((50, 4), slice(2, 4, None))
    """

    def __init__(self, blocks: Mapping[str, slice], n_components: int, random_state: int) -> None:
        self.blocks = dict(blocks)
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, columns: Columns, weights: FloatArray) -> BlockPCA:
        """Learn means, scales and axes from the rows of positive weight, weighted."""
        self.mean_, self.scale_ = column_moments(columns, weights)
        self._drop_copies(sampled_rows(columns))
        self.axes_: dict[str, FloatArray] = {}
        sizes = {name: block.stop - block.start for name, block in self.blocks.items()}
        exact = [n for n, size in sizes.items() if self.n_components < size <= _MAX_EXACT]
        gram = {name: np.zeros((sizes[name], sizes[name])) for name in exact}
        for Z in self._standardised(columns, weights) if exact else ():
            for name in exact:
                block = Z[:, self.blocks[name]]
                gram[name] += block.T @ block
        for name, size in sizes.items():
            if name in gram:
                axes = np.linalg.eigh(gram[name])[1][:, : -self.n_components - 1 : -1]
                largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
                self.axes_[name] = (axes * np.sign(largest)).astype(np.float32)
            elif size > self.n_components:
                _, components = streamed_svd(
                    partial(self._standardised, columns, weights, self.blocks[name]),
                    size,
                    self.n_components,
                    self.random_state,
                    n_iter=2,
                )
                self.axes_[name] = components.T.astype(np.float32)
        self.blocks_, start = {}, 0
        for name, size in sizes.items():
            stop = start + min(size, self.n_components)
            self.blocks_[name], start = slice(start, stop), stop
        self.n_features_out_ = start
        return self

    def transform(self, columns: Columns) -> FloatArray:
        """Return the compressed table, float32 of shape (n_pairs, n_features_out)."""
        compressed = np.empty((columns.shape[0], self.n_features_out_), dtype=np.float32)
        for rows in row_blocks(columns.shape[0]):
            compressed[rows] = self.transform_rows(columns.rows(rows))
        return compressed

    def transform_rows(self, table: FloatArray) -> FloatArray:
        """Return the compressed form of rows that are at hand with all columns."""
        compressed = np.empty((len(table), self.n_features_out_), dtype=np.float32)
        for name, block in self.blocks.items():
            if name in self.axes_:
                # (z − m) / s @ V in one product: this is bound by memory.
                dtype = np.result_type(table.dtype, np.float32)
                axes = self.axes_[name] / self.scale_[block, np.newaxis]
                shift = self.mean_[block] @ axes
                product = table[:, block].astype(dtype, copy=False) @ axes.astype(dtype)
                compressed[:, self.blocks_[name]] = product - shift.astype(dtype)
            else:
                compressed[:, self.blocks_[name]] = self._standardise(table, block)
        return compressed

    def _standardised(
        self, columns: Columns, weights: FloatArray, span: slice = slice(None)
    ) -> Iterator[FloatArray]:
        for rows in row_blocks(columns.shape[0]):
            Z = self._standardise(columns.rows(rows), span)
            Z *= np.sqrt(weights[rows]).astype(np.float32)[:, np.newaxis]
            yield Z

    def _standardise(self, table: FloatArray, span: slice) -> FloatArray:
        # In the table's own precision: wide tables are float32, and this is bound by memory.
        dtype = np.result_type(table.dtype, np.float32)
        Z: FloatArray = table[:, span] - self.mean_[span].astype(dtype)
        Z /= self.scale_[span].astype(dtype)
        return Z.astype(np.float32, copy=False)

    def _drop_copies(self, sample: FloatArray) -> None:
        kept: dict[bytes, list[slice]] = {}
        for name, block in list(self.blocks.items()):
            # Moments alone would not do: columns of ranks have all the same.
            alike = kept.setdefault(sample[:, block].tobytes(), [])
            is_copy = any(self._has_same_moments(block, other) for other in alike)
            if is_copy and block.stop - block.start > 1:
                del self.blocks[name]
            else:
                alike.append(block)

    def _has_same_moments(self, one: slice, other: slice) -> bool:
        """Compare but for rounding: the same values add up otherwise elsewhere in a table."""
        scales = self.scale_[one], self.scale_[other]
        unit = np.where(np.isfinite(scales[0]), scales[0], 0) + np.abs(self.mean_[one])
        is_near = np.abs(self.mean_[one] - self.mean_[other]) <= _ROUNDING * unit
        return bool(is_near.all()) and np.allclose(*scales, rtol=_ROUNDING, atol=0)
