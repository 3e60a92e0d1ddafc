"""Do the presets still predict what they predicted?  This checkout against an earlier revision.

Both sides get the same embeddings, and each is run by the same interpreter in a process of its own
with one setting of threads.  The demo data set is always compared; ESC-10 and SICK where they are
on this machine.  ``compare_predictions.py [BEFORE] [--quick]``: BEFORE is a folder or a git
revision, by default the last one before the upper half of the library was rebuilt.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

BEFORE = "c562a6f"
PRESETS = ("paper", "best")
# Between processes on a busy machine the Gaussian process of one and the same revision may differ,
# about once in five fits; so both sides are run again where bits differ.
N_REPEATS = 3
ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "features" / "recipes" / "mini.toml"


def main() -> None:
    """Run it."""
    from report import REAL_DATA, report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", nargs="?", default=BEFORE)
    parser.add_argument("--quick", action="store_true", help="a small demo data set alone")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, checkout(arguments.before) as before:
        folder = Path(name)
        sets: dict[str, Callable[[Path], None]] = {
            "demo": lambda path: write_demo_set(path, 300 if arguments.quick else 1000)
        }
        if not arguments.quick and (REAL_DATA / "esc10").exists():
            sets["esc10"] = lambda path: write_clips(REAL_DATA / "esc10", path, "validation")
        if not arguments.quick and (REAL_DATA / "sick_pairs.h5").exists():
            sets["sick"] = lambda path: write_sick(REAL_DATA / "sick_pairs.h5", path)
        for data, write in sets.items():
            write(folder / f"{data}.npz")
            for preset in PRESETS:
                cells: list[str | float] = []
                n_runs = 0
                while n_runs < N_REPEATS and set(cells) != {"equal bits"}:
                    n_runs += 1
                    old, new = (
                        predictions(side, folder / f"{data}.npz", preset, folder / "out.npz")
                        for side in (before, ROOT)
                    )
                    cells = [compared(old[name], new[name]) for name in sorted(old)]
                rows.append([data, preset, *cells, n_runs])
    header = ["data", "preset", "held-out pairs", "out-of-fold", "runs"]
    title = f"Predictions against {arguments.before}: largest difference over the spread"
    report("predictions", title, header, rows)


@contextmanager
def checkout(before: str) -> Iterator[Path]:
    """Give a folder with the code of a revision, or the folder itself."""
    if Path(before).is_dir():
        yield Path(before).resolve()
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", "--force", str(folder), before], check=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def predictions(side: Path, data: Path, preset: str, out: Path) -> dict[str, np.ndarray]:
    """Fit and predict with the code of one side, in a process of its own."""
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = {**os.environ, **threads, "PYTHONPATH": str(side)}
    command = [sys.executable, __file__, "--fit", str(side), str(data), preset, str(out)]
    subprocess.run(command, check=True, cwd=data.parent, env=environment)
    with np.load(out) as file:
        return {name: file[name] for name in file.files}


def fit(side: str, data: str, preset: str, out: str) -> None:
    """Fit one preset; what this calls is the same in every revision since this library's first."""
    import xacle_stack
    from xacle_stack import FeatureBuilder, PairEmbeddings, Stacker

    found = Path(xacle_stack.__file__).resolve().parent.parent
    if found != Path(side).resolve():
        raise SystemExit(f"{found} was imported, not {side}.")
    with np.load(data) as file:
        arrays = {name: file[name] for name in file.files}

    def split(name: str) -> PairEmbeddings:
        spaces = [key.split(":")[1] for key in arrays if key.startswith(f"{name}:")]
        halves = {s: (arrays[f"{name}:{s}:audio"], arrays[f"{name}:{s}:text"]) for s in spaces}
        return PairEmbeddings(halves)

    train = split("train")
    builder = FeatureBuilder(list(dict.fromkeys(k.split(":")[1] for k in arrays if ":" in k)))
    table = builder.fit_transform(train)
    stacker = Stacker(preset=preset, random_state=0, n_jobs=1)
    stacker.fit(table, arrays["scores"], groups=arrays.get("groups"))
    np.savez(
        out,
        held_out=stacker.predict(builder.transform(split("new"))),
        oof=stacker.oof_predictions_,
    )


def compared(old: np.ndarray, new: np.ndarray) -> str | float:
    """Return "equal bits", or the largest difference over the spread of the old predictions."""
    if old.shape != new.shape:
        return f"shapes {old.shape}, {new.shape}"
    if old.tobytes() == new.tobytes():
        return "equal bits"
    return float(f"{np.max(np.abs(old - new).max(axis=0) / old.std(axis=0)):.1e}")


def write_demo_set(path: Path, n_pairs: int) -> None:
    """Make the demo data set and embed it."""
    from xacle_stack.synth.demo import write_demo

    with tempfile.TemporaryDirectory() as folder:
        data = write_demo(Path(folder) / "demo", n_pairs, seed=0, n_jobs=-1)
        write_clips(data, path, "test")


def write_clips(data: Path, path: Path, new: str) -> None:
    """Embed the training and another split of a data set with the mini encoders."""
    from xacle_stack import FeatureCache, extract_embeddings, read_pairs
    from xacle_stack.recipe import read_recipe

    recipe = read_recipe(RECIPE)
    splits = {"train": read_pairs(data, "train"), "new": read_pairs(data, new)}
    arrays = {
        "scores": splits["train"].scores,
        "groups": np.unique(splits["train"].captions, return_inverse=True)[1],
    }
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store"
        extract_embeddings(list(splits.values()), recipe.encoders, root=store, n_jobs=-1)
        for split, pairs in splits.items():
            cached = FeatureCache(store).load(pairs, recipe.fingerprints())
            for space in recipe.spaces:
                arrays[f"{split}:{space}:audio"] = cached.audio(space)
                arrays[f"{split}:{space}:text"] = cached.text(space)
    np.savez(path, **arrays)


def write_sick(data: Path, path: Path) -> None:
    """Write SICK's embeddings of sentences, left as audio and right as text."""
    import h5py

    with h5py.File(data) as file:
        arrays = {"scores": file["train"]["y"][:].astype(np.float64)}
        for split, part in (("train", "train"), ("new", "test")):
            for space in sorted(file["spaces"]):
                vectors = file["spaces"][space][:].astype(np.float32)
                for side, half in (("left", "audio"), ("right", "text")):
                    rows = file[part][f"{side}_sentence"][:]
                    arrays[f"{split}:{space}:{half}"] = vectors[rows]
    np.savez(path, **arrays)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fit"]:
        fit(*sys.argv[2:])
    else:
        main()
