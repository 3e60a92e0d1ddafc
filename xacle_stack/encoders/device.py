"""Chooses the devices of a run and the batch size."""

import re

from xacle_stack._optional import require
from xacle_stack.errors import EncoderError

CPU_BATCH_SIZE = 8
MAX_BATCH_SIZE = 256
# The weights, the allocator and other programs need the rest of the memory.
_USABLE_SHARE = 0.5


def resolve_devices(device: str) -> tuple[str, ...]:
    """Return the devices that a setting stands for.

    Parameters
    ----------
    device : str
        ``"auto"`` (every CUDA device, else the CPU), ``"cpu"``, ``"cuda"`` (every CUDA device),
        ``"cuda:1"``, or several with commas between: ``"cuda:0,cuda:1"``.

    Returns
    -------
    devices : tuple of str
        One worker runs on each.

    Raises
    ------
    EncoderError
        If a device is unknown or absent.

    Examples
    --------
    >>> resolve_devices("cpu")
    ('cpu',)
    """
    if device == "auto":
        return _cuda_devices() or ("cpu",)
    devices: list[str] = []
    for name in device.split(","):
        if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
            raise EncoderError(
                f"unknown device {name!r}. Expected auto, cpu, cuda, cuda:0, or several such as "
                "cuda:0,cuda:1."
            )
        if name == "cpu":
            devices.append(name)
            continue
        present = _cuda_devices()
        if not present or (name != "cuda" and name not in present):
            raise EncoderError(
                f"device {name!r} is not there: PyTorch sees "
                f"{', '.join(present) or 'no CUDA device'}. "
                "Use --device auto or cpu, or install a PyTorch built for this machine's driver."
            )
        devices += present if name == "cuda" else [name]
    return tuple(devices)


def automatic_batch_size(device: str, item_mb: int) -> int:
    """Return how many clips to encode at once, from the peak memory of one clip in MB.

    Devices of one kind give the same number.

    Examples
    --------
    >>> automatic_batch_size("cpu", 300)
    8
    """
    if device == "cpu" or item_mb == 0:
        return CPU_BATCH_SIZE
    torch = require("torch", extra="encoders", purpose=f"device {device!r}")
    total_mb = torch.cuda.get_device_properties(device).total_memory / 2**20
    n_items = int(total_mb * _USABLE_SHARE / item_mb)
    return int(min(max(1, 2 ** (n_items.bit_length() - 1)), MAX_BATCH_SIZE)) if n_items else 1


def _cuda_devices() -> tuple[str, ...]:
    try:
        import torch
    except ModuleNotFoundError:  # recipes without big models need no PyTorch
        return ()
    if not torch.cuda.is_available():
        return ()
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
