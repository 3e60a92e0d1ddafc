"""WavLM-Large: statistics over time of its last hidden sequence.

Source: Chen et al., IEEE JSTSP 2022, arXiv:2110.13900.  Extra: ``encoders``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.frames import (
    count_convolved,
    pad,
    pool_frames,
    receptive_field,
    standardise,
)
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, TorchEncoder
from xacle_stack.encoders.transformers_folder import check_settings, read_config, read_json

_RATE_HZ = 16_000
_WEIGHTS = Weights(
    files=(
        ("model.safetensors", "pytorch_model.bin"),
        ("config.json",),
        ("preprocessor_config.json",),
    ),
    hub_id="microsoft/wavlm-large",
    source="microsoft/wavlm-large from the Hugging Face hub",
)


class WavLM(TorchEncoder):
    """Mean, standard deviation and maximum over time of the last layer's normalised output.

    Clips of a batch are padded and masked.  This is exact for this model, because its convolutions
    normalise each frame separately.
    """

    info = EncoderInfo(
        name="wavlm-large",
        summary="WavLM-Large: mean, deviation and maximum over time of its last hidden sequence",
        audio_outputs={"pooled": 3 * 1024},
        sample_rate_hz=_RATE_HZ,
        preprocessing="zero mean and unit variance, pieces of at most 30 s; mean, std, max",
        weights=_WEIGHTS,
        extra="encoders",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=500,
        licence="MIT",
        tested_with="real code",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        transformers = cls._require("transformers")
        config = read_config(cls._what(), path, transformers.WavLMConfig)
        # Padding is exact only with this norm.
        check_settings(cls._what(), path, config, hidden_size=1024, feat_extract_norm="layer")
        preprocessor = read_json(cls._what(), path, "preprocessor_config.json")
        model = transformers.WavLMModel(config).float()
        file = _WEIGHTS.file(path)
        state = read_tensors(cls._what(), file)
        # The positional convolution's weight_g and weight_v get their new names from PyTorch; the
        # embedding of masked frames is for training.
        load_exactly(cls._what(), model, state, file, may_miss=["masked_spec_embed"])
        model.standardises = bool(preprocessor.get("do_normalize", True))
        return model, None

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        if self.model.standardises:
            clips = [standardise(clip) for clip in clips]
        return {"pooled": pool_frames(clips, _RATE_HZ, self._frames)}

    def _frames(self, pieces: Sequence[FloatArray]) -> tuple[Tensor, Tensor]:
        kernels, strides = self.model.config.conv_kernel, self.model.config.conv_stride
        shortest = receptive_field(kernels, strides)
        stacked, lengths = pad(pieces, shortest)
        lengths = np.maximum(lengths, shortest)
        mask = np.arange(stacked.shape[1]) < lengths[:, None]
        with warnings.catch_warnings():
            # transformers gives PyTorch two masks of different types.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            hidden = self.model(
                self._on_device(stacked), attention_mask=self._on_device(mask)
            ).last_hidden_state
        return hidden, self._on_device(count_convolved(lengths, kernels, strides))
