"""Sequences of vectors with individual lengths, stored one after another in one array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from xacle_stack._types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences of vectors: sequence ``i`` is ``frames[offsets[i]:offsets[i + 1]]``.

    The frames have the shape (n_frames, n_dims), the offsets (n_sequences + 1,).
    """

    frames: FloatArray
    offsets: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Sequence[FloatArray]) -> Self:
        """Concatenate sequences, arrays of shape (n_frames, n_dims).

        Examples
        --------
        >>> Sequences.join([np.zeros((2, 3)), np.zeros((4, 3))]).offsets
        array([0, 2, 6])
        """
        lengths = [len(part) for part in parts]
        return cls(np.concatenate(parts), np.cumsum([0, *lengths], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the frames."""
        return self.frames.nbytes

    def take(self, rows: IntArray) -> Sequences:
        """Return some of the sequences, in the order asked for."""
        starts, lengths = self.offsets[rows], np.diff(self.offsets)[rows]
        return Sequences(
            self.frames[consecutive(starts, lengths)],
            np.cumsum([0, *lengths], dtype=np.int64),
        )


Rows = FloatArray | Sequences


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts, which are either all arrays or all sequences."""
    arrays = [part for part in parts if not isinstance(part, Sequences)]
    if arrays:
        return np.concatenate(arrays)
    joined = [part for part in parts if isinstance(part, Sequences)]
    lengths = np.concatenate([np.diff(part.offsets) for part in joined])
    frames = np.concatenate([part.frames for part in joined])
    return Sequences(frames, np.cumsum([0, *lengths], dtype=np.int64))


def describe(rows: Rows) -> str:
    """Describe a row; rows of the same description can be concatenated.

    Examples
    --------
    >>> describe(np.zeros((2, 3), dtype=np.float32))
    '3 float32'
    >>> describe(Sequences.join([np.zeros((2, 3), dtype=np.float16)]))
    'T × 3 float16'
    """
    if isinstance(rows, Sequences):
        return f"T × {describe_vectors(rows.frames)}"
    return describe_vectors(rows)


def describe_vectors(vectors: FloatArray | h5py.Dataset) -> str:
    """Describe a vector, in memory or in a file."""
    return f"{' × '.join(map(str, vectors.shape[1:]))} {vectors.dtype}"


def consecutive(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> IntArray:
    """Return for each start the consecutive numbers from there, as many as its length.

    Examples
    --------
    >>> consecutive(np.array([7, 2]), np.array([3, 2]))
    array([7, 8, 9, 2, 3])
    """
    ends = np.cumsum(lengths)
    shifts = np.repeat(starts - (ends - lengths), lengths)
    numbers: IntArray = np.arange(len(shifts)) + shifts
    return numbers
