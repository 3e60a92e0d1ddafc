"""Dasheng: clips of any length, by a transformer that was trained to fill in masked spectrograms.

Source: Dinkel et al., Scaling up masked audio encoder learning for general audio classification,
Interspeech 2024, arXiv:2406.06992.  Extra: ``timm``.

A checkpoint is a folder of the hub, or one of the authors' own ``.pt`` files.  The authors' package
needs torchaudio, so the network is built here, of timm's blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors, state_dict_in
from xacle_stack.encoders.text_towers import count_layers, tensor_shape
from xacle_stack.encoders.torch_encoder import (
    PRECISIONS,
    Tensor,
    TorchEncoder,
    by_length,
    in_order,
)
from xacle_stack.encoders.transformers_folder import check_model_type, read_json

SAMPLE_RATE_HZ = 16_000
N_FFT, HOP, N_MELS = 512, 160, 64
N_DIMS = 768
HEAD_DIMS = 64
# Frames of a patch, and the most patches that the network takes at once: 10.08 s.
PATCH, N_PATCHES = 4, 252
# Less than so much below its loudest part nothing of a clip is heard.
RANGE_DB = 120.0

SHORTEST = (PATCH - 1) * HOP  # samples of one patch
_WEIGHTS = Weights(
    files=(("model.safetensors", "pytorch_model.bin"), ("config.json",)),
    hub_id="mispeech/dasheng-base",
    source="mispeech/dasheng-base from the Hugging Face hub",
)
# The spectrogram's tables, and a classifier that was not trained.
NOT_USED = ("front_end.*", "outputlayer.*")


class Dasheng(TorchEncoder):
    """The mean over time of the last layer's normalised output.

    Notes
    -----
    The network takes parts of 10.08 s; a longer clip is a row of such parts and a shorter one at
    the end, and the mean is over the output of all.  The authors' code limits the range of a whole
    batch of spectrograms to 120 dB; here it is each clip's own, as in a batch of one.
    """

    info = EncoderInfo(
        name="dasheng-base",
        summary="Dasheng-base: mean over time of its last layer, for clips of any length",
        audio_outputs={"pooled": N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        preprocessing="64 mel bands htk, 120 dB; parts of 1,008 frames; mean",
        libraries=("timm",),
        weights=_WEIGHTS,
        extra="timm",
        requires=("torch", "transformers", "timm"),
        precisions=PRECISIONS,
        item_mb=60,
        licence="Apache-2.0",
        tested_with="real code",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what = cls._what()
        audio_utils = cls._require("transformers.audio_utils")
        blocks = cls._require("timm.models.vision_transformer")
        if path.is_dir():
            check_model_type(what, path, read_json(what, path, "config.json"), "dasheng")
        file = _WEIGHTS.file(path)
        state = state_dict_in(what, read_tensors(what, file), "model", file)
        state = {str(key).removeprefix("encoder."): value for key, value in state.items()}
        model = build_network(blocks.Block, audio_utils, state)
        load_exactly(what, model, state, file, may_ignore=NOT_USED)
        return model, None

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        padded = [np.pad(clip, (0, max(0, SHORTEST - len(clip)))) for clip in clips]
        groups = [
            (indices, self._embed_batch(self._on_device(samples)))
            for indices, samples in by_length(padded, lambda _: len(clips))
        ]
        return {"pooled": in_order(groups)}

    def _embed_batch(self, samples: Tensor) -> Tensor:
        """Embed clips of one length, shape (n_clips, 768)."""
        import torch

        with self._full_precision():
            spectrogram = self.model.init_bn["1"](decibels(self.model, samples))
        patches = self.model.patch_embed["proj"](spectrogram.transpose(1, 2))
        parts = patches.split(N_PATCHES, dim=3)
        tokens = [transform(self.model, part).float() for part in parts]
        return torch.cat(tokens, dim=1).mean(dim=1)


def decibels(model: Any, samples: Tensor) -> Tensor:
    """Return the spectrograms of clips of one length, shape (n_clips, 64, 1, n_frames)."""
    import torch

    half = N_FFT // 2
    padded = torch.nn.functional.pad(samples.unsqueeze(1), (half, half), mode="reflect")
    frames = padded.squeeze(1).unfold(1, N_FFT, HOP)
    window = torch.hann_window(N_FFT, device=samples.device)
    levels = []
    for part in frames.split(PATCH * N_PATCHES, dim=1):  # to bound the memory
        power = torch.view_as_real(torch.fft.rfft(part * window)).square().sum(dim=-1)
        levels.append(10 * (power @ model.mel_filters).clamp(min=1e-10).log10())
    spectrogram = torch.cat(levels, dim=1).transpose(1, 2)
    quietest = spectrogram.amax(dim=(1, 2), keepdim=True) - RANGE_DB
    return spectrogram.maximum(quietest).unsqueeze(2)


def transform(model: Any, patches: Tensor) -> Tensor:
    """Return the output for at most 252 patches of each clip, shape (n_clips, n_patches, 768)."""
    placed = patches + model.time_pos_embed[..., : patches.shape[3]] + model.freq_pos_embed
    return model.norm(model.blocks(placed.flatten(2).transpose(1, 2)))


def build_network(block: Any, audio_utils: Any, state: Mapping[str, Any]) -> Any:
    """Return the network in the size of a checkpoint's tensors, without its weights.

    `block` is timm's class of a transformer's block, `audio_utils` the module of transformers.
    """
    import torch
    from torch import nn

    norm = partial(nn.LayerNorm, eps=1e-6)
    (hidden,) = tensor_shape(state, "blocks.0.mlp.fc1.bias", (4 * N_DIMS,))
    n_layers = count_layers(state, r"blocks\.(\d+)\.", 12)
    model = nn.Module()
    model.init_bn = nn.ModuleDict({"1": nn.BatchNorm2d(N_MELS)})
    model.patch_embed = nn.ModuleDict(
        {"proj": nn.Conv2d(1, N_DIMS, (N_MELS, PATCH), stride=(N_MELS, PATCH))}
    )
    model.time_pos_embed = nn.Parameter(torch.zeros(1, N_DIMS, 1, N_PATCHES))
    model.freq_pos_embed = nn.Parameter(torch.zeros(1, N_DIMS, 1, 1))
    model.blocks = nn.Sequential(
        *(
            block(N_DIMS, N_DIMS // HEAD_DIMS, hidden / N_DIMS, qkv_bias=True, norm_layer=norm)
            for _ in range(n_layers)
        )
    )
    model.norm = norm(N_DIMS)
    filters = audio_utils.mel_filter_bank(
        1 + N_FFT // 2, N_MELS, 0.0, SAMPLE_RATE_HZ / 2, SAMPLE_RATE_HZ, mel_scale="htk"
    )
    filters = torch.from_numpy(filters.astype(np.float32))
    model.register_buffer("mel_filters", filters, persistent=False)
    return model
