"""The learned maps of one mini-CLAP space, and their file."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self
from zipfile import ZipFile

import numpy as np

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.errors import EncoderError

_MAX_HEADERS_BYTES = 1 << 16
_REMEDY = (
    "Leave the checkpoint out to use the embedded one, or make one with: "
    "python -m xacle_stack.encoders.mini.fit"
)


@dataclass(frozen=True, eq=False)
class MiniWeights:
    """Two linear maps into one space, of a front end's features and of the buckets of n-grams.

    The features are standardised by `audio_centre` and `audio_scale`, their mean and spread;
    `caption_offset` is the negative of an average caption's image.
    """

    audio_centre: FloatArray
    audio_scale: FloatArray
    audio_map: FloatArray
    caption_map: FloatArray
    caption_offset: FloatArray

    def embed_audio(self, features: FloatArray) -> FloatArray:
        """Return the unit vector of one clip's features, shape (n_dims,), float32."""
        standardised = (features - self.audio_centre) / self.audio_scale
        # Unlike BLAS, einsum gives the same bits for any number of threads.
        return _unit(np.einsum("f,fd->d", standardised, self.audio_map))

    def embed_caption(self, buckets: IntArray) -> FloatArray:
        """Return the unit vector of one caption's buckets, shape (n_dims,), float32."""
        return _unit(self.caption_map[buckets].sum(axis=0) + self.caption_offset)

    def save(self, path: Path) -> None:
        """Write the arrays to an npz file; the maps in half precision."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, values in arrays.items():
            arrays[name] = values.astype(np.float16 if name.endswith("_map") else np.float32)
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def read(cls, path: Path, n_features: int, n_buckets: int, n_dims: int) -> Self:
        """Read a file that :meth:`save` wrote, without executing anything in it.

        The sizes are those of the encoder's front end, caption reader and space.  EncoderError if
        it is not an npz file, or its arrays are not the expected ones.
        """
        expected = {
            "audio_centre": (n_features,),
            "audio_scale": (n_features,),
            "audio_map": (n_features, n_dims),
            "caption_map": (n_buckets, n_dims),
            "caption_offset": (n_dims,),
        }
        arrays = _read_arrays(path, sum(map(math.prod, expected.values())))
        missing, surplus = sorted(expected.keys() - arrays), sorted(arrays.keys() - expected)
        if missing or surplus:
            raise EncoderError(
                f"{path}: no mini-CLAP weights: missing arrays {missing}, surplus arrays "
                f"{surplus}. {_REMEDY}"
            )
        for name, shape in expected.items():
            if arrays[name].shape != shape:
                raise EncoderError(
                    f"{path}: array {name!r} has shape {arrays[name].shape}, expected {shape}: "
                    f"these are another encoder's weights. {_REMEDY}"
                )
            if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
                raise EncoderError(
                    f"{path}: array {name!r} must hold finite floating-point numbers. {_REMEDY}"
                )
        if not (arrays["audio_scale"] > 0).all():
            raise EncoderError(f"{path}: array 'audio_scale' must be positive. {_REMEDY}")
        return cls(**{name: values.astype(np.float32) for name, values in arrays.items()})


def _read_arrays(path: Path, n_numbers: int) -> dict[str, FloatArray]:
    try:
        with path.open("rb") as file:
            with ZipFile(file) as directory:
                n_bytes = sum(member.file_size for member in directory.infolist())
            # The size in double precision with headers: a small archive may unpack to any size.
            if n_bytes > 8 * n_numbers + _MAX_HEADERS_BYTES:
                raise ValueError(f"it unpacks to {n_bytes} bytes, more than such weights take")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except Exception as error:  # each kind of damage has its own exception
        raise EncoderError(
            f"{path}: not readable as an npz file of plain arrays ({error}). {_REMEDY}"
        ) from None


def _unit(vector: FloatArray) -> FloatArray:
    """Scale to length one; the zero vector, which has no direction, becomes the first axis."""
    length = float(np.sqrt((vector.astype(np.float64) ** 2).sum()))
    if length < 1e-12:
        vector, length = np.eye(1, len(vector))[0], 1.0
    return np.asarray(vector / length, dtype=np.float32)
