"""What every benchmark does with its figures: a table on the screen, a JSON file beside it."""

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xacle_stack.metrics import Estimate

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
REAL_DATA = ROOT.parent / "shared" / "data"
_LIBRARIES = (
    "xacle-stack",
    "numpy",
    "scipy",
    "scikit-learn",
    "lightgbm",
    "xgboost-cpu",
    "catboost",
    "h5py",
    "soxr",
    "torch",
    "transformers",
)


def report(name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table and write ``results/NAME.json`` with the machine and the versions.

    A cell that is an :class:`~xacle_stack.metrics.Estimate` keeps its interval in both.
    """
    table = Table(*header, title=title, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(_shown(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    content = {
        "title": title,
        "figures": [
            {name: _stored(value) for name, value in zip(header, row, strict=True)} for row in rows
        ],
        "machine": machine(),
        "versions": {library: _version(library) for library in _LIBRARIES},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{describe_machine()}\nWritten: {path.relative_to(ROOT)}\n")


def machine() -> dict[str, object]:
    """Describe this machine."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), cpu)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def describe_machine() -> str:
    """Return the machine in one line."""
    facts = machine()
    return f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}"


def peak_mib() -> float:
    """Return this process's highest resident memory so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def in_a_process(script: str, *arguments: object) -> dict[str, float]:
    """Run a script by itself, so that its peak memory is its own; print and return its figures.

    They are the last line that it prints, as JSON.
    """
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(*arguments, {key: round(value, 3) for key, value in figures.items()}, flush=True)
    return figures


def real_data(name: str) -> Path:
    """Return a real data set's path, or end the benchmark saying that it is not here."""
    path = REAL_DATA / name
    if not path.exists():
        print(f"Skipped: the real data set {name!r} is not on this machine.")
        raise SystemExit(0)
    return path


def _shown(value: object) -> Text:
    if value is None:
        return Text("–")
    return Text(f"{value:.4f}" if isinstance(value, float) else str(value))


def _stored(value: object) -> object:
    return [value.value, value.low, value.high] if isinstance(value, Estimate) else value


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
