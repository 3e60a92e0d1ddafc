"""What the SVR ensemble costs as training pairs grow: three spaces of 512 dimensions, made up.

Each size runs in a process of its own, so that its peak memory is its own.
"""

import json
import sys
import time

import numpy as np
from report import in_a_process, peak_mib, report

from xacle_stack.systems import SVREnsembleRegressor
from xacle_stack.table import FeatureTable, consecutive

SIZES = (1_000, 2_000, 4_000, 8_000)
SPACES, N_DIMS, N_SCORED = ("one", "two", "three"), 512, 1_000


def main() -> None:
    """Run it."""
    rows = []
    for n_pairs in SIZES:
        found = in_a_process(__file__, n_pairs)
        rows.append(
            [
                n_pairs,
                round(found["fit_s"], 1),
                round(found["peak_mib"]),
                round(found["score_ms"], 2),
            ]
        )
    header = ["training pairs", "fit, s", "peak, MiB", "score, ms/pair"]
    report("svr", "The SVR ensemble on three spaces of 512 dimensions", header, rows)


def measured(n_pairs: int) -> dict[str, float]:
    """Return the time of one fit, the peak memory, and the time of scoring."""
    table, y = made_up(n_pairs + N_SCORED)
    train, new = table[:n_pairs], table[n_pairs:]
    start = time.perf_counter()
    model = SVREnsembleRegressor(spaces_b=SPACES[:1]).fit(train, y[:n_pairs])
    fit_s, peak = time.perf_counter() - start, peak_mib()
    start = time.perf_counter()
    model.predict(new)
    score_ms = 1e3 * (time.perf_counter() - start) / N_SCORED
    return {"fit_s": fit_s, "peak_mib": peak, "score_ms": score_ms}


def made_up(n_pairs: int) -> tuple[FeatureTable, np.ndarray]:
    """Return pairs that match to different degrees, with scores that say so, and noise."""
    rng = np.random.default_rng(0)
    match = rng.uniform(0, 1, size=n_pairs)
    blocks = {}
    for space in SPACES:
        # Directions that matter unequally, as those of real vectors do.
        audio, noise = rng.normal(size=(2, n_pairs, N_DIMS)) / np.sqrt(1 + np.arange(N_DIMS))
        text = match[:, np.newaxis] * audio + (1 - match[:, np.newaxis]) * noise
        blocks |= {f"{space}/audio": audio, f"{space}/text": text}
    values = np.concatenate([*blocks.values()], axis=1).astype(np.float32)
    spans = consecutive(dict.fromkeys(blocks, N_DIMS))
    return FeatureTable(values, spans), np.clip(10 * match + 2 * rng.normal(size=n_pairs), 0, 10)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(measured(int(sys.argv[1]))))
    else:
        main()
