"""torchaudio's own Kaldi filterbank, also where torchaudio cannot be imported."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from xacle_stack._optional import stand_ins


def load_kaldi() -> ModuleType:
    """Load ``torchaudio/compliance/kaldi.py`` by its path: it needs nothing but PyTorch."""
    pytest.importorskip("torch")
    package = importlib.util.find_spec("torchaudio")
    if package is None or not package.submodule_search_locations:
        pytest.skip("torchaudio is not installed: its files are the reference")
    file = Path(package.submodule_search_locations[0]) / "compliance" / "kaldi.py"
    spec = importlib.util.spec_from_file_location("torchaudio_kaldi_by_path", file)
    module = importlib.util.module_from_spec(spec)
    with stand_ins(["torchaudio"]):
        spec.loader.exec_module(module)
    return module
