"""The table of encoders, with one line for each; the shared tests run over it.

A package of its own adds encoders through the entry-point group ``xacle_stack.encoders``; a
single file is named by its path in the recipe (``"my_encoder.py:MyEncoder"``), and any sentence
encoder by its hub id or folder (``"text:sentence-transformers/all-mpnet-base-v2"``).
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from xacle_stack.encoders.base import (
    Encoder,
    EncoderInfo,
    Fingerprint,
    Precision,
    hash_path,
    view_name,
)
from xacle_stack.encoders.checkpoint import hash_files
from xacle_stack.encoders.sentence_folder import TEXT_PREFIX, AnySentenceEncoder, sentence_encoder
from xacle_stack.errors import EncoderError, UnknownNameError, XacleStackError, one_or_all

ENTRY_POINT_GROUP = "xacle_stack.encoders"

# A name stands for "module:class"; the module is imported when its encoder is first used.
BUILT_IN: Mapping[str, str] = {
    "aisfx": "xacle_stack.encoders.aisfx:Aisfx",
    "all-minilm-l6-v2": "xacle_stack.encoders.minilm:MiniLM",
    "audiomae": "xacle_stack.encoders.audiomae:AudioMae",
    "beats": "xacle_stack.encoders.beats:Beats",
    "byol-a": "xacle_stack.encoders.byol_a:ByolA",
    "dasheng-base": "xacle_stack.encoders.dasheng:Dasheng",
    "eat": "xacle_stack.encoders.eat:Eat",
    "glap": "xacle_stack.encoders.glap:Glap",
    "laion-clap-fused": "xacle_stack.encoders.laion_clap:LaionClapFused",
    "laion-clap-larger-general": "xacle_stack.encoders.laion_clap:LaionClapLargerGeneral",
    "laion-clap-larger-music": "xacle_stack.encoders.laion_clap:LaionClapLargerMusic",
    "laion-clap-larger-music-speech": (
        "xacle_stack.encoders.laion_clap:LaionClapLargerMusicSpeech"
    ),
    "laion-clap-unfused": "xacle_stack.encoders.laion_clap:LaionClapUnfused",
    "m2d-clap": "xacle_stack.encoders.m2d_clap:M2dClap",
    "mga-clap": "xacle_stack.encoders.mga_clap:MgaClap",
    "mini-mel": "xacle_stack.encoders.mini:MiniMel",
    "mini-mfcc": "xacle_stack.encoders.mini:MiniMfcc",
    "mini-mod": "xacle_stack.encoders.mini:MiniMod",
    "ms-clap-2022": "xacle_stack.encoders.ms_clap:MsClap2022",
    "ms-clap-2023": "xacle_stack.encoders.ms_clap:MsClap2023",
    "openbeats-large": "xacle_stack.encoders.openbeats:OpenBeatsLarge",
    "openbeats-large-as20k": "xacle_stack.encoders.openbeats:OpenBeatsLargeAs20k",
    "pe-audio": "xacle_stack.encoders.pe_audio:PeAudio",
    "roberta-large": "xacle_stack.encoders.roberta:RobertaLarge",
    "wav2vec2-ctc": "xacle_stack.encoders.wav2vec2_ctc:Wav2Vec2Ctc",
    "wavlm-large": "xacle_stack.encoders.wavlm:WavLM",
    "whisper-base": "xacle_stack.encoders.whisper:Whisper",
}


def encoder_names() -> list[str]:
    """Return the names of all encoders, built in and installed.

    Examples
    --------
    >>> "mini-mel" in encoder_names()
    True
    """
    installed = (point.name for point in entry_points(group=ENTRY_POINT_GROUP))
    return sorted({*BUILT_IN, *installed})


def get_encoder(name: str) -> type[Encoder]:
    """Return an encoder's class without loading any weights.

    Parameters
    ----------
    name : str
        A name in the table, ``"path/to/file.py:ClassName"`` for an encoder of your own, or
        ``"text:HUB_ID_OR_FOLDER"`` for any sentence encoder, whose ``config.json`` is read.

    Raises
    ------
    UnknownNameError
        If the name is unknown; the message lists the known ones.
    EncoderError
        If the file, the class or its ``info``, or the folder is not as expected.
    MissingExtraError
        If the encoder's module needs a package that is not installed.

    Examples
    --------
    >>> get_encoder("mini-mel").info.sample_rate_hz
    16000
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
    elif name.startswith(TEXT_PREFIX):
        found = sentence_encoder(name.removeprefix(TEXT_PREFIX))
    elif ".py:" in name:
        found = _from_file(name)
    else:
        points = entry_points(group=ENTRY_POINT_GROUP, name=name)
        if not points:
            raise UnknownNameError(
                f"unknown encoder {name!r}. Known: {', '.join(encoder_names())}; "
                f"'{TEXT_PREFIX}HUB_ID_OR_FOLDER' for a sentence encoder; or "
                "'path/to/file.py:ClassName' for one of your own."
            )
        found = next(iter(points)).load()
    if not (isinstance(found, type) and issubclass(found, Encoder) and hasattr(found, "info")):
        raise EncoderError(
            f"{name!r} is {found!r}; expected a subclass of xacle_stack.encoders.Encoder with a "
            "class attribute `info`."
        )
    return found


def _from_file(name: str) -> object:
    path, attribute = _split_file_name(name)
    if not path.is_file():
        raise EncoderError(f"encoder {name!r}: no such file {str(path.absolute())!r}.")
    module = _import_file(path.resolve(), path.stat().st_mtime_ns)
    if not hasattr(module, attribute):
        raise EncoderError(f"encoder {name!r}: {path} defines no {attribute!r}.")
    return getattr(module, attribute)


def _split_file_name(name: str) -> tuple[Path, str]:
    file, _, attribute = name.rpartition(":")
    return Path(file).expanduser(), attribute


@lru_cache
def _import_file(path: Path, mtime_ns: int) -> ModuleType:
    """Import a user's file once, and again when it has changed."""
    module_name = f"_xacle_stack_user_encoder_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise EncoderError(f"{path}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and worker processes look up a class's module by name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except XacleStackError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise EncoderError(
            f"{path}: cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder with its settings, as a recipe names them.

    Attributes
    ----------
    name : str
        See :func:`get_encoder`.
    checkpoint : str, optional
        A file, folder or hub id; None for the encoder's default.
    precision : str, default="float32"
        ``"float32"``, ``"bfloat16"`` or ``"float16"``.  An encoder that computes in float32 only
        ignores it.
    code : str, optional
        The folder of the model's own code, if the encoder needs it.  Naming it is the consent to
        run it.
    view : int, default=0
        Number of the augmented view of the clips; 0 is the clip itself.  The cache treats each view
        as an encoder without text outputs, named by :func:`~xacle_stack.encoders.view_name`.
    outputs : tuple of str, default=()
        Outputs that are asked for by name.  Those of ``info.on_demand`` are computed and stored
        only if they are among them; all others always are.
    """

    name: str
    checkpoint: str | None = None
    precision: Precision = "float32"
    code: str | None = None
    view: int = 0
    outputs: tuple[str, ...] = ()

    @property
    def encoder(self) -> type[Encoder]:
        """The encoder's class."""
        return get_encoder(self.name)

    @property
    def family(self) -> type[Encoder]:
        """The encoder's class, or what is known of every sentence encoder.

        Nothing is downloaded and no folder is read, as `encoder` may do for a sentence encoder.
        """
        return AnySentenceEncoder if self.name.startswith(TEXT_PREFIX) else self.encoder

    @property
    def info(self) -> EncoderInfo:
        """The encoder's description, with the outputs that are stored.

        A view has its own name and no text outputs.

        Raises
        ------
        EncoderError
            If the encoder does not make this view, or has no such output.
        """
        info = self.encoder.info.with_outputs(self.outputs)
        if not self.view:
            return info
        if info.views is None or self.view < 0:
            raise EncoderError(
                f"encoder {info.name!r}: there is no view {self.view!r}; "
                + ("it makes none." if info.views is None else "expected 0, 1, 2, …")
            )
        of_clips = {
            name: kind for name, kind in info.sequences.items() if name in info.audio_outputs
        }
        return replace(
            info, name=view_name(info.name, self.view), text_outputs={}, sequences=of_clips
        )

    @property
    def checkpoint_name(self) -> str:
        """What users know the weights by: the hub id, the file or the folder."""
        weights = self.info.weights
        default = "built in" if weights is None else weights.hub_id or weights.source
        return self.checkpoint or default

    @property
    def unaugmented(self) -> "EncoderChoice":
        """The same encoder without augmentation; all views share its model."""
        return replace(self, view=0)

    @property
    def absolute(self) -> "EncoderChoice":
        """The same encoder for a process in another folder: its paths are absolute."""
        name = self.name
        if name.startswith(TEXT_PREFIX):
            name = f"{TEXT_PREFIX}{_absolute(name.removeprefix(TEXT_PREFIX))}"
        elif ".py:" in name:
            path, attribute = _split_file_name(name)
            name = f"{path.absolute()}:{attribute}"
        return replace(
            self, name=name, checkpoint=_absolute(self.checkpoint), code=_absolute(self.code)
        )

    def fingerprint(self) -> Fingerprint:
        """Return what decides the vectors, without loading a model.

        It includes the precision if there is a choice, and the content of the user's code: an
        encoder of your own, or the clone that an encoder needs.
        """
        encoder = self.encoder
        fingerprint = encoder.fingerprint(self.checkpoint, self.outputs)
        facts: dict[str, object] = {}
        if len(encoder.info.precisions) > 1:
            facts["precision"] = self._precision
        if self.view:
            facts["view"] = {"number": self.view, "made by": encoder.info.views}
        if encoder.info.code is not None:
            folder = self._code_folder
            facts["code"] = hash_files(folder, sorted(folder.rglob("*.py")))
        if ".py:" in self.name:
            facts["source"] = hash_path(_split_file_name(self.name)[0])
        return Fingerprint(self.info.name, {**fingerprint.facts, **facts})

    def load(self, device: str = "cpu") -> Encoder:
        """Load the model onto a device."""
        encoder = self.encoder
        settings: dict[str, Any] = {}
        if len(encoder.info.precisions) > 1:
            settings["precision"] = self._precision
        if encoder.info.code is not None:
            settings["code"] = self._code_folder
        loaded = encoder.load(self.checkpoint, device, **settings)
        return loaded.with_outputs(self.outputs).with_view(self.view)

    @property
    def _precision(self) -> Precision:
        return self.precision if self.precision in self.encoder.info.precisions else "float32"

    @property
    def _code_folder(self) -> Path:
        info = self.encoder.info
        if self.code is None:
            raise EncoderError(
                f"encoder {info.name!r}: its model is code that this library neither contains nor "
                f"installs. Get {info.code}, inspect it, and allow it to be run by naming its "
                f"folder: --code {info.name}=FOLDER, or in the recipe under [code]."
            )
        folder = Path(self.code).expanduser()
        if not folder.is_dir():
            raise EncoderError(
                f"encoder {info.name!r}: no folder at {self.code!r}. Its code is {info.code}."
            )
        return folder


def _absolute(place: str | None) -> str | None:
    """Return a file or folder by its absolute path; whatever else it is, as it is."""
    if place is None or not Path(place).expanduser().exists():
        return place
    return str(Path(place).expanduser().absolute())


def read_fingerprints(choices: Iterable[EncoderChoice]) -> dict[EncoderChoice, Fingerprint]:
    """Return the fingerprint of each encoder.

    Raises
    ------
    EncoderError
        With every encoder whose checkpoint or code is missing.
    """
    fingerprints, mistakes = {}, []
    for choice in choices:
        try:
            fingerprints[choice] = choice.fingerprint()
        except EncoderError as error:
            mistakes.append(str(error))
    if mistakes:
        distinct = [*dict.fromkeys(mistakes)]  # views of an encoder lack what it lacks
        raise EncoderError(one_or_all("encoders lack something", distinct))
    return fingerprints
