"""From embeddings to the feature table: the only place that reads the cache to build columns."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from xacle_stack._types import FloatArray
from xacle_stack.encoders import WORDS
from xacle_stack.errors import FeatureError, UnknownNameError, bullet_list
from xacle_stack.features.agreement import agreement_features, n_agreement_features
from xacle_stack.features.pair import lexical_overlap, pair_features

AGREEMENT = "agreement"


class EmbeddingSource(Protocol):
    """Embeddings of pairs; :class:`~xacle_stack.CachedPairs` and :class:`PairEmbeddings` are."""

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """Ids of the pairs, in the order of all arrays."""

    def audio(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Vectors of the clips, shape (n_pairs, n_dims)."""

    def text(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Vectors of the captions, shape (n_pairs, n_dims)."""


class PairEmbeddings:
    """Embeddings that are at hand as arrays, without a cache.

    Parameters
    ----------
    spaces : mapping of str to (audio, text)
        Two arrays of shape (n_pairs, n_dims) for each contrastive space.
    auxiliary : mapping of str to ndarray of shape (n_pairs, n_dims), optional
        Vectors of the clips by ``"encoder:output"``, for example ``"beats:logits"``; for
        ``"encoder:words"`` two arrays, of the clips and of the captions.
    pair_ids : sequence of str, optional
        By default the row numbers.

    Raises
    ------
    FeatureError
        If the numbers of rows differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 20, 4))
    >>> FeatureBuilder(["mine"], n_components=2).fit_transform(PairEmbeddings({"mine": (a, b)}))
    FeatureTable(20 pairs, 24 features: mine 21, agreement 3)
    """

    def __init__(
        self,
        spaces: Mapping[str, tuple[FloatArray, FloatArray]],
        auxiliary: Mapping[str, FloatArray | tuple[FloatArray, FloatArray]] | None = None,
        pair_ids: Sequence[str] | None = None,
    ) -> None:
        self._text = {f"{name}:embedding": np.asarray(pair[1]) for name, pair in spaces.items()}
        self._audio = {f"{name}:embedding": np.asarray(pair[0]) for name, pair in spaces.items()}
        for name, values in (auxiliary or {}).items():
            if isinstance(values, tuple):
                self._audio[name], self._text[name] = map(np.asarray, values)
            else:
                self._audio[name] = np.asarray(values)
        n_rows = {
            f"{side} {name}": len(array)
            for side, arrays in (("audio", self._audio), ("text", self._text))
            for name, array in arrays.items()
        }
        if pair_ids is not None:
            n_rows["pair_ids"] = len(pair_ids)
        if len({*n_rows.values()}) != 1:
            raise FeatureError(f"every array needs one row a pair; got the numbers {n_rows}.")
        n_pairs = next(iter(n_rows.values()))
        self._pair_ids = tuple(map(str, range(n_pairs) if pair_ids is None else pair_ids))
        twice = [pair_id for pair_id, n in Counter(self._pair_ids).items() if n > 1]
        if twice:
            raise FeatureError(f"pair ids that stand twice:\n{bullet_list(twice)}")

    @property
    def pair_ids(self) -> tuple[str, ...]:
        """Ids of the pairs, in the order of all arrays."""
        return self._pair_ids

    def audio(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vectors of the clips, shape (n_pairs, n_dims)."""
        return self._get(self._audio, f"{encoder}:{output}")

    def text(self, encoder: str, output: str = "embedding") -> FloatArray:
        """Return an encoder's vectors of the captions, shape (n_pairs, n_dims)."""
        return self._get(self._text, f"{encoder}:{output}")

    @staticmethod
    def _get(arrays: Mapping[str, FloatArray], name: str) -> FloatArray:
        if name not in arrays:
            raise UnknownNameError(f"no embeddings called {name!r}; at hand: {', '.join(arrays)}.")
        return arrays[name]


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of pairs, in named blocks of columns.

    NumPy and scikit-learn take it as the array ``values``.

    Attributes
    ----------
    values : ndarray of shape (n_pairs, n_features)
        float32.
    families : mapping of str to slice
        Columns of each family; together they cover all columns.
    pair_ids : tuple of str
    """

    values: FloatArray
    families: Mapping[str, slice]
    pair_ids: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(n_pairs, n_features)``."""
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        if copy:
            return np.array(self.values, dtype=dtype)
        return np.asarray(self.values, dtype=dtype)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {s.stop - s.start}" for name, s in self.families.items())
        return f"FeatureTable({len(self)} pairs, {self.shape[1]} features: {sizes})"

    def family(self, name: str) -> FloatArray:
        """Return the columns of one family, shape (n_pairs, n_family_features)."""
        if name not in self.families:
            raise UnknownNameError(f"no family {name!r}; there are: {', '.join(self.families)}.")
        return self.values[:, self.families[name]]


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
        Of the randomised SVD.

    Attributes
    ----------
    projections_ : dict of str to TruncatedSVD
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
        """Learn the projections from the training pairs.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings
        y : ignored

        Returns
        -------
        self : FeatureBuilder
        """
        self.fit_transform(X)
        return self

    def fit_transform(self, X: EmbeddingSource, y: object = None) -> FeatureTable:
        """Learn the projections and return the features of the same pairs.

        Arguments and errors as in `fit` and `transform`.
        """
        self._check_settings()
        blocks = {space: _pair_block(X, space) for space in self.spaces}
        n_pairs, narrowest = len(X.pair_ids), min(block.shape[1] for block in blocks.values())
        if n_pairs < 2 or self.n_components > min(n_pairs, narrowest):
            raise FeatureError(
                f"n_components={self.n_components} needs as many training pairs and pair features, "
                f"and at least 2 pairs; there are {n_pairs} pairs with {narrowest} features in the "
                "smallest space. Give more pairs or a smaller n_components (in a recipe: under "
                "[features])."
            )
        with threadpool_limits(1):  # the last digits depend on the number of BLAS threads
            self.projections_ = {
                space: TruncatedSVD(self.n_components, random_state=self.random_state).fit(block)
                for space, block in blocks.items()
            }
        table = self._assemble(X, blocks)
        self.families_ = dict(table.families)
        return table

    def transform(self, X: EmbeddingSource) -> FeatureTable:
        """Return the features of pairs; each row depends on its own pair only.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings

        Returns
        -------
        table : FeatureTable

        Raises
        ------
        FeatureError
            If an embedding is zero or not finite, or a space has another size than in `fit`.
        """
        check_is_fitted(self)
        blocks = {space: _pair_block(X, space) for space in self.spaces}
        wrong = [
            f"{space}: {block.shape[1]} pair features, {self.projections_[space].n_features_in_} "
            "when fitted"
            for space, block in blocks.items()
            if block.shape[1] != self.projections_[space].n_features_in_
        ]
        if wrong:
            raise FeatureError(f"embeddings of another size than in fit:\n{bullet_list(wrong)}")
        return self._assemble(X, blocks)

    def _assemble(self, X: EmbeddingSource, blocks: Mapping[str, FloatArray]) -> FeatureTable:
        auxiliary = [_auxiliary(X, name) for name in self.auxiliary]
        n_auxiliary = sum(block.shape[1] for block in auxiliary)
        n_agreement = n_agreement_features(len(self.spaces), self.n_components)
        families, start = {}, 0
        for name, size in [
            *((space, block.shape[1] + n_auxiliary) for space, block in blocks.items()),
            (AGREEMENT, n_agreement),
        ]:
            families[name] = slice(start, start + size)
            start += size
        values = np.empty((len(X.pair_ids), start), dtype=np.float32)
        cosines, projections = [], []
        with threadpool_limits(1):
            for space, block in blocks.items():
                np.concatenate([block, *auxiliary], axis=1, out=values[:, families[space]])
                cosines.append(block[:, -1])  # φ ends with aᵀb
                projections.append(self.projections_[space].transform(block))
        values[:, families[AGREEMENT]] = agreement_features(np.column_stack(cosines), projections)
        return FeatureTable(values, families, X.pair_ids)

    def _check_settings(self) -> None:
        if isinstance(self.spaces, str) or not self.spaces:
            raise FeatureError(
                f"spaces must be a list of encoder names, got {self.spaces!r}. "
                "For one space write spaces=['mini-mel']."
            )
        names = [*self.spaces, *self.auxiliary]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or AGREEMENT in self.spaces:
            raise FeatureError(f"spaces and auxiliary name the same thing twice: {twice or names}.")
        if self.n_components < 1:
            raise FeatureError(f"n_components must be 1 or more, got {self.n_components!r}.")


def _pair_block(X: EmbeddingSource, space: str) -> FloatArray:
    if not hasattr(X, "audio"):
        raise FeatureError(
            "expected embeddings, cache.load(pairs) or PairEmbeddings(...), got "
            f"{type(X).__name__}."
        )
    audio, text = X.audio(space), X.text(space)
    try:
        return pair_features(audio, text)
    except FeatureError as error:
        raise FeatureError(f"space {space!r}: {error}") from None


def _auxiliary(X: EmbeddingSource, name: str) -> FloatArray:
    encoder, _, output = name.partition(":")
    if output == WORDS:
        try:
            return lexical_overlap(X.audio(encoder, WORDS), X.text(encoder, WORDS))
        except FeatureError as error:
            raise FeatureError(f"auxiliary {name!r}: {error}") from None
    with np.errstate(over="ignore"):  # what float32 cannot hold is found below
        values = np.asarray(X.audio(encoder, output or "embedding")).astype(np.float32)
    if values.ndim != 2:
        raise FeatureError(
            f"auxiliary {name!r}: expected shape (n_pairs, n_dims), got {values.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise FeatureError(f"auxiliary {name!r}: row {bad[0]} and {len(bad) - 1} more not finite.")
    return values
