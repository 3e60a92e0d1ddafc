"""Spoiled files of every kind, each used in a process whose time and memory are watched.

A use must end within 20 s, take less than 1 GiB beside what the process held before, and either
give a result or one of our errors.  ``python benchmarks/bench_fuzz.py 200`` spoils 200 of each.
"""

import multiprocessing as mp
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from report import ROOT, report

sys.path.insert(0, str(ROOT / "tests"))
from fuzzing import TARGETS, outcome, spoiled  # tests/ is no package

N_FILES = 2_000
LIMIT_S, LIMIT_MIB = 20.0, 1024.0
Result = tuple[str, str, float]


def memory_mib(field: str) -> float:
    """Return what Linux says of this process's memory, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in status if line.startswith(field)) / 1024


def work(pipe: Connection) -> None:
    """Use what comes through a pipe, one file after the other, and send back how it ended."""
    pipe.send("imported")
    while (task := pipe.recv()) is not None:
        name, good, seed = task
        with tempfile.TemporaryDirectory() as folder:
            files = spoiled(TARGETS[name], good, seed, Path(folder) / "files")
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            before, said = memory_mib("VmRSS"), ""
            try:
                ended = outcome(TARGETS[name], files)
            except Exception:
                ended, said = "another exception", traceback.format_exc()
            pipe.send((ended, said, memory_mib("VmHWM") - before))


class Worker:
    """A process that uses spoiled files; a new one when it dies or hangs."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = mp.Pipe()
        self._process = mp.get_context("spawn").Process(target=work, args=(theirs,), daemon=True)
        self._process.start()
        self._pipe.recv()  # imports do not count

    def use(self, name: str, good: Path, seed: int) -> Result:
        """Return how one use ended, what was said and the MiB that it took."""
        self._pipe.send((name, good, seed))
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            if self._pipe.poll(0.2):
                result: Result = self._pipe.recv()
                return result
            if not self._process.is_alive():
                code = self._process.exitcode
                self._start()
                return "crash", f"exit code {code}", 0.0
        self._process.kill()
        self._start()
        return "hang", f"longer than {LIMIT_S:.0f} s", 0.0

    def end(self) -> None:
        """Let the process go."""
        self._pipe.send(None)
        self._process.join()


def main(n_files: int) -> None:
    """Spoil `n_files` of each kind and report."""
    worker, rows, faults = Worker(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, target in TARGETS.items():
            good = Path(folder) / str(len(rows))
            target.prepare(good)
            ends: Counter[str] = Counter()
            seconds, memory = [], []
            for seed in range(n_files):
                start = time.perf_counter()
                ended, said, mib = worker.use(name, good, seed)
                seconds.append(time.perf_counter() - start)
                memory.append(mib)
                if mib > LIMIT_MIB:
                    ended, said = "too much memory", f"{mib:.0f} MiB"
                ends[ended] += 1
                if ended not in ("used", "refused"):
                    faults.append(f"{name}, seed {seed}: {ended}\n{said}")
            bad = n_files - ends["used"] - ends["refused"]
            slowest, largest = float(np.max(seconds)), float(np.max(memory))
            row = [name, n_files, ends["used"], ends["refused"], bad]
            rows.append([*row, round(slowest, 2), round(largest)])
        worker.end()
    header = ["file", "spoiled", "used", "refused", "faults", "slowest, s", "most memory, MiB"]
    title = f"Spoiled files: a fault is another exception, a crash, {LIMIT_S:.0f} s or 1 GiB"
    print("\n".join(faults))
    report("fuzz", title, header, rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else N_FILES)
