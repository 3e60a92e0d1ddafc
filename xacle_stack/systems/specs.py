"""The systems that a recipe can name, from their settings to unfitted estimators.

Each kind is one class: what it takes from the cache (`builder`) and what is trained on it
(`regressor`).  A recipe gives them names.  What is no field of the class is a parameter of the
estimator, whose constructor has the default.  A new kind needs its class in :data:`AnySpec`, and
its estimator in `SAVED_TYPES` of this package; paths of encoders in its settings are made absolute
by `recipe_file`, which knows the names of those settings::

    [systems.trust-your-clap]
    kind = "transformer"
    space = "m2d-clap"
    gate = "train"
    epochs = 50                # of TransformerRegressor
"""

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from sklearn.base import clone

from xacle_stack._files import name_in_files
from xacle_stack.encoders import EMBEDDING
from xacle_stack.errors import XacleStackError
from xacle_stack.features import (
    CaptionedSequenceBuilder,
    FeatureBuilder,
    SequenceBuilder,
    VectorBuilder,
)
from xacle_stack.stacking import BoostedTrees, Stacker
from xacle_stack.systems.audio_language_model import AudioLanguageModelRegressor
from xacle_stack.systems.captioner import AudioCaptioner
from xacle_stack.systems.cosine import CosineRegressor
from xacle_stack.systems.cross_attention import CrossAttentionRegressor
from xacle_stack.systems.gate import GatedRegressor
from xacle_stack.systems.label_free import CosineMean
from xacle_stack.systems.lstm import LSTMRegressor
from xacle_stack.systems.mlp import VectorMLPRegressor
from xacle_stack.systems.projection_head import ProjectionHeadRegressor
from xacle_stack.systems.svr import SVREnsembleRegressor
from xacle_stack.systems.transformer import TransformerRegressor

# The teacher that needs no ratings.
LABEL_FREE = "label-free"
# The settings of an audio language model that its earlier stages share.
_OF_ALL_STAGES = frozenset(
    {
        *("language_model", "tuning", "lora_rank", "n_audio_tokens", "max_tokens", "dropout"),
        *("weight_decay", "batch_size", "micro_batch", "gradient_checkpointing", "max_gradient"),
        *("precision", "head", "checkpoint_minutes"),
    }
)
# Parameters that hold objects, and those that whoever runs the recipe decides.
NOT_IN_RECIPES = frozenset(
    {
        *("learners", "added_learners", "n_jobs", "verbose", "device"),
        *("space", "spaces", "auxiliary", "text_auxiliary"),
        *("initial", "checkpoints"),
    }
)


@dataclass(frozen=True)
class CacheNames:
    """What the encoders of a recipe, and augmented views of some, are called in the cache."""

    encoders: Mapping[str, str]
    views: Mapping[str, tuple[str, ...]]


class Parameters(BaseModel):
    """Settings of which those that are no field of the class are an estimator's parameters."""

    model_config = ConfigDict(frozen=True, extra="allow")
    estimator: ClassVar[type]

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the estimator that are set."""
        return dict(self.model_extra or {})

    @property
    def packages(self) -> tuple[str, ...]:
        """What they need beside this library's own dependencies; `extra` has them."""
        return ()

    @property
    def extra(self) -> str:
        """The extra that installs the packages."""
        return "neural"

    @property
    def is_installed(self) -> bool:
        """Whether the packages are installed; none of them is imported."""
        return all(find_spec(package) is not None for package in self.packages)

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        """Check the names of the parameters, then the values that can be judged without data."""
        fields = set(type(self).model_fields)
        known = {*inspect.signature(self.estimator).parameters} - NOT_IN_RECIPES
        mistakes = [
            f"{name}: unknown setting{nearest(name, known | fields)}"
            for name in self.parameters
            if name not in known
        ]
        if not mistakes:
            try:
                self.check_values()
            except XacleStackError as error:
                mistakes.append(str(error))
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self

    def check_values(self) -> None:
        """Check what the parameters are set to, as `fit` would."""
        self.estimator(**self.parameters).check_settings()


class SystemSpec(Parameters, ABC):
    """Settings of one system.

    `seeds` is the number of fits; by default the recipe's, and one where the seed changes nothing.
    """

    kind: str
    seeds: PositiveInt | None = None

    @property
    def chooses_epoch_on_validation(self) -> bool:
        """Whether its figures on the validation split are not those of unseen pairs."""
        return False

    @property
    def spaces_used(self) -> tuple[str, ...]:
        """The spaces of the settings `space` or `spaces`; the recipe must have them."""
        space = getattr(self, "space", None)
        return getattr(self, "spaces", ()) if space is None else (space,)

    @property
    def clip_sequences(self) -> tuple[str, ...]:
        """Sequences of clips that the settings name, ``"encoder:output"``."""
        return ()

    @property
    def caption_vectors(self) -> tuple[str, ...]:
        """Vectors of captions that they name beside the recipe's spaces, ``"encoder:output"``."""
        return ()

    @property
    def caption_sequences(self) -> tuple[str, ...]:
        """Sequences of captions that they name, ``"encoder:output"``."""
        return ()

    @property
    def outputs_named(self) -> tuple[str, ...]:
        """All that they name beside the recipe's spaces, ``"encoder:output"``."""
        return (*self.clip_sequences, *self.caption_vectors, *self.caption_sequences)

    def spaces_needed(self, spaces: tuple[str, ...]) -> tuple[str, ...]:
        """Return which of a recipe's spaces it takes: all, where its settings name none."""
        return self.spaces_used or spaces

    @abstractmethod
    def builder(self, names: CacheNames, features: FeatureBuilder) -> Any:
        """Return an unfitted transformer from cached embeddings to what the regressor takes.

        `features` is the recipe's, of all its spaces.
        """

    @abstractmethod
    def regressor(self, names: CacheNames, stacker: Stacker) -> Any:
        """Return an unfitted regressor for what the builder makes; `stacker` is the recipe's."""

    def without_parameters(self) -> Self:
        """Return what says which embeddings the system takes."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**fields)


class NetworkSpec(SystemSpec):
    """Settings of a system that trains a network.

    The best epoch is looked for on captions of the train split that are held out, or on the
    validation split, as published; its figures there are then not those of unseen pairs.
    """

    choose_epoch_on: Literal["train", "validation"] = "train"

    @property
    def chooses_epoch_on_validation(self) -> bool:
        """Whether its figures on the validation split are not those of unseen pairs."""
        return self.choose_epoch_on == "validation"

    @property
    def packages(self) -> tuple[str, ...]:
        """PyTorch with Fabric, and timm where its optimiser is used."""
        optimizer = getattr(self.estimator(**self.parameters), "optimizer", "adam")
        own = ("torch", "lightning_fabric")
        return (*own, "timm") if optimizer == "lars" else own

    def regressor(self, names: CacheNames, stacker: Stacker) -> Any:
        """Return the network, on all that the builder takes."""
        return self.estimator(**self.parameters)


class FeatureSettings(Parameters):
    """Parameters of the :class:`~xacle_stack.FeatureBuilder`."""

    estimator = FeatureBuilder

    def check_values(self) -> None:
        """Check what the parameters are set to; the spaces are those of the recipe."""
        FeatureBuilder(["space"], **self.parameters).check_settings()


class TreeSettings(Parameters):
    """Settings of which one names the library that trains trees."""

    library_setting: ClassVar[str] = "boosting_library"

    @property
    def packages(self) -> tuple[str, ...]:
        """The library, if it is none of this library's own dependencies."""
        library = self.parameters.get(self.library_setting, "lightgbm")
        return () if library == "lightgbm" else (library,)

    @property
    def extra(self) -> str:
        """The extra of the library's name."""
        return "".join(self.packages)


class FeatureTableSpec(TreeSettings, SystemSpec):
    """Settings of a system on the features of all spaces, or of some.

    What is not set in its table ``features`` is as the recipe has it under ``[features]``.
    """

    spaces: tuple[str, ...] = ()
    features: FeatureSettings = FeatureSettings()

    def builder(self, names: CacheNames, features: FeatureBuilder) -> FeatureBuilder:
        """Return the recipe's builder, or one that differs."""
        changed = dict(self.features.parameters)
        if self.spaces:
            changed["spaces"] = [names.encoders[space] for space in self.spaces]
        return clone(features).set_params(**changed) if changed else features


class StackSpec(FeatureTableSpec):
    """The :class:`~xacle_stack.Stacker`.

    What is not set here is as the recipe has it under ``[stacker]``.
    """

    kind: Literal["stack"] = "stack"
    estimator = Stacker

    def regressor(self, names: CacheNames, stacker: Stacker) -> Stacker:
        """Return the recipe's stacker, or one that differs."""
        return clone(stacker).set_params(**self.parameters)


class BoostingSpec(FeatureTableSpec):
    """Boosted trees.

    They are a stack of one learner, so they have prediction intervals.  Its folds and its bounds
    are as under ``[stacker]``.
    """

    kind: Literal["boosting"] = "boosting"
    estimator = BoostedTrees
    library_setting = "library"

    def regressor(self, names: CacheNames, stacker: Stacker) -> Stacker:
        """Return the recipe's stacker with these trees for its only learner."""
        trees = BoostedTrees(**{"random_state": stacker.random_state, **self.parameters})
        return clone(stacker).set_params(learners=[("trees", trees)], meta=None)


class CosineSpec(SystemSpec):
    """One space's cosine, calibrated."""

    kind: Literal["cosine"] = "cosine"
    space: str
    estimator = CosineRegressor

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the vectors of the space."""
        return VectorBuilder([names.encoders[self.space]])

    def regressor(self, names: CacheNames, stacker: Stacker) -> CosineRegressor:
        """Return the cosine."""
        return CosineRegressor(names.encoders[self.space])


class LabelFreeSpec(SystemSpec):
    """The mean of the cosines of all spaces, or of some; it takes no ratings."""

    kind: Literal["label-free"] = "label-free"
    seeds: PositiveInt | None = 1
    spaces: tuple[str, ...] = ()
    estimator = CosineMean

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the vectors of the spaces."""
        return VectorBuilder([names.encoders[s] for s in self.spaces] or list(features.spaces))

    def regressor(self, names: CacheNames, stacker: Stacker) -> CosineMean:
        """Return the mean of the cosines of all that the builder takes."""
        return CosineMean(**self.parameters)


class SVREnsembleSpec(SystemSpec):
    """The SVR ensemble: two support vector regressions, each on all spaces or on some.

    Another seed only draws other folds, from which it learns how to blend them.
    """

    kind: Literal["svr-ensemble"] = "svr-ensemble"
    seeds: PositiveInt | None = 1
    spaces_a: tuple[str, ...] = ()
    spaces_b: tuple[str, ...] = ()
    estimator = SVREnsembleRegressor

    @property
    def spaces_used(self) -> tuple[str, ...]:
        """The spaces of both settings."""
        return tuple(dict.fromkeys((*self.spaces_a, *self.spaces_b)))

    def spaces_needed(self, spaces: tuple[str, ...]) -> tuple[str, ...]:
        """Return the spaces of both; a setting that names none stands for all of the recipe's."""
        return self.spaces_used if self.spaces_a and self.spaces_b else spaces

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the vectors of the spaces of both."""
        if not (self.spaces_a and self.spaces_b):
            return VectorBuilder(list(features.spaces))
        return VectorBuilder([names.encoders[space] for space in self.spaces_used])

    def regressor(self, names: CacheNames, stacker: Stacker) -> SVREnsembleRegressor:
        """Return the ensemble."""
        named = [[names.encoders[s] for s in one] or None for one in (self.spaces_a, self.spaces_b)]
        return SVREnsembleRegressor(*named, **self.parameters)


class TransformerSpec(NetworkSpec):
    """Trust-your-CLAP: a Transformer over the two vectors of one space, behind its gate or not."""

    kind: Literal["transformer"] = "transformer"
    space: str
    gate: Literal["none", "train", "batch"] = "train"
    estimator = TransformerRegressor

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the vectors of the space, and of the clips' augmented views if there are some."""
        space = names.encoders[self.space]
        return VectorBuilder([space], {space: names.views.get(self.space, ())})

    def regressor(
        self, names: CacheNames, stacker: Stacker
    ) -> TransformerRegressor | GatedRegressor:
        """Return the Transformer, behind its gate."""
        space = names.encoders[self.space]
        transformer = TransformerRegressor(space, **self.parameters)
        if self.gate == "none":
            return transformer
        return GatedRegressor(transformer, space, statistics=self.gate)


class ProjectionHeadSpec(NetworkSpec):
    """A two-tower projection head on all spaces, or on some."""

    kind: Literal["projection-head"] = "projection-head"
    spaces: tuple[str, ...] = ()
    estimator = ProjectionHeadRegressor

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the vectors of the spaces."""
        return VectorBuilder([names.encoders[s] for s in self.spaces] or list(features.spaces))


class MLPSpec(NetworkSpec):
    """The organisers' baseline of 2027: an MLP on the vectors of all spaces, or of some."""

    kind: Literal["mlp"] = "mlp"
    spaces: tuple[str, ...] = ()
    estimator = VectorMLPRegressor

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the vectors of the spaces."""
        return VectorBuilder([names.encoders[s] for s in self.spaces] or list(features.spaces))


class LSTMSpec(NetworkSpec):
    """The organisers' baseline of 2026, on sequences of the clips' frames."""

    kind: Literal["lstm"] = "lstm"
    frames: str = Field(default="byol-a:frames", pattern=r".:[^:]+$")
    text: str = "roberta-large"
    estimator = LSTMRegressor

    @property
    def clip_sequences(self) -> tuple[str, ...]:
        """The frames."""
        return (self.frames,)

    @property
    def caption_vectors(self) -> tuple[str, ...]:
        """The captions' embedding."""
        return (f"{self.text}:{EMBEDDING}",)

    def builder(self, names: CacheNames, features: FeatureBuilder) -> SequenceBuilder:
        """Return the sequences."""
        encoder, _, output = self.frames.rpartition(":")
        return SequenceBuilder(f"{names.encoders[encoder]}:{output}", names.encoders[self.text])


class CrossAttentionSpec(NetworkSpec):
    """Cross-attention between sequences of the clips and of the captions."""

    kind: Literal["cross-attention"] = "cross-attention"
    frames: str = Field(default="beats:tokens", pattern=r".:[^:]+$")
    text: str = Field(default="roberta-large:tokens", pattern=r".:[^:]+$")
    estimator = CrossAttentionRegressor

    @property
    def clip_sequences(self) -> tuple[str, ...]:
        """The frames."""
        return (self.frames,)

    @property
    def caption_sequences(self) -> tuple[str, ...]:
        """The tokens."""
        return (self.text,)

    def builder(self, names: CacheNames, features: FeatureBuilder) -> SequenceBuilder:
        """Return both sequences."""
        named = (name.rpartition(":") for name in (self.frames, self.text))
        return SequenceBuilder(*(f"{names.encoders[one]}:{output}" for one, _, output in named))


class CaptioningSettings(Parameters):
    """The first stage of an audio language model: it learns to caption clips."""

    data: str
    estimator = AudioCaptioner


class PseudoLabelSettings(Parameters):
    """The second stage: it learns what a teacher says of right and wrong captions of clips.

    The teacher is "label-free", the mean of the recipe's spaces' cosines, or a saved model.
    """

    data: str
    teacher: str = LABEL_FREE
    wrong_captions: PositiveInt = 3
    epochs: PositiveInt = 20
    learning_rate: float = 1e-5
    estimator = AudioLanguageModelRegressor

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the estimator, two of which have defaults of their own here."""
        return {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            **super().parameters,
        }


class AudioLanguageModelSpec(NetworkSpec):
    """A language model that reads clips and captions, trained in up to three stages.

    The tables ``captioning`` and ``pseudo_labels`` set the first two, each on `data` of its own:
    any table of clips and texts, without ratings.  They are trained once, and kept in the store.
    """

    kind: Literal["audio-language-model"] = "audio-language-model"
    tokens: str = Field(default="beats:tokens", pattern=r".:[^:]+$")
    captioning: CaptioningSettings | None = None
    pseudo_labels: PseudoLabelSettings | None = None
    estimator = AudioLanguageModelRegressor

    @property
    def packages(self) -> tuple[str, ...]:
        """PyTorch with Fabric and transformers, and peft for LoRA."""
        adapters = ("peft",) if self.extra == "lora" else ()
        return (*super().packages, "transformers", *adapters)

    @property
    def extra(self) -> str:
        """The extra that installs its packages."""
        stages = [one for one in (self.captioning, self.pseudo_labels) if one is not None]
        tunings = {one.parameters.get("tuning") for one in (self, *stages)}
        return "lora" if "lora" in tunings else "language"

    @property
    def clip_sequences(self) -> tuple[str, ...]:
        """The tokens."""
        return (self.tokens,)

    def builder(self, names: CacheNames, features: FeatureBuilder) -> CaptionedSequenceBuilder:
        """Return the tokens beside the captions, and those of augmented views if there are some."""
        encoder, _, output = self.tokens.rpartition(":")
        views = names.views.get(encoder, ())
        return CaptionedSequenceBuilder(f"{names.encoders[encoder]}:{output}", views)

    def stage(self, settings: CaptioningSettings | PseudoLabelSettings) -> Any:
        """Return the estimator of an earlier stage; what it does not set is as in the last."""
        known = inspect.signature(settings.estimator).parameters
        shared = {
            name: value
            for name, value in self.parameters.items()
            if name in _OF_ALL_STAGES and name in known
        }
        return settings.estimator(**{**shared, **settings.parameters})

    def without_parameters(self) -> Self:
        """Return what says which embeddings the system takes, without the places of other data."""
        return type(self)(tokens=self.tokens)


class EnsembleSpec(BaseModel):
    """An average of other systems' scores, or of their ranks."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["ensemble"] = "ensemble"
    of: tuple[str, ...] = Field(min_length=2)
    method: Literal["mean", "rank"] = "rank"


AnySpec = Annotated[
    StackSpec
    | BoostingSpec
    | CosineSpec
    | LabelFreeSpec
    | SVREnsembleSpec
    | TransformerSpec
    | ProjectionHeadSpec
    | MLPSpec
    | LSTMSpec
    | CrossAttentionSpec
    | AudioLanguageModelSpec
    | EnsembleSpec,
    Field(discriminator="kind"),
]


def default_systems(spaces: Sequence[str]) -> dict[str, AnySpec]:
    """Return what `compare` compares where a recipe names no systems: one of each kind.

    Without spaces there are only the two stacks: the other kinds need the vectors of a space.
    """
    systems: dict[str, AnySpec] = {
        "stack": StackSpec.model_validate({"preset": "best"}),
        "paper": StackSpec.model_validate({"preset": "paper"}),
    }
    if not spaces:
        return systems
    for space in spaces:
        systems[f"cosine of {space}"] = CosineSpec(space=space)
    systems[f"transformer on {spaces[0]}"] = TransformerSpec(space=spaces[0])
    systems["projection head"] = ProjectionHeadSpec()
    systems["ranks of stack and head"] = EnsembleSpec(of=("stack", "projection head"))
    return systems


def stack_systems(
    spaces: Sequence[str], subset_sizes: Collection[int], names: Mapping[str, str]
) -> dict[str, AnySpec]:
    """Return the stack of all spaces, the smaller stacks beside it, and the singles' average.

    `subset_sizes` says how many spaces the smaller stacks have, and `names` what each space is
    called in a table.

    Examples
    --------
    >>> list(stack_systems(["a", "b", "c"], [2], {s: s.upper() for s in "abc"}))
    ['A + B + C', 'A + B', 'A + C', 'B + C']
    >>> list(stack_systems(["a", "b"], [1], {s: s.upper() for s in "ab"}))
    ['A + B', 'A', 'B', 'rank ensemble of the singles']
    """
    sizes = [len(spaces), *(size for size in sorted(set(subset_sizes)) if size < len(spaces))]
    systems: dict[str, AnySpec] = {
        " + ".join(names[space] for space in subset): StackSpec(spaces=subset, seeds=1)
        for size in sizes
        for subset in combinations(spaces, size)
    }
    if 1 in sizes and len(spaces) > 1:
        singles = tuple(names[space] for space in spaces)
        systems["rank ensemble of the singles"] = EnsembleSpec(of=singles)
    return systems


def nearest(name: str, known: Collection[str]) -> str:
    """Return a hint at the known name that is most like a given one, if any is."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def mistakes_in(
    systems: Mapping[str, AnySpec], reference: str | None, spaces: Sequence[str]
) -> list[str]:
    """Return what is wrong with the systems of a recipe that has these spaces."""
    mistakes = []
    trained = [name for name, one in systems.items() if not isinstance(one, EnsembleSpec)]
    if systems and not trained:
        mistakes.append("systems: there are only averages; name what they are averages of")
    known = systems or default_systems(spaces)
    if reference is not None and reference not in known:
        mistakes.append(f"reference: there is no system {reference!r}")
    elif reference is not None and isinstance(known[reference], EnsembleSpec):
        mistakes.append(
            f"reference: {reference!r} is an average of others; name one that is trained: {trained}"
        )
    by_file: dict[str, str] = {}
    for name in systems:
        other = by_file.setdefault(name_in_files(name), name)
        if other != name:
            mistakes.append(
                f"systems: the files of {other!r} and {name!r} would have the same name; "
                "give one of them another"
            )
    for name, system in systems.items():
        if isinstance(system, EnsembleSpec):
            if len(set(system.of)) < len(system.of):
                mistakes.append(f"systems.{name}: {list(system.of)} names a system twice")
            mistakes += [
                f"systems.{name}: {member!r} is no system to average; there are {trained}"
                for member in system.of
                if member not in trained
            ]
        else:
            mistakes += [
                f"systems.{name}: {space!r} is not among the recipe's spaces {list(spaces)}"
                for space in system.spaces_used
                if space not in spaces
            ]
            needs_spaces = isinstance(system, ProjectionHeadSpec | MLPSpec | SVREnsembleSpec)
            if needs_spaces and not (spaces or system.spaces_used):
                mistakes.append(
                    f"systems.{name}: the kind {system.kind!r} needs encoders that embed clips and "
                    "captions in one space, and the recipe's spaces are empty"
                )
            labels = getattr(system, "pseudo_labels", None)
            if labels is not None and labels.teacher == LABEL_FREE and not spaces:
                mistakes.append(
                    f'systems.{name}.pseudo_labels: the teacher "label-free" is the mean of the '
                    "cosines of the recipe's spaces, and they are empty; name some, or a saved "
                    "model as teacher"
                )
    return mistakes
