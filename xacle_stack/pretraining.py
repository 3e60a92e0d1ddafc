"""The stages that an audio language model learns in before it meets human scores.

Each is trained once for its settings and data, and kept in the store, as
``stages/DIGEST/STAGE.skops`` with its weights beside it.  A training that was killed goes on.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xacle_stack.cache import CachedPairs
from xacle_stack.errors import PairsError, StackingError, XacleStackError, one_or_all
from xacle_stack.model_file import load_card
from xacle_stack.pairs import Pairs, read_pairs
from xacle_stack.pseudo_labels import pseudo_label, with_wrong_captions
from xacle_stack.recipe import Recipe
from xacle_stack.scorer import Scorer
from xacle_stack.systems import AudioCaptioner
from xacle_stack.systems.checkpoints import digest_of
from xacle_stack.systems.language_model import read_language_model
from xacle_stack.systems.specs import (
    LABEL_FREE,
    AnySpec,
    AudioLanguageModelSpec,
    PseudoLabelSettings,
)

logger = logging.getLogger(__name__)

CAPTIONING, PSEUDO_LABELS = "captioning", "pseudo_labels"
STAGES_FOLDER = "stages"
# The scale of a label-free teacher is that of so many pairs, whose vectors are held.
_REFERENCE_PAIRS = 10_000


def stage_pairs(recipe: Recipe) -> list[Pairs]:
    """Return the pairs that earlier stages of a recipe's systems are trained on, each table once.

    Raises
    ------
    PairsError
        If tables are missing or have mistakes; the message names all, with system and stage.
    """
    found: dict[str, Pairs] = {}
    mistakes: dict[str, str] = {}
    for where, settings in _stages_of(recipe.systems):
        if settings.data not in found and settings.data not in mistakes:
            try:
                found[settings.data] = _read(where, settings.data)
            except PairsError as error:
                mistakes[settings.data] = str(error)
    if mistakes:
        raise PairsError(one_or_all("table(s) cannot be used", [*mistakes.values()]))
    return [*found.values()]


def check_training(recipe: Recipe, systems: Mapping[str, AnySpec]) -> None:
    """Check what the audio language models among some systems are trained with, before anything is.

    Raises
    ------
    PairsError
        If tables of earlier stages are missing or have mistakes.
    StackingError
        If a language model or a teacher cannot be used; the message names all.
    """
    own = {name: one for name, one in systems.items() if isinstance(one, AudioLanguageModelSpec)}
    stage_pairs(recipe.model_copy(update={"systems": own}))
    mistakes: dict[str, str] = {}
    for name, spec in own.items():
        place = str(spec.estimator(**spec.parameters).language_model)
        try:
            read_language_model(place)
        except XacleStackError as error:
            mistakes.setdefault(place, f"systems.{name}: {error}")
    for where, settings in _stages_of(own):
        teacher = getattr(settings, "teacher", LABEL_FREE)
        if teacher != LABEL_FREE:
            try:
                _load_teacher(teacher, recipe)
            except XacleStackError as error:
                mistakes.setdefault(teacher, f"{where}, teacher = {teacher!r}: {error}")
    if mistakes:
        raise StackingError(one_or_all("thing(s) cannot be used", [*mistakes.values()]))


def pretrain(
    spec: AudioLanguageModelSpec,
    recipe: Recipe,
    store: Path,
    *,
    n_jobs: int | None = None,
    progress: bool = False,
) -> dict[str, Path]:
    """Train the stages before the last, or find them in the store.

    Parameters
    ----------
    spec : AudioLanguageModelSpec
    recipe : Recipe
        The one that `spec` is a system of.
    store : Path
        Clips and captions that it lacks are encoded.
    n_jobs : int, optional
    progress : bool, default=False

    Returns
    -------
    models : dict of str to Path
        The saved Scorer of each stage, in their order; its weights lie beside it.  The last one is
        what the training on human scores begins with.

    Raises
    ------
    PairsError
        If the data of a stage cannot be read or used.
    XacleStackError
        Whatever encoding, the teacher and the training raise.
    KeyboardInterrupt
        At the user's.  The next call goes on with the training.
    """
    models: dict[str, Path] = {}
    settings = {"store": store, "n_jobs": n_jobs, "progress": progress}
    for name, own in _stages(spec).items():
        pairs = _read(f"the stage {name!r}", own.data)
        stage = _Stage(name, spec, recipe, pairs, settings, [*models.values()][-1:])
        models[name] = stage.train()
    return models


def weights_of(model: Path) -> Path:
    """Return the file with the weights of a saved Scorer."""
    return model.with_suffix(".safetensors")


@dataclass(frozen=True, eq=False)
class _Stage:
    """One stage; `before` holds the model of the one before it, if there is one."""

    name: str
    spec: AudioLanguageModelSpec
    recipe: Recipe
    pairs: Pairs
    settings: Mapping[str, Any]
    before: list[Path]

    def train(self) -> Path:
        """Return the saved Scorer of the stage, which is trained if it is not there yet."""
        pairs, y = self.pairs, None
        if isinstance(self._own, PseudoLabelSettings):
            pairs = with_wrong_captions(pairs, self._own.wrong_captions)
            y = pseudo_label(pairs, self._teacher(), self.settings["store"])
        regressor = self.spec.stage(self._own)
        regressor.set_params(random_state=self.recipe.new_stacker().random_state)
        recipe = self.recipe.for_scoring(self.spec)
        builder = self.spec.builder(recipe.cache_names, recipe.builder())
        scorer = Scorer(recipe, regressor, builder=builder, **self.settings)
        embeddings = scorer.embeddings(pairs)
        stages = Path(self.settings["store"]) / STAGES_FOLDER
        folder = stages / self._digest(regressor, embeddings, y)
        model = folder / f"{self.name}.skops"
        if model.with_suffix(".json").exists():  # it is written last
            logger.info("The stage %r is there already: %s", self.name, model)
            return model
        logger.info("The stage %r is trained on %d pairs.", self.name, len(pairs))
        states = folder / "training"
        regressor.set_params(
            verbose=self.settings["progress"],
            initial=None if not self.before else str(weights_of(self.before[0])),
            checkpoints=str(states),
        )
        # A clip's wrong captions are held out with its own one.
        scorer.fit(embeddings, y, groups="recipe" if y is None else [*map(str, pairs.audio)])
        scorer.regressor_.set_params(checkpoints=None, initial=None)
        scorer.save(model)
        shutil.rmtree(states, ignore_errors=True)
        return model

    @property
    def _own(self) -> Any:
        return _stages(self.spec)[self.name]

    def _teacher(self) -> Scorer:
        if self._own.teacher != LABEL_FREE:
            return _load_teacher(self._own.teacher, self.recipe, **self.settings)
        teacher = Scorer.label_free(self.recipe, **self.settings)
        return teacher.fit(self.pairs.take(range(min(len(self.pairs), _REFERENCE_PAIRS))))

    def _digest(self, regressor: Any, embeddings: CachedPairs, y: Any) -> str:
        settings = {name: str(value) for name, value in regressor.get_params().items()}
        return digest_of(
            json.dumps([self.name, settings, self.spec.tokens], sort_keys=True),
            json.dumps(self.recipe.for_scoring(self.spec).fingerprints(), sort_keys=True),
            *(model.parent.name for model in self.before),
            embeddings.content_keys("audio").tobytes(),
            "\0".join(embeddings.captions),
            *([] if y is None else [y]),
        )


def _stages(spec: AudioLanguageModelSpec) -> dict[str, Any]:
    stages = {CAPTIONING: spec.captioning, PSEUDO_LABELS: spec.pseudo_labels}
    return {name: settings for name, settings in stages.items() if settings is not None}


def _stages_of(systems: Mapping[str, AnySpec]) -> Iterator[tuple[str, Any]]:
    """Yield the earlier stages of some systems: where the recipe has it, and its settings."""
    for name, spec in systems.items():
        if isinstance(spec, AudioLanguageModelSpec):
            for stage, settings in _stages(spec).items():
                yield f"systems.{name}.{stage}", settings


def _load_teacher(teacher: str, recipe: Recipe, **settings: Any) -> Scorer:
    """Load a saved model; where its encoders are, the recipe says that has them, too."""
    names = load_card(teacher).get("fingerprints")
    checkpoints, code = (
        {name: place for name, place in places.items() if isinstance(names, dict) and name in names}
        for places in (recipe.checkpoints, recipe.code)
    )
    scorer = Scorer.load(teacher, checkpoints=checkpoints, code=code, **settings)
    if isinstance(scorer.regressor_, AudioCaptioner):
        raise StackingError("this model writes captions. Name one that gives scores.")
    return scorer


def _read(where: str, data: str) -> Pairs:
    if not Path(data).exists():
        raise PairsError(
            f"{where}: there is no table {data!r}, neither in the recipe's folder nor in the "
            "working directory. Name a table of clips and texts, as --data takes them, without "
            "ratings, or take the stage out of the recipe."
        )
    try:
        return read_pairs(data)
    except PairsError as error:
        raise PairsError(f"{where}, data = {data!r}: {error}") from None
