"""The preset "best" on more and more rows of a plain array, on both sides of `max_exact`.

The scores are smooth functions of some directions of 300 columns, with noise.  Each size runs in a
process of its own.  The Gaussian process alone is solved exactly and by landmarks where both fit.
"""

import argparse
import json
import time

import numpy as np
from report import in_a_process, peak_mib, report

from xacle_stack import Stacker
from xacle_stack.metrics import srcc
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess

N_COLUMNS, N_HIDDEN, N_TEST = 300, 12, 5_000
SIZES = (5_000, 8_000, 12_000, 13_000, 20_000, 50_000, 100_000)
BOTH_WAYS = (8_000, 12_000)


def problem(n_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return columns, scores with noise in 0-10, and scores without it."""
    truth, rng = np.random.default_rng(7), np.random.default_rng(seed)
    mix = truth.normal(size=(N_HIDDEN, N_COLUMNS))
    directions, phases = truth.normal(size=(N_HIDDEN, 40)), truth.uniform(0, 7, size=40)
    hidden = rng.normal(size=(n_rows, N_HIDDEN))
    X = hidden @ mix + rng.normal(size=(n_rows, N_COLUMNS))
    clean = np.cos(hidden @ directions / 2.5 + phases) @ truth.normal(size=40)
    noisy = clean + 1.5 * rng.normal(size=n_rows)
    return X.astype(np.float32), np.clip(5 + noisy / 2, 0, 10), clean


def stack(n_rows: int) -> dict[str, float]:
    """Fit the stack and score new rows."""
    (X, y, _), (X_test, y_test, _) = problem(n_rows, 0), problem(N_TEST, 1)
    start = time.perf_counter()
    stacker = Stacker(random_state=0, n_jobs=-1).fit(X, y)
    seconds = time.perf_counter() - start
    score = srcc(y_test, stacker.predict(X_test))
    return {"fit, s": seconds, "peak, MiB": peak_mib(), "SRCC": score}


def process(n_rows: int, max_exact: int) -> dict[str, float]:
    """Fit the Gaussian process alone on one core."""
    (X, y, _), (X_test, y_test, _) = problem(n_rows, 0), problem(N_TEST, 1)
    start = time.perf_counter()
    model = BlockGaussianProcess({"all": slice(0, N_COLUMNS)}, max_exact=max_exact).fit(X, y)
    seconds = time.perf_counter() - start
    score = srcc(y_test, model.predict(X_test))
    return {"fit, s": seconds, "peak, MiB": peak_mib(), "SRCC": score}


def main() -> None:
    """Run all sizes, or one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measurement", nargs="?", choices=["stack", "process"])
    parser.add_argument("numbers", nargs="*", type=int)
    options = parser.parse_args()
    if options.measurement:
        found = {"stack": stack, "process": process}[options.measurement](*options.numbers)
        print(json.dumps(found))
        return
    rows = []
    for n_rows in SIZES:
        found = in_a_process(__file__, "stack", n_rows)
        rows.append(["stack", n_rows, *shown(found)])
    for n_rows in BOTH_WAYS:
        for name, max_exact in (("exact", n_rows), ("landmarks", n_rows - 1)):
            found = in_a_process(__file__, "process", n_rows, max_exact)
            rows.append([f"Gaussian process, {name}", n_rows, *shown(found)])
    header = ["what", "rows", "fit, s", "peak, MiB", "SRCC"]
    report("rows", f"{N_COLUMNS} columns as a plain array", header, rows)


def shown(found: dict[str, float]) -> list[object]:
    """Return the figures of a row."""
    return [round(found["fit, s"], 1), round(found["peak, MiB"]), found["SRCC"]]


if __name__ == "__main__":
    main()
