"""LAION-CLAP: transformers' folders, and LAION's own ``.pt`` files of the same weights.

The names of the ``.pt`` files are those that laion_clap loads without exception.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from random_checkpoints import hub_snapshot
from random_checkpoints.tokenizers import write_roberta

HUB_IDS = {
    "laion-clap-unfused": "laion/clap-htsat-unfused",
    "laion-clap-fused": "laion/clap-htsat-fused",
    "laion-clap-larger-general": "laion/larger_clap_general",
    "laion-clap-larger-music": "laion/larger_clap_music",
    "laion-clap-larger-music-speech": "laion/larger_clap_music_and_speech",
}
SMALL = {  # HTSAT-tiny and -base are larger
    "patch_embeds_hidden_size": 32,
    "depths": [2, 2, 2, 2],
    "hidden_size": 256,
    "num_attention_heads": [2, 4, 8, 16],
}
HTSAT_TINY = {
    "patch_embeds_hidden_size": 96,
    "depths": [2, 2, 6, 2],
    "hidden_size": 768,
    "num_attention_heads": [4, 8, 16, 32],
}
HTSAT_BASE = {
    "patch_embeds_hidden_size": 128,
    "depths": [2, 2, 12, 2],
    "hidden_size": 1024,
    "num_attention_heads": [4, 8, 16, 32],
}
SMALL_TEXT = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 261,
    "max_position_embeddings": 130,
}
PREPROCESSOR = {
    "chunk_length_s": 10,
    "feature_extractor_type": "ClapFeatureExtractor",
    "feature_size": 64,
    "fft_window_size": 1024,
    "frequency_max": 14000,
    "frequency_min": 50,
    "hop_length": 480,
    "max_length_s": 10,
    "n_fft": 1024,
    "nb_frequency_bins": 513,
    "nb_max_frames": 1000,
    "nb_max_samples": 480000,
    "padding": "repeatpad",
    "padding_side": "right",
    "padding_value": 0.0,
    "processor_class": "ClapProcessor",
    "return_attention_mask": False,
    "sampling_rate": 48000,
    "top_db": None,
}
# What the conversion of 2023 wrote and later releases of transformers have no use for.
OLD_AUDIO = {
    "enable_patch_fusion": True,
    "fusion_num_hidden_layers": 2,
    "projection_hidden_size": 768,
    "pruned_heads": {},
    "tie_encoder_decoder": False,
    "torchscript": False,
    "use_bfloat16": False,
}
OLD_TEXT = {
    "classifier_dropout": None,
    "fusion_hidden_size": 768,
    "fusion_num_hidden_layers": 2,
    "initializer_range": 0.02,
    "position_embedding_type": "absolute",
    "use_cache": True,
}
_NAMES = (
    ("audio_model.audio_encoder.", "audio_branch."),
    ("text_model.", "text_branch."),
    ("_projection.linear1.", "_projection.0."),
    ("_projection.linear2.", "_projection.2."),
)
_NAMES_IN_AUDIO = (
    ("batch_norm.", "bn0."),
    ("layernorm_before.", "norm1."),
    ("layernorm_after.", "norm2."),
    ("attention.self.query.", "attn.qkv."),
    ("attention.self.", "attn."),
    ("attention.output.dense.", "attn.proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
)


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    from safetensors.torch import save_file

    larger, fused = "-larger-" in encoder, encoder.endswith("-fused")
    sizes = SMALL if not full else HTSAT_BASE if larger else HTSAT_TINY
    seed += list(HUB_IDS).index(encoder)
    model = draw_model(sizes, {} if full else SMALL_TEXT, is_fused=fused, seed=seed)
    folder = hub_snapshot(root, HUB_IDS[encoder])
    state = {key: values.contiguous() for key, values in sorted(model.state_dict().items())}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {
        "architectures": ["ClapModel"],
        "model_type": "clap",
        "audio_config": {
            **part_settings(model.config.audio_config),
            **OLD_AUDIO,
            "fusion_type": None,
        },
        "text_config": {**part_settings(model.config.text_config), **OLD_TEXT},
        "hidden_size": model.config.text_config.hidden_size,
        "initializer_factor": 1.0,
        "logit_scale_init_value": 14.285714285714285,
        "num_hidden_layers": 16,
        "projection_dim": 512,
        "projection_hidden_act": "relu",
        "torch_dtype": "float32",
        "transformers_version": None,
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    truncation = "fusion" if fused else "rand_trunc"
    preprocessor = {**PREPROCESSOR, "truncation": truncation}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))
    write_roberta(folder, model.config.text_config.vocab_size)
    return folder


def part_settings(config: Any) -> dict[str, Any]:
    """Return what the older release of transformers wrote of a part's configuration."""
    settings = config.to_dict()
    return {name: value for name, value in settings.items() if "dtype" not in name}


def draw_model(
    sizes: dict[str, Any], text_sizes: dict[str, Any], *, is_fused: bool, seed: int
) -> Any:
    """Return a ClapModel whose embeddings depend on what they are of."""
    import torch
    from transformers import ClapConfig, ClapModel

    fusion = {"enable_fusion": True, "fusion_type": "aff_2d"} if is_fused else {}
    config = ClapConfig(text_config=dict(text_sizes), audio_config={**sizes, **fusion})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ClapModel(config).eval()
        for name, values in model.named_parameters():
            if values.ndim > 1 and "embeddings" not in name:
                torch.nn.init.normal_(values, std=values[0].numel() ** -0.5)
            elif "_table" in name or name.endswith("bias"):
                torch.nn.init.normal_(values, std=0.05)
        norm = model.audio_model.audio_encoder.batch_norm
        norm.running_mean.normal_(-30, 5)
        norm.running_var.uniform_(200, 400)
    return model


def write_original(path: Path, model: Any) -> None:
    """Write a model as LAION's training saves it, with a tokenizer beside it."""
    import torch

    state = {f"module.{key}": values.clone() for key, values in original_names(model).items()}
    rate = np.float64(1e-4)
    optimizer = {"state": {0: {"step": 9}}, "param_groups": [{"lr": rate, "params": [0]}]}
    content = {"epoch": 45, "name": "2023_01_01", "optimizer": optimizer, "state_dict": state}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    _use_old_numpy_names(path)
    write_roberta(path.parent, model.config.text_config.vocab_size)


def original_names(model: Any) -> dict[str, Any]:
    """Return a model's tensors under laion_clap's names, with what else its files hold."""
    import torch

    state, named = model.state_dict(), {}
    for key, values in state.items():
        is_audio = key.startswith("audio_model.")
        if is_audio and (".self.key." in key or ".self.value." in key):
            continue
        if is_audio and ".self.query." in key:
            parts = ("query", "key", "value")
            values = torch.cat([state[key.replace("query", part)] for part in parts])
        for ours, theirs in [*_NAMES, *(_NAMES_IN_AUDIO if is_audio else [])]:
            key = key.replace(ours, theirs)
        named[key] = values
    del named["text_branch.embeddings.token_type_ids"]
    return {**named, **_others(model.config.audio_config)}


def _others(config: Any) -> dict[str, Any]:
    """Return the spectrogram, tables, the classifier and the training heads, in zeros."""
    import torch

    width = config.hidden_size
    shapes = {
        "audio_branch.spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
        "audio_branch.spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
        "audio_branch.logmel_extractor.melW": (513, 64),
        "audio_branch.tscam_conv.weight": (527, width, 2, 3),
        "audio_branch.tscam_conv.bias": (527,),
        "audio_branch.head.weight": (527, 527),
        "audio_branch.head.bias": (527,),
    }
    for modality in ("audio", "text"):
        for layer in (0, 3):
            shapes[f"{modality}_transform.sequential.{layer}.weight"] = (512, 512)
            shapes[f"{modality}_transform.sequential.{layer}.bias"] = (512,)
    for layer, depth in enumerate(config.depths[:-1]):
        for block in range(1, depth, 2):
            name = f"audio_branch.layers.{layer}.blocks.{block}.attn_mask"
            shapes[name] = (64 // 4**layer, 64, 64)
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def _use_old_numpy_names(path: Path) -> None:
    """Name NumPy's parts in the file as the NumPy of 2023 did."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    pickled = next(name for name in entries if name.endswith("data.pkl"))
    renamed = entries[pickled].replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n")
    if renamed != entries[pickled]:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**entries, pickled: renamed}.items():
                archive.writestr(name, content)
