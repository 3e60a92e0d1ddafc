"""The stacker at the challenge's size against the same algorithm composed from scikit-learn.

Seeded synthetic embeddings of the published system's sizes: spaces of 512, 512 and 1,024 dimensions
and 527 BEATs logits.  Every measurement runs in a process of its own, so that its peak memory is
its own; `bench_stacker.py NAME` runs one of them or one part, `--quick` at a tenth of the size.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from report import in_a_process, peak_mib, report
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xacle_stack import FeatureBuilder, PairEmbeddings, Stacker
from xacle_stack._threads import one_thread
from xacle_stack.cache import CachedPairs, StoreId, StoreWriter, text_key
from xacle_stack.cache.raw_keys import text_keys
from xacle_stack.metrics import srcc
from xacle_stack.pairs import Pairs
from xacle_stack.stacking._cholesky import add_products, factor_upper
from xacle_stack.stacking.learners import rank_target
from xacle_stack.stacking.ridge import PENALTIES

SPACES = {"laion-unfused": 512, "laion-fused": 512, "ms-clap": 1024}
LOGITS = {"beats": 527}
N_TRAIN, N_TEST = 7_500, 3_000
FIXED_PENALTY = 1e3


def embeddings(
    n_pairs: int, seed: int
) -> tuple[dict[str, tuple], dict[str, np.ndarray], np.ndarray]:
    """Return audio and text vectors of every space, logits, and scores in quarters, 0-10."""
    truth = np.random.default_rng(99)
    rng = np.random.default_rng(seed)
    match = rng.normal(size=n_pairs).astype(np.float32)
    topic = rng.normal(size=(n_pairs, 32)).astype(np.float32)
    spaces = {}
    for name, n_dims in SPACES.items():
        mix = truth.normal(size=(32, n_dims)).astype(np.float32)
        text = topic @ mix + 3 * rng.standard_normal((n_pairs, n_dims), dtype=np.float32)
        noise = 6 * rng.standard_normal((n_pairs, n_dims), dtype=np.float32)
        spaces[name] = (text * (1 + 0.15 * match[:, np.newaxis]) + noise, text)
    logits = topic @ truth.normal(size=(32, LOGITS["beats"])).astype(np.float32)
    logits += 4 * rng.standard_normal(logits.shape, dtype=np.float32)
    scores = 5 + 2 * match + 0.3 * topic[:, 0] + rng.normal(size=n_pairs)
    return spaces, {"beats:logits": logits}, np.clip(np.round(scores * 4) / 4, 0, 10)


def split(n_pairs: int, seed: int) -> tuple[PairEmbeddings, np.ndarray]:
    """Return the embeddings of one split, and its scores."""
    spaces, logits, scores = embeddings(n_pairs, seed)
    return PairEmbeddings(spaces, logits), scores


def builder() -> FeatureBuilder:
    """Return a builder of the published families."""
    return FeatureBuilder(list(SPACES), ["beats:logits"])


def fit_ours(scale: float, preset: str) -> dict[str, float]:
    """Fit and score with the library."""
    train, y_train = split(int(N_TRAIN * scale), 0)
    test, y_test = split(int(N_TEST * scale), 1)
    start = time.perf_counter()
    features = builder()
    table = features.fit_transform(train)
    built = time.perf_counter()
    stacker = Stacker(preset=preset, random_state=0, n_jobs=-1).fit(table, y_train)
    fitted = time.perf_counter()
    predicted = stacker.predict(features.transform(test))
    return {
        "features, s": built - start,
        "fit, s": fitted - built,
        "test SRCC": srcc(y_test, predicted),
        "peak, MiB": peak_mib(),
    }


def fit_composition(scale: float, tuned: bool) -> dict[str, float]:
    """Fit and score with scikit-learn: the published algorithm, written plainly."""
    train, y_train = split(int(N_TRAIN * scale), 0)
    test, y_test = split(int(N_TEST * scale), 1)
    start = time.perf_counter()
    features = builder()
    table = features.fit_transform(train)
    X, X_test = table.values, features.transform(test).values
    columns = {name: np.arange(X.shape[1])[block] for name, block in table.blocks.items()}
    families = [np.concatenate([columns[b] for b in f]) for f in table.families.values()]
    built = time.perf_counter()

    def ridge() -> object:
        model = RidgeCV(alphas=PENALTIES) if tuned else Ridge(FIXED_PENALTY)
        return make_pipeline(StandardScaler(), model)

    def boosting() -> object:
        return make_pipeline(
            StandardScaler(),
            TruncatedSVD(64, random_state=0),
            HistGradientBoostingRegressor(
                max_iter=200, learning_rate=0.045, max_leaf_nodes=15, random_state=0
            ),
        )

    learners = [
        (make, span, target)
        for span in families
        for target in (lambda y: y, rank_target)
        for make in [ridge]
    ]
    learners.append((boosting, slice(None), lambda y: y))
    folds = list(KFold(3, shuffle=True, random_state=0).split(X))
    oof, of_test = np.empty((len(X), len(learners))), np.zeros((len(X_test), len(learners)))
    for column, (make, span, target) in enumerate(learners):
        for fitted_on, held_out in folds:
            model = make().fit(X[:, span][fitted_on], target(y_train[fitted_on]))
            oof[held_out, column] = model.predict(X[:, span][held_out])
            of_test[:, column] += model.predict(X_test[:, span]) / len(folds)
    meta = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-2, 4, 13)))
    meta.fit(oof, y_train)
    return {
        "features, s": built - start,
        "fit, s": time.perf_counter() - built,
        "test SRCC": srcc(y_test, meta.predict(of_test)),
        "peak, MiB": peak_mib(),
    }


def equal_predictions(scale: float) -> dict[str, float]:
    """Compare out-of-fold ridges at equal penalties with scikit-learn's in float64."""
    train, y = split(int(N_TRAIN * scale), 0)
    table = builder().fit_transform(train)
    worst: dict[str, float] = {}
    for penalty in (PENALTIES[0], FIXED_PENALTY, PENALTIES[-1]):
        stacker = Stacker(preset="paper", penalties=[penalty], random_state=0, n_jobs=-1)
        oof = stacker.fit(table, y).oof_predictions_
        for column, name in ((0, "laion-unfused"), (4, "ms-clap")):
            X = table.family(name).astype(np.float64)
            expected = np.empty(len(X))
            for fold in range(3):
                held_out = stacker.folds_ == fold
                model = make_pipeline(StandardScaler(), Ridge(penalty, solver="cholesky"))
                expected[held_out] = model.fit(X[~held_out], y[~held_out]).predict(X[held_out])
            difference = np.abs(oof[:, column] - expected).max() / expected.std()
            worst[f"{name}, penalty {penalty:g}"] = float(difference)
    return worst


def bare_products(scale: float) -> dict[str, float]:
    """Run the products and factors of a fit of "paper", and nothing else, on arrays at hand.

    For each family: the symmetric products of the rows or columns of every fold and of every two
    folds, the products that bring those of a fold to a band, and one Cholesky factor for every two
    folds.  For the boosting: the products of the singular value decomposition.
    """
    n_fold = int(N_TRAIN * scale) // 3
    widths = [5 * n_dims + 1 + sum(LOGITS.values()) for n_dims in SPACES.values()]
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2 * n_fold, sum(widths)), dtype=np.float32)

    def products(n_rows: int, width: int) -> np.ndarray:
        rows = values[:n_rows, :width]
        gram = np.zeros((min(rows.shape),) * 2, dtype=np.float32, order="F")
        add_products(gram, np.ascontiguousarray(rows if n_rows < width else rows.T))
        return gram

    def choice(width: int) -> None:
        gram, band = products(n_fold, width), 96
        for start in range(band, len(gram), band):
            rest = gram.T[start:, start:]
            np.matmul(rest, values[: len(rest), :band])
            np.matmul(values[: len(rest), : 2 * band], values[: 2 * band, : len(rest)])

    def training(width: int) -> None:
        gram = products(2 * n_fold, width)
        gram[np.diag_indices(len(gram))] += 2 * n_fold
        assert factor_upper(gram)

    def svd_pass(n_vectors: int, *, is_last: bool) -> None:
        for start in range(0, 3 * n_fold, 1024):
            rows = values[start % n_fold : start % n_fold + 1024]
            product = rows @ values[:n_vectors].T
            if not is_last:
                np.matmul(rows.T, product)

    tasks = [
        *(delayed(run)(width) for width in sorted(widths)[::-1] for run in 3 * [training]),
        *(delayed(run)(width) for width in sorted(widths)[::-1] for run in 3 * [choice]),
        *(delayed(svd_pass)(74, is_last=False) for _ in range(2)),
        delayed(svd_pass)(222, is_last=True),
    ]
    with one_thread():
        start = time.perf_counter()
        Parallel(n_jobs=-1, prefer="threads")(tasks)
        return {"s": time.perf_counter() - start}


class SyntheticPairs(CachedPairs):
    """Pairs of a cache whose clips never were audio."""

    def __init__(self, root: Path, clips: np.ndarray, captions: np.ndarray) -> None:
        n_pairs = len(clips)
        names = tuple(map(str, range(n_pairs)))
        pairs = Pairs("train", names, (Path("none"),) * n_pairs, names)
        keys = {
            "audio": text_keys([f"clip {i}" for i in clips]),
            "text": text_keys([f"caption {i}" for i in captions]),
        }
        super().__init__(root, pairs, keys, {})


def write_cache(root: Path, n_items: int, seed: int) -> np.ndarray:
    """Write a cache of that many clips and captions; return a score for each pair of them."""
    scores = []
    for start in range(0, n_items, 10_000):
        size = min(10_000, n_items - start)
        spaces, logits, part_scores = embeddings(size, seed + start)
        scores.append(part_scores)
        keys = {
            side: [text_key(f"{word} {i}") for i in range(start, start + size)]
            for side, word in (("audio", "clip"), ("text", "caption"))
        }
        stores = [
            *((name, "audio", {"embedding": pair[0]}) for name, pair in spaces.items()),
            *((name, "text", {"embedding": pair[1]}) for name, pair in spaces.items()),
            ("beats", "audio", {"logits": logits["beats:logits"]}),
        ]
        for name, side, outputs in stores:
            with StoreWriter(root, StoreId(name, "0" * 16), side, {}) as writer:
                writer.append(keys[side], outputs)
    return np.concatenate(scores)


def fit_from_cache(root: Path, n_pairs: int) -> dict[str, float]:
    """Fit the published stack on the first pairs of a cache."""
    scores = np.load(root / "scores.npy")[:n_pairs]
    pairs = SyntheticPairs(root, np.arange(n_pairs), np.arange(n_pairs))
    start = time.perf_counter()
    table = builder().fit_transform(pairs)
    Stacker(preset="paper", random_state=0, n_jobs=-1).fit(table, scores)
    return {"fit, s": time.perf_counter() - start, "peak, MiB": peak_mib()}


def score_from_cache(root: Path, n_pairs: int, preset: str, n_train: int) -> dict[str, float]:
    """Score pairs of a cache, each a clip and a caption at random."""
    train = SyntheticPairs(root, np.arange(n_train), np.arange(n_train))
    features = builder()
    table = features.fit_transform(train)
    stacker = Stacker(preset=preset, random_state=0, n_jobs=-1)
    stacker.fit(table, np.load(root / "scores.npy")[:n_train])
    n_items, rng = len(np.load(root / "scores.npy")), np.random.default_rng(0)
    clips = np.sort(rng.integers(n_items, size=n_pairs))  # nine captions a clip, say
    pairs = SyntheticPairs(root, clips, rng.integers(n_items, size=n_pairs))
    before = peak_mib()
    start = time.perf_counter()
    scores = stacker.predict(features.transform(pairs))
    seconds = time.perf_counter() - start
    assert np.isfinite(scores).all()
    return {"pairs/s": n_pairs / seconds, "peak of fit, MiB": before, "peak, MiB": peak_mib()}


MEASUREMENTS: dict[str, Callable[..., dict[str, float]]] = {
    "ours": lambda scale, preset: fit_ours(float(scale), preset),
    "composition": lambda scale, tuned: fit_composition(float(scale), tuned == "tuned"),
    "bare": lambda scale: bare_products(float(scale)),
    "equal": lambda scale: equal_predictions(float(scale)),
    "fit": lambda root, n_pairs: fit_from_cache(Path(root), int(n_pairs)),
    "score": lambda root, n_pairs, preset, n_train: score_from_cache(
        Path(root), int(n_pairs), preset, int(n_train)
    ),
}


def speed(scale: float) -> None:
    """Compare with the composition."""
    runs = {
        "xacle_stack, paper": in_a_process(__file__, "ours", scale, "paper"),
        "xacle_stack, best": in_a_process(__file__, "ours", scale, "best"),
        "scikit-learn, Ridge, one penalty": in_a_process(__file__, "composition", scale, "untuned"),
        "scikit-learn, RidgeCV, 11 penalties": in_a_process(
            __file__, "composition", scale, "tuned"
        ),
    }
    ours, tuned = runs["xacle_stack, paper"], runs["scikit-learn, RidgeCV, 11 penalties"]
    header = ["system", "fit, s", "times ours", "peak, MiB", "times ours ", "test SRCC"]
    rows = [
        [
            name,
            round(run["fit, s"], 1),
            round(run["fit, s"] / ours["fit, s"], 1),
            round(run["peak, MiB"]),
            round(run["peak, MiB"] / ours["peak, MiB"], 2),
            run["test SRCC"],
        ]
        for name, run in runs.items()
    ]
    n_train = int(N_TRAIN * scale)
    report("stacker_speed", f"The published algorithm, {n_train} training pairs", header, rows)
    gap = abs(ours["test SRCC"] - tuned["test SRCC"])
    print(f"Test SRCC differs from the composition's by {gap:.4f}.\n")
    equal = in_a_process(__file__, "equal", scale)
    header = ["family and penalty", "largest difference / standard deviation"]
    rows = [[name, f"{difference:.1e}"] for name, difference in equal.items()]
    report("stacker_equal", "Out-of-fold predictions against Ridge in float64", header, rows)


def floor(scale: float) -> None:
    """Compare a fit with the products and factors alone."""
    fit, bare = (
        in_a_process(__file__, "ours", scale, "paper")["fit, s"],
        in_a_process(__file__, "bare", scale)["s"],
    )
    rows = [["fit of `paper`", round(fit, 1)], ["its products and factors alone", round(bare, 1)]]
    title = f"A fit takes {fit / bare:.2f} times as long as its products and factors alone"
    report("stacker_floor", title, ["what", "s"], rows)


def growth(root: Path, sizes: list[int]) -> None:
    """Fit on more and more pairs from a cache."""
    runs = {n_pairs: in_a_process(__file__, "fit", root, n_pairs) for n_pairs in sizes}
    seconds = [run["fit, s"] for run in runs.values()]
    exponent = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    rows = [
        [n, round(run["fit, s"], 1), round(run["peak, MiB"]), round(n / run["fit, s"])]
        for n, run in runs.items()
    ]
    title = f"Features and fit from an HDF5 cache; time grows like pairs^{exponent:.2f}"
    report("stacker_growth", title, ["pairs", "s", "peak, MiB", "pairs/s"], rows)


def scoring(root: Path, runs: list[tuple[str, int, int]]) -> None:
    """Score from a cache: (preset, training pairs, pairs to score)."""
    rows = []
    for preset, n_train, n_pairs in runs:
        run = in_a_process(__file__, "score", root, n_pairs, preset, n_train)
        peaks = [round(run[key]) for key in ("peak of fit, MiB", "peak, MiB")]
        rows.append([preset, n_train, n_pairs, round(run["pairs/s"]), *peaks])
    header = ["preset", "fitted on", "pairs", "pairs/s", "peak before, MiB", "peak, MiB"]
    report("stacker_scoring", "Scoring pairs from an HDF5 cache", header, rows)


PARTS = ("all", "speed", "floor", "growth", "scoring")


def main() -> None:
    """Run one measurement, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", choices=[*MEASUREMENTS, *PARTS], default="all")
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.name in MEASUREMENTS:
        print(json.dumps(MEASUREMENTS[options.name](*options.arguments)))
        return
    scale = 0.1 if options.quick else 1.0
    if options.name in ("all", "speed"):
        speed(scale)
    if options.name in ("all", "floor"):
        floor(scale)
    if options.name in ("all", "growth", "scoring"):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            sizes = [int(scale * n_pairs) for n_pairs in (10_000, 20_000, 40_000, 80_000)]
            np.save(root / "scores.npy", write_cache(root, sizes[-1], seed=0))
            if options.name != "scoring":
                growth(root, sizes)
            if options.name == "growth":
                return
            many = [int(scale * n_pairs) for n_pairs in (20_000, 100_000, 1_000_000)]
            runs = [("paper", int(2_000 * scale), n_pairs) for n_pairs in many]
            scoring(root, [*runs, ("best", int(N_TRAIN * scale), many[1])])


if __name__ == "__main__":
    main()
