"""How long Trust-your-CLAP trains at the challenge's size, and how many pairs it needs.

The first part measures a few epochs of 7,500 pairs of 768-dimensional vectors, and the processor's
peak, from which it computes how long the matrix products alone would take.  The second part trains
on scores that are the vectors' cosine, which the network has to find by itself.
"""

import time
from typing import Any

import numpy as np
from report import report
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_info

from xacle_stack._optional import require
from xacle_stack.metrics import srcc
from xacle_stack.systems import TransformerRegressor

N_PAIRS, N_VALIDATION, N_DIMS, BATCH = 7_500, 3_000, 768, 128
EPOCHS, PUBLISHED_EPOCHS = 4, 100
SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "as published, bfloat16": {"precision": "bfloat16"},
    "Adam, 1e-3, 40 epochs": {"optimizer": "adam", "learning_rate": 1e-3, "epochs": 40},
}


def flops_a_step() -> float:
    """Return the multiplications and additions of one batch, forwards and backwards."""
    d, hidden = N_DIMS, 512
    # Query, key, value, output and feed-forward of two tokens.
    layer = 2 * (4 + 8) * d * d
    # One product for each weight forwards and two backwards.  The vectors themselves need no
    # gradient, which saves that of the first layer's query, key and value.
    products = 3 * (2 * layer + d * hidden) - 2 * 3 * d * d
    return float(2 * BATCH * products)


def peak_flops() -> float:
    """Return the operations a second that a large float32 matrix product reaches."""
    torch = require("torch", extra="neural", purpose="the benchmark")
    a = torch.ones(2048, 2048)
    best = np.inf
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return float(2 * 2048**3 / best)


def cosine_pairs(rng: np.random.Generator, n_pairs: int, n_dims: int = 64) -> tuple[Any, Any]:
    """Return pairs of unit vectors with random cosines, and scores that are these cosines."""
    text = rng.normal(size=(n_pairs, n_dims))
    share = rng.uniform(0, 1, (n_pairs, 1))
    audio = share * text + (1 - share) * rng.normal(size=(n_pairs, n_dims))
    audio, text = normalize(audio), normalize(text)
    scores = 10 * np.clip((audio * text).sum(axis=1), 0, 1)
    return np.hstack([audio, text]).astype(np.float32), scores


def pairs_needed() -> None:
    """Print and write the validation SRCC after training on few pairs and on many."""
    rng = np.random.default_rng(0)
    X, y = cosine_pairs(rng, 1_000)
    rows = []
    for n_pairs in (500, 2_000, 7_500):
        few, scores = cosine_pairs(rng, n_pairs)
        for name, settings in SETTINGS.items():
            model = TransformerRegressor(random_state=0, **settings)
            model.fit(few, scores, eval_set=(X, y))
            rows.append([n_pairs, name, srcc(y, model.predict(X))])
    title = "Trust-your-CLAP where the score is the cosine of 64-dimensional vectors, validation"
    report("training_pairs", title, ["pairs", "settings", "SRCC"], rows)


def main() -> None:
    """Run it."""
    pairs_needed()
    rng = np.random.default_rng(0)
    X, V = (rng.normal(size=(n, 2 * N_DIMS)).astype(np.float32) for n in (N_PAIRS, N_VALIDATION))
    y, validation_scores = rng.uniform(0, 10, N_PAIRS), rng.uniform(0, 10, N_VALIDATION)
    rows: list[list[object]] = []
    for precision in ("float32", "bfloat16"):
        seconds = {}
        for epochs in (1, 1 + EPOCHS):
            start = time.perf_counter()
            model = TransformerRegressor(epochs=epochs, precision=precision, random_state=0)
            model.fit(X, y, eval_set=(V, validation_scores))
            seconds[epochs] = time.perf_counter() - start
        an_epoch = (seconds[1 + EPOCHS] - seconds[1]) / EPOCHS
        rows.append(
            [f"an epoch, validation on {N_VALIDATION} pairs with it, {precision}", an_epoch]
        )
        rows.append([f"{PUBLISHED_EPOCHS} epochs, {precision}", PUBLISHED_EPOCHS * an_epoch])
    steps = -(-N_PAIRS // BATCH)
    peak = peak_flops()
    products = steps * flops_a_step() / peak
    rows.append(["an epoch's products of matrices at the peak, float32", products])
    rows.append(["the peak, GFLOP/s, float32", peak / 1e9])
    n_threads = max((pool["num_threads"] for pool in threadpool_info()), default=1)
    title = f"Trust-your-CLAP, {N_PAIRS} pairs x {N_DIMS}, batch {BATCH}; {n_threads} threads"
    report("training", title, ["what", "seconds"], rows)


if __name__ == "__main__":
    main()
