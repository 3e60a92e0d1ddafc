"""`paper.toml` from audio to table, with full-size models of random weights, offline.

Random weights predict nothing: what is shown is that every stage runs, how long it takes, and that
a second run of `make features` has nothing left to do.  Needs `make checkpoints` before.

    python benchmarks/bench_paper.py              # all of esc10: half an hour, writes paper.json
    python benchmarks/bench_paper.py --pairs 60   # a part of each split, writes nothing
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import RESULTS, ROOT, real_data, report

from xacle_stack.pairs import read_pairs

CHECKPOINTS = ROOT / "checkpoints"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, help="take only this many of each split")
    n_pairs = parser.parse_args().pairs
    if not CHECKPOINTS.is_dir():
        sys.exit("There are no checkpoints/: make them with `make checkpoints`.")
    data = real_data("esc10")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        if n_pairs is not None:
            data = write_subset(data, here / "esc10-part", n_pairs)
        sizes = [len(read_pairs(data, split)) for split in ("train", "validation")]
        rows = []
        for target, what in (
            ("features", "make features, nothing cached"),
            ("features", "make features, all cached"),
            ("stack", "make stack"),
        ):
            start = time.perf_counter()
            output = make(target, data, here)
            rows.append([what, time.perf_counter() - start])
            print(output)
            if what.endswith("all cached"):
                assert " 0 clips encoded" in output, output
                assert all(" 0 " in line for line in output.splitlines() if "encoded" in line)
    title = f"paper.toml on esc10 ({sizes[0]} + {sizes[1]} pairs), full-size random weights, CPU"
    if n_pairs is None:
        shutil.copy(ROOT / "runs" / "paper-esc10" / "results.md", RESULTS / "paper.md")
        report("paper", title, ["what", "seconds"], rows)


def make(target: str, data: Path, folder: Path) -> str:
    """Run a target as a user would, with the random checkpoints in place of the hub's cache."""
    command = ["make", "--no-print-directory", target, f"DATA={data}", f"STORE={folder / 'store'}"]
    command += ["RECIPE=features/recipes/paper.toml", f"VENV={Path(sys.prefix)}"]
    environment = {**os.environ, "HF_HOME": str(CHECKPOINTS), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def write_subset(data: Path, folder: Path, n_pairs: int) -> Path:
    """Write a data set of the first pairs of each split of another; the clips are links."""
    for split in ("train", "validation"):
        pairs = read_pairs(data, split).take(range(n_pairs))
        (folder / "wav" / split).mkdir(parents=True)
        for path in pairs.audio:
            (folder / "wav" / split / path.name).symlink_to(path.resolve())
        table = folder / "meta_data" / f"{split}_average.csv"
        table.parent.mkdir(exist_ok=True)
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["wav_file_name", "text", "average_score"])
            writer.writerows(zip(pairs.ids, pairs.captions, pairs.scores, strict=True))
    return folder


if __name__ == "__main__":
    main()
