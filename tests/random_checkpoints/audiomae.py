"""AudioMAE in timm's format: ``config.json`` and ``pytorch_model.bin``."""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.tensors import draw_tensors

HUB_ID = "gaunernst/vit_base_patch16_1024_128.audiomae_as2m"
N_DIMS = 768


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch

    folder = hub_snapshot(root, HUB_ID)
    depth, hidden = (12, 3072) if full else (2, 64)
    state = draw_tensors(_shapes(depth, hidden), seed)
    torch.save(state, folder / "pytorch_model.bin")
    pretrained = {
        "custom_load": False,
        "input_size": [1, 1024, 128],
        "fixed_input_size": True,
        "num_classes": 0,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "cc-by-nc-4.0",
    }
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": N_DIMS,
        "pretrained_cfg": pretrained,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _shapes(depth: int, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes = {
        "cls_token": (1, 1, N_DIMS),
        "pos_embed": (1, 513, N_DIMS),
        "patch_embed.proj.weight": (N_DIMS, 1, 16, 16),
        "patch_embed.proj.bias": (N_DIMS,),
        "norm.weight": (N_DIMS,),
        "norm.bias": (N_DIMS,),
    }
    block_shapes = {
        "norm1": (N_DIMS,),
        "attn.qkv": (3 * N_DIMS, N_DIMS),
        "attn.proj": (N_DIMS, N_DIMS),
        "norm2": (N_DIMS,),
        "mlp.fc1": (hidden, N_DIMS),
        "mlp.fc2": (N_DIMS, hidden),
    }
    for block in range(depth):
        for name, shape in block_shapes.items():
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
    return shapes
