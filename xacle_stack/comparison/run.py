"""Every system of a recipe on one data set: trained, scored, timed, and set side by side."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import has_fit_parameter

from xacle_stack._optional import check_installed
from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray
from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.comparison.parameters import count_parameters
from xacle_stack.contenders import (
    Contender,
    EnsembleContender,
    file_name,
)
from xacle_stack.errors import MissingExtraError, PairsError
from xacle_stack.model_file import save_model
from xacle_stack.pairs import Pairs, read_splits
from xacle_stack.recipe import Recipe
from xacle_stack.results import (
    Result,
    published_for,
    splits_with_scores,
    write_plots,
    write_tables,
)
from xacle_stack.run_folder import MODELS, RunFolder, data_digest
from xacle_stack.stacking import (
    Stacker,
)
from xacle_stack.submission import write_predictions
from xacle_stack.systems import average, rank_average
from xacle_stack.systems.fitted import FittedSystem
from xacle_stack.targets import Targets, fold_groups

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Runs:
    """What the fits of one system gave; one entry a seed in each list."""

    kind: str
    scores: dict[str, list[FloatArray]] = field(default_factory=dict)
    fit_s: list[float] = field(default_factory=list)
    score_ms: list[float] = field(default_factory=list)
    n_parameters: int = 0
    chose_epoch_on_validation: bool = False


def compare_systems(
    data: Path, recipe: Recipe, store: Path, out: Path, *, n_jobs: int, progress: bool
) -> Iterator[list[Result]]:
    """Train and evaluate every system of a recipe, one after the other.

    Yields
    ------
    results : list of Result
        Those of the systems that are finished, after each of them.  Their tables, their scores
        for every split but train and the models of their first seeds are then in `out`, and what
        an earlier run left there is gone; after the last one there are plots as well.

    Raises
    ------
    KeyboardInterrupt
        At the user's.  A network in training leaves its best state so far among the models, as
        ``NAME-interrupted.skops``, unless it would take the place of an earlier run's results.
    PairsError
        If there is no train split with scores, or no other split to evaluate on.
    CacheError
        If embeddings are missing.
    ModelFileError
        If `out` cannot be written, another run is writing there, or it holds the results of
        another data set.
    MissingExtraError
        If a system trains a network and what it needs is not installed.
    """
    for name, settings in recipe.contenders.items():
        for package in settings.packages if isinstance(settings, Contender) else ():
            check_installed(package, extra="neural", purpose=f"the system {name!r}")
    splits = read_splits(data)
    train = splits.pop("train", None)
    if train is None or train.scores is None:
        raise PairsError(f"{data}: there is no train split with scores to fit on.")
    judged = splits_with_scores(data, splits)
    if not judged:
        raise PairsError(
            f"{data}: no split but train has scores, so no system can be compared. Add a split "
            "validation or test with average scores."
        )
    for split, pairs in judged.items():
        if np.ptp(np.asarray(pairs.scores)) == 0:
            logger.warning(
                "all scores of the split %r are equal: correlations with them are undefined.", split
            )
    for name, settings in recipe.contenders.items():
        chooses = isinstance(settings, Contender) and settings.chooses_epoch_on_validation
        if chooses and "validation" not in judged:
            raise PairsError(
                f"{data}: there is no validation split with scores, where the system {name!r} "
                'would choose its epoch. Leave choose_epoch_on = "validation" out: then some '
                "captions of the train split are held out for that."
            )
    published = published_for(*splits.values())
    with RunFolder(out, data, store) as run:
        cache, fingerprints = FeatureCache(store), recipe.fingerprints()
        cached = {split: cache.load(pairs, fingerprints) for split, pairs in splits.items()}
        targets = Targets.of(train, recipe)
        task = _Task(recipe, cache.load(train, fingerprints), targets, cached, n_jobs, progress)
        facts = {"data": data_digest(data)}
        finished: list[Result] = []
        try:
            for results in _train_each(task, judged, run.draft, facts):
                finished += results
                write_tables([*finished, *published], run.draft)
                run.publish()
                yield finished
        except KeyboardInterrupt:
            # The state of a training does not take the place of an earlier run's results.
            if finished or not run.has_results:
                run.publish()
            raise
        try:
            write_plots([*finished, *published], run.draft)
        except MissingExtraError as error:
            logger.warning("No plots: %s", error)
        run.publish()


def _train_each(
    task: _Task, judged: Mapping[str, Pairs], draft: Path, facts: Mapping[str, str]
) -> Iterator[list[Result]]:
    """Train, score and evaluate one system after the other; write its model and its scores."""
    recipe, runs = task.recipe, dict[str, _Runs]()
    n_fits = sum(task.n_seeds(settings) for settings in recipe.contenders.values())
    # Averages are made of what is finished.
    order = sorted(recipe.contenders.items(), key=lambda one: isinstance(one[1], EnsembleContender))
    with progress_bar("comparing", n_fits, "fits", shown=task.progress) as bar:
        for name, settings in order:
            if isinstance(settings, EnsembleContender):
                runs[name] = _ensemble(settings, runs)
            else:
                card = {**facts, **recipe.for_scoring_with(name).origin()}
                chose = settings.chooses_epoch_on_validation
                runs[name] = _Runs(settings.kind, chose_epoch_on_validation=chose)
                models: list[FittedSystem] = []
                for seed in range(task.n_seeds(settings)):
                    model = task.fit(settings, seed, runs[name])
                    if getattr(model.stacker, "was_interrupted_", False):
                        _save_system(draft / MODELS / f"{file_name(name)}-interrupted", model, card)
                        raise KeyboardInterrupt  # figures of a part of a training mislead
                    models = models or [model]
                    task.score(model, runs[name])
                    bar.update()
                _save_system(draft / MODELS / file_name(name), models[0], card)
            for split, scores in runs[name].scores.items():
                path = draft / f"scores-{split}-{file_name(name)}.csv"
                write_predictions(path, task.cached[split].pair_ids, scores[0], split)
            yield _compared(name, runs, judged)


def _save_system(path: Path, system: FittedSystem, card: Mapping[str, Any]) -> None:
    """Save a system so that it can score; `path` goes without an ending."""
    model = {"builder": system.builder, "stacker": system.stacker}
    save_model(path.with_name(f"{path.name}.skops"), model, card)


@dataclass(frozen=True, eq=False)
class _Task:
    recipe: Recipe
    train: CachedPairs
    targets: Targets
    cached: Mapping[str, CachedPairs]
    n_jobs: int
    progress: bool
    groups: dict[tuple[str, int | None], Sequence[str] | None] = field(default_factory=dict)

    def n_seeds(self, settings: Contender | EnsembleContender) -> int:
        if isinstance(settings, EnsembleContender):
            return 0
        if not settings.is_stochastic:
            return 1
        return self.recipe.seeds if settings.seeds is None else settings.seeds

    def fit(self, settings: Contender, seed: int, runs: _Runs) -> FittedSystem:
        """Train with one seed."""
        start = time.perf_counter()
        builder = settings.builder(self.recipe.cache_names, self.recipe.builder())
        X = builder.fit_transform(self.train)
        stacker = self.recipe.new_stacker(self.n_jobs)
        random_state = self.recipe.stacker.random_state + seed
        regressor = settings.regressor(builder, stacker, random_state, self.progress)
        extra: dict[str, Any] = {"sample_weight": self.targets.sample_weight}
        if has_fit_parameter(regressor, "groups"):
            extra["groups"] = self._groups(regressor)
        if settings.chooses_epoch_on_validation:
            validation = self.cached["validation"]
            extra["eval_set"] = (builder.transform(validation), validation.pairs.scores)
        regressor.fit(X, self.targets.scores, **extra)
        runs.fit_s.append(time.perf_counter() - start)
        return FittedSystem(builder, regressor)

    def _groups(self, regressor: Any) -> Sequence[str] | None:
        pairs = self.train.pairs
        if not isinstance(regressor, Stacker):  # it holds out a few captions, once
            return None if self.recipe.stacker.group_by == "none" else pairs.captions
        settings = (regressor.preset, regressor.n_splits)
        if settings not in self.groups:  # once: it may warn
            self.groups[settings] = fold_groups(pairs, self.recipe, regressor)
        return self.groups[settings]

    def score(self, model: FittedSystem, runs: _Runs) -> None:
        """Score every split."""
        start = time.perf_counter()
        for split, cached in self.cached.items():
            runs.scores.setdefault(split, []).append(model.score(cached))
        n_pairs = sum(len(cached.pairs) for cached in self.cached.values())
        runs.score_ms.append(1e3 * (time.perf_counter() - start) / n_pairs)
        runs.n_parameters = count_parameters([model.builder, model.stacker])


def _ensemble(settings: EnsembleContender, runs: Mapping[str, _Runs]) -> _Runs:
    """Average the seeds of systems side by side; one with fewer seeds begins again."""
    members = [runs[name] for name in settings.of]
    n_seeds = max(len(member.fit_s) for member in members)
    combined = _Runs(settings.kind)
    method = rank_average if settings.method == "rank" else average
    for split in members[0].scores:
        combined.scores[split] = [
            method([m.scores[split][seed % len(m.scores[split])] for m in members])
            for seed in range(n_seeds)
        ]
    combined.fit_s = [sum(float(np.mean(member.fit_s)) for member in members)] * n_seeds
    combined.score_ms = [sum(float(np.mean(member.score_ms)) for member in members)] * n_seeds
    combined.n_parameters = sum(member.n_parameters for member in members)
    combined.chose_epoch_on_validation = any(m.chose_epoch_on_validation for m in members)
    return combined


def _compared(name: str, runs: Mapping[str, _Runs], judged: Mapping[str, Pairs]) -> list[Result]:
    own, reference = runs[name], next(iter(runs))
    return [
        Result.from_scores(
            name,
            split,
            own.kind,
            np.asarray(pairs.scores),
            own.scores[split],
            reference_scores=None if name == reference else runs[reference].scores[split],
            fit_s=float(np.mean(own.fit_s)),
            score_ms=float(np.mean(own.score_ms)),
            n_parameters=own.n_parameters,
            chose_epoch_here=split == "validation" and own.chose_epoch_on_validation,
        )
        for split, pairs in judged.items()
    ]
