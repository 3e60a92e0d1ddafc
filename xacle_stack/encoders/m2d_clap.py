"""M2D-CLAP 2025: clips and captions in one 768-dimensional space.

Source: Niizumi et al., M2D-CLAP: Exploring general-purpose audio-language representations beyond
CLAP, IEEE Access 2025.  Extra: ``timm``, and nnAudio and einops for the model's own code.

The audio tower is code under an evaluation licence: it is run only from a clone that the user
names.  The text tower is a BERT whose weights are within the checkpoint; it is built here, since
the clone would first fetch another one from the hub.  This module was written to the public
interface of that code and tested with a stand-in; it has not been run with the code itself.
"""

import argparse
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.audio import fixed_windows
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import (
    Weights,
    find_tokenizer,
    load_exactly,
    read_tensors,
    state_dict_in,
)
from xacle_stack.encoders.text_towers import BERT, tokenise
from xacle_stack.encoders.torch_encoder import (
    PRECISIONS,
    Tensor,
    TorchEncoder,
    by_length,
    in_float32,
    in_order,
    parts_of,
)
from xacle_stack.errors import EncoderError

logger = logging.getLogger(__name__)

N_DIMS = 768
SAMPLE_RATE_HZ = 16_000
FOLDER = "m2d_clap_vit_base-80x1001p16x16p16kpBpTI-2025"
FILE = "checkpoint-30.pth"
MAX_TOKENS = 512

_WINDOW_S = 10.0
# The frame of its spectrogram, which fills up clips by reflection and so needs more than half.
_FRAME = 400
_CLONE = "a clone of github.com/nttcslab/m2d"
_TEXT, _AUDIO = "text_encoder.text_encoder.", "backbone."
_WEIGHTS = Weights(
    files=((FILE,),),
    source=f"{FOLDER}.zip from release v0.5.0 of github.com/nttcslab/m2d, and unpack it",
)


class M2dClap(TorchEncoder):
    """What ``encode_clap_audio`` and ``encode_clap_text`` give: not normalised.

    Notes
    -----
    The model takes any length up to its window of 10 s: shorter clips are given to it as they are,
    batched by equal length.  Of a longer clip, fixed windows are averaged.
    """

    info = EncoderInfo(
        name="m2d-clap",
        summary="M2D-CLAP 2025: one space for clips and captions, not normalised",
        audio_outputs={EMBEDDING: N_DIMS},
        text_outputs={EMBEDDING: N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        window_s=_WINDOW_S,
        preprocessing=(
            "the clone's own spectrogram; shorter clips as they are, mean over 10 s windows; first "
            "of 512 tokens"
        ),
        libraries=("nnAudio", "timm"),
        weights=_WEIGHTS,
        tokenizer=BERT.tokenizer,
        extra="timm",
        requires=("torch", "transformers", "timm"),
        precisions=PRECISIONS,
        code=_CLONE,
        item_mb=120,
        licence="NTT, for evaluation only",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what = cls._what()
        torch = cls._require("torch")
        transformers = cls._require("transformers")
        if code is None:
            raise EncoderError(f"{what}: it needs `code`, the folder of {_CLONE}.")
        file = _WEIGHTS.file(path).absolute()
        if file.parent.name != FOLDER:
            raise EncoderError(
                f"{what}: {file} lies in a folder called {file.parent.name!r}; expected "
                f"{FOLDER!r}, since the model's code reads its sizes from that name. Give it that "
                "name back; another model of M2D will not do."
            )
        # The training may have saved its command line beside the weights: attributes, no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = read_tensors(what, file)
            audio = _build_audio(what, Path(code), file)
        state = state_dict_in(what, content, "model", file)
        text = BERT.build(transformers, _below(_TEXT, state))
        load_exactly(what, audio.backbone, _below(_AUDIO, state), file)
        load_exactly(what, text, _below(_TEXT, state), file, may_ignore=BERT.computed)
        in_float32(audio.to_spec)
        model = torch.nn.ModuleDict({"audio": audio, "text": text})
        files = find_tokenizer(cls.info.name, BERT.tokenizer, path)
        return model, BERT.read_tokenizer(what, transformers, files, text.config.vocab_size)

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        import torch

        n_samples = round(_WINDOW_S * SAMPLE_RATE_HZ)
        pieces: list[FloatArray] = []
        counts = []
        for clip in clips:
            of_clip = (
                fixed_windows(clip, n_samples)
                if len(clip) > n_samples
                else np.pad(clip, (0, max(0, _FRAME - len(clip))))[np.newaxis]
            )
            pieces += list(of_clip)
            counts.append(len(of_clip))
        groups = []
        for indices, stacked in by_length(pieces):
            parts = [
                self.model["audio"].encode_clap_audio(self._on_device(part))
                for part in parts_of(stacked.astype(np.float32, copy=False), len(clips))
            ]
            groups.append((indices, torch.cat(parts).float()))
        embedded = in_order(groups).split(counts)
        return {EMBEDDING: torch.stack([of_clip.mean(dim=0) for of_clip in embedded])}

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        ids, mask = tokenise(self.tokenizer, captions, MAX_TOKENS)
        frames = self.model["text"](
            input_ids=self._on_device(ids), attention_mask=self._on_device(mask)
        )[0]
        return {EMBEDDING: frames[:, 0]}


def _below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _build_audio(what: str, clone: Path, file: Path) -> Any:
    """Let the user's clone build its model."""
    scripts = [clone / "examples" / "portable_m2d.py", clone / "portable_m2d.py"]
    script = next((path for path in scripts if path.is_file()), None)
    if script is None:
        raise EncoderError(f"{what}: there is no {scripts[0]}. Name the folder of {_CLONE}.")
    try:
        with _contained(script.parent):
            model = _import_script(script).PortableM2D(weight_file=str(file), flat_features=True)
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"{what}: {script} needs the package {error.name!r}, which is not installed. Install "
            "what it imports: pip install timm einops nnAudio"
        ) from error
    except Exception as error:  # anybody's code
        raise EncoderError(
            f"{what}: {script} cannot build its model from {file}: {type(error).__name__}: {error}"
        ) from error
    return model


def _import_script(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("_xacle_stack_user_m2d", script)
    if spec is None or spec.loader is None:
        raise EncoderError(f"{script}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _contained(folder: Path) -> Iterator[None]:
    """Run the clone's code so that it leaves the process as it was.

    It prints, changes ``sys.path``, logs in a way that gives the root logger a handler, and reads
    its weights as a pickle that may hold code: PyTorch is told to refuse that.
    """
    settings = {
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": None,  # the two exclude each other
    }
    environment = {name: os.environ.get(name) for name in settings}
    path, handlers = sys.path.copy(), logging.root.handlers.copy()
    sys.path.insert(0, str(folder))
    _set_environment(settings)
    try:
        with redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
            # It imports timm.layers under its former name.
            warnings.filterwarnings("ignore", r"Importing from timm\.", FutureWarning)
            yield
        logger.debug("%s: %s", folder, printed.getvalue())
    finally:
        _set_environment(environment)
        sys.path[:], logging.root.handlers[:] = path, handlers


def _set_environment(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
