"""mispeech/dasheng-base: the hub's conversion of the authors' file."""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.tensors import draw_tensors

N_DIMS = 768


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    from safetensors.torch import save_file

    folder = hub_snapshot(root, "mispeech/dasheng-base")
    state = draw_state(12 if full else 1, 4 * N_DIMS if full else 64, seed)
    tensors = {f"encoder.{name}": values for name, values in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = {"embed_dim": N_DIMS, "depth": 12, "num_heads": 12}
    patches = {"target_length": 1008, "patch_size": [64, 4], "patch_stride": [64, 4]}
    config = {
        "architectures": ["DashengModel"],
        "auto_map": {"AutoModel": "modeling_dasheng.DashengModel"},
        "encoder_kwargs": {**patches, **sizes},
        "loss": "BCELoss",
        "model_type": "dasheng",
        "name": "dasheng-base",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def draw_state(depth: int, hidden: int, seed: int) -> dict:
    """Return random tensors of the network, as the authors' file has them under "model"."""
    import torch

    weights: dict[str, tuple[int, ...]] = {"patch_embed.proj": (N_DIMS, 1, 64, 4)}
    weights["norm"] = (N_DIMS,)
    for block in (f"blocks.{number}" for number in range(depth)):
        weights |= {
            f"{block}.norm1": (N_DIMS,),
            f"{block}.attn.qkv": (3 * N_DIMS, N_DIMS),
            f"{block}.attn.proj": (N_DIMS, N_DIMS),
            f"{block}.norm2": (N_DIMS,),
            f"{block}.mlp.fc1": (hidden, N_DIMS),
            f"{block}.mlp.fc2": (N_DIMS, hidden),
        }
    shapes = {f"{name}.weight": shape for name, shape in weights.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in weights.items()}
    shapes |= {"time_pos_embed": (1, N_DIMS, 1, 252), "freq_pos_embed": (1, N_DIMS, 1, 1)}
    state = draw_tensors(shapes, seed)
    spectrum = draw_tensors({"weight": (64,), "bias": (64,), "running_mean": (64,)}, seed)
    state |= {f"init_bn.1.{name}": values for name, values in spectrum.items()}
    state["init_bn.1.running_mean"] = -20 + 5 * spectrum["running_mean"]
    state["init_bn.1.running_var"] = torch.full((64,), 400.0)
    state["init_bn.1.num_batches_tracked"] = torch.tensor(1000)
    return state
