"""Real recordings, real listeners: ESC-10 and its published human classification.

Writes the picture that the README shows.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from figures import UNSEEN, digest_of, read_rows
from report import RESULTS, real_data, report
from sklearn.model_selection import GroupKFold

from xacle_stack import FeatureBuilder, PairEmbeddings, Stacker
from xacle_stack.cache import FeatureCache
from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.features import cosine_similarity
from xacle_stack.metrics import Estimate, evaluate, format_number, srcc_gain
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import Recipe, read_recipe
from xacle_stack.results import Result
from xacle_stack.results.plot_style import DPI, draw_dot_rows, new_axes, set_finding, style_axes
from xacle_stack.scorer import Scorer
from xacle_stack.submission import read_predictions

SEEDS = range(3)
OTHERS = {
    "all three, preset paper": {"preset": "paper"},
    "all three, target rank": {"target": "rank"},
}


def main() -> None:
    """Run it."""
    data = real_data("esc10")
    recipe = read_recipe("mini")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        start = time.perf_counter()
        fill_cache(data, recipe, store, n_jobs=-1)
        encoded = time.perf_counter()
        out = Path(folder) / "run"
        *_, results = run_experiment(data, recipe, recipe.stack_systems, store, out, n_jobs=-1)
        fitted = time.perf_counter()
        validation = read_pairs(data, "validation")
        cached = FeatureCache(store).load(validation, recipe.fingerprints())
        unseen = score_unseen_captions(recipe, FeatureCache(store), data)
        pooled(recipe, FeatureCache(store), data)
        evaluation = evaluate(validation.scores, unseen)
        results.append(Result(UNSEEN, "validation", "stack", evaluation))
        train = read_pairs(data, "train")
        scores = {}
        for name, changed in OTHERS.items():
            stacker = recipe.new_stacker(n_jobs=-1).set_params(**changed)
            scorer = Scorer(recipe, stacker).fit(FeatureCache(store).load(train))
            scores[name] = scorer.score(cached)
            evaluation = evaluate(validation.scores, scores[name])
            results.append(Result(name, "validation", "stack", evaluation))
        best = read_predictions(out / "scores-validation.csv", validation.ids)
        gain = srcc_gain(validation.scores, best, scores["all three, preset paper"])
        cosines = []
        for space in recipe.spaces:
            cosine = cosine_similarity(cached.audio(space), cached.text(space))
            evaluation = evaluate(validation.scores, cosine)
            cosines.append(Result(f"cosine of {space}", "validation", "cosine", evaluation))
    rows = []
    for result in [*cosines, *results]:
        metrics: dict[str, Estimate | None] = {**result.evaluation.as_dict()}
        if result in cosines:
            metrics["MSE"] = None  # a cosine is on no scale of scores
        rows.append([result.system, *metrics.values()])
    header = ["system", "SRCC", "LCC", "KTAU", "MSE"]
    title = (
        f"esc10: {len(validation)} validation pairs, 95 % bootstrap intervals; "
        f"features {encoded - start:.1f} s, seven stacks {fitted - encoded:.1f} s"
    )
    report("esc10", title, header, rows)
    print(f"SRCC of best over paper, paired bootstrap: {gain}")
    title = "esc10: validation SRCC of best over paper, paired bootstrap"
    report("esc10_gain", title, ["gain"], [[gain]])
    extreme = float(np.mean((validation.scores < 1) | (validation.scores > 9)))
    header = ["pairs", "share below 1 or above 9", "variance"]
    variance = float(np.var(validation.scores))
    report(
        "esc10_scores", "esc10: validation scores", header, [[len(validation), extreme, variance]]
    )
    draw()


def pooled(recipe: Recipe, cache: FeatureCache, data: Path) -> None:
    """Compare presets on the pairs of both splits, each scored without its caption.

    The 206 validation pairs are too few to tell presets apart.
    """
    parts = [read_pairs(data, split) for split in ("train", "validation")]
    prints = recipe.fingerprints()
    loaded = [cache.load(part, prints) for part in parts]
    source = PairEmbeddings(
        {
            space: tuple(
                np.concatenate([getattr(one, side)(space) for one in loaded])
                for side in ("audio", "text")
            )
            for space in recipe.spaces
        }
    )
    scores = np.concatenate([part.scores for part in parts])
    captions = np.array([caption for part in parts for caption in part.captions])
    _, numbers = np.unique(captions, return_inverse=True)
    systems = {
        "paper": ({}, {"preset": "paper"}),
        "best": ({}, {}),
        "best, n_whitened=128": ({"n_whitened": 128}, {}),
        "best, target rank": ({}, {"target": "rank"}),
    }
    predicted = {name: np.zeros(len(scores)) for name in systems}
    rows: list[list[object]] = []
    for seed in SEEDS:
        of_seed = {name: np.empty(len(scores)) for name in systems}
        fold = np.random.default_rng(seed).permutation(numbers.max() + 1)[numbers] % 5
        for number in range(5):
            train, held_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            for name, (of_builder, of_stacker) in systems.items():
                builder = FeatureBuilder(list(recipe.spaces), **of_builder)
                stacker = Stacker(random_state=seed, n_jobs=-1, **of_stacker)
                table = builder.fit_transform(source.take(train))
                stacker.fit(table, scores[train], groups=captions[train])
                of_seed[name][held_out] = stacker.predict(builder.transform(source.take(held_out)))
        for name, of_one in of_seed.items():
            predicted[name] += of_one / len(SEEDS)
            rows.append(_pooled_row(name, str(seed), scores, of_one, of_seed))
    _report_pooled(rows, scores, predicted)


def _report_pooled(
    rows: list[list[object]], scores: np.ndarray, predicted: dict[str, np.ndarray]
) -> None:
    rows += [_pooled_row(name, "mean", scores, one, predicted) for name, one in predicted.items()]
    title = f"esc10: {len(scores)} pairs of both splits, captions held out"
    header = ["system", "seed", "SRCC", "MSE", "over paper", "over best"]
    report("esc10_pooled", title, header, rows)


def _pooled_row(
    name: str, seed: str, scores: np.ndarray, ours: np.ndarray, others: dict[str, np.ndarray]
) -> list[object]:
    evaluation = evaluate(scores, ours)
    gains = [
        None if name == other else srcc_gain(scores, ours, others[other])
        for other in ("paper", "best")
    ]
    return [name, seed, evaluation.srcc, evaluation.mse, *gains]


def score_unseen_captions(recipe: Recipe, cache: FeatureCache, data: Path) -> np.ndarray:
    """Score each validation pair by a stack that was trained without its caption.

    All captions of the validation part stand in the training part too, with other clips.
    """
    train, validation = (read_pairs(data, split) for split in ("train", "validation"))
    prints = recipe.fingerprints()
    scores = np.empty(len(validation))
    for _, rows in GroupKFold(5).split(validation.captions, groups=validation.captions):
        held_out = {validation.captions[row] for row in rows}
        kept = [i for i, caption in enumerate(train.captions) if caption not in held_out]
        rest = train.take(kept)
        scorer = Scorer(recipe, n_jobs=-1).fit(cache.load(rest, prints))
        scores[rows] = scorer.score(cache.load(validation.take(rows), prints))
    return scores


def draw() -> None:
    """Draw each system's SRCC with its interval, from the figures that were written."""
    rows = sorted(read_rows("esc10"), key=lambda row: -row["SRCC"][0])
    names = [row["system"] for row in rows]
    estimates = [Estimate(*row["SRCC"]) for row in rows]
    cosines = [index for index, name in enumerate(names) if name.startswith("cosine")]
    (ax,) = new_axes(8, 4.6)
    style_axes(ax, x_label="SRCC with the listeners' mean score, 95% bootstrap interval", grid="x")
    draw_dot_rows(ax, names, {"SRCC": estimates}, muted=cosines)
    best, best_cosine = (format_number(float(estimates[i])) for i in (0, cosines[0]))
    set_finding(ax, f"ESC-10: stacks reach an SRCC of {best}, cosines {best_cosine}")
    ax.figure.savefig(RESULTS / "esc10.png", dpi=DPI, metadata={"Source": digest_of("esc10")})


if __name__ == "__main__":
    main()
