"""Reads LAION's own files of CLAP weights for transformers' ``ClapModel``.

Such a file is ``{'state_dict': {'module.' + name: tensor}, ...}`` together with the state of the
training.  The names are those of laion_clap's ``CLAP`` with a HTSAT of any size and RoBERTa.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xacle_stack._optional import require
from xacle_stack.encoders.checkpoint import numpy_numbers, read_tensors, state_dict_in
from xacle_stack.encoders.text_towers import HEAD_DIMS, count_layers, tensor_shape
from xacle_stack.errors import EncoderError

_AUDIO, _TEXT = "audio_model.audio_encoder.", "text_model."
_NAMES = (
    (r"^audio_branch\.", _AUDIO),
    (r"^text_branch\.", _TEXT),
    (r"_projection\.0\.", "_projection.linear1."),
    (r"_projection\.2\.", "_projection.linear2."),
    (r"\.bn0\.", ".batch_norm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
# Not used: spectrograms, tables that the model computes, the classifier, heads for training.
_UNUSED = re.compile(
    rf"({re.escape(_AUDIO)}(spectrogram_extractor|logmel_extractor|audio_feats_extractor|"
    "tscam_conv|head)"
    r"|audio_transform|text_transform)\.|.*\.attn_mask$"
)


def read_original(what: str, path: Path) -> dict[str, Any]:
    """Return the tensors of such a file under the names of ``ClapModel``.

    EncoderError if the file is damaged, holds code, or is of another kind.
    """
    torch = require("torch", extra="encoders", purpose=what)
    with torch.serialization.safe_globals(numpy_numbers()):
        content = read_tensors(what, path)
    state = state_dict_in(what, content, "state_dict", path)
    original = {str(key).removeprefix("module."): tensor for key, tensor in state.items()}
    if not any(key.startswith("audio_branch.patch_embed.") for key in original):
        raise EncoderError(
            f"{what}: {path} is not one of LAION's own files with a HTSAT. Give such a file "
            "('630k-audioset-best.pt'), or a folder in the format of transformers with config.json."
        )
    return renamed(original)


def renamed(original: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors of a HTSAT below ``audio_branch.`` under the names of ``ClapModel``.

    So are those of LAION's RoBERTa and projections; others keep their names.
    """
    found: dict[str, Any] = {}
    for key, tensor in original.items():
        for pattern, name in _NAMES:
            key = re.sub(pattern, name, key)
        if _UNUSED.match(key):
            continue
        if ".self.qkv." in key and hasattr(tensor, "chunk"):
            parts = zip(("query", "key", "value"), tensor.chunk(3), strict=False)
            found |= {key.replace("qkv", part): values for part, values in parts}
        else:
            found[key] = tensor
    return found


def config_settings(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the arguments of ``ClapConfig`` for tensors that :func:`read_original` returned.

    A missing tensor stands for the size of HTSAT-tiny or RoBERTa-base.
    """
    n_dims, *_ = tensor_shape(state, f"{_AUDIO}patch_embed.proj.weight", (96, 1, 4, 4))
    layers = re.escape(_AUDIO) + r"layers\."
    n_layers = count_layers(state, rf"{layers}(\d+)\.", 4)
    depths, heads = [], []
    for layer in range(n_layers):
        depths.append(count_layers(state, rf"{layers}{layer}\.blocks\.(\d+)\.", 2))
        block = f"{_AUDIO}layers.{layer}.blocks.{depths[-1] - 1}"
        table = f"{block}.attention.self.relative_position_bias_table"
        heads.append(tensor_shape(state, table, (225, 4 * 2**layer))[1])
    is_fused = any(key.startswith(f"{_AUDIO}patch_embed.mel_conv2d.") for key in state)
    audio = {
        "patch_embeds_hidden_size": n_dims,
        "hidden_size": n_dims * 2 ** (n_layers - 1),
        "depths": depths,
        "num_attention_heads": heads,
        "num_hidden_layers": n_layers,
        "enable_fusion": is_fused,
        "fusion_type": "aff_2d" if is_fused else None,
    }
    n_tokens, width = tensor_shape(
        state, f"{_TEXT}embeddings.word_embeddings.weight", (50_265, 768)
    )
    positions = f"{_TEXT}embeddings.position_embeddings.weight"
    between = f"{_TEXT}encoder.layer.0.intermediate.dense.bias"
    text = {
        "vocab_size": n_tokens,
        "hidden_size": width,
        "max_position_embeddings": tensor_shape(state, positions, (514, width))[0],
        "num_hidden_layers": count_layers(state, re.escape(_TEXT) + r"encoder\.layer\.(\d+)\.", 12),
        "num_attention_heads": width // HEAD_DIMS,
        "intermediate_size": tensor_shape(state, between, (3072,))[0],
        "layer_norm_eps": 1e-5,  # RoBERTa's, which is not the default of ClapTextConfig
    }
    return {"text_config": text, "audio_config": audio}
