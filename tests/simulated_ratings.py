"""Ratings of simulated listeners whose habits are known."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Simulated:
    pair: np.ndarray
    listener: np.ndarray
    ratings: np.ndarray
    truth: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    noise: np.ndarray


def simulate(
    seed: int,
    *,
    n_pairs: int = 300,
    n_listeners: int = 60,
    per_pair: int = 4,
    bias: float = 0.0,
    spread: float = 0.0,
    carelessness: float = 0.0,
) -> Simulated:
    """Rate pairs by listeners drawn at random; arguments are standard deviations."""
    rng = np.random.default_rng(seed)
    pair = np.repeat(np.arange(n_pairs), per_pair)
    listener = np.concatenate(
        [rng.choice(n_listeners, per_pair, replace=False) for _ in range(n_pairs)]
    )
    truth = 5 + 2 * rng.normal(size=n_pairs)
    biases = bias * rng.normal(size=n_listeners)
    scales = np.exp(spread * rng.normal(size=n_listeners))
    noise = np.exp(carelessness * rng.normal(size=n_listeners))
    ratings = 5 + scales[listener] * (truth[pair] - 5) + biases[listener]
    ratings += noise[listener] * rng.normal(size=len(pair))
    return Simulated(pair, listener, ratings, truth, biases, scales, noise)


def few_ratings(seed: int) -> Simulated:
    """Few ratings, some pairs with one, some listeners with one, one rating given twice."""
    rng = np.random.default_rng(seed)
    pair = np.concatenate([np.arange(12), rng.integers(10, size=28), [3, 3]])
    listener = np.concatenate([rng.integers(6, size=40), [2, 2]])
    listener[-5] = 6  # who rates once
    truth, bias = rng.normal(size=12), rng.normal(size=7)
    ratings = truth[pair] + bias[listener] + 0.5 * rng.normal(size=len(pair))
    return Simulated(pair, listener, ratings, truth, bias, np.ones(7), np.ones(7))
