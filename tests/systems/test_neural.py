"""Networks from files that anyone may have made."""

from pathlib import Path

import numpy as np
import pytest
from hostile_models import add_attribute, node, set_attribute

from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import load_model, save_model
from xacle_stack.systems import (
    CosineRegressor,
    CrossAttentionRegressor,
    GatedRegressor,
    LSTMRegressor,
    ProjectionHeadRegressor,
    TransformerRegressor,
    VectorMLPRegressor,
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
    VectorMLPRegressor(hidden=3, projection=4, epochs=1, random_state=0),
    CrossAttentionRegressor(width=4, n_heads=2, hidden=3, epochs=1, random_state=0),
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


def test_a_setting_of_the_class_is_no_attribute_of_a_network(saved: Path, tmp_path: Path) -> None:
    """The check of its sizes would go over what the file says."""
    path = changed(saved, tmp_path, "hidden", 10**9)
    name = type(load_model(saved)).__name__
    add_attribute(path, name, "_sizes", {**node("ListNode", "builtins.list", [])})
    with pytest.raises(ModelFileError, match="attribute '_sizes'"):
        load_model(path)


@pytest.mark.parametrize(
    ("saved", "name", "value", "message"),
    [
        (NETWORKS[1], "widths_", 3, "widths_ is 3"),
        (NETWORKS[1], "spaces_", 3, "spaces_ is 3"),
        (NETWORKS[1], "deviation_", np.ones((5, 1)), r"deviation_ has shape \(5, 1\)"),
        (NETWORKS[1], "calibration_", 3, "calibration_ is a int"),
        (
            NETWORKS[2],
            "n_layers",
            3,
            r"n_layers: 3 parts, .* 1 .*encoder\.layers",
        ),
        (NETWORKS[2], "n_layers", 10**9, "n_layers: 1000000000 parts"),
        (NETWORKS[2], "n_layers", 1.0, "n_layers: 1.0 parts"),
        (NETWORKS[2], "weights_", 3, "weights_ is no dict"),
        (NETWORKS[2], "device", 3, "device is 3, expected a name"),
        (NETWORKS[2], "n_features_in_", 10**9, "n_features_in_ is 1000000000"),
    ],
    indirect=["saved"],
)
def test_parts_that_a_network_lacks_are_refused(
    saved: Path, tmp_path: Path, name: str, value: object, message: str
) -> None:
    with pytest.raises(ModelFileError, match=message):
        load_model(changed(saved, tmp_path, name, value))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("widths_", [(4, 4)] * 2, r"widths_ is \[\(4, 4\), \(4, 4\)\]"),
        ("widths_", [(4, 10**9)], "1000000000"),
        ("spaces_", ("a", 3), r"spaces_ is \('a', 3\)"),
    ],
)
def test_vectors_that_no_table_has_are_refused(
    saved: Path, name: str, value: object, message: str
) -> None:
    model = load_model(saved)
    setattr(model, name, value)
    with pytest.raises(ModelFileError, match=message):
        model.predict(X)


def test_a_layer_wider_than_any_is_refused(saved: Path) -> None:
    model = load_model(saved)
    model.weights_["wide"] = np.zeros((2**17 + 1, 1), dtype=np.float32)
    with pytest.raises(ModelFileError, match="a length of 131073, the most is 131072"):
        model.predict(X)


def test_weights_of_another_type_are_refused(saved: Path) -> None:
    model = load_model(saved)
    name = next(name for name, array in model.weights_.items() if array.dtype == np.float32)
    model.weights_[name] = model.weights_[name].astype(np.float64)
    with pytest.raises(ModelFileError, match=r"weights_\[.*\] .*float32"):
        model.predict(X)


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
    with pytest.raises(ModelFileError, match="GatedRegressor: mean_ .*str"):
        load_model(path)
    set_attribute(path, "GatedRegressor", "mean_", 0.5)
    set_attribute(path, "CosineRegressor", "calibration_", 3)
    with pytest.raises(ModelFileError, match="CosineRegressor: calibration_ is a int"):
        load_model(path)
