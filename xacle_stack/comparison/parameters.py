"""The size of a fitted system."""

import numpy as np

# What a fitted estimator keeps as evidence, and does not score with.
_EVIDENCE = {
    "oof_predictions_",
    "folds_",
    "cv_mse_",
    "gain_",
    "validation_srcc_",
    "validation_loss_",
}


def count_parameters(model: object) -> int:
    """Return how many learned numbers an estimator, or several, hold to score with.

    Of a tree these are its thresholds and leaves; of a Gaussian process its training rows too.

    Examples
    --------
    >>> from xacle_stack.stacking import GroupedRidge
    >>> X = np.arange(12.0).reshape(6, 2)
    >>> count_parameters(GroupedRidge().fit(X, X[:, 0]))  # two coefficients, intercept, penalty
    4
    """
    if isinstance(model, np.ndarray):
        return int(model.size) if model.dtype.kind == "f" else 0
    if isinstance(model, float):
        return 1
    if isinstance(model, dict):
        return sum(count_parameters(value) for value in model.values())
    if isinstance(model, list | tuple):
        return sum(count_parameters(value) for value in model)
    if type(model).__module__.partition(".")[0] not in {"xacle_stack", "sklearn"}:
        return 0
    learned = {
        name: value
        for name, value in vars(model).items()
        if name not in _EVIDENCE and not _is_setting(model, name)
    }
    return count_parameters(learned)


def _is_setting(model: object, name: str) -> bool:
    get = getattr(model, "get_params", None)
    return get is not None and name in get(deep=False)
