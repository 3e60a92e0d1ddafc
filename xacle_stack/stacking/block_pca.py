"""Principal components of each block of columns: a small table that keeps the distances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from xacle_stack._rows import row_blocks
from xacle_stack._state_checks import check_numbers, check_spans
from xacle_stack._types import FloatArray
from xacle_stack.errors import ModelFileError
from xacle_stack.stacking.moments import BLOCK_ROWS, column_moments, standardise
from xacle_stack.streamed_svd import streamed_svd
from xacle_stack.table import FeatureTable, consecutive

# Wider blocks get a randomised decomposition, which needs more passes but no square matrix.
_MAX_EXACT = 2048


class BlockPCA:
    """Standardises columns and keeps the leading principal axes of each block.

    A block with no more columns than components is standardised only.

    Parameters
    ----------
    blocks : mapping of str to slice
        The columns of each block, which together cover the table.
    n_components : int
    random_state : int
        Seeds the decomposition of wide blocks.

    Attributes
    ----------
    blocks_ : dict of str to slice
        The columns of each block in the compressed table.
    axes_ : dict of str to ndarray of shape (n_columns, n_components)
    mean_, scale_ : ndarray of shape (n_features,)

    Examples
    --------
    >>> values = np.random.default_rng(0).normal(size=(50, 6))
    >>> table = FeatureTable(values, {"a": slice(0, 4), "b": slice(4, 6)})
    >>> pca = BlockPCA(table.blocks, 2, 0).fit(table, np.ones(50))
    >>> pca.transform(table).shape, pca.blocks_["b"]
    ((50, 4), slice(2, 4, None))
    """

    def __init__(self, blocks: Mapping[str, slice], n_components: int, random_state: int) -> None:
        self.blocks = dict(blocks)
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, table: FeatureTable, weights: FloatArray) -> BlockPCA:
        """Learn means, scales and axes from the rows of positive weight, weighted."""
        self.mean_, self.scale_ = column_moments(table, weights)
        self.axes_: dict[str, FloatArray] = {}
        widths = {name: block.stop - block.start for name, block in self.blocks.items()}
        exact = [n for n, width in widths.items() if self.n_components < width <= _MAX_EXACT]
        gram = {name: np.zeros((widths[name], widths[name])) for name in exact}
        for Z in self._standardised_runs(table, weights) if exact else ():
            for name in exact:
                block = Z[:, self.blocks[name]]
                gram[name] += block.T @ block
        for name, width in widths.items():
            if name in gram:
                axes = np.linalg.eigh(gram[name])[1][:, : -self.n_components - 1 : -1]
                largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
                self.axes_[name] = (axes * np.sign(largest)).astype(np.float32)
            elif width > self.n_components:
                _, components = streamed_svd(
                    partial(self._standardised_runs, table, weights, self.blocks[name]),
                    width,
                    self.n_components,
                    self.random_state,
                    n_iter=2,
                )
                self.axes_[name] = components.T.astype(np.float32)
        self.blocks_ = consecutive({n: min(w, self.n_components) for n, w in widths.items()})
        self.n_features_out_ = sum(min(width, self.n_components) for width in widths.values())
        return self

    def transform(self, table: FeatureTable) -> FloatArray:
        """Return the compressed table, float32 of shape (n_pairs, n_features_out)."""
        compressed = np.empty((len(table), self.n_features_out_), dtype=np.float32)
        for rows in row_blocks(0, len(table), BLOCK_ROWS):
            compressed[rows] = self.transform_values(table.rows(rows))
        return compressed

    def transform_values(self, values: FloatArray) -> FloatArray:
        """Return the compressed form of an array with all columns."""
        compressed = np.empty((len(values), self.n_features_out_), dtype=np.float32)
        for name, block in self.blocks.items():
            if name in self.axes_:
                # (z − m) / s @ V in one product: this is bound by memory.
                dtype = np.result_type(values.dtype, np.float32)
                axes = self.axes_[name] / self.scale_[block, np.newaxis].astype(dtype)
                shift = self.mean_[block] @ axes
                product = values[:, block].astype(dtype, copy=False) @ axes
                compressed[:, self.blocks_[name]] = product - shift.astype(dtype)
            else:
                out = compressed[:, self.blocks_[name]]
                standardise(values[:, block], self.mean_[block], self.scale_[block], out)
        return compressed

    def check_state(self) -> None:
        """Check that axes and blocks from a file fit the columns, or raise a ModelFileError."""
        check_numbers("mean_", self.mean_, (None,))
        check_numbers("scale_", self.scale_, self.mean_.shape, minimum=0, finite=False)
        check_spans("blocks", self.blocks, len(self.mean_))
        widths = {name: block.stop - block.start for name, block in self.blocks.items()}
        if not isinstance(self.axes_, dict):
            raise ModelFileError(f"axes_ is a {type(self.axes_).__name__}, expected a dict.")
        for name, axes in self.axes_.items():
            if name not in widths:
                raise ModelFileError(f"axes_ has {name!r}, which is no block.")
            check_numbers(f"axes_[{name!r}]", axes, (widths[name], None))
            if axes.shape[1] > widths[name]:
                raise ModelFileError(f"axes_[{name!r}] has more components than columns.")
            widths[name] = axes.shape[1]
        check_spans("blocks_", self.blocks_, sum(widths.values()))
        compressed = {name: block.stop - block.start for name, block in self.blocks_.items()}
        if compressed != widths or self.n_features_out_ != sum(widths.values()):
            raise ModelFileError(
                f"blocks_ and n_features_out_ = {self.n_features_out_!r} are not as wide as axes_."
            )

    def _standardised_runs(
        self, table: FeatureTable, weights: FloatArray, span: slice = slice(None)
    ) -> Iterator[FloatArray]:
        mean, scale = self.mean_[span], self.scale_[span]
        roots = np.sqrt(weights).astype(np.float32)[:, np.newaxis]
        memory = np.empty((min(len(table), BLOCK_ROWS), len(mean)), dtype=np.float32)
        for rows in row_blocks(0, len(table), BLOCK_ROWS):
            Z = memory[: rows.stop - rows.start]
            standardise(table.rows(rows)[:, span], mean, scale, Z)
            Z *= roots[rows]
            yield Z
