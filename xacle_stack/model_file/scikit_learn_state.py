"""Checks of scikit-learn's fitted estimators that come from a file."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xacle_stack._state_checks import MAX_OUTPUTS, check_numbers
from xacle_stack.errors import ModelFileError

# Outputs of an estimator, and quantiles.
_MAX_LENGTHS = {"outputs": MAX_OUTPUTS, "quantiles": 2**16}
# Lengths that the arrays of scikit-learn's estimators share; that of columns is n_features_in_.
_COLUMNS, _OUTPUTS, _COMPONENTS, _QUANTILES = "columns", "outputs", "components", "quantiles"
# What `predict` and `transform` reckon with.  Arrays of other shapes would be broadcast to some
# that take more memory than the file's size accounts for.
_SHAPES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "MaxAbsScaler": {"scale_": (_COLUMNS,)},
    "MinMaxScaler": {"scale_": (_COLUMNS,), "min_": (_COLUMNS,)},
    "PCA": {
        "mean_": (_COLUMNS,),
        "components_": (_COMPONENTS, _COLUMNS),
        "explained_variance_": (_COMPONENTS,),
    },
    "PLSRegression": {
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
    },
    "PowerTransformer": {"lambdas_": (_COLUMNS,)},
    "QuantileTransformer": {"quantiles_": (_QUANTILES, _COLUMNS), "references_": (_QUANTILES,)},
    "RobustScaler": {"center_": (_COLUMNS,), "scale_": (_COLUMNS,)},
    "StandardScaler": {"mean_": (_COLUMNS,), "scale_": (_COLUMNS,)},
    "TruncatedSVD": {"components_": (_COMPONENTS, _COLUMNS)},
}

# Of scalers that are told not to shift, or not to scale.
_MAY_BE_NONE = frozenset({"mean_", "center_", "scale_"})


def check_scikit_learn(estimator: Any) -> None:
    """Check the arrays of an estimator against each other, and the parts of a composed one.

    Raises
    ------
    ModelFileError
        If `predict` or `transform` would make more of a row than there are columns and outputs.
    """
    kind, state = type(estimator).__name__, vars(estimator)
    if kind == "Pipeline":
        _check_pipeline(estimator)
    elif kind == "TransformedTargetRegressor":
        for name, method in (("regressor_", "predict"), ("transformer_", "inverse_transform")):
            if name in state and not hasattr(state[name], method):
                raise ModelFileError(f"{name} is a {type(state[name]).__name__}.")
    elif kind in _SHAPES:
        _check_shapes(_SHAPES[kind], state)
    elif "coef_" in state:
        one_output = np.ndim(state["coef_"]) == 1
        n_outputs = () if np.ndim(state["intercept_"]) == 0 else (_OUTPUTS,)
        shapes = {"coef_": (_COLUMNS,) if one_output else (_OUTPUTS, _COLUMNS)}
        lengths = {_OUTPUTS: 1} if one_output else {}
        _check_shapes({**shapes, "intercept_": n_outputs}, state, lengths)


def _check_shapes(
    shapes: Mapping[str, tuple[str, ...]],
    state: Mapping[str, Any],
    known: Mapping[str, int] | None = None,
) -> None:
    """Check that arrays are there and have the lengths that they share.

    An estimator without one of them is not fitted.
    """
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
            f"{lengths[_COMPONENTS]} components of {lengths[_COLUMNS]} columns, expected no more."
        )
    for dimension, most in _MAX_LENGTHS.items():
        if lengths.get(dimension, 0) > most:
            raise ModelFileError(f"{lengths[dimension]} {dimension}, the most is {most}.")


def _check_pipeline(pipeline: Any) -> None:
    if pipeline.memory is not None:
        raise ModelFileError("memory names a folder for results in between, expected None.")
    if vars(pipeline).get("transform_input") is not None:
        raise ModelFileError("transform_input is set, expected None.")
    steps = pipeline.steps
    if not isinstance(steps, list) or not steps:
        raise ModelFileError(f"steps is a {type(steps).__name__}, expected a list of steps.")
    for step in steps:
        is_pair = isinstance(step, tuple | list) and len(step) == 2 and isinstance(step[0], str)
        if not is_pair or not (
            step[1] is None or step[1] == "passthrough" or hasattr(step[1], "fit")
        ):
            raise ModelFileError(f"steps has {str(step)[:40]!r}, expected a name and an estimator.")
