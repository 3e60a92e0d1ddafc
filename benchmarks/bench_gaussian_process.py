"""The kernel learner on few blocks of columns and on many, by where its relevances start.

Starts that are the same whatever the data, as they were before, against those that the data choose:
out-of-fold, five folds.  The synthetic tables have blocks of 20 columns, or of one; the scores
depend on one block in three, on at least one.
"""

import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import h5py
import numpy as np
from report import REAL_DATA, ROOT, report
from sklearn.exceptions import ConvergenceWarning

from xacle_stack import FeatureBuilder, FeatureCache, PairEmbeddings
from xacle_stack.experiment import fill_cache
from xacle_stack.metrics import srcc
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import read_recipe
from xacle_stack.stacking import marginal_likelihood, split_folds
from xacle_stack.stacking.block_pca import BlockPCA
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.table import FeatureTable, consecutive

N_SYNTHETIC, N_SICK = 600, 1_500
FIXED_STARTS = (0.002, 0.02)

Table = tuple[np.ndarray, dict[str, slice], np.ndarray]


def main() -> None:
    """Run it."""
    rows = []
    for name, (X, blocks, y) in tables():
        fixed, chosen = (out_of_fold(X, blocks, y, fixed) for fixed in (True, False))
        rows.append([name, len(blocks), X.shape[1], len(y), *fixed, *chosen])
    header = [
        "table",
        "blocks",
        "columns",
        "rows",
        "fixed: SRCC",
        "fixed: fits, s",
        "SRCC",
        "fits, s",
    ]
    title = "Out-of-fold SRCC of the Gaussian process: fixed starts, and starts from the data"
    report("gaussian_process", title, header, rows)


def out_of_fold(
    X: np.ndarray, blocks: Mapping[str, slice], y: np.ndarray, fixed: bool
) -> tuple[float, float]:
    """Return the out-of-fold SRCC and the seconds of five fits."""
    predicted = np.empty(len(y))
    start = time.perf_counter()
    with warnings.catch_warnings(), fixed_starts() if fixed else nullcontext():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for train, held_out in split_folds(len(y), None, 5, 0):
            model = BlockGaussianProcess(blocks).fit(X[train], y[train])
            predicted[held_out] = model.predict(X[held_out])
    return srcc(y, predicted), round(time.perf_counter() - start, 1)


@contextmanager
def fixed_starts() -> Iterator[None]:
    """Start every block at the same two relevances, once."""
    module = marginal_likelihood
    names = ("_STARTS", "_NARROWER", "_typical_distance")
    kept = {name: getattr(module, name) for name in names}
    module._STARTS, module._NARROWER = FIXED_STARTS, (1.0, 1.0)
    module._typical_distance = lambda distances: 1.0
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(module, name, value)


def tables() -> Iterator[tuple[str, Table]]:
    """Yield tables with their blocks and scores."""
    for n_blocks in (1, 2, 6, 29):
        for width in (20, 1):
            name = "synthetic" if width > 1 else "synthetic, narrow"
            yield name, synthetic(n_blocks, width)
    yield "one column, a wave", wave()
    yield from esc10()
    yield from sick()


def synthetic(n_blocks: int, width: int) -> Table:
    """Return scores that are products within some blocks, and sums over them."""
    rng = np.random.default_rng(n_blocks * width)
    X = rng.normal(size=(N_SYNTHETIC, n_blocks * width))
    told = range(0, n_blocks * width, 3 * width)
    truth = sum(X[:, first] * X[:, first + width - 1] + X[:, first] for first in told)
    y = truth / np.std(truth) + 0.5 * rng.normal(size=N_SYNTHETIC)
    return X, blocks_of([width] * n_blocks), y


def wave() -> Table:
    """Return scores that rise and fall several times along one column."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_SYNTHETIC, 1))
    return X, blocks_of([1]), np.sin(3 * X[:, 0]) + 0.3 * rng.normal(size=N_SYNTHETIC)


def esc10() -> Iterator[tuple[str, Table]]:
    """Yield ESC-10's pairs: clips and captions of one encoder, and of three; nothing of pairs."""
    data = REAL_DATA / "esc10"
    if not data.exists():
        return
    recipe = read_recipe(ROOT / "features" / "recipes" / "mini.toml")
    train = read_pairs(data, "train")
    with tempfile.TemporaryDirectory() as folder:
        fill_cache(data, recipe, Path(folder))
        cached = FeatureCache(folder).load(train, recipe.fingerprints())
        sides = [side(space) for space in recipe.spaces for side in (cached.audio, cached.text)]
    for n_blocks in (1, 2, 6):
        joined = [np.hstack(sides[:2])] if n_blocks == 1 else sides[:n_blocks]
        X, blocks = compressed(np.hstack(joined), blocks_of([s.shape[1] for s in joined]), 64)
        yield "ESC-10", (X, blocks, train.scores)


def sick() -> Iterator[tuple[str, Table]]:
    """Yield SICK's first training pairs, as the preset "best" sees them."""
    path = REAL_DATA / "sick_pairs.h5"
    if not path.exists():
        return
    with h5py.File(path) as file:
        left, right = (file["train"][f"{s}_sentence"][:N_SICK] for s in ("left", "right"))
        spaces = {
            name: tuple(vectors[:].astype(np.float32)[rows] for rows in (left, right))
            for name, vectors in file["spaces"].items()
        }
        y = file["train"]["y"][:N_SICK].astype(np.float64)
    table = FeatureBuilder(sorted(spaces)).fit_transform(PairEmbeddings(spaces))
    X, blocks = compressed(table.values, table.blocks, 128)
    yield "SICK", (X, blocks, y)


def compressed(
    X: np.ndarray, blocks: Mapping[str, slice], n_components: int
) -> tuple[np.ndarray, dict[str, slice]]:
    """Return the principal components of every block."""
    table = FeatureTable(X, blocks)
    pca = BlockPCA(blocks, n_components, 0).fit(table, np.ones(len(X)))
    return pca.transform(table), pca.blocks_


def blocks_of(widths: list[int]) -> dict[str, slice]:
    """Return neighbouring blocks of these widths."""
    return consecutive({str(number): width for number, width in enumerate(widths)})


if __name__ == "__main__":
    main()
