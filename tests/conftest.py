"""Fixtures that several test files share."""

from pathlib import Path

import numpy as np
import pytest
from support import REAL_DATA, WriteData, write_split

from xacle_stack.metrics import evaluate, probability_better, resampled_srcc_gains, srcc_gain


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real recordings and judgements are not here: {REAL_DATA}")
    return REAL_DATA


@pytest.fixture
def make_data(tmp_path: Path) -> WriteData:
    """Return a function that writes a small data set in the XACLE layout."""

    def make(name: str = "data", **n_pairs: int) -> Path:
        data = tmp_path / name
        for seed, (split, n) in enumerate((n_pairs or {"train": 60, "validation": 30}).items()):
            write_split(data, split, n, seed)
        return data

    return make


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let intervals be rough, for tests of what is made of them."""
    for function in (evaluate, probability_better, resampled_srcc_gains, srcc_gain):
        monkeypatch.setitem(function.__kwdefaults__, "n_bootstrap", 40)
