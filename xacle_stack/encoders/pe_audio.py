"""PE-Audio: Meta's Perception Encoder, clips and captions in one 1024-dimensional space.

Source: Vyas et al. 2025, arXiv:2512.19687.  Extra: ``pe``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo, Precision
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.frames import LONGEST_S, cut, max_pieces
from xacle_stack.encoders.torch_encoder import (
    PRECISIONS,
    Tensor,
    TorchEncoder,
    by_length,
    in_order,
)
from xacle_stack.encoders.transformers_folder import check_model_type, read_json
from xacle_stack.errors import EncoderError, MissingExtraError

N_DIMS = 1024
MAX_TOKENS = 512  # as in training

_RATE_HZ = 48_000
_WEIGHTS = Weights(
    files=(
        ("model.safetensors", "model-*.safetensors"),
        ("config.json",),
        ("tokenizer.json",),
        ("tokenizer_config.json",),
    ),
    optional=("special_tokens_map.json",),
    hub_id="facebook/pe-av-large",
    source="facebook/pe-av-large, -base or -small from the Hugging Face hub",
)
# The parts of the audio-visual model that are not its audio model.
_OF_VIDEO = ("video_model.*", "audio_video_*", "text_audio_video_*", "*_plus_text_*")
_SHARED_ENCODER = "audio_video_encoder.embedder.audio_encoder."


class PeAudio(TorchEncoder):
    """The audio and audio caption embeddings of the model's heads, not normalised.

    The encoder reads audio-visual checkpoints (``pe-av-…``) and uses only their audio model.

    Notes
    -----
    A clip is reflected at its end to whole frames of 40 ms, and clips of equal numbers of frames
    form a batch.  Padding would change the result, because the convolutions before the mask take it
    in.  The embeddings of the pieces of a clip longer than 30 s are averaged.

    The head for captions was trained on the text model's last layer before the final norm, and this
    encoder uses it so.  Newer releases of transformers give the head the normalised output.
    """

    info = EncoderInfo(
        name="pe-audio",
        summary="Perception Encoder Audio (PE-AV large): one space for clips and captions",
        audio_outputs={EMBEDDING: N_DIMS},
        text_outputs={EMBEDDING: N_DIMS},
        sample_rate_hz=_RATE_HZ,
        preprocessing=(
            "reflected to 40 ms frames, mean over pieces of at most 30 s; 512 tokens, last text "
            "layer before its norm"
        ),
        weights=_WEIGHTS,
        extra="pe",
        requires=("torch", "transformers>=5"),
        precisions=PRECISIONS,
        item_mb=1000,
        licence="Apache-2.0",
        tested_with="real code",
    )

    @classmethod
    def load(
        cls,
        checkpoint: str | None = None,
        device: str = "cpu",
        *,
        precision: Precision = "float32",
        code: Path | None = None,
    ) -> Self:
        """Load the weights onto a device; see :meth:`TorchEncoder.load`."""
        transformers = cls._require("transformers")
        if int(transformers.__version__.partition(".")[0]) < 5:  # before the download
            raise MissingExtraError(
                f"{cls._what()} needs transformers 5 or later; {transformers.__version__} is "
                "installed, perhaps for msclap, which needs an older one. Use another environment "
                "for this encoder: pip install 'xacle-stack[pe]'"
            )
        return super().load(checkpoint, device, precision=precision, code=code)

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        import torch

        transformers = cls._require("transformers")
        model = transformers.PeAudioModel(_read_config(cls._what(), path, transformers)).float()
        state: dict[str, Any] = {}
        for file in _WEIGHTS.files_in(path):
            if file.suffix == ".safetensors":
                state |= read_tensors(cls._what(), file)
        load_exactly(
            cls._what(),
            model,
            _audio_tensors(state),
            path,
            # It is not used; see the notes of the class.
            may_miss=["text_model.final_norm.weight"],
            may_ignore=_OF_VIDEO,
        )
        model.text_model.final_norm = torch.nn.Identity()
        # Padding goes to the right, because the embedding is that of the first token.
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(
            str(path), padding_side="right"
        )
        return model, tokenizer

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        import torch

        ratios = self.model.config.audio_config.dac_config.downsampling_ratios
        pieces, counts = cut(clips, LONGEST_S * _RATE_HZ)
        pieces = [_reflect(piece, math.prod(ratios)) for piece in pieces]
        groups = []
        for indices, stacked in by_length(pieces, lambda n: max_pieces(len(clips), n, _RATE_HZ)):
            groups.append((indices, self.model.get_audio_embeds(self._on_device(stacked)[:, None])))
        by_clip = in_order(groups).float().split(counts)
        return {EMBEDDING: torch.stack([vectors.mean(dim=0) for vectors in by_clip])}

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        tokens = self.tokenizer(
            list(captions),
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        hidden = self.model.text_model(
            input_ids=self._on_device(tokens["input_ids"]),
            attention_mask=self._on_device(tokens["attention_mask"]),
        ).last_hidden_state
        return {EMBEDDING: self.model.text_audio_head(hidden[:, 0])}


def _read_config(what: str, folder: Path, transformers: Any) -> Any:
    """Return the audio configuration, which may be part of an audio-visual one."""
    settings = read_json(what, folder, "config.json")
    found = check_model_type(what, folder, settings, "pe_audio_video", "pe_audio")
    try:
        audio = settings["audio_video_config"] if found == "pe_audio_video" else settings
        config = transformers.PeAudioConfig(
            text_config=settings["text_config"], audio_config=audio["audio_config"]
        )
    except Exception as error:  # transformers checks values, differently in each version
        raise EncoderError(
            f"{what}: {folder / 'config.json'} is no configuration of this model "
            f"({type(error).__name__}: {error})."
        ) from None
    if config.text_config.hidden_size != N_DIMS:
        raise EncoderError(
            f"{what}: {folder} embeds in {config.text_config.hidden_size} dimensions; expected "
            f"{N_DIMS}."
        )
    return config


def _audio_tensors(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename an audio-visual checkpoint's tensors to those of its audio model.

    Such a checkpoint holds its audio encoder and its text model once, under one of several names.
    """
    renamed = {
        f"audio_encoder.{key.removeprefix(_SHARED_ENCODER)}": value
        for key, value in state.items()
        if key.startswith(_SHARED_ENCODER)
    }
    return renamed | {key.removeprefix("audio_model."): value for key, value in state.items()}


def _reflect(samples: FloatArray, hop: int) -> FloatArray:
    """Pad a clip to whole frames by reflection of its end."""
    return np.pad(samples, (0, -len(samples) % hop), mode="reflect")
