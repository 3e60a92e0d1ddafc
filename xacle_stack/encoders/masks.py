"""Makes augmented views of a clip by hiding parts of its spectrogram.

The masks depend only on the clip's samples and the number of the view.  So a view is the same in
every run and every batch.

References
----------
Park et al., SpecAugment: A simple data augmentation method for automatic speech recognition,
Interspeech 2019.  The default sizes are those of Niizumi et al., XACLE 2026.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray

from xacle_stack._types import FloatArray

MAX_BANDS, MAX_FRAMES = 40, 192


def describe_masks(
    max_bands: int = MAX_BANDS, max_frames: int = MAX_FRAMES, filled_with: str = "the mean level"
) -> str:
    """Return what a view's fingerprint says of its masks: change it with them."""
    return (
        f"one mask of up to {max_bands} mel bands and one of up to {max_frames} frames, at most "
        f"half of either, filled with {filled_with}"
    )


MASKS = describe_masks()


def hidden_parts(
    samples: FloatArray,
    view: int,
    n_bands: int,
    n_frames: int,
    max_bands: int = MAX_BANDS,
    max_frames: int = MAX_FRAMES,
) -> NDArray[np.bool_]:
    """Return the parts of a spectrogram that a view hides: one span of bands and one of frames.

    The width of each span is uniform from 0 to `max_bands` or `max_frames`, but at most half of the
    spectrogram.  Its position is uniform as well.

    Parameters
    ----------
    samples : ndarray of shape (n_samples,)
    view : int
        Number of the view; 0 hides nothing.
    n_bands, n_frames : int
    max_bands, max_frames : int

    Returns
    -------
    hidden : ndarray of shape (n_bands, n_frames)
        True for hidden parts.

    Examples
    --------
    >>> hidden = hidden_parts(np.zeros(16_000), 1, 80, 101)
    >>> bool(hidden.any(axis=0).all()), bool(hidden.mean() < 0.75)
    (True, True)
    """
    hidden = np.zeros((n_bands, n_frames), dtype=bool)
    if view:
        digest = hashlib.blake2b(struct.pack("<I", view), digest_size=32)
        digest.update(np.ascontiguousarray(samples, dtype="<f4").data)
        draws = struct.unpack("<4Q", digest.digest())
        hidden[_span(draws[:2], n_bands, max_bands), :] = True
        hidden[:, _span(draws[2:], n_frames, max_frames)] = True
    return hidden


def _span(draws: tuple[int, ...], size: int, max_width: int) -> slice:
    """Turn two random numbers below 2**64 into a span, in exact integer arithmetic."""
    width = draws[0] * (min(max_width, size // 2) + 1) >> 64
    start = draws[1] * (size - width + 1) >> 64
    return slice(start, start + width)
