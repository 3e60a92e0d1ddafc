"""One experiment from cache to results: fit every combination of spaces, score, evaluate, save."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray
from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.encoders import EncoderChoice
from xacle_stack.errors import EncoderError, ModelFileError, PairsError
from xacle_stack.extract import ExtractionReport, extract_embeddings
from xacle_stack.metrics import evaluate, srcc
from xacle_stack.model_file import MAX_MODEL_BYTES, load_card, load_model, save_model
from xacle_stack.pairs import Pairs, read_splits
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.recipe_file import MAX_BYTES as MAX_RECIPE_BYTES
from xacle_stack.recipe_file import check_values
from xacle_stack.results import Result, published_for, splits_with_scores, write_tables
from xacle_stack.run_folder import RunFolder, data_digest
from xacle_stack.submission import write_predictions
from xacle_stack.systems import rank_average
from xacle_stack.systems.fitted import FittedSystem
from xacle_stack.targets import Targets, fold_groups

MODEL_FILE = "model.skops"
_VIEW = re.compile(r".+\.view-\d+")
# A recipe file may have a fourth of that; a card also holds what it leaves out.
_MAX_CARD_RECIPE_BYTES = 4 * MAX_RECIPE_BYTES
RANK_ENSEMBLE = "rank ensemble of the singles"


def fill_cache(
    data: Path,
    recipe: Recipe,
    store: Path,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    n_jobs: int = 1,
    progress: bool = False,
) -> ExtractionReport:
    """Encode every split of a data set with every encoder of a recipe; of train, views as well."""
    splits = read_splits(data)
    encode = partial(
        extract_embeddings,
        root=store,
        device=device,
        batch_size=batch_size,
        n_jobs=n_jobs,
        progress=progress,
    )
    report = encode(splits.values(), recipe.encoders)
    if recipe.view_encoders and "train" in splits:
        of_views = encode([splits["train"]], recipe.view_encoders)
        report.encoded += of_views.encoded
        report.reused += of_views.reused
    return report


def run_experiment(
    data: Path, recipe: Recipe, store: Path, out: Path, *, n_jobs: int, progress: bool
) -> tuple[list[Result], list[Result]]:
    """Fit all spaces, and what the recipe compares, on train; score and evaluate the other splits.

    Writes into `out`: the model of all spaces (``model.skops``, ``model.json``), its predictions
    for every split but train, and the results as CSV and Markdown.  What an earlier run left there
    is replaced in one step, at the end: a run that is killed leaves it as it was.

    Returns
    -------
    results : list of Result
        For every split with scores but train.
    published : list of Result
        Rows to show beside them: those of XACLE, if the data set is XACLE.

    Raises
    ------
    PairsError
        If there is no train split with scores, or a split is too small to evaluate on.
    CacheError
        If embeddings are missing.
    ModelFileError
        If `out` cannot be written, another run is writing there, or it holds the results of
        another data set.
    """
    splits = read_splits(data)
    train = splits.pop("train", None)
    if train is None:
        raise PairsError(f"{data}: there is no train split to fit on; found {list(splits)}.")
    judged = splits_with_scores(data, splits)
    with RunFolder(out, data, store) as run:
        fingerprints = recipe.fingerprints()
        cache = FeatureCache(store)
        cached_train = cache.load(train, fingerprints)
        cached = {split: cache.load(pairs, fingerprints) for split, pairs in splits.items()}

        scores: dict[str, dict[str, FloatArray]] = {split: {} for split in splits}
        # Once: they may warn.
        targets = Targets.of(train, recipe)
        groups = fold_groups(train, recipe, recipe.new_stacker())
        subsets = space_subsets(recipe.spaces, recipe.compare)
        with progress_bar("fitting", len(subsets), "stacks", shown=progress) as bar:
            for spaces in subsets:
                system = fit_system(recipe, spaces, cached_train, targets, groups, n_jobs)
                for split in splits:
                    scores[split][system_name(spaces)] = system.score(cached[split])
                bar.update()
        # The last subset is all spaces.
        final = {split: of_split[system_name(recipe.spaces)] for split, of_split in scores.items()}
        if len(recipe.spaces) > 1 and "singles" in recipe.compare:
            for of_split in scores.values():
                singles = [of_split[system_name((space,))] for space in recipe.spaces]
                of_split[RANK_ENSEMBLE] = rank_average(singles)
        results = [
            Result(name, split, "stack", evaluate(pairs.scores, of_system))
            for split, pairs in judged.items()
            for name, of_system in scores[split].items()
        ]
        published = published_for(*splits.values())
        for split, pairs in splits.items():
            write_predictions(run.draft / f"scores-{split}.csv", pairs.ids, final[split], split)
        write_tables([*results, *published], run.draft)
        card = {"data": data_digest(data), **_card(recipe, train, system, results)}
        save_model(
            run.draft / MODEL_FILE, {"builder": system.builder, "stacker": system.stacker}, card
        )
        run.publish()
    return results, published


def fit_system(
    recipe: Recipe,
    spaces: tuple[str, ...],
    train: CachedPairs,
    targets: Targets,
    groups: Sequence[str] | None,
    n_jobs: int | None = None,
) -> FittedSystem:
    """Fit the stack of some of a recipe's spaces; `groups` as :func:`fold_groups` gives them."""
    builder = recipe.builder(spaces)
    table = builder.fit_transform(train)
    stacker = recipe.new_stacker(n_jobs)
    stacker.fit(table, targets.scores, groups, targets.sample_weight)
    return FittedSystem(builder, stacker)


def space_subsets(spaces: tuple[str, ...], compare: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the singles and couples that are compared, then all spaces, each combination once.

    Examples
    --------
    >>> space_subsets(("a", "b"), ["singles", "couples"])
    [('a',), ('b',), ('a', 'b')]
    >>> space_subsets(("a", "b", "c"), [])
    [('a', 'b', 'c')]
    """
    sizes = [size for size, name in ((1, "singles"), (2, "couples")) if name in compare]
    sizes = [size for size in sizes if size < len(spaces)]
    return [subset for size in [*sizes, len(spaces)] for subset in combinations(spaces, size)]


def system_name(spaces: tuple[str, ...]) -> str:
    """Return how a combination of spaces is called in the table."""
    return " + ".join(EncoderChoice(space).encoder.info.name for space in spaces)


def load_system(
    path: Path | str,
    recipe: Recipe | None = None,
    *,
    checkpoints: Mapping[str, str] | None = None,
    code: Mapping[str, str] | None = None,
    max_bytes: int = MAX_MODEL_BYTES,
) -> tuple[FittedSystem, Recipe]:
    """Load a saved system and the recipe that it was made with.

    The card says which encoders and features they were, by names that this library knows.  Where
    weights are, what code is run and how many views there are is never taken from it.

    Parameters
    ----------
    path : path-like
        ``model.skops`` or its folder.
    recipe : Recipe, optional
        Needed where an encoder is a Python file: the card's word is not enough to run one.
    checkpoints, code : mapping of str to str, optional
        Where they are on this machine, if not where the recipe or the encoder's default says.
    max_bytes : int, optional
        The largest model that is read; see :func:`~xacle_stack.load_model`.

    Raises
    ------
    ModelFileError
        If the file cannot be trusted or read, or its encoders are not those of this installation.
    RecipeError, UnknownNameError
        If the card's recipe has a mistake, or names an encoder that there is not.
    EncoderError
        If an encoder's weights are not there.
    """
    card = load_card(path)
    fingerprints, settings = card.get("fingerprints"), card.get("recipe")
    if not isinstance(settings, dict) or not isinstance(fingerprints, dict):
        raise ModelFileError(
            f"{path}: its card has no recipe and fingerprints, so nobody knows which embeddings it "
            "scores. Use a model that `xacle-stack stack` wrote."
        )
    n_bytes = len(json.dumps(settings))
    if n_bytes > _MAX_CARD_RECIPE_BYTES:
        raise ModelFileError(
            f"{path}: the recipe in its card has {n_bytes:,} bytes, expected "
            f"{_MAX_CARD_RECIPE_BYTES:,} or fewer. Use a model that `xacle-stack stack` wrote."
        )
    model = load_model(path, max_bytes=max_bytes)
    if not isinstance(model, dict) or {"builder", "stacker"} - set(model):
        raise ModelFileError(
            f"{path}: this model has no feature builder, so it cannot score audio. "
            "Use one that `xacle-stack stack` wrote."
        )
    for part, method in (("builder", "transform"), ("stacker", "predict")):
        is_ours = type(model[part]).__module__.partition(".")[0] == "xacle_stack"
        if not is_ours or not callable(getattr(model[part], method, None)):
            raise ModelFileError(
                f"{path}: its {part} is a {type(model[part]).__name__}, which has no place in a "
                "system. Use a model that `xacle-stack stack` wrote."
            )
    if recipe is None:
        if ".py:" in json.dumps(settings):
            raise ModelFileError(
                f"{path}: it was fitted with an encoder from a Python file, which is not run on a "
                "saved model's word. If you trust it, give the recipe that names it: --recipe."
            )
        own = {**settings, "checkpoints": {}, "code": {}, "views": {}}  # the user's to say
        check_values(own, f"{path}, its card")
        recipe = recipe_from(own, source=f"{path}, its card")
    recipe = recipe.override(checkpoints=checkpoints, code=code)
    try:
        installed = recipe.fingerprints()
    except EncoderError as error:
        hint = _places_in_card(settings)
        raise EncoderError(f"{error}{hint}") from None
    _check_fingerprints(path, fingerprints, installed, _places_in_card(settings))
    return FittedSystem(model["builder"], model["stacker"]), recipe


def score_pairs(
    system: FittedSystem,
    recipe: Recipe,
    pairs: Pairs,
    store: Path,
    *,
    device: str = "auto",
    n_jobs: int = 1,
    progress: bool = False,
) -> tuple[FloatArray | None, ExtractionReport]:
    """Encode what is missing and score; no scores where an audio file could not be used."""
    report = extract_embeddings(
        [pairs], recipe.encoders, store, device=device, n_jobs=n_jobs, progress=progress
    )
    if report.failures:
        return None, report
    return system.score(FeatureCache(store).load(pairs, recipe.fingerprints())), report


def _check_fingerprints(
    path: Path | str,
    fitted: Mapping[str, object],
    installed: Mapping[str, str],
    hint: str,
) -> None:
    # A recipe may name more encoders than one of its systems was fitted on; views are of training.
    names = [name for name in fitted if not _VIEW.fullmatch(name)] or list(installed)
    changed = [name for name in names if fitted.get(name) != installed.get(name)]
    if changed:
        shown = ", ".join(name if name in installed else repr(name[:80]) for name in changed[:20])
        raise ModelFileError(
            f"{path}: it was fitted on other embeddings than this installation makes, for: "
            f"{shown}. Name the checkpoint that it was fitted with, --checkpoint "
            f"{changed[0][:80] if changed[0] in installed else 'NAME'}=PLACE, and use the same "
            "library versions (see the card), or fit it again with: xacle-stack stack."
            f"{hint}"
        )


def _places_in_card(settings: Mapping[str, object]) -> str:
    """Return what a card says of checkpoints, as a hint: it may be anybody's, and is not obeyed."""
    places = settings.get("checkpoints")
    if not isinstance(places, dict) or not places:
        return ""
    named = ", ".join(
        f"{str(name)[:80]!r} with {str(place)[:200]!r}" for name, place in [*places.items()][:20]
    )
    return f" According to its card, which nobody has checked, it was fitted: {named}."


def _card(
    recipe: Recipe,
    train: Pairs,
    system: FittedSystem,
    results: list[Result],
) -> dict[str, object]:
    stacker = system.stacker
    oof = zip(stacker.level0_names_, stacker.oof_predictions_.T, strict=True)
    scores = np.asarray(train.scores)
    name = system_name(recipe.spaces)
    return {
        **recipe.origin(),
        "families": {family: [s.start, s.stop] for family, s in stacker.families_.items()},
        "n_training_pairs": len(train),
        "oof_srcc": {learner: _or_none(srcc(scores, column)) for learner, column in oof},
        "metrics": {
            result.split: {
                metric: [_or_none(e) for e in (estimate.value, estimate.low, estimate.high)]
                for metric, estimate in result.evaluation.as_dict().items()
            }
            for result in results
            if result.system == name
        },
    }


def _or_none(value: float) -> float | None:
    """Return what JSON can hold: a correlation with a constant is undefined."""
    return value if math.isfinite(value) else None
