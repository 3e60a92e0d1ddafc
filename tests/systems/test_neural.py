"""Networks from files that anyone may have made."""

from pathlib import Path

import numpy as np
import pytest
from hostile_models import set_attribute

from xacle_stack.errors import ModelFileError
from xacle_stack.stacking import load_model, save_model
from xacle_stack.systems import (
    CosineRegressor,
    GatedRegressor,
    LSTMRegressor,
    ProjectionHeadRegressor,
    TransformerRegressor,
)

pytest.importorskip("torch")

X = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
Y = np.linspace(0, 10, 40)
NETWORKS = [
    LSTMRegressor(hidden=3, mlp=4, epochs=1, random_state=0),
    ProjectionHeadRegressor(n_dims=3, hidden=4, epochs=1, warmup_epochs=0, random_state=0),
    TransformerRegressor(
        n_layers=1, hidden=4, epochs=1, warmup_epochs=0, optimizer="adam", random_state=0
    ),
]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda network: type(network).__name__)
def saved(request, tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("network"), request.param.fit(X, Y))


def changed(saved: Path, folder: Path, name: str, value: object) -> Path:
    for suffix in (".skops", ".json"):
        (folder / f"model{suffix}").write_bytes(saved.with_suffix(suffix).read_bytes())
    path = folder / "model.skops"
    model = load_model(path)
    set_attribute(path, type(model).__name__, name, value)
    return path


def test_a_network_larger_than_its_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="hidden is 1000000000, but weights_ has no such"):
        load_model(changed(saved, tmp_path, "hidden", 10**9))


def test_weights_of_another_network_are_refused(saved: Path, tmp_path: Path) -> None:
    model = load_model(changed(saved, tmp_path, "hidden", 2))
    with pytest.raises(ModelFileError, match=r"weights_\['.*'\] has shape \(.*\), expected \(.*\)"):
        model.predict(X)


def test_weights_that_are_no_numbers_are_refused(saved: Path) -> None:
    model = load_model(saved)
    name = next(iter(model.weights_))
    model.weights_[name] = np.full_like(model.weights_[name], np.nan, dtype=float)
    with pytest.raises(ModelFileError, match=r"weights_\[.*\] holds NaN"):
        model.predict(X)


def test_a_gate_checks_what_it_holds(tmp_path: Path) -> None:
    path = save_model(tmp_path / "gate.skops", GatedRegressor(CosineRegressor()).fit(X, Y))
    load_model(path)
    set_attribute(path, "GatedRegressor", "mean_", "low")
    with pytest.raises(ModelFileError, match="GatedRegressor: mean_ is of type str"):
        load_model(path)
    set_attribute(path, "GatedRegressor", "mean_", 0.5)
    set_attribute(path, "CosineRegressor", "calibration_", 3)
    with pytest.raises(ModelFileError, match="CosineRegressor: calibration_ is a int"):
        load_model(path)
