"""How long `Scorer.score_clips` takes beside the encoders' own forward passes.

Measured on clips of 10 s in memory.  Resampling to the encoder's rate is part of the overhead and
also has a column of its own.  The full-size CLAP has random weights, and needs `make checkpoints`.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from report import ROOT, report

from xacle_stack import Scorer
from xacle_stack.features import PairEmbeddings
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import recipe_from
from xacle_stack.synth.demo import write_demo

SECONDS, RATES, TRAINING_PAIRS = 10, (16_000, 48_000), 500
CALLS = {1: 40, 64: 6}
CLAP_CALLS = {1: 12, 64: 2}
HEADER = ["encoders", "clips", "rate (Hz)", "call p50 (ms)", "overhead p50 (ms)"]
HEADER += ["overhead p95 (ms)", "of it resampling (ms)", "overhead a clip (ms)"]


class Clock:
    """Adds up the time that is spent in some functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, owner: Any, name: str) -> None:
        """Replace a function by one that is measured."""
        inner: Callable[..., Any] = getattr(owner, name)

        def measured(*arguments: Any, **settings: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*arguments, **settings)
            finally:
                self.seconds += time.perf_counter() - start

        setattr(owner, name, measured)


def mini_scorer(folder: Path) -> Scorer:
    """Return a scorer of the three embedded spaces, fitted on the demo."""
    write_demo(folder / "demo", seed=0, n_jobs=-1)
    scorer = Scorer("mini", store=folder / "store", device="cpu", n_jobs=-1)
    return scorer.fit(read_pairs(folder / "demo", "train"))


def clap_scorer() -> Scorer:
    """Return a scorer of a full-size CLAP, fitted on random vectors."""
    settings = {"name": "clap", "spaces": ["laion-clap-unfused"]}
    scorer = Scorer(recipe_from(settings, "the benchmark"), device="cpu", n_jobs=-1)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, TRAINING_PAIRS, 512)).astype(np.float32)
    scores = 5 + 2 * vectors[0, :, 0]
    return scorer.fit(PairEmbeddings({"laion-clap-unfused": tuple(vectors)}), scores)


def measured(name: str, scorer: Scorer, calls: dict[int, int]) -> list[list[object]]:
    """Return the rows of one scorer."""
    encoders, resampler = Clock(), Clock()
    for choice in scorer.recipe.encoders:
        encoders.watch(choice.encoder, "encode_audio")
        encoders.watch(choice.encoder, "encode_text")
    resampler.watch(soxr, "resample")
    rng = np.random.default_rng(0)
    rows: list[list[object]] = []
    for n_clips, n_calls in calls.items():
        texts = [f"a dog barks {n} times" for n in range(n_clips)]
        for rate in RATES:
            clips = [*rng.uniform(-0.5, 0.5, (n_clips, SECONDS * rate)).astype(np.float32)]
            scorer.score_clips(clips, texts, sample_rate_hz=rate)
            whole, beside, resampling = [], [], []
            for _ in range(n_calls):
                encoders.seconds = resampler.seconds = 0.0
                start = time.perf_counter()
                scorer.score_clips(clips, texts, sample_rate_hz=rate)
                whole.append(1000 * (time.perf_counter() - start))
                beside.append(whole[-1] - 1000 * encoders.seconds)
                resampling.append(1000 * resampler.seconds)
            median, p95 = np.quantile(beside, [0.5, 0.95]).tolist()
            figures = [float(np.median(whole)), median, p95, float(np.median(resampling))]
            rows.append([name, n_clips, rate, *figures, median / n_clips])
    return rows


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measured("mini", mini_scorer(Path(folder)), CALLS)
    checkpoints = Path(os.environ.get("HF_HOME", ROOT / "checkpoints"))
    if not checkpoints.is_dir():
        print("Skipped CLAP: there are no checkpoints/; make them with `make checkpoints`.")
    else:
        os.environ |= {"HF_HOME": str(checkpoints), "HF_HUB_OFFLINE": "1"}
        rows += measured("laion-clap-unfused, random weights", clap_scorer(), CLAP_CALLS)
    title = f"score_clips, clips of {SECONDS} s, preset best fitted on {TRAINING_PAIRS} pairs, CPU"
    report("score_clips", title, HEADER, rows)


if __name__ == "__main__":
    main()
