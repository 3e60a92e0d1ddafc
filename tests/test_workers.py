import os
import signal
import subprocess
import sys
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed in forks")
def test_a_worker_ends_when_the_process_that_it_works_for_is_killed() -> None:
    # The parent kills itself once its worker watches; the worker would stay for ever.
    code = """
import os, signal
from xacle_stack._workers import end_with
reading, writing = os.pipe()
parent = os.getpid()
end_with(parent)
if os.fork() == 0:
    end_with(parent)
    os.write(writing, b"1")
    signal.pause()
os.read(reading, 1)
os.kill(parent, signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as killed:
        # Its end is reached when the last process that has the pipe is gone, the worker too.
        assert killed.communicate(timeout=60)[0] == b""
    assert killed.returncode == -signal.SIGKILL


# One task is done when the parent kills itself, and one is at work.
KILLED = """
import os, signal, time
from pathlib import Path
from xacle_stack._workers import run_side_by_side

def done_at_once(goes_on):
    Path(os.environ["PLACE"], "done").touch()

def at_work(goes_on):
    while not Path(os.environ["PLACE"], "done").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(os.getppid(), signal.SIGKILL)
    while goes_on():
        time.sleep(0.01)
    time.sleep(1.5)  # longer than a process without a parent stays that does nothing
    Path(os.environ["PLACE"], "kept").touch()

run_side_by_side([done_at_once, at_work], ["a", "b"])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_no_process_of_a_device_outlives_one_that_is_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PLACE": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], stdout=subprocess.PIPE, env=environment
    ) as killed:
        assert killed.communicate(timeout=100)[0] == b""
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "kept").exists()  # a task that is at work keeps what it has
