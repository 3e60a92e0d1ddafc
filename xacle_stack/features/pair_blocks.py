"""Makes the blocks of a feature table from embeddings: the only place that reads them for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray
from xacle_stack.encoders import WORDS
from xacle_stack.errors import FeatureError
from xacle_stack.features.agreement import agreement_blocks, agreement_features
from xacle_stack.features.embeddings import EmbeddingSource
from xacle_stack.features.pair import (
    lexical_overlap,
    normalised_pairs,
    pair_features,
    proximities,
)
from xacle_stack.features.whitening import whitened_features, whitened_widths
from xacle_stack.table import consecutive

AGREEMENT = "agreement"
# The family of all auxiliaries, where there is no space whose family could share them.
AUXILIARY = "auxiliary"
# The parts of pair_features in their order; all but the last have one column for each dimension.
PAIR_FEATURES = ("audio", "text", "product", "difference", "square", "cosine")
# The block of a space's four proximities, for builders that make it.
PROXIMITIES = "proximities"
# The blocks of a space's whitened features, likewise.
WHITENED = tuple(whitened_widths(1))
# Rows whose pair features are made at once: what they need stays in the processor's cache.
_TILE_ROWS = 256
_TILE_COLUMNS = 1024


class Auxiliary(NamedTuple):
    """One output of an encoder, ``"encoder:output"``, of the clips or of the captions."""

    name: str
    modality: str

    @property
    def block(self) -> str:
        """What its block is called."""
        return auxiliary_block_name(self.name)


@dataclass(frozen=True, eq=False)
class PairBlocks:
    """The blocks of some pairs, made when they are asked for.

    It is a :class:`~xacle_stack.table.BlockSource`.

    Attributes
    ----------
    source : EmbeddingSource
    spaces : mapping of str to int
        The number of dimensions of each space.
    auxiliary : mapping of Auxiliary to int
        The number of columns of each auxiliary.
    projections : mapping of str to ndarray of shape (n_pair_features, n_components)
        One for each space.
    proximities : bool
        Whether each space has a block of its :func:`~xacle_stack.features.proximities`.
    agreement : bool
        Whether there are agreement features.
    whitening : mapping of str to (ndarray, ndarray)
        For spaces that have whitened features, the means and the axes of
        :func:`~xacle_stack.features.whitening.whitening`.
    """

    source: EmbeddingSource
    spaces: Mapping[str, int]
    auxiliary: Mapping[Auxiliary, int]
    projections: Mapping[str, FloatArray]
    proximities: bool = False
    agreement: bool = True
    whitening: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source.pair_ids)

    def __getitem__(self, rows: Any) -> PairBlocks:
        return replace(self, source=self.source.take(rows))

    @cached_property
    def widths(self) -> Mapping[str, int]:
        """The number of columns of each block, in the order of the table."""
        widths: dict[str, int] = {}
        for space, parts in self._parts.items():
            widths.update({f"{space}/{part}": width for part, width in parts.items()})
        for auxiliary, width in self.auxiliary.items():
            widths[auxiliary.block] = width
        return {**widths, **self._agreement_widths}

    @cached_property
    def families(self) -> Mapping[str, tuple[str, ...]]:
        """The blocks of each family: every space's own with all auxiliaries, and agreement.

        Without a space, the auxiliaries are one family.
        """
        shared = tuple(auxiliary.block for auxiliary in self.auxiliary)
        if not self.spaces:
            return {AUXILIARY: shared}
        families = {
            space: (*(f"{space}/{part}" for part in parts), *shared)
            for space, parts in self._parts.items()
        }
        if self.agreement:
            families[AGREEMENT] = tuple(self._agreement_widths)
        return families

    @cached_property
    def _parts(self) -> Mapping[str, Mapping[str, int]]:
        """The blocks of each space, without its name, and their numbers of columns."""
        parts = {}
        for space, n_dims in self.spaces.items():
            parts[space] = {part: 1 if part == "cosine" else n_dims for part in PAIR_FEATURES}
            if self.proximities:
                parts[space][PROXIMITIES] = 4
            if space in self.whitening:
                parts[space] |= whitened_widths(self.whitening[space][1].shape[1])
        return parts

    def build(self, rows: slice, blocks: Sequence[str], out: FloatArray) -> None:
        """Write the columns of some blocks, for one run of rows.

        Each row depends on its own pair only, to the last bit: there is no product of matrices,
        whose sums may depend on how many rows there are.

        Parameters
        ----------
        rows : slice
            With a start, and without a step.
        blocks : sequence of str
        out : ndarray of shape (n_rows, n_columns)

        Raises
        ------
        FeatureError
            If an embedding is zero or not finite; the row is counted in the whole table.
        """
        part = self.source.take(rows)
        columns = consecutive({name: self.widths[name] for name in blocks})
        wants_agreement = any(name in columns for name in self._agreement_widths)
        cosines, projections = [], []
        for space in self.spaces:
            if not (wants_agreement or any(f"{space}/{p}" in columns for p in self._parts[space])):
                continue
            vectors = part.audio(space), part.text(space)  # once: they may come from the disk
            if (name := f"{space}/{PROXIMITIES}") in columns:
                with _naming(f"space {space!r}"):
                    out[:, columns[name]] = proximities(*vectors, first_row=rows.start)
            self._write_whitened(vectors, space, rows.start, columns, out)
            if wants_agreement:
                axes = self.projections[space].T
                cosines.append(np.empty(len(out), dtype=np.float32))
                projections.append(np.empty((len(out), len(axes)), dtype=np.float32))
            elif not any(f"{space}/{name}" in columns for name in PAIR_FEATURES):
                continue
            for tile, features in self._pair_features(vectors, space, rows.start, columns, out):
                if wants_agreement:
                    cosines[-1][tile] = features[:, -1]  # φ ends with aᵀb
                    projections[-1][tile] = project(features, axes)
        for auxiliary in self.auxiliary:
            if auxiliary.block in columns:
                out[:, columns[auxiliary.block]] = auxiliary_block(part, auxiliary, rows.start)
        if wants_agreement:
            features = agreement_features(np.column_stack(cosines), projections)
            for name, span in consecutive(self._agreement_widths).items():
                if name in columns:
                    out[:, columns[name]] = features[:, span]

    def _write_whitened(
        self,
        vectors: tuple[FloatArray, FloatArray],
        space: str,
        first_row: int,
        columns: Mapping[str, slice],
        out: FloatArray,
    ) -> None:
        """Write the whitened features of a space that are asked for."""
        spans = consecutive({name: self._parts[space].get(name, 0) for name in WHITENED})
        wanted = {name: columns.get(f"{space}/{name}") for name in WHITENED}
        if not any(wanted.values()):
            return
        means, axes = self.whitening[space]
        with _naming(f"space {space!r}"):
            sides = normalised_pairs(*vectors, first_row=first_row)
        a, b = (
            project(side - mean.astype(side.dtype), axes.T)
            for side, mean in zip(sides, means, strict=True)
        )
        features = whitened_features(a, b)
        for name, target in wanted.items():
            if target is not None:
                out[:, target] = features[:, spans[name]]

    @cached_property
    def _agreement_widths(self) -> dict[str, int]:
        if not (self.spaces and self.agreement):
            return {}
        n_components = next(iter(self.projections.values())).shape[1]
        widths = agreement_blocks(len(self.spaces), n_components)
        return {f"{AGREEMENT}/{name}": width for name, width in widths.items()}

    def _pair_features(
        self,
        vectors: tuple[FloatArray, FloatArray],
        space: str,
        first_row: int,
        columns: Mapping[str, slice],
        out: FloatArray,
    ) -> Iterator[tuple[slice, FloatArray]]:
        """Yield a space's pair features tile by tile, once what is asked for stands in `out`."""
        audio, text = vectors
        n_dims = self.spaces[space]
        spans = consecutive({p: 1 if p == "cosine" else n_dims for p in PAIR_FEATURES})
        wanted = [(columns.get(f"{space}/{name}"), span) for name, span in spans.items()]
        # Where all parts stand side by side, they are written to their place at once.
        start = wanted[0][0].start if wanted[0][0] is not None else 0
        is_whole = all(
            target == slice(start + span.start, start + span.stop) for target, span in wanted
        )
        whole = slice(start, start + n_pair_features(n_dims))
        for first in range(0, len(out), _TILE_ROWS):
            tile = slice(first, min(first + _TILE_ROWS, len(out)))
            if is_whole:
                features = out[tile, whole]
            else:
                features = np.empty((tile.stop - first, whole.stop - start), dtype=np.float32)
            with _naming(f"space {space!r}"):
                pair_features(audio[tile], text[tile], first_row=first_row + first, out=features)
            for target, span in [] if is_whole else wanted:
                if target is not None:
                    out[tile, target] = features[:, span]
            yield tile, features


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say in front of a message what it is about."""
    try:
        yield
    except FeatureError as error:
        raise FeatureError(f"{what}: {error}") from None


def project(features: FloatArray, axes: FloatArray) -> FloatArray:
    """Return the products of rows with axes; each row's bits depend on that row only.

    There is one product of a matrix and a vector for each row, in pieces that no BLAS cuts up for
    threads.
    """
    axes = axes.astype(features.dtype, copy=False)
    projected: FloatArray = np.zeros((len(features), len(axes)), dtype=features.dtype)
    for start in range(0, features.shape[1], _TILE_COLUMNS):
        tile = slice(start, start + _TILE_COLUMNS)
        projected += (features[:, np.newaxis, tile] @ axes[:, tile].T)[:, 0]
    return projected


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


def n_auxiliary_columns(X: EmbeddingSource, auxiliary: Auxiliary) -> int:
    """Return an auxiliary's number of columns, once every pair is known to have its vector."""
    name, modality = auxiliary
    encoder, output = _encoder_and_output(name)
    shape = X.shape_of(encoder, modality, output)
    if len(shape) != 2:
        raise FeatureError(f"auxiliary {name!r}: expected shape (n_pairs, n_dims), got {shape}.")
    if output != WORDS or modality != "audio":
        return shape[1]
    if X.shape_of(encoder, "text", WORDS) != shape:
        raise FeatureError(
            f"auxiliary {name!r}: audio words of shape {shape} but text words of shape "
            f"{X.shape_of(encoder, 'text', WORDS)}: both must come from one encoder."
        )
    return 2


def space_features(X: EmbeddingSource, space: str, first_row: int) -> FloatArray:
    """Return the pair features of one space, for a run of rows that begins with a certain row."""
    with _naming(f"space {space!r}"):
        return pair_features(X.audio(space), X.text(space), first_row=first_row)


def space_vectors(X: EmbeddingSource, space: str) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield the unit vectors of a space's clips and captions, block of rows by block."""
    for rows in row_blocks(0, len(X.pair_ids)):
        part = X.take(rows)
        with _naming(f"space {space!r}"):
            yield normalised_pairs(part.audio(space), part.text(space), first_row=rows.start)


def auxiliary_block(X: EmbeddingSource, auxiliary: Auxiliary, first_row: int) -> FloatArray:
    """Return the columns of one auxiliary, for a run of rows that begins with a certain row."""
    name, modality = auxiliary
    encoder, output = _encoder_and_output(name)
    if output == WORDS and modality == "audio":
        with _naming(f"auxiliary {name!r}"):
            return lexical_overlap(
                X.audio(encoder, WORDS), X.text(encoder, WORDS), first_row=first_row
            )
    with np.errstate(over="ignore"):  # what float32 cannot hold is found below
        vectors = X.audio(encoder, output) if modality == "audio" else X.text(encoder, output)
        values = np.asarray(vectors).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise FeatureError(
            f"auxiliary {name!r}: row {first_row + bad[0]} and {len(bad) - 1} more not finite."
        )
    return values


def auxiliary_block_name(name: str) -> str:
    """Return what the block of an auxiliary is called.

    Examples
    --------
    >>> auxiliary_block_name("beats:logits"), auxiliary_block_name("beats")
    ('beats/logits', 'beats/embedding')
    """
    return "/".join(_encoder_and_output(name))


def _encoder_and_output(name: str) -> tuple[str, str]:
    encoder, _, output = name.partition(":")
    return encoder, output or "embedding"
