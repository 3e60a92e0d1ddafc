"""Recipes: which encoders, checkpoints, features and stacker settings make one experiment.

A recipe is a TOML file::

    spaces = ["mini-mel", "mini-mfcc"]     # contrastive encoders, one family each; [] for none
    auxiliary = [                          # other outputs that all families share, of clips or of
        "beats:logits",                    # captions; "words" stands for the overlap of words heard
        "wav2vec2-ctc:words",              # with the caption's
        "all-minilm-l6-v2:embedding",
        "text:sentence-transformers/all-mpnet-base-v2:embedding",  # a hub id or a folder
    ]

    precision = "float32"                  # or bfloat16, float16: for the big encoders
    subset_sizes = [1, 2]                  # the smaller stacks beside that of all spaces
    listener_model = true                  # train on scores freed of the listeners' habits; or a
                                           # table, [listener_model], of ListenerModel's parameters

    [checkpoints]                          # where an encoder's default is not wanted
    beats = "path/to/weights.pt"

    [code]                                 # code that you allow to be run, for encoders that need
    m2d-clap = "path/to/clone/of/m2d"      # yours

    [views]                                # augmented views of each training clip, beside it
    m2d-clap = 4

    [features]                             # parameters of FeatureBuilder
    n_components = 8

    [stacker]                              # parameters of Stacker, and group_by
    preset = "best"                        # or "paper", the published system

    [systems.mine]                         # what `xacle-stack compare` compares; the kinds are in
    kind = "stack"                         # xacle_stack/systems/specs.py
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    Strict,
    ValidationError,
    model_validator,
)

from xacle_stack.encoders import (
    EMBEDDING,
    TEXT_PREFIX,
    WORDS,
    EncoderChoice,
    Modality,
    Precision,
    read_fingerprints,
    split_text_output,
)
from xacle_stack.features import AGREEMENT, FeatureBuilder
from xacle_stack.listeners import ListenerModel
from xacle_stack.recipe_file import mistakes_error, read_settings, recipe_path
from xacle_stack.stacking import Selection, Stacker
from xacle_stack.systems.specs import (
    AnySpec,
    CacheNames,
    EnsembleSpec,
    FeatureSettings,
    FeatureTableSpec,
    Parameters,
    StackSpec,
    SystemSpec,
    TreeSettings,
    default_systems,
    mistakes_in,
    nearest,
    stack_systems,
)

logger = logging.getLogger(__name__)


SystemName = Annotated[str, Field(min_length=1, max_length=60)]  # part of the names of files
# What the key `subset_sizes` was called before, with the words that stood for numbers.
_FORMER_KEY, _FORMER_SIZES = "compare", {"singles": 1, "couples": 2}


class StackerSettings(TreeSettings):
    """Parameters of the :class:`~xacle_stack.Stacker`, and how its folds are made.

    ``group_by = "caption"`` holds a caption's pairs out together, ``"group"`` and ``"system"``
    those of a value in the column of this name, and ``"none"`` gives the published system's plain
    folds.  ``"auto"`` takes the column `group` where the pairs have one, else the captions; but
    plain folds where there are fewer than ten different ones a fold.
    """

    group_by: Literal["auto", "caption", "group", "system", "none"] = "auto"
    estimator = Stacker


class ListenerSettings(Parameters):
    """Parameters of the :class:`~xacle_stack.ListenerModel`."""

    estimator = ListenerModel


def _listener_settings(value: Any) -> Any:
    """Return ``true`` as an empty table and ``false`` as None."""
    if isinstance(value, bool):
        return {} if value else None
    if value is None or isinstance(value, dict | ListenerSettings):
        return value
    raise ValueError(
        f"expected true, false, or a table [listener_model] with its parameters, got {value!r}"
    )


class Recipe(BaseModel):
    """One experiment, validated.

    Attributes
    ----------
    name : str
        The file's name without its ending.
    spaces, auxiliary : tuple of str
    precision : str
    subset_sizes : tuple of int
        How many spaces the smaller stacks have that `xacle-stack stack` fits beside that of all.
    listener_model : ListenerSettings or None
        How to train on what a :class:`~xacle_stack.ListenerModel` makes of the single ratings; None
        to train on the mean ratings.  A recipe may also say true or false.
    checkpoints, code : mapping of str to str
    views : mapping of str to int
        How many augmented views of each training clip are cached, by encoder.
    features : FeatureSettings
    stacker : StackerSettings
    systems : mapping of str to SystemSpec or EnsembleSpec
        What `xacle-stack compare` compares; see :mod:`xacle_stack.systems.specs`.
    seeds : int
        The number of fits of each system that another seed changes.
    reference : str, optional
        The system that others are set against; by default the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    spaces: tuple[str, ...]
    auxiliary: tuple[str, ...] = ()
    precision: Precision = "float32"
    subset_sizes: tuple[Annotated[PositiveInt, Strict()], ...] = (1, 2)
    listener_model: Annotated[ListenerSettings | None, BeforeValidator(_listener_settings)] = None
    checkpoints: Mapping[str, str] = Field(default_factory=dict)
    code: Mapping[str, str] = Field(default_factory=dict)
    views: Mapping[str, Annotated[PositiveInt, Field(le=1000)]] = Field(default_factory=dict)
    features: FeatureSettings = FeatureSettings()
    stacker: StackerSettings = StackerSettings()
    systems: Mapping[SystemName, AnySpec] = Field(default_factory=dict)
    seeds: Annotated[PositiveInt, Strict()] = 5
    reference: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_former_key(cls, settings: Any) -> Any:
        sizes = settings.get(_FORMER_KEY) if isinstance(settings, dict) else None
        if not isinstance(sizes, list | tuple) or not {*sizes} <= {*_FORMER_SIZES}:
            return settings
        rest = {key: value for key, value in settings.items() if key != _FORMER_KEY}
        return {**rest, "subset_sizes": [_FORMER_SIZES[size] for size in sizes]}

    @property
    def stack_systems(self) -> Mapping[str, AnySpec]:
        """What `xacle-stack stack` fits: the stack of all spaces first, then the smaller ones.

        Without spaces, it is the stack of the auxiliaries alone.
        """
        if not self.spaces:
            names = (self.cache_names.encoders[_encoder_of(name)] for name in self.auxiliary)
            return {" + ".join(dict.fromkeys(names)): StackSpec(seeds=1)}
        return stack_systems(self.spaces, self.subset_sizes, self.cache_names.encoders)

    @property
    def compared_systems(self) -> Mapping[str, AnySpec]:
        """What `xacle-stack compare` compares, the reference first; by default one of each kind."""
        systems = self.systems or default_systems(self.spaces)
        trained = (name for name, one in systems.items() if not isinstance(one, EnsembleSpec))
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
        """Every encoder that the recipe needs, each once, with its checkpoint.

        They are asked for the outputs that systems name.
        """
        outputs: dict[str, set[str]] = {
            encoder: set() for encoder in (*self.spaces, *map(_encoder_of, self.auxiliary))
        }
        for system in self.systems.values():
            if not isinstance(system, EnsembleSpec):
                for name in system.outputs_named:
                    outputs.setdefault(_encoder_of(name), set()).add(_output_of(name))
        return [
            EncoderChoice(
                name,
                self.checkpoints.get(name),
                self.precision,
                self.code.get(name),
                outputs=tuple(sorted(named)),
            )
            for name, named in outputs.items()
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
            name: one if isinstance(one, EnsembleSpec) else one.model_copy(update={"seeds": None})
            for name, one in self.systems.items()
        }
        return self.model_copy(update={"systems": systems, "seeds": seeds})

    def fingerprints(self) -> dict[str, str]:
        """Return the store that each encoder's vectors are in, by the encoder's own name."""
        found = read_fingerprints([*self.encoders, *self.view_encoders]).values()
        return {fingerprint.encoder: fingerprint.digest for fingerprint in found}

    def for_scoring(self, system: SystemSpec) -> "Recipe":
        """Return what of the recipe one of its systems needs to score new pairs."""
        smaller = self.model_copy(
            update={
                "spaces": system.spaces_needed(self.spaces),
                "auxiliary": self.auxiliary if isinstance(system, FeatureTableSpec) else (),
                "systems": {system.kind: system.without_parameters()},
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

    def builder(self) -> FeatureBuilder:
        """Return an unfitted builder for all spaces of the recipe."""
        of_text = {name for name in self.auxiliary if _modality_of(name) == "text"}
        return FeatureBuilder(
            [EncoderChoice(name).encoder.info.name for name in self.spaces],
            [_cache_name(name) for name in self.auxiliary if name not in of_text],
            **self.features.parameters,
            text_auxiliary=[_cache_name(name) for name in self.auxiliary if name in of_text],
        )

    def new_stacker(self, n_jobs: int | None = None) -> Stacker:
        """Return an unfitted stacker with the recipe's parameters; seeded, unless they say so."""
        return Stacker(**{"random_state": 0, **self.stacker.parameters}, n_jobs=n_jobs)


def chosen_settings(recipe: Recipe, selection: Selection) -> str:
    """Return the settings, as TOML, that make a recipe's stack the one that was chosen.

    Parameters
    ----------
    recipe : Recipe
        The one whose builder was given to :func:`~xacle_stack.select_stack`.
    selection : Selection
    """
    chosen, stacker = selection.chosen, recipe.new_stacker()
    builder = recipe.builder()
    spaces = [name for name in recipe.spaces if recipe.cache_names.encoders[name] in chosen.parts]
    auxiliary = [name for name in recipe.auxiliary if _cache_name(name) in chosen.parts]
    lines = [f"spaces = {json.dumps(spaces, ensure_ascii=False)}"]
    if recipe.auxiliary:
        lines.append(f"auxiliary = {json.dumps(auxiliary, ensure_ascii=False)}")
    if spaces and builder.agreement and AGREEMENT in chosen.dropped:
        lines += ["", "[features]", "agreement = false"]
    lines += ["", "[stacker]", f"preset = {json.dumps(chosen.preset)}"]
    if stacker.set_params(preset=chosen.preset).n_folds != selection.n_splits:
        lines.append(f"n_splits = {selection.n_splits}")
    if chosen.left_out or stacker.left_out:
        lines.append(f"left_out = {json.dumps(chosen.left_out)}")
    return "\n".join(lines)


def read_recipe(recipe: Path | str) -> Recipe:
    """Read and check a recipe.  Python files that it names as encoders are run.

    Parameters
    ----------
    recipe : str or path-like
        The name of a recipe that comes with this library, or the path of a TOML file.  Paths in it
        are relative to its folder, else to the working directory.

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
    path = recipe_path(recipe)
    found = recipe_from(read_settings(path), source=str(path))
    if "penalties" in found.stacker.parameters and found.new_stacker().preset != "paper":
        logger.warning(
            '%s: only the preset "paper" uses penalties under [stacker]; others have their own. '
            'Leave them out, or set preset = "paper".',
            path,
        )
    return found


def registered_encoders(recipe: Path | str) -> list[EncoderChoice]:
    """Return a recipe's encoders but those in Python files, none of which is run.

    Of a sentence encoder, ask only for the `family`: its `encoder` may be downloaded.

    Raises what :func:`read_recipe` raises, but for what only an encoder's info can tell.
    """
    path = recipe_path(recipe)
    found = _validated(read_settings(path), source=str(path))
    return [choice for choice in found.encoders if ".py:" not in choice.name]


def missing_extras(recipe: Path | str) -> list[str]:
    """Return the extras that a recipe's encoders and systems need and that are not installed.

    Raises what :func:`registered_encoders` raises; no Python file is run either.
    """
    path = recipe_path(recipe)
    found = _validated(read_settings(path), source=str(path))
    infos = [choice.family.info for choice in registered_encoders(path)]
    extras = {info.extra for info in infos if info.extra and not info.is_installed}
    extras |= {
        one.extra
        for one in (found.stacker, *found.systems.values())
        if not isinstance(one, EnsembleSpec) and not one.is_installed
    }
    return sorted(extras)


def _validated(settings: Mapping[str, Any], source: str) -> Recipe:
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        mistakes = [_mistake(found["loc"], found["msg"]) for found in error.errors()]
        raise mistakes_error(source, mistakes) from None


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
        if choice.name in recipe.views and choice.encoder.info.views is None
    ]
    mistakes += [
        f"code: {choice.name!r} runs no code of yours; leave it out"
        for choice in recipe.encoders
        if choice.code is not None and choice.encoder.info.code is None
    ]
    if not recipe.encoders:
        mistakes.append("spaces: it is empty, and no auxiliary is named either; name one encoder")
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
                f"stand in auxiliary as {_auxiliaries_of(choice.name)}"
            )
    for name in recipe.auxiliary:
        info = EncoderChoice(_encoder_of(name)).encoder.info
        output = _output_of(name)
        modality = _modality_of(name)
        if output not in info.outputs(modality):
            mistakes.append(
                f"auxiliary: {name!r} is no output of this encoder; expected one of "
                f"{_auxiliaries_of(_encoder_of(name))}"
            )
        elif output in info.sequences:
            mistakes.append(
                f"auxiliary: {name!r} is a sequence of vectors, not one vector; leave it to "
                "systems that take sequences"
            )
        elif output == WORDS and info.text_outputs.get(WORDS) != info.audio_outputs[WORDS]:
            mistakes.append(
                f"auxiliary: {name!r} is compared with the captions' words, which this encoder "
                "does not count alike; give the output another name"
            )
    for name, system in recipe.systems.items():
        if not isinstance(system, EnsembleSpec):
            mistakes += [f"systems.{name}: {mistake}" for mistake in _mistakes_in_outputs(system)]
    if mistakes:
        raise mistakes_error(source, mistakes)
    return recipe


def _encoder_of(auxiliary: str) -> str:
    """Return the encoder of ``"encoder:output"``.

    A user's own is ``"file.py:Class:output"``; a sentence encoder, ``"text:PLACE:output"``.
    """
    if auxiliary.startswith(TEXT_PREFIX):
        return split_text_output(auxiliary)[0]
    if ".py:" in auxiliary:
        file, _, rest = auxiliary.rpartition(".py:")
        return f"{file}.py:{rest.partition(':')[0]}"
    return auxiliary.partition(":")[0]


def _output_of(name: str) -> str:
    """Return the output of ``"encoder:output"``; without one it is the embedding."""
    return name[len(_encoder_of(name)) + 1 :] or EMBEDDING


def _mistakes_in_outputs(system: SystemSpec) -> Iterator[str]:
    """Yield the outputs in a system's settings that their encoders do not have."""
    named: list[tuple[tuple[str, ...], Modality, bool, str]] = [
        (system.clip_sequences, "audio", True, "sequence of clips"),
        (system.caption_sequences, "text", True, "sequence of captions"),
        (system.caption_vectors, "text", False, "vector of captions"),
    ]
    for names, modality, is_sequence, expected in named:
        for name in names:
            info = EncoderChoice(_encoder_of(name)).encoder.info
            outputs = info.outputs(modality)
            known = [one for one in outputs if (one in info.sequences) == is_sequence]
            if _output_of(name) not in known:
                yield f"{name!r} is no {expected}; {_listed(name, known)}"


def _listed(name: str, outputs: Sequence[str]) -> str:
    known = [f"{_encoder_of(name)}:{output}" for output in outputs]
    return f"expected one of {known}" if known else "its encoder has none"


def _modality_of(auxiliary: str) -> Modality:
    """Return whose output it is: the captions' only if the encoder has none of clips so called."""
    info = EncoderChoice(_encoder_of(auxiliary)).encoder.info
    output = _output_of(auxiliary)
    return "text" if output in info.text_outputs.keys() - info.audio_outputs.keys() else "audio"


def _auxiliaries_of(encoder: str) -> list[str]:
    """Return what of an encoder can stand in auxiliary, but for sequences."""
    info = EncoderChoice(encoder).encoder.info
    outputs = dict.fromkeys([*info.audio_outputs, *info.text_outputs])
    return [f"{encoder}:{output}" for output in outputs if output not in info.sequences]


def _cache_name(auxiliary: str) -> str:
    """Return ``"encoder:output"`` with the name that the encoder has in the cache."""
    info = EncoderChoice(_encoder_of(auxiliary)).encoder.info
    return f"{info.name}:{_output_of(auxiliary)}"


def _mistake(location: tuple[int | str, ...], message: str) -> str:
    *start, end = location
    if start[:1] == ["systems"] and len(location) > 2:  # after the name pydantic tells the kind
        location = (*location[:2], *location[3:])
    where = ".".join(str(part) for part in location)
    message = re.sub(r"\b[Tt]uple\b", "list", message).removesuffix(" after validation")
    message = message.removeprefix("Value error, ")
    if message.startswith("Unable to extract tag"):
        message = "the setting 'kind' is missing: say which kind of system this is"
    if found := re.search(r"Input tag '(.*)' found .*expected tags: (.*)", message):
        kinds = re.findall(r"'([^']+)'", found[2])
        message = f"no kind of system {found[1]!r}{nearest(found[1], kinds)}; there are {kinds}"
    if message.startswith("Input should be a valid dictionary or object"):
        message = f"expected a table of settings, [{where}] with settings below"
    if message.startswith("Extra inputs") and end == _FORMER_KEY:
        message = f"expected a list of {[*_FORMER_SIZES]}; or write subset_sizes = [1, 2]"
    if message.startswith("Extra inputs"):
        message = f"unknown setting{nearest(str(end), set(Recipe.model_fields) - {'name'})}"
    return f"{where}: {message[0].lower()}{message[1:]}"
