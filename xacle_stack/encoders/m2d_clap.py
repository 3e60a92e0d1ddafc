"""M2D-CLAP 2025: clips and captions in one 768-dimensional space.

Source: Niizumi et al., M2D-CLAP: Exploring general-purpose audio-language representations beyond
CLAP, IEEE Access 2025.  Extra: ``timm``, and nnAudio and einops for the model's own code.

The audio tower's code has an evaluation licence, so it is run only from a clone that the user
names.  The text tower is a BERT with its weights in the checkpoint; it is built here, because the
clone would first download another one from the hub.  With random weights, the vectors equalled
those of the clone's own code; the tests run a stand-in for it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
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
from xacle_stack.encoders.masks import MASKS, hidden_parts
from xacle_stack.encoders.text_towers import BERT
from xacle_stack.encoders.torch_encoder import (
    PRECISIONS,
    Tensor,
    TorchEncoder,
    by_length,
    in_float32,
    in_order,
)
from xacle_stack.encoders.users_code import build_with_script, find_script
from xacle_stack.errors import EncoderError

N_DIMS = 768
SAMPLE_RATE_HZ = 16_000
FOLDER = "m2d_clap_vit_base-80x1001p16x16p16kpBpTI-2025"
FILE = "checkpoint-30.pth"
MAX_TOKENS = 512

_WINDOW_S = 10.0
# A frame of the spectrogram.  It pads clips by reflection, so they need more than half of one.
_FRAME = 400
_CLONE = "a clone of github.com/nttcslab/m2d"
_SCRIPTS = ("examples/portable_m2d.py", "portable_m2d.py")
_TEXT, _AUDIO = "text_encoder.text_encoder.", "backbone."
_WEIGHTS = Weights(
    files=((FILE,),),
    source=f"{FOLDER}.zip from release v0.5.0 of github.com/nttcslab/m2d, and unpack it",
)


class M2dClap(TorchEncoder):
    """The outputs of ``encode_clap_audio`` and ``encode_clap_text``, not normalised.

    Notes
    -----
    The model takes any length up to its window of 10 s, so shorter clips are not padded, and clips
    of equal length form a batch.  Embeddings of the fixed windows of a longer clip are averaged.

    An augmented view hides parts of the clone's mel spectrogram.  They are filled with its mean on
    the model's logarithmic scale, where the published system uses the mean of the training data.
    Each window of a longer clip has its own masks.
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
        tested_with="real code",
        views=MASKS,
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
        # The training may have saved its command line, which holds attributes but no code.
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
            clip_pieces = (
                fixed_windows(clip, n_samples)
                if len(clip) > n_samples
                else np.pad(clip, (0, max(0, _FRAME - len(clip))))[np.newaxis]
            )
            pieces += list(clip_pieces)
            counts.append(len(clip_pieces))
        groups = []
        audio = self.model["audio"]
        with _masked(audio.to_spec, self.view):
            for indices, stacked in by_length(pieces, lambda _: len(clips)):
                groups.append((indices, audio.encode_clap_audio(self._on_device(stacked)).float()))
        embedded = in_order(groups).split(counts)
        return {EMBEDDING: torch.stack([vectors.mean(dim=0) for vectors in embedded])}

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        frames = self.model["text"](**self._tokens(captions, MAX_TOKENS))[0]
        return {EMBEDDING: frames[:, 0]}


@contextmanager
def _masked(spectrogram: Any, view: int) -> Iterator[None]:
    """Make the clone's power spectrogram hide parts of its result."""
    import torch

    def hide(module: Any, inputs: tuple[Tensor, ...], power: Tensor) -> Tensor:
        n_bands, n_frames = power.shape[1:]
        clips = inputs[0].float().cpu().numpy()
        hidden = np.stack([hidden_parts(clip, view, n_bands, n_frames) for clip in clips])
        epsilon = torch.finfo(torch.float32).eps  # which the model adds within its logarithm
        level = (power + epsilon).log().mean(dim=(1, 2), keepdim=True)
        return torch.where(torch.from_numpy(hidden).to(power.device), level.exp() - epsilon, power)

    if not view:
        yield
        return
    handle = spectrogram.register_forward_hook(hide)
    try:
        yield
    finally:
        handle.remove()


def _below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _build_audio(what: str, clone: Path, file: Path) -> Any:
    """Build the model with the user's clone."""
    script = find_script(what, clone, _SCRIPTS, _CLONE)
    return build_with_script(
        what,
        script,
        lambda module: module.PortableM2D(weight_file=str(file), flat_features=True),
        file,
        "timm einops nnAudio",
    )
