"""Do prediction intervals hold what they promise?  SICK, ESC-10 and the demo data set.

Parts of a few hundred pairs leave a coverage uncertain by several points.  So the pairs of ESC-10
and of the demo are pooled as well, and every fifth of them is scored by a scorer that was fitted on
the others, with its captions unseen or not.  Settings were chosen on
training pairs, out-of-fold, by the interval score.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from bench_sick import read_split
from report import real_data, report
from scipy.stats import binomtest, spearmanr
from sklearn.model_selection import GroupKFold, KFold

from xacle_stack import FeatureBuilder, PairEmbeddings, Pairs, Stacker, read_pairs
from xacle_stack.cache import FeatureCache
from xacle_stack.experiment import fill_cache
from xacle_stack.metrics import Estimate
from xacle_stack.recipe import Recipe, read_recipe
from xacle_stack.scorer import Scorer
from xacle_stack.synth.demo import write_demo

CONFIDENCES = (0.8, 0.9, 0.95)
PRESETS = ("best", "paper")
N_FOLDS = 5
HEADER = [
    *("data", "pairs", "preset", "n_pairs", "confidence", "coverage", "mean width"),
    *("width ~ error", "coverage, narrowest third", "coverage, widest third"),
]
# Human scores, then scores and the ends of the intervals by confidence.
Scored = tuple[np.ndarray, np.ndarray, dict[float, tuple[np.ndarray, np.ndarray]]]


def main() -> None:
    """Run it."""
    recipe = read_recipe("mini")
    rows: list[list[Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        demo, store = write_demo(Path(folder) / "demo", n_jobs=-1), Path(folder) / "store"
        for data, splits in ((demo, ["validation", "test"]), (real_data("esc10"), ["validation"])):
            fill_cache(data, recipe, store, n_jobs=-1)
            for part, preset, scored in of_data(data, splits, recipe, FeatureCache(store)):
                rows += figures(data.name, part, preset, scored)
    for part, preset, scored in of_sick():
        rows += figures("SICK", part, preset, scored)
    title = "Coverage of prediction intervals, with its binomial 95 % interval"
    report("intervals", title, HEADER, rows)


def figures(data: str, part: str, preset: str, scored: Scored) -> list[list[Any]]:
    """Return a row of figures for each confidence."""
    y, scores, ends = scored
    rows = []
    for confidence, (low, high) in ends.items():
        covered, width = (low <= y) & (y <= high), high - low
        by_width = np.array_split(np.argsort(width, kind="stable"), 3)
        bounds = binomtest(int(covered.sum()), len(y)).proportion_ci(method="wilson")
        rows.append(
            [
                *(data, part, preset, len(y), confidence),
                Estimate(float(covered.mean()), bounds.low, bounds.high),
                float(width.mean()),
                float(spearmanr(width, np.abs(y - scores)).statistic),
                float(covered[by_width[0]].mean()),
                float(covered[by_width[-1]].mean()),
            ]
        )
    return rows


def of_data(
    data: Path, splits: Sequence[str], recipe: Recipe, cache: FeatureCache
) -> Iterator[tuple[str, str, Scored]]:
    """Score the parts of a data folder, then all its pairs by five scorers each."""
    train, *others = (read_pairs(data, split) for split in ("train", *splits))
    prints = recipe.fingerprints()
    everything = [(pairs, row) for pairs in (train, *others) for row in range(len(pairs))]
    captions = [pairs.captions[row] for pairs, row in everything]

    def embedded(rows: Sequence[int]) -> Any:
        """Return the embeddings of some of all pairs."""
        chosen = [everything[row] for row in rows]
        pooled = Pairs(
            "pooled",
            [f"{pairs.split}/{pairs.ids[row]}" for pairs, row in chosen],
            [pairs.audio[row] for pairs, row in chosen],
            [pairs.captions[row] for pairs, row in chosen],
            [pairs.scores[row] for pairs, row in chosen],
        )
        return cache.load(pooled, prints)

    for preset in PRESETS:
        stacker = recipe.new_stacker(n_jobs=-1).set_params(preset=preset)
        scorer = Scorer(recipe, stacker).fit(cache.load(train, prints))
        for pairs in others:
            yield pairs.split, preset, score(scorer, cache.load(pairs, prints), pairs.scores)
        # The scorers' own folds hold captions out as well, also where the recipe finds them few.
        by_caption = GroupKFold(N_FOLDS, shuffle=True, random_state=0)
        by_pair = KFold(N_FOLDS, shuffle=True, random_state=0)
        for part, folds in (
            ("pooled, new captions", by_caption.split(captions, groups=captions)),
            ("pooled, new pairs", by_pair.split(captions)),
        ):
            results = []
            for rest, held_out in folds:
                old, new = embedded(rest), embedded(held_out)
                scorer = Scorer(recipe, stacker).fit(old, groups=old.pairs.captions)
                results.append(score(scorer, new, new.pairs.scores))
            yield part, preset, joined(results)


def of_sick() -> Iterator[tuple[str, str, Scored]]:
    """Score the pairs of sentences; their scores are from 1 to 5."""
    with h5py.File(real_data("sick_pairs.h5")) as file:
        spaces = sorted(file["spaces"])
        train, y_train = read_split(file, "train")
        test, y_test = read_split(file, "test")
    builder = FeatureBuilder(spaces)
    table, new = builder.fit_transform(train), builder.transform(test)
    for preset in PRESETS:
        stacker = Stacker(preset=preset, score_range=(1, 5), random_state=0, n_jobs=-1)
        stacker.fit(table, y_train)
        ends = {one: stacker.predict_interval(new, one) for one in CONFIDENCES}
        scores = ends[CONFIDENCES[0]][0]
        yield "test", preset, (y_test, scores, {one: e[1:] for one, e in ends.items()})


def score(scorer: Scorer, pairs: PairEmbeddings, y: np.ndarray) -> Scored:
    """Score pairs with intervals of every confidence."""
    scored = {one: scorer.score(pairs, interval=one) for one in CONFIDENCES}
    scores = scored[CONFIDENCES[0]].scores
    return y, scores, {confidence: (s.low, s.high) for confidence, s in scored.items()}


def joined(results: Sequence[Scored]) -> Scored:
    """Put the pairs of several scorers one after the other."""
    y, scores = (np.concatenate([result[part] for result in results]) for part in (0, 1))
    ends = {
        confidence: tuple(
            np.concatenate([result[2][confidence][end] for result in results]) for end in (0, 1)
        )
        for confidence in CONFIDENCES
    }
    return y, scores, ends


if __name__ == "__main__":
    main()
