"""The one place that limits the threads of BLAS and OpenMP.

The last digits of a matrix product depend on the number of threads that compute it.  Code that
promises the same bits on every machine therefore computes each product with one thread, and several
products side by side.

A BLAS has one number of threads for the whole process; OpenMP has one for each thread of the
process.  If every caller set and restored the number of a BLAS by itself, overlapping calls would
go wrong: the first to end would lift the limit for all, and the last would restore a limit that the
user never set.  So the calls are counted here.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import OpenBLASController, ThreadpoolController

Library = Any  # one of threadpoolctl's controllers of a library that is loaded


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold every BLAS of the process, and OpenMP in this thread, to one thread.

    Calls may be nested, and overlap in several threads.  The first call sets the limit, and the
    last to end restores the numbers that the first found.  A thread that is started meanwhile needs
    a call of its own, because OpenMP's limit belongs to a thread.

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> with one_thread():
    ...     {library["num_threads"] for library in threadpool_info()}
    {1}
    """
    openmp = _LIMIT.enter()
    try:
        with _holding([(library, 1) for library, _ in openmp]):
            yield
    finally:
        _LIMIT.leave()


@contextmanager
def usual_openmp_threads() -> Iterator[None]:
    """Give OpenMP the threads that it had before :func:`one_thread` took them.

    The number is the one that the first call found that holds the limit: where a stack trains
    networks in several threads, all of them use what the thread of the stack has.  Outside of such
    a call nothing changes.  BLAS stays as it is.
    """
    with _holding(_LIMIT.openmp_found if _THREAD.n_calls else []):
        yield


class _ProcessLimit:
    """The limit of the libraries that have one number of threads, held while any call needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_calls = 0
        self._found: list[tuple[Library, int]] = []
        self.openmp_found: list[tuple[Library, int]] = []

    def enter(self) -> list[tuple[Library, int]]:
        """Set the limit if no call holds it yet; return the libraries with limits by thread.

        With each comes the number that the first call found in its thread.
        """
        with self._lock:
            if self._n_calls == 0:
                libraries = ThreadpoolController().lib_controllers
                self.openmp_found = [
                    (one, one.num_threads) for one in libraries if one.user_api == "openmp"
                ]
                self._found = [
                    (one, one.num_threads) for one in libraries if _has_process_limit(one)
                ]
                _set_threads((one, 1) for one, _ in self._found)
            self._n_calls += 1
            _THREAD.n_calls += 1
            return self.openmp_found

    def leave(self) -> None:
        """Restore the numbers found if no other call holds the limit."""
        with self._lock:
            self._n_calls -= 1
            _THREAD.n_calls -= 1
            if self._n_calls == 0:
                _set_threads(self._found)

    def before_fork(self) -> None:
        """Wait until no other thread is halfway through a change."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Allow changes again."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Forget the calls of the threads that the child does not have."""
        self._lock = threading.Lock()
        was_held, self._n_calls = self._n_calls > 0, _THREAD.n_calls
        if was_held and self._n_calls == 0:
            _set_threads(self._found)


class _ThreadState(threading.local):
    """How many calls a thread is in."""

    n_calls = 0


def _has_process_limit(library: Library) -> bool:
    """Tell whether a library has one number of threads for the process.

    An OpenBLAS built on OpenMP uses OpenMP's number for the thread that calls it.
    """
    follows_openmp = library.internal_api == "openblas" and library.threading_layer == "openmp"
    return library.user_api == "blas" and not follows_openmp


def _set_threads(wanted: Iterable[tuple[Library, int]]) -> None:
    # threadpoolctl 3.7 and newer lets only one thread change the numbers.  The count of calls above
    # already keeps threads apart, so every thread may.
    release = getattr(OpenBLASController, "clear_controlling_thread", None)
    for library, n_threads in wanted:
        if release is not None:
            release(force=True)
        library.set_num_threads(n_threads)
    if release is not None:
        release(force=True)


@contextmanager
def _holding(wanted: list[tuple[Library, int]]) -> Iterator[None]:
    found = [(library, library.num_threads) for library, _ in wanted]
    for library, n_threads in wanted:
        library.set_num_threads(n_threads)
    try:
        yield
    finally:
        for library, n_threads in found:
            library.set_num_threads(n_threads)


_THREAD = _ThreadState()
_LIMIT = _ProcessLimit()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_LIMIT.before_fork,
        after_in_parent=_LIMIT.after_fork_in_parent,
        after_in_child=_LIMIT.after_fork_in_child,
    )
