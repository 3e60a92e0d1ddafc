"""Long tasks side by side, one process each, that can be told to stop and then keep their work."""

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
# Tells a task whether to go on; one that is told not to keeps what it has and returns.
GoesOn = Callable[[], bool]
Task = Callable[[GoesOn], Result]


_END_WITH, _WATCH_S = "xacle-stack-end-with-parent", 0.5
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class StoppedError(Exception):
    """The process of a task was told to stop; the task keeps what it has done."""


def stop_unless(goes_on: GoesOn) -> None:
    """Raise StoppedError where the process should not go on."""
    if not goes_on():
        raise StoppedError


def run_side_by_side(tasks: Sequence[Task[Result]], devices: Sequence[str]) -> list[Result]:
    """Run each task in a process of its own, and return what they return.

    One that fails, or whose process dies, leaves the others alone.  At Ctrl-C or SIGTERM in this
    process all are told to stop, and are waited for; at a second one they are killed.  Where this
    process is killed, they stop by themselves.

    Parameters
    ----------
    tasks : sequence of callable
        Each is called with a function that tells whether to go on, and asks it now and then.
    devices : sequence of str of length n_tasks
        For messages.

    Raises
    ------
    EncoderError
        If a process died.
    Exception
        What the first task that failed has raised.
    """
    n_threads = str(max(1, cpu_count() // len(tasks)))
    limits = {name: os.environ.get(name, n_threads) for name in _THREAD_LIMITS}
    with tempfile.TemporaryDirectory() as folder:
        stop = Path(folder) / "stop"
        # A pool each: where the process of one dies, a common pool would kill all.
        pools = [ProcessPoolExecutor(max_workers=1, env=limits) for _ in tasks]
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
            "memory. Its complete segments are in the cache, and all that the other devices "
            "encoded. Run again, it goes on from there; if it dies again, give a smaller "
            "--batch-size or fewer devices."
        ) from error


def end_with(parent: int) -> None:
    """End this process soon after another one has ended that waits for it, however that ended.

    In the process itself nothing is done.  Joblib's idle workers would wait for minutes.

    Parameters
    ----------
    parent : int
        The number of the process.
    """
    if os.getpid() != parent and _END_WITH not in (one.name for one in threading.enumerate()):
        threading.Thread(target=_watch, args=(parent,), name=_END_WITH, daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)


def run_until_stopped(task: Task[Result], stop: Path, parent: int) -> Result:
    """Run a task in a process of its own until it ends, or is told to by the parent or its end.

    Parameters
    ----------
    task : callable
    stop : Path
        A file that appears when the task should stop.
    parent : int
        The process that waits for the task.
    """
    terminated = False

    def terminate(*_: object) -> None:
        nonlocal terminated
        terminated = True

    # A terminal sends Ctrl-C to every process: it is the parent's to tell.
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
    }
    try:
        return task(lambda: not (terminated or stop.exists() or os.getppid() != parent))
    finally:
        if os.getppid() != parent:  # nobody takes a result, or ends this process
            os._exit(1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
