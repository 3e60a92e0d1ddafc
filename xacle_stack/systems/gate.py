"""The gate of Trust-your-CLAP: where clip and caption are far apart, the cosine is the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from xacle_stack._state_checks import check_numbers, check_width
from xacle_stack._types import FloatArray
from xacle_stack._validation import check_choice, row_weights
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.systems.neural import NeuralRegressor
from xacle_stack.systems.space_vectors import (
    check_space_setting,
    check_vectors_state,
    read_space,
    validate_pairs,
)
from xacle_stack.table import FeatureTable

SCORE_SCALE = 10.0
N_DEVIATIONS = 2.0
# Cosines that differ by less are taken for equal.
ROUNDING = 1e-9
STATISTICS = ("train", "batch")
_FLOAT_TYPES = [np.float64, np.float32]


def scores_together(regressor: Any) -> bool:
    """Return whether a pair's score depends on the others: a gate's statistics are of the batch."""
    settings = regressor.get_params() if hasattr(regressor, "get_params") else {}
    return any(
        name.rpartition("__")[2] == "statistics" and value == "batch"
        for name, value in settings.items()
    )


class GatedRegressor(RegressorMixin, BaseEstimator):
    """Any regressor, except for pairs whose cosine is far below the mean.

    Let C be the cosine of a pair's two vectors, and μ and σ the mean and the standard deviation of
    C.  Where ``C ≤ μ − 2σ``, the score is ``10 · (C − min) / (max − min)``, clipped to [0, 10];
    elsewhere it is the regressor's.

    Parameters
    ----------
    regressor : regressor
        It is cloned.  Its `fit` and `predict` get X as it is, a feature table with all its blocks
        or an array with all columns.
    space : str, optional
        The contrastive space of a feature table whose cosine is used; by default the only one that
        the table has.
    statistics : {"train", "batch"}, default="train"
        The pairs that μ, σ, min and max are taken from.  "train" takes the training pairs, so that
        a pair's score depends on that pair only.  "batch" takes the pairs that are scored together,
        as published; a pair's score then depends on the others.  If all these C are equal, no pair
        is gated.

    Attributes
    ----------
    regressor_ : regressor
    mean_, deviation_ : float
        The mean and the standard deviation of the training pairs' cosines, with the pairs' weights.
    min_, max_ : float
        The lowest and the highest cosine of the training pairs whose weight is above 0.
    spaces_ : tuple of str
        The name of the space; empty after a fit on a plain array.
    widths_ : list of (int, int)
        The lengths of the clip's and the caption's vector.

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

    regressor_: Any

    def __init__(
        self,
        regressor: BaseEstimator,
        space: str | None = None,
        statistics: Literal["train", "batch"] = "train",
    ) -> None:
        self.regressor = regressor
        self.space = space
        self.statistics = statistics

    @property
    def takes_tables(self) -> bool:
        """Whether the regressor behind the gate takes feature tables."""
        return bool(getattr(self.regressor, "takes_tables", False))

    def check_settings(self) -> None:
        """Check all settings, also the regressor's, without data, or raise a StackingError."""
        check_space_setting(self.space)
        check_choice("statistics", self.statistics, STATISTICS)
        if callable(check := getattr(self.regressor, "check_settings", None)):
            check()

    def fit(
        self,
        X: FeatureTable | ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[FeatureTable | ArrayLike, ArrayLike] | None = None,
    ) -> Self:
        """Fit the regressor and the statistics of the cosines.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, n_features)
            Without names, the clips' vectors are the first half of the columns and the captions'
            the second; the middle one of an odd number of columns belongs to both.
        y : array-like of shape (n_pairs,)
            Scores, 0–10.
        groups : array-like of shape (n_pairs,), optional
            For the regressor, if it takes them.
        sample_weight : array-like of shape (n_pairs,), optional
            For the regressor, which must take them, and for the statistics.
        eval_set : (X, y), optional
            For the regressor, if it takes one.

        Raises
        ------
        StackingError
            If the two vectors differ in length, the table does not have them, or the regressor
            takes no weights.
        KeyboardInterrupt
            If the user ends the training of a network.  If it is usable, with the best epoch so
            far, the gate is fitted nevertheless.
        """
        if hasattr(self, "regressor_"):
            del self.regressor_
        self.check_settings()
        checked, scores = validate_pairs(self, X, y, reset=True, dtype=_FLOAT_TYPES)
        found = _Statistics.from_cosines(self._cosines(checked, reset=True), sample_weight)
        self.mean_, self.deviation_ = found.mean, found.deviation
        self.min_, self.max_ = found.min, found.max
        regressor = clone(self.regressor)
        arguments: dict[str, Any] = {}
        for name, value in (("groups", groups), ("eval_set", eval_set)):
            if value is not None and has_fit_parameter(regressor, name):
                arguments[name] = value
        if sample_weight is not None:
            if not has_fit_parameter(regressor, "sample_weight"):
                raise StackingError(
                    f"sample_weight: the regressor ({type(regressor).__name__}) takes none. Leave "
                    "the weights out, or give a regressor that does."
                )
            arguments["sample_weight"] = sample_weight
        try:
            regressor.fit(checked, scores, **arguments)
        except KeyboardInterrupt:
            if isinstance(regressor, NeuralRegressor) and regressor.__sklearn_is_fitted__():
                self.regressor_ = regressor
            raise
        self.regressor_ = regressor
        return self

    def predict(self, X: FeatureTable | ArrayLike) -> FloatArray:
        """Return the scores of pairs, shape (n_pairs,)."""
        check_is_fitted(self)
        checked, _ = validate_pairs(self, X, reset=False, dtype=_FLOAT_TYPES)
        cosines = self._cosines(checked, reset=False)
        if self.statistics == "batch":
            statistics = _Statistics.from_cosines(cosines, None)
        else:
            statistics = _Statistics(self.mean_, self.deviation_, self.min_, self.max_)
        scores: FloatArray = np.asarray(self.regressor_.predict(checked), dtype=np.float64)
        if scores.shape != cosines.shape:
            raise ModelFileError(
                f"the regressor predicts an array of shape {scores.shape} for {len(cosines)} pairs."
            )
        return np.where(statistics.is_gated(cosines), statistics.scaled(cosines), scores)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "regressor_")

    def check_state(self) -> None:
        """Check what a regressor from a file has learned; a ModelFileError says what is wrong."""
        for name in ("mean_", "deviation_", "min_", "max_"):
            check_numbers(name, getattr(self, name), ())
        check_vectors_state(self)
        n_audio, n_text = self.widths_[0]
        if n_audio != n_text:
            raise ModelFileError(f"widths_ is {self.widths_!r}, expected two equal lengths.")
        # Networks check themselves once PyTorch is there, and `predict` checks what a table gives.
        if self.spaces_ or isinstance(self.regressor_, NeuralRegressor):
            return
        n_columns = check_width(self.n_features_in_)
        for n_rows in (1, 3):  # a wrong shape may broadcast to one row, but not also to three
            with np.errstate(all="ignore"):
                predicted = self.regressor_.predict(np.ones((n_rows, n_columns)))
            check_numbers("the regressor's prediction", predicted, (n_rows,))

    def _cosines(self, X: FeatureTable | FloatArray, *, reset: bool) -> FloatArray:
        """Return each pair's cosine, 0 where one of its vectors is zero."""
        audio, text = read_space(self, X, self.space, reset=reset)
        if audio.shape[1] != text.shape[1]:
            raise StackingError(
                f"the clip's vector has {audio.shape[1]} columns and the caption's "
                f"{text.shape[1]}: there is no cosine between them. Name a contrastive space."
            )
        # With contiguous rows, a row's rounding does not depend on the number of rows.
        a, b = (
            normalize(np.array(vectors, dtype=np.float64, order="C"), copy=False)
            for vectors in (audio, text)
        )
        cosines: FloatArray = np.einsum("nd,nd->n", a, b)
        return cosines


@dataclass(frozen=True)
class _Statistics:
    """Statistics of the cosines of a set of pairs."""

    mean: float
    deviation: float
    min: float
    max: float

    @classmethod
    def from_cosines(cls, cosines: FloatArray, weights: ArrayLike | None) -> Self:
        mass = row_weights(len(cosines), weights)
        mean = float(np.average(cosines, weights=mass))
        variance = float(np.average(np.square(cosines - mean), weights=mass))
        present = cosines[mass > 0]
        return cls(mean, float(np.sqrt(variance)), float(present.min()), float(present.max()))

    def is_gated(self, cosines: FloatArray) -> NDArray[np.bool_]:
        """Return which pairs are far below the mean."""
        if self.max - self.min <= ROUNDING:
            return np.zeros(len(cosines), dtype=bool)
        return cosines <= self.mean - N_DEVIATIONS * self.deviation

    def scaled(self, cosines: FloatArray) -> FloatArray:
        """Return the scores that the cosines alone stand for."""
        extent = max(self.max - self.min, ROUNDING)
        shares: FloatArray = (cosines - self.min) / extent
        return SCORE_SCALE * np.clip(shares, 0.0, 1.0)
