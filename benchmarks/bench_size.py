"""A cache of millions of rows, and the scoring of as many pairs from it: time and memory.

Vectors of 64 dimensions are generated, one row for each clip and one for each caption.  Every phase
is a process of its own.  Its memory is what it needs beyond what it began with; the pairs, which
the caller holds, are there before.  Clips have known content keys, so nothing is decoded; the keys
of audio files are looked up in a phase of their own, among empty files.

``python benchmarks/bench_size.py --largest 10_000_000`` adds larger sizes, each twice the one
before.  A million rows of clips and captions take 0.6 GB in the folder for temporary files.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from report import report

from xacle_stack import FeatureBuilder, PairEmbeddings, Scorer, Stacker
from xacle_stack.audio import Clip, ClipSource
from xacle_stack.cache import AudioKeys, FeatureCache, StoreId, StoreWriter, file_status, text_key
from xacle_stack.features import Novelty
from xacle_stack.pairs import Pairs
from xacle_stack.submission import write_predictions

N_DIMS, N_FEW, N_FITTED, N_FILES = 64, 1000, 2000, 100_000
STORE = StoreId("bench", "0" * 16)
SMALLEST = 1_000_000


class KnownClip(ClipSource):
    """A clip whose content key is known, so that nothing is decoded."""

    def __init__(self, row: int) -> None:
        super().__init__(str(row))
        self.content_key = text_key(str(row))

    def read(self) -> Clip:
        """Never called."""
        raise NotImplementedError

    def duration_s(self) -> float:
        """Return 0: unknown."""
        return 0.0


def pairs_of(rows: range) -> Pairs:
    """Return pairs whose captions and clips are the rows of the store."""
    names = tuple(map(str, rows))
    return Pairs("test", names, tuple(map(KnownClip, rows)), names)


def fill(root: Path, n_rows: int) -> None:
    """Write a store of clips and captions."""
    rng = np.random.default_rng(0)
    for modality in ("audio", "text"):
        with StoreWriter(root, STORE, modality, {"dims": N_DIMS}) as writer:
            for first in range(0, n_rows, 4096):
                rows = range(first, min(first + 4096, n_rows))
                vectors = rng.standard_normal((len(rows), N_DIMS), dtype=np.float32)
                writer.append([text_key(str(row)) for row in rows], {"embedding": vectors})


def fit(path: Path) -> None:
    """Fit `paper` on some pairs, whose scores follow from their vectors, and keep it."""
    rng = np.random.default_rng(1)
    audio, text = rng.standard_normal((2, N_FITTED, N_DIMS))
    train = PairEmbeddings({"bench": (audio, text)})
    scores = 5 + np.tanh(audio[:, 0] * text[:, 0]) + rng.normal(0, 0.1, N_FITTED)
    builder = FeatureBuilder(["bench"]).fit(train)
    stacker = Stacker(preset="paper").fit(builder.transform(train), scores)
    novelty = Novelty(["bench"]).fit(train)
    path.write_bytes(pickle.dumps((builder, stacker, novelty)))


@contextmanager
def measured(name: str, n_items: int) -> Iterator[None]:
    """Print the seconds and the highest memory above the present one, as JSON."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far
    before, cpu, clock = _memory("VmRSS"), time.process_time(), time.perf_counter()
    yield
    print(
        json.dumps(
            {
                "phase": name,
                "cpu_s": round(time.process_time() - cpu, 2),
                "wall_s": round(time.perf_counter() - clock, 2),
                "mib": round((_memory("VmHWM") - before) / 2**10),
                "bytes_each": round((_memory("VmHWM") - before) * 2**10 / n_items),
            }
        )
    )


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def look_up_few(root: Path, n_rows: int) -> None:
    """Find the rows of some pairs among all."""
    pairs = pairs_of(range(0, n_rows, n_rows // N_FEW))
    with measured("look up 1,000 pairs", n_rows):
        FeatureCache(root).load(pairs).shape_of("bench", "text")


def look_up_all(root: Path, n_rows: int) -> None:
    """Find the rows of all pairs."""
    pairs = pairs_of(range(n_rows))
    with measured("look up all pairs", n_rows):
        cached = FeatureCache(root).load(pairs)
        cached.shape_of("bench", "audio")
        cached.shape_of("bench", "text")


def known(root: Path, n_rows: int) -> None:
    """Know which rows there are, as an encoding run does that goes on."""
    asked = [text_key(str(row)) for row in range(0, 2 * n_rows, 2 * n_rows // N_FEW)]
    with measured("know what is encoded", n_rows):
        keys = FeatureCache(root).known_keys(STORE, "audio")
        n_known = sum(key in keys for key in asked)
    if n_known != N_FEW // 2:
        raise SystemExit(f"{n_known} known")


def ls(root: Path, n_rows: int) -> None:
    """Describe the store."""
    with measured("cache ls", n_rows):
        found = {summary.n_rows for summary in FeatureCache(root).summaries()}
    if found != {n_rows}:
        raise SystemExit(f"{found} rows")


def verify(root: Path, n_rows: int) -> None:
    """Check every byte."""
    with measured("cache verify", n_rows):
        faults = [fault for _, fault in FeatureCache(root).verify() if fault]
    if faults:
        raise SystemExit(f"{faults}")


def compact(root: Path, n_rows: int) -> None:
    """Merge the segments."""
    with measured("cache compact", n_rows):
        FeatureCache(root).compact()


def score(root: Path, n_rows: int) -> None:
    """Score all pairs into a CSV."""
    pairs = pairs_of(range(n_rows))
    builder, stacker, novelty = pickle.loads((root.parent / "fitted").read_bytes())
    scorer = Scorer.from_fitted("mini", builder, stacker)
    scorer.novelty_ = novelty
    scorer.score(FeatureCache(root).load(pairs.take(range(5000))))  # loads all code
    with measured("score into a CSV", n_rows):
        scores = scorer.score(FeatureCache(root).load(pairs))
        write_predictions(root.parent / "scores.csv", pairs.ids, scores, pairs.split)


def files(root: Path, n_files: int) -> None:
    """Remember the content keys of audio files, and look them up."""
    for folder in (root, root / "clips"):
        folder.mkdir()
    paths = [root / "clips" / f"{row}.wav" for row in range(n_files)]
    keys = AudioKeys(root)
    for path in paths:
        path.touch()
        keys.remember(path, text_key(path.name), file_status(path))
    keys.save()
    del keys
    with measured("look up audio files", n_files):
        AudioKeys(root).look_up(paths)


PHASES: dict[str, Callable[[Path, int], None]] = {
    phase.__name__: phase
    for phase in (look_up_few, look_up_all, known, ls, verify, compact, score, files)
}
ORDER = ("look_up_few", "look_up_all", "known", "ls", "verify", "compact")
AFTER = ("look_up_few", "look_up_all", "known", "ls", "verify", "score")


def run(phase: str, root: Path, n_rows: int) -> dict[str, object]:
    """Run a phase in a process of its own, and print and return what it measured."""
    done = subprocess.run(
        [sys.executable, __file__, "--phase", phase, str(root), str(n_rows)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{phase} failed: {done.stderr}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(n_rows, found, flush=True)
    return found


def sizes_up_to(largest: int) -> list[int]:
    """Return sizes that double, then the largest."""
    sizes = [SMALLEST]
    while 2 * sizes[-1] < largest:
        sizes.append(2 * sizes[-1])
    return [*[size for size in sizes if size < largest], largest]


def main(largest: int) -> None:
    """Run it."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows.append([N_FILES, None, *run("files", Path(folder) / "store", N_FILES).values()])
    for n_rows in sizes_up_to(largest):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "store"
            fit(Path(folder) / "fitted")
            fill(root, n_rows)
            for stage, phases in (("as written", ORDER), ("compacted", AFTER)):
                for phase in phases:
                    rows.append([n_rows, stage, *run(phase, root, n_rows).values()])
    header = ["rows", "store", "what", "CPU, s", "clock, s", "memory, MiB", "bytes a row"]
    title = f"Rows of {N_DIMS} dimensions, clips and captions; memory above that of the beginning"
    report("size", title, header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=4 * SMALLEST)
    parser.add_argument("--phase", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.phase:
        PHASES[given.phase[0]](Path(given.phase[1]), int(given.phase[2]))
    else:
        main(given.largest)
