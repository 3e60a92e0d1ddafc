"""Estimates scores of pairs from ratings of differing listeners, as targets better than the mean.

Two rules keep the result from being worse than the plain mean if ratings are few or the model is
wrong:

- *A listener is compared only with others who rated the same pairs.*  A model with random pairs
  would mistake a batch of good clips for a batch of lenient listeners.
- *An effect that is not significant is not used.*  A likelihood-ratio test at 1 % decides on
  biases, another on unequal noise.  Without them the scores equal the plain means to the last bit.
  A correction by a thousandth of a point would not change any error, but it would order pairs that
  listeners found equal, and so spoil a rank correlation with many ties.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from xacle_stack._state_checks import check_numbers
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import PairsError, bullet_list, one_or_all
from xacle_stack.listeners.crossed import CrossedEquations, Effects, NumberedRatings
from xacle_stack.listeners.habits import listener_scales, pair_prior, relative_noise
from xacle_stack.listeners.screening import confirmed
from xacle_stack.listeners.standardization import offsets_and_scales

logger = logging.getLogger(__name__)

_SCALE_ITERATIONS = 3


class ListenerModel(BaseEstimator):
    """Estimates the average rating of all listeners for each pair.

    ``rating = μ + scale_j · (score_i − μ) + bias_j + noise`` with the mean rating μ, and a noise
    variance for each listener j.

    Parameters
    ----------
    biases : bool, default=True
        Whether to estimate biases from the ratings that others gave to the same pairs, if they are
        significant.
    noise : bool, default=True
        Whether to weight listeners by their noise, if it differs significantly.
    scale : bool, default=False
        Whether to estimate a scale for each listener, because some use only half of the range.
    standardize : bool, default=False
        Whether to standardise each listener's ratings first by the listener's own mean and spread.
        Both are shrunk towards those of all listeners, the more the fewer ratings there are, and
        used if they differ significantly.  The standardised ratings are brought back to the mean
        and the average spread of all listeners.  This compares listeners who rated different
        pairs; it is right if the pairs were dealt out at random, and wrong if some listeners were
        given the better ones.
    screening : float, optional
        A rating counts only if another one of its pair is at most so many points away.  The
        ratings of a pair all count if none would.  By default all count.
    score_range : (float, float), optional
        Ends of the rating scale; by default the lowest and the highest rating.  Scores do not
        exceed them, and a pair that every listener put at an end keeps that score.
        ``(-inf, inf)`` stands for no ends.

    Attributes
    ----------
    pair_ids_, listener_ids_ : tuple
        Ids in the order of their first appearance, which is the order of the arrays below.
    scores_ : ndarray of shape (n_pairs,)
        The target to train on: each pair's mean rating, corrected for its listeners' biases and
        weighted by their noise, on the scale of the ratings.  They are *not shrunk* to the mean of
        all pairs: a regressor would shrink them again, and shrinking by the number of ratings
        would order pairs that listeners found equal.
    posterior_means_ : ndarray of shape (n_pairs,)
        The scores shrunk by empirical Bayes, which minimises the squared error of the true score.
    uncertainty_ : ndarray of shape (n_pairs,)
        Variance of the true score about its posterior mean; NaN if no pair has two ratings.
    weights_ : ndarray of shape (n_pairs,)
        Weights for ``sample_weight``: the reliability of each score, divided by the mean
        reliability.  Reliability is the variance of true scores over the sum of that and the
        variance of the score's error.
    bias_ : ndarray of shape (n_listeners,)
        Points that a listener adds to a pair of average score.
    scale_ : ndarray of shape (n_listeners,)
        Slope of a listener's ratings on the scores; ones without `scale` and `standardize`.
    noise_ : ndarray of shape (n_listeners,)
        Standard deviation of a listener's unexplained noise.
    pair_variance_, listener_variance_, noise_variance_ : float
        Variances of true scores, of biases, and of the noise of a rating of average weight; NaN if
        unknown.  With `standardize` they are those of the standardised ratings.
    counted_ : ndarray of bool of shape (n_ratings,)
        Which ratings count; all without `screening`.
    unconfirmed_pair_ids_ : tuple
        Pairs whose ratings all count because no two of them agree, with `screening`.

    Notes
    -----
    Pairs are fixed effects, listeners random ones; the ratio of variances maximises the restricted
    likelihood (REML), and biases are best linear unbiased predictions.  Memory and time grow with
    the square and the cube of the smaller of `n_pairs` and `n_listeners`.

    With a single listener, or if no pair was rated by two, biases cannot be distinguished from
    scores.  The scores are then the plain means, and a warning is logged.

    The published SPO-CLAPScore is ``ListenerModel(biases=False, noise=False, standardize=True,
    screening=5)``, but for the shrinkage, and it drops pairs whose ratings are all screened out.

    References
    ----------
    Henderson 1975, "Best linear unbiased estimation and prediction under a selection model",
    Biometrics 31(2).
    Patterson and Thompson 1971, "Recovery of inter-block information when block sizes are
    unequal", Biometrika 58(3).
    Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression
    in microarray experiments", Statistical Applications in Genetics and Molecular Biology 3(1).
    Takano and Yoshida 2026, "SPO-CLAPScore", arXiv:2601.02900 (`standardize` and `screening`).

    Examples
    --------
    Half of the listeners give 1.5 points more than they should, the others less:

    >>> rng = np.random.default_rng(0)
    >>> pairs, listeners = rng.integers(50, size=600), rng.integers(12, size=600)
    >>> bias = np.where(listeners < 6, 1.5, -1.5)
    >>> ratings = 5 + pairs % 5 + bias + rng.normal(scale=0.5, size=600)
    >>> model = ListenerModel().fit(pairs, listeners, ratings)
    >>> kind = model.bias_[np.array(model.listener_ids_) < 6]
    >>> bool(abs(kind.mean() - 1.5) < 0.1)
    True
    >>> model.scores_for([0, 5]).round()
    array([5., 5.])
    """

    def __init__(
        self,
        *,
        biases: bool = True,
        noise: bool = True,
        scale: bool = False,
        standardize: bool = False,
        screening: float | None = None,
        score_range: tuple[float, float] | None = None,
    ) -> None:
        self.biases = biases
        self.noise = noise
        self.scale = scale
        self.standardize = standardize
        self.screening = screening
        self.score_range = score_range

    def fit(
        self,
        pair_ids: Sequence[Hashable] | ArrayLike,
        listener_ids: Sequence[Hashable] | ArrayLike,
        ratings: ArrayLike,
    ) -> Self:
        """Learn the scores of pairs and habits of listeners from ratings in any order.

        Parameters
        ----------
        pair_ids, listener_ids : sequence of hashable of length n_ratings
            The pair and the listener of each rating.  A listener may rate a pair repeatedly.
        ratings : array-like of shape (n_ratings,)

        Raises
        ------
        PairsError
            If a setting is unusable, the lengths differ, there is no rating, a rating is not a
            finite number, an id is missing (None, NaN or empty), or a rating lies outside
            `score_range`.
        """
        self.check_settings()
        values, pair_ids, listener_ids = _check_ratings(pair_ids, listener_ids, ratings)
        self.pair_ids_, pair = _numbered(pair_ids, "pair")
        self.listener_ids_, listener = _numbered(listener_ids, "listener")
        low, high = self._ends(values)
        n_pairs, n_listeners = len(self.pair_ids_), len(self.listener_ids_)
        self._screen(pair, values)
        pair, listener, values = (rows[self.counted_] for rows in (pair, listener, values))
        middle = values.mean()  # subtracted to keep rounding errors small
        numbered = NumberedRatings(pair, listener, values - middle, n_pairs, n_listeners)
        offset, own_scale = np.zeros(n_listeners), np.ones(n_listeners)
        if self.standardize:
            offset, own_scale = offsets_and_scales(numbered)
            standardized = (numbered.values - offset[listener]) / own_scale[listener]
            numbered = replace(numbered, values=standardized)
        is_standardized = bool(offset.any() or (own_scale != 1).any())
        if not numbered.listeners_meet and not is_standardized:
            logger.warning(
                "No pair was rated by two listeners, so nobody can tell a good pair from a "
                "lenient listener: the scores are the plain means of the %d ratings.",
                len(values),
            )
        scale, noise = np.ones(n_listeners), np.ones(n_listeners)
        fitted = self._effects(CrossedEquations(numbered, scale, noise))
        learns = numbered.listeners_meet and fitted.noise_variance > 0
        if self.noise and learns:
            noise = relative_noise(numbered, fitted)
            if (noise != 1).any():
                fitted = self._effects(CrossedEquations(numbered, scale, noise))
        if self.scale and learns:
            for _ in range(_SCALE_ITERATIONS):
                scale = listener_scales(numbered, fitted, noise)
                equations = CrossedEquations(numbered, scale, noise)
                fitted = equations.solve(fitted.ratio)
            fitted = self._effects(equations)

        lowest, highest = np.full(n_pairs, np.inf), np.full(n_pairs, -np.inf)
        np.minimum.at(lowest, pair, values)
        np.maximum.at(highest, pair, values)
        if is_standardized or fitted.ratio > 0 or (scale != 1).any():
            scores = np.clip(fitted.scores + middle, low, high)
            for end in (low, high):
                scores[(lowest == end) & (highest == end)] = end
        elif (noise != 1).any():  # clipped, because the mean of equal ratings may round
            scores = np.clip(fitted.scores + middle, lowest, highest)
        else:
            scores = numbered.by_pair(values) / np.bincount(pair, minlength=n_pairs)
        self.scores_: FloatArray = scores
        # On the scale of each listener: offset + own_scale · standardised rating.
        self.bias_, self.scale_ = offset + own_scale * fitted.bias, own_scale * scale
        self.noise_ = own_scale * np.sqrt(fitted.noise_variance * noise)
        self.noise_variance_ = fitted.noise_variance
        self.listener_variance_ = fitted.noise_variance * fitted.ratio
        self.pair_variance_, mean, reliability = pair_prior(scores, fitted.errors)
        self.posterior_means_ = mean + reliability * (scores - mean)
        self.uncertainty_ = reliability * fitted.errors
        average = reliability.mean()
        self.weights_ = reliability / average if average > 0 else np.ones(n_pairs)
        return self

    def scores_for(self, pair_ids: Sequence[Hashable] | ArrayLike) -> FloatArray:
        """Return the scores of some pairs, in the order of `pair_ids`.

        Raises
        ------
        PairsError
            If a pair has no rating.
        """
        rows = self._rows(pair_ids)
        scores: FloatArray = self.scores_[rows]
        return scores

    def weights_for(self, pair_ids: Sequence[Hashable] | ArrayLike) -> FloatArray:
        """Return the weights of some pairs; order and errors as in `scores_for`."""
        rows = self._rows(pair_ids)
        weights: FloatArray = self.weights_[rows]
        return weights

    def check_settings(self) -> None:
        """Check the settings.

        Raises
        ------
        PairsError
            If any is unusable; all are named.
        """
        mistakes = [
            f"{name} must be True or False, got {value!r}"
            for name in ("biases", "noise", "scale", "standardize")
            if not isinstance(value := getattr(self, name), bool | np.bool_)
        ]
        if self.screening is not None and not (
            _is_number(self.screening) and 0 < self.screening < np.inf
        ):
            mistakes.append(
                "screening must be a finite number above 0, the points that two ratings of a pair "
                f"may be apart, or None for none, got {self.screening!r}"
            )
        ends = self.score_range
        if ends is not None and not (
            np.shape(ends) == (2,) and all(map(_is_number, ends)) and ends[0] < ends[1]
        ):
            mistakes.append(f"score_range must be a lower and a higher number, got {ends!r}")
        if mistakes:
            raise PairsError(f"{one_or_all('settings are unusable', mistakes)}.")

    def check_state(self) -> None:
        """Check the learned attributes of a model that was read from a file.

        Raises
        ------
        ModelFileError
            If there is not one number for each pair and each listener.
        """
        n_pairs, n_listeners = (len(self.pair_ids_),), (len(self.listener_ids_),)
        for name in ("scores_", "posterior_means_", "weights_"):
            check_numbers(name, getattr(self, name), n_pairs)
        for name in ("bias_", "scale_"):
            check_numbers(name, getattr(self, name), n_listeners)

    def _rows(self, pair_ids: Sequence[Hashable] | ArrayLike) -> list[int]:
        check_is_fitted(self)
        if isinstance(pair_ids, str):
            raise PairsError(
                f"pair_ids: expected a list of ids, got {pair_ids!r}; write [{pair_ids!r}]."
            )
        wanted = _as_list(pair_ids)
        rows = {pair_id: row for row, pair_id in enumerate(self.pair_ids_)}
        missing = [repr(pair_id) for pair_id in wanted if pair_id not in rows]
        if missing:
            raise PairsError(
                f"{len(missing)} pair(s) have no rating; add some, or leave these pairs out:\n"
                + bullet_list(missing)
            )
        return [rows[pair_id] for pair_id in wanted]

    def _effects(self, equations: CrossedEquations) -> Effects:
        return equations.most_likely() if self.biases else equations.solve(0.0)

    def _screen(self, pair: IntArray, values: FloatArray) -> None:
        """Decide which ratings count, and say what is left of pairs without two that agree."""
        self.counted_ = np.ones(len(values), dtype=bool)
        self.unconfirmed_pair_ids_: tuple[Hashable, ...] = ()
        if self.screening is None:
            return
        self.counted_ = confirmed(pair, values, self.screening)
        alone = np.bincount(pair[self.counted_], minlength=len(self.pair_ids_)) == 0
        self.counted_ |= alone[pair]
        self.unconfirmed_pair_ids_ = tuple(self.pair_ids_[i] for i in np.flatnonzero(alone))
        logger.info(
            "%d of %d ratings do not count: no other rating of their pair is within %g points.",
            *((~self.counted_).sum(), len(values), self.screening),
        )
        if self.unconfirmed_pair_ids_:
            logger.warning(
                "%d of %d pair(s) have no two ratings within %g points of each other; all %d "
                "ratings of these pairs count:\n%s",
                *(len(self.unconfirmed_pair_ids_), len(self.pair_ids_), self.screening),
                *(alone[pair].sum(), bullet_list(map(repr, self.unconfirmed_pair_ids_))),
            )

    def _ends(self, values: FloatArray) -> tuple[float, float]:
        if self.score_range is None:
            return float(values.min()), float(values.max())
        low, high = self.score_range
        outside = np.flatnonzero(~((low <= values) & (values <= high)))
        if len(outside):
            raise PairsError(
                f"{len(outside)} rating(s) lie outside score_range={self.score_range!r}, the first "
                f"in row {outside[0]}: {values[outside[0]]:g}. Give the ends of the rating scale."
            )
        return low, high


def _check_ratings(
    pair_ids: Sequence[Hashable] | ArrayLike,
    listener_ids: Sequence[Hashable] | ArrayLike,
    ratings: ArrayLike,
) -> tuple[FloatArray, list[Hashable], list[Hashable]]:
    values, pairs, listeners = np.asarray(ratings), _as_list(pair_ids), _as_list(listener_ids)
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise PairsError(
            f"ratings: expected one number in each row, got an array of shape {values.shape} and "
            f"type {values.dtype}."
        )
    if not len(pairs) == len(listeners) == len(values):
        raise PairsError(
            f"{len(pairs)} pair ids, {len(listeners)} listener ids and {len(values)} ratings: "
            "expected one of each in every row."
        )
    if not len(values):
        raise PairsError("there is no rating to learn from.")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise PairsError(
            f"{len(bad)} rating(s) are NaN or infinite, the first in row {bad[0]}, of pair "
            f"{pairs[bad[0]]!r}. Leave out the rows without a rating."
        )
    return values.astype(np.float64), pairs, listeners


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _as_list(ids: Sequence[Hashable] | ArrayLike) -> list[Hashable]:
    return ids.tolist() if isinstance(ids, np.ndarray) else list(ids)  # type: ignore[arg-type]


def _numbered(ids: list[Hashable], what: str) -> tuple[tuple[Hashable, ...], IntArray]:
    """Return the distinct ids in order of first appearance, and the index of each row's id."""
    numbers: dict[Hashable, int] = {}
    rows = np.empty(len(ids), dtype=np.intp)
    for row, name in enumerate(ids):
        if name is None or name != name or name == "":
            raise PairsError(f"row {row} has no {what} id: {name!r}. Every rating needs one.")
        rows[row] = numbers.setdefault(name, len(numbers))
    return tuple(numbers), rows
