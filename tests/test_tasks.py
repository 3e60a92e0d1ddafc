import gc
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor
from worker_tasks import (
    count_unpickled,
    die_once,
    fail_on_three,
    raise_what_stays,
    return_what_stays,
    square,
)

from xacle_stack import _tasks
from xacle_stack._tasks import run_tasks, runs_elsewhere
from xacle_stack.errors import CacheError, WorkerError

NAMES = [f"rows {number}" for number in range(5)]


@pytest.fixture(scope="module", autouse=True)
def _no_worker_left():
    yield
    get_reusable_executor().shutdown(wait=True, kill_workers=True)


@pytest.mark.parametrize("n_jobs", [None, 1, 2, -1])
def test_threads_return_results_in_order(n_jobs: int | None) -> None:
    found = list(run_tasks(partial(square, 1), range(5), names=NAMES, n_jobs=n_jobs))
    assert found == [(number**2 + 1, os.getpid()) for number in range(5)]
    assert not runs_elsewhere()


def test_the_number_of_jobs_may_come_from_the_context() -> None:
    barrier = threading.Barrier(2, timeout=60)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        # Each of the two waits for the other, so one alone would never end.
        assert len(list(run_tasks(lambda _: barrier.wait(), [0, 1], names=["a", "b"]))) == 2


def test_processes_return_the_same_in_order() -> None:
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert runs_elsewhere()
        found = list(run_tasks(partial(square, 1), range(5), names=NAMES))
    assert [value for value, _ in found] == [number**2 + 1 for number in range(5)]
    assert os.getpid() not in {pid for _, pid in found}


@pytest.mark.parametrize("backend", ["threading", "loky"])
@pytest.mark.parametrize("first", [0, 4])
def test_a_task_that_fails_is_named(backend: str, first: int) -> None:
    with joblib.parallel_config(backend=backend, n_jobs=2):
        if first == 0:
            with pytest.raises(CacheError, match=r"^rows 3: the disk is full"):
                list(run_tasks(fail_on_three, range(4), names=NAMES[:4]))
        else:
            with pytest.raises(ZeroDivisionError) as caught:
                list(run_tasks(fail_on_three, [4], names=["rows 4"]))
            assert "rows 4" in caught.value.__notes__[0]


def test_what_cannot_be_sent_back_is_one_clear_error() -> None:
    with joblib.parallel_config(backend="loky", n_jobs=2):
        with pytest.raises(WorkerError, match=r"the task 'rows \d' cannot be sent .*stays here"):
            list(run_tasks(return_what_stays, range(5), names=NAMES))
        with pytest.raises(WorkerError, match=r"on a worker: .*CannotTravelError: bad input"):
            list(run_tasks(raise_what_stays, range(5), names=NAMES))


@pytest.mark.parametrize("has_folder", [False, True])
def test_a_worker_unpickles_a_function_once(tmp_path: Path, has_folder: bool) -> None:
    function = partial(count_unpickled, np.zeros(10_000, np.uint8))
    folder = tmp_path if has_folder else None
    with joblib.parallel_config(backend="loky", n_jobs=2):
        found = run_tasks(function, range(20), names=[str(n) for n in range(20)], folder=folder)
        first = next(found)
        assert len(list(tmp_path.iterdir())) == has_folder
        found = [first, *found]
    assert [number for _, _, number in found] == list(range(20))
    assert len({(pid, address) for pid, address, _ in found}) == len({pid for pid, _, _ in found})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_a_killed_run_is_deleted_and_a_changed_one_is_not_obeyed(tmp_path: Path) -> None:
    left = tmp_path / ".tasks-1-00000000.part"
    left.write_bytes(b"left")
    clip = tmp_path / "clip.wav"
    clip.touch()
    with _tasks._sent(len, tmp_path, [clip]) as sent:
        (path,) = tmp_path.glob(".tasks*")
        assert path != left
        content = sent.read()
        path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
        with pytest.raises(WorkerError, match="changed"):
            sent.read()
        path.write_bytes(content)
        clip.unlink()
        with pytest.raises(WorkerError, match="cannot read .*clip.wav"):
            sent.read()
        with pytest.raises(WorkerError, match="has .*Python.* not xacle-stack 0"):
            replace(sent, versions=("xacle-stack 0",)).read()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_worker_that_dies_is_one_clear_error(tmp_path: Path) -> None:
    function = partial(die_once, tmp_path / "marker")
    with joblib.parallel_config(backend="loky", n_jobs=2):
        with pytest.raises(WorkerError, match=r"worker process died.*\. Run again\.$"):
            list(run_tasks(function, range(5), names=NAMES, kept="Run again."))
        assert list(run_tasks(function, range(5), names=NAMES)) == list(range(5))


KILLED = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
import joblib
from xacle_stack._tasks import run_tasks

def meet(folder, name):  # each of the two workers has a task: one without ends after minutes
    (folder / name).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return name

with joblib.parallel_config(backend="loky", n_jobs=2):
    assert list(run_tasks(partial(meet, Path(sys.argv[1])), ["a", "b"])) == ["a", "b"]
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_workers_of_loky_end_with_the_process_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        # Its end is reached when the last process that has the pipe is gone.
        assert killed.communicate(timeout=100)[0] == b""
    assert killed.returncode == -signal.SIGKILL


def note(done: list[int], number: int) -> int:
    done.append(number)
    return number


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_whoever_takes_no_more_gets_no_more_and_no_warning(n_jobs: int) -> None:
    done: list[int] = []
    found = run_tasks(
        partial(note, done), range(500), names=[str(n) for n in range(500)], n_jobs=n_jobs
    )
    assert next(found) == 0
    found.close()
    gc.collect()
    n_done = len(done)
    assert n_done < 500
    assert list(run_tasks(partial(note, done), [1], names=["1"], n_jobs=n_jobs)) == [1]
