"""Crossed effects of pairs (fixed) and listeners (random): equations, likelihood, errors.

With ratings y, weights w and listeners' scales s, scores m and biases b solve

``Σ_j w s (y − s m_i − b_j) = 0`` for each pair i,
``Σ_i w (y − s m_i − b_j) = b_j σ²/σ_b²`` for each listener j.

Both blocks are diagonal in themselves.  The larger one is eliminated; what is left is dense and has
one row for each member of the smaller.

Source: Henderson 1975 (best linear unbiased prediction); Patterson and Thompson 1971 (REML).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, sparse

from xacle_stack._types import FloatArray, IntArray

# Twice the log-likelihood that a variance must gain: 1 % of ½χ²(0) + ½χ²(1), because it is not < 0.
SHOWN = 5.41
# σ_b²/σ² is looked for between these.
_LEAST_RATIO, _GREATEST_RATIO = 1e-4, 1e4
_BLOCK = 1024


@dataclass(frozen=True)
class NumberedRatings:
    """Ratings with numbers in place of ids; arrays of shape (n_ratings,)."""

    pair: IntArray
    listener: IntArray
    values: FloatArray
    n_pairs: int
    n_listeners: int

    @property
    def listeners_meet(self) -> bool:
        """Whether any pair was rated by two listeners."""
        first = np.full(self.n_pairs, self.n_listeners)
        np.minimum.at(first, self.pair, self.listener)
        return bool((first[self.pair] != self.listener).any())

    def by_pair(self, values: FloatArray) -> FloatArray:
        """Sum over the ratings of each pair, shape (n_pairs,)."""
        return np.asarray(np.bincount(self.pair, values, self.n_pairs), dtype=np.float64)

    def by_listener(self, values: FloatArray) -> FloatArray:
        """Sum over the ratings of each listener, shape (n_listeners,)."""
        return np.asarray(np.bincount(self.listener, values, self.n_listeners), dtype=np.float64)


@dataclass(frozen=True)
class Effects:
    """Scores and biases at one ratio of variances.

    Attributes
    ----------
    ratio : float
        σ_b²/σ²; 0 for no biases.
    scores : ndarray of shape (n_pairs,)
    bias : ndarray of shape (n_listeners,)
    errors : ndarray of shape (n_pairs,)
        Variance of each score's error; NaN where no pair has two ratings.
    noise_variance : float
        σ², of a rating of weight 1.
    residuals : ndarray of shape (n_ratings,)
    doubt : ndarray of shape (n_ratings,)
        Variance of each rating's fitted value, divided by σ².
    """

    ratio: float
    scores: FloatArray
    bias: FloatArray
    errors: FloatArray
    noise_variance: float
    residuals: FloatArray
    doubt: FloatArray


class CrossedEquations:
    """The equations for given scales and relative noise variances of the listeners.

    Parameters
    ----------
    ratings : NumberedRatings
    scale, noise : ndarray of shape (n_listeners,)
    """

    def __init__(self, ratings: NumberedRatings, scale: FloatArray, noise: FloatArray) -> None:
        self.ratings = ratings
        self.scale = scale[ratings.listener]
        weight = 1 / noise[ratings.listener]
        weighted = weight * self.scale
        self.of_pairs = ratings.by_pair(weighted * self.scale)
        self.of_listeners = ratings.by_listener(weight)
        self.crossed = sparse.csr_matrix(
            (weighted, (ratings.pair, ratings.listener)),
            shape=(ratings.n_pairs, ratings.n_listeners),
        )
        self.pair_side = ratings.by_pair(weighted * ratings.values)
        self.listener_side = ratings.by_listener(weight * ratings.values)
        self.total = float((weight * ratings.values**2).sum())
        self.n_contrasts = len(ratings.values) - ratings.n_pairs

    def most_likely(self) -> Effects:
        """Solve at the ratio of the greatest restricted likelihood, or without biases.

        Biases are left out where they gain less than :data:`SHOWN`.
        """
        unbiased = self.solve(0.0)
        left_over = unbiased.noise_variance * self.n_contrasts
        if not self.ratings.listeners_meet or not left_over > 0:
            return unbiased
        bounds = np.log(_LEAST_RATIO), np.log(_GREATEST_RATIO)
        found = optimize.minimize_scalar(
            lambda log_ratio: self.deviance(float(np.exp(log_ratio))),
            bounds=bounds,
            method="bounded",
            options={"xatol": 0.02},
        )
        without = float(np.log(self.of_pairs).sum() + self.n_contrasts * np.log(left_over))
        return self.solve(float(np.exp(found.x))) if without - found.fun > SHOWN else unbiased

    def deviance(self, ratio: float) -> float:
        """Return −2 log restricted likelihood, up to a constant, with σ² profiled out."""
        eliminated = self._eliminate(ratio)
        left_over = self._left_over(*self._effects(eliminated))
        return (
            eliminated.log_determinant
            + self.ratings.n_listeners * float(np.log(ratio))
            + self.n_contrasts * float(np.log(max(left_over, 1e-12 * self.total)))
        )

    def solve(self, ratio: float) -> Effects:
        """Return the best linear unbiased scores and biases, with their errors."""
        pair, listener = self.ratings.pair, self.ratings.listener
        if ratio == 0:
            scores, bias = self.pair_side / self.of_pairs, np.zeros(self.ratings.n_listeners)
            of_score, of_bias, together = 1 / self.of_pairs, bias, np.zeros(len(pair))
        else:
            eliminated = self._eliminate(ratio)
            scores, bias = self._effects(eliminated)
            of_score, of_bias, together = self._variances(eliminated)
        left_over = self._left_over(scores, bias)
        variance = left_over / self.n_contrasts if self.n_contrasts else float("nan")
        residuals = self.ratings.values - self.scale * scores[pair] - bias[listener]
        doubt = self.scale**2 * of_score[pair] + of_bias[listener] + 2 * self.scale * together
        return Effects(ratio, scores, bias, variance * of_score, variance, residuals, doubt)

    def _left_over(self, scores: FloatArray, bias: FloatArray) -> float:
        """Return the weighted squares that the effects leave; 0 where only rounding is left."""
        left_over = float(self.total - self.pair_side @ scores - self.listener_side @ bias)
        return left_over if left_over > 1e-12 * self.total else 0.0

    def _eliminate(self, ratio: float) -> _Eliminated:
        of_listeners = self.of_listeners + 1 / ratio
        pairs_go = self.ratings.n_pairs >= self.ratings.n_listeners
        gone, kept = (self.of_pairs, of_listeners) if pairs_go else (of_listeners, self.of_pairs)
        crossed = self.crossed if pairs_go else self.crossed.T.tocsr()
        shares = (sparse.diags(1 / gone) @ crossed).tocsr()
        schur = -(crossed.T @ shares).toarray()
        schur[np.diag_indices_from(schur)] += kept
        factor = linalg.cholesky(schur, lower=True, overwrite_a=True, check_finite=False)
        return _Eliminated(pairs_go, gone, shares, factor)

    def _effects(self, eliminated: _Eliminated) -> tuple[FloatArray, FloatArray]:
        gone_side, kept_side = self.pair_side, self.listener_side
        if not eliminated.pairs_go:
            gone_side, kept_side = kept_side, gone_side
        shares = eliminated.shares
        kept = linalg.cho_solve((eliminated.factor, True), kept_side - shares.T @ gone_side)
        gone = gone_side / eliminated.gone - shares @ kept
        return (gone, kept) if eliminated.pairs_go else (kept, gone)

    def _variances(self, eliminated: _Eliminated) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the variances of scores and biases, and their covariance for each rating."""
        inverse, _ = linalg.lapack.dpotri(eliminated.factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        shares = eliminated.shares
        # Of the product only the cells that hold a rating are needed.
        cells = shares.copy()
        for start in range(0, shares.shape[0], _BLOCK):
            rows = shares[start : start + _BLOCK]
            row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
            first = shares.indptr[start]
            cells.data[first : first + rows.nnz] = (rows @ inverse)[row, rows.indices]
        of_gone = 1 / eliminated.gone + np.asarray(shares.multiply(cells).sum(axis=1)).ravel()
        of_kept = np.diag(inverse)
        pair, listener = self.ratings.pair, self.ratings.listener
        if eliminated.pairs_go:
            return of_gone, of_kept, -np.asarray(cells[pair, listener]).ravel()
        return of_kept, of_gone, -np.asarray(cells[listener, pair]).ravel()


@dataclass(frozen=True)
class _Eliminated:
    """The larger block taken out of the equations, and a Cholesky factor of what is left."""

    pairs_go: bool
    gone: FloatArray  # diagonal of the larger block
    shares: sparse.csr_matrix  # its inverse times the coupling, (larger, smaller)
    factor: FloatArray

    @property
    def log_determinant(self) -> float:
        return float(np.log(self.gone).sum() + 2 * np.log(np.diag(self.factor)).sum())
