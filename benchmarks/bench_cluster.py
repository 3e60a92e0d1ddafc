"""Two worker processes of Dask against one process, and what 10 million pairs would cost.

Extraction with the embedded spaces and scoring with the default stack.  Each process computes with
one thread.  The costs are the rates of one process times the number of pairs, so they hold for
clips like these, encoders like these and a file system that keeps up.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
from distributed import Client, LocalCluster
from joblib.externals.loky.backend.reduction import dumps
from report import report

from xacle_stack import Scorer, read_pairs
from xacle_stack._threads import one_thread
from xacle_stack.cache import FeatureCache
from xacle_stack.encoders import read_fingerprints
from xacle_stack.extract import Shard, Work, encode_shard, extract_embeddings
from xacle_stack.prediction import Predictor
from xacle_stack.recipe import read_recipe
from xacle_stack.synth.demo import write_demo

N_CLIPS, N_SCORED = 1_500, 100_000
N_PAIRS, N_WORKERS = 10_000_000, 100
HEADER = [
    *("what", "n_items", "one process_s", "two workers_s", "speed-up", "items/s of one process"),
    *("bytes of a task an item", "bytes of what tasks share", "core-hours of 10 million"),
    *("hours on 100 workers", "GB that 10 million store"),
]


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = write_demo(folder / "demo", n_pairs=N_CLIPS, n_jobs=-1)
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            with joblib.parallel_config(backend="dask", client=client):
                # The workers import and load what they need.
                few = read_pairs(data, "validation").take(range(100))
                extract_embeddings([few], read_recipe("mini").encoders, folder / "few")
            rows = [time_extraction(data, folder, client), time_scoring(data, folder, client)]
    title = f"Two workers of Dask against one process, and {N_PAIRS:,} pairs on {N_WORKERS} workers"
    report("cluster", title, HEADER, rows)


def time_extraction(data: Path, folder: Path, client: Client) -> list[object]:
    """Encode the clips and captions of the demo."""
    pairs = [read_pairs(data, split) for split in ("train", "validation", "test")]
    encoders = read_recipe("mini").encoders

    def encode(root: Path) -> float:
        return seconds(lambda: extract_embeddings(pairs, encoders, root, device="cpu"))

    with one_thread():
        alone_s = encode(folder / "alone")
    with joblib.parallel_config(backend="dask", client=client):
        together_s = encode(folder / "store")
    work = Work(folder / "store", read_fingerprints(encoders), "cpu", None)
    clips = [path for split in pairs for path in split.audio][:1024]
    shard = Shard("audio", 0, clips, [None] * len(clips), len(clips))
    n_bytes = len(dumps(shard)) / len(clips)
    n_shared = len(dumps(partial(encode_shard, work)))
    n_clips = sum(map(len, pairs))
    stored = sum(path.stat().st_size for path in (folder / "store").rglob("audio-*.h5")) / n_clips
    return row(
        "clips encoded by three spaces", n_clips, alone_s, together_s, n_bytes, n_shared, stored
    )


def time_scoring(data: Path, folder: Path, client: Client) -> list[object]:
    """Score many pairs, which repeat those of the training set, from the store."""
    train = read_pairs(data, "train")
    scorer = Scorer("mini", store=folder / "store").fit(train)
    rows = np.random.default_rng(0).integers(len(train), size=N_SCORED).tolist()
    ids = tuple(map(str, range(N_SCORED)))
    pairs = replace(train.take(rows), ids=ids, ratings=None, scores=None)
    cached = FeatureCache(folder / "store").load(pairs, scorer.fingerprints_)
    scorer.score(cached.take(range(10)))
    with one_thread():
        alone_s = seconds(lambda: scorer.score(cached, check_novelty=False))
    with joblib.parallel_config(backend="dask", client=client):
        scorer.score(cached.take(range(5_000)), check_novelty=False)  # LightGBM is imported
        together_s = seconds(lambda: scorer.score(cached, check_novelty=False))
    part = cached.take(range(4096))
    predictor = Predictor(scorer.builder_, scorer.regressor_)
    n_shared = len(dumps(predictor.predict_part))
    return row(
        "pairs scored", N_SCORED, alone_s, together_s, len(dumps(part)) / 4096, n_shared, None
    )


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(
    what: str,
    n_items: int,
    alone_s: float,
    together_s: float,
    task_bytes: float,
    shared_bytes: int,
    stored_bytes: float | None,
) -> list[object]:
    """Return the figures of one kind of work, and what they mean for 10 million items."""
    core_h = N_PAIRS * alone_s / n_items / 3600
    stored_gb = None if stored_bytes is None else N_PAIRS * stored_bytes / 1e9
    return [
        *(what, n_items, alone_s, together_s, alone_s / together_s, n_items / alone_s),
        *(task_bytes, shared_bytes, core_h, core_h / N_WORKERS, stored_gb),
    ]


if __name__ == "__main__":
    main()
