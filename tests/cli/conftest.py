import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xacle_stack import cli


@pytest.fixture
def run(capfd, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return a function that runs a command and returns what it prints, or its error.

    Its attribute `exit_code` is that of the last command.
    """
    before = signal.getsignal(signal.SIGTERM)

    def main(*arguments: object) -> str:
        with contextlib.chdir(tmp_path), pytest.raises(SystemExit) as exit_:
            cli.main([str(argument) for argument in arguments])
        main.exit_code = exit_.value.code or 0
        return "".join(capfd.readouterr())

    yield main
    signal.signal(signal.SIGTERM, before)
