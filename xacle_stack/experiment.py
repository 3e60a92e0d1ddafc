"""One experiment from cache to results: fit every combination of spaces, score, evaluate, save."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from xacle_stack._files import write_atomically
from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray
from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.encoders import EncoderChoice
from xacle_stack.errors import ModelFileError, PairsError
from xacle_stack.extract import ExtractionReport, extract_embeddings
from xacle_stack.features import FeatureBuilder
from xacle_stack.metrics import evaluate, srcc
from xacle_stack.pairs import Pairs, list_splits, read_pairs
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.results import (
    PublishedResult,
    SystemResult,
    published_for,
    results_csv,
    results_markdown,
)
from xacle_stack.stacking import Stacker, load_card, load_model, save_model
from xacle_stack.submission import write_predictions
from xacle_stack.systems import rank_average

logger = logging.getLogger(__name__)

MODEL_FILE = "model.skops"
RANK_ENSEMBLE = "rank ensemble of the singles"


@dataclass(frozen=True, eq=False)
class FittedSystem:
    """A builder and a stacker that belong together: from embeddings to scores."""

    builder: FeatureBuilder
    stacker: Stacker

    def score(self, embeddings: CachedPairs) -> FloatArray:
        """Return a score in 0–10 for each pair, shape (n_pairs,)."""
        scores: FloatArray = self.stacker.predict(self.builder.transform(embeddings))
        return scores


def fill_cache(
    data: Path, recipe: Recipe, store: Path, *, n_jobs: int, progress: bool
) -> ExtractionReport:
    """Encode every split of a data set with every encoder of a recipe."""
    splits = [read_pairs(data, split) for split in list_splits(data)]
    return extract_embeddings(splits, recipe.encoders, store, n_jobs=n_jobs, progress=progress)


def run_experiment(
    data: Path, recipe: Recipe, store: Path, out: Path, *, n_jobs: int, progress: bool
) -> tuple[list[SystemResult], list[PublishedResult]]:
    """Fit each space, each couple and all spaces on train; score and evaluate the other splits.

    Writes into `out`: the model of all spaces (``model.skops``, ``model.json``), its predictions
    for every split but train, and the results as CSV and Markdown.

    Returns
    -------
    results : list of SystemResult
        For every split with scores but train.
    published : list of PublishedResult
        Rows to show beside them: those of XACLE, if the data set is XACLE.

    Raises
    ------
    PairsError
        If there is no train split with scores.
    CacheError
        If embeddings are missing.
    """
    splits = list_splits(data)
    if "train" not in splits:
        raise PairsError(f"{data}: there is no train split to fit on; found {splits}.")
    fingerprints = recipe.fingerprints()
    cache = FeatureCache(store)
    train = read_pairs(data, "train")
    cached_train = cache.load(train, fingerprints)
    others = {split: read_pairs(data, split) for split in splits if split != "train"}
    cached = {split: cache.load(pairs, fingerprints) for split, pairs in others.items()}

    scores: dict[str, dict[str, FloatArray]] = {split: {} for split in others}
    subsets = space_subsets(recipe.spaces)
    with progress_bar("fitting", len(subsets), "stacks", shown=progress) as bar:
        for spaces in subsets:
            system = fit_system(recipe, spaces, cached_train, n_jobs)
            for split in others:
                scores[split][system_name(spaces)] = system.score(cached[split])
            bar.update()
    # The last subset is all spaces.
    for split, pairs in others.items():
        write_predictions(
            out / f"scores-{split}.csv", pairs.ids, scores[split][system_name(recipe.spaces)], split
        )
        if len(recipe.spaces) > 1:
            singles = [scores[split][system_name((space,))] for space in recipe.spaces]
            scores[split][RANK_ENSEMBLE] = rank_average(singles)
    results = [
        SystemResult(name, split, evaluate(pairs.scores, of_system))
        for split, pairs in others.items()
        if pairs.scores is not None
        for name, of_system in scores[split].items()
    ]
    published = [row for pairs in others.values() for row in published_for(pairs)]
    card = _card(recipe, fingerprints, train, system, results)
    save_model(out / MODEL_FILE, {"builder": system.builder, "stacker": system.stacker}, card)
    write_atomically(out / "results.csv", results_csv(results).encode())
    write_atomically(out / "results.md", results_markdown(results, published).encode())
    return results, published


def fit_system(
    recipe: Recipe, spaces: tuple[str, ...], train: CachedPairs, n_jobs: int | None = None
) -> FittedSystem:
    """Fit the stack of some of a recipe's spaces."""
    if train.pairs.scores is None:
        raise PairsError(f"the split {train.pairs.split!r} has no scores to fit on.")
    builder = recipe.builder(spaces)
    table = builder.fit_transform(train)
    stacker = recipe.new_stacker(n_jobs)
    stacker.fit(table, train.pairs.scores, groups=recipe.groups(train.pairs))
    return FittedSystem(builder, stacker)


def space_subsets(spaces: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return each space, each couple, and all spaces, each combination once.

    Examples
    --------
    >>> space_subsets(("a", "b"))
    [('a',), ('b',), ('a', 'b')]
    """
    sizes = sorted({1, min(2, len(spaces)), len(spaces)})
    return [subset for size in sizes for subset in combinations(spaces, size)]


def system_name(spaces: tuple[str, ...]) -> str:
    """Return how a combination of spaces is called in the table."""
    return " + ".join(EncoderChoice(space).encoder.info.name for space in spaces)


def load_system(path: Path | str) -> tuple[FittedSystem, Recipe]:
    """Load a saved system and the recipe that it was made with.

    Raises
    ------
    ModelFileError
        If the file cannot be trusted or read, or its encoders are not those of this installation.
    """
    card = load_card(path)
    model = load_model(path)
    if not isinstance(model, dict) or {"builder", "stacker"} - set(model):
        raise ModelFileError(
            f"{path}: this model has no feature builder, so it cannot score audio. "
            "Use one that `make stack` wrote."
        )
    recipe = recipe_from(card["recipe"], source=f"{path}, its card")
    _check_fingerprints(path, card.get("fingerprints", {}), recipe.fingerprints())
    return FittedSystem(model["builder"], model["stacker"]), recipe


def score_pairs(
    system: FittedSystem,
    recipe: Recipe,
    pairs: Pairs,
    store: Path,
    *,
    n_jobs: int = 1,
    progress: bool = False,
) -> tuple[FloatArray | None, ExtractionReport]:
    """Encode what is missing and score; no scores where an audio file could not be used."""
    report = extract_embeddings([pairs], recipe.encoders, store, n_jobs=n_jobs, progress=progress)
    if report.failures:
        return None, report
    return system.score(FeatureCache(store).load(pairs, recipe.fingerprints())), report


def _check_fingerprints(
    path: Path | str, fitted: Mapping[str, str], installed: Mapping[str, str]
) -> None:
    changed = [name for name in installed if fitted.get(name) != installed[name]]
    if changed:
        raise ModelFileError(
            f"{path}: it was fitted on other embeddings than this installation makes, for: "
            f"{', '.join(changed)}. Use the same checkpoints and library versions (see the card), "
            "or fit it again with: make stack"
        )


def _card(
    recipe: Recipe,
    fingerprints: Mapping[str, str],
    train: Pairs,
    system: FittedSystem,
    results: list[SystemResult],
) -> dict[str, object]:
    stacker = system.stacker
    oof = zip(stacker.level0_names_, stacker.oof_predictions_.T, strict=True)
    scores = np.asarray(train.scores)
    name = system_name(recipe.spaces)
    return {
        "recipe": recipe.model_dump(mode="json"),
        "fingerprints": dict(fingerprints),
        "families": {family: [s.start, s.stop] for family, s in stacker.families_.items()},
        "n_training_pairs": len(train),
        "oof_srcc": {learner: srcc(scores, column) for learner, column in oof},
        "metrics": {
            result.split: {
                metric: [estimate.value, estimate.low, estimate.high]
                for metric, estimate in result.evaluation.as_dict().items()
            }
            for result in results
            if result.system == name
        },
    }
