"""Adjusted targets against the plain mean.

On simulated listeners whose habits are known, and on real ones, of whom one half has to predict the
other.
"""

import logging
import time
from collections.abc import Iterator
from typing import Self

import numpy as np
from report import real_data, report
from scipy.stats import t as student
from sklearn.linear_model import LinearRegression

from xacle_stack.listeners import ListenerModel
from xacle_stack.metrics import METRICS, Estimate
from xacle_stack.pairs import Ratings, read_pairs

N_PAIRS, N_NEW, PER_PAIR, N_LISTENERS, N_FEATURES = 7500, 3000, 4, 2323, 64
SEEDS = range(5)
N_SPLITS = 100
# Of SPO-CLAPScore, in points.
WINDOW = 5


class Unshrunk:
    """SPO-CLAPScore's standardised ratings as published: by plain means and standard deviations."""

    def fit(self, pair: np.ndarray, listener: np.ndarray, ratings: np.ndarray) -> Self:
        """Average each pair's standardised ratings, brought back to the ratings' scale."""
        _, row, counts = np.unique(listener, return_inverse=True, return_counts=True)
        means = np.bincount(row, ratings) / counts
        squares = np.bincount(row, (ratings - means[row]) ** 2)
        spreads = np.sqrt(squares / np.maximum(counts - 1, 1))
        spreads[spreads == 0] = 1
        standardised = (ratings - means[row]) / spreads[row]
        found = means.mean() + np.sqrt(np.mean(spreads**2)) * standardised
        self.pair_ids_, pair_rows = np.unique(pair, return_inverse=True)
        self.scores_ = np.bincount(pair_rows, found) / np.bincount(pair_rows)
        return self

    def scores_for(self, pairs: np.ndarray) -> np.ndarray:
        """Return the scores of some pairs."""
        scores: np.ndarray = self.scores_[np.searchsorted(self.pair_ids_, pairs)]
        return scores


PLAIN = {"biases": False, "noise": False}
MODELS = {
    "biases": ListenerModel(noise=False),
    "biases and noise (default)": ListenerModel(),
    "biases, noise and scales": ListenerModel(scale=True),
    "standardised, not shrunk": Unshrunk(),
    "standardised": ListenerModel(standardize=True, **PLAIN),
    "screened": ListenerModel(screening=WINDOW, **PLAIN),
    "standardised and screened": ListenerModel(standardize=True, screening=WINDOW, **PLAIN),
    "standardised, then noise": ListenerModel(standardize=True, biases=False),
    "standardised, then the default": ListenerModel(standardize=True),
    "screened, then the default": ListenerModel(screening=WINDOW),
}
NAMES = ("SRCC", "LCC", "MSE")


def main() -> None:
    """Run it."""
    logging.disable(logging.WARNING)  # which pairs have no two ratings that agree
    report_simulated("listeners", "with biases, spreads and carelessness", habits=True)
    report_simulated("listeners_alike", "who are all alike", habits=False)
    report_real()


def report_simulated(name: str, title: str, *, habits: bool) -> None:
    """Compare targets with the truth, and regressions that were trained on them."""
    found: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        for target, figures in targets_of(seed, habits):
            found.setdefault(target, []).append(figures)
    plain = np.array(found["plain mean"])
    rows: list[list[object]] = []
    for target, of_seeds in found.items():
        figures = np.array(of_seeds)
        gains = figures - plain
        means = [float(mean) for mean in figures.mean(axis=0)]
        paired = [over_seeds(gains[:, 0]), over_seeds(-gains[:, 2])]
        rows.append([target, *means[:3], *paired, *means[3:]])
    header = ["target", *NAMES, "SRCC gained", "MSE gained", "new SRCC", "new MSE", "CPU s"]
    full = (
        f"Targets against the truth, {N_PAIRS} pairs x {PER_PAIR} of {N_LISTENERS} listeners "
        f"{title}; new: linear regression trained on them, {N_NEW} new pairs; {len(SEEDS)} seeds, "
        "gains paired with 95 % intervals of their mean"
    )
    report(name, full, header, rows)


def targets_of(seed: int, habits: bool) -> Iterator[tuple[str, list[float]]]:
    """Yield each target's name and figures on one simulated data set."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(N_PAIRS + N_NEW, N_FEATURES))
    known = features @ rng.normal(size=N_FEATURES) / np.sqrt(N_FEATURES)
    truth = 5 + 2 * (np.sqrt(0.4) * known + np.sqrt(0.6) * rng.normal(size=len(features)))
    pair, listener, ratings = rate(truth[:N_PAIRS], habits, rng)

    def figures(scores: np.ndarray, weights: np.ndarray | None, seconds: float) -> list[float]:
        regressor = LinearRegression().fit(features[:N_PAIRS], scores, sample_weight=weights)
        predicted = regressor.predict(features[N_PAIRS:])
        return [
            *(METRICS[metric](truth[:N_PAIRS], scores) for metric in NAMES),
            *(METRICS[metric](truth[N_PAIRS:], predicted) for metric in ("SRCC", "MSE")),
            seconds,
        ]

    yield "plain mean", figures(np.bincount(pair, ratings) / PER_PAIR, None, 0.0)
    for name, model in MODELS.items():
        start = time.process_time()
        model.fit(pair, listener, ratings)
        seconds = time.process_time() - start
        scores = model.scores_for(np.arange(N_PAIRS))
        yield name, figures(scores, None, seconds)
        if name.endswith("(default)"):
            weights = model.weights_for(range(N_PAIRS))
            yield "the same, with weights", figures(scores, weights, seconds)
            in_order = np.argsort(model.pair_ids_)
            yield "its posterior means", figures(model.posterior_means_[in_order], None, seconds)


def rate(
    truth: np.ndarray, habits: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Let listeners rate in whole points from 0 to 10; some much more often than others."""
    pair = np.repeat(np.arange(len(truth)), PER_PAIR)
    activity = rng.gamma(1.5, size=N_LISTENERS)
    # The least of exponential times are a draw without replacement.
    times = rng.exponential(size=(len(truth), N_LISTENERS)) / activity
    listener = np.argpartition(times, PER_PAIR, axis=1)[:, :PER_PAIR].ravel()
    bias, log_spread, log_noise = rng.normal(size=(3, N_LISTENERS)) * ([1.2], [0.3], [0.4])
    careless = rng.random(N_LISTENERS) < 0.05
    if not habits:
        bias, log_spread, log_noise, careless = 0 * bias, 0 * bias, 0 * bias, careless & False
    points = 5 + np.exp(log_spread)[listener] * (truth[pair] - 5) + bias[listener]
    points += 1.8 * np.exp(log_noise)[listener] * rng.normal(size=len(pair))
    points = np.where(careless[listener], rng.uniform(0, 10, size=len(pair)), points)
    return pair, listener, np.clip(points.round(), 0, 10)


def over_seeds(values: np.ndarray) -> Estimate:
    """Return the mean over seeds with its 95 % interval."""
    margin = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(*(float(values.mean() + side * margin) for side in (0, -1, 1)))


def report_real() -> None:
    """Let one half of the listeners of ESC-10 predict the plain mean of the other."""
    data = real_data("esc10")
    rows: list[list[object]] = []
    for part in ("train", "validation"):
        ratings = read_pairs(data, part).ratings
        assert ratings is not None
        splits = [split_in_halves(ratings, seed) for seed in range(N_SPLITS)]
        for name in [*MODELS, "posterior means"]:
            for metric in NAMES:
                found = np.array([gain_of(metric, name, *split) for split in splits])
                plain, adjusted, gain, _ = found.mean(axis=0)
                low, high = np.quantile(found[:, 3], [0.025, 0.975])
                not_worse = np.mean(found[:, 2] > -1e-9)
                figures = plain, adjusted, gain, low, high, not_worse
                rows.append([part, name, metric, *map(float, figures)])
    title = (
        f"esc10: half of the listeners predict the plain mean of the others, {N_SPLITS} random "
        "halves; gain over the unadjusted mean (positive is better), 95 % intervals of halves and "
        "pairs (paired bootstrap)"
    )
    header = ["part", "target", "metric", "plain", "adjusted", "gain", "low", "high", "not worse"]
    report("listeners_esc10", title, header, rows)


def gain_of(
    metric: str, name: str, targets: dict[str, np.ndarray], others: np.ndarray, drawn: np.ndarray
) -> tuple[float, float, float, float]:
    """Return a metric of the plain mean and of a target, the gain, and that on drawn pairs."""
    of, sign = METRICS[metric], -1 if metric == "MSE" else 1
    plain, adjusted = targets["plain mean"], targets[name]
    before, after = of(others, plain), of(others, adjusted)
    again = of(others[drawn], adjusted[drawn]) - of(others[drawn], plain[drawn])
    return before, after, sign * (after - before), sign * again


def split_in_halves(
    ratings: Ratings, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return targets by a random half of the listeners, the others' means, and drawn pairs."""
    listeners, names = np.array(ratings.listener_ids), sorted(set(ratings.listener_ids))
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(names)
    first = np.isin(listeners, shuffled[: len(names) // 2])
    ids, pair = np.unique(ratings.pair_ids, return_inverse=True)

    def means(kept: np.ndarray) -> np.ndarray:
        counts = np.bincount(pair[kept], minlength=len(ids))
        sums = np.bincount(pair[kept], ratings.scores[kept], len(ids))
        return np.divide(sums, counts, out=np.full(len(ids), np.nan), where=counts > 0)

    plain, others = means(first), means(~first)
    both = np.flatnonzero(np.isfinite(plain) & np.isfinite(others))
    targets = {"plain mean": plain[both]}
    for name, model in MODELS.items():
        model.fit(pair[first], listeners[first], ratings.scores[first])
        targets[name] = model.scores_for(both)
        if name.endswith("(default)"):
            rows = {pair_id: row for row, pair_id in enumerate(model.pair_ids_)}
            targets["posterior means"] = model.posterior_means_[[rows[i] for i in both.tolist()]]
    return targets, others[both], rng.integers(len(both), size=len(both))


if __name__ == "__main__":
    main()
