"""Checks an encoder's outputs against its info before they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo, Modality, Output
from xacle_stack.errors import EncoderError


def check_outputs(
    info: EncoderInfo, modality: Modality, outputs: Mapping[str, Output], n_items: int
) -> dict[str, Output]:
    """Return an encoder's outputs in the types in which they are stored, after checking them.

    Parameters
    ----------
    info : EncoderInfo
    modality : {"audio", "text"}
    outputs : mapping of str to ndarray, or to a list of ndarray
    n_items : int

    Returns
    -------
    checked : dict of str to ndarray of shape (n_items, n_dims), or to a list of ndarray
        Vectors as float32, sequences in their declared type.

    Raises
    ------
    EncoderError
        If an output is missing or surplus, has another shape than declared, or is not finite in
        the type in which it is stored; if a sequence is empty; or if a vector in a common space of
        clips and captions is zero.
    """
    declared = info.outputs(modality)
    if not isinstance(outputs, Mapping):
        raise EncoderError(
            f"encoder {info.name!r} returned {type(outputs).__name__} for {modality}; expected a "
            f"dict with one array for each of {sorted(declared)}."
        )
    if set(outputs) != set(declared):
        raise EncoderError(
            f"encoder {info.name!r} returned the {modality} outputs {sorted(outputs)}; its info "
            f"declares {sorted(declared)}."
        )
    checked: dict[str, Output] = {}
    for name, n_dims in declared.items():
        what = f"encoder {info.name!r}, {modality} output {name!r}"
        if name in info.sequences:
            kind = info.sequences[name]
            checked[name] = _check_sequences(what, outputs[name], n_items, n_dims, kind)
        else:
            checked[name] = vectors = _check_vectors(what, outputs[name], n_items, n_dims)
            if name == EMBEDDING and info.is_contrastive:
                _check_directions(what, vectors)
    return checked


def _check_vectors(what: str, values: Output, n_items: int, n_dims: int) -> FloatArray:
    array = _as_array(what, values, "float32")
    if array.shape != (n_items, n_dims):
        raise EncoderError(f"{what}: expected shape {(n_items, n_dims)}, got {array.shape}.")
    if not np.isfinite(array).all():
        item = np.flatnonzero(~np.isfinite(array).all(axis=1))[0]
        raise EncoderError(
            f"{what}{_in_batch(item, n_items)}: a vector holds NaN or infinite values."
        )
    return array


def _check_directions(what: str, vectors: FloatArray) -> None:
    """Raise EncoderError for a zero vector in a common space, which has no cosine."""
    is_zero = ~np.any(vectors, axis=1)
    if is_zero.any():
        raise EncoderError(
            f"{what}{_in_batch(np.flatnonzero(is_zero)[0], len(vectors))}: a vector is zero, so "
            "it has no direction in the space of clips and captions."
        )


def _in_batch(item: int, n_items: int) -> str:
    return f", item {item} of a batch of {n_items}" if n_items > 1 else ""


def _check_sequences(
    what: str, values: Output, n_items: int, n_dims: int, kind: str
) -> list[FloatArray]:
    if not isinstance(values, Sequence) or len(values) != n_items:
        found = f"{len(values)}" if isinstance(values, Sequence) else type(values).__name__
        raise EncoderError(
            f"{what}: it is declared as a sequence, so a list with one array for each of the "
            f"{n_items} items is expected; got {found}."
        )
    checked = []
    for item, value in enumerate(values):
        here = what + _in_batch(item, n_items)
        array = _as_array(here, value, kind)
        if array.ndim != 2 or array.shape[1] != n_dims or not len(array):
            raise EncoderError(
                f"{here}: expected a sequence of shape (n_frames, {n_dims}) with at least one "
                f"frame, got {array.shape}."
            )
        if not np.isfinite(array).all():
            frame = np.flatnonzero(~np.isfinite(array).all(axis=1))[0]
            raise EncoderError(
                f"{here}: frame {frame} holds NaN, infinite values, or some that {kind} cannot "
                "hold."
            )
        checked.append(array)
    return checked


def _as_array(what: str, values: object, kind: str) -> FloatArray:
    try:
        with np.errstate(over="ignore"):  # the caller refuses infinite values
            array: FloatArray = np.asarray(values).astype(kind, copy=False)
    except (TypeError, ValueError) as error:
        raise EncoderError(f"{what}: not an array of numbers ({error}).") from None
    return array
