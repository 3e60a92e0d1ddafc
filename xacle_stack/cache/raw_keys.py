"""Content keys in memory: 16 bytes each, half of what their hexadecimal digits need.

They sort as the digits do.  NumPy shows the type S16 without trailing zero bytes, so single keys
are made and compared as arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

RAW_DTYPE = np.dtype("S16")
_N_DIGITS = 2 * RAW_DTYPE.itemsize
_NO_DIGIT = 16
_DIGITS = np.full(256, _NO_DIGIT, dtype=np.uint8)
_DIGITS[list(b"0123456789abcdef")] = np.arange(16)

RawKeys = NDArray[np.bytes_]


def text_digest(caption: str) -> bytes:
    """Return the content key of a caption as bytes."""
    return hashlib.blake2b(b"text" + caption.encode(), digest_size=RAW_DTYPE.itemsize).digest()


def text_keys(captions: Sequence[str]) -> RawKeys:
    """Return the content keys of captions, shape (n_captions,)."""
    return np.fromiter(map(text_digest, captions), RAW_DTYPE, len(captions))


def raw_keys(digits: NDArray[np.bytes_] | Iterable[str]) -> RawKeys:
    """Return keys that are written as 32 hexadecimal digits each, shape (n_keys,).

    ValueError if one has other characters.

    Examples
    --------
    >>> hex_keys(raw_keys(["0123456789abcdef" * 2]))
    ['0123456789abcdef0123456789abcdef']
    """
    if not isinstance(digits, np.ndarray):
        return raw_keys(np.array(list(digits), dtype=f"S{_N_DIGITS}"))
    values = _DIGITS[np.ascontiguousarray(digits).view(np.uint8)].reshape(len(digits), _N_DIGITS)
    if (values == _NO_DIGIT).any():
        raise ValueError("keys hold more than hexadecimal digits")
    raw: RawKeys = (values[:, ::2] << 4 | values[:, 1::2]).view(RAW_DTYPE)[:, 0]
    return raw


def hex_keys(keys: RawKeys) -> list[str]:
    """Return keys as 32 hexadecimal digits each."""
    digits = np.ascontiguousarray(keys).tobytes().hex()
    return [digits[i : i + _N_DIGITS] for i in range(0, len(digits), _N_DIGITS)]


def distinct(keys: RawKeys) -> RawKeys:
    """Return sorted keys without repetition; the argument is sorted in place."""
    keys.sort()
    is_first = first_of_runs(keys)
    return keys if is_first.all() else keys[is_first]


def first_of_runs(keys: RawKeys) -> NDArray[np.bool_]:
    """Return which of some sorted keys differ from the one before."""
    is_first = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    return is_first
