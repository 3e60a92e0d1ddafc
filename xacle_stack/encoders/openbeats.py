"""OpenBEATs: the large BEATs, trained on sounds, music, speech and animals with open code.

Source: Bharadwaj et al., OpenBEATs: A fully open-source general-purpose audio encoder, WASPAA 2025,
arXiv:2507.14129.  The network is SpeechBrain's BEATs.  Extra: ``beats``.

A checkpoint is an encoder as its authors export it (``{"cfg", "model"}``), or ESPnet's file of a
fine-tuned model, which holds tensors only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from xacle_stack._files import read_small_file
from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EncoderInfo
from xacle_stack.encoders.beats import (
    MAX_BANDS,
    MAX_FRAMES,
    N_TOKENS,
    TOKENS,
    Beats,
    assemble,
    without_side_effects,
)
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.kaldi import SAMPLE_RATE_HZ
from xacle_stack.encoders.masks import describe_masks
from xacle_stack.encoders.torch_encoder import PRECISIONS
from xacle_stack.encoders.transformers_folder import model_settings
from xacle_stack.errors import EncoderError

N_DIMS, N_CLASSES = 1024, 527
# A shorter clip is repeated until it is longer.
SHORTEST = 3200
# The authors' configuration of pre-training, for files that do not hold theirs.
SETTINGS: Mapping[str, Any] = {
    "encoder_layers": 24,
    "encoder_embed_dim": N_DIMS,
    "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
    "deep_norm": True,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
}

_CONFIG = "config.yaml"
_MAX_CONFIG_BYTES = 2**20
# Tables for padded batches, of which there are none, and the decoder of a fine-tuned model.
_NOT_USED = ("*_pad.weight", "decoder.*")


class OpenBeatsLarge(Beats):
    """The mean of the last layer's tokens, and on demand themselves.

    Notes
    -----
    As in the authors' code, a clip shorter than 0.2 s is repeated; of longer clips the model drops
    up to 15 frames at the end.  Windows, tokens and augmented views are those of :class:`Beats`.

    The file of a fine-tuned model does not say how its encoder was configured.  What it leaves open
    is taken from ``encoder_conf`` of a ``config.yaml`` in the checkpoint's folder, and else from
    the authors' configuration of pre-training.
    """

    info = EncoderInfo(
        name="openbeats-large",
        summary="OpenBEATs-Large: the pooled last layer, for sounds, music, speech and animals",
        audio_outputs={"pooled": N_DIMS, TOKENS: N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        preprocessing=(
            "kaldi fbank 128 mels, povey, scale 2^15, normalised as configured; repeated to 0.2 s; "
            "windows of 30 s; mean over tokens"
        ),
        libraries=("speechbrain",),
        weights=Weights(
            files=(("*epoch_latest.pt", "*epoch*.pt", "*best.pth", "*.pth", "*.pt"),),
            optional=(f"*{_CONFIG}",),
            hub_id="shikhar7ssu/OpenBEATs-Large-i2",
            source="an OpenBEATs-Large checkpoint (shikhar7ssu or espnet on the Hugging Face hub)",
        ),
        extra="beats",
        requires=("torch", "speechbrain"),
        precisions=PRECISIONS,
        item_mb=300,
        licence="MIT",
        tested_with="real code",
        sequences={TOKENS: "float16"},
        on_demand={
            TOKENS: f"last layer, time-major, all windows, adaptive average pooling to {N_TOKENS}"
        },
        views=describe_masks(MAX_BANDS, MAX_FRAMES, "0 on the normalised scale"),
    )
    n_classes: ClassVar[int] = 0

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what, weights = cls._what(), cls.info.weights
        assert weights is not None
        file = weights.file(path)
        content = read_tensors(what, file)
        if "cfg" in content:
            settings, state = content["cfg"], content.get("model")
        else:
            settings, state = {**SETTINGS, **cls._read_config(path)}, content
        if not isinstance(settings, Mapping) or not isinstance(state, Mapping):
            raise EncoderError(
                f"{what}: {file} is not an OpenBEATs checkpoint: 'cfg' and 'model' are no "
                "dictionaries."
            )
        if settings.get("encoder_embed_dim") != N_DIMS:
            raise EncoderError(
                f"{what}: {file} has {settings.get('encoder_embed_dim')} dimensions; expected "
                f"{N_DIMS}. Get {weights.source}."
            )
        with without_side_effects():
            speechbrain = cls._require("speechbrain.lobes.models.beats")
        try:
            model = assemble(speechbrain, model_settings(dict(settings)), cls.n_classes)
            model.fbank_mean = float(settings.get("fbank_mean", model.fbank_mean))
            model.fbank_std = float(settings.get("fbank_std", model.fbank_std))
        except Exception as error:  # a setting of a wrong type or size fails where it is used
            raise EncoderError(
                f"{what}: {file} has settings of which no model can be made "
                f"({type(error).__name__}: {error})."
            ) from None
        classifier = () if cls.n_classes else ("predictor.*",)
        load_exactly(what, model, _rename(state), file, may_ignore=(*_NOT_USED, *classifier))
        return model, None

    @classmethod
    def _read_config(cls, path: Path) -> dict[str, Any]:
        """Return what a ``config.yaml`` in the checkpoint's folder says of the encoder."""
        files = sorted(path.rglob(f"*{_CONFIG}")) if path.is_dir() else []
        if not files:
            return {}
        try:
            config = cls._require("yaml").safe_load(read_small_file(files[0], _MAX_CONFIG_BYTES))
            encoder = config["encoder_conf"]
            fbank = {key: encoder[key] for key in ("fbank_mean", "fbank_std") if key in encoder}
            return {**fbank, **encoder.get("beats_config", {})}
        except Exception as error:  # damage, or another structure
            raise EncoderError(
                f"{cls._what()}: {files[0]} cannot be read as ESPnet's configuration of an encoder "
                f"({type(error).__name__}: {error})."
            ) from None

    @staticmethod
    def _cut(clip: FloatArray) -> FloatArray:
        if len(clip) < SHORTEST:
            clip = np.tile(clip, SHORTEST // len(clip) + 1)
        return Beats._cut(clip)


class OpenBeatsLargeAs20k(OpenBeatsLarge):
    """OpenBEATs-Large fine-tuned on 20,000 clips of AudioSet: logits beside the tokens' mean.

    The columns of ``logits`` are in the order of the ``token_list`` in the repository's
    ``config.yaml``.
    """

    info = replace(
        OpenBeatsLarge.info,
        name="openbeats-large-as20k",
        summary="OpenBEATs-Large fine-tuned on AudioSet-20K: 527 class logits and the pooled layer",
        audio_outputs={"logits": N_CLASSES, **OpenBeatsLarge.info.audio_outputs},
        preprocessing=f"{OpenBeatsLarge.info.preprocessing}; logits before the sigmoid",
        weights=Weights(
            files=(("*best.pth", "*.pth"),),
            optional=(f"*{_CONFIG}",),
            hub_id="espnet/OpenBEATS-Large-i2-as20k",
            source="espnet/OpenBEATS-Large-i2-as20k from the Hugging Face hub",
        ),
    )
    n_classes = N_CLASSES


def _rename(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return an encoder's tensors, and a fine-tuned model's, under the same names."""
    if "patch_embedding.weight" in state:
        return dict(state)
    renamed = {str(key).removeprefix("encoder."): value for key, value in state.items()}
    for part in ("weight", "bias"):
        if f"decoder.linear_out.{part}" in renamed:
            renamed[f"predictor.{part}"] = renamed.pop(f"decoder.linear_out.{part}")
    return renamed
