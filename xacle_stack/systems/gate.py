"""The gate of Trust-your-CLAP: where clip and caption are far apart, the cosine is the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from xacle_stack._state_checks import check_numbers, check_width
from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError, UnknownNameError
from xacle_stack.systems.neural import NeuralRegressor
from xacle_stack.systems.pair_columns import AudioColumns, check_halves, pair_columns, width

SCORE_SCALE = 10.0
N_DEVIATIONS = 2.0
# Cosines that differ by less are equal.
ROUNDING = 1e-9
STATISTICS = ("train", "batch")


class GatedRegressor(RegressorMixin, BaseEstimator):
    """Any regressor, but for pairs whose cosine is far below the mean.

    With C the cosine of a pair's two vectors, μ and σ mean and standard deviation of C: where
    ``C ≤ μ − 2σ`` the score is ``10 · (C − min) / (max − min)``, within [0, 10]; elsewhere it is
    the regressor's.

    Parameters
    ----------
    regressor : regressor
        Cloned; it sees all columns, and gets from `fit` what its own takes.
    audio : slice or sequence of slice, optional
        Columns of the clip's vector; of several (augmented views) the first.
    text : slice, optional
        Columns of the caption's vector, in the same space.  Without `audio` and `text`, the first
        half of the columns is the clip's and the second the caption's; the middle one of an odd
        number belongs to both.
    statistics : {"train", "batch"}, default="train"
        Whose μ, σ, least and greatest C: "train" those of the training pairs, so that a pair's
        score is its own.  "batch" those of the pairs scored together, as published: a pair's score
        then depends on the others.  Where all these C are equal, nothing is gated.

    Attributes
    ----------
    regressor_ : regressor
    mean_, deviation_, least_, greatest_ : float
        Of the training pairs' cosines; mean and deviation with the pairs' weights, least and
        greatest among those of weight above 0.
    was_interrupted_ : bool
        Whether Ctrl-C ended the regressor's training.

    References
    ----------
    Niizumi et al. 2026, Trust-your-CLAP, technical report of the XACLE challenge.

    Examples
    --------
    >>> from sklearn.dummy import DummyRegressor
    >>> angle = np.append(np.full(20, 0.3), [0.2, 3.0])
    >>> X = np.column_stack([np.cos(angle), np.sin(angle), np.ones(22), np.zeros(22)])
    >>> GatedRegressor(DummyRegressor(constant=5, strategy="constant")).fit(X, X[:, 0]).predict(
    ...     X[-3:]
    ... )
    array([5., 5., 0.])
    """

    def __init__(
        self,
        regressor: BaseEstimator,
        audio: AudioColumns | None = None,
        text: slice | None = None,
        statistics: Literal["train", "batch"] = "train",
    ) -> None:
        self.regressor = regressor
        self.audio = audio
        self.text = text
        self.statistics = statistics

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> Self:
        """Fit the regressor and the statistics of the cosines.

        Parameters
        ----------
        X : array-like of shape (n_pairs, n_features)
        y : array-like of shape (n_pairs,)
            Scores, 0–10.
        groups : array-like of shape (n_pairs,), optional
            For the regressor, if it takes them.
        sample_weight : array-like of shape (n_pairs,), optional
            For the regressor, which must take them, and for the statistics.
        eval_set : (X, y), optional
            For the regressor, if it takes one.

        Returns
        -------
        self : GatedRegressor

        Raises
        ------
        StackingError
            If the two vectors differ in length, X is a feature table whose columns nobody has
            named, or the regressor takes no weights.
        """
        if self.statistics not in STATISTICS:
            raise UnknownNameError(
                f"statistics {self.statistics!r}; expected one of {list(STATISTICS)}."
            )
        if self.audio is None:
            check_halves(X)
        table: FloatArray
        scores: FloatArray
        table, scores = validate_data(
            self, X, y, y_numeric=True, ensure_min_samples=2, dtype=[np.float64, np.float32]
        )
        regressor = clone(self.regressor)
        extra: dict[str, Any] = {}
        for name, value in (("groups", groups), ("eval_set", eval_set)):
            if value is not None and has_fit_parameter(regressor, name):
                extra[name] = value
        if sample_weight is not None:
            if not has_fit_parameter(regressor, "sample_weight"):
                raise StackingError(
                    f"sample_weight: the regressor ({type(regressor).__name__}) takes none. Leave "
                    "the weights out, or give a regressor that does."
                )
            extra["sample_weight"] = sample_weight
        self.regressor_ = regressor.fit(table, scores, **extra)
        self.was_interrupted_ = getattr(self.regressor_, "was_interrupted_", False)
        found = _Statistics.of(self._cosines(table), sample_weight)
        self.mean_, self.deviation_ = found.mean, found.deviation
        self.least_, self.greatest_ = found.least, found.greatest
        return self

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return the scores of pairs, shape (n_pairs,)."""
        check_is_fitted(self)
        table: FloatArray = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        cosines = self._cosines(table)
        of = _Statistics(self.mean_, self.deviation_, self.least_, self.greatest_)
        if self.statistics == "batch":
            of = _Statistics.of(cosines, None)
        scores: FloatArray = np.asarray(self.regressor_.predict(table), dtype=np.float64)
        return np.where(of.gated(cosines), of.scaled(cosines), scores)

    def check_state(self) -> None:
        """Check what a regressor from a file has learned.

        Raises
        ------
        ModelFileError
            If the statistics are no numbers, or the regressor makes something else than one number
            of one pair.
        """
        for name in ("mean_", "deviation_", "least_", "greatest_"):
            check_numbers(name, getattr(self, name), ())
        n_columns = self.n_features_in_
        self._cosines(np.ones((1, check_width(n_columns))))
        if isinstance(self.regressor_, NeuralRegressor):  # it checks itself, once there is PyTorch
            return
        for n_rows in (1, 3):  # what fits one row only does not fit three
            with np.errstate(all="ignore"):
                predicted = self.regressor_.predict(np.ones((n_rows, n_columns)))
            check_numbers("what the regressor predicts", predicted, (n_rows,))

    def _cosines(self, table: FloatArray) -> FloatArray:
        """Return each pair's cosine, 0 where one of its vectors is."""
        views, text = pair_columns(table.shape[1], self.audio, self.text)
        if width(views[0]) != width(text):
            raise StackingError(
                f"the clip's vector has {width(views[0])} columns and the caption's {width(text)}: "
                "there is no cosine between them. Give the columns of one contrastive space."
            )
        # In rows one after the other: otherwise a row's last digits depend on how many there are.
        a, b = (
            normalize(np.array(table[:, columns], dtype=np.float64, order="C"), copy=False)
            for columns in (views[0], text)
        )
        cosines: FloatArray = np.einsum("nd,nd->n", a, b)
        return cosines


@dataclass(frozen=True)
class _Statistics:
    """Of the cosines of a set of pairs."""

    mean: float
    deviation: float
    least: float
    greatest: float

    @classmethod
    def of(cls, cosines: FloatArray, weights: ArrayLike | None) -> Self:
        mass = np.ones(len(cosines)) if weights is None else np.asarray(weights, dtype=np.float64)
        mean = float(np.average(cosines, weights=mass))
        variance = float(np.average(np.square(cosines - mean), weights=mass))
        some = cosines[mass > 0]
        return cls(mean, float(np.sqrt(variance)), float(some.min()), float(some.max()))

    def gated(self, cosines: FloatArray) -> Any:
        """Return which pairs are far below the mean."""
        if self.greatest - self.least <= ROUNDING:
            return np.zeros(len(cosines), dtype=bool)
        return cosines <= self.mean - N_DEVIATIONS * self.deviation

    def scaled(self, cosines: FloatArray) -> FloatArray:
        """Return scores of the cosines alone."""
        extent = max(self.greatest - self.least, ROUNDING)
        scores: FloatArray = (cosines - self.least) / extent
        return SCORE_SCALE * np.clip(scores, 0.0, 1.0)
