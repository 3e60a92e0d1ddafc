"""OpenBEATs: an encoder as exported for others, and ESPnet's file of a fine-tuned model."""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.beats import CONFIG, draw_state

HUB_IDS = {
    "openbeats-large": "shikhar7ssu/OpenBEATs-Large-i2",
    "openbeats-large-as20k": "espnet/OpenBEATS-Large-i2-as20k",
}
# What the exported file holds as "cfg": less than all that the network needs.
SETTINGS = {
    "encoder_layers": 24,
    "encoder_embed_dim": 1024,
    "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_embed_dim": 1024,
    "decoder_layers": 3,
    "codebook_vocab_size": 1024,
    "mask_ratio": 0.75,
    "dropout": 0.1,
    "encoder_layerdrop": 0.0,
    "deep_norm": True,
    "relative_position_embedding": True,
    "num_buckets": 320,
    "max_distance": 800,
    "gru_rel_pos": True,
    "use_flash_attn": False,
    "fbank_mean": 15.2,
    "fbank_std": 5.9,
}
PARTS = ("weight", "bias")
TINY = {"encoder_layers": 2, "encoder_ffn_embed_dim": 64, "conv_pos": 8}


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch

    folder = hub_snapshot(root, HUB_IDS[encoder])
    settings = SETTINGS if full else {**SETTINGS, **TINY}
    state = draw_state({**CONFIG, **settings}, seed)
    classifier = {f"decoder.linear_out.{part}": state.pop(f"predictor.{part}") for part in PARTS}
    state["patch_embedding_pad.weight"] = torch.ones(1, 1, 16, 16)
    state["raw2fbank_pad.weight"] = torch.ones(1, 1, 400)
    if encoder == "openbeats-large":
        (folder / "exp" / "beats_iter1_large").mkdir(parents=True, exist_ok=True)
        file = folder / "exp" / "beats_iter1_large" / "epoch_latest.pt"
        torch.save({"model": state, "cfg": settings}, file)
        return folder
    tensors = {**{f"encoder.{name}": values for name, values in state.items()}, **classifier}
    (folder / "exp").mkdir(exist_ok=True)
    torch.save(tensors, folder / "exp" / "valid.epoch_mAP.best.pth")
    config = {"encoder": "beats", "encoder_conf": {"beats_config": {} if full else TINY}}
    (folder / "exp" / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    return folder
