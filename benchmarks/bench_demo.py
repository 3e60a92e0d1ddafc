"""Does the stack of three spaces beat each single one?  Five seeds of the demo data set.

Seeds 10-14 were never looked at while mini-CLAP and the demo were made.  The same runs show what
folds that split captions pretend, and what folds promise for kinds of sounds that are new.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from report import report

from xacle_stack import Stacker
from xacle_stack.cache import FeatureCache
from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.metrics import srcc
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import Recipe, read_recipe
from xacle_stack.synth import EVENTS
from xacle_stack.synth.demo import draw_pairs, write_demo
from xacle_stack.table import FeatureTable

SEEDS = range(10, 15)
N_PAIRS = 1000
N_PARTS = 3  # of the kinds of sounds, each of which is held out once
PAPER = "preset paper, all three"


def main() -> None:
    """Run it."""
    recipe = read_recipe("mini")
    by_system: dict[str, list[float]] = {}
    folds: dict[tuple[str, str], list[float]] = {}
    kinds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            data, out = Path(folder) / f"demo-{seed}", Path(folder) / f"run-{seed}"
            store = Path(folder) / "store"
            write_demo(data, N_PAIRS, seed, n_jobs=-1)
            fill_cache(data, recipe, store, n_jobs=-1)
            systems = recipe.stack_systems
            *_, results = run_experiment(data, recipe, systems, store, out, n_jobs=-1)
            for result in results:
                if result.split == "test":
                    of_test = float(result.evaluation.srcc)
                    by_system.setdefault(result.system, []).append(of_test)
            for key, value in fold_figures(data, recipe, store).items():
                folds.setdefault(key, []).append(value)
            for key, value in kind_figures(data, recipe, store, seed).items():
                kinds.setdefault(key, []).append(value)
    by_system[PAPER] = folds["paper", "test, captions held out"]
    triple = np.array(by_system[" + ".join(recipe.spaces)])
    rows = []
    for system, of_system in by_system.items():
        gain = triple - of_system
        mean = float(np.mean(of_system))
        rows.append([system, *of_system, mean, float(gain.mean()), float(gain.min())])
    header = ["system", *(f"seed {seed}" for seed in SEEDS), "mean", "mean gain", "least gain"]
    title = "Test SRCC on the demo data set; gain: all three spaces over this system"
    report("demo", title, header, rows)
    best_single = max(row[6] for row in rows if row[0] in recipe.spaces)
    ensemble = np.mean(by_system["rank ensemble of the singles"])
    print(f"Mean: stack {triple.mean():.4f}, best single {best_single:.4f}, ranks {ensemble:.4f}")
    for name, new, figures in (("groups", "captions", folds), ("groups_kinds", "kinds", kinds)):
        header = ["preset", "what", *(f"seed {seed}" for seed in SEEDS), "mean"]
        rows = [[*key, *values, float(np.mean(values))] for key, values in figures.items()]
        report(name, f"SRCC that folds promise, and what new {new} bring (demo)", header, rows)


def fold_figures(data: Path, recipe: Recipe, store: Path) -> dict[tuple[str, str], float]:
    """Return out-of-fold SRCC with and without captions kept together, and the test's."""
    train, test = (read_pairs(data, split) for split in ("train", "test"))
    cache = FeatureCache(store)
    builder = recipe.builder()
    table = builder.fit_transform(cache.load(train, recipe.fingerprints()))
    new = builder.transform(cache.load(test, recipe.fingerprints()))
    figures = {}
    for preset in ("paper", "best"):
        for groups, what in (
            (None, "out-of-fold, captions on both sides"),
            (train.captions, "out-of-fold, captions held out"),
        ):
            promised, predicted = fit(preset, table, train.scores, groups, new)
            figures[preset, what] = promised
            figures[preset, what.replace("out-of-fold", "test")] = srcc(test.scores, predicted)
    return figures


def kind_figures(
    data: Path, recipe: Recipe, store: Path, seed: int
) -> dict[tuple[str, str], float]:
    """Return what folds promise, and the SRCC on test clips of known and of new kinds of sounds.

    A fit knows no clip with a sound of a third of the kinds.  New are the test clips whose first
    sound is one of them, known those that have none.  Figures are means over the three thirds.
    """
    train, test = (read_pairs(data, split) for split in ("train", "test"))
    cache, fingerprints = FeatureCache(store), recipe.fingerprints()
    heard = {
        split: [pair.scene.kinds for pair in draw_pairs(N_PAIRS, seed) if pair.split == split]
        for split in ("train", "test")
    }
    order = np.random.default_rng(seed).permutation(sorted(EVENTS))
    found: dict[tuple[str, str], list[float]] = {}
    for part in range(N_PARTS):
        held_out = {*order[part::N_PARTS]}
        rows = [row for row, kinds in enumerate(heard["train"]) if not held_out & {*kinds}]
        tests = {
            "known": [row for row, kinds in enumerate(heard["test"]) if not held_out & {*kinds}],
            "new": [row for row, kinds in enumerate(heard["test"]) if kinds[0] in held_out],
        }
        pairs, builder = train.take(rows), recipe.builder()
        table = builder.fit_transform(cache.load(pairs, fingerprints))
        of_test = builder.transform(cache.load(test, fingerprints))
        first_kinds = [heard["train"][row][0] for row in rows]
        for preset in ("paper", "best"):
            for what, groups in (
                ("plain folds", None),
                ("captions held out", pairs.captions),
                ("kinds held out", first_kinds),
            ):
                promised, predicted = fit(preset, table, pairs.scores, groups, of_test)
                found.setdefault((preset, f"out-of-fold, {what}"), []).append(promised)
                for name, some in tests.items():
                    value = srcc(test.scores[some], predicted[some])
                    found.setdefault((preset, f"{name} kinds, {what}"), []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def fit(
    preset: str,
    table: FeatureTable,
    scores: np.ndarray,
    groups: Sequence[str] | None,
    new: FeatureTable,
) -> tuple[float, np.ndarray]:
    """Fit a stack; return its out-of-fold SRCC, and its scores of other pairs."""
    stacker = Stacker(preset=preset, random_state=0, n_jobs=-1, score_range=(0, 10))
    stacker.fit(table, scores, groups=groups)
    oof = stacker.meta_predict(stacker.oof_predictions_)
    return srcc(scores, oof), stacker.predict(new)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    main()
