"""``xacle-stack serve`` as a process of its own."""

import inspect
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from xacle_stack import Scorer
from xacle_stack.cli.serve import serve
from xacle_stack.features import PairEmbeddings
from xacle_stack.recipe import recipe_from


@pytest.fixture
def model(tmp_path: Path) -> Path:
    settings = {"spaces": ["mini-mel"], "features": {"n_components": 2}}
    recipe = recipe_from({"name": "mel", **settings, "stacker": {"preset": "paper"}}, "a test")
    vectors = np.random.default_rng(0).normal(size=(2, 40, 64))
    scorer = Scorer(recipe).fit(PairEmbeddings({"mini-mel": tuple(vectors)}), np.arange(40.0) / 4)
    return scorer.save(tmp_path / "mine")


def test_it_listens_on_this_machine_only_unless_told_otherwise() -> None:
    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"


def test_it_answers_and_ends_at_sigterm(model: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "from xacle_stack.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(model), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        health = wait_for(f"http://127.0.0.1:{port}/health", process)
        assert health["status"] == "ready"
        assert health["model"] == "mine"
    finally:
        process.send_signal(signal.SIGTERM)
        out, error = process.communicate(timeout=60)
    assert process.returncode in (0, 143)
    assert f"http://127.0.0.1:{port}" in out
    assert error == ""


def wait_for(url: str, process: subprocess.Popen[str]) -> dict[str, str]:
    for _ in range(600):
        assert process.poll() is None, process.communicate()
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(0.1)
    raise AssertionError("no answer within a minute")


def test_a_port_in_use_is_told(model: Path) -> None:
    pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code = "from xacle_stack.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "serve", str(model), "--port", port],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert port in done.stderr
    assert "--port" in done.stderr


def test_without_uvicorn_the_extra_is_named(model: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from xacle_stack.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", str(model)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "xacle-stack[serve]" in done.stderr
