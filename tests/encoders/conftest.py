"""Tiny checkpoints in the real files' format, written once for all workers of a run."""

import json
import os
from collections.abc import Callable

import pytest
from random_checkpoints import choose, info_of

from xacle_stack.encoders import EncoderChoice

Choose = Callable[[str], EncoderChoice]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Choose:
    """Return a function that gives an encoder with its tiny checkpoint, or skips the test."""
    own = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist have a folder each, side by side.
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "checkpoints"
    choices: dict[str, EncoderChoice] = {}

    def get(name: str) -> EncoderChoice:
        info = info_of(name)
        if not info.is_installed:
            pytest.skip(f"{name} needs {', '.join(info.requires)}, which is not installed")
        if name not in choices:
            from filelock import FileLock  # PyTorch needs it, so it is here

            root.mkdir(exist_ok=True)
            done = root / f"{name}.json"
            with FileLock(root / f"{name}.lock"):
                if not done.exists():
                    choice = choose(root / name, name)
                    done.write_text(json.dumps([choice.name, choice.checkpoint, choice.code]))
            called, checkpoint, code = json.loads(done.read_text())
            choices[name] = EncoderChoice(called, checkpoint, code=code)
        return choices[name]

    return get
