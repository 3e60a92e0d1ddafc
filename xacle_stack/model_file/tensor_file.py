"""The file beside a saved model that holds its large arrays, in the safetensors format.

The format is eight bytes with the length of a JSON header, the header, and the bytes of the arrays.
The header follows from what the archive says of the arrays, so a file is compared with the header
that it must have, and nothing in it is parsed.  The package safetensors is not needed: its writer
takes no open file, and in its older releases copies every array.
"""

import json
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from xacle_stack._files import is_regular_file
from xacle_stack._large_arrays import DTYPE_CODES, LargeArrays
from xacle_stack.errors import ModelFileError

_LENGTH_BYTES = 8
_METADATA = {"__metadata__": {"writer": "xacle-stack"}}
# Arrays begin at multiples of it, if those of wider numbers come first.
_ALIGNMENT = 8


class _Tensor(NamedTuple):
    owner: int
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def tensor_file_pieces(arrays: Sequence[LargeArrays]) -> Iterator[bytes | memoryview]:
    """Yield the content of the file for a model's large arrays, without a copy of all of them."""
    tensors = _tensors(arrays)
    yield _header(tensors)
    for tensor in tensors:
        array = arrays[tensor.owner][tensor.name].astype(tensor.dtype, order="C", copy=False)
        yield array.reshape(-1).view(np.uint8).data


def map_tensor_file(file: BinaryIO, arrays: Sequence[LargeArrays]) -> None:
    """Give a loaded model's large arrays their numbers, which stay in the file.

    Parameters
    ----------
    file : binary file
        It may be closed afterwards.
    arrays : sequence of LargeArrays
        In the order in which they were written.

    Raises
    ------
    ModelFileError
        If the file has other names, types or shapes, or does not end with the last array.
    """
    tensors = _tensors(arrays)
    header = _header(tensors)
    n_bytes = len(header) + sum(tensor.n_bytes for tensor in tensors)
    found = os.fstat(file.fileno()).st_size
    file.seek(0)
    if found != n_bytes or file.read(len(header)) != header:
        raise ModelFileError(
            f"its .safetensors file of {found} bytes does not hold the {len(tensors)} arrays "
            f"that it lists, with their names, types and shapes, in {n_bytes} bytes"
        )
    content: Any
    try:
        # Whoever writes to an array changes a copy of the page in memory.
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError:  # some file systems cannot map files
        file.seek(0)
        content = np.fromfile(file, dtype=np.uint8)
    given: list[dict[str, Any]] = [{} for _ in arrays]
    offset = len(header)
    for tensor in tensors:
        given[tensor.owner][tensor.name] = np.ndarray(
            tensor.shape, tensor.dtype, buffer=content, offset=offset
        )
        offset += tensor.n_bytes
    for one, its_arrays in zip(arrays, given, strict=True):
        one.give(its_arrays)


def tensor_path_of(path: Path) -> Path:
    """Return where the large arrays are of the model in a ``.skops`` file."""
    return path.with_suffix(".safetensors")


def is_tensor_file(path: Path) -> bool:
    """Return whether a file exists that :func:`tensor_file_pieces` made, whatever the model."""
    try:
        if not is_regular_file(path):
            return False
        with path.open("rb") as file:
            start = json.dumps(_METADATA, separators=(",", ":"))[:-1].encode()
            return file.read(_LENGTH_BYTES + len(start))[_LENGTH_BYTES:] == start
    except OSError:
        return False


def _tensors(arrays: Sequence[LargeArrays]) -> list[_Tensor]:
    tensors = [
        _Tensor(owner, name, np.dtype(dtype).newbyteorder("<"), shape)
        for owner, one in enumerate(arrays)
        for name, (dtype, shape) in one.kinds().items()
    ]
    return sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)


def _header(tensors: Sequence[_Tensor]) -> bytes:
    header: dict[str, Any] = dict(_METADATA)
    stop = 0
    for tensor in tensors:
        start, stop = stop, stop + tensor.n_bytes
        header[f"{tensor.owner}/{tensor.name}"] = {
            "dtype": DTYPE_CODES[tensor.dtype.name],
            "shape": tensor.shape,
            "data_offsets": [start, stop],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text
