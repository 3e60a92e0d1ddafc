"""aisfx: ``(state dict, {collection: (number, number of classes)})``, with NumPy's numbers."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from random_checkpoints.tensors import draw_tensors
from xacle_stack.encoders.aisfx import WIDTHS

COLLECTIONS = {"prosfx": 78, "soundlyTrain": 79, "ucsMixed": 69}


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch

    folder = root / "aisfx" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, tuple[int, ...]] = {}
    statistics: dict[str, Any] = {}
    for number, (n_inputs, width) in enumerate(zip((1, *WIDTHS), WIDTHS, strict=False), start=1):
        block = f"embedding_net.conv_block{number}"
        shapes[f"{block}.conv1.weight"] = (width, n_inputs, 3, 3)
        shapes[f"{block}.conv2.weight"] = (width, width, 3, 3)
        for norm in (f"{block}.bn1", f"{block}.bn2"):
            statistics[f"{norm}.weight"] = torch.ones(width)
            statistics[f"{norm}.running_mean"] = torch.zeros(width)
            statistics[f"{norm}.running_var"] = torch.full((width,), 0.5)
            statistics[f"{norm}.num_batches_tracked"] = torch.tensor(1000)
            shapes[f"{norm}.bias"] = (width,)
    for number, n_classes in enumerate(COLLECTIONS.values()):
        for layer, (n_inputs, n_outputs) in {
            0: (512, 256),
            2: (256, 128),
            4: (128, n_classes),
        }.items():
            shapes[f"fc.{number}.{layer}.weight"] = (n_outputs, n_inputs)
            shapes[f"fc.{number}.{layer}.bias"] = (n_outputs,)
    state = OrderedDict({**draw_tensors(shapes, seed), **statistics})
    sizes = {
        name: (number, np.int64(n_classes))
        for number, (name, n_classes) in enumerate(COLLECTIONS.items())
    }
    torch.save((state, sizes), folder / "checkpoint.pth")
    return folder
