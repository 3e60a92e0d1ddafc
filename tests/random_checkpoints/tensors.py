"""Random tensors of given shapes, scaled so that signals keep their size through the layers."""

import math
from collections.abc import Mapping
from typing import Any

_NEAR_ONE = ("norm.weight", "norm1.weight", "norm2.weight", "weight_g", "grep_a")
_SMALL = (".bias", "cls_token", "extra_tokens", "pos_embed", "positions")


def draw_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Any]:
    """Return a state dict whose weights have the standard deviation 1 / sqrt(inputs)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith(_NEAR_ONE):
            tensors[name] = 1 + 0.1 * noise
        elif name.endswith(_SMALL):
            tensors[name] = 0.02 * noise
        else:
            tensors[name] = noise / math.prod(shape[1:]) ** 0.5
    return tensors
