"""Encodes batches with anybody's encoder: says what fails, and which items make a batch fail."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from xacle_stack.encoders.base import Encoder, Modality, Output
from xacle_stack.encoders.outputs import check_outputs
from xacle_stack.errors import EncoderError, XacleStackError

_PROBE_CAPTION = "a dog barks"


@contextmanager
def anybodys_code(name: str, method: str) -> Iterator[None]:
    """Turn what an encoder's own code raises into an EncoderError that says where."""
    try:
        yield
    except XacleStackError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise EncoderError(
                f"encoder {name!r}, {method}: there is too little memory. Give a smaller batch, "
                "for instance --batch-size 4, or shorter clips."
            ) from None
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise EncoderError(
            f"encoder {name!r}, {method}: {type(error).__name__}: {error} ({place.filename}, line "
            f"{place.lineno})."
        ) from error


def encode_batch(
    encoder: Encoder, modality: Modality, items: Sequence[object]
) -> dict[str, Output]:
    """Encode clips or captions, and hold what comes against the encoder's contract.

    Parameters
    ----------
    encoder : Encoder
    modality : {"audio", "text"}
    items : sequence of ndarray of shape (n_samples,), or of str

    Returns
    -------
    outputs : dict of str to ndarray of shape (n_items, n_dims), or to a list of ndarray
        See :func:`~xacle_stack.encoders.outputs.check_outputs`.

    Raises
    ------
    EncoderError
        If the encoder's code raises anything, or what it returns breaks the contract.
    """
    method = encoder.encode_audio if modality == "audio" else encoder.encode_text
    with anybodys_code(encoder.info.name, f"encode_{modality}"):
        outputs = method(items)  # type: ignore[arg-type]  # clips or captions, by modality
        return check_outputs(encoder.info, modality, outputs, len(items))


def failing_items(
    encoder: Encoder, modality: Modality, items: Mapping[str, object], error: XacleStackError
) -> dict[str, str]:
    """Return which items of a batch that failed do so alone, and why.

    Parameters
    ----------
    encoder : Encoder
    modality : {"audio", "text"}
    items : mapping of str to ndarray of shape (n_samples,), or to str
        Clips or captions by content key.
    error : XacleStackError
        What the batch failed with.

    Raises
    ------
    XacleStackError
        `error`, if the encoder is at fault and no item: none fails alone, or all do and so does one
        that is beyond doubt.
    """
    reasons = {}
    for key, item in items.items():
        if reason := _failure(encoder, modality, item):
            reasons[key] = reason
    if not reasons or (len(reasons) == len(items) and _failure(encoder, modality, None)):
        raise error
    return reasons


def _failure(encoder: Encoder, modality: Modality, item: object | None) -> str:
    """Return why an item, or None for one that is beyond doubt, fails alone; or nothing."""
    if item is None:
        time = np.arange(encoder.info.sample_rate_hz or 1, dtype=np.float32)
        item = 0.1 * np.sin(0.1 * time) if modality == "audio" else _PROBE_CAPTION
    try:
        encode_batch(encoder, modality, [item])
    except XacleStackError as error:
        return str(error)
    return ""
