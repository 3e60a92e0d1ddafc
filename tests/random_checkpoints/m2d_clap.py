"""M2D-CLAP 2025: the unpacked release's file, and a stand-in for the clone of its code.

The stand-in is code of our own with the interface, the names of the parameters and the habits of
the real one: it reads its sizes from the folder's name, loads its file as any pickle, changes
``sys.path``, prints, and logs through the root logger.
"""

import argparse
from pathlib import Path
from typing import Any

from random_checkpoints import hub_snapshot
from random_checkpoints.tensors import draw_tensors
from random_checkpoints.tokenizers import write_bert

NAME = "m2d_clap_vit_base-80x1001p16x16p16kpBpTI-2025"
BERT_ID = "google-bert/bert-base-uncased"
TINY_BERT = {"num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 141}
N_DIMS, N_PATCHES = 768, 5 * 62

PORTABLE_M2D = """
import logging
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import pad

sys.path.append("..")


class Attention(nn.Module):
    def __init__(self, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv, self.proj = nn.Linear(768, 3 * 768), nn.Linear(768, 768)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        x = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(768, hidden), nn.Linear(hidden, 768)

    def forward(self, x):
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, n_heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(768), nn.LayerNorm(768)
        self.attn, self.mlp = Attention(n_heads), Mlp(hidden)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Semantic(nn.Module):
    def __init__(self):
        super().__init__()
        self.sem_token = nn.Parameter(torch.zeros(1, 1, 768))
        self.sem_blocks = nn.ModuleList([Block(1, 768)])
        self.norm = nn.LayerNorm(768)

    def forward(self, x):
        x = torch.cat([self.sem_token.expand(len(x), -1, -1), x], dim=1)
        return self.norm(self.sem_blocks[0](x)[:, 0])


class Backbone(nn.Module):
    def __init__(self, depth, hidden):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 768))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + 5 * 62, 768))
        self.norm_stats = nn.Parameter(torch.zeros(2))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, 768, 16, 16)})
        self.blocks = nn.ModuleList([Block(12, hidden) for _ in range(depth)])
        self.norm = nn.LayerNorm(768)
        self.audio_proj = Semantic()

    def forward(self, x):
        x = self.patch_embed["proj"](x)
        positions = self.pos_embed[:, 1:].unflatten(1, (5, 62))[:, :, : x.shape[3]].flatten(1, 2)
        x = x.flatten(2).transpose(1, 2) + positions
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat([first, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:]


class Spectrogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        bands = torch.arange(201).mul(80).div(201, rounding_mode="floor")
        self.register_buffer("bands", nn.functional.one_hot(bands).float(), persistent=False)

    def forward(self, samples):
        assert not torch.is_autocast_enabled(samples.device.type)
        spectrum = torch.stft(samples, 400, 160, window=self.window, return_complex=True)
        return (spectrum.abs().square().transpose(1, 2) @ self.bands).transpose(1, 2)


class PortableM2D(nn.Module):
    def __init__(self, weight_file, num_classes=None, freeze_embed=False, flat_features=None):
        super().__init__()
        name = Path(weight_file).parent.name
        size, patch, rate = name.split("-")[1].split("p")[:3]
        assert (size, patch, rate, flat_features) == ("80x1001", "16x16", "16k", True)
        state = torch.load(weight_file, map_location="cpu", weights_only=False)["model"]
        state = {k[9:]: v for k, v in state.items() if k.startswith("backbone.")}
        depth = sum(k.startswith("blocks.") and k.endswith("fc1.weight") for k in state)
        self.backbone = Backbone(depth, len(state["blocks.0.mlp.fc1.bias"]))
        print(self.backbone.load_state_dict(state, strict=False))
        logging.info("weights: %s", weight_file)
        self.weight_file = weight_file
        self.to_spec = Spectrogram()
        self.eval()

    def encode_clap_audio(self, batch_audio):
        x = (self.to_spec(batch_audio) + torch.finfo().eps).log().unsqueeze(1)
        mean, deviation = self.backbone.norm_stats
        x = (x - mean) / deviation
        assert x.shape[-1] <= 1001
        return self.backbone.audio_proj(self.backbone(pad(x, (0, -x.shape[-1] % 16))[..., :992]))

    def encode_clap_text(self, batch_text, truncate=False):
        from transformers import AutoModel, AutoTokenizer

        name = "google-bert/bert-base-uncased"
        tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name)
        state = torch.load(self.weight_file, map_location="cpu", weights_only=False)["model"]
        text_state = {k[26:]: v for k, v in state.items() if k.startswith("text_encoder.")}
        model.load_state_dict(text_state)
        tokens = tokenizer(batch_text, padding="longest", truncation=truncate, max_length=512,
                           return_tensors="pt")
        output = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return output[0][:, 0, :]
"""


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    """Write the checkpoint, and beside its folder the stand-in clone, called ``m2d``."""
    import torch
    import transformers

    config = transformers.BertConfig(**({} if full else TINY_BERT))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = transformers.BertModel(config).state_dict()
    state: dict[str, Any] = draw_tensors(_shapes(12 if full else 1, 3072 if full else 64), seed)
    state["backbone.norm_stats"] = torch.tensor([-7.26, 4.35])
    state |= {f"text_encoder.text_encoder.{key}": value for key, value in text.items()}
    folder = root / NAME
    folder.mkdir(parents=True, exist_ok=True)
    arguments = argparse.Namespace(epochs=30, lr=0.0003)
    torch.save({"model": state, "args": arguments, "epoch": 30}, folder / "checkpoint-30.pth")
    write_bert(hub_snapshot(root, BERT_ID), config.vocab_size)
    if not full:  # so that it is found outside of the hub's cache too
        write_bert(folder, config.vocab_size)
    write_code(root / "m2d")
    return folder / "checkpoint-30.pth"


def write_code(folder: Path) -> None:
    """Write the stand-in clone: what --code would name."""
    (folder / "examples").mkdir(parents=True, exist_ok=True)
    (folder / "examples" / "portable_m2d.py").write_text(PORTABLE_M2D)


def _shapes(depth: int, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, N_DIMS),
        "pos_embed": (1, 1 + N_PATCHES, N_DIMS),
        "patch_embed.proj.weight": (N_DIMS, 1, 16, 16),
        "patch_embed.proj.bias": (N_DIMS,),
        "audio_proj.sem_token": (1, 1, N_DIMS),
    }
    weights: dict[str, tuple[int, ...]] = {"norm": (N_DIMS,), "audio_proj.norm": (N_DIMS,)}
    blocks = {f"blocks.{block}": hidden for block in range(depth)}
    for block, width in {**blocks, "audio_proj.sem_blocks.0": N_DIMS}.items():
        weights |= {
            f"{block}.norm1": (N_DIMS,),
            f"{block}.attn.qkv": (3 * N_DIMS, N_DIMS),
            f"{block}.attn.proj": (N_DIMS, N_DIMS),
            f"{block}.norm2": (N_DIMS,),
            f"{block}.mlp.fc1": (width, N_DIMS),
            f"{block}.mlp.fc2": (N_DIMS, width),
        }
    for name, shape in weights.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return {f"backbone.{name}": shape for name, shape in shapes.items()}
