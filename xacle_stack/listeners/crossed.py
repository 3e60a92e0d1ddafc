"""Solves the mixed model of crossed effects of pairs (fixed) and listeners (random).

With ratings y, weights w and listeners' scales s, the scores m and biases b solve

``Σ_j w s (y − s m_i − b_j) = 0`` for each pair i,
``Σ_i w (y − s m_i − b_j) = b_j σ²/σ_b²`` for each listener j.

Both diagonal blocks of these equations are diagonal matrices.  The larger block is eliminated; the
remaining system is dense and as large as the smaller block.

Source: Henderson 1975 (best linear unbiased prediction); Patterson and Thompson 1971 (REML).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, optimize, sparse

from xacle_stack._types import FloatArray, IntArray

# A variance is used if it raises twice the log-likelihood by this: the 1 % point of
# ½χ²(0) + ½χ²(1), the distribution for a variance that cannot be negative.
SIGNIFICANT_GAIN = 5.41
# Bounds of σ_b²/σ².
_MIN_RATIO, _MAX_RATIO = 1e-4, 1e4
_BLOCK = 1024


@dataclass(frozen=True)
class NumberedRatings:
    """Ratings with numbers instead of ids; the arrays have the shape (n_ratings,)."""

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
        """Return the sums over each pair's ratings, shape (n_pairs,)."""
        return np.asarray(np.bincount(self.pair, values, self.n_pairs), dtype=np.float64)

    def by_listener(self, values: FloatArray) -> FloatArray:
        """Return the sums over each listener's ratings, shape (n_listeners,)."""
        return np.asarray(np.bincount(self.listener, values, self.n_listeners), dtype=np.float64)


@dataclass(frozen=True)
class Effects:
    """Scores and biases for a given ratio of variances.

    Attributes
    ----------
    ratio : float
        σ_b²/σ²; 0 without biases.
    scores : ndarray of shape (n_pairs,)
    bias : ndarray of shape (n_listeners,)
    errors : ndarray of shape (n_pairs,)
        Variance of each score's error; NaN if no pair has two ratings.
    noise_variance : float
        σ², the variance of a rating of weight 1.
    residuals : ndarray of shape (n_ratings,)
    leverage : ndarray of shape (n_ratings,)
        Variance of each rating's fitted value, divided by σ².
    """

    ratio: float
    scores: FloatArray
    bias: FloatArray
    errors: FloatArray
    noise_variance: float
    residuals: FloatArray
    leverage: FloatArray


class CrossedEquations:
    """The equations for given scales and relative noise variances of listeners.

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
        self.pair_diagonal = ratings.by_pair(weighted * self.scale)
        self.listener_diagonal = ratings.by_listener(weight)
        self.crossed = sparse.csr_matrix(
            (weighted, (ratings.pair, ratings.listener)),
            shape=(ratings.n_pairs, ratings.n_listeners),
        )
        self.pair_side = ratings.by_pair(weighted * ratings.values)
        self.listener_side = ratings.by_listener(weight * ratings.values)
        self.total = float((weight * ratings.values**2).sum())
        self.n_contrasts = len(ratings.values) - ratings.n_pairs

    def most_likely(self) -> Effects:
        """Solve at the ratio with the maximum restricted likelihood, or without biases.

        Biases are left out if they gain less than :data:`SIGNIFICANT_GAIN`.
        """
        unbiased = self.solve(0.0)
        residual_squares = unbiased.noise_variance * self.n_contrasts
        if not self.ratings.listeners_meet or not residual_squares > 0:
            return unbiased
        bounds = np.log(_MIN_RATIO), np.log(_MAX_RATIO)
        found = optimize.minimize_scalar(
            lambda log_ratio: self.deviance(float(np.exp(log_ratio))),
            bounds=bounds,
            method="bounded",
            options={"xatol": 0.02},
        )
        deviance_without = float(
            np.log(self.pair_diagonal).sum() + self.n_contrasts * np.log(residual_squares)
        )
        if deviance_without - found.fun <= SIGNIFICANT_GAIN:
            return unbiased
        return self.solve(float(np.exp(found.x)))

    def deviance(self, ratio: float) -> float:
        """Return −2 log restricted likelihood, up to a constant, with σ² profiled out."""
        eliminated = self._eliminate(ratio)
        residual_squares = self._sum_of_squares(*self._effects(eliminated))
        return (
            eliminated.log_determinant
            + self.ratings.n_listeners * float(np.log(ratio))
            + self.n_contrasts * float(np.log(max(residual_squares, 1e-12 * self.total)))
        )

    def solve(self, ratio: float) -> Effects:
        """Return the best linear unbiased scores and biases with their errors."""
        pair, listener = self.ratings.pair, self.ratings.listener
        if ratio == 0:
            scores, bias = self.pair_side / self.pair_diagonal, np.zeros(self.ratings.n_listeners)
            score_variance, bias_variance = 1 / self.pair_diagonal, bias
            covariance = np.zeros(len(pair))
        else:
            eliminated = self._eliminate(ratio)
            scores, bias = self._effects(eliminated)
            score_variance, bias_variance, covariance = self._variances(eliminated)
        residual_squares = self._sum_of_squares(scores, bias)
        variance = residual_squares / self.n_contrasts if self.n_contrasts else float("nan")
        residuals = self.ratings.values - self.scale * scores[pair] - bias[listener]
        leverage = (
            self.scale**2 * score_variance[pair]
            + bias_variance[listener]
            + 2 * self.scale * covariance
        )
        errors = variance * score_variance
        return Effects(ratio, scores, bias, errors, variance, residuals, leverage)

    def _sum_of_squares(self, scores: FloatArray, bias: FloatArray) -> float:
        """Return the weighted sum of squared residuals; 0 if it is only rounding."""
        residual_squares = float(self.total - self.pair_side @ scores - self.listener_side @ bias)
        return residual_squares if residual_squares > 1e-12 * self.total else 0.0

    def _eliminate(self, ratio: float) -> _Eliminated:
        listener_diagonal = self.listener_diagonal + 1 / ratio
        pairs_go = self.ratings.n_pairs >= self.ratings.n_listeners
        gone, kept = self.pair_diagonal, listener_diagonal
        if not pairs_go:
            gone, kept = kept, gone
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
        """Return the variances of scores and biases, and the covariance for each rating."""
        inverse, _ = linalg.lapack.dpotri(eliminated.factor, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        shares = eliminated.shares
        # Only the entries of the product that belong to a rating are needed.
        cells = shares.copy()
        for start in range(0, shares.shape[0], _BLOCK):
            rows = shares[start : start + _BLOCK]
            row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
            first = shares.indptr[start]
            cells.data[first : first + rows.nnz] = (rows @ inverse)[row, rows.indices]
        gone = 1 / eliminated.gone + np.asarray(shares.multiply(cells).sum(axis=1)).ravel()
        kept = np.diag(inverse)
        pair, listener = self.ratings.pair, self.ratings.listener
        if eliminated.pairs_go:
            return gone, kept, -np.asarray(cells[pair, listener]).ravel()
        return kept, gone, -np.asarray(cells[listener, pair]).ravel()


@dataclass(frozen=True)
class _Eliminated:
    """The eliminated larger block, and a Cholesky factor of the remaining equations."""

    pairs_go: bool
    gone: FloatArray  # diagonal of the larger block
    shares: sparse.csr_matrix  # its inverse times the coupling, (larger, smaller)
    factor: FloatArray

    @property
    def log_determinant(self) -> float:
        return float(np.log(self.gone).sum() + 2 * np.log(np.diag(self.factor)).sum())
