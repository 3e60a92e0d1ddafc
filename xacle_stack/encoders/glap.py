"""GLAP: clips and captions in one space, captions in English or any of 200 languages.

Source: Dinkel et al., GLAP: General contrastive audio-text pretraining across domains and
languages, arXiv:2506.11350.  Extra: ``timm``.

Clips go through Dasheng, captions through the encoder of SONAR (Duquenne et al., arXiv:2308.11466),
a transformer whose layers begin with their norms.  Neither the authors' package is needed nor
fairseq2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders import dasheng
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import (
    Weights,
    load_exactly,
    numpy_numbers,
    read_tensors,
    state_dict_in,
)
from xacle_stack.encoders.sentencepiece_file import MarkedPieces, read_sentencepiece
from xacle_stack.encoders.text_towers import HEAD_DIMS, count_layers, tensor_shape
from xacle_stack.encoders.torch_encoder import (
    PRECISIONS,
    Tensor,
    TorchEncoder,
    by_length,
    in_order,
)
from xacle_stack.errors import EncoderError

N_DIMS, MAX_TOKENS = 1024, 514
# The tokens: padding, the file's pieces, 203 languages, three marks of data.
N_ADDED, PADDING, END = 206, 0, 3
ENGLISH = 47  # among what follows the pieces

_WEIGHTS = Weights(
    files=(("glap_checkpoint.pt", "*.pt", "*.safetensors"), ("*sentencepiece*.model", "*.model")),
    source=(
        "glap_checkpoint.pt from zenodo.org/records/15493136 and sentencepiece.source.256000.model "
        "from dl.fbaipublicfiles.com/SONAR, put both into one folder"
    ),
)


class Glap(TorchEncoder):
    """The projected mean over time, and over a caption's tokens, both of length 1.

    Notes
    -----
    As in the authors' code, a clip longer than 10.08 s is cut into parts of that length, and the
    last is filled with zeros behind the normalised spectrogram; a clip's vector is the mean over
    the parts.  Captions are marked as English.
    """

    info = EncoderInfo(
        name="glap",
        summary="GLAP: a space of clips (Dasheng) and captions (SONAR), sounds, music and speech",
        audio_outputs={EMBEDDING: N_DIMS},
        text_outputs={EMBEDDING: N_DIMS},
        sample_rate_hz=dasheng.SAMPLE_RATE_HZ,
        preprocessing=(
            "64 mel bands htk, 120 dB; parts of 1,008 frames, the last filled; mean of means; "
            "514 tokens marked as eng_Latn; length 1"
        ),
        libraries=("timm",),
        weights=_WEIGHTS,
        extra="timm",
        requires=("torch", "transformers", "timm"),
        precisions=PRECISIONS,
        item_mb=80,
        licence="Apache-2.0",
        tested_with="real code",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what = cls._what()
        torch = cls._require("torch")
        audio_utils = cls._require("transformers.audio_utils")
        blocks = cls._require("timm.models.vision_transformer")
        if not path.is_dir():
            raise EncoderError(
                f"{what}: {path} is a file; expected the folder that holds it together with "
                f"{' or '.join(_WEIGHTS.files[1])}."
            )
        file, pieces_file = (Weights((names,)).file(path) for names in _WEIGHTS.files)
        with torch.serialization.safe_globals([*numpy_numbers(), *_paths()]):
            content = read_tensors(what, file)
        state = {
            str(key).removeprefix("model_impl."): value
            for key, value in state_dict_in(what, content, "model", file).items()
        }
        audio = _below(state, "audio_encoder.model.")
        model = torch.nn.ModuleDict(
            {
                "audio_encoder": torch.nn.ModuleDict(
                    {"model": dasheng.build_network(blocks.Block, audio_utils, audio)}
                ),
                "text_encoder": torch.nn.ModuleDict(
                    {"model": _build_text_encoder(_below(state, "text_encoder.model."))}
                ),
                "audio_proj": _build_projection(dasheng.N_DIMS),
                "text_proj": _build_projection(N_DIMS),
            }
        )
        unused = [f"audio_encoder.model.{name}" for name in dasheng.NOT_USED]
        load_exactly(what, model, state, file, may_ignore=unused)
        n_tokens = model["text_encoder"]["model"].encoder_frontend.embed.num_embeddings
        pieces = read_sentencepiece(what, pieces_file)
        if len(pieces.pieces) + N_ADDED != n_tokens:
            raise EncoderError(
                f"{what}: {pieces_file} belongs to another model: it has {len(pieces.pieces)} "
                f"pieces, expected {n_tokens - N_ADDED}. Get {_WEIGHTS.source}."
            )
        english = len(pieces.pieces) + ENGLISH
        return model, MarkedPieces(pieces, english, END, PADDING, shift=1)

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        padded = [np.pad(clip, (0, max(0, dasheng.SHORTEST - len(clip)))) for clip in clips]
        groups = [
            (indices, self._embed_batch(self._on_device(samples)))
            for indices, samples in by_length(padded, lambda _: len(clips))
        ]
        return {EMBEDDING: self._project("audio_proj", in_order(groups))}

    def _embed_batch(self, samples: Tensor) -> Tensor:
        """Return Dasheng's vectors of clips of one length, shape (n_clips, 768)."""
        import torch

        model, n_frames = self.model["audio_encoder"]["model"], dasheng.PATCH * dasheng.N_PATCHES
        with self._full_precision():
            spectrogram = model.init_bn["1"](dasheng.decibels(model, samples))
            if spectrogram.shape[3] > n_frames:
                missing = -spectrogram.shape[3] % n_frames
                spectrogram = torch.nn.functional.pad(spectrogram, (0, missing))
        patches = model.patch_embed["proj"](spectrogram.transpose(1, 2))
        means = [
            dasheng.transform(model, part).float().mean(dim=1)
            for part in patches.split(dasheng.N_PATCHES, dim=3)
        ]
        return torch.stack(means).mean(dim=0)

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        tokens = self._tokens(captions, MAX_TOKENS)
        mask, model = tokens["attention_mask"].bool(), self.model["text_encoder"]["model"]
        embedded = model.encoder_frontend.embed(tokens["input_ids"]) * math.sqrt(N_DIMS)
        frames = embedded + _positions(mask.shape[1], embedded.device)
        for layer in model.encoder.layers:
            frames = _apply(layer, frames, mask[:, None, None])
        frames = model.layer_norm(frames).float() * mask.unsqueeze(2)
        means = frames.sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return {EMBEDDING: self._project("text_proj", means)}

    def _project(self, name: str, vectors: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.normalize(self.model[name](vectors).float(), dim=1)


def _paths() -> list[Any]:
    """Return what unpickles the paths in the file's configuration: as names, on any system."""
    return [(PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")]


def _below(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key[len(prefix) :]: state[key] for key in state if key.startswith(prefix)}


def _build_projection(n_inputs: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Linear(n_inputs, N_DIMS), nn.ReLU(), nn.Linear(N_DIMS, N_DIMS))


def _build_text_encoder(state: Mapping[str, Any]) -> Any:
    """Return SONAR's encoder in the size of a checkpoint's tensors, without its weights."""
    from torch import nn

    n_tokens, _ = tensor_shape(state, "encoder_frontend.embed.weight", (256_206, N_DIMS))
    (hidden,) = tensor_shape(state, "encoder.layers.0.ffn.inner_proj.bias", (8192,))

    def layer() -> Any:
        projections = ("q_proj", "k_proj", "v_proj", "output_proj")
        return nn.ModuleDict(
            {
                "self_attn_layer_norm": nn.LayerNorm(N_DIMS),
                "self_attn": nn.ModuleDict(
                    {name: nn.Linear(N_DIMS, N_DIMS) for name in projections}
                ),
                "ffn_layer_norm": nn.LayerNorm(N_DIMS),
                "ffn": nn.ModuleDict(
                    {
                        "inner_proj": nn.Linear(N_DIMS, hidden),
                        "output_proj": nn.Linear(hidden, N_DIMS),
                    }
                ),
            }
        )

    model = nn.Module()
    model.encoder_frontend = nn.Module()
    model.encoder_frontend.embed = nn.Embedding(n_tokens, N_DIMS, padding_idx=PADDING)
    model.encoder = nn.Module()
    n_layers = count_layers(state, r"encoder\.layers\.(\d+)\.", 24)
    model.encoder.layers = nn.ModuleList(layer() for _ in range(n_layers))
    model.layer_norm = nn.LayerNorm(N_DIMS)
    return model


def _apply(layer: Any, frames: Tensor, mask: Tensor) -> Tensor:
    """Return a layer's output for frames of shape (n_captions, n_tokens, 1024)."""
    import torch

    attention, normed = layer["self_attn"], layer["self_attn_layer_norm"](frames)
    query, key, value = (
        attention[f"{name}_proj"](normed).unflatten(2, (-1, HEAD_DIMS)).transpose(1, 2)
        for name in "qkv"
    )
    heads = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    frames = frames + attention["output_proj"](heads.transpose(1, 2).flatten(2))
    feed_forward, normed = layer["ffn"], layer["ffn_layer_norm"](frames)
    return frames + feed_forward["output_proj"](feed_forward["inner_proj"](normed).relu())


def _positions(n_tokens: int, device: Any) -> Tensor:
    """Return the sines and cosines of positions from 2 on, shape (n_tokens, 1024)."""
    import torch

    half = N_DIMS // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * (-math.log(10_000) / (half - 1)))
    angles = torch.outer(torch.arange(2, 2 + n_tokens, dtype=torch.float32), rates)
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(device)
