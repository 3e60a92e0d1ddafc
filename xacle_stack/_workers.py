"""Runs long tasks side by side in processes that keep their work when they are stopped."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from joblib import cpu_count
from joblib.externals.loky import ProcessPoolExecutor

from xacle_stack.errors import EncoderError

Result = TypeVar("Result")
# Tells a task whether to go on; otherwise the task keeps its work and returns.
GoesOn = Callable[[], bool]
Task = Callable[[GoesOn], Result]


_END_WITH, _WATCH_S = "xacle-stack-end-with-parent", 0.5
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class StoppedError(Exception):
    """The process of a task was told to stop; the task keeps its work."""


def stop_unless(goes_on: GoesOn) -> None:
    """Raise StoppedError if the process should stop."""
    if not goes_on():
        raise StoppedError


def run_side_by_side(tasks: Sequence[Task[Result]], devices: Sequence[str]) -> list[Result]:
    """Run each task in a process of its own and return the results.

    A task that fails, or whose process dies, does not affect the others.  At Ctrl-C in this process
    all tasks are told to stop and are waited for; at a second Ctrl-C they are killed.  If this
    process is killed, the tasks stop by themselves.

    Parameters
    ----------
    tasks : sequence of callable
        Each takes a function that returns whether to go on, and calls it now and then.
    devices : sequence of str of length n_tasks
        Named in messages.

    Raises
    ------
    EncoderError
        If a process dies.
    Exception
        The exception of the first task that failed.
    """
    n_threads = str(max(1, cpu_count() // len(tasks)))
    limits = {name: os.environ.get(name, n_threads) for name in _THREAD_LIMITS}
    with tempfile.TemporaryDirectory() as folder:
        stop = Path(folder) / "stop"
        # Each task has its own pool, because a shared pool kills all processes when one dies.
        # A process that waits, before its task or after it, ends with this one.
        pools = [
            ProcessPoolExecutor(
                max_workers=1, env=limits, initializer=end_with, initargs=(os.getpid(),)
            )
            for _ in tasks
        ]
        try:
            futures: list[Future[Result]] = []
            try:
                for pool, task in zip(pools, tasks, strict=True):
                    futures.append(pool.submit(run_until_stopped, task, stop, os.getpid()))
                wait(futures)
            except BaseException:
                stop.touch()
                wait(futures)
                raise
            return [
                _result(future, device) for future, device in zip(futures, devices, strict=True)
            ]
        finally:
            for pool in pools:
                pool.shutdown(wait=True, kill_workers=True)


def _result(future: Future[Result], device: str) -> Result:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise EncoderError(
            f"the process of device {device!r} died: the system may have ended it for lack of "
            "memory. Its complete segments and all work of the other devices are in the cache. "
            "Run again to go on from there; if it dies again, give a smaller --batch-size or "
            "fewer devices."
        ) from error


def end_with(parent: int) -> None:
    """Make this process end soon after its parent, whatever ended the parent.

    Otherwise joblib's idle workers would wait for minutes or for ever.  The process gets SIGTERM,
    so that a task of :func:`run_until_stopped` keeps its work.  In the parent itself this does
    nothing.

    Parameters
    ----------
    parent : int
        Process id of the parent.
    """
    if os.getpid() != parent and _END_WITH not in (thread.name for thread in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent,), name=_END_WITH, daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os.kill(os.getpid(), signal.SIGTERM)


def run_until_stopped(task: Task[Result], stop: Path, parent: int) -> Result:
    """Run a task in its own process until it ends, or the parent ends or tells it to stop.

    Parameters
    ----------
    task : callable
    stop : Path
        A file that appears when the task should stop.
    parent : int
        Process id of the parent.
    """
    terminated = False

    def terminate(*_: object) -> None:
        nonlocal terminated
        terminated = True

    # A terminal sends Ctrl-C to every process, but only the parent should act on it.
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
    }
    try:
        return task(lambda: not (terminated or stop.exists() or os.getppid() != parent))
    finally:
        if os.getppid() != parent:  # no process would take the result or end this one
            os._exit(1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
