"""Finds the kernel under which the scores of some rows are most likely.

The negative log marginal likelihood (Rasmussen and Williams 2006, equations 5.8 and 5.9) and a weak
prior on relevances and noise are minimised from starting points that depend on the data.  From
fixed starting points, a few blocks would be taken for noise.

The time of a likelihood grows with the cube of its rows.  Many rows are therefore divided into
parts, and the likelihoods of the parts are multiplied, as if they were independent: two parts of
1,000 rows take as long as 1,500 rows at once and find a kernel that is as good or a little better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy import linalg, optimize

from xacle_stack._rows import row_blocks
from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import StackingError
from xacle_stack.stacking._cholesky import factor_upper, invert_upper

# The exponents of a wide and of a narrow kernel at the median distance between two rows, summed
# over the blocks.  They set where the relevances start, which is the centre of their prior.
_STARTS = (0.1, 1.0)
# Factors by which both kernels may start narrower, and the number of rows on which this is tried.
_NARROWER, _FEW_ROWS = (1.0, 10.0), 300
# The most rows of a part.
_PART_ROWS = 1000
# Smaller differences of log likelihood, in nats, are taken for chance.
MIN_EVIDENCE = 2.0
# The prior's standard deviations of the logarithms of relevances and noise.
_RELEVANCE_SD, _NOISE_SD = 2.0, 1.0
_START_NOISE = 0.1
_BOUNDS = {"relevance": (-14.0, 5.0), "amplitude": (-8.0, 4.0), "noise": (-7.0, 3.0)}
# The optimiser stops at a relative gain this small: further steps do not change predictions.
_MAX_ITERATIONS, _MIN_GAIN = 40, 3e-4
# These are added to the diagonal in turn, in units of the amplitudes, until a kernel in float32 has
# a Cholesky factor.  The rounding of 1,500 rows is at most 1e-4.
_JITTERS = (1e-6, 1e-5, 1e-4, 1e-3)
NOT_DEFINITE = (
    "the kernel matrix is singular: rows with very large weights coincide. Give smaller weights, "
    "or leave duplicate rows out."
)


def learn_kernel(
    X: FloatArray, column_block: IntArray, y: FloatArray, weights: FloatArray
) -> LearnedKernel:
    """Return the kernel under which the scores of some rows are most likely.

    The rows are in random order, and each block of X has a total variance of 1; `column_block` has
    the number of each column's block, ascending.  The scores have mean 0 and variance 1, and the
    noise of a row is divided by its weight.  A StackingError says that a kernel matrix has no
    Cholesky factor.
    """
    problem = MarginalLikelihood.from_rows(X, column_block, y, weights)
    # The best starting point is found on a few rows, at little cost.
    few = slice(0, _FEW_ROWS)
    trial = problem
    if len(X) > _FEW_ROWS:
        trial = MarginalLikelihood.from_rows(X[few], column_block, y[few], weights[few])
    usual, *narrower = (trial.narrowed(factor).maximise() for factor in _NARROWER)
    best = max(narrower, key=lambda found: found.evidence)
    found = best if best.evidence > usual.evidence + MIN_EVIDENCE else usual
    if trial is not problem:
        found = problem.narrowed(found.factor).maximise()
        others = (factor for factor in _NARROWER if factor != found.factor)
        while not found.has_learned and (factor := next(others, None)) is not None:
            found = problem.narrowed(factor).maximise()
    return found


def row_parts(n_rows: int) -> list[slice]:
    """Divide rows into as few parts of nearly the same size as there may be.

    Examples
    --------
    >>> row_parts(1500)
    [slice(0, 750, None), slice(750, 1500, None)]
    """
    n_parts = -(-n_rows // _PART_ROWS)
    return list(row_blocks(0, n_rows, -(-n_rows // n_parts)))


@dataclass(frozen=True, eq=False)
class LearnedKernel:
    """The kernel that the optimiser found, with a relevance for each kernel and block.

    The log likelihood is per row, with the prior; the evidence is the log likelihood less that of a
    model of noise around the mean, in nats.  The kernels started narrower by the factor.
    """

    relevance: FloatArray
    amplitude: FloatArray
    noise: float
    log_likelihood: float
    evidence: float
    factor: float

    @property
    def has_learned(self) -> bool:
        """Whether it explains the scores better than their mean."""
        return self.evidence > MIN_EVIDENCE


@dataclass(frozen=True, eq=False)
class PartLikelihood:
    """The negative log marginal likelihood of some rows, with its gradient, in nats."""

    distances: FloatArray  # n_blocks × n_row_pairs, float32
    row_pairs: IntArray  # their indices in a matrix in Fortran order, above the diagonal
    y: FloatArray
    weights: FloatArray

    @classmethod
    def from_rows(
        cls, X: FloatArray, column_block: IntArray, y: FloatArray, weights: FloatArray
    ) -> Self:
        """Measure the distances between the rows; arguments as `learn_kernel`."""
        numbers = np.arange(column_block[-1] + 1)
        first = np.searchsorted(column_block, numbers)
        last = np.searchsorted(column_block, numbers, side="right")
        # Distances are symmetric: the lower triangle in C order is the upper one in Fortran order.
        row_pairs = np.flatnonzero(np.tri(len(X), k=-1, dtype=bool))
        distances = np.empty((len(numbers), len(row_pairs)), dtype=X.dtype)
        for a, b, of_block in zip(first, last, distances, strict=True):
            of_block[:] = _square_distances(X[:, a:b]).ravel()[row_pairs]
        return cls(distances, row_pairs, y, weights)

    def value_and_gradient(
        self, relevance: FloatArray, amplitude: FloatArray, noise: float
    ) -> tuple[float, FloatArray]:
        """Return the negative log likelihood and its gradient by the logarithms of all these."""
        kernels, gram = self._factored(relevance, amplitude, noise)
        solved = linalg.cho_solve((gram, False), self.y, check_finite=False)
        value = 0.5 * self.y @ solved + np.log(gram.diagonal()).sum()
        # The derivative by the kernel matrix is ½ (K⁻¹ − ααᵀ), equation 5.9.  Each row pair counts
        # twice.
        invert_upper(gram)
        pair_gradient = gram.ravel("K")[self.row_pairs].astype(np.float32)
        pair_gradient -= np.outer(solved, solved).ravel()[self.row_pairs].astype(np.float32)
        diagonal_gradient = 0.5 * (gram.diagonal() - np.square(solved))
        weighted = kernels * pair_gradient
        by_relevance = -relevance * (weighted @ self.distances.T)
        by_amplitude = weighted.sum(axis=1, dtype=np.float64) + amplitude * diagonal_gradient.sum()
        by_noise = noise * (diagonal_gradient / self.weights).sum()
        return float(value), np.concatenate([by_relevance.ravel(), by_amplitude, [by_noise]])

    def _factored(
        self, relevance: FloatArray, amplitude: FloatArray, noise: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return each kernel's values at the row pairs, and the Cholesky factor of their sum."""
        n_rows = len(self.y)
        kernels = np.exp(-relevance.astype(np.float32) @ self.distances)
        kernels *= amplitude.astype(np.float32)[:, np.newaxis]
        diagonal = amplitude.sum() + noise / self.weights
        for jitter in _JITTERS:
            gram = np.zeros((n_rows, n_rows), order="F")
            gram.ravel("K")[self.row_pairs] = kernels.sum(axis=0)
            gram[np.diag_indices(n_rows)] = diagonal + jitter * amplitude.sum()
            if factor_upper(gram):
                return kernels, gram
        raise StackingError(NOT_DEFINITE)


@dataclass(frozen=True, eq=False)
class MarginalLikelihood:
    """The negative log marginal likelihood of all parts and log prior, for the optimiser.

    Parameters are logarithms: relevances (n_kernels × n_blocks), amplitudes, noise.
    """

    parts: Sequence[PartLikelihood]
    starts: tuple[float, ...]  # the relevances of each kernel
    factor: float = 1.0  # the kernels start narrower by this factor

    @classmethod
    def from_rows(
        cls, X: FloatArray, column_block: IntArray, y: FloatArray, weights: FloatArray
    ) -> Self:
        """Return the problem of some rows, with the usual starts; arguments as `learn_kernel`."""
        parts = [
            PartLikelihood.from_rows(X[rows], column_block, y[rows], weights[rows])
            for rows in row_parts(len(X))
        ]
        typical = float(np.mean([_typical_distance(part.distances) for part in parts]))
        return cls(parts, tuple(weight / typical for weight in _STARTS))

    @property
    def n_rows(self) -> int:
        """The number of rows of all parts."""
        return sum(len(part.y) for part in self.parts)

    @property
    def _n_blocks(self) -> int:
        return len(self.parts[0].distances)

    @property
    def start(self) -> FloatArray:
        """The starting point of the optimiser, which is the centre of the prior."""
        n_kernels = len(self.starts)
        relevance = np.repeat(np.log(self.starts), self._n_blocks)
        return np.concatenate(
            [relevance, np.full(n_kernels, -np.log(n_kernels)), [np.log(_START_NOISE)]]
        )

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """The lower and upper bound of every parameter."""
        n_kernels = len(self.starts)
        return [
            *[_BOUNDS["relevance"]] * (self._n_blocks * n_kernels),
            *[_BOUNDS["amplitude"]] * n_kernels,
            _BOUNDS["noise"],
        ]

    def unpack(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray, float]:
        """Return relevances, amplitudes and noise."""
        n_kernels = len(self.starts)
        relevance = np.exp(parameters[: -n_kernels - 1]).reshape(n_kernels, -1)
        return relevance, np.exp(parameters[-n_kernels - 1 : -1]), float(np.exp(parameters[-1]))

    def narrowed(self, factor: float) -> MarginalLikelihood:
        """Return the same problem with narrower kernels to start from."""
        starts = tuple(factor * start for start in self.starts)
        return replace(self, starts=starts, factor=factor)

    def maximise(self) -> LearnedKernel:
        """Return the best kernel from the start on; a StackingError says there is no likelihood."""
        # The last step is used, also where the optimiser stops before it has converged.
        found = optimize.minimize(
            self,
            self.start,
            jac=True,
            method="L-BFGS-B",
            bounds=self.bounds,
            options={"maxiter": _MAX_ITERATIONS, "ftol": _MIN_GAIN},
        )
        if not np.isfinite(found.fun):
            raise StackingError(NOT_DEFINITE)
        relevance, amplitude, noise = self.unpack(found.x)
        distance = self._from_prior(found.x)
        evidence = 0.5 * distance @ distance - self.n_rows * float(found.fun)
        return LearnedKernel(
            relevance,
            amplitude,
            noise,
            log_likelihood=-float(found.fun),
            evidence=float(evidence - self._mean_log_likelihood()),
            factor=self.factor,
        )

    def _mean_log_likelihood(self) -> float:
        """Return the highest log likelihood of a model of noise around the mean.

        It is minus infinity for scores that are all the same, which have nothing else to learn.
        """
        y = np.concatenate([part.y for part in self.parts])
        weights = np.concatenate([part.weights for part in self.parts])
        noise = np.mean(weights * np.square(y))
        if noise == 0:
            return -np.inf
        return 0.5 * float(np.log(weights / noise).sum() - len(y))

    @property
    def _prior_sd(self) -> FloatArray:
        n_kernels = len(self.starts)
        n_relevances = n_kernels * self._n_blocks
        return np.repeat([_RELEVANCE_SD, np.inf, _NOISE_SD], [n_relevances, n_kernels, 1])

    def _from_prior(self, parameters: FloatArray) -> FloatArray:
        """Return how far parameters are from the prior's centre, in its standard deviations."""
        return (parameters - self.start) / self._prior_sd

    def __call__(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        """Return the objective per row and its gradient."""
        # The prior is normal in the logarithms.
        distance = self._from_prior(parameters)
        value, gradient = 0.5 * float(distance @ distance), distance / self._prior_sd
        for part in self.parts:
            part_value, part_gradient = part.value_and_gradient(*self.unpack(parameters))
            value += part_value
            gradient += part_gradient
        # The optimiser's first step is as long as the gradient, so both are divided by the rows.
        return value / self.n_rows, gradient / self.n_rows


def _square_distances(X: FloatArray) -> FloatArray:
    """Return the squared Euclidean distances among rows, shape (n_rows, n_rows)."""
    distances = X @ X.T
    distances *= -2
    squares = np.square(X).sum(axis=1)
    distances += squares[:, np.newaxis]
    distances += squares
    return np.maximum(distances, 0, out=distances)


def _typical_distance(distances: FloatArray) -> float:
    """Return the median of the distances, summed over the blocks; above 0.

    With it the kernels start equally wide for one block and for thirty, and for any distribution of
    the columns.  Where most rows coincide, it is the mean, and where all do, 1.
    """
    total = distances.sum(axis=0)
    for typical in (float(np.median(total)), float(total.mean())) if total.size else ():
        if typical > 0:
            return typical
    return 1.0
