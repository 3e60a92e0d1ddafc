"""Checks of fitted estimators that come from a file, before anybody predicts with them.

A file may be made by anyone, and its arrays need not fit together.  What is checked here, shapes,
indices, finite numbers and how much the parts make of one row, keeps a prediction from taking more
memory or time than the file's size accounts for, and from ending in an error that names no file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xacle_stack._state_checks import check_attributes, check_width
from xacle_stack.errors import MissingExtraError, ModelFileError, XacleStackError
from xacle_stack.model_file.schema import OWN_TYPES, SCIKIT_LEARN_TYPES
from xacle_stack.model_file.scikit_learn_state import check_scikit_learn

# Of those that go over the columns one by one, what each column counts as.
_BY_COLUMN, _BY_COLUMN_COUNTS = frozenset({"PowerTransformer", "QuantileTransformer"}), 1024
# Estimators, each as often as the model refers to it, times the columns of the widest table.
_MAX_WORK = 2**30
# Attributes of our estimators beside settings and what is learned: LightGBM's form of the trees,
# which no file can give.
_OWN_PRIVATE = frozenset({"_booster"})


def check_states(model: Any) -> None:
    """Check what the estimators in a model have learned, the inner ones first.

    Parameters
    ----------
    model : object
        An estimator, or containers of some.  This library's have a method ``check_state``.

    Raises
    ------
    ModelFileError
        If something is missing, does not fit together, or would take very long to predict.
    """
    for estimator in check_attributes_in(model):
        with _naming(estimator):
            if _full_name(estimator) in SCIKIT_LEARN_TYPES:
                check_scikit_learn(estimator)
            elif _full_name(estimator) in OWN_TYPES and _has_learned(estimator):
                _check_itself(estimator)


def check_attributes_in(model: Any) -> list[Any]:
    """Check what a model consists of, without using it: the names of attributes, how much there is.

    Returns
    -------
    estimators : list
        All that the model refers to, the inner ones first.

    Raises
    ------
    ModelFileError
        If an estimator has an attribute that its class does not know, or there are very many.
    """
    estimators: dict[int, Any] = {}
    n_estimators = _collect(model, estimators, {})
    n_columns = 1
    for estimator in estimators.values():
        with _naming(estimator):
            _check_attributes(estimator)
            n_columns = max(n_columns, check_width(vars(estimator).get("n_features_in_", 1)))
    if n_estimators * n_columns > _MAX_WORK:
        raise ModelFileError(
            f"{n_estimators} estimators for up to {n_columns} columns would take very long to "
            f"predict; the most is {_MAX_WORK} of both together."
        )
    return list(estimators.values())


def _collect(value: Any, estimators: dict[int, Any], counts: dict[int, int]) -> int:
    """Find the estimators in a model, the inner ones first.

    Returns
    -------
    n_estimators : int
        Each as often as the model refers to it; one that goes column by column counts as many.
    """
    if id(value) not in counts:
        n_inside = sum(_collect(part, estimators, counts) for part in _parts_of(value))
        is_estimator = _is_estimator(value)
        if is_estimator:
            estimators[id(value)] = value
        is_slow = is_estimator and type(value).__name__ in _BY_COLUMN
        counts[id(value)] = n_inside + (_BY_COLUMN_COUNTS if is_slow else is_estimator)
    return counts[id(value)]


@contextmanager
def _naming(estimator: Any) -> Iterator[None]:
    """Say in front of a message which estimator it is about."""
    name = type(estimator).__name__
    try:
        yield
    except MissingExtraError:
        raise
    except XacleStackError as error:
        raise ModelFileError(f"{name}: {str(error).removesuffix('.')}") from error
    except Exception as error:  # arrays that do not fit together fail anywhere in NumPy
        raise ModelFileError(f"{name}: {type(error).__name__}: {error}") from error


def _parts_of(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif _is_estimator(value):
        yield from vars(value).values()


def _full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_estimator(value: Any) -> bool:
    """Return whether a value is of this library or scikit-learn, and has a state to look into."""
    package = type(value).__module__.partition(".")[0]
    return package in ("xacle_stack", "sklearn") and hasattr(value, "__dict__")


def _check_attributes(estimator: Any) -> None:
    """Check the names of attributes; a type that a caller trusts may have any."""
    if _full_name(estimator) in OWN_TYPES:
        check_attributes(estimator, _OWN_PRIVATE)
    elif _full_name(estimator) in SCIKIT_LEARN_TYPES:
        check_attributes(estimator, None)


def _has_learned(value: Any) -> bool:
    if not hasattr(value, "fit"):  # what only a fit makes
        return True
    return any(name.endswith("_") for name in vars(value))


def _check_itself(value: Any) -> None:
    type(value).check_state(value)
