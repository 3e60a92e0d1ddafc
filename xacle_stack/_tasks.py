"""Runs tasks side by side through joblib: in threads, or wherever its active backend runs them.

A task needs no shared memory: it is a function that can be pickled, with an argument of its own.
So ``joblib.parallel_config(backend="dask")`` brings the same tasks to a cluster, and ``"ray"`` and
``"loky"`` to theirs.  The results come back in order, whichever worker made them.
"""

import ctypes
import hashlib
import os
import pickle
import platform
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import InvalidStateError
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.externals.loky.backend.reduction import dumps
from joblib.parallel import get_active_backend

from xacle_stack._files import PARTIAL_SUFFIX, delete_leftover, lock
from xacle_stack._workers import end_with
from xacle_stack.errors import WorkerError, XacleStackError, bullet_list

Argument = TypeVar("Argument")
Result = TypeVar("Result")

# Names of errors that mean the end of a worker or of a cluster: joblib's, Dask's and Ray's.
_DEATHS = frozenset(
    {"BrokenProcessPool", "KilledWorker", "CancelledError", "RayActorError", "WorkerCrashedError"}
)
_WORKERS_NEED = (
    "Every worker needs the versions of this process, and must see the store and the audio files "
    "under the same paths."
)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_PREFIX = ".tasks-"
# Backends that return everything at once are given so many tasks a worker at a time.
_WINDOW = 4
# So long a Dask cluster may have no worker at all, and so often we look.
_NO_WORKERS_S, _LOOK_S = 300.0, 5.0


def run_tasks(
    function: Callable[[Argument], Result],
    arguments: Sequence[Argument],
    *,
    names: Sequence[str] | None = None,
    n_jobs: int | None = None,
    kept: str = "",
    folder: Path | None = None,
    files: Sequence[Path] = (),
) -> Generator[Result, None, None]:
    """Apply a function to each argument, and yield the results in order.

    Parameters
    ----------
    function : callable
        At the level of a module, or a :func:`~functools.partial` of one with what all tasks need.
        Outside of this process it is pickled once, and each worker unpickles it once.
    arguments : sequence of length n_tasks
        Each travels with its own task.
    names : sequence of str of length n_tasks, optional
        Named in errors, for example ``"pairs 0-2047"``.  By default the errors of the function say
        by themselves what they are of.
    n_jobs : int, optional
        As in joblib; None for what ``joblib.parallel_config`` says, or else 1.  Dask uses all
        workers whatever it is.
    kept : str, optional
        What to tell a user whose worker dies: what is kept and what to do.
    folder : Path, optional
        A folder that all workers must see.  While they run tasks, the function is in a hidden file
        there, and the tasks carry its path only.
    files : sequence of Path, optional
        Files that all workers must see, too.

    Yields
    ------
    result : object

    Raises
    ------
    WorkerError
        If a worker dies and the backend does not run its task again, does not see the folder or a
        file, has another version of this library, or cannot send a result back; or if a Dask
        cluster has no worker for five minutes.
    Exception
        That of the first task that fails.  The name of the task stands in front of the message of
        an error of this library, and in a note to others.

    Examples
    --------
    >>> list(run_tasks(len, ["a", "bcd"], names=["first", "second"]))
    [1, 3]
    """
    if len(arguments) == 0:
        return  # Ray would start its processes for nothing
    if names is None:
        names = [""] * len(arguments)
    if not runs_elsewhere(n_jobs):
        calls = [
            delayed(_call)(function, name, argument)
            for name, argument in zip(names, arguments, strict=True)
        ]
        n_jobs = 1 if len(calls) == 1 else n_jobs  # joblib waits for threads in steps of 10 ms
        yield from _results(calls, n_jobs)
        return
    with _sent(function, folder, files) as sent, _deaths_told(kept):
        _check_workers(sent)
        calls = [
            delayed(_call_elsewhere)(sent, name, argument)
            for name, argument in zip(names, arguments, strict=True)
        ]
        with closing(_results(calls, n_jobs)) as results, _errors_unpacked():
            for result in results:
                yield pickle.loads(result)


def runs_elsewhere(n_jobs: int | None = None) -> bool:
    """Return whether tasks leave this process, because of the backend that the caller chose.

    They stay where that backend has one core only: joblib then needs no worker.  A WorkerError says
    that it has none.
    """
    backend, _ = get_active_backend(prefer="threads")
    try:
        return not getattr(backend, "supports_sharedmem", False) and effective_n_jobs(n_jobs) > 1
    except TimeoutError as error:  # joblib waits ten seconds for the first worker of Dask
        raise WorkerError(str(error)) from error


def _results(calls: Sequence[Any], n_jobs: int | None) -> Generator[Any, None, None]:
    """Yield results in order; if the caller takes no more, nothing more is begun."""
    backend, _ = get_active_backend(prefer="threads")
    settings = {"n_jobs": n_jobs, "prefer": "threads", "batch_size": 1}
    if n_jobs is None:  # joblib takes None for 1, where a context says more
        del settings["n_jobs"]
    if not backend.supports_return_generator:
        window = _WINDOW * effective_n_jobs(n_jobs)
        with Parallel(**settings) as parallel:
            for start in range(0, len(calls), window):
                yield from parallel(calls[start : start + window])
        return
    _tell_joblib_of_deaths(backend)
    outputs = Parallel(return_as="generator", **settings)(calls)
    try:
        with _lack_of_workers_told(backend):
            for result in outputs:  # noqa: UP028  # `yield from` would close it, which warns
                yield result
    except BaseException:
        with suppress(_NoMoreError):
            outputs.throw(_NoMoreError())
        # joblib holds the futures of a call that ended early, and Dask would go on with them.
        futures = getattr(backend, "_callbacks", {})
        while futures:
            futures.popitem()[0].cancel()
        raise


def _tell_joblib_of_deaths(backend: Any) -> None:
    """Let a task that Dask gives up, or loses, end the call with its error.

    joblib (1.5, 1.6) calls back for results only.  Where workers died of a task too often it would
    wait for ever, and where the scheduler is lost it would take the error for a list of results.
    When a call ends early it empties a queue that the thread of Dask's client empties, too, and
    whichever comes second would wait for ever: so that thread does it.
    """
    if not hasattr(backend, "client") or "submit" in vars(backend):
        return
    submit, retrieve = backend.submit, backend.retrieve_result_callback
    abort = backend.abort_everything

    def submit_and_tell(batch: Any, callback: Callable[[Any], None]) -> Any:
        def tell(job: Any) -> None:
            if job.exception() is not None:
                callback(job.exception())

        job = submit(batch, callback)
        job.add_done_callback(tell)
        return job

    def raise_or_retrieve(found: Any) -> Any:
        if isinstance(found, BaseException):
            raise found
        return retrieve(found)

    def abort_in_thread(ensure_ready: bool = True) -> None:
        async def in_thread() -> None:
            abort(ensure_ready)

        with suppress(Exception):  # of a client that is closed
            backend.client.sync(in_thread, callback_timeout=10)

    backend.submit, backend.retrieve_result_callback = submit_and_tell, raise_or_retrieve
    backend.abort_everything = abort_in_thread


@contextmanager
def _lack_of_workers_told(backend: Any) -> Iterator[None]:
    """End the call with an error where a Dask cluster has had no worker for long.

    Dask itself waits for ever, also for the workers of a `LocalCluster`, which gives up one that
    starts slowly after a death.
    """
    if not hasattr(backend, "client"):
        yield
        return
    over = threading.Event()

    def watch() -> None:
        seen = time.monotonic()
        while not over.wait(_LOOK_S):
            try:
                found = backend.client.ncores()
            except Exception:  # where the scheduler is lost, joblib hears of it by itself
                continue
            if found:
                seen = time.monotonic()
            elif time.monotonic() - seen > _NO_WORKERS_S:
                error = WorkerError(
                    f"the Dask cluster {backend.client.scheduler.address} has had no worker for "
                    f"{_NO_WORKERS_S:.0f} seconds. Look at the logs of its workers, and start some."
                )
                for job in [*backend._results.values()]:
                    with suppress(InvalidStateError):
                        job.set_exception(error)
                return

    threading.Thread(target=watch, name="xacle-stack-workers", daemon=True).start()
    try:
        yield
    finally:
        over.set()


class _NoMoreError(Exception):
    """Ends joblib's generator."""


def _call(function: Callable[[Argument], Result], name: str, argument: Argument) -> Result:
    if not name:
        return function(argument)
    try:
        return function(argument)
    except XacleStackError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:
        error.add_note(f"This was the task {name!r}.")
        raise


@dataclass(frozen=True)
class _SentFunction:
    """A pickled function, or the path of a file with it, and what workers must have."""

    digest: str
    content: bytes = field(compare=False, repr=False)
    path: Path | None = field(default=None, compare=False)
    files: tuple[Path, ...] = field(default=(), compare=False)
    versions: tuple[str, ...] = field(default_factory=lambda: _versions())
    sender: int = field(default_factory=os.getpid, compare=False)

    def read(self) -> bytes:
        """Return the pickled function, or raise a WorkerError that says what this process lacks."""
        if (versions := _versions()) != self.versions:
            raise WorkerError(f"it has {_listed(versions)}, not {_listed(self.versions)}.")
        try:
            content = self.content if self.path is None else self.path.read_bytes()
            for file in self.files:
                file.stat()
        except OSError as error:
            raise WorkerError(f"it cannot read {error.filename} ({error.strerror}).") from error
        # Whoever may write to the folder shall not be able to run code here.
        if _digest(content) != self.digest:
            raise WorkerError(f"it finds {self.path} changed.")
        return content


def _versions() -> tuple[str, ...]:
    """Return what has to be the same where one process pickles and another unpickles."""
    python, numpy = platform.python_version_tuple(), version("numpy").partition(".")[0]
    return (
        f"xacle-stack {version('xacle-stack')}",
        f"Python {python[0]}.{python[1]}",
        f"NumPy {numpy}",
    )


def _listed(versions: Sequence[str]) -> str:
    return ", ".join(versions)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@contextmanager
def _sent(
    function: Callable[..., Any], folder: Path | None = None, files: Sequence[Path] = ()
) -> Iterator[_SentFunction]:
    content = bytes(dumps(function))  # also what stands in a notebook
    if folder is None:
        yield _SentFunction(_digest(content), content)
        return
    with _hidden_file(folder.absolute(), content) as path:
        yield _SentFunction(_digest(content), b"", path, tuple(map(Path.absolute, files)))


@contextmanager
def _hidden_file(folder: Path, content: bytes) -> Iterator[Path]:
    for left in folder.glob(f"{_PREFIX}*{PARTIAL_SUFFIX}"):  # by processes that were killed
        delete_leftover(left)
    path = folder / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
    try:
        file = path.open("xb")
    except OSError as error:
        raise WorkerError(
            f"{folder}: cannot be written ({error.strerror}). While workers run tasks, what they "
            "share is in a hidden file there: name a store that you may write to."
        ) from error
    with file:
        try:
            lock(file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)


def _check_workers(sent: _SentFunction) -> None:
    """Name all workers of a Dask cluster that cannot take part; others are found by their tasks."""
    backend, _ = get_active_backend(prefer="threads")
    if not hasattr(backend, "client"):
        return
    found = backend.client.run(_reason, sent, on_error="return")
    reasons = [
        f"{address}: {reason}"
        for address, reason in found.items()
        if reason and not isinstance(reason, OSError)  # which has died since: others will do
    ]
    if reasons:
        raise WorkerError(
            f"{len(reasons)} of {len(found)} workers cannot take part:\n{bullet_list(reasons)}\n"
            f"{_WORKERS_NEED}"
        )


def _reason(sent: _SentFunction) -> str:
    try:
        sent.read()
    except WorkerError as error:
        return str(error)
    return ""


# The one state of a module that changes: a worker keeps what it unpickled last, such as loaded
# encoders, because whatever else could hold it ends with the task.
_UNPICKLING = threading.Lock()


@lru_cache(maxsize=1)
def _unpickled(sent: _SentFunction) -> Callable[[Any], Any]:
    _keep_freed_memory()
    try:
        return pickle.loads(sent.read())
    except WorkerError as error:
        name = f"process {os.getpid()} of {platform.node()}"
        raise WorkerError(f"the worker in {name}: {error} {_WORKERS_NEED}") from None


def _keep_freed_memory() -> None:
    """Let glibc keep what NumPy frees, where nobody but Dask's nanny decided otherwise.

    With the nanny's MALLOC_TRIM_THRESHOLD_ the memory of every larger array goes back to the system
    and is asked for again, which doubles the time of encoding and scoring.  The new limits are
    those that glibc finds by itself without that variable.
    """
    if sys.platform == "linux" and os.environ.get("MALLOC_TRIM_THRESHOLD_") == "65536":
        with suppress(OSError, AttributeError):  # another C library
            c_library = ctypes.CDLL(None)
            c_library.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
            c_library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)


class _PackedError(Exception):
    """The error of a task: its bytes, its text and where it was raised.

    Dask would wait for ever for one that cannot be pickled here or unpickled there.
    """

    def __init__(self, content: bytes, text: str, trace: str) -> None:
        super().__init__(content, text, trace)
        self.content, self.text, self.trace = content, text, trace

    def __str__(self) -> str:
        return f"on a worker:\n{self.trace}"

    def unpacked(self) -> Exception:
        """Return the error of the task, or a WorkerError that says what it said."""
        try:
            return pickle.loads(self.content)
        except Exception:
            return WorkerError(f"a task failed on a worker: {self.text}")


def _call_elsewhere(sent: _SentFunction, name: str, argument: Any) -> bytes:
    """Return a pickled result, or raise a _PackedError, which every backend can send back."""
    if os.getppid() == sent.sender:  # loky's process, which would wait for minutes
        end_with(sent.sender)
    try:
        with _UNPICKLING:
            function = _unpickled(sent)
        with parallel_config(backend="sequential"):  # the tasks fill the workers already
            result = _call(function, name, argument)
        return _pickled_result(result, name)
    except Exception as error:
        packed = _packed(error)
    raise packed  # here, because Dask sends what is being handled, too


def _pickled_result(result: Any, name: str) -> bytes:
    try:
        return bytes(dumps(result))
    except Exception as error:
        which = f" of the task {name!r}" if name else ""
        raise WorkerError(
            f"the result{which} cannot be sent from a worker ({type(error).__name__}: {error}). "
            "Whatever is fitted on a cluster must be possible to pickle."
        ) from error


def _packed(error: Exception) -> _PackedError:
    try:
        content = bytes(dumps(error))
    except Exception:
        content = b""
    text = "".join(traceback.format_exception_only(error)).strip()
    return _PackedError(content, text, "".join(traceback.format_exception(error)))


@contextmanager
def _errors_unpacked() -> Iterator[None]:
    try:
        yield
    except _PackedError as packed:
        raise packed.unpacked() from packed


@contextmanager
def _deaths_told(kept: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if _DEATHS.isdisjoint(kind.__name__ for kind in type(error).__mro__):
            raise
        raise WorkerError(
            f"a worker process died, or its cluster was closed ({type(error).__name__}). The "
            f"system may have ended it for lack of memory. {kept}".rstrip()
        ) from error
