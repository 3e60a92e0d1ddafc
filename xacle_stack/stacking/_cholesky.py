"""Cholesky factors in place, several at once in threads.

SciPy's own wrapper of LAPACK holds Python's global lock while it computes; called through ctypes
the same routine lets other threads go on.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
from scipy.linalg import cython_lapack

from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError


def factor_upper(matrix: FloatArray) -> bool:
    """Replace a matrix's upper triangle by its Cholesky factor; tell whether there is one.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        float64 or float32, in Fortran order.  The lower triangle is neither read nor changed.

    Examples
    --------
    >>> matrix = np.array([[4.0, 2.0], [0.0, 5.0]], order="F")
    >>> factor_upper(matrix), matrix.tolist()
    (True, [[2.0, 1.0], [0.0, 2.0]])
    """
    return _call("potrf", matrix) == 0


def invert_upper(factor: FloatArray) -> None:
    """Replace a Cholesky factor, as `factor_upper` leaves it, by the inverse's upper triangle.

    Raises
    ------
    StackingError
        If the factor has a zero on its diagonal.

    Examples
    --------
    >>> matrix = np.array([[2.0, 0.0], [0.0, 4.0]], order="F")
    >>> invert_upper(matrix)
    >>> matrix.diagonal().tolist()
    [0.25, 0.0625]
    """
    fault = _call("potri", factor)
    if fault:
        raise StackingError(
            f"a matrix of {len(factor)} rows is singular: its Cholesky factor has a zero in row "
            f"{fault - 1}. Leave rows out that are the same."
        )


def _call(routine: str, matrix: FloatArray) -> int:
    assert matrix.flags.f_contiguous
    kind = {np.dtype(np.float64): "d", np.dtype(np.float32): "s"}[matrix.dtype]
    size, fault = ctypes.c_int(len(matrix)), ctypes.c_int()
    at = ctypes.byref(size)
    if len(matrix):
        _lapack(kind + routine)(b"U", at, matrix.ctypes.data, at, ctypes.byref(fault))
    return fault.value


@cache
def _lapack(routine: str) -> ctypes._FuncPointer:
    """Return a routine of LAPACK as SciPy exports it for Cython."""
    capsule = cython_lapack.__pyx_capi__[routine]
    # Own prototypes: attributes of ctypes.pythonapi's functions are shared by the whole process.
    name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
        ("PyCapsule_GetName", ctypes.pythonapi)
    )
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    integer = ctypes.POINTER(ctypes.c_int)
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_char_p, integer, ctypes.c_void_p, integer, integer)
    return prototype(pointer(capsule, name(capsule)))
