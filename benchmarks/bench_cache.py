"""Reading and writing XACLE's size: 13,500 pairs, 1,024 dimensions, clips and captions.

Against the obvious alternatives in the same run: one .npy file an item, and one HDF5 data set
read row by row.  Every caption stands nine times, as in XACLE.  And sequences, 250 frames of 3,072
dimensions in float16 for each of 300 clips, in batches of 12 as a training reads them.
"""

import hashlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from report import peak_mib, report

from xacle_stack.cache import (
    CachedPairs,
    CachedSequences,
    FeatureCache,
    StoreId,
    StoreWriter,
    text_key,
)
from xacle_stack.cache.raw_keys import text_keys
from xacle_stack.pairs import Pairs

N_PAIRS, N_DIMS, PAIRS_A_CAPTION = 13_500, 1_024, 9
N_CLIPS, N_FRAMES, N_FRAME_DIMS, BATCH = 300, 250, 3_072, 12
STORE = StoreId("bench", "0" * 16)


def fill(root: Path) -> float:
    """Write both tables and return the seconds; captions stand for clips, so nothing decodes."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for modality, n_items in (("audio", N_PAIRS), ("text", N_PAIRS // PAIRS_A_CAPTION)):
        with StoreWriter(root, STORE, modality, {}) as writer:
            for first in range(0, n_items, 64):
                rows = range(first, min(first + 64, n_items))
                vectors = rng.standard_normal((len(rows), N_DIMS), dtype=np.float32)
                writer.append([text_key(str(row)) for row in rows], {"embedding": vectors})
    return time.perf_counter() - start


def read(root: Path) -> None:
    """Read both tables as `cache.load` does, in a process of its own, and print the peak memory."""
    clip_keys = text_keys([str(row) for row in range(N_PAIRS)])
    caption_keys = text_keys([str(row // PAIRS_A_CAPTION) for row in range(N_PAIRS)])
    pairs = Pairs("test", tuple(map(str, range(N_PAIRS))), (), tuple(map(str, range(N_PAIRS))))
    keys = {"audio": clip_keys, "text": caption_keys}
    start = time.perf_counter()
    cached = CachedPairs(root, pairs, keys, {})
    shapes = cached.audio("bench").shape, cached.text("bench").shape
    seconds = time.perf_counter() - start
    if shapes != ((N_PAIRS, N_DIMS),) * 2:
        raise SystemExit(f"wrong shapes {shapes}")
    print(seconds, peak_mib())


def time_sequences(root: Path) -> list[list[object]]:
    """Write sequences, read them twice in random orders, and compare with a file each."""
    rng = np.random.default_rng(1)
    frames = rng.standard_normal((N_FRAMES, N_FRAME_DIMS), dtype=np.float32).astype(np.float16)
    names = tuple(map(str, range(N_CLIPS)))
    start = time.perf_counter()
    with StoreWriter(root / "sequences", STORE, "text", {}) as writer:
        for name in names:
            writer.append([text_key(name)], {"frames": [frames]})
    seconds = {"cache, write sequences": time.perf_counter() - start}
    pairs = Pairs("test", names, (), names)
    sequences = CachedSequences(
        FeatureCache(root / "sequences").load(pairs), "bench", "text", "frames"
    )
    for what in ("cache, read sequences for the first time", "cache, read sequences again"):
        order = rng.permutation(N_CLIPS)
        start = time.perf_counter()
        for first in range(0, N_CLIPS, BATCH):
            sequences[order[first : first + BATCH]]
        seconds[what] = time.perf_counter() - start
    for name in names:
        np.save(root / f"{name}.npy", frames)
    start = time.perf_counter()
    for row in rng.permutation(N_CLIPS):
        np.load(root / f"{row}.npy")
    seconds["one .npy file a sequence"] = time.perf_counter() - start
    again = seconds["cache, read sequences again"]
    return [[what, round(taken, 3), round(taken / again, 1)] for what, taken in seconds.items()]


def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_s = fill(root / "store")
        runs = []
        for _ in range(5):
            done = subprocess.run(
                [sys.executable, __file__, str(root / "store")],
                capture_output=True,
                text=True,
                check=True,
            )
            runs.append([float(value) for value in done.stdout.split()])
        read_s, memory = np.median(runs, axis=0)
        start = time.perf_counter()
        n_segments = sum(fault is None for _, fault in FeatureCache(root / "store").verify())
        verify_s = time.perf_counter() - start

        values = np.random.default_rng(0).standard_normal((N_PAIRS, N_DIMS), dtype=np.float32)
        files = root / "files"
        files.mkdir()
        names = [hashlib.md5(str(row).encode()).hexdigest() for row in range(N_PAIRS)]
        for name, vector in zip(names, values, strict=True):
            np.save(files / f"{name}.npy", vector)
        start = time.perf_counter()
        for _ in range(2):
            np.stack([np.load(files / f"{name}.npy") for name in names])
        npy_s = time.perf_counter() - start
        with h5py.File(root / "rows.h5", "w") as file:
            file.create_dataset("x", data=values, chunks=(64, N_DIMS), fletcher32=True)
        with h5py.File(root / "rows.h5") as file:
            start = time.perf_counter()
            for _ in range(2):
                np.stack([file["x"][row] for row in range(N_PAIRS)])
            rows_s = time.perf_counter() - start
        of_sequences = time_sequences(root)
    arrays_mib = 2 * N_PAIRS * N_DIMS * 4 / 2**20
    sequences_mib = N_CLIPS * N_FRAMES * N_FRAME_DIMS * 2 / 2**20
    rows = [
        ["cache, read both tables", round(float(read_s), 3), 1.0],
        ["one .npy file an item", round(npy_s, 3), round(npy_s / read_s, 1)],
        ["one HDF5 data set, row by row", round(rows_s, 3), round(rows_s / read_s, 1)],
        ["cache, write both tables", round(write_s, 3), round(write_s / read_s, 1)],
        [f"cache, verify {n_segments} segments", round(verify_s, 3), round(verify_s / read_s, 1)],
        *of_sequences,
    ]
    title = (
        f"{N_PAIRS:,} pairs x {N_DIMS:,} dimensions x 2; the reading process peaks at "
        f"{memory:.0f} MiB, {arrays_mib:.0f} of them its two arrays; {N_CLIPS} sequences of "
        f"{N_FRAMES} x {N_FRAME_DIMS:,} float16, {sequences_mib:.0f} MiB"
    )
    report("cache", title, ["what", "seconds", "times the cache's reading"], rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        read(Path(sys.argv[1]))
    else:
        main()
