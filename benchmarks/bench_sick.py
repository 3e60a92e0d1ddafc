"""The presets on a real stacking problem: SICK, through the public Python interface.

Writes the figure of `Stacker.explain` as well.
"""

import time

import h5py
import numpy as np
from report import RESULTS, peak_mib, real_data, report

from xacle_stack import FeatureBuilder, PairEmbeddings, Stacker, cosine_similarity, evaluate
from xacle_stack.metrics import srcc, srcc_gain

SEEDS = range(3)
# The preset "best" on the spaces' whitened features, too.
WHITENED = "best whitened"


def read_split(file: h5py.File, split: str) -> tuple[PairEmbeddings, np.ndarray]:
    """Return the embeddings of the sentence pairs, left as audio and right as text, and scores."""
    left, right = (file[split][side][:] for side in ("left_sentence", "right_sentence"))
    spaces = {}
    for name, sentences in file["spaces"].items():
        vectors = sentences[:].astype(np.float32)
        spaces[name] = (vectors[left], vectors[right])
    return PairEmbeddings(spaces), file[split]["y"][:].astype(np.float64)


def main() -> None:
    """Run it."""
    with h5py.File(real_data("sick_pairs.h5")) as file:
        spaces = sorted(file["spaces"])
        train, y_train = read_split(file, "train")
        validation, y_validation = read_split(file, "validation")
        test, y_test = read_split(file, "test")
    rows: list[list[object]] = []
    of_test: dict[str, np.ndarray] = {}

    def add(system: str, seconds: float | None, *predicted: np.ndarray) -> None:
        of_test[system] = predicted[1]
        on_test = evaluate(y_test, predicted[1])
        mse = None if system.startswith("cosine") else on_test.mse
        rows.append([system, srcc(y_validation, predicted[0]), on_test.srcc, mse, seconds])

    for space in spaces:
        cosines = [cosine_similarity(s.audio(space), s.text(space)) for s in (validation, test)]
        add(f"cosine of {space}", None, *cosines)
    presets = ("paper", "best", WHITENED)
    settings = [(spaces, preset, "score", seed) for preset in presets for seed in SEEDS]
    settings.append((spaces, "best", "rank", 0))
    settings += [([space], "best", "score", 0) for space in spaces]
    for chosen, preset, target, seed in settings:
        start = time.perf_counter()
        builder = FeatureBuilder(chosen, n_whitened=128 if preset == WHITENED else 0)
        table = builder.fit_transform(train)
        kind = preset.split()[0]
        stacker = Stacker(preset=kind, target=target, random_state=seed, n_jobs=-1)
        stacker.fit(table, y_train)
        seconds = round(time.perf_counter() - start, 1)
        predicted = [stacker.predict(builder.transform(s)) for s in (validation, test)]
        name = f"{preset}, {target}, seed {seed}"
        add(name if chosen is spaces else f"{name}, {chosen[0]} alone", seconds, *predicted)
    header = ["system", "validation SRCC", "test SRCC", "test MSE (1-5)", "fit, s"]
    title = f"SICK: 4,500 train, 500 validation, 4,927 test pairs; peak memory {peak_mib()} MiB"
    report("sick", title, header, rows)
    gains = [
        [
            system,
            reference,
            seed,
            srcc_gain(
                y_test, *(of_test[f"{one}, score, seed {seed}"] for one in (system, reference))
            ),
        ]
        for system, reference in (("best", "paper"), (WHITENED, "paper"), (WHITENED, "best"))
        for seed in SEEDS
    ]
    title = "SICK: test SRCC of one stack over another, paired bootstrap"
    report("sick_gain", title, ["stack", "over", "seed", "gain"], gains)

    builder = FeatureBuilder(spaces)
    table = builder.fit_transform(train)
    stacker = Stacker(preset="paper", random_state=0, n_jobs=-1).fit(table, y_train)
    explanation = stacker.explain(table, y_train)
    print(explanation.to_markdown())
    explanation.plot().figure.savefig(RESULTS / "sick_explained.png", dpi=110)


if __name__ == "__main__":
    main()
