"""The SVR ensemble, second of the XACLE challenge: two support vector regressions and their blend.

Source: github.com/Snehitc/EnsembleSVR-XACLE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from xacle_stack._rows import row_blocks
from xacle_stack._state_checks import check_numbers
from xacle_stack._threads import one_thread
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import (
    check_choice,
    check_not_negative,
    check_positive,
    check_whole_number,
    row_weights,
)
from xacle_stack.errors import ModelFileError
from xacle_stack.features import proximities
from xacle_stack.features.pair import normalised_pairs
from xacle_stack.stacking.folds import Fold, check_fold_weights, split_folds
from xacle_stack.systems.losses import centred, uncentred
from xacle_stack.systems.space_vectors import (
    Vectors,
    check_spaces_setting,
    check_vectors_state,
    read_vectors,
    spaces_in,
    validate_pairs,
)
from xacle_stack.table import FeatureTable

BLENDS = ("out-of-fold", "in-sample")
_FLOAT_TYPES = [np.float64, np.float32]
# libsvm's default, 1e-3, leaves scores open by .002, which the order of the rows then decides; this
# takes half as many steps again.
_TOLERANCE = 1e-6
_TINY = float(np.finfo(np.float64).tiny)
# Exactly so many rows are predicted at a time, so that a pair alone gets the same bits as among
# others.  The height is a multiple of what the kernels of OpenBLAS do at a time.
_TILE = 48


@dataclass(frozen=True, eq=False)
class SupportVectors:
    """A fitted regression ``f(x) = Σ_i c_i exp(−γ |z − z_i|²) + b``, with z the standardised x.

    Attributes
    ----------
    spaces : tuple of str
        The spaces whose vectors and proximities stand in x.
    mean, scale : ndarray of shape (n_features,)
        Of the training rows.
    vectors : ndarray of shape (n_support, n_features)
        The z_i.
    dual_coef : ndarray of shape (n_support,)
    intercept : float
    gamma : float
    """

    spaces: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    vectors: FloatArray
    dual_coef: FloatArray
    intercept: float
    gamma: float

    def predict(self, X: FloatArray) -> FloatArray:
        """Return predictions of shape (n_rows,); each one's bits depend on its own row only."""
        n_padded = -(-len(X) // _TILE) * _TILE
        rows = np.zeros((n_padded, X.shape[1]))
        rows[: len(X)] = standardised(X, self.mean, self.scale)
        predicted = np.full(n_padded, self.intercept)
        for some in row_blocks(0, len(self.vectors)):
            vectors = self.vectors[some].astype(np.float64)
            for tile in row_blocks(0, n_padded, _TILE):
                kernel = rbf_kernel(rows[tile], vectors, self.gamma)
                predicted[tile] += kernel @ self.dual_coef[some]
        return predicted[: len(X)]

    def check_state(self) -> None:
        """Check arrays from a file against each other; a ModelFileError says what is wrong."""
        names = self.spaces if isinstance(self.spaces, tuple) else [None]
        if not names or not all(isinstance(name, str) for name in names):
            raise ModelFileError(f"spaces is {self.spaces!r}, expected a tuple of names.")
        check_numbers("mean", self.mean, (None,))
        n_features = len(self.mean)
        check_numbers("scale", self.scale, (n_features,), minimum=_TINY)
        check_numbers("vectors", self.vectors, (None, n_features))
        check_numbers("dual_coef", self.dual_coef, (len(self.vectors),))
        check_numbers("intercept", self.intercept, ())
        check_numbers("gamma", self.gamma, (), minimum=0)


class SVREnsembleRegressor(RegressorMixin, BaseEstimator):
    """Two support vector regressions on pairs' vectors and proximities, blended.

    A and B each see, of each of their spaces, the clip's and the caption's vector at unit length
    and their :func:`~xacle_stack.features.proximities`, all standardised.  Their kernel is
    ``exp(−γ |z − z'|²)``, and they are trained on ``(y − 5) / 5``.  The score is ``w A + (1 − w)
    B``, where w in [0, 1] minimises the squared error of predictions for the training pairs.

    The kernel between all training pairs is held in memory, 8 n² bytes: 0.5 GB of 8,000 pairs, 2 GB
    of 16,000.  It is computed once for A and once for B, and for each the `n_splits` + 1
    regressions are trained on its parts, in a time between the square and the cube of n.  Scoring
    takes a time that is proportional to n, and a saved model has most of the training pairs'
    features.  Above about 20,000 pairs, take the stack with ``preset="paper"`` instead.

    Parameters
    ----------
    spaces_a, spaces_b : sequence of str, optional
        The spaces of a feature table that A and B see, by default all.
    C : float, default=0.5
        The penalty of errors, in units of five scores.  Less regularises more.
    gamma : "scale" or float, default="scale"
        "scale" is one over the mean squared length of the standardised training rows.
    epsilon_a, epsilon_b : float, default=0.08 and 0.02
        Errors up to this, in units of five scores, cost nothing.
    blend : {"out-of-fold", "in-sample"}, default="out-of-fold"
        The predictions that w is learned from: those by regressions that were not trained on the
        pair, nor on any pair of its group, or, as published, those of the trained pairs.  In-sample
        errors are small where a regression overfits, so the latter prefers the one that does.
    n_splits : int, default=5
        The number of folds.
    random_state : int, RandomState or None, default=0
        Draws the folds.

    Attributes
    ----------
    members_ : list of SupportVectors
        A and B.
    blend_weights_ : ndarray of shape (2,)
        w and 1 − w.
    oof_predictions_ : ndarray of shape (n_pairs, 2) or None
        The out-of-fold scores by A and by B that w was learned from; None if it was in-sample.
    spaces_ : tuple of str
        The spaces of both; empty after a fit on a plain array.
    widths_ : list of (int, int)
        The lengths of the clip's and the caption's vector in each space.

    Notes
    -----
    The published code differs in details that make a score depend on the pairs scored with it, or
    that standardising undoes: it divides both distances by the largest of the set, and whole rows,
    not each vector, by their length.  Its weights may be negative and have any sum.

    References
    ----------
    github.com/Snehitc/EnsembleSVR-XACLE, the code of the system that came second in 2026.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b = rng.normal(size=(2, 100, 3))
    >>> y = 5 + 3 * np.cos(np.linalg.norm(a - b, axis=1))
    >>> model = SVREnsembleRegressor().fit(np.hstack([a, b]), y)
    >>> bool(model.blend_weights_.sum() == 1), model.predict(np.hstack([a, b])[:2]).shape
    (True, (2,))
    """

    takes_tables = True

    def __init__(
        self,
        spaces_a: Sequence[str] | None = None,
        spaces_b: Sequence[str] | None = None,
        *,
        C: float = 0.5,
        gamma: float | Literal["scale"] = "scale",
        epsilon_a: float = 0.08,
        epsilon_b: float = 0.02,
        blend: Literal["out-of-fold", "in-sample"] = "out-of-fold",
        n_splits: int = 5,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.spaces_a = spaces_a
        self.spaces_b = spaces_b
        self.C = C
        self.gamma = gamma
        self.epsilon_a = epsilon_a
        self.epsilon_b = epsilon_b
        self.blend = blend
        self.n_splits = n_splits
        self.random_state = random_state

    def check_settings(self) -> None:
        """Check the settings, without data; a StackingError says which is unusable."""
        for name in ("spaces_a", "spaces_b"):
            check_spaces_setting(getattr(self, name), name)
        check_positive("C", self.C)
        if isinstance(self.gamma, str):
            check_choice("gamma", self.gamma, ["scale"])
        else:
            check_positive("gamma", self.gamma)
        check_not_negative("epsilon_a", self.epsilon_a)
        check_not_negative("epsilon_b", self.epsilon_b)
        check_choice("blend", self.blend, BLENDS)
        check_whole_number("n_splits", self.n_splits, minimum=2)

    @property
    def n_folds(self) -> int | None:
        """The number of folds that `fit` makes; None where it makes none."""
        return self.n_splits if self.blend == "out-of-fold" else None

    def fit(
        self,
        X: FeatureTable | ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train both regressions, and learn how to blend them.

        Parameters
        ----------
        X : FeatureTable or array-like of shape (n_pairs, 2 * n_dims)
            Without names, the clips' vectors are the first half of the columns and the captions'
            the second; the middle one of an odd number of columns belongs to both.
        y : array-like of shape (n_pairs,)
            Scores, 0–10.
        groups : array-like of shape (n_pairs,), optional
            Rows with equal labels are held out together, for example those of a caption.
        sample_weight : array-like of shape (n_pairs,), optional
            `C` is multiplied by a row's weight.

        Raises
        ------
        FeatureError
            If a vector is zero, or the two vectors of a pair differ in length.
        StackingError
            If the table does not have the vectors of a space, there are too few pairs or groups for
            the folds, or the weights leave nothing to train on.
        """
        self.check_settings()
        checked, scores = validate_pairs(self, X, y, reset=True, dtype=_FLOAT_TYPES)
        weights = row_weights(len(scores), sample_weight)
        rows = np.arange(len(scores))
        folds = [(rows, rows)]
        if self.n_folds is not None:
            rng = check_random_state(self.random_state)
            folds = split_folds(len(scores), groups, self.n_folds, rng)
            check_fold_weights(folds, weights)
        known = spaces_in(checked) if isinstance(checked, FeatureTable) else []
        chosen = [known if one is None else [*one] for one in (self.spaces_a, self.spaces_b)]
        wanted = [*dict.fromkeys(space for spaces in chosen for space in spaces)]
        vectors = self._read(checked, wanted or None, reset=True)
        targets = centred(scores.astype(np.float64))
        self.members_: list[SupportVectors] = []
        columns = []
        with one_thread():
            for spaces, epsilon in zip(chosen, (self.epsilon_a, self.epsilon_b), strict=True):
                names = tuple(spaces or vectors)
                features = _features([vectors[name] for name in names])
                member, predicted = self._fit_one(names, features, targets, weights, folds, epsilon)
                self.members_.append(member)
                columns.append(predicted)
        share = _best_share(targets, columns[0], columns[1], weights)
        self.blend_weights_ = np.array([share, 1 - share])
        self.oof_predictions_ = None if self.n_folds is None else uncentred(np.stack(columns, 1))
        return self

    def predict(self, X: FeatureTable | ArrayLike) -> FloatArray:
        """Return scores of shape (n_pairs,); each depends on its own pair only."""
        check_is_fitted(self)
        checked, _ = validate_pairs(self, X, reset=False, dtype=_FLOAT_TYPES)
        vectors = self._read(checked, None, reset=False)
        blended = np.zeros(len(checked))
        with one_thread():
            for rows in row_blocks(0, len(checked)):
                for weight, member in zip(self.blend_weights_, self.members_, strict=True):
                    of_rows = [
                        (a[rows], b[rows]) for a, b in (vectors[space] for space in member.spaces)
                    ]
                    blended[rows] += weight * member.predict(_features(of_rows))
        return uncentred(blended)

    def check_state(self) -> None:
        """Check what a regressor from a file has learned; a ModelFileError says what is wrong."""
        self.check_settings()
        check_vectors_state(self)
        check_numbers("blend_weights_", self.blend_weights_, (2,), minimum=0)
        kinds = [type(member) for member in self.members_]
        if kinds != [SupportVectors] * 2:
            raise ModelFileError(f"members_ are {kinds}, expected two SupportVectors.")
        widths = dict(zip(self._space_names, self.widths_, strict=True))
        for member in self.members_:
            n_features = sum(sum(widths[space]) + 4 for space in member.spaces)
            check_numbers("mean", member.mean, (n_features,))

    @property
    def _space_names(self) -> tuple[str, ...]:
        """The names of the spaces; an array's vectors go by an empty one."""
        return self.spaces_ or ("",)

    def _read(self, X: Any, spaces: Sequence[str] | None, *, reset: bool) -> dict[str, Vectors]:
        vectors = read_vectors(self, X, spaces, reset=reset)
        return dict(zip(self._space_names, vectors, strict=True))

    def _fit_one(
        self,
        spaces: tuple[str, ...],
        features: FloatArray,
        targets: FloatArray,
        weights: FloatArray,
        folds: Sequence[Fold],
        epsilon: float,
    ) -> tuple[SupportVectors, FloatArray]:
        """Return a regression on all rows, and the predictions that the blend is learned from.

        What does not depend on scores, the standardisation and the kernel, is that of all rows, and
        computed once by BLAS.  libsvm would compute every entry by itself, for every fold.
        """
        scaler = StandardScaler().fit(features, sample_weight=weights)
        rows = standardised(features, scaler.mean_, scaler.scale_)
        gamma = self.gamma
        if isinstance(gamma, str):
            mean_square = np.average(np.square(rows).sum(axis=1, dtype=np.float64), weights=weights)
            gamma = 1 / mean_square if mean_square > 0 else 1.0
        kernel = rbf_kernel(rows.astype(np.float64), None, gamma)
        regression = SVR(kernel="precomputed", C=self.C, epsilon=epsilon, tol=_TOLERANCE)

        def trained(train: IntArray) -> tuple[IntArray, FloatArray, float]:
            train = train[weights[train] > 0]
            part = kernel if len(train) == len(kernel) else kernel[np.ix_(train, train)]
            fitted = regression.fit(part, targets[train], weights[train])
            return train[fitted.support_], fitted.dual_coef_[0], float(fitted.intercept_[0])

        support, dual_coef, intercept = trained(np.arange(len(rows)))
        member = SupportVectors(
            spaces, scaler.mean_, scaler.scale_, rows[support], dual_coef, intercept, float(gamma)
        )
        predicted = np.empty(len(rows))
        for train, held_out in folds:
            if len(train) < len(rows):
                support, dual_coef, intercept = trained(train)
            predicted[held_out] = kernel[np.ix_(held_out, support)] @ dual_coef + intercept
        return member, predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def standardised(X: FloatArray, mean: FloatArray, scale: FloatArray) -> FloatArray:
    """Return ``(X − mean) / scale`` in the type of X."""
    return ((X - mean) / scale).astype(X.dtype, copy=False)


def rbf_kernel(X: FloatArray, Z: FloatArray | None, gamma: float) -> FloatArray:
    """Return ``exp(−γ |x − z|²)``, shape (n_rows, n_others), of float64 rows; among X without Z."""
    others = X if Z is None else Z
    half_squares = [0.5 * np.square(rows).sum(axis=1) for rows in (X, others)]
    kernel: FloatArray = X @ others.T
    kernel -= half_squares[0][:, np.newaxis]
    kernel -= half_squares[1]
    kernel *= 2 * gamma
    np.minimum(kernel, 0, out=kernel)  # not above by rounding
    return np.exp(kernel, out=kernel)


def _features(vectors: Sequence[Vectors]) -> FloatArray:
    parts: list[FloatArray] = []
    for audio, text in vectors:
        parts += [*normalised_pairs(audio, text), proximities(audio, text)]
    return np.concatenate(parts, axis=1)


def _best_share(y: FloatArray, first: FloatArray, second: FloatArray, weights: FloatArray) -> float:
    """Return w in [0, 1] that minimises the weighted mean of ``(y − w first − (1 − w) second)²``.

    Without bounds it would be the regression of ``y − second`` on ``first − second``.
    """
    difference = first - second
    square = float(weights @ np.square(difference))
    if not square > 0:
        return 0.5
    return float(np.clip(weights @ (difference * (y - second)) / square, 0.0, 1.0))
