"""The runner: from cached embeddings to fitted scorers, their scores, and one table of results."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._files import name_in_files, write_atomically
from xacle_stack._folder_draft import link_or_copy
from xacle_stack._optional import check_installed
from xacle_stack._progress import progress_bar
from xacle_stack._types import FloatArray
from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.cross_validation import (
    HeldOutFolds,
    held_out_folds,
    measured_curve,
    out_of_fold_scores,
)
from xacle_stack.errors import MissingExtraError, PairsError
from xacle_stack.extract import ExtractionReport, extract_embeddings
from xacle_stack.metrics import srcc
from xacle_stack.model_file import (
    MODEL_SUFFIXES,
    card_sections,
    check_can_be_saved,
    load_card,
    write_markdown,
)
from xacle_stack.pairs import Pairs, data_name, read_splits
from xacle_stack.pretraining import check_training, pretrain, stage_pairs, weights_of
from xacle_stack.recipe import Recipe, chosen_settings
from xacle_stack.results import (
    CROSS_VALIDATION,
    LearningCurve,
    Result,
    ScoredPairs,
    published_for,
    splits_with_scores,
    write_plots,
    write_tables,
)
from xacle_stack.results.page import AudioChoice
from xacle_stack.results.page.run_page import write_run_page
from xacle_stack.run_folder import MODELS, REPORT, RunFolder, data_digest
from xacle_stack.run_record import Command, Figures, RunRecord, finite_or_none
from xacle_stack.scorer import Scorer
from xacle_stack.stacking import Selection, Stacker, select_stack
from xacle_stack.stacking.selection import N_SPLITS
from xacle_stack.submission import write_predictions
from xacle_stack.systems import average, rank_average
from xacle_stack.systems.checkpoints import digest_of
from xacle_stack.systems.specs import AnySpec, AudioLanguageModelSpec, EnsembleSpec, SystemSpec
from xacle_stack.targets import Targets, fold_groups, training_set, training_targets

logger = logging.getLogger(__name__)

MODEL_FILE = "model.skops"
# What a card says of an evaluation beside its metrics.
_BASIS = ("n_pairs", "n_groups", "confidence", "n_seeds", "chose_epoch_here")
# How sure the intervals on the page are.
_INTERVAL = 0.9
_MAX_FILE_NAME_BYTES = 255 - 20  # some room for the ending of a file that is being written


def fill_cache(
    data: Path,
    recipe: Recipe,
    store: Path,
    *,
    splits: Mapping[str, Pairs] | None = None,
    train: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    n_jobs: int | None = None,
    progress: bool = False,
) -> ExtractionReport:
    """Encode every split of a data set with every encoder of a recipe; of train, views as well.

    The data of earlier stages of training, which systems of the recipe name, are encoded, too.
    `splits` are those of the data set, where they are read already; `train` is the one to train on.
    """
    splits = read_splits(data) if splits is None else splits
    others = stage_pairs(recipe)
    encode = partial(
        extract_embeddings,
        root=store,
        device=device,
        batch_size=batch_size,
        n_jobs=n_jobs,
        progress=progress,
    )
    report = encode(splits.values(), recipe.encoders)
    train = train or ("train" if len(splits) > 1 else next(iter(splits)))
    if recipe.view_encoders and train in splits and splits[train].scores is not None:
        views = encode([splits[train]], recipe.view_encoders)
        report.encoded += views.encoded
        report.reused += views.reused
    if others:
        more = encode(others, recipe.encoders)
        report.encoded += more.encoded
        report.reused += more.reused
        report.failures |= more.failures
    return report


def planned_record(
    data: Path,
    recipe: Recipe,
    systems: Mapping[str, AnySpec],
    store: Path,
    *,
    splits: Mapping[str, Pairs],
    train: str | None = None,
    n_folds: int = 5,
    command: Command | None = None,
) -> RunRecord:
    """Return the record of a run before it begins, without results.

    The parameters are those of :func:`run_experiment`.

    Raises
    ------
    PairsError
        If there is no train split with scores.
    CacheError
        If there is no cache.
    """
    train = training_set(splits, train, source=data)
    cached = _cached(store, recipe, splits)
    return _record(data, recipe, systems, store, cached, train, n_folds, command)


def run_experiment(
    data: Path,
    recipe: Recipe,
    systems: Mapping[str, AnySpec],
    store: Path,
    out: Path,
    *,
    splits: Mapping[str, Pairs] | None = None,
    train: str | None = None,
    n_folds: int = 5,
    n_jobs: int | None = None,
    progress: bool = False,
    report_audio: AudioChoice = "link",
    select: Callable[[Selection], object] | None = None,
    command: Command | None = None,
) -> Iterator[list[Result]]:
    """Train every system on train; score the other splits, and evaluate where there are scores.

    Where no other split has scores, the systems are evaluated by cross-validation on train.  Their
    scorers are then fitted on all of train nevertheless.

    Whenever a system is finished, `out` holds what is finished so far, and nothing of an earlier
    run: the scorer and the scores of the reference (``model.skops``, ``scores-SPLIT.csv``), those
    of every system (``models/NAME.skops``, ``scores-SPLIT-NAME.csv``), the table of results
    (``results.csv``, ``results.md``), and the record of the run (``results.json``).  At the end
    there are plots and a page (``report/index.html``) as well.  A run that is killed leaves the
    folder as it was after its last finished system.

    Parameters
    ----------
    data, store, out : Path
        The folder or table of the data set, and the folders of the cached embeddings and of the
        results.
    recipe : Recipe
    systems : mapping of str to SystemSpec or EnsembleSpec
        The first is the reference that the others are compared with:
        :attr:`Recipe.stack_systems` or :attr:`Recipe.compared_systems`.
    splits : mapping of str to Pairs, optional
        Those of the data set, where they are read already.
    train : str, optional
        The split that is trained on: by default train, or the only one.
    n_folds : int, default=5
        Of the cross-validation; 0 for none.
    n_jobs : int, optional
        In joblib's convention; its backend encodes and scores.
    progress : bool, default=False
    report_audio : {"copy", "link", "none"}, default="link"
        What the page plays; see :func:`~xacle_stack.results.page.write_page`.
    select : callable, optional
        If given, smaller stacks are compared at the end, on train alone, by
        :func:`~xacle_stack.select_stack`.  What was found is written (``selection.csv``,
        ``selection.md``) and given to it.  The systems stay what they are.
    command : Command, optional
        What the user asked for, to be recorded.

    Yields
    ------
    results : list of Result
        Those of the systems that are finished, and the published ones for the same pairs.

    Raises
    ------
    KeyboardInterrupt
        At the user's.  A network in training leaves its best state so far among the models, as
        ``NAME-interrupted.skops``, unless it would take the place of an earlier run's results.
    PairsError
        If there is no train split with scores, a split is too small to evaluate on, a system
        would choose its epoch on a validation split without scores, or the names of splits and
        systems would give two files one name.
    CacheError
        If embeddings are missing.
    ModelFileError
        If `out` cannot be written, another run is writing there, or it holds the results of
        another data set.
    MissingExtraError
        If a system trains a network and what it needs is not installed.
    """
    splits = read_splits(data) if splits is None else splits
    train = training_set(splits, train, source=data)
    pairs = splits[train]
    splits = {split: others for split, others in splits.items() if split != train}
    scored, folds = splits_with_scores(data, splits), None
    if n_folds and not scored:
        folds = held_out_folds(pairs, recipe, n_folds)
        scored = {CROSS_VALIDATION: pairs}
    systems = _checked_systems(systems, scored, data, recipe)
    _check_file_names([*splits, *([] if folds is None else scored)], systems, data)
    with RunFolder(out, data, store) as run:
        cached = _cached(store, recipe, {train: pairs, **splits})
        record = _record(data, recipe, systems, store, cached, train, n_folds, command)
        task = _Task(
            recipe,
            cached.pop(train),
            training_targets(pairs, recipe),
            cached,
            scored,
            folds,
            run.draft,
            {"data": data_digest(data), "data_name": data_name(data)},
            n_jobs,
            progress,
        )
        published = published_for(*splits.values())
        results: list[Result] = []
        try:
            for finished in task.run(systems):
                results += finished
                write_tables([*results, *published], run.draft)
                record.with_results(results).write(run.draft)
                run.publish()
                yield [*results, *published]
        except KeyboardInterrupt:
            # The state of a training does not take the place of an earlier run's results.
            if results or not run.has_results:
                run.publish()
            raise
        if results:
            try:
                write_plots(results, run.draft)
            except MissingExtraError as error:
                logger.warning("No plots: %s", error)
        if shown := {**splits, **scored}:
            # The first of the seeds, as in the files of scores.
            scores = {
                name: {split: fits[0] for split, fits in task.fits[name].scores.items()}
                for name in systems
            }
            write_run_page(
                [*results, *published] if results else [],
                shown,
                scores,
                run.draft / REPORT,
                title=f"{recipe.name} on {data.resolve().name}",
                audio=report_audio,
                opened_in=out / REPORT,
                assessed=task.assessed,
                sections=card_sections(load_card(run.draft / MODEL_FILE), MODEL_FILE),
            )
        run.publish()
        if select is not None:
            selection = task.select()
            write_selection(selection, recipe, run.draft)
            run.publish()
            select(selection)


def write_selection(selection: Selection, recipe: Recipe, folder: Path) -> None:
    """Write what was found as ``selection.csv``, and as ``selection.md`` with the settings."""
    text = "\n\n".join(
        [
            selection.to_markdown(),
            "The settings of the recipe that make this stack:",
            f"```toml\n{chosen_settings(recipe, selection)}\n```\n",
        ]
    )
    write_atomically(folder / "selection.csv", selection.to_csv().encode())
    write_atomically(folder / "selection.md", text.encode())


def _record(
    data: Path,
    recipe: Recipe,
    systems: Mapping[str, AnySpec],
    store: Path,
    cached: Mapping[str, CachedPairs],
    train: str,
    n_folds: int,
    command: Command | None,
) -> RunRecord:
    own = {name: spec for name, spec in systems.items() if isinstance(spec, AudioLanguageModelSpec)}
    stages = stage_pairs(recipe.model_copy(update={"systems": own}))
    others = {f"stage {number}": pairs for number, pairs in enumerate(stages, 1)}
    return RunRecord.of(
        *(data, store, recipe, systems.values()),
        {**cached, **_cached(store, recipe, others)},
        train=train,
        n_folds=n_folds,
        command=command,
    )


def _cached(store: Path, recipe: Recipe, pairs: Mapping[str, Pairs]) -> dict[str, CachedPairs]:
    cache, fingerprints = FeatureCache(store), recipe.fingerprints()
    return {name: cache.load(one, fingerprints) for name, one in pairs.items()}


def _checked_systems(
    systems: Mapping[str, AnySpec], scored: Mapping[str, Pairs], data: Path, recipe: Recipe
) -> Mapping[str, AnySpec]:
    """Return the systems to run, once nothing is known that one of them would fail at."""
    names, features = recipe.cache_names, recipe.builder()
    for package in recipe.stacker.packages:
        check_installed(package, extra=package, purpose="[stacker] in the recipe")
    for name, spec in systems.items():
        if isinstance(spec, EnsembleSpec):
            continue
        for package in spec.packages:
            check_installed(package, extra=spec.extra, purpose=f"the system {name!r}")
        check_can_be_saved(spec.builder(names, features))
        check_can_be_saved(spec.regressor(names, recipe.new_stacker()))
        if spec.chooses_epoch_on_validation and "validation" not in scored:
            raise PairsError(
                f"{data}: there is no validation split with scores, where the system {name!r} "
                'would choose its epoch. Leave choose_epoch_on = "validation" out: then some '
                "captions of the train split are held out for that."
            )
    check_training(recipe, systems)
    for split, pairs in scored.items():
        if np.ptp(np.asarray(pairs.scores)) == 0:
            logger.warning(
                "all scores of the split %r are equal: correlations with them are undefined.", split
            )
    reference = next(iter(systems))
    if not scored and len(systems) > 1:
        logger.warning(
            "no split but train has scores, so systems cannot be compared: only %r is fitted. Add "
            "average scores to validation or test.",
            reference,
        )
        return {reference: systems[reference]}
    return systems


def _check_file_names(splits: Iterable[str], systems: Collection[str], data: Path) -> None:
    """Check that scores of no two splits and systems would be written to one file."""
    by_file: dict[str, str] = {}
    for split, system in product(splits, (None, *systems)):
        file = _scores_file(split, system)
        what = f"the scores of {system or 'the reference'!r} on {split!r}"
        if file in by_file:
            raise PairsError(
                f"{data}: {by_file[file]} and {what} would be written to one file, {file!r}. Give "
                "the set or the system another name."
            )
        if len(file.encode()) > _MAX_FILE_NAME_BYTES:
            raise PairsError(
                f"{data}: {what}: the name of the set is too long for the name of a file. Shorten "
                "it."
            )
        by_file[file] = what


def _scores_file(split: str, system: str | None) -> str:
    """Return the file of a system's scores, or of the reference's for None."""
    ending = "" if system is None else f"-{name_in_files(system)}"
    return f"scores-{name_in_files(split)}{ending}.csv"


@dataclass(eq=False)
class _Fits:
    """What the fits of one system gave; each list has one entry a seed."""

    kind: str
    scores: dict[str, list[FloatArray]] = field(default_factory=dict)
    fit_s: list[float] = field(default_factory=list)
    score_ms: list[float] = field(default_factory=list)
    n_parameters: int = 0
    chose_epoch_on_validation: bool = False
    learning_curve: LearningCurve | None = None


@dataclass(frozen=True, eq=False)
class _Task:
    """What every system of a run is trained and evaluated on."""

    recipe: Recipe
    train: CachedPairs
    targets: Targets
    cached: Mapping[str, CachedPairs]
    scored: Mapping[str, Pairs]
    folds: HeldOutFolds | None
    draft: Path
    facts: Mapping[str, Any]
    n_jobs: int | None
    progress: bool
    assessed: dict[str, ScoredPairs] = field(default_factory=dict)
    groups: dict[Any, Sequence[str] | None] = field(default_factory=dict)
    fits: dict[str, _Fits] = field(default_factory=dict)
    pretrained: dict[str, dict[str, Path]] = field(default_factory=dict)

    def run(self, systems: Mapping[str, AnySpec]) -> Iterator[list[Result]]:
        """Train, score and evaluate one system after the other; write its scorer and scores."""
        fits = self.fits
        reference = next(iter(systems))
        n_fits = sum(self._n_seeds(spec) for spec in systems.values())
        if self.folds is not None:
            n_fits = n_fits * (1 + len(self.folds)) + len(self.folds) * len(self.folds.parts())
        # Averages are made of what is finished.
        order = sorted(systems.items(), key=lambda item: isinstance(item[1], EnsembleSpec))
        with progress_bar("fitting", n_fits, "fits", shown=self.progress) as bar:
            for name, spec in order:
                first: Scorer | None = None
                if isinstance(spec, EnsembleSpec):
                    fits[name] = _averaged(spec, fits)
                else:
                    fits[name] = _Fits(
                        spec.kind, chose_epoch_on_validation=spec.chooses_epoch_on_validation
                    )
                    for seed in range(self._n_seeds(spec)):
                        scorer = self._fit(name, spec, seed, fits[name])
                        self._score(scorer, fits[name], is_first=name == reference and not seed)
                        bar.update()
                        if self.folds is not None:
                            scores = out_of_fold_scores(
                                scorer, self.train, self.folds.rows, bar.update
                            )
                            fits[name].scores.setdefault(CROSS_VALIDATION, []).append(scores)
                            if first is None and name == reference:
                                fits[name].learning_curve = measured_curve(
                                    scorer, self.train, self.folds, scores, bar.update
                                )
                        first = first or scorer
                results = self._results(name, fits[name], fits[reference])
                if first is not None:
                    self._save(name, first, results, is_reference=name == reference)
                self._write_scores(name, fits[name], is_reference=name == reference)
                yield results  # and what is finished is published
                shutil.rmtree(self._training_folder(name), ignore_errors=True)

    def select(self) -> Selection:
        """Compare stacks with fewer parts and learners than the recipe's, on train alone."""
        stacker = self.recipe.new_stacker(self.n_jobs)
        if stacker.n_splits is None:
            stacker.set_params(n_splits=N_SPLITS)
        return select_stack(
            self.train,
            self.targets.scores,
            self._groups(stacker),
            self.targets.sample_weight,
            builder=self.recipe.builder(),
            stacker=stacker,
            progress=self.progress,
        )

    def _n_seeds(self, spec: AnySpec) -> int:
        if isinstance(spec, EnsembleSpec):
            return 0
        regressor = spec.regressor(self.recipe.cache_names, self.recipe.new_stacker())
        if not _parameters_called("random_state", regressor):
            return 1
        return self.recipe.seeds if spec.seeds is None else spec.seeds

    def _fit(self, name: str, spec: SystemSpec, seed: int, fits: _Fits) -> Scorer:
        start = time.perf_counter()
        names = self.recipe.cache_names
        builder = spec.builder(names, self.recipe.builder())
        stacker: Any = self.recipe.new_stacker(self.n_jobs)
        regressor = spec.regressor(names, stacker)
        seeded = {
            key: int(stacker.random_state if value is None else value) + seed
            for key, value in _parameters_called("random_state", regressor).items()
        }
        shown = dict.fromkeys(_parameters_called("verbose", regressor), self.progress)
        if isinstance(regressor, Stacker):
            shown = {}  # the runner's own bar counts fits
        regressor.set_params(**seeded, **shown)
        if isinstance(spec, AudioLanguageModelSpec):
            regressor.set_params(**self._stages(name, spec))
        scorer = Scorer(self.recipe.for_scoring(spec), regressor, builder=builder)
        eval_set = None
        if spec.chooses_epoch_on_validation:
            eval_set = (self.cached["validation"], self.cached["validation"].pairs.scores)
        try:
            scorer.fit(
                self.train,
                self.targets.scores,
                groups=self._groups(regressor),
                sample_weight=self.targets.sample_weight,
                eval_set=eval_set,
            )
        except KeyboardInterrupt:
            if scorer.can_score:  # the best epoch until then
                scorer.save(self._model(f"{name_in_files(name)}-interrupted"), card=self.facts)
            raise
        if isinstance(spec, AudioLanguageModelSpec):  # a saved model holds no places
            scorer.regressor_.set_params(initial=None, checkpoints=None)
        fits.fit_s.append(time.perf_counter() - start)
        return scorer

    def _stages(self, name: str, spec: AudioLanguageModelSpec) -> dict[str, str]:
        """Train the stages before the last; return where it begins and where it keeps its state."""
        if name not in self.pretrained:
            self.pretrained[name] = pretrain(
                spec, self.recipe, self.train.root, n_jobs=self.n_jobs, progress=self.progress
            )
            for stage, model in self.pretrained[name].items():
                _copy_model(model, self._model(name_in_files(f"{name}-{stage}")))
        settings = {"checkpoints": str(self._training_folder(name))}
        if models := self.pretrained[name]:
            settings["initial"] = str(weights_of([*models.values()][-1]))
        return settings

    def _training_folder(self, name: str) -> Path:
        """Return the folder of the states of trainings, which end with the system's results."""
        return self.train.root / "training" / digest_of(self.facts["data"], self.recipe.name, name)

    def _groups(self, regressor: Any) -> Sequence[str] | None:
        key = getattr(regressor, "n_folds", None) or type(regressor)
        if key not in self.groups:  # once: it may warn
            self.groups[key] = fold_groups(self.train.pairs, self.recipe, regressor)
        return self.groups[key]

    def _score(self, scorer: Scorer, fits: _Fits, *, is_first: bool) -> None:
        for split, cached in self.cached.items() if is_first else ():
            interval = _INTERVAL if scorer.has_intervals else None
            self.assessed[split] = scorer.assess(cached, interval=interval)
        start = time.perf_counter()
        for split, cached in self.cached.items():
            scores = scorer.score(cached, check_novelty=False)
            fits.scores.setdefault(split, []).append(scores)
        n_pairs = sum(map(len, self.cached.values()))
        fits.score_ms.append(1e3 * (time.perf_counter() - start) / n_pairs if n_pairs else math.nan)
        fits.n_parameters = scorer.n_parameters

    def _results(self, name: str, fits: _Fits, reference: _Fits) -> list[Result]:
        return [
            Result.from_scores(
                name,
                split,
                fits.kind,
                pairs.scores,
                fits.scores[split],
                reference_scores=None if fits is reference else reference.scores[split],
                groups=None if self.folds is None else self.folds.groups,
                fit_s=float(np.mean(fits.fit_s)),
                score_ms=finite_or_none(float(np.mean(fits.score_ms))),
                n_parameters=fits.n_parameters,
                chose_epoch_here=split == "validation" and fits.chose_epoch_on_validation,
                learning_curve=fits.learning_curve,
            )
            for split, pairs in self.scored.items()
        ]

    def _save(
        self, name: str, scorer: Scorer, results: Sequence[Result], *, is_reference: bool
    ) -> None:
        path = scorer.save(
            self._model(name_in_files(name)),
            card={**self.facts, "system": name, **self._card(scorer, results)},
        )
        if is_reference:
            _copy_model(path, self.draft / MODEL_FILE)

    def _model(self, name: str) -> Path:
        return self.draft / MODELS / f"{name}.skops"

    def _card(self, scorer: Scorer, results: Sequence[Result]) -> dict[str, Any]:
        """Return what a model's card says of its training and its figures."""
        figures = [Figures.of(result).model_dump() for result in results]
        card: dict[str, Any] = {
            "metrics": {one["split"]: one["metrics"] for one in figures},
            "evaluations": {one["split"]: {key: one[key] for key in _BASIS} for one in figures},
        }
        regressor = scorer.regressor_
        if isinstance(regressor, Stacker):
            card["families"] = {name: list(blocks) for name, blocks in regressor.families_.items()}
            scores = np.asarray(self.targets.scores)
            columns = zip(regressor.level0_names_, regressor.oof_predictions_.T, strict=True)
            card["oof_srcc"] = {
                name: finite_or_none(srcc(scores, column)) for name, column in columns
            }
        return card

    def _write_scores(self, name: str, fits: _Fits, *, is_reference: bool) -> None:
        for split, scores in fits.scores.items():
            scored = self.train if split == CROSS_VALIDATION else self.cached[split]
            for system in [name, *([None] if is_reference else [])]:
                path = self.draft / _scores_file(split, system)
                write_predictions(path, scored.pair_ids, scores[0], split)


def _copy_model(model: Path, copy: Path) -> None:
    copy.parent.mkdir(exist_ok=True)
    for suffix in MODEL_SUFFIXES:
        if suffix != ".md" and (file := model.with_suffix(suffix)).exists():
            link_or_copy(str(file), str(copy.with_suffix(suffix)))
    write_markdown(copy)  # it says how the file is called


def _averaged(spec: EnsembleSpec, fits: Mapping[str, _Fits]) -> _Fits:
    """Average the seeds of systems side by side; one with fewer seeds begins again."""
    members = [fits[name] for name in spec.of]
    n_seeds = max(len(member.fit_s) for member in members)
    method = rank_average if spec.method == "rank" else average
    return _Fits(
        f"{spec.method} ensemble",
        {
            split: [
                method([m.scores[split][seed % len(m.scores[split])] for m in members])
                for seed in range(n_seeds)
            ]
            for split in members[0].scores
        },
        fit_s=[sum(float(np.mean(member.fit_s)) for member in members)] * n_seeds,
        score_ms=[sum(float(np.mean(member.score_ms)) for member in members)] * n_seeds,
        n_parameters=sum(member.n_parameters for member in members),
        chose_epoch_on_validation=any(m.chose_epoch_on_validation for m in members),
    )


def _parameters_called(name: str, estimator: Any) -> dict[str, Any]:
    """Return the parameters of this name of an estimator and of those in it."""
    return {
        key: value
        for key, value in estimator.get_params(deep=True).items()
        if key.rpartition("__")[2] == name
    }
