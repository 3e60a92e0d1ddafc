"""Checks of scikit-learn's fitted estimators that come from a file."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xacle_stack._state_checks import MAX_OUTPUTS, check_numbers
from xacle_stack.errors import ModelFileError

# Lengths that the arrays of an estimator share; the number of columns is n_features_in_.
_COLUMNS, _OUTPUTS, _COMPONENTS = "columns", "outputs", "components"
_QUANTILES, _TRAINING_ROWS = "quantiles", "training rows"
_MAX_LENGTHS = {_OUTPUTS: MAX_OUTPUTS, _QUANTILES: 2**16}
_PLS = {
    "coef_": (_OUTPUTS, _COLUMNS),
    "intercept_": (_OUTPUTS,),
    "_x_mean": (_COLUMNS,),
    "_x_std": (_COLUMNS,),
    "_y_mean": (_OUTPUTS,),
    "_y_std": (_OUTPUTS,),
    "x_rotations_": (_COLUMNS, _COMPONENTS),
    "x_loadings_": (_COLUMNS, _COMPONENTS),
    "y_rotations_": (_OUTPUTS, _COMPONENTS),
    "y_loadings_": (_OUTPUTS, _COMPONENTS),
}
# The arrays that `predict` and `transform` compute with.  Other shapes could be broadcast to
# arrays that take more memory than the file's size accounts for.
_SHAPES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "CCA": _PLS,
    "MaxAbsScaler": {"scale_": (_COLUMNS,)},
    "MinMaxScaler": {"scale_": (_COLUMNS,), "min_": (_COLUMNS,)},
    "PCA": {
        "mean_": (_COLUMNS,),
        "components_": (_COMPONENTS, _COLUMNS),
        "explained_variance_": (_COMPONENTS,),
    },
    "PLSCanonical": _PLS,
    "PLSRegression": _PLS,
    "PowerTransformer": {"lambdas_": (_COLUMNS,)},
    "QuantileTransformer": {"quantiles_": (_QUANTILES, _COLUMNS), "references_": (_QUANTILES,)},
    "RobustScaler": {"center_": (_COLUMNS,), "scale_": (_COLUMNS,)},
    "StandardScaler": {"mean_": (_COLUMNS,), "scale_": (_COLUMNS,)},
    "TruncatedSVD": {"components_": (_COMPONENTS, _COLUMNS)},
}
# A scaler that does not shift or does not scale has None here.
_MAY_BE_NONE = frozenset({"mean_", "center_", "scale_"})
# The kernels that scikit-learn computes from products of matrices.
_KERNELS = ("linear", "poly", "polynomial", "rbf", "sigmoid", "cosine")


def check_scikit_learn(estimator: Any) -> None:
    """Check the arrays of an estimator against each other, and the parts of a composed one.

    A ModelFileError says that `predict` or `transform` would make more of a row than there are
    columns and outputs.
    """
    kind, state = type(estimator).__name__, vars(estimator)
    if kind in _CHECKS:
        _CHECKS[kind](state)
    elif kind in _SHAPES:
        _check_shapes(_SHAPES[kind], state)
    elif "coef_" in state:
        has_one_output = np.ndim(state["coef_"]) == 1
        n_outputs = () if np.ndim(state["intercept_"]) == 0 else (_OUTPUTS,)
        shapes = {"coef_": (_COLUMNS,) if has_one_output else (_OUTPUTS, _COLUMNS)}
        lengths = {_OUTPUTS: 1} if has_one_output else {}
        _check_shapes({**shapes, "intercept_": n_outputs}, state, lengths)


def _check_shapes(
    shapes: Mapping[str, tuple[str, ...]],
    state: Mapping[str, Any],
    known: Mapping[str, int] | None = None,
) -> None:
    """Check the lengths that arrays share; an estimator without one of them is not fitted."""
    lengths = {**(known or {}), _COLUMNS: state.get("n_features_in_", 0)}
    for name, dimensions in shapes.items():
        value = state.get(name)
        if name not in state or (value is None and name in _MAY_BE_NONE):
            continue
        if isinstance(value, np.ndarray) and value.ndim == len(dimensions):
            for dimension, length in zip(dimensions, value.shape, strict=True):
                lengths.setdefault(dimension, length)
        check_numbers(name, value, [lengths.get(dimension) for dimension in dimensions])
    if lengths.get(_COMPONENTS, 0) > lengths[_COLUMNS]:
        raise ModelFileError(
            f"{lengths[_COMPONENTS]} components of {lengths[_COLUMNS]} columns, expected no more "
            "components than columns."
        )
    for dimension, max_length in _MAX_LENGTHS.items():
        if lengths.get(dimension, 0) > max_length:
            raise ModelFileError(
                f"{lengths[dimension]} {dimension}, expected {max_length} or fewer."
            )


def _check_dummy(state: Mapping[str, Any]) -> None:
    if "constant_" in state:
        _check_shapes({"constant_": (_OUTPUTS,)}, {**state, "constant_": state["constant_"][0]})
        check_numbers("constant_", state["constant_"], (1, state["n_outputs_"]))


def _check_functions(state: Mapping[str, Any]) -> None:
    """Check that functions are callable: a file has only those that a caller trusts."""
    for name, arguments in (("func", "kw_args"), ("inverse_func", "inv_kw_args")):
        function = state[name]
        if function is None and state[arguments] is not None:
            raise ModelFileError(f"{arguments} is set without {name}, expected None.")
        if function is not None and not callable(function):
            raise ModelFileError(f"{name} is a {type(function).__name__}, expected a function.")


def _check_kernel_ridge(state: Mapping[str, Any]) -> None:
    if state["kernel"] not in _KERNELS:
        raise ModelFileError(
            f"kernel is {state['kernel']!r:.40}, expected one of {', '.join(_KERNELS)}."
        )
    n_outputs = (_OUTPUTS,) if np.ndim(state.get("dual_coef_", ())) == 2 else ()
    _check_shapes(
        {"X_fit_": (_TRAINING_ROWS, _COLUMNS), "dual_coef_": (_TRAINING_ROWS, *n_outputs)}, state
    )


def _check_pipeline(state: Mapping[str, Any]) -> None:
    if state["memory"] is not None:
        raise ModelFileError("memory names a folder for intermediate results, expected None.")
    if state.get("transform_input") is not None:
        raise ModelFileError("transform_input is set, expected None.")
    steps = state["steps"]
    if not isinstance(steps, list) or not steps:
        raise ModelFileError(f"steps is a {type(steps).__name__}, expected a list of steps.")
    for step in steps:
        is_pair = isinstance(step, tuple | list) and len(step) == 2 and isinstance(step[0], str)
        if not is_pair or not (
            step[1] is None or step[1] == "passthrough" or hasattr(step[1], "fit")
        ):
            raise ModelFileError(f"steps has {str(step)[:40]!r}, expected a name and an estimator.")


def _check_parts(methods: Mapping[str, str]) -> Callable[[Mapping[str, Any]], None]:
    """Return a check that fitted parts of an estimator have the methods that it calls."""

    def check(state: Mapping[str, Any]) -> None:
        for name, method in methods.items():
            if name in state and not hasattr(state[name], method):
                raise ModelFileError(
                    f"{name} is a {type(state[name]).__name__}, expected an estimator with a "
                    f"method {method}."
                )

    return check


_CHECKS: Mapping[str, Callable[[Mapping[str, Any]], None]] = {
    "DummyRegressor": _check_dummy,
    "FunctionTransformer": _check_functions,
    "KernelRidge": _check_kernel_ridge,
    "Pipeline": _check_pipeline,
    "RANSACRegressor": _check_parts({"estimator_": "predict"}),
    "TransformedTargetRegressor": _check_parts(
        {"regressor_": "predict", "transformer_": "inverse_transform"}
    ),
}
