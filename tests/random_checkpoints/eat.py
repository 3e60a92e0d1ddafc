"""EAT as on the hub: ``config.json``, ``model.safetensors`` and the model's code.

The code is a stand-in of our own with the file names, interface and parameter names of the real.
"""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.tensors import draw_tensors

HUB_ID = "worstchan/EAT-base_epoch30_finetune_AS2M"
CONFIG = {
    "architectures": ["EATModel"],
    "auto_map": {
        "AutoConfig": "configuration_eat.EATConfig",
        "AutoModel": "modeling_eat.EATModel",
    },
    "model_type": "eat",
    "model_variant": "finetune",
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "patch_size": 16,
    "stride": 16,
    "in_chans": 1,
    "mel_bins": 128,
    "max_length": 768,
    "num_classes": 527,
    "mlp_ratio": 4.0,
    "norm_eps": 1e-06,
    "img_size": [1024, 128],
    "torch_dtype": "float32",
    "transformers_version": "4.51.3",
}
TINY = {"depth": 1, "mlp_ratio": 0.125, "max_length": 64}

CONFIGURATION = """
from transformers import PretrainedConfig


class EATConfig(PretrainedConfig):
    model_type = "eat"

    def __init__(self, embed_dim=768, depth=12, num_heads=12, mlp_ratio=4.0, max_length=768,
                 num_classes=527, norm_eps=1e-6, **others):
        super().__init__(**others)
        self.embed_dim, self.depth, self.num_heads = embed_dim, depth, num_heads
        self.mlp_ratio, self.max_length = mlp_ratio, max_length
        self.num_classes, self.norm_eps = num_classes, norm_eps
"""
MODELING = """
from transformers import PreTrainedModel

from .configuration_eat import EATConfig
from .eat_model import EAT


class EATModel(PreTrainedModel):
    config_class = EATConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = EAT(config)

    def extract_features(self, x):
        return self.model.extract_features(x)
"""
MODEL = """
import torch
from timm.models.layers import Mlp
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


class Patches(nn.Module):
    def __init__(self, dims):
        super().__init__()
        self.proj = nn.Conv2d(1, dims, 16, 16)


class Positions(nn.Module):
    def __init__(self, n_tokens, dims):
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(1, n_tokens, dims), requires_grad=False)


class Attention(nn.Module):
    def __init__(self, dims, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dims, 3 * dims)
        self.proj = nn.Linear(dims, dims)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        dims = config.embed_dim
        self.norm1, self.norm2 = (nn.LayerNorm(dims, config.norm_eps) for _ in range(2))
        self.attn = Attention(dims, config.num_heads)
        self.mlp = Mlp(dims, int(dims * config.mlp_ratio))

    def forward(self, x):
        x = self.norm1(x + self.attn(x))
        return self.norm2(x + self.mlp(x))


class EAT(nn.Module):
    def __init__(self, config):
        super().__init__()
        dims = config.embed_dim
        self.local_encoder = Patches(dims)
        self.extra_tokens = nn.Parameter(torch.zeros(1, 1, dims))
        self.fixed_positional_encoder = Positions(8 * config.max_length, dims)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.pre_norm = nn.LayerNorm(dims, config.norm_eps)
        self.fc_norm = nn.LayerNorm(dims)
        self.head = nn.Linear(dims, config.num_classes)

    def extract_features(self, x):
        x = self.local_encoder.proj(x).flatten(2).transpose(1, 2)
        x = x + self.fixed_positional_encoder.positions[:, : x.shape[1]]
        x = self.pre_norm(torch.cat([self.extra_tokens.expand(len(x), -1, -1), x], dim=1))
        for block in self.blocks:
            x = block(x)
        return x
"""


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    from safetensors.torch import save_file

    folder = hub_snapshot(root, HUB_ID)
    config = CONFIG if full else {**CONFIG, **TINY}
    (folder / "config.json").write_text(json.dumps(config))
    write_code(folder)
    state = draw_tensors(_shapes(config), seed)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_code(folder: Path) -> None:
    """Write the code alone: what --code would name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "configuration_eat.py").write_text(CONFIGURATION)
    (folder / "modeling_eat.py").write_text(MODELING)
    (folder / "eat_model.py").write_text(MODEL)


def _shapes(config: dict) -> dict[str, tuple[int, ...]]:
    dims, n_classes = config["embed_dim"], config["num_classes"]
    hidden = int(dims * config["mlp_ratio"])
    weights = {
        "local_encoder.proj": (dims, 1, 16, 16),
        "pre_norm": (dims,),
        "fc_norm": (dims,),
        "head": (n_classes, dims),
    }
    for block in range(config["depth"]):
        weights |= {
            f"blocks.{block}.norm1": (dims,),
            f"blocks.{block}.attn.qkv": (3 * dims, dims),
            f"blocks.{block}.attn.proj": (dims, dims),
            f"blocks.{block}.norm2": (dims,),
            f"blocks.{block}.mlp.fc1": (hidden, dims),
            f"blocks.{block}.mlp.fc2": (dims, hidden),
        }
    shapes = {
        "model.extra_tokens": (1, 1, dims),
        "model.fixed_positional_encoder.positions": (1, 8 * config["max_length"], dims),
    }
    for name, shape in weights.items():
        shapes[f"model.{name}.weight"], shapes[f"model.{name}.bias"] = shape, shape[:1]
    return shapes
