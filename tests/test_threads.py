import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from xacle_stack._threads import one_thread, usual_openmp_threads
from xacle_stack.stacking import Stacker


def threads_of(user_api: str) -> set[int]:
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == user_api}


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """On every machine, whatever its processors."""
    with threadpool_limits(2):
        yield


def test_nested_calls_are_one() -> None:
    before = threadpool_info()
    with one_thread():
        with one_thread():
            assert threads_of("blas") == threads_of("openmp") == {1}
        assert threads_of("blas") == threads_of("openmp") == {1}
    assert threadpool_info() == before


class Visitor(threading.Thread):
    """A thread that enters and leaves the limit when it is told to, and notes what it sees."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._told, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.seen: list[set[int]] = []
        self.start()

    def run(self) -> None:
        self._wait()
        try:
            with one_thread():
                self.seen.append(threads_of("blas") | threads_of("openmp"))
                self._wait()
                self.seen.append(threads_of("blas") | threads_of("openmp"))
                raise ArithmeticError  # leaving by an exception is leaving
        except ArithmeticError:
            self._wait()

    def _wait(self) -> None:
        self._done.release()
        self._told.acquire()

    def step(self) -> None:
        self._done.acquire()
        self._told.release()
        self._done.acquire()
        self._done.release()


@pytest.mark.parametrize("order", ["0011", "0101", "0110", "001212", "010212", "012012", "012210"])
def test_threads_that_overlap_in_any_order_leave_what_they_found(order: str) -> None:
    before = threadpool_info()
    visitors = [Visitor() for _ in set(order)]
    inside: set[str] = set()
    for one in order:
        visitors[int(one)].step()
        inside ^= {one}
        assert threads_of("blas") == ({1} if inside else {2}), order
    assert all(seen == {1} for visitor in visitors for seen in visitor.seen)
    assert threadpool_info() == before


def test_the_usual_threads_are_those_that_the_outermost_limit_of_this_thread_found() -> None:
    before = threadpool_info()
    with one_thread(), one_thread():
        with usual_openmp_threads():
            assert (threads_of("blas"), threads_of("openmp")) == ({1}, {2})
            with one_thread():
                assert threads_of("openmp") == {1}
                with usual_openmp_threads():
                    assert threads_of("openmp") == {2}
            assert threads_of("openmp") == {2}
        assert threads_of("openmp") == {1}
    assert threadpool_info() == before


def test_outside_of_a_limit_the_usual_threads_are_those_that_are_set() -> None:
    with one_thread():
        pass
    with threadpool_limits(1, user_api="openmp"), usual_openmp_threads():
        assert threads_of("openmp") == {1}


def test_threads_that_work_for_a_call_use_what_its_thread_has() -> None:
    found: list[set[int]] = []

    def visit() -> None:
        with one_thread(), usual_openmp_threads():
            found.append(threads_of("openmp"))

    with threadpool_limits(3, user_api="openmp"), one_thread():
        thread = threading.Thread(target=visit)  # of its own accord it would use two
        thread.start()
        thread.join()
        with usual_openmp_threads():
            found.append(threads_of("openmp"))
    assert found == [{3}, {3}]


FORK = """
import os, sys, threading
import numpy, scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits
from xacle_stack._threads import one_thread

def blas():
    return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

def in_child(work):
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def limited_again():
    with one_thread():
        inside = blas()
    return inside == {1} and blas() == {2}

threadpool_limits(2)
inside, leave = threading.Event(), threading.Event()

def hold():
    with one_thread():
        inside.set()
        leave.wait()

# A thread that the child does not have held the limit.
thread = threading.Thread(target=hold)
thread.start()
inside.wait()
codes = [in_child(lambda: blas() == {2} and limited_again())]
# The parent's is held on.
codes.append(0 if blas() == {1} else 1)
# The thread that forks holds it too: what it computes in the child is within its own limit.
with one_thread():
    codes.append(in_child(lambda: blas() == {1}))
    child = os.fork()
if child == 0:
    os._exit(0 if blas() == {2} and limited_again() else 1)
codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
leave.set()
thread.join()
codes.append(0 if blas() == {2} else 1)
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_limited_by_its_own_threads_only() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 0, 0, 0, 0]\n", "")


def test_fits_side_by_side_give_the_bits_that_they_give_alone() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 40))
    y = X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=300)
    before = threadpool_info()

    def scores(preset: str) -> bytes:
        return Stacker(preset=preset, n_splits=2, random_state=0).fit(X, y).predict(X).tobytes()

    presets = ["paper", "best", "paper"]
    alone = {preset: scores(preset) for preset in set(presets)}
    found: list[tuple[str, bytes]] = []
    threads = [
        threading.Thread(target=lambda preset=preset: found.append((preset, scores(preset))))
        for preset in presets
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted((preset, alone[preset]) for preset in presets)
    assert threadpool_info() == before
