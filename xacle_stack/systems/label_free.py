"""A score without ratings: the mean of the spaces' standardised cosines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from xacle_stack._rows import distinct_rows
from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_whole_number
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.features import cosine_similarity
from xacle_stack.pairs import MAX_SCORE
from xacle_stack.systems.space_vectors import (
    Vectors,
    check_vectors_state,
    read_vectors,
    validate_pairs,
)
from xacle_stack.table import FeatureTable

_FLOAT_TYPES = [np.float64, np.float32]
_TOP = 0.95


class CosineMean(RegressorMixin, BaseEstimator):
    """The mean of the spaces' cosines between clip and caption, each standardised, as a score.

    It needs no ratings.  `fit` takes pairs as a reference and learns how the cosines of mismatched
    pairs, clips with captions of other clips, are distributed in each space.  A pair's cosine is
    standardised by their mean and standard deviation, and the mean over the spaces is mapped to
    scores by a straight line: 0 is the mean of the mismatched pairs, and 10 the 95 % quantile of
    the reference's own pairs, or of the mismatched ones where that is higher.  Once it is fitted, a
    pair's score depends on that pair only.

    The scores are a scale of agreement.  They do not predict what listeners would say, and about
    half of all mismatched pairs are below 0; a :class:`~xacle_stack.Scorer` bends both ends into
    0-10 without changing a rank.

    Parameters
    ----------
    spaces : sequence of str, optional
        The spaces of a feature table; by default all of them.
    n_mismatched : int, default=10000
        The mismatched pairs that are drawn, if there are so many.
    random_state : int, default=0
        Seeds which.

    Attributes
    ----------
    mismatched_means_, mismatched_sds_ : ndarray of shape (n_spaces,)
        Of the cosines of mismatched pairs.
    own_means_ : ndarray of shape (n_spaces,)
        The mean cosines of the reference's pairs.
    aucs_ : ndarray of shape (n_spaces,)
        How often one of the reference's pairs has a higher cosine than a mismatched one.
    auc_ : float
        The same for the mean over the spaces.
    top_ : float
        The mean of standardised cosines that becomes a score of 10.
    n_mismatched_ : int
    spaces_ : tuple of str
        Empty after a fit on a plain array.
    widths_ : list of (int, int)
        The lengths of the clip's and the caption's vector in each space.

    References
    ----------
    Wu et al. 2023, arXiv:2211.06687, for the cosine; published CLAPScores are cosines of different
    checkpoints.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> audio = rng.normal(size=(50, 4))
    >>> X = np.hstack([audio, audio + 0.5 * rng.normal(size=(50, 4))])
    >>> bool(CosineMean().fit(X).predict(X).mean() > 5)
    True
    """

    takes_tables = True

    def __init__(
        self,
        spaces: Sequence[str] | None = None,
        n_mismatched: int = 10_000,
        random_state: int = 0,
    ) -> None:
        self.spaces = spaces
        self.n_mismatched = n_mismatched
        self.random_state = random_state

    def check_settings(self) -> None:
        """Check the settings, without data; a StackingError says which is unusable."""
        if self.spaces is not None and (isinstance(self.spaces, str) or not len(self.spaces)):
            raise StackingError(
                f"spaces must be a list of names such as ['mini-mel'], got {self.spaces!r}."
            )
        check_whole_number("n_mismatched", self.n_mismatched, minimum=2)
        check_whole_number("random_state", self.random_state, minimum=0)

    def fit(self, X: FeatureTable | ArrayLike, y: object = None) -> Self:
        """Learn the scale from reference pairs.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, 2 * n_dims)
            Without names, the clips' vectors are the first half of the columns and the captions'
            the second.
        y : ignored

        Returns
        -------
        self : CosineMean

        Raises
        ------
        FeatureError
            If a vector is zero.
        StackingError
            If no clip and caption of different pairs can be put together, or all cosines are equal.
        """
        self.check_settings()
        checked: Any = X
        if not isinstance(X, FeatureTable):
            checked = validate_data(self, X, dtype=_FLOAT_TYPES, ensure_min_samples=2)
        vectors = read_vectors(self, checked, self.spaces, reset=True)
        clips, captions = _mismatched_rows(vectors, self.n_mismatched, self.random_state)
        own = _cosines(vectors)
        others = _cosines([(audio[clips], text[captions]) for audio, text in vectors])
        self.n_mismatched_ = len(clips)
        self.mismatched_means_, self.mismatched_sds_ = others.mean(axis=0), others.std(axis=0)
        constant = np.flatnonzero(~(self.mismatched_sds_ > 1e-9))
        if len(constant):
            raise StackingError(
                f"the cosines of {len(clips)} mismatched pairs are all equal in "
                f"{self.space_names[constant[0]]!r}, so they give no scale. Give a reference with "
                "more clips and captions, or leave the space out."
            )
        self.own_means_ = own.mean(axis=0)
        self.aucs_ = np.array([_auc(*columns) for columns in zip(own.T, others.T, strict=True)])
        own_mean, others_mean = self._standardised(own), self._standardised(others)
        self.auc_ = _auc(own_mean, others_mean)
        self.top_ = float(max(np.quantile(own_mean, _TOP), np.quantile(others_mean, _TOP)))
        return self

    @property
    def space_names(self) -> tuple[str, ...]:
        """The names of the spaces; ``"cosine"`` where they have none."""
        return self.spaces_ or ("cosine",)

    def cosines(self, X: FeatureTable | ArrayLike) -> FloatArray:
        """Return each space's own cosine, the CLAPScore of its checkpoint.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        cosines : ndarray of shape (n_pairs, n_spaces)
            In the order of `space_names`; each row depends on its own pair only.
        """
        check_is_fitted(self)
        checked, _ = validate_pairs(self, X, reset=False, dtype=_FLOAT_TYPES)
        return _cosines(read_vectors(self, checked, self.spaces, reset=False))

    def combine(self, cosines: FloatArray) -> FloatArray:
        """Return the scores that belong to cosines of shape (n_pairs, n_spaces)."""
        scores: FloatArray = MAX_SCORE * self._standardised(cosines) / self.top_
        return scores

    def predict(self, X: FeatureTable | ArrayLike) -> FloatArray:
        """Return scores of shape (n_pairs,)."""
        return self.combine(self.cosines(X))

    def check_state(self) -> None:
        """Check what a regressor from a file has learned; a ModelFileError says what is wrong."""
        self.check_settings()
        check_vectors_state(self)
        shape = (len(self.space_names),)
        for name in ("mismatched_means_", "mismatched_sds_", "own_means_", "aucs_"):
            check_numbers(name, getattr(self, name), shape)
        for name in ("auc_", "top_", "n_mismatched_"):
            check_numbers(name, getattr(self, name), ())
        if not (self.mismatched_sds_ > 0).all() or not self.top_ > 0:
            raise ModelFileError("mismatched_sds_ and top_ must be above 0.")

    def _standardised(self, cosines: FloatArray) -> FloatArray:
        # Spaces one after the other: each row's sum has one order.
        total = np.zeros(len(cosines))
        for column, mean, sd in zip(
            cosines.T, self.mismatched_means_, self.mismatched_sds_, strict=True
        ):
            total += (column - mean) / sd
        return total / len(self.mismatched_means_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.regressor_tags.poor_score = True
        return tags


def _cosines(vectors: Sequence[Vectors]) -> FloatArray:
    columns = [cosine_similarity(audio, text) for audio, text in vectors]
    return np.column_stack(columns).astype(np.float64, copy=False)


def _mismatched_rows(
    vectors: Sequence[Vectors], n_mismatched: int, random_state: int
) -> tuple[IntArray, IntArray]:
    """Return the rows of clips and of captions that are put together, drawn without repetition.

    Equal vectors are one clip or one caption, and no clip gets a caption that it has in any row.
    The items are counted in the order of their bytes, so that the order of rows changes nothing.
    """
    (clip_rows, clip), (text_rows, text) = (
        distinct_rows([pair[side] for pair in vectors]) for side in (0, 1)
    )
    n_clips, n_texts = len(clip_rows), len(text_rows)
    own = np.unique(clip * n_texts + text)
    n_left = n_clips * n_texts - len(own)
    if n_left < 2:
        raise StackingError(
            f"{n_clips} different clips and {n_texts} different captions leave {n_left} mismatched "
            "pairs, which the scale is learned from. Give a reference with more of both: "
            "Scorer.label_free(...).fit(reference), or --reference on the command line."
        )
    rng = np.random.default_rng(random_state)
    drawn = np.sort(rng.choice(n_left, min(n_mismatched, n_left), replace=False))
    # The number of a combination, once the own ones before it are skipped.
    drawn += np.searchsorted(own - np.arange(len(own)), drawn, side="right")
    return clip_rows[drawn // n_texts], text_rows[drawn % n_texts]


def _auc(higher: FloatArray, lower: FloatArray) -> float:
    """Return how often a value of the first is higher than one of the second; ties count half."""
    ranks = rankdata(np.concatenate([higher, lower]))[: len(higher)]
    wins = ranks.sum() - len(higher) * (len(higher) + 1) / 2
    return float(wins / (len(higher) * len(lower)))
