"""Real encoders without a hub on ESC-10: recipe offline, mini, and both together.

Out-of-fold scores are those of whole stacks, each fitted without the pairs that it scores.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from report import real_data, report
from sklearn.model_selection import GroupKFold, KFold

from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.experiment import fill_cache
from xacle_stack.metrics import evaluate, srcc_gain
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import Recipe, read_recipe
from xacle_stack.scorer import Scorer

OFFLINE, MINI, BOTH = "offline", "mini", "offline and mini"
N_FOLDS = 5


def main() -> None:
    """Run it."""
    data = real_data("esc10")
    train, validation = (read_pairs(data, split) for split in ("train", "validation"))
    offline, mini = read_recipe("offline"), read_recipe("mini")
    both = offline.model_copy(update={"spaces": mini.spaces})
    scores: dict[str, dict[str, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        fill_cache(data, both, store, n_jobs=-1)
        cache = FeatureCache(store)
        for name, recipe in {OFFLINE: offline, MINI: mini, BOTH: both}.items():
            prints = recipe.fingerprints()
            parts = cache.load(train, prints), cache.load(validation, prints)
            scores[name] = dict(evaluations(recipe, *parts))
    truths = {
        what: train.scores if "train" in what else validation.scores for what in scores[OFFLINE]
    }
    rows = []
    for what, truth in truths.items():
        for name, found in scores.items():
            gain = None if name == MINI else srcc_gain(truth, found[what], scores[MINI][what])
            metrics = evaluate(truth, found[what]).as_dict()
            rows.append([what, name, metrics["SRCC"], metrics["LCC"], gain])
    title = (
        f"esc10: stacks of real encoders and of mini's, {len(train)} train and {len(validation)} "
        "validation pairs, 95 % bootstrap intervals"
    )
    report("offline", title, ["scored pairs", "encoders", "SRCC", "LCC", "SRCC over mini"], rows)


def evaluations(
    recipe: Recipe, train: CachedPairs, validation: CachedPairs
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what was scored by stacks that had not seen it, and the scores."""
    captions, new_captions = (np.array(part.pairs.captions) for part in (train, validation))
    everything = np.arange(len(train))

    def score(kept: np.ndarray, pairs: CachedPairs, groups: np.ndarray | None) -> np.ndarray:
        part = train[kept]
        return Scorer(recipe, n_jobs=-1).fit(part, part.pairs.scores, groups=groups).score(pairs)

    scores = np.empty(len(train))
    for kept, rest in GroupKFold(N_FOLDS).split(captions, groups=captions):
        scores[rest] = score(kept, train[rest], captions[kept])
    yield "train, captions held out", scores
    scores = np.empty(len(train))
    folds = KFold(N_FOLDS, shuffle=True, random_state=0)
    for kept, rest in folds.split(captions):
        scores[rest] = score(kept, train[rest], None)
    yield "train, plain folds", scores
    yield "validation: new clips", score(everything, validation, captions)
    scores = np.empty(len(validation))
    for _, rest in GroupKFold(N_FOLDS).split(new_captions, groups=new_captions):
        kept = everything[~np.isin(captions, new_captions[rest])]
        scores[rest] = score(kept, validation[rest], captions[kept])
    yield "validation: new clips and captions", scores


if __name__ == "__main__":
    main()
