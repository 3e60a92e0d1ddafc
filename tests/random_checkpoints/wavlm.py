"""microsoft/wavlm-large: a pickle with the old names of a normalised weight."""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot

PREPROCESSOR = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
    "sampling_rate": 16000,
}


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    from transformers import WavLMConfig, WavLMModel

    small = {
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "conv_dim": [32] * 7,
        "num_conv_pos_embeddings": 16,
    }
    config = WavLMConfig(
        **{
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "intermediate_size": 4096,
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            **({} if full else small),
        }
    )
    folder = hub_snapshot(root, "microsoft/wavlm-large")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = WavLMModel(config).state_dict()
    torch.save(with_old_names(state), folder / "pytorch_model.bin")
    config.architectures = ["WavLMModel"]
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


def with_old_names(state: dict) -> dict:
    """Name a normalised weight's parts as PyTorch did when the real files were made."""
    return {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value.contiguous()
        for key, value in state.items()
    }
