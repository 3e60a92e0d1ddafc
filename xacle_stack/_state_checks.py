"""Checks the learned attributes of an estimator that was read from a file."""

import inspect
from collections.abc import Collection, Sequence

import numpy as np

from xacle_stack.errors import ModelFileError

_MAX_COLUMNS = 2**20
# A model may predict up to so many numbers for one pair.
MAX_OUTPUTS = 2**12


def check_numbers(
    what: str,
    value: object,
    shape: Sequence[int | None],
    *,
    minimum: float = -np.inf,
    finite: bool = True,
) -> None:
    """Check that a learned attribute is an array of numbers with an expected shape.

    Parameters
    ----------
    what : str
        The attribute's name in the message.
    value : object
    shape : sequence of int or None
        None stands for any length.
    minimum : float, optional
        The smallest number allowed.
    finite : bool, default=True
        Whether infinity is refused; NaN is always refused.

    Raises
    ------
    ModelFileError
        If it is not as expected.

    Examples
    --------
    >>> check_numbers("coef_", np.zeros(3), (4,))
    Traceback (most recent call last):
    xacle_stack.errors.ModelFileError: coef_ has shape (3,), expected (4,).
    """
    if not isinstance(value, np.ndarray | np.generic | int | float):
        raise ModelFileError(f"{what} is of type {type(value).__name__}, expected numbers.")
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ModelFileError(f"{what} is of type {array.dtype}, expected numbers.")
    if array.ndim != len(shape) or any(
        wanted is not None and length != wanted
        for length, wanted in zip(array.shape, shape, strict=True)
    ):
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        expected += "," if len(shape) == 1 else ""
        raise ModelFileError(f"{what} has shape {array.shape}, expected ({expected}).")
    if array.size and not (np.isfinite(array).all() if finite else not np.isnan(array).any()):
        raise ModelFileError(f"{what} holds NaN{' or infinity' if finite else ''}.")
    if array.size and array.min() < minimum:
        raise ModelFileError(f"{what} holds {array.min()!s}, expected {minimum:g} or more.")


def check_indices(what: str, value: object, n_indices: int | None, stop: int) -> None:
    """Check that a learned attribute holds whole numbers from 0 to below `stop`."""
    check_numbers(what, value, (n_indices,), minimum=0)
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ModelFileError(f"{what} is of type {array.dtype}, expected whole numbers.")
    if array.size and array.max() >= stop:
        raise ModelFileError(f"{what} holds {array.max()}, expected numbers below {stop}.")


def check_width(n_columns: object) -> int:
    """Return a number of columns after checking that a table may have as many."""
    if type(n_columns) is not int or not 0 < n_columns <= _MAX_COLUMNS:
        raise ModelFileError(f"n_features_in_ is {n_columns!r}; expected 1 to {_MAX_COLUMNS}.")
    return n_columns


def check_spans(what: str, spans: object, n_columns: int, *, cover: bool = True) -> None:
    """Check that named slices of a table's columns do not overlap and that they cover all columns.

    Parameters
    ----------
    what : str
    spans : object
    n_columns : int
    cover : bool, default=True
        Whether columns outside all slices are refused.
    """
    if not isinstance(spans, dict):
        raise ModelFileError(f"{what} is a {type(spans).__name__}, expected a dict of slices.")
    for name, span in spans.items():
        if not (isinstance(name, str) and _is_span(span, n_columns)):
            raise ModelFileError(
                f"{what} has {name!r}: {span!r}, expected a name and a slice of {n_columns} "
                "columns."
            )
    stop = 0
    for span in sorted(spans.values(), key=lambda span: (span.start, span.stop)):
        if span.start < stop or (cover and span.start > stop):
            raise ModelFileError(f"{what} omits or repeats columns at {span!r}.")
        stop = span.stop
    if cover and stop != n_columns:
        raise ModelFileError(f"{what} covers {stop} of {n_columns} columns.")


def check_attributes(estimator: object, private: Collection[str] | None = ()) -> None:
    """Check that an estimator has only attributes that its class knows.

    An attribute with the name of a method would be called instead of it.

    Parameters
    ----------
    estimator : object
    private : collection of str, optional
        Allowed names beside the parameters and the learned attributes, which end in an
        underscore; None allows any name that the class does not define.

    Raises
    ------
    ModelFileError
        If it has another attribute.

    Examples
    --------
    >>> from xacle_stack.stacking import GroupedRidge
    >>> ridge = GroupedRidge()
    >>> ridge.predict = "nothing"
    >>> check_attributes(ridge)
    Traceback (most recent call last):
    xacle_stack.errors.ModelFileError: an attribute 'predict', which its class has.
    """
    kind = type(estimator)
    parameters = inspect.signature(kind).parameters
    for name in vars(estimator):
        if name in parameters:
            continue
        if not isinstance(name, str) or not name.isidentifier() or hasattr(kind, name):
            raise ModelFileError(f"an attribute {name!r}, which its class has.")
        is_learned = name[-1] == "_" and name[0] != "_"
        if not is_learned and private is not None and name not in private:
            raise ModelFileError(f"an attribute {name!r}, which its class does not know.")


def _is_span(span: object, n_columns: int) -> bool:
    if not isinstance(span, slice) or span.step not in (None, 1):
        return False
    ends = (span.start, span.stop)
    return all(type(end) is int for end in ends) and 0 <= ends[0] <= ends[1] <= n_columns
