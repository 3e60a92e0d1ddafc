"""How long Trust-your-CLAP trains at the challenge's size: 7,500 pairs of 768-dimensional vectors.

A few epochs are measured, and what a step's matrix products alone would take at the processor's
peak, which is measured beside it.
"""

import time

import numpy as np
from report import report
from threadpoolctl import threadpool_info

from xacle_stack._optional import require
from xacle_stack.systems import TransformerRegressor

N_PAIRS, N_VALIDATION, N_DIMS, BATCH = 7_500, 3_000, 768, 128
EPOCHS, PUBLISHED_EPOCHS = 4, 100


def flops_a_step() -> float:
    """Return the multiplications and additions of one batch, forwards and backwards."""
    d, hidden = N_DIMS, 512
    full = 2 * (4 * d * d + 2 * 4 * d * d)  # two tokens: attention's four products, feed-forward
    # The last layer: keys and values of both tokens, everything else of one.
    last = 2 * 2 * d * d + 2 * d * d + 2 * 4 * d * d
    return 3 * 2 * BATCH * (full + last + d * hidden)


def peak_flops() -> float:
    """Return what a large product of matrices reaches, in float32."""
    torch = require("torch", extra="neural", purpose="the benchmark")
    a = torch.ones(2048, 2048)
    best = np.inf
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return float(2 * 2048**3 / best)


def main() -> None:
    """Run it."""
    rng = np.random.default_rng(0)
    X, V = (rng.normal(size=(n, 2 * N_DIMS)).astype(np.float32) for n in (N_PAIRS, N_VALIDATION))
    y, of_v = rng.uniform(0, 10, N_PAIRS), rng.uniform(0, 10, N_VALIDATION)
    seconds = {}
    for epochs in (1, 1 + EPOCHS):
        start = time.perf_counter()
        TransformerRegressor(epochs=epochs, random_state=0).fit(X, y, eval_set=(V, of_v))
        seconds[epochs] = time.perf_counter() - start
    an_epoch = (seconds[1 + EPOCHS] - seconds[1]) / EPOCHS
    steps = -(-N_PAIRS // BATCH)
    peak = peak_flops()
    products = steps * flops_a_step() / peak
    rows = [
        ["an epoch, with validation on 3,000 pairs", an_epoch],
        [f"{PUBLISHED_EPOCHS} epochs", PUBLISHED_EPOCHS * an_epoch],
        ["an epoch's products of matrices at the peak", products],
        ["the peak, GFLOP/s", peak / 1e9],
    ]
    n_threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    title = f"Trust-your-CLAP, {N_PAIRS} pairs x {N_DIMS}, batch {BATCH}; {n_threads} threads"
    report("training", title, ["what", "seconds"], rows)


if __name__ == "__main__":
    main()
