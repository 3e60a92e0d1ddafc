"""Makes columns from embeddings, block by block: the only place that reads the cache for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders import WORDS
from xacle_stack.errors import FeatureError
from xacle_stack.features.agreement import agreement_blocks, agreement_features
from xacle_stack.features.embeddings import EmbeddingSource
from xacle_stack.features.pair import lexical_overlap, pair_features

AGREEMENT = "agreement"
# The blocks of pair_features; all but the last have one column for each dimension.
PAIR_BLOCKS = ("audio", "text", "product", "difference", "square", "cosine")
# Rows that are in work at once.  No value depends on it but, in fit, the last digits of sums.
BLOCK_ROWS = 2048
# Rows whose pair features are made at once: what they need stays in the processor's cache.
_TILE_ROWS = 256
_TILE_COLUMNS = 1024


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of some pairs, made when they are asked for.

    Attributes
    ----------
    source : EmbeddingSource
    spaces : mapping of str to int
        Number of dimensions of each space.
    auxiliary : mapping of str to int
        Number of columns of each auxiliary.
    projections : mapping of str to ndarray of shape (n_pair_features, n_components)
        For each space.
    """

    source: EmbeddingSource
    spaces: Mapping[str, int]
    auxiliary: Mapping[str, int]
    projections: Mapping[str, FloatArray]

    def blocks(self) -> dict[str, slice]:
        """Return the columns of each block, ``"FAMILY/BLOCK"``, in their order."""
        n_components = next(iter(self.projections.values())).shape[1]
        sizes: dict[str, int] = {}
        for space, n_dims in self.spaces.items():
            for name in PAIR_BLOCKS:
                sizes[f"{space}/{name}"] = 1 if name == "cosine" else n_dims
            for name, size in self.auxiliary.items():
                sizes[f"{space}/{name}"] = size
        for name, size in agreement_blocks(len(self.spaces), n_components).items():
            sizes[f"{AGREEMENT}/{name}"] = size
        return _consecutive(sizes)

    def families(self) -> dict[str, slice]:
        """Return the columns of each family, in their order."""
        n_auxiliary = sum(self.auxiliary.values())
        n_components = next(iter(self.projections.values())).shape[1]
        sizes = {
            space: n_pair_features(n_dims) + n_auxiliary for space, n_dims in self.spaces.items()
        }
        sizes[AGREEMENT] = sum(agreement_blocks(len(self.spaces), n_components).values())
        return _consecutive(sizes)

    def build(self, rows: slice, family: str | None, out: FloatArray) -> None:
        """Write the columns of one family, or of all, for one block of rows.

        Each row depends on its own pair only, to the last bit: there is no product of matrices,
        whose sums may depend on how many rows there are.

        Parameters
        ----------
        rows : slice
            With a start, and without a step.
        family : str or None
        out : ndarray of shape (n_rows, n_columns)

        Raises
        ------
        FeatureError
            If an embedding is zero or not finite; the row is counted in the whole table.
        """
        part, n_rows = self.source.take(rows), len(out)
        wants_agreement = family in (None, AGREEMENT)
        places = self.families() if family is None else {family: slice(None)}
        auxiliary = (
            []
            if family == AGREEMENT
            else [auxiliary_block(part, name, rows.start) for name in self.auxiliary]
        )
        cosines, projections = [], []
        for space in self.spaces if wants_agreement else [str(family)]:
            audio, text = part.audio(space), part.text(space)
            n_features = n_pair_features(self.spaces[space])
            axes = self.projections[space].T
            projections.append(np.empty((n_rows, len(axes)), dtype=np.float32))
            cosines.append(np.empty(n_rows, dtype=np.float32))
            for start in range(0, n_rows, _TILE_ROWS):
                tile = slice(start, min(start + _TILE_ROWS, n_rows))
                if space in places:
                    features = out[tile, places[space]][:, :n_features]
                else:
                    features = np.empty((tile.stop - start, n_features), dtype=np.float32)
                with _naming(f"space {space!r}"):
                    pair_features(
                        audio[tile], text[tile], first_row=rows.start + start, out=features
                    )
                if wants_agreement:
                    cosines[-1][tile] = features[:, -1]  # φ ends with aᵀb
                    projections[-1][tile] = _project(features, axes)
            if space in places and auxiliary:
                np.concatenate(auxiliary, axis=1, out=out[:, places[space]][:, n_features:])
        if wants_agreement:
            out[:, places[AGREEMENT]] = agreement_features(np.column_stack(cosines), projections)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say in front of a message what it is about."""
    try:
        yield
    except FeatureError as error:
        raise FeatureError(f"{what}: {error}") from None


def _project(features: FloatArray, axes: FloatArray) -> FloatArray:
    """Return the products of rows with axes; each row's bits depend on that row only.

    One product of a matrix and a vector for each row, in pieces that no BLAS cuts up for threads.
    """
    axes = axes.astype(features.dtype, copy=False)
    projected: FloatArray = np.zeros((len(features), len(axes)), dtype=features.dtype)
    for start in range(0, features.shape[1], _TILE_COLUMNS):
        tile = slice(start, start + _TILE_COLUMNS)
        projected += (features[:, np.newaxis, tile] @ axes[:, tile].T)[:, 0]
    return projected


def row_blocks(start: int, stop: int) -> Iterator[slice]:
    """Cut rows into blocks of :data:`BLOCK_ROWS`.

    Examples
    --------
    >>> list(row_blocks(0, 3000))
    [slice(0, 2048, None), slice(2048, 3000, None)]
    """
    for first in range(start, stop, BLOCK_ROWS):
        yield slice(first, min(first + BLOCK_ROWS, stop))


def n_pair_features(n_dims: int) -> int:
    """Return the number of columns of :func:`pair_features`."""
    return 5 * n_dims + 1


def n_space_dims(X: EmbeddingSource, space: str) -> int:
    """Return a space's number of dimensions, once every pair is known to have its vectors."""
    audio, text = X.shape_of(space, "audio"), X.shape_of(space, "text")
    if audio != text or len(audio) != 2:
        raise FeatureError(
            f"space {space!r}: audio embeddings of shape {audio} but text embeddings of shape "
            f"{text}: both must have the same shape (n_pairs, n_dims), from one space."
        )
    return audio[1]


def n_auxiliary_columns(X: EmbeddingSource, name: str) -> int:
    """Return an auxiliary's number of columns, once every pair is known to have its vector."""
    encoder, output = _of_auxiliary(name)
    shape = X.shape_of(encoder, "audio", output)
    if len(shape) != 2:
        raise FeatureError(f"auxiliary {name!r}: expected shape (n_pairs, n_dims), got {shape}.")
    if output != WORDS:
        return shape[1]
    if X.shape_of(encoder, "text", WORDS) != shape:
        raise FeatureError(
            f"auxiliary {name!r}: audio words of shape {shape} but text words of shape "
            f"{X.shape_of(encoder, 'text', WORDS)}: both must come from one encoder."
        )
    return 2


def pair_block(X: EmbeddingSource, space: str, first_row: int) -> FloatArray:
    """Return the pair features of one space, for a block that begins with a certain row."""
    with _naming(f"space {space!r}"):
        return pair_features(X.audio(space), X.text(space), first_row=first_row)


def auxiliary_block(X: EmbeddingSource, name: str, first_row: int) -> FloatArray:
    """Return the columns of one auxiliary, for a block that begins with a certain row."""
    encoder, output = _of_auxiliary(name)
    if output == WORDS:
        with _naming(f"auxiliary {name!r}"):
            return lexical_overlap(
                X.audio(encoder, WORDS), X.text(encoder, WORDS), first_row=first_row
            )
    with np.errstate(over="ignore"):  # what float32 cannot hold is found below
        values = np.asarray(X.audio(encoder, output)).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise FeatureError(
            f"auxiliary {name!r}: row {first_row + bad[0]} and {len(bad) - 1} more not finite."
        )
    return values


def _of_auxiliary(name: str) -> tuple[str, str]:
    encoder, _, output = name.partition(":")
    return encoder, output or "embedding"


def _consecutive(sizes: Mapping[str, int]) -> dict[str, slice]:
    stops = np.cumsum([*sizes.values()]).tolist()
    return {
        name: slice(stop - size, stop)
        for (name, size), stop in zip(sizes.items(), stops, strict=True)
    }
