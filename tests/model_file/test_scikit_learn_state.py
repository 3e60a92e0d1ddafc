"""Arrays and settings of scikit-learn's estimators that do not fit together are refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from hostile_models import X, refusal, set_attribute
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.dummy import DummyRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, RANSACRegressor, SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import GroupedRidge

THIN = np.ones((5, 1))


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (LinearRegression(), {"intercept_": THIN}, r"intercept_ has shape \(5, 1\)"),
        (LinearRegression(), {"coef_": np.ones((5, 4)), "intercept_": THIN}, "intercept_ has"),
        (LinearRegression(), {"coef_": np.ones((5, 4, 1))}, r"coef_ has shape \(5, 4, 1\)"),
        (LinearRegression(), {"intercept_": np.ones(5)}, r"intercept_ has shape \(5,\), .*\(1,\)"),
        (LinearRegression(), {"coef_": None}, "coef_|TypeError"),
        (SGDRegressor(), {"coef_": np.ones((5, 4))}, r"intercept_ has shape \(1,\)"),
        (PCA(2), {"components_": np.ones((5, 4))}, "explained_variance_ has|5 components"),
        (PCA(2), {"mean_": np.ones((5, 4))}, r"mean_ has shape \(5, 4\)"),
        (PCA(2), {"explained_variance_": THIN}, r"explained_variance_ has shape"),
        (TruncatedSVD(2), {"components_": np.ones((5, 4))}, "5 components of 4 columns"),
        (PLSRegression(1), {"intercept_": np.ones((5, 1, 1))}, r"intercept_ has shape \(5, 1, 1\)"),
        (PLSRegression(1), {"_x_mean": THIN}, r"_x_mean has shape \(5, 1\), expected \(4,\)"),
        (StandardScaler(), {"mean_": THIN}, r"mean_ has shape \(5, 1\), expected \(4,\)"),
        (StandardScaler(), {"scale_": np.full(4, np.nan)}, "scale_ holds NaN"),
        (MinMaxScaler(), {"min_": THIN}, r"min_ has shape \(5, 1\), expected \(4,\)"),
        (MaxAbsScaler(), {"scale_": "4"}, r"scale_ is of type str, expected numbers"),
        (RobustScaler(), {"center_": THIN}, r"center_ has shape \(5, 1\), expected \(4,\)"),
        (PowerTransformer(), {"lambdas_": np.ones(5)}, r"lambdas_ has shape \(5,\)"),
        (
            QuantileTransformer(n_quantiles=9),
            {"references_": THIN},
            r"references_ has shape \(5, 1\)",
        ),
        (
            QuantileTransformer(n_quantiles=9),
            {"quantiles_": np.ones((9, 5))},
            r"quantiles_ has shape \(9, 5\)",
        ),
        (StandardScaler(), {"n_features_in_": 10**12}, "n_features_in_ is 1000000000000"),
        (
            TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler()),
            {"regressor_": "x"},
            "regressor_ is a str",
        ),
        (DummyRegressor(), {"n_outputs_": 10**9}, r"constant_ has shape \(1, 1\)"),
        (DummyRegressor(), {"constant_": np.ones((1, 5000))}, "5000 outputs"),
        (KernelRidge(), {"kernel": "laplacian"}, "kernel is 'laplacian', expected .*rbf"),
        (KernelRidge(), {"dual_coef_": np.ones((60, 5000))}, "5000 outputs"),
        (KernelRidge(), {"X_fit_": np.ones((60, 5))}, r"X_fit_ has shape \(60, 5\)"),
        (FunctionTransformer(), {"func": "os.system"}, "func is a str, expected a function"),
        (FunctionTransformer(), {"kw_args": "x"}, "kw_args is set without func"),
        (RANSACRegressor(), {"estimator_": 3}, "estimator_ is a int, expected .* predict"),
        (make_pipeline(StandardScaler()), {"steps": "x"}, "steps is a str, expected a list"),
        (make_pipeline(StandardScaler()), {"transform_input": "x"}, "transform_input is set"),
        (
            GroupedRidge(),
            {"coef_": np.ones((5000, 4)), "intercept_": np.ones(5000)},
            "5000 outputs",
        ),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
@pytest.mark.filterwarnings("ignore:n_quantiles")
def test_arrays_of_scikit_learn_that_would_be_broadcast_are_refused(
    tmp_path: Path, model, changes: dict[str, object], message: str
) -> None:
    path = save_model(tmp_path / "m.skops", clone(model).fit(X, X[:, 0]))
    load_model(path)
    for name, value in changes.items():
        set_attribute(path, type(model).__name__, name, value)
    assert re.search(f"{type(model).__name__}: {message}", refusal(path))


def test_scikit_learn_arrays_are_no_wider_than_their_table(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(X, X[:, 0])
    path = save_model(tmp_path / "m.skops", model)
    np.testing.assert_array_equal(load_model(path).predict(X), model.predict(X))
    set_attribute(path, "LinearRegression", "coef_", np.ones((70_000, 4)))
    assert "LinearRegression: 70000 outputs, expected 4096" in refusal(path)


def test_a_pipeline_with_a_folder_for_results_is_refused(tmp_path: Path) -> None:
    """Refitting it would write, and unpickle, what stands there."""
    model = make_pipeline(StandardScaler(), LinearRegression())
    path = save_model(tmp_path / "m.skops", model)
    set_attribute(path, "Pipeline", "memory", str(tmp_path / "elsewhere"))
    assert "Pipeline: memory names a folder" in refusal(path)
