"""Checks of fitted estimators that come from a file, before anybody predicts with them.

A file may be made by anyone, and its arrays need not fit together.  The checks of shapes, indices,
finite numbers and sizes keep a prediction from taking more memory or time than the file's size
accounts for, and from ending in an error that names no file.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from xacle_stack._large_arrays import LargeArrays
from xacle_stack._state_checks import check_attributes, check_width
from xacle_stack.errors import MissingExtraError, ModelFileError, XacleStackError
from xacle_stack.model_file.saved_types import OWN_TYPES, SCIKIT_LEARN_TYPES
from xacle_stack.model_file.schema import MAX_REPEATS
from xacle_stack.model_file.scikit_learn_state import check_scikit_learn

# These transform the columns one by one, so each counts as this many estimators.
_COLUMNWISE, _COLUMNWISE_COUNT = frozenset({"PowerTransformer", "QuantileTransformer"}), 1024
# The number of estimators, each as often as the model refers to it, times the largest number of
# columns.
_MAX_WORK = 2**30


def check_states(model: Any) -> None:
    """Check a model's attributes, its size, and what its estimators have learned.

    Every type of this library that a model may hold has a method ``check_state``; inner estimators
    are checked before those that hold them.  A ModelFileError says what is missing, does not fit
    together, is unknown to its class, or would take very long to predict.
    """
    estimators = _checked_estimators(model)
    for estimator in estimators:
        with _naming(estimator):
            if _full_name(estimator) in SCIKIT_LEARN_TYPES:
                check_scikit_learn(estimator)
            elif _full_name(estimator) in OWN_TYPES and _is_fitted(estimator):
                estimator.check_state()


def large_arrays(model: Any, n_written: int) -> list[LargeArrays]:
    """Return the large arrays that a model holds, in an order that saving and loading keep.

    A ModelFileError says that there are more or fewer than the number written in its archive.
    """
    found = [part for part in _parts(model) if isinstance(part, LargeArrays)]
    if len(found) != n_written:
        raise ModelFileError(
            f"it has {n_written} LargeArrays, of which {len(found)} are found in attributes, dicts "
            "and lists. Keep each of them in an attribute of an estimator."
        )
    return found


def _checked_estimators(model: Any) -> list[Any]:
    """Return all estimators in a model, the inner ones first, once their attributes are checked."""
    parts = _parts(model)
    estimators = [part for part in parts if _is_estimator(part)]
    n_columns = 1
    for estimator in estimators:
        with _naming(estimator):
            _check_attributes(estimator)
            n_columns = max(n_columns, check_width(vars(estimator).get("n_features_in_", 1)))
    n_estimators = _total(parts, _n_estimators)
    if n_estimators * n_columns > _MAX_WORK:
        raise ModelFileError(
            f"{n_estimators} estimators for up to {n_columns} columns would take very long to "
            f"predict; their product must not exceed {_MAX_WORK}."
        )
    n_bytes = sum(map(_n_large_bytes, parts))
    if (n_read := _total(parts, _n_large_bytes)) > MAX_REPEATS * n_bytes:
        raise ModelFileError(
            f"its large arrays of {n_bytes} bytes are referred to so often that they have {n_read} "
            "bytes"
        )
    return estimators


def _parts(model: Any) -> list[Any]:
    """Return all that a model holds and itself, each once, the inner ones first."""
    parts: list[Any] = []
    seen: set[int] = set()

    def visit(value: Any) -> None:
        if id(value) not in seen:
            seen.add(id(value))
            for child in _children(value):
                visit(child)
            parts.append(value)

    visit(model)
    return parts


def _total(parts: Sequence[Any], count: Callable[[Any], int]) -> int:
    """Return the sum over a model's parts, each as often as the model refers to it."""
    totals: dict[int, int] = {}
    for part in parts:
        # An object of a type that a caller trusts may refer back to one that holds it.
        inside = sum(totals.get(id(child), 0) for child in _children(part))
        totals[id(part)] = inside + count(part)
    return totals[id(parts[-1])]


def _n_estimators(value: Any) -> int:
    """Return 1 for an estimator, more for a columnwise one, 0 for anything else."""
    is_estimator = _is_estimator(value)
    is_columnwise = is_estimator and type(value).__name__ in _COLUMNWISE
    return _COLUMNWISE_COUNT if is_columnwise else int(is_estimator)


def _n_large_bytes(value: Any) -> int:
    return value.n_bytes if isinstance(value, LargeArrays) else 0


@contextmanager
def _naming(estimator: Any) -> Iterator[None]:
    """Put the name of an estimator's class in front of an error's message."""
    name = type(estimator).__name__
    try:
        yield
    except MissingExtraError:
        raise
    except XacleStackError as error:
        raise ModelFileError(f"{name}: {str(error).removesuffix('.')}") from error
    except Exception as error:  # arrays that do not fit together fail anywhere in NumPy
        raise ModelFileError(f"{name}: {type(error).__name__}: {error}") from error


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif hasattr(value, "__dict__"):  # of a type that a caller trusts, too
        yield from vars(value).values()


def _full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_estimator(value: Any) -> bool:
    """Return whether a value is of this library or scikit-learn, and has attributes."""
    package = type(value).__module__.partition(".")[0]
    return package in ("xacle_stack", "sklearn") and hasattr(value, "__dict__")


def _check_attributes(estimator: Any) -> None:
    """Check the names of attributes; a type that a caller trusts may have any."""
    if _full_name(estimator) in OWN_TYPES:
        check_attributes(estimator)
    elif _full_name(estimator) in SCIKIT_LEARN_TYPES:
        check_attributes(estimator, None)


def _is_fitted(value: Any) -> bool:
    if not hasattr(value, "fit"):  # only a fit makes such an object
        return True
    return any(name.endswith("_") for name in vars(value))
