"""The option --cluster; tests/test_cluster.py has what happens on one."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TOY, WriteData

Run = Callable[..., str]


@pytest.fixture
def said(run: Run) -> Run:
    """Return `run`, but for frames and line breaks of what it returns."""
    return lambda *arguments: " ".join(run(*arguments).replace("│", " ").split())


@pytest.fixture
def options(make_data: WriteData, tmp_path: Path) -> list[object]:
    recipe = tmp_path / "toy.toml"
    recipe.write_text(f'spaces = ["{TOY.name}"]\n[features]\nn_components = 2\n')
    data = make_data(train=20)
    return ["--data", data, "--recipe", recipe, "--store", "store", "--quiet"]


@pytest.mark.filterwarnings("ignore:::(distributed|tornado)")
def test_the_cluster_is_named_whoever_named_it(
    said: Run, options: list[object], monkeypatch, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        dashboard_address=":0",
    ) as cluster:
        address = cluster.scheduler_address
        printed = said("features", *options, "--cluster", address)
        assert f"Working on the Dask cluster {address}: 2 workers" in printed
        assert "toy: 20 clips encoded" in printed
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        printed = said("features", *options)
        assert f"Working on the Dask cluster {address}" in printed
        assert "toy: 0 clips encoded, 20 were in the cache" in printed


def test_an_address_without_a_scheduler_is_an_error(
    said: Run, options: list[object], monkeypatch
) -> None:
    assert "expected an address such as tcp://" in said("features", *options, "--cluster", "there")
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr("xacle_stack.cli.cluster._CONNECT_S", 1)
    printed = said("features", *options, "--cluster", "tcp://127.0.0.1:1")
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:1'" in printed
    assert "DASK_SCHEDULER_ADDRESS" in printed


def test_without_dask_the_extra_is_named(said: Run, options: list[object], monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    printed = said("features", *options, "--cluster", "tcp://127.0.0.1:1")
    assert "pip install 'xacle-stack[dask]'" in printed
