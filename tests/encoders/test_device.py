import sys

import pytest

from xacle_stack.encoders.device import MAX_BATCH_SIZE, automatic_batch_size, resolve_devices
from xacle_stack.errors import EncoderError


class Gpus:
    """Stands in for torch.cuda on a machine with GPUs."""

    def __init__(self, n_devices: int, total_mb: int = 0) -> None:
        self._n_devices = n_devices
        self.total_memory = total_mb * 2**20

    def is_available(self) -> bool:
        return self._n_devices > 0

    def device_count(self) -> int:
        return self._n_devices

    def get_device_properties(self, device: str) -> "Gpus":
        return self


def test_auto_takes_every_gpu_or_else_the_cpu(monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "cuda", Gpus(0))
    assert resolve_devices("auto") == ("cpu",)
    monkeypatch.setattr(torch, "cuda", Gpus(2))
    assert resolve_devices("auto") == resolve_devices("cuda") == ("cuda:0", "cuda:1")
    assert resolve_devices("cuda:1") == ("cuda:1",)
    assert resolve_devices("cuda:1,cuda:0") == ("cuda:1", "cuda:0")
    with pytest.raises(EncoderError, match=r"'cuda:2'.* cuda:0, cuda:1"):
        resolve_devices("cuda:2")


def test_without_pytorch_there_is_the_cpu(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert resolve_devices("auto") == ("cpu",)
    with pytest.raises(EncoderError, match=r"'cuda'.* no CUDA"):
        resolve_devices("cuda")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:x", "cpu,", "mps"])
def test_an_unknown_device_is_named(device: str) -> None:
    with pytest.raises(EncoderError, match="device .* auto, cpu, cuda"):
        resolve_devices(device)


def test_the_batch_fits_the_memory(monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "cuda", Gpus(1, total_mb=24_000))
    expected = {1: MAX_BATCH_SIZE, 100: 64, 190: 32, 1_000: 8, 11_000: 1, 50_000: 1}
    assert {mb: automatic_batch_size("cuda:0", mb) for mb in expected} == expected
    assert automatic_batch_size("cpu", 1_000) == automatic_batch_size("cuda:0", 0)
