"""The published algorithm on a real stacking problem: SICK, through the public Python interface."""

import time

import h5py
import numpy as np
from report import peak_mib, real_data, report

from xacle_stack import FeatureBuilder, PairEmbeddings, Stacker, cosine_similarity, evaluate


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

    def add(
        system: str, seconds: float | None, of_validation: np.ndarray, of_test: np.ndarray
    ) -> None:
        on_test = evaluate(y_test, of_test)
        on_validation = float(evaluate(y_validation, of_validation, n_bootstrap=2).srcc)
        mse = None if system.startswith("cosine") else on_test.mse
        rows.append([system, on_validation, on_test.srcc, mse, seconds])

    for space in spaces:
        cosines = [cosine_similarity(s.audio(space), s.text(space)) for s in (validation, test)]
        add(f"cosine of {space}", None, *cosines)
    for chosen in [*([space] for space in spaces), spaces]:
        for seed in range(3) if chosen is spaces else range(1):
            start = time.perf_counter()
            builder = FeatureBuilder(chosen)
            table = builder.fit_transform(train)
            stacker = Stacker(random_state=seed, n_jobs=-1).fit(table, y_train)
            seconds = round(time.perf_counter() - start, 1)
            predicted = [stacker.predict(builder.transform(s)) for s in (validation, test)]
            add(f"stack of {' + '.join(chosen)}, seed {seed}", seconds, *predicted)
    header = ["system", "validation SRCC", "test SRCC", "test MSE (1-5)", "fit, s"]
    title = f"SICK: 4,500 train, 500 validation, 4,927 test pairs; peak memory {peak_mib()} MiB"
    report("sick", title, header, rows)


if __name__ == "__main__":
    main()
