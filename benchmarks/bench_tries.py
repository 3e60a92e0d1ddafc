"""What was tried for a better score: one setting of the stack changed at a time.

Out-of-fold, captions held out where there are enough of them, and on the validation split.  No test
score is looked at.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from bench_sick import read_split
from report import real_data, report

from xacle_stack import FeatureBuilder, Stacker
from xacle_stack.cache import FeatureCache
from xacle_stack.experiment import fill_cache
from xacle_stack.metrics import srcc, srcc_gain
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import read_recipe
from xacle_stack.stacking import marginal_likelihood
from xacle_stack.synth.demo import write_demo

# Name, parameters of the builder, and of the stacker.
TRIES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("as it is", {}, {}),
    *((f"whitened, {n} axes", {"n_whitened": n}, {}) for n in (64, 128)),
    ("proximities", {"proximities": True}, {}),
    ("no agreement features", {"agreement": False}, {}),
    ("a gate as last step", {}, {"meta": "gate"}),
    ("ranks as target", {}, {"target": "rank"}),
    ("trees of XGBoost", {}, {"boosting_library": "xgboost"}),
    ("trees of CatBoost", {}, {"boosting_library": "catboost"}),
    ("no trees", {}, {"left_out": ["boosting"]}),
    ("no ridges", {}, {"left_out": ["ridges"]}),
]
# A Gaussian process of fewer or more kernels: where their relevances start.
KERNELS = {"one kernel": (0.3,), "three kernels": (0.03, 0.3, 3.0)}


def data_sets(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return each data set's spaces, and embeddings, scores and captions of its two splits."""
    with h5py.File(real_data("sick_pairs.h5")) as file:
        sick = [(*read_split(file, split), None) for split in ("train", "validation")]
        found: dict[str, tuple[Any, ...]] = {"SICK": (sorted(file["spaces"]), sick)}
    recipe = read_recipe("mini")
    write_demo(folder / "demo", n_jobs=-1)
    for name, data in (("ESC-10", real_data("esc10")), ("demo", folder / "demo")):
        store = folder / f"store-{name}"
        fill_cache(data, recipe, store, n_jobs=-1, progress=False)
        splits = [read_pairs(data, split) for split in ("train", "validation")]
        loaded = [
            (FeatureCache(store).load(pairs, recipe.fingerprints()), pairs.scores, pairs.captions)
            for pairs in splits
        ]
        found[name] = (list(recipe.spaces), loaded)
    return found


def scores_of(
    splits: tuple[Any, ...], of_builder: dict[str, Any], of_stacker: dict[str, Any]
) -> list[np.ndarray]:
    """Return out-of-fold scores of train, and scores of validation."""
    spaces, ((train, y, captions), (validation, *_)) = splits
    builder = FeatureBuilder(spaces, **of_builder)
    stacker = Stacker(random_state=0, n_jobs=-1, **of_stacker)
    stacker.fit(builder.fit_transform(train), y, groups=captions)
    return [stacker.oof_scores_, stacker.predict(builder.transform(validation))]


def main() -> None:
    """Run it."""
    starts = marginal_likelihood._STARTS
    usual: dict[str, list[np.ndarray]] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sets = data_sets(Path(folder))
        tries: list[tuple[str, Callable[[Any], list[np.ndarray]]]] = [
            (name, lambda splits, b=b, s=s: scores_of(splits, b, s)) for name, b, s in TRIES
        ]
        for name, changed in KERNELS.items():

            def with_kernels(splits: Any, changed: Any = changed) -> list[np.ndarray]:
                marginal_likelihood._STARTS = changed
                try:
                    return scores_of(splits, {}, {})
                finally:
                    marginal_likelihood._STARTS = starts

            tries.append((name, with_kernels))
        for name, scores in tries:
            for data, splits in sets.items():
                found = scores(splits)
                before = usual.setdefault(data, found)
                row: list[object] = [name, data]
                for (_, y, _), ours, theirs in zip(splits[1], found, before, strict=True):
                    gain = None if ours is theirs else srcc_gain(y, ours, theirs)
                    row += [srcc(y, ours), gain]
                rows.append(row)
                print(*row, flush=True)
    header = ["try", "data", "out-of-fold SRCC", "out-of-fold gain"]
    header += ["validation SRCC", "validation gain"]
    report("tries", "One setting of the preset best changed at a time", header, rows)


if __name__ == "__main__":
    main()
