"""The feature table, and the estimator that turns embeddings into one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError, ModelFileError, UnknownNameError, bullet_list
from xacle_stack.features.columns import (
    AGREEMENT,
    PAIR_BLOCKS,
    Columns,
    auxiliary_block,
    n_auxiliary_columns,
    n_pair_features,
    n_space_dims,
    pair_block,
    row_blocks,
)
from xacle_stack.features.embeddings import EmbeddingSource
from xacle_stack.features.spans import check_cover, check_within
from xacle_stack.streamed_svd import streamed_svd


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

    def __getitem__(self, rows: Any) -> "FeatureTable":
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


def _are_names(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Collection):
        return False
    return all(isinstance(name, str) for name in value)


class FeatureBuilder(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # untyped base
    """Turns embeddings into a :class:`FeatureTable`.

    One family for each contrastive space, its pair features φ(a, b) followed by the auxiliary
    vectors, and one family ``"agreement"``.  What is learned from data, the projections of the
    agreement features, is learned by `fit` and kept.

    Parameters
    ----------
    spaces : sequence of str
        Names of encoders that embed clips and captions in one space.
    auxiliary : sequence of str, default=()
        Audio outputs as ``"encoder:output"``, appended to every space's family, as the published
        system does with BEATs' logits.  Of ``"encoder:words"``, bags of the words heard and of the
        caption's, it is their two columns of :func:`lexical_overlap` that are appended.
    n_components : int, default=8
        Size of each space's projection.
    random_state : int, default=0
        Of the randomised SVD.  See :func:`~xacle_stack.streamed_svd.streamed_svd`.

    Attributes
    ----------
    projections_ : dict of str to ndarray of shape (n_pair_features, n_components)
        For each space, the leading right singular vectors of the training pairs' features.
    families_ : dict of str to slice

    References
    ----------
    Li, Li and Shinozaki 2026.

    Examples
    --------
    See :class:`PairEmbeddings`.
    """

    def __init__(
        self,
        spaces: Sequence[str],
        auxiliary: Sequence[str] = (),
        n_components: int = 8,
        random_state: int = 0,
    ) -> None:
        self.spaces = spaces
        self.auxiliary = auxiliary
        self.n_components = n_components
        self.random_state = random_state

    def fit(self, X: EmbeddingSource, y: object = None) -> Self:
        """Learn the projections from the training pairs, going over them block by block.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings
        y : ignored

        Returns
        -------
        self : FeatureBuilder

        Raises
        ------
        FeatureError
            If an embedding is zero or not finite, or there are too few pairs.
        """
        self._check_settings()
        spaces, auxiliary = self._sizes(X)
        n_pairs, narrowest = len(X.pair_ids), min(map(n_pair_features, spaces.values()))
        if n_pairs < 2 or self.n_components > min(n_pairs, narrowest):
            raise FeatureError(
                f"n_components={self.n_components} needs as many training pairs and pair features, "
                f"and at least 2 pairs; there are {n_pairs} pairs with {narrowest} features in the "
                "smallest space. Give more pairs or a smaller n_components (in a recipe: under "
                "[features])."
            )
        for rows in row_blocks(0, n_pairs) if auxiliary else ():
            part = X.take(rows)
            for name in auxiliary:
                auxiliary_block(part, name, rows.start)  # only to find what is not finite
        self.projections_ = {
            space: self._projection(X, space, n_dims) for space, n_dims in spaces.items()
        }
        self.families_ = Columns(X, spaces, auxiliary, self.projections_).families()
        return self

    def fit_transform(self, X: EmbeddingSource, y: object = None) -> FeatureTable:
        """Learn the projections and return the features of the same pairs.

        Arguments and errors as in `fit` and `transform`.
        """
        return self.fit(X).transform(X)

    def transform(self, X: EmbeddingSource) -> FeatureTable:
        """Return the features of pairs; each row depends on its own pair only.

        The table makes its columns when it is asked for them.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings

        Returns
        -------
        table : FeatureTable

        Raises
        ------
        FeatureError
            If a space has another size than in `fit`.  If an embedding is zero or not finite,
            when its row is made.
        """
        check_is_fitted(self)
        spaces, auxiliary = self._sizes(X)
        wrong = [
            f"{space}: {n_pair_features(n_dims)} pair features, {fitted} when fitted"
            for space, n_dims in spaces.items()
            if n_pair_features(n_dims) != (fitted := len(self.projections_[space]))
        ]
        if wrong:
            raise FeatureError(f"embeddings of another size than in fit:\n{bullet_list(wrong)}")
        columns = Columns(X, spaces, auxiliary, self.projections_)
        return FeatureTable(columns, columns.families(), X.pair_ids, columns.blocks())

    def _sizes(self, X: EmbeddingSource) -> tuple[dict[str, int], dict[str, int]]:
        """Return the dimensions of each space and the columns of each auxiliary."""
        if not hasattr(X, "audio"):
            raise FeatureError(
                "expected embeddings, cache.load(pairs) or PairEmbeddings(...), got "
                f"{type(X).__name__}."
            )
        return (
            {space: n_space_dims(X, space) for space in self.spaces},
            {name: n_auxiliary_columns(X, name) for name in self.auxiliary},
        )

    def _projection(self, X: EmbeddingSource, space: str, n_dims: int) -> FloatArray:
        def blocks() -> Iterator[FloatArray]:
            for rows in row_blocks(0, len(X.pair_ids)):
                yield pair_block(X.take(rows), space, rows.start)

        n_features = n_pair_features(n_dims)
        _, axes = streamed_svd(blocks, n_features, self.n_components, self.random_state)
        return np.ascontiguousarray(axes.T)

    def check_state(self) -> None:
        """Check what a builder from a file has learned.

        Raises
        ------
        FeatureError
            If a setting is unusable.
        ModelFileError
            If there is not one projection for each space, all of one size.
        """
        self._check_settings()
        if not isinstance(self.projections_, dict) or set(self.projections_) != set(self.spaces):
            raise ModelFileError(f"projections_ are not those of the spaces {self.spaces!r}.")
        n_components = {np.shape(axes)[-1:] for axes in self.projections_.values()}
        for space, axes in self.projections_.items():
            check_numbers(f"projections_[{space!r}]", axes, (None, None))
            if axes.shape[1] > axes.shape[0] or len(n_components) > 1:
                raise ModelFileError(f"projections_[{space!r}] has shape {axes.shape}.")

    def _check_settings(self) -> None:
        if not _are_names(self.spaces) or not len(self.spaces):
            raise FeatureError(
                f"spaces must be a list of encoder names, got {self.spaces!r}. "
                "For one space write spaces=['mini-mel']."
            )
        if not _are_names(self.auxiliary):
            raise FeatureError(
                f"auxiliary must be a list of 'encoder:output', got {self.auxiliary!r}. "
                "For one output write auxiliary=['beats:logits']."
            )
        if AGREEMENT in self.spaces:
            raise FeatureError(
                f"no space may be called {AGREEMENT!r}: that is the family of the agreement "
                "features. Give the encoder another name."
            )
        names = [*self.spaces, *self.auxiliary]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise FeatureError(f"spaces and auxiliary name the same thing twice: {twice}.")
        unclear = sorted({*self.auxiliary} & {*PAIR_BLOCKS})
        if unclear:
            raise FeatureError(
                f"auxiliary encoders called like blocks of pair features: {unclear}. Name their "
                "output too: 'encoder:output'."
            )
        if self.n_components < 1:
            raise FeatureError(f"n_components must be 1 or more, got {self.n_components!r}.")
