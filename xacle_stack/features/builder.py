"""The estimator that turns embeddings into a feature table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from numbers import Integral
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from xacle_stack._rows import row_blocks
from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray
from xacle_stack.errors import FeatureError, ModelFileError, bullet_list
from xacle_stack.features.embeddings import EmbeddingSource
from xacle_stack.features.pair_blocks import (
    AGREEMENT,
    PAIR_FEATURES,
    PROXIMITIES,
    WHITENED,
    Auxiliary,
    PairBlocks,
    auxiliary_block,
    n_auxiliary_columns,
    n_pair_features,
    n_space_dims,
    space_features,
    space_vectors,
)
from xacle_stack.features.whitening import whitening
from xacle_stack.streamed_svd import streamed_svd
from xacle_stack.table import FeatureTable, consecutive


def _are_names(value: object) -> bool:
    if isinstance(value, str) or not isinstance(value, Collection):
        return False
    return all(isinstance(name, str) for name in value)


class FeatureBuilder(TransformerMixin, BaseEstimator):
    """Turns embeddings into a :class:`FeatureTable`.

    Each contrastive space has the blocks ``"SPACE/audio"``, ``"SPACE/text"``, ``"SPACE/product"``,
    ``"SPACE/difference"``, ``"SPACE/square"`` and ``"SPACE/cosine"``, the parts of its pair
    features φ(a, b).  Each auxiliary is one block, ``"ENCODER/OUTPUT"``.  A space's family has its
    own blocks and those of all auxiliaries, and the family ``"agreement"`` has the blocks of the
    agreement features.  `fit` learns the projections of the agreement features.  Without spaces
    there is one family, ``"auxiliary"``; the kernel of ``Stacker(preset="best")`` multiplies what
    its blocks say of the clips and of the captions.

    Parameters
    ----------
    spaces : sequence of str
        Names of encoders that embed clips and captions in one space; empty for auxiliaries alone.
    auxiliary : sequence of str, default=()
        Audio outputs as ``"encoder:output"``, which every space's family shares, as the published
        system does with BEATs' logits.  ``"encoder:words"``, bags of the words heard and of the
        caption's words, becomes the two columns of :func:`lexical_overlap`.
    text_auxiliary : sequence of str, default=()
        Outputs of captions, likewise shared, such as ``"all-minilm-l6-v2:embedding"``.
    proximities : bool, default=False
        Whether each space also has the block ``"SPACE/proximities"``, the cosine, the angle and
        two distances of :func:`~xacle_stack.features.proximities`.
    n_whitened : int, default=0
        Over how many axes each space has the blocks ``"SPACE/whitened difference"`` and
        ``"SPACE/whitened cosines"``, at most its dimensions; 0 for none.  128 is a good number.
    n_components : int, default=8
        The size of each space's projection.
    random_state : int, default=0
        Seeds the randomised SVD.  See :func:`~xacle_stack.streamed_svd.streamed_svd`.
    agreement : bool, default=True
        Whether there are agreement features.

    Attributes
    ----------
    projections_ : dict of str to ndarray of shape (n_pair_features, n_components)
        For each space, the leading right singular vectors of the training pairs' features.
    whitening_ : dict of str to (ndarray, ndarray)
        For each space, what its whitened features are made with: the means of clips and captions,
        (2, n_dims), and the axes, (n_dims, n_axes); empty without them.

    References
    ----------
    Li, Li and Shinozaki 2026.

    Examples
    --------
    See :class:`PairEmbeddings`.
    """

    # What builders that were saved before there were these parameters have.
    text_auxiliary: Sequence[str] = ()
    proximities: bool = False
    agreement: bool = True
    n_whitened: int = 0

    def __init__(
        self,
        spaces: Sequence[str],
        auxiliary: Sequence[str] = (),
        n_components: int = 8,
        random_state: int = 0,
        *,
        text_auxiliary: Sequence[str] = (),
        proximities: bool = False,
        agreement: bool = True,
        n_whitened: int = 0,
    ) -> None:
        self.spaces = spaces
        self.auxiliary = auxiliary
        self.text_auxiliary = text_auxiliary
        self.n_components = n_components
        self.random_state = random_state
        self.proximities = proximities
        self.agreement = agreement
        self.n_whitened = n_whitened

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
        self.check_settings()
        spaces, auxiliary = self._sizes(X)
        n_pairs = len(X.pair_ids)
        narrowest = min(map(n_pair_features, spaces.values()), default=n_pairs)
        if n_pairs < 2 and not spaces:
            raise FeatureError(f"there are {n_pairs} pairs to fit on; give at least 2.")
        if spaces and (n_pairs < 2 or self.n_components > min(n_pairs, narrowest)):
            raise FeatureError(
                f"n_components={self.n_components} needs as many training pairs and pair features, "
                f"and at least 2 pairs; there are {n_pairs} pairs with {narrowest} features in the "
                "smallest space. Give more pairs or a smaller n_components (in a recipe: under "
                "[features])."
            )
        for rows in row_blocks(0, n_pairs) if auxiliary else ():
            part = X.take(rows)
            for one in auxiliary:
                auxiliary_block(part, one, rows.start)  # only to find what is not finite
        self.projections_ = {
            space: self._projection(X, space, n_dims) for space, n_dims in spaces.items()
        }
        self.whitening_ = {
            space: whitening(space_vectors(X, space), min(self.n_whitened, n_dims))
            for space, n_dims in (spaces.items() if self.n_whitened else ())
        }
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
        blocks = PairBlocks(
            X,
            spaces,
            auxiliary,
            self.projections_,
            self.proximities,
            self.agreement,
            self._whitening,
        )
        return FeatureTable(blocks, consecutive(blocks.widths), X.pair_ids, blocks.families)

    def _sizes(self, X: EmbeddingSource) -> tuple[dict[str, int], dict[Auxiliary, int]]:
        """Return the dimensions of each space and the columns of each auxiliary."""
        if not hasattr(X, "shape_of"):
            raise FeatureError(
                "expected embeddings, cache.load(pairs) or PairEmbeddings(...), got "
                f"{type(X).__name__}."
            )
        return (
            {space: n_space_dims(X, space) for space in self.spaces},
            {one: n_auxiliary_columns(X, one) for one in self._auxiliaries},
        )

    @property
    def _auxiliaries(self) -> list[Auxiliary]:
        """Those of the clips, then those of the captions."""
        return [
            *(Auxiliary(name, "audio") for name in self.auxiliary),
            *(Auxiliary(name, "text") for name in self.text_auxiliary),
        ]

    def _projection(self, X: EmbeddingSource, space: str, n_dims: int) -> FloatArray:
        def blocks() -> Iterator[FloatArray]:
            for rows in row_blocks(0, len(X.pair_ids)):
                yield space_features(X.take(rows), space, rows.start)

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
        self.check_settings()
        if not isinstance(self.projections_, dict) or set(self.projections_) != set(self.spaces):
            raise ModelFileError(f"projections_ are not those of the spaces {self.spaces!r}.")
        n_components = {np.shape(axes)[-1:] for axes in self.projections_.values()}
        for space, axes in self.projections_.items():
            check_numbers(f"projections_[{space!r}]", axes, (None, None))
            if axes.shape[1] > axes.shape[0] or len(n_components) > 1:
                raise ModelFileError(f"projections_[{space!r}] has shape {axes.shape}.")
        self._check_whitening()

    @property
    def _whitening(self) -> dict[str, tuple[FloatArray, FloatArray]]:
        # Builders that were saved before there were whitened features have none.
        return getattr(self, "whitening_", {})

    def _check_whitening(self) -> None:
        expected = set(self.spaces) if self.n_whitened else set()
        if not isinstance(self._whitening, dict) or set(self._whitening) != expected:
            raise ModelFileError(f"whitening_ is not that of the spaces {self.spaces!r}.")
        for space, learned in self._whitening.items():
            if not isinstance(learned, tuple) or len(learned) != 2:
                raise ModelFileError(f"whitening_[{space!r}] is no pair of means and axes.")
            means, axes = learned
            check_numbers(f"the axes of whitening_[{space!r}]", axes, (None, None))
            n_dims, n_axes = axes.shape
            check_numbers(f"the means of whitening_[{space!r}]", means, (2, n_dims))
            fits = n_pair_features(n_dims) == len(self.projections_[space])
            if not fits or n_axes != min(self.n_whitened, n_dims):
                raise ModelFileError(f"the axes of whitening_[{space!r}] have shape {axes.shape}.")

    def check_settings(self) -> None:
        """Check the settings that can be judged without data.

        Raises
        ------
        FeatureError
            If one is unusable.
        """
        if not _are_names(self.spaces):
            raise FeatureError(
                f"spaces must be a list of encoder names, got {self.spaces!r}. "
                "For one space write spaces=['mini-mel']."
            )
        for name, example in (
            ("auxiliary", "beats:logits"),
            ("text_auxiliary", "all-minilm-l6-v2:embedding"),
        ):
            if not _are_names(getattr(self, name)):
                raise FeatureError(
                    f"{name} must be a list of 'encoder:output', got {getattr(self, name)!r}. "
                    f"For one output write {name}=[{example!r}]."
                )
        if not (len(self.spaces) or len(self.auxiliary) or len(self.text_auxiliary)):
            raise FeatureError(
                f"spaces is {self.spaces!r} and there is no auxiliary output either: name what "
                "the features are made of, for example spaces=['mini-mel']."
            )
        if AGREEMENT in self.spaces:
            raise FeatureError(
                f"no space may be called {AGREEMENT!r}: that is the family of the agreement "
                "features. Give the encoder another name."
            )
        names = [*self.spaces, *(one.block for one in self._auxiliaries)]
        twice = sorted(name for name, n_times in Counter(names).items() if n_times > 1)
        if twice:
            raise FeatureError(f"spaces and auxiliary name the same thing twice: {twice}.")
        parts = (*PAIR_FEATURES, PROXIMITIES, *WHITENED)
        own = {f"{space}/{part}" for space in self.spaces for part in parts}
        shared = sorted(own & set(names))
        if shared:
            raise FeatureError(
                f"auxiliary outputs that are called like blocks of pair features: {shared}. Give "
                "the encoder's output another name."
            )
        for name in ("proximities", "agreement"):
            if not isinstance(getattr(self, name), bool):
                raise FeatureError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        for name, minimum in (("n_components", 1), ("n_whitened", 0), ("random_state", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < minimum:
                raise FeatureError(
                    f"{name} must be a whole number, {minimum} or more, got {value!r}."
                )
