"""The presets beside other regressors of the field, on the same features of SICK.

Each runs in a process of its own with the library's usual threads: himalaya's banded kernel ridge
with a linear kernel for each block, scikit-learn's support vector regression with the settings of
the challenge's second place, and AutoGluon where it is installed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec

import h5py
import numpy as np
from bench_sick import read_split
from report import in_a_process, peak_mib, real_data, report
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from xacle_stack import FeatureBuilder, FeatureTable, Stacker
from xacle_stack.metrics import srcc

N_DRAWS, N_FOLDS = 5, 3


def banded_kernel_ridge(table: FeatureTable) -> BaseEstimator:
    """Return himalaya's ridge with a weight for each block, found by random search."""
    from himalaya.kernel_ridge import ColumnKernelizer, Kernelizer, MultipleKernelRidgeCV

    kernels = [(name, Kernelizer("linear"), block) for name, block in table.blocks.items()]
    search = {"n_iter": N_DRAWS, "alphas": np.logspace(1, 6, 11), "progress_bar": False}
    ridge = MultipleKernelRidgeCV(
        "precomputed", solver="random_search", solver_params=search, cv=N_FOLDS, random_state=0
    )
    return make_pipeline(StandardScaler(), ColumnKernelizer(kernels), ridge)


def support_vectors(table: FeatureTable) -> BaseEstimator:
    """Return scikit-learn's support vector regression."""
    return make_pipeline(StandardScaler(), SVR(gamma="scale", C=0.5))


class AutoGluon(BaseEstimator):
    """AutoGluon's tabular predictor, for at most five minutes."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> "AutoGluon":
        """Fit it."""
        import pandas as pd
        from autogluon.tabular import TabularPredictor

        frame = pd.DataFrame(X).add_prefix("x")
        frame["score"] = y
        with tempfile.TemporaryDirectory() as folder:
            self._predictor = TabularPredictor("score", path=folder, verbosity=0)
            self._predictor.fit(frame, time_limit=300)
            self._predictor.persist()
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Predict."""
        import pandas as pd

        return self._predictor.predict(pd.DataFrame(X).add_prefix("x")).to_numpy()


OTHERS: dict[str, tuple[str, Callable[[FeatureTable], BaseEstimator]]] = {
    f"himalaya, banded kernel ridge, {N_DRAWS} draws": ("himalaya", banded_kernel_ridge),
    'scikit-learn, SVR, gamma "scale", C .5': ("sklearn", support_vectors),
    "AutoGluon, five minutes": ("autogluon.tabular", lambda table: AutoGluon()),
}


def measure(name: str) -> dict[str, float]:
    """Fit one regressor on SICK's training pairs and score its test pairs."""
    with h5py.File(real_data("sick_pairs.h5")) as file:
        spaces = sorted(file["spaces"])
        (train, y_train), (test, y_test) = (read_split(file, s) for s in ("train", "test"))
    builder = FeatureBuilder(spaces)
    table, of_test = builder.fit_transform(train), builder.transform(test)
    start = time.perf_counter()
    if name in OTHERS:
        X, X_test = table.values, of_test.values
        model = OTHERS[name][1](table).fit(X, y_train.astype(np.float32))
    else:
        X_test = of_test
        model = Stacker(preset=name, random_state=0, n_jobs=-1).fit(table, y_train)
    fitted = time.perf_counter()
    predicted = np.ravel(model.predict(X_test))
    return {
        "fit, s": fitted - start,
        "pairs/s": len(predicted) / (time.perf_counter() - fitted),
        "peak, MiB": peak_mib(),
        "test SRCC": srcc(y_test, predicted),
    }


def main() -> None:
    """Run all, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", choices=["best", "paper", *OTHERS])
    options = parser.parse_args()
    if options.name:
        print(json.dumps(measure(options.name)))
        return
    real_data("sick_pairs.h5")
    rows = []
    for name in ("best", "paper", *OTHERS):
        package = OTHERS[name][0].partition(".")[0] if name in OTHERS else "xacle_stack"
        if find_spec(package) is None:
            print(f"{name}: left out, because {package} is not installed.")
            continue
        run = in_a_process(__file__, name)
        shown = [round(run["fit, s"], 1), round(run["pairs/s"]), round(run["peak, MiB"])]
        rows.append([name, *shown, run["test SRCC"]])
    header = ["regressor", "fit, s", "pairs/s", "peak, MiB", "test SRCC"]
    report("others", "SICK: 4,500 training and 4,927 test pairs, the same features", header, rows)


if __name__ == "__main__":
    main()
