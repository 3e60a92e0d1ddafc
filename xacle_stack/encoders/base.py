"""Defines the contract between an encoder and the rest of the library.

An encoder turns clips, captions or both into float32 vectors.  It knows nothing of files, data sets
or storage.  Its class can be listed and fingerprinted without loading a model; :meth:`Encoder.load`
does the heavy work.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar, Literal, Self, TypeVar, get_args

from packaging.requirements import Requirement

from xacle_stack._types import FloatArray
from xacle_stack.audio import AUDIO_VERSION
from xacle_stack.encoders.checkpoint import (
    Weights,
    check_is_file_or_folder,
    find_tokenizer,
    find_weights,
    hash_files,
)
from xacle_stack.errors import EncoderError

Modality = Literal["audio", "text"]
Precision = Literal["float32", "bfloat16", "float16"]
SequenceType = Literal["float32", "float16"]
TestedWith = Literal["real weights", "real code", "random weights"]
# The value of an output: one vector for each item, or a list with one sequence for each item.
Output = FloatArray | Sequence[FloatArray]
T = TypeVar("T")
MODALITIES: tuple[Modality, ...] = ("audio", "text")
EMBEDDING = "embedding"
WORDS = "words"


def view_name(encoder: str, view: int) -> str:
    """Return the name of an encoder's augmented view in the cache.

    Examples
    --------
    >>> view_name("m2d-clap", 2), view_name("m2d-clap", 0)
    ('m2d-clap.view-2', 'm2d-clap')
    """
    return f"{encoder}.view-{view}" if view else encoder


@dataclass(frozen=True)
class EncoderInfo:
    """The description of an encoder, known before anything is loaded.

    Attributes
    ----------
    name : str
        Lower case, hyphens: ``"mini-mel"``.
    summary : str
        One line for listings.
    audio_outputs, text_outputs : mapping of str to int
        Number of dimensions of each output by its name; empty if the encoder does not take that
        modality.  A contrastive space has an output ``"embedding"`` in both; hashed bags of the
        words in the clip and in the caption are an output ``"words"`` in both.
    sample_rate_hz : int, optional
        Rate of the mono samples that ``encode_audio`` takes.  Needed if there are audio outputs.
    window_s : float, optional
        Length of the model's fixed window in seconds; None if it takes any length.
    preprocessing : str
        Part of the fingerprint; it changes whenever the same input would give another vector.
    libraries : tuple of str
        Distributions whose version changes the vectors and is part of the fingerprint.
    weights : Weights, optional
        The files of the weights; None if the encoder has none.
    tokenizer : Weights, optional
        The tokenizer's files, if the weights may come without them; see
        :func:`~xacle_stack.encoders.checkpoint.find_tokenizer`.
    extra : str, optional
        The extra that installs the encoder's packages; None if the core has them.
    requires : tuple of str
        The requirements that the extra installs, such as ``"transformers>=5"``.
    precisions : tuple of str
        The precisions that the encoder can compute in; the chosen one is part of the fingerprint.
    code : str, optional
        The model's own code that the user has to provide, such as a clone of its repository.  It is
        run only if the user names its folder.
    item_mb : int
        Approximate peak memory for one clip in a batch, in MB, which decides the automatic batch
        size on a GPU.
    licence : str
        Licence of the weights.
    sequences : mapping of str to str
        The outputs that are a sequence of vectors for each item, with the type in which they are
        stored: ``"float32"``, or ``"float16"`` for half the space.
    on_demand : mapping of str to str
        The sequences that are computed and stored only where they are asked for, and how each is
        made, which is then part of the fingerprint.
    views : str, optional
        How augmented views of a clip are made, which is part of their fingerprint; None if the
        encoder makes none.
    tested_with : str
        The most that the vectors were compared with.  ``"real weights"``: published weights.
        ``"real code"``: with random weights, the code of the authors or of the library that the
        checkpoints are made for.  ``"random weights"``: neither.
    """

    name: str
    summary: str
    audio_outputs: Mapping[str, int] = field(default_factory=dict)
    text_outputs: Mapping[str, int] = field(default_factory=dict)
    sample_rate_hz: int | None = None
    window_s: float | None = None
    preprocessing: str = "1"
    libraries: tuple[str, ...] = ()
    weights: Weights | None = None
    tokenizer: Weights | None = None
    extra: str | None = None
    requires: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = ("float32",)
    code: str | None = None
    item_mb: int = 0
    licence: str = "unknown"
    sequences: Mapping[str, SequenceType] = field(default_factory=dict)
    on_demand: Mapping[str, str] = field(default_factory=dict)
    views: str | None = None
    tested_with: TestedWith = "random weights"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", self.name):
            raise EncoderError(
                f"encoder {self.name!r}: a name is lower-case letters, digits, '.', '_' and '-', "
                "because it names a folder."
            )
        if not self.audio_outputs and not self.text_outputs:
            raise EncoderError(f"encoder {self.name!r}: it declares no audio and no text outputs.")
        if self.audio_outputs and not (
            isinstance(self.sample_rate_hz, int) and self.sample_rate_hz > 0
        ):
            raise EncoderError(
                f"encoder {self.name!r}: it has audio outputs, so its info needs sample_rate_hz, "
                f"a whole number above 0; got {self.sample_rate_hz!r}."
            )
        for name, kind in self.sequences.items():
            if (
                kind not in get_args(SequenceType)
                or name in (EMBEDDING, WORDS)
                or name not in {**self.audio_outputs, **self.text_outputs}
            ):
                raise EncoderError(
                    f"encoder {self.name!r}: its info declares the sequence {name!r} of type "
                    f"{kind!r}; expected one of its outputs, not {EMBEDDING!r} or {WORDS!r}, and "
                    f"one of {get_args(SequenceType)}."
                )
        if unknown := self.on_demand.keys() - self.sequences.keys():
            raise EncoderError(
                f"encoder {self.name!r}: its info declares {sorted(unknown)} on demand; expected "
                f"names of its sequences {sorted(self.sequences)}."
            )

    def with_outputs(self, wanted: Collection[str]) -> EncoderInfo:
        """Return the description where these outputs are asked for: of those on demand, only they.

        Raises
        ------
        EncoderError
            If the encoder has no such output.
        """
        outputs = {**self.audio_outputs, **self.text_outputs}
        if unknown := set(wanted) - outputs.keys():
            raise EncoderError(
                f"encoder {self.name!r}: it has no outputs {sorted(unknown)}; expected some of "
                f"{[*outputs]}."
            )
        if not self.on_demand:
            return self
        left_out = self.on_demand.keys() - set(wanted)
        made = [f"{name}: {how}" for name, how in self.on_demand.items() if name in wanted]
        return replace(
            self,
            audio_outputs=_without(left_out, self.audio_outputs),
            text_outputs=_without(left_out, self.text_outputs),
            sequences=_without(left_out, self.sequences),
            on_demand={},
            preprocessing="; ".join([self.preprocessing, *made]),
        )

    def outputs(self, modality: Modality) -> Mapping[str, int]:
        """Return the number of dimensions of each output of a modality, by its name."""
        return self.audio_outputs if modality == "audio" else self.text_outputs

    @property
    def is_installed(self) -> bool:
        """Whether the packages that it needs are installed; none of them is imported."""
        return all(_is_met(Requirement(requirement)) for requirement in self.requires)

    @property
    def is_contrastive(self) -> bool:
        """Whether clips and captions share one space."""
        audio, text = self.audio_outputs.get(EMBEDDING), self.text_outputs.get(EMBEDDING)
        return audio is not None and audio == text


@dataclass(frozen=True)
class Fingerprint:
    """All that decides an encoder's vectors; its digest names the store.

    The facts can be stored as JSON, such as the hash of the checkpoint and library versions.
    """

    encoder: str
    facts: Mapping[str, object]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits; equal facts give equal digests."""
        text = json.dumps({"encoder": self.encoder, **self.facts}, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Encoder(ABC):
    """Base class of encoders; a subclass declares ``info`` and writes ``load`` and encode methods.

    An item's vector must not depend on the other items in its batch, on their order or on any
    global random state.

    Attributes
    ----------
    view : int
        Number of the augmented view of clips that is encoded; 0 is the clip itself.  An encoder
        that makes views says so in ``info.views``, and its ``encode_audio`` hides the parts that
        :func:`~xacle_stack.encoders.masks.hidden_parts` returns.
    outputs : tuple of str
        The outputs of ``info.on_demand`` that are computed beside the others.
    """

    info: ClassVar[EncoderInfo]
    view: int = 0
    outputs: tuple[str, ...] = ()

    @classmethod
    def find_checkpoint(cls, checkpoint: str | None, *, download: bool = True) -> Path | None:
        """Return the local file or folder of the weights, without loading it.

        Parameters
        ----------
        checkpoint : str or None
            A file, folder or hub id, as the recipe names it; None for the encoder's default.
        download : bool, default=True
            Whether missing files may be downloaded.

        Returns
        -------
        path : Path or None
            None for an encoder without weights.

        Raises
        ------
        EncoderError
            If there is no such checkpoint.
        """
        if cls.info.weights is not None:
            path = find_weights(cls.info.name, cls.info.weights, checkpoint, download=download)
            if cls.info.tokenizer is not None:
                find_tokenizer(cls.info.name, cls.info.tokenizer, path, download=download)
            return path
        if checkpoint is None:
            return None
        path = Path(checkpoint).expanduser()
        if not path.exists():
            raise EncoderError(
                f"encoder {cls.info.name!r}: no checkpoint at {checkpoint!r}. "
                "Give the path of an existing file or folder."
            )
        check_is_file_or_folder(f"encoder {cls.info.name!r}", path)
        return path

    @classmethod
    def fingerprint(
        cls, checkpoint: str | None = None, outputs: Collection[str] = ()
    ) -> Fingerprint:
        """Return what decides the vectors; this reads the checkpoint's bytes but loads no model.

        Of the outputs on demand, only those in `outputs` take part.
        """
        path, info = cls.find_checkpoint(checkpoint), cls.info.with_outputs(outputs)
        facts: dict[str, object] = {}
        if path is not None and cls.info.tokenizer is not None:
            files = find_tokenizer(cls.info.name, cls.info.tokenizer, path)
            facts["tokenizer"] = hash_files(files[0].parent, files)
        if info.sequences:
            facts["sequences"] = dict(info.sequences)
        return Fingerprint(
            cls.info.name,
            {
                **facts,
                "audio": AUDIO_VERSION if cls.info.audio_outputs else None,
                "outputs": {modality: dict(info.outputs(modality)) for modality in MODALITIES},
                "checkpoint": None if path is None else hash_path(path, cls.info.weights),
                "preprocessing": info.preprocessing,
                "libraries": {name: _version(name) for name in cls.info.libraries},
            },
        )

    @classmethod
    @abstractmethod
    def load(cls, checkpoint: str | None = None, device: str = "cpu") -> Self:
        """Load the weights and return an encoder that is ready to use.

        An encoder with several ``info.precisions`` also takes the keyword ``precision``, and one
        with ``info.code`` the keyword ``code``, the folder that the user named.
        """

    def with_view(self, view: int) -> Self:
        """Return an encoder of another view with the same model."""
        if view == self.view:
            return self
        other = copy(self)
        other.view = view
        return other

    def with_outputs(self, wanted: Collection[str]) -> Self:
        """Return an encoder with the same model that computes these of the outputs on demand."""
        outputs = tuple(name for name in self.info.on_demand if name in wanted)
        if outputs == self.outputs:
            return self
        other = copy(self)
        other.outputs = outputs
        return other

    def encode_audio(self, clips: Sequence[FloatArray]) -> Mapping[str, Output]:
        """Encode mono clips.

        Parameters
        ----------
        clips : sequence of ndarray of shape (n_samples,)
            float32 at ``info.sample_rate_hz``; lengths may differ.

        Returns
        -------
        outputs : dict of str to ndarray of shape (n_clips, n_dims)
            One float32 array for each name in ``info.audio_outputs``; for a name in
            ``info.sequences``, a list with one array of shape (n_frames, n_dims) for each clip.
            A name in ``info.on_demand`` is left out unless it is in `self.outputs`.
        """
        raise EncoderError(
            f"encoder {self.info.name!r} does not encode audio: it has no method encode_audio."
        )

    def encode_text(self, captions: Sequence[str]) -> Mapping[str, Output]:
        """Encode captions.

        Parameters
        ----------
        captions : sequence of str

        Returns
        -------
        outputs : dict of str to ndarray of shape (n_captions, n_dims)
            One float32 array for each name in ``info.text_outputs``, or a list as for clips.
        """
        raise EncoderError(
            f"encoder {self.info.name!r} does not encode text: it has no method encode_text."
        )


def hash_path(path: Path, weights: Weights | None = None) -> str:
    """Hash a file, or the files of a folder with their names, to 32 hexadecimal digits.

    In a folder with weights, only the files that the encoder uses are hashed.
    """
    if weights is not None:
        return hash_files(path, weights.files_in(path))
    return hash_files(
        path, [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    )


def _without(names: Set[str], mapping: Mapping[str, T]) -> dict[str, T]:
    return {name: value for name, value in mapping.items() if name not in names}


def _is_met(requirement: Requirement) -> bool:
    found = _version(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
