"""Recipes: which encoders, checkpoints, features and stacker settings make one experiment.

A recipe is a TOML file::

    spaces = ["mini-mel", "mini-mfcc"]     # contrastive encoders, one family each
    auxiliary = [                          # audio outputs, appended to every family; of "words" the
        "beats:logits",                    # overlap of those heard with those of the caption
        "wav2vec2-ctc:words",
    ]

    precision = "float32"                  # or bfloat16, float16: for the big encoders
    compare = ["singles", "couples"]       # the smaller stacks to fit beside that of all spaces
    listener_model = true                  # train on scores freed of the listeners' habits

    [checkpoints]                          # where an encoder's default is not wanted
    beats = "path/to/weights.pt"

    [code]                                 # code that you allow to be run, for encoders that need
    m2d-clap = "path/to/clone/of/m2d"      # yours

    [views]                                # augmented views of each training clip, beside it
    m2d-clap = 4

    [features]
    n_components = 8

    [stacker]
    preset = "best"                        # or "paper", the published system

    [systems.mine]                         # what `xacle-stack compare` compares; see
    kind = "stack"                         # xacle_stack/contenders.py for the kinds
"""

import difflib
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from xacle_stack.contenders import (
    SYSTEM_SETTINGS,
    AnyContender,
    CacheNames,
    EnsembleContender,
    default_contenders,
    mistakes_in,
)
from xacle_stack.encoders import WORDS, EncoderChoice, Precision, read_fingerprints
from xacle_stack.errors import RecipeError, bullet_list
from xacle_stack.features import FeatureBuilder
from xacle_stack.recipe_file import read_settings
from xacle_stack.stacking import Stacker
from xacle_stack.stacking.learners import PRESETS
from xacle_stack.stacking.ridge import PENALTIES

logger = logging.getLogger(__name__)


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


SystemName = Annotated[str, Field(min_length=1, max_length=60)]  # part of the names of files


class FeatureSettings(_Settings):
    """Settings of the :class:`~xacle_stack.FeatureBuilder`."""

    n_components: PositiveInt = 8
    random_state: NonNegativeInt = 0


class StackerSettings(_Settings):
    """Settings of the :class:`~xacle_stack.Stacker`; None leaves a choice to the preset.

    ``group_by = "caption"`` holds a caption's pairs out together, ``"none"`` gives the published
    system's plain folds, ``"auto"`` groups where there are ten different captions
    a fold or more.
    """

    preset: Literal["best", "paper"] = "best"
    target: Literal["score", "rank"] = "score"
    n_splits: int | None = Field(default=None, ge=2)
    group_by: Literal["auto", "caption", "none"] = "auto"
    penalties: tuple[PositiveFloat, ...] = Field(default=PENALTIES, min_length=1)
    n_components: PositiveInt | None = None
    random_state: NonNegativeInt = 0


class Recipe(_Settings):
    """One experiment, validated.

    Attributes
    ----------
    name : str
        The file's name without its ending.
    spaces, auxiliary : tuple of str
    precision : str
    compare : tuple of str
        Which smaller stacks are fitted beside that of all spaces.
    listener_model : bool
        Whether to train on what a :class:`~xacle_stack.ListenerModel` makes of the single ratings.
    checkpoints, code : mapping of str to str
    views : mapping of str to int
        How many augmented views of each training clip are cached, by encoder.
    features : FeatureSettings
    stacker : StackerSettings
    systems : mapping of str to settings
        See :mod:`xacle_stack.contenders`.
    seeds : int
        Fits of each system that another seed changes.
    reference : str, optional
        The system that others are set against; by default the first.
    """

    name: str
    spaces: tuple[str, ...] = Field(min_length=1)
    auxiliary: tuple[str, ...] = ()
    precision: Precision = "float32"
    compare: tuple[Literal["singles", "couples"], ...] = ("singles", "couples")
    listener_model: bool = False
    checkpoints: Mapping[str, str] = Field(default_factory=dict)
    code: Mapping[str, str] = Field(default_factory=dict)
    views: Mapping[str, Annotated[PositiveInt, Field(le=1000)]] = Field(default_factory=dict)
    features: FeatureSettings = FeatureSettings()
    stacker: StackerSettings = StackerSettings()
    systems: Mapping[SystemName, AnyContender] = Field(default_factory=dict)
    seeds: PositiveInt = 5
    reference: str | None = None

    @property
    def contenders(self) -> Mapping[str, AnyContender]:
        """The systems to compare, the reference first; where none are named, one of each kind."""
        systems = self.systems or default_contenders(self.spaces)
        trained = (name for name, one in systems.items() if not isinstance(one, EnsembleContender))
        first = self.reference or next(trained)
        return {first: systems[first], **systems}

    @property
    def cache_names(self) -> CacheNames:
        """What the encoders and their views are called in the cache."""
        views: dict[str, tuple[str, ...]] = {}
        for choice in self.view_encoders:
            views[choice.name] = (*views.get(choice.name, ()), choice.info.name)
        return CacheNames({choice.name: choice.info.name for choice in self.encoders}, views)

    @property
    def encoders(self) -> list[EncoderChoice]:
        """Every encoder that the recipe needs, each once, with its checkpoint."""
        names = [*self.spaces, *(_encoder_of(name) for name in self.auxiliary)]
        for system in self.systems.values():
            names += [] if isinstance(system, EnsembleContender) else system.encoders_named
        return [
            EncoderChoice(name, self.checkpoints.get(name), self.precision, self.code.get(name))
            for name in dict.fromkeys(names)
        ]

    @property
    def view_encoders(self) -> list[EncoderChoice]:
        """Every augmented view; only training needs them."""
        return [
            replace(choice, view=number)
            for choice in self.encoders
            for number in range(1, self.views.get(choice.name, 0) + 1)
        ]

    def override(
        self,
        *,
        checkpoints: Mapping[str, str] | None = None,
        code: Mapping[str, str] | None = None,
        precision: str | None = None,
    ) -> "Recipe":
        """Return the recipe with other checkpoints, folders of code or precision, checked again."""
        settings = self.model_dump()
        settings["checkpoints"] = {**self.checkpoints, **(checkpoints or {})}
        settings["code"] = {**self.code, **(code or {})}
        settings["precision"] = precision or self.precision
        return recipe_from(settings, source=self.name)

    def with_seeds(self, seeds: int) -> "Recipe":
        """Return the recipe with so many fits of each system, also of those with their own."""
        systems = {
            name: one
            if isinstance(one, EnsembleContender)
            else one.model_copy(update={"seeds": None})
            for name, one in self.systems.items()
        }
        return self.model_copy(update={"systems": systems, "seeds": seeds})

    def fingerprints(self) -> dict[str, str]:
        """Return the store that each encoder's vectors are in, by the encoder's own name."""
        found = read_fingerprints([*self.encoders, *self.view_encoders]).values()
        return {fingerprint.encoder: fingerprint.digest for fingerprint in found}

    def for_scoring_with(self, name: str) -> "Recipe":
        """Return what of the recipe one of its systems needs to score new pairs."""
        system = self.contenders[name]
        assert not isinstance(system, EnsembleContender)  # it is scores of others, not a model
        smaller = self.model_copy(
            update={
                "spaces": system.spaces_named or self.spaces,
                "systems": {name: system},
                "reference": None,
                "views": {},
            }
        )
        named = {choice.name for choice in smaller.encoders}
        places = {
            key: {name: place for name, place in getattr(self, key).items() if name in named}
            for key in ("checkpoints", "code")
        }
        return smaller.model_copy(update=places)

    def origin(self) -> dict[str, object]:
        """Return what a model's card says of the embeddings that it was fitted on."""
        return {"recipe": self.model_dump(mode="json"), "fingerprints": self.fingerprints()}

    def builder(self, spaces: tuple[str, ...] | None = None) -> FeatureBuilder:
        """Return an unfitted builder for all spaces of the recipe, or for some of them."""
        wanted = self.spaces if spaces is None else spaces
        return FeatureBuilder(
            [EncoderChoice(name).encoder.info.name for name in wanted],
            [_cache_name(name) for name in self.auxiliary],
            n_components=self.features.n_components,
            random_state=self.features.random_state,
        )

    def new_stacker(self, n_jobs: int | None = None) -> Stacker:
        """Return an unfitted stacker with the recipe's settings."""
        return Stacker(
            preset=self.stacker.preset,
            target=self.stacker.target,
            n_splits=self.stacker.n_splits,
            penalties=self.stacker.penalties,
            n_components=self.stacker.n_components,
            n_jobs=n_jobs,
            random_state=self.stacker.random_state,
        )


def read_recipe(path: Path | str) -> Recipe:
    """Read and check a recipe.  Python files that it names as encoders are run.

    Parameters
    ----------
    path : path-like
        A TOML file.  Paths in it are relative to its folder, else to the working directory.

    Returns
    -------
    recipe : Recipe

    Raises
    ------
    RecipeError
        If the file is missing or not TOML, or a setting is unknown, missing or of a wrong type;
        every mistake is named.
    UnknownNameError
        If it names an encoder that does not exist.
    """
    recipe = recipe_from(read_settings(Path(path)), source=str(path))
    preset = recipe.stacker.preset
    if "penalties" in recipe.stacker.model_fields_set and not PRESETS[preset].ridges:
        logger.warning(
            '%s: the preset "%s" does not use penalties under [stacker]: it has its own. '
            'Leave them out, or set preset = "paper".',
            path,
            preset,
        )
    return recipe


def registered_encoders(path: Path | str) -> list[EncoderChoice]:
    """Return a recipe's encoders but those in Python files, none of which is run.

    Raises what :func:`read_recipe` raises, but for what only an encoder's info can tell.
    """
    recipe = _validated(read_settings(Path(path)), source=str(path))
    return [choice for choice in recipe.encoders if ".py:" not in choice.name]


def _validated(settings: Mapping[str, Any], source: str) -> Recipe:
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        mistakes = [_mistake(found["loc"], found["msg"]) for found in error.errors()]
        raise RecipeError(
            f"{source}: {len(mistakes)} mistake(s) in the recipe:\n{bullet_list(mistakes)}"
        ) from None


def recipe_from(settings: Mapping[str, Any], source: str) -> Recipe:
    """Check settings that were read from a file or from a saved model's card."""
    recipe = _validated(settings, source)
    named = [choice.name for choice in recipe.encoders]
    mistakes = [
        f"{key}: {name!r} is no encoder of this recipe; it has {named}"
        for key, of_encoders in (
            ("checkpoints", recipe.checkpoints),
            ("code", recipe.code),
            ("views", recipe.views),
        )
        for name in of_encoders
        if name not in named
    ]
    mistakes += [
        f"views: {choice.name!r} makes no augmented views; leave it out"
        for choice in recipe.encoders
        if choice.name in recipe.views and choice.info.views is None
    ]
    mistakes += [
        f"code: {choice.name!r} runs no code of yours; leave it out"
        for choice in recipe.encoders
        if choice.code is not None and choice.encoder.info.code is None
    ]
    mistakes += mistakes_in(recipe.systems, recipe.reference, recipe.spaces)
    for names, kind in ((recipe.spaces, "spaces"), (recipe.auxiliary, "auxiliary")):
        times = Counter(names)
        mistakes += [f"{kind}: {name!r} stands twice" for name in sorted(times) if times[name] > 1]
    called: dict[str, str] = {}
    for choice in recipe.encoders:
        info = choice.encoder.info
        if called.setdefault(info.name, choice.name) != choice.name:
            mistakes.append(
                f"{choice.name!r} and {called[info.name]!r} are both called {info.name!r}; give "
                "one another name in its info"
            )
        if choice.name in recipe.spaces and not info.is_contrastive:
            mistakes.append(
                f"spaces: {choice.name!r} does not embed clips and captions in one space; it can "
                f"stand in auxiliary as {[f'{choice.name}:{o}' for o in info.audio_outputs]}"
            )
    for name in recipe.auxiliary:
        info = EncoderChoice(_encoder_of(name)).encoder.info
        output = _cache_name(name).partition(":")[2]
        if output not in info.audio_outputs:
            mistakes.append(
                f"auxiliary: {name!r} is no audio output; expected one of "
                f"{[f'{_encoder_of(name)}:{output}' for output in info.audio_outputs]}"
            )
        elif output in info.sequences:
            mistakes.append(
                f"auxiliary: {name!r} is a sequence of vectors a clip, not one vector; leave it to "
                "systems that take sequences"
            )
        elif output == WORDS and info.text_outputs.get(WORDS) != info.audio_outputs[WORDS]:
            mistakes.append(
                f"auxiliary: {name!r} is compared with the captions' words, which this encoder "
                "does not count alike; give the output another name"
            )
    if mistakes:
        raise RecipeError(
            f"{source}: {len(mistakes)} mistake(s) in the recipe:\n{bullet_list(mistakes)}"
        )
    return recipe


def _encoder_of(auxiliary: str) -> str:
    """Return the encoder of ``"encoder:output"``; a user's own is ``"file.py:Class:output"``."""
    if ".py:" in auxiliary:
        file, _, rest = auxiliary.rpartition(".py:")
        return f"{file}.py:{rest.partition(':')[0]}"
    return auxiliary.partition(":")[0]


def _cache_name(auxiliary: str) -> str:
    """Return ``"encoder:output"`` with the name that the encoder has in the cache."""
    encoder = _encoder_of(auxiliary)
    output = auxiliary[len(encoder) + 1 :] or "embedding"
    return f"{EncoderChoice(encoder).encoder.info.name}:{output}"


_KNOWN = {*Recipe.model_fields, *FeatureSettings.model_fields, *StackerSettings.model_fields}


def _mistake(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in location)
    message = re.sub(r"\b[Tt]uple\b", "list", message).removesuffix(" after validation")
    if message.startswith("Unable to extract tag"):
        message = "the setting 'kind' is missing: say which kind of system this is"
    if message.startswith("Extra inputs"):
        known = SYSTEM_SETTINGS if location[0] == "systems" else _KNOWN - {"name"}
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        message = "unknown setting" + (f"; did you mean {near[0]!r}?" if near else "")
    return f"{where}: {message[0].lower()}{message[1:]}"
