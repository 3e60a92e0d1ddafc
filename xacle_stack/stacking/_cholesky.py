"""Symmetric products and Cholesky factors in place, several at once in threads.

SciPy's own wrappers of BLAS and LAPACK hold Python's global lock while they compute; called through
ctypes the same routines let other threads go on.
"""

from __future__ import annotations

import ctypes
from functools import cache
from types import ModuleType

import numpy as np
from scipy.linalg import cython_blas, cython_lapack

from xacle_stack._types import FloatArray
from xacle_stack.errors import StackingError

# The first letter of a routine's name, and its numbers.
_KINDS = {np.dtype(np.float64): ("d", ctypes.c_double), np.dtype(np.float32): ("s", ctypes.c_float)}


def add_products(matrix: FloatArray, rows: FloatArray) -> None:
    """Add ``R Rᵀ`` to a symmetric matrix, in its lower triangle.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        float64 or float32, in Fortran order.  What is above the diagonal is neither read nor
        changed.
    rows : ndarray of shape (n, k)
        Of the same type, in C or in Fortran order.

    Examples
    --------
    >>> matrix = np.zeros((2, 2), order="F")
    >>> add_products(matrix, np.array([[1.0], [3.0]]))
    >>> matrix.tolist()
    [[1.0, 0.0], [3.0, 9.0]]
    """
    assert matrix.flags.f_contiguous
    kind, real = _KINDS[np.result_type(matrix, rows)]
    is_transposed = not rows.flags.f_contiguous
    if is_transposed:
        rows = np.ascontiguousarray(rows)
    size, depth = (ctypes.c_int(max(1, length)) for length in rows.shape)
    one = ctypes.byref(real(1.0))
    if rows.size:
        _routine(cython_blas, f"{kind}syrk")(
            b"L",
            b"T" if is_transposed else b"N",
            ctypes.byref(size),
            ctypes.byref(depth),
            one,
            rows.ctypes.data,
            ctypes.byref(depth if is_transposed else size),
            one,
            matrix.ctypes.data,
            ctypes.byref(size),
        )


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
    kind, _ = _KINDS[matrix.dtype]
    size, fault = ctypes.c_int(len(matrix)), ctypes.c_int()
    at = ctypes.byref(size)
    if len(matrix):
        _routine(cython_lapack, kind + routine)(
            b"U", at, matrix.ctypes.data, at, ctypes.byref(fault)
        )
    return fault.value


@cache
def _routine(library: ModuleType, name: str) -> ctypes._FuncPointer:
    """Return a routine of BLAS or LAPACK as SciPy exports it for Cython."""
    capsule = library.__pyx_capi__[name]
    # Own prototypes: attributes of ctypes.pythonapi's functions are shared by the whole process.
    capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(
        ("PyCapsule_GetName", ctypes.pythonapi)
    )
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    address = ctypes.c_void_p
    signature = capsule_name(capsule)
    n_arguments = signature.decode().count("*")
    return ctypes.CFUNCTYPE(None, *[address] * n_arguments)(pointer(capsule, signature))
