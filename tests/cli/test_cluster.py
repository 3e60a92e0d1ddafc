"""The option --cluster; tests/test_cluster.py has what happens on one."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import TOY, WriteData

from xacle_stack import cli

Run = Callable[..., str]


@pytest.fixture
def run(capfd, tmp_path: Path) -> Iterator[Run]:
    """Return a function that runs a command and returns what it prints, or its error."""
    before = signal.getsignal(signal.SIGTERM)

    def main(*arguments: object) -> str:
        with contextlib.chdir(tmp_path), pytest.raises(SystemExit):
            cli.main([str(argument) for argument in arguments])
        return " ".join("".join(capfd.readouterr()).replace("│", " ").split())

    yield main
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def options(make_data: WriteData, tmp_path: Path) -> list[object]:
    recipe = tmp_path / "toy.toml"
    recipe.write_text(f'spaces = ["{TOY.name}"]\n[features]\nn_components = 2\n')
    data = make_data(train=20)
    return ["--data", data, "--recipe", recipe, "--store", "store", "--quiet"]


@pytest.mark.filterwarnings("ignore:::(distributed|tornado)")
def test_the_cluster_is_named_whoever_named_it(
    run: Run, options: list[object], monkeypatch, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        address = cluster.scheduler_address
        printed = run("features", *options, "--cluster", address)
        assert f"Working on the Dask cluster {address}: 2 workers" in printed
        assert "toy: 20 clips encoded" in printed
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        printed = run("features", *options)
        assert f"Working on the Dask cluster {address}" in printed
        assert "toy: 0 clips encoded, 20 were in the cache" in printed


def test_an_address_without_a_scheduler_is_an_error(
    run: Run, options: list[object], monkeypatch
) -> None:
    assert "expected an address such as tcp://" in run("features", *options, "--cluster", "there")
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr("xacle_stack.cli.cluster._CONNECT_S", 1)
    printed = run("features", *options, "--cluster", "tcp://127.0.0.1:1")
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:1'" in printed
    assert "DASK_SCHEDULER_ADDRESS" in printed


def test_without_dask_the_extra_is_named(run: Run, options: list[object], monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    printed = run("features", *options, "--cluster", "tcp://127.0.0.1:1")
    assert "pip install 'xacle-stack[dask]'" in printed
