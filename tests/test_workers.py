import os
import signal
from pathlib import Path

import pytest

from xacle_stack._workers import GoesOn, StoppedError, run_until_stopped, stop_unless


def test_a_task_is_told_to_stop_by_its_parent_or_by_the_system(tmp_path: Path) -> None:
    def terminated(goes_on: GoesOn) -> list[bool]:
        before = goes_on()
        os.kill(os.getpid(), signal.SIGTERM)
        return [before, goes_on()]

    stop = tmp_path / "stop"
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run_until_stopped(terminated, stop, os.getppid()) == [True, False]
    stop.touch()
    with pytest.raises(StoppedError):
        run_until_stopped(stop_unless, stop, os.getppid())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_task_without_a_parent_ends_its_process(tmp_path: Path, monkeypatch) -> None:
    class EndedError(Exception):
        """Stands for the end of the process."""

    def end(code: int) -> None:
        raise EndedError(code)

    kept = []
    monkeypatch.setattr("xacle_stack._workers.os._exit", end)
    with pytest.raises(EndedError):
        run_until_stopped(lambda goes_on: kept.append(goes_on()), tmp_path / "stop", parent=-1)
    assert kept == [False]
