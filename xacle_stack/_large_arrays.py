"""Arrays that a saved model keeps in a file of their own."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xacle_stack.errors import ModelFileError

# The types of arrays that are saved, with their names in the safetensors format.
DTYPE_CODES: Mapping[str, str] = {
    f"{kind}{n_bits}": f"{kind[0].upper()}{n_bits}"
    for kind, sizes in (
        ("float", (16, 32, 64)),
        ("int", (8, 16, 32, 64)),
        ("uint", (8, 16, 32, 64)),
    )
    for n_bits in sizes
}


class LargeArrays(Mapping[str, NDArray[Any]]):
    """Named arrays of a fitted estimator, such as the weights of a language model.

    An estimator keeps them as it would keep a dict of arrays.  In a saved model their numbers are
    not in ``NAME.skops``, but in ``NAME.safetensors`` beside it, which is written without a copy in
    memory.  When the model is loaded, that file is mapped into memory: numbers are read when they
    are used, and processes on one machine share them.

    Pickles and deep copies hold the numbers.  Arrays of a loaded model may be written to, which
    changes neither the file nor what other processes see.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        Arrays of floats or integers, of any shape in which no length is zero.  They are not copied.

    Raises
    ------
    ModelFileError
        If one of them is something else.

    Examples
    --------
    >>> weights = LargeArrays({"linear": np.ones((2, 3), dtype=np.float32)})
    >>> weights
    <LargeArrays: 1 arrays, 24 bytes>
    >>> weights["linear"].shape
    (2, 3)
    """

    __slots__ = ("_arrays", "_listed")
    _arrays: dict[str, NDArray[Any]] | None
    _listed: dict[str, list[Any]]

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self.__setstate__({"arrays": {name: _listed(array) for name, array in arrays.items()}})
        self.give(arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if self._arrays is None:
            raise ModelFileError(
                "the numbers of this model are in the file NAME.safetensors beside it, which was "
                "not read. Load the model with load_model or Scorer.load."
            )
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def __repr__(self) -> str:
        return f"<LargeArrays: {len(self)} arrays, {self.n_bytes} bytes>"

    @property
    def n_bytes(self) -> int:
        """The size of all arrays together."""
        return sum(
            np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in self.kinds().values()
        )

    def kinds(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the type and the shape of each array."""
        return {name: (listed[0], tuple(listed[1:])) for name, listed in self._listed.items()}

    def give(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the arrays, which must have the names, types and shapes that are expected."""
        if {name: _listed(array) for name, array in arrays.items()} != self._listed:
            raise ModelFileError("the arrays are not those that the model lists.")
        self._arrays = dict(arrays)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a saved model's archive holds: the type and the lengths of each array."""
        return {"arrays": self._listed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        listed = state.get("arrays")
        if len(state) != 1 or not isinstance(listed, dict):
            raise ModelFileError("LargeArrays without a list of arrays.")
        self._arrays, self._listed = None, {}
        for name, (dtype, *shape) in listed.items():
            is_named = isinstance(name, str) and isinstance(dtype, str) and dtype in DTYPE_CODES
            if not is_named or not all(type(length) is int and length > 0 for length in shape):
                raise ModelFileError(
                    f"the array {name!r:.80} is of type {dtype!s:.40} and shape "
                    f"{tuple(shape)!s:.80}, expected a name, one of {', '.join(DTYPE_CODES)}, and "
                    "no length of zero."
                )
            self._listed[name] = [dtype, *shape]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (dict(self),)


def _listed(array: NDArray[Any]) -> list[Any]:
    if not isinstance(array, np.ndarray):
        raise ModelFileError(f"expected NumPy arrays, got a {type(array).__name__}.")
    return [array.dtype.name, *array.shape]


def _rebuilt(arrays: dict[str, NDArray[Any]]) -> LargeArrays:
    """Return what was pickled; skops would save a call of the class itself, with the numbers."""
    return LargeArrays(arrays)
