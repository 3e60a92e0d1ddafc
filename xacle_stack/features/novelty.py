"""How far pairs are from those that a scorer was fitted on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from xacle_stack._rows import distinct_rows, row_blocks
from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import ModelFileError
from xacle_stack.features.embeddings import EmbeddingSource

logger = logging.getLogger(__name__)

_SIDES = ("audio", "text")
_MAX_ROWS = 2048  # training pairs that are read
_EDGE = 0.99
# Of training pairs with hardly any difference, everything else would be infinitely far away.
_MIN_DISTANCE = 1e-2
# Rows that are multiplied at once, and by how much a product in float32 may be off.
_TILE_ROWS = 128
_ROUNDING = 1e-5
# A run with fewer pairs is warned of each one, a longer run only of more than the usual ones.
_FEW_PAIRS = 10
_MANY = 0.1


class Novelty(BaseEstimator):
    """How far a pair's clip and caption are from those of the training pairs.

    In each space, a vector's distance is that to the nearest of some training vectors, all of unit
    length, divided by the 99 % quantile of the training vectors' distances to the others.  A clip's
    and a caption's figure is the mean over the spaces, and a pair's novelty the larger of the two,
    divided by its 99 % quantile over training pairs.  So about one in a hundred pairs like those in
    training is above 1.  With n different clips or captions, this edge lies 2 / n higher, because
    the distances of a few tell little of the next.  What an encoder does not tell apart, its
    vectors do not show.

    Parameters
    ----------
    spaces : sequence of str
        Names of encoders that embed clips and captions in one space.
    audio, text : sequence of str, optional
        Further outputs of clips and of captions, ``"encoder:output"``.
    n_landmarks : int, default=512
        The clips, and the captions, that are kept to compare with.
    random_state : int, default=0
        Seeds their choice.

    Attributes
    ----------
    landmarks_ : dict of str to ndarray of shape (n_landmarks, n_dims)
        The vectors that are kept, by ``"SPACE/audio"``, ``"SPACE/text"`` and the names of the
        further outputs; float16.
    edges_ : dict of str to float
        The 99 % quantiles of the distances, by the same names.
    edge_ : float
        That of the pairs' figures.

    References
    ----------
    Sun et al. 2022, arXiv:2204.06507, for distances to neighbours on the unit sphere.

    Examples
    --------
    >>> from xacle_stack import PairEmbeddings
    >>> rng = np.random.default_rng(0)
    >>> near = PairEmbeddings({"mine": rng.normal(3, 1, size=(2, 200, 8))})
    >>> far = PairEmbeddings({"mine": rng.normal(-3, 1, size=(2, 5, 8))})
    >>> novelty = Novelty(["mine"]).fit(near)
    >>> bool(novelty.measure(far).min() > 1 > np.median(novelty.measure(near)))
    True
    """

    def __init__(
        self,
        spaces: Sequence[str],
        audio: Sequence[str] = (),
        text: Sequence[str] = (),
        *,
        n_landmarks: int = 512,
        random_state: int = 0,
    ) -> None:
        self.spaces = spaces
        self.audio = audio
        self.text = text
        self.n_landmarks = n_landmarks
        self.random_state = random_state

    def fit(self, X: EmbeddingSource, y: object = None) -> Self:
        """Choose what is kept, and measure some training pairs by the others.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings
            Of more than 2,048 pairs, as many are drawn and read.
        y : ignored

        Returns
        -------
        self : Novelty
        """
        rng = np.random.default_rng(self.random_state)
        n_pairs = len(X.pair_ids)
        n_rows = min(n_pairs, _MAX_ROWS)
        sample = X.take(np.sort(rng.choice(n_pairs, n_rows, replace=False)))
        self.landmarks_: dict[str, FloatArray] = {}
        self.edges_: dict[str, float] = {}
        figures, n_items = [], n_rows
        for side in _SIDES:
            vectors = {name: _units(sample, one, side) for name, one in self._names(side).items()}
            if not vectors:
                continue
            firsts, item = distinct_rows([*vectors.values()])
            n_items = min(n_items, len(firsts))
            kept = rng.permutation(len(firsts))[: self.n_landmarks]
            position = np.full(len(firsts), -1)
            position[kept] = np.arange(len(kept))
            figures.append(np.zeros(n_rows))
            for name, values in vectors.items():
                self.landmarks_[name] = values[firsts[kept]].astype(np.float16)
                # Nothing is compared with itself, and no item counts more because it is repeated.
                of_items = _nearest(values[firsts], self.landmarks_[name], position)
                self.edges_[name] = _edge(of_items)
                figures[-1] += of_items[item] / self.edges_[name] / len(vectors)
        self.edge_ = _edge(np.max(figures, axis=0)) * (1 + 2 / n_items)
        return self

    def measure(self, X: EmbeddingSource) -> FloatArray:
        """Return the novelty of pairs; each depends on its own pair only.

        Parameters
        ----------
        X : CachedPairs or PairEmbeddings

        Returns
        -------
        novelty : ndarray of shape (n_pairs,)
            0 or more; above 1 is beyond the training pairs.
        """
        return self.measure_sides(X).max(axis=1)

    def measure_sides(self, X: EmbeddingSource) -> FloatArray:
        """Return the figures of clips and captions beside each other, shape (n_pairs, 2)."""
        check_is_fitted(self)
        figures = np.zeros((len(X.pair_ids), len(_SIDES)))
        for rows in row_blocks(0, len(figures)):
            part = X.take(rows)
            for column, side in enumerate(_SIDES):
                names = self._names(side)
                for name, one in names.items():
                    distances = _nearest(_units(part, one, side), self.landmarks_[name])
                    figures[rows, column] += distances / self.edges_[name] / len(names)
        figures /= self.edge_
        return figures

    def check_state(self) -> None:
        """Check what comes from a file; a ModelFileError says what does not fit together."""
        names = {name for side in _SIDES for name in self._names(side)}
        for what, found in (("landmarks_", self.landmarks_), ("edges_", self.edges_)):
            if not isinstance(found, dict) or set(found) != names:
                raise ModelFileError(f"{what} are not those of the encoders {sorted(names)!r}.")
        for name in names:
            check_numbers(f"landmarks_[{name!r}]", self.landmarks_[name], (None, None))
            check_numbers(f"edges_[{name!r}]", self.edges_[name], (), minimum=_MIN_DISTANCE)
            if not self.landmarks_[name].size:
                raise ModelFileError(f"landmarks_[{name!r}] is empty.")
        check_numbers("edge_", self.edge_, (), minimum=_MIN_DISTANCE)

    def _names(self, side: str) -> dict[str, str]:
        """Return the encoders' outputs of one side, by what `landmarks_` calls them."""
        further = self.audio if side == "audio" else self.text
        return {f"{space}/{side}": space for space in self.spaces} | {one: one for one in further}


def warn_of_novelty(sides: FloatArray, pair_ids: Sequence[str]) -> bool:
    """Log a warning if many pairs, or some of a few, are beyond the training pairs.

    Parameters
    ----------
    sides : ndarray of shape (n_pairs, 2)
        What :meth:`Novelty.measure_sides` returned.
    pair_ids : sequence of str

    Returns
    -------
    is_told : bool
        Whether there was something to warn of.
    """
    n_beyond, n_pairs = int((sides.max(axis=1) > 1).sum()), len(sides)
    if n_beyond == 0 or (n_pairs >= _FEW_PAIRS and n_beyond <= _MANY * n_pairs):
        return False
    row, side = map(int, np.unravel_index(sides.argmax(), sides.shape))
    logger.warning(
        "%d of %d pairs are farther from the training pairs than 99 in 100 of these are from each "
        "other (novelty above 1), so their scores may mean little; the farthest is the %s of %r "
        "(%.2f). Fit on rated pairs like these, or score without ratings: "
        "Scorer.label_free(recipe), or xacle-stack score --method cosine.",
        n_beyond,
        n_pairs,
        ("clip", "caption")[side],
        pair_ids[int(row)],
        sides[row, side],
    )
    return True


def _units(X: EmbeddingSource, name: str, side: str) -> FloatArray:
    """Return an encoder's vectors at unit length, float32; the name may say which output."""
    encoder, _, output = name.partition(":")
    read = X.audio if side == "audio" else X.text
    vectors = np.asarray(read(encoder, output or "embedding"), np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny))


def _nearest(vectors: FloatArray, landmarks: FloatArray, own: IntArray | None = None) -> FloatArray:
    """Return each row's distance to the nearest landmark but its `own`; -1 stands for none."""
    landmarks = landmarks.astype(np.float32)
    nearest = np.full(len(vectors), -np.inf)
    for rows in row_blocks(0, len(vectors), _TILE_ROWS):
        tile = vectors[rows]
        cosines = tile @ landmarks.T
        if own is not None and len(landmarks) > 1:
            is_landmark = np.flatnonzero(own[rows] >= 0)
            cosines[is_landmark, own[rows][is_landmark]] = -np.inf
        # The last digits of the product depend on the other rows and on threads.  All that may be
        # nearest are therefore multiplied again, row by row: the largest is the same in any tile.
        near, columns = np.nonzero(cosines >= cosines.max(axis=1, keepdims=True) - _ROUNDING)
        exact = np.einsum("nd,nd->n", tile[near], landmarks[columns])
        np.maximum.at(nearest[rows], near, exact)
    return np.sqrt(np.maximum(2 - 2 * nearest, 0))


def _edge(figures: FloatArray) -> float:
    return max(float(np.quantile(figures, _EDGE)), _MIN_DISTANCE)
