"""The systems that a recipe can name, from their settings to unfitted estimators.

Each kind is one class of settings: what it takes from the cache (`builder`) and what is trained on
it (`regressor`).  A recipe gives them names::

    [systems.trust-your-clap]
    kind = "transformer"
    space = "m2d-clap"
    gate = "train"
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from sklearn.base import clone

from xacle_stack.features import FeatureBuilder, SequenceBuilder, VectorBuilder
from xacle_stack.stacking import Stacker
from xacle_stack.systems import (
    CosineRegressor,
    GatedRegressor,
    LSTMRegressor,
    ProjectionHeadRegressor,
    TransformerRegressor,
)


@dataclass(frozen=True)
class CacheNames:
    """What the encoders of a recipe are called in the cache.

    Attributes
    ----------
    encoders : mapping of str to str
    views : mapping of str to tuple of str
        The augmented views of an encoder that has some.
    """

    encoders: Mapping[str, str]
    views: Mapping[str, tuple[str, ...]]


class Contender(BaseModel, ABC):
    """Settings of one system.

    Attributes
    ----------
    kind : str
    seeds : int, optional
        Fits; by default the recipe's, and one where the seed changes nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: str
    seeds: PositiveInt | None = None

    @property
    def is_stochastic(self) -> bool:
        """Whether another seed gives another model."""
        return True

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs beside this library's own dependencies; the extra `neural` has them."""
        return ()

    @property
    def chooses_epoch_on_validation(self) -> bool:
        """Whether its figures on the validation split are not those of unseen pairs."""
        return False

    @property
    def spaces_named(self) -> tuple[str, ...]:
        """The spaces that the settings name; the recipe must have them."""
        return ()

    @property
    def encoders_named(self) -> tuple[str, ...]:
        """Encoders that the settings name beside the recipe's spaces."""
        return ()

    @abstractmethod
    def builder(self, names: CacheNames, features: FeatureBuilder) -> Any:
        """Return an unfitted transformer from cached embeddings to what the regressor takes.

        Parameters
        ----------
        names : CacheNames
        features : FeatureBuilder
            The recipe's, of all its spaces.
        """

    @abstractmethod
    def regressor(self, builder: Any, stacker: Stacker, random_state: int, verbose: bool) -> Any:
        """Return an unfitted regressor for what a fitted builder makes.

        Parameters
        ----------
        builder : transformer
        stacker : Stacker
            The recipe's, unfitted.
        random_state : int
        verbose : bool
        """


class NetworkContender(Contender):
    """Settings of a system that trains a network.

    Attributes
    ----------
    choose_epoch_on : {"train", "validation"}
        Where the best epoch is looked for: on captions of the train split that are held out, or on
        the validation split, as published; its figures there are then not those of unseen pairs.
    """

    choose_epoch_on: Literal["train", "validation"] = "train"

    @property
    def chooses_epoch_on_validation(self) -> bool:
        """Whether its figures on the validation split are not those of unseen pairs."""
        return self.choose_epoch_on == "validation"

    @property
    def packages(self) -> tuple[str, ...]:
        """PyTorch."""
        return ("torch",)


class StackContender(Contender):
    """The :class:`~xacle_stack.Stacker` on the features of all spaces, or of some.

    What is not set here is as the recipe has it under ``[stacker]``.
    """

    kind: Literal["stack"] = "stack"
    preset: Literal["best", "paper"] | None = None
    target: Literal["score", "rank"] | None = None
    spaces: tuple[str, ...] = ()

    @property
    def spaces_named(self) -> tuple[str, ...]:
        """The spaces that the settings name."""
        return self.spaces

    def builder(self, names: CacheNames, features: FeatureBuilder) -> FeatureBuilder:
        """Return the recipe's builder, of some spaces or of all."""
        if not self.spaces:
            return features
        spaces = [names.encoders[space] for space in self.spaces]
        builder: FeatureBuilder = clone(features).set_params(spaces=spaces)
        return builder

    def regressor(
        self, builder: FeatureBuilder, stacker: Stacker, random_state: int, verbose: bool
    ) -> Stacker:
        """Return the recipe's stacker, or one that differs."""
        own = {name: getattr(self, name) for name in ("preset", "target")}
        changed = {name: value for name, value in own.items() if value is not None}
        mine: Stacker = clone(stacker).set_params(**changed, random_state=random_state)
        return mine


class CosineContender(Contender):
    """One space's cosine, calibrated."""

    kind: Literal["cosine"] = "cosine"
    space: str

    @property
    def is_stochastic(self) -> bool:
        """Whether another seed gives another model."""
        return False

    @property
    def spaces_named(self) -> tuple[str, ...]:
        """The spaces that the settings name."""
        return (self.space,)

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the columns of the space."""
        return VectorBuilder([names.encoders[self.space]])

    def regressor(
        self, builder: VectorBuilder, stacker: Stacker, random_state: int, verbose: bool
    ) -> CosineRegressor:
        """Return the cosine."""
        return CosineRegressor()


class TransformerContender(NetworkContender):
    """Trust-your-CLAP: a Transformer over the two vectors of one space, behind its gate or not."""

    kind: Literal["transformer"] = "transformer"
    space: str
    gate: Literal["none", "train", "batch"] = "train"
    score_weighting: Literal[0, 1, 2, 3] = 1
    epochs: PositiveInt = 100
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 3e-4
    optimizer: Literal["lars", "adam"] = "lars"
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def packages(self) -> tuple[str, ...]:
        """PyTorch, and timm where its optimiser is used."""
        return ("torch", "timm") if self.optimizer == "lars" else ("torch",)

    @property
    def spaces_named(self) -> tuple[str, ...]:
        """The spaces that the settings name."""
        return (self.space,)

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the columns of the space, and of the clips' augmented views if there are some."""
        space = names.encoders[self.space]
        return VectorBuilder([space], {space: names.views.get(self.space, ())})

    def regressor(
        self, builder: VectorBuilder, stacker: Stacker, random_state: int, verbose: bool
    ) -> TransformerRegressor | GatedRegressor:
        """Return the Transformer, behind its gate."""
        transformer = TransformerRegressor(
            score_weighting=self.score_weighting,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            precision=self.precision,
            random_state=random_state,
            verbose=verbose,
        )
        if self.gate == "none":
            return transformer
        return GatedRegressor(transformer, statistics=self.gate)


class ProjectionHeadContender(NetworkContender):
    """A two-tower projection head on all spaces, or on some."""

    kind: Literal["projection-head"] = "projection-head"
    spaces: tuple[str, ...] = ()
    loss: Literal["mse", "listnet", "pairwise"] = "mse"
    epochs: PositiveInt = 40
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 1e-3

    @property
    def spaces_named(self) -> tuple[str, ...]:
        """The spaces that the settings name."""
        return self.spaces

    def builder(self, names: CacheNames, features: FeatureBuilder) -> VectorBuilder:
        """Return the columns of the spaces."""
        return VectorBuilder([names.encoders[s] for s in self.spaces] or list(features.spaces))

    def regressor(
        self, builder: VectorBuilder, stacker: Stacker, random_state: int, verbose: bool
    ) -> ProjectionHeadRegressor:
        """Return the head."""
        return ProjectionHeadRegressor(
            loss=self.loss,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            random_state=random_state,
            verbose=verbose,
        )


class LSTMContender(NetworkContender):
    """The organisers' baseline, on sequences of the clips' frames."""

    kind: Literal["lstm"] = "lstm"
    frames: str = Field(default="byol-a:frames", pattern=r".:[^:]+$")
    text: str = "roberta-large"
    epochs: PositiveInt = 20
    batch_size: PositiveInt = 12
    learning_rate: PositiveFloat = 2e-5

    @property
    def encoders_named(self) -> tuple[str, ...]:
        """The encoders of the frames and of the captions."""
        return self.frames.rpartition(":")[0], self.text

    def builder(self, names: CacheNames, features: FeatureBuilder) -> SequenceBuilder:
        """Return the sequences."""
        encoder, _, output = self.frames.rpartition(":")
        return SequenceBuilder(f"{names.encoders[encoder]}:{output}", names.encoders[self.text])

    def regressor(
        self, builder: SequenceBuilder, stacker: Stacker, random_state: int, verbose: bool
    ) -> LSTMRegressor:
        """Return the LSTM."""
        return LSTMRegressor(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            random_state=random_state,
            verbose=verbose,
        )


class EnsembleContender(BaseModel):
    """An average of other systems' scores, or of their ranks."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["ensemble"] = "ensemble"
    of: tuple[str, ...] = Field(min_length=2)
    method: Literal["mean", "rank"] = "rank"


AnyContender = Annotated[
    StackContender
    | CosineContender
    | TransformerContender
    | ProjectionHeadContender
    | LSTMContender
    | EnsembleContender,
    Field(discriminator="kind"),
]


_KINDS = (
    StackContender,
    CosineContender,
    TransformerContender,
    ProjectionHeadContender,
    LSTMContender,
    EnsembleContender,
)
# Every key that a system in a recipe may have.
SYSTEM_SETTINGS = frozenset(name for kind in _KINDS for name in kind.model_fields)


def default_contenders(spaces: Sequence[str]) -> dict[str, AnyContender]:
    """Return what is compared where a recipe names no systems."""
    systems: dict[str, AnyContender] = {
        "stack": StackContender(preset="best"),
        "paper": StackContender(preset="paper"),
    }
    for space in spaces:
        systems[f"cosine of {space}"] = CosineContender(space=space)
    systems[f"transformer on {spaces[0]}"] = TransformerContender(space=spaces[0])
    systems["projection head"] = ProjectionHeadContender()
    systems["ranks of stack and head"] = EnsembleContender(of=("stack", "projection head"))
    return systems


def file_name(system: str) -> str:
    """Return what a system is called in the names of files."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in system).lower()


def mistakes_in(
    systems: Mapping[str, AnyContender], reference: str | None, spaces: Sequence[str]
) -> list[str]:
    """Return what is wrong with the systems of a recipe that has these spaces."""
    mistakes = []
    trained = [name for name, one in systems.items() if not isinstance(one, EnsembleContender)]
    if systems and not trained:
        mistakes.append("systems: there are only averages; name what they are averages of")
    known = systems or default_contenders(spaces)
    if reference is not None and reference not in known:
        mistakes.append(f"reference: there is no system {reference!r}")
    elif reference is not None and isinstance(known[reference], EnsembleContender):
        mistakes.append(
            f"reference: {reference!r} is an average of others; name one that is trained: {trained}"
        )
    by_file: dict[str, str] = {}
    for name in systems:
        other = by_file.setdefault(file_name(name), name)
        if other != name:
            mistakes.append(
                f"systems: the files of {other!r} and {name!r} would have the same name; "
                "give one of them another"
            )
    for name, system in systems.items():
        if isinstance(system, EnsembleContender):
            mistakes += [
                f"systems.{name}: {member!r} is no system to average; there are {trained}"
                for member in system.of
                if member not in trained
            ]
        else:
            mistakes += [
                f"systems.{name}: {space!r} is not among the recipe's spaces {list(spaces)}"
                for space in system.spaces_named
                if space not in spaces
            ]
    return mistakes
