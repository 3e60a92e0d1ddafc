"""Makes augmented views of a clip by hiding parts of its spectrogram.

The masks depend only on the clip's samples and the number of the view.  So a view is the same in
every run and every batch.

References
----------
Park et al., SpecAugment: A simple data augmentation method for automatic speech recognition,
Interspeech 2019.  The sizes are those of Niizumi et al., XACLE 2026.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np
from numpy.typing import NDArray

from xacle_stack._types import FloatArray

MAX_BANDS, MAX_FRAMES = 40, 192
# Part of a view's fingerprint: change it with the masks below, or with how they are filled.
MASKS = (
    f"one mask of up to {MAX_BANDS} mel bands and one of up to {MAX_FRAMES} frames, at most half "
    "of either, filled with the mean level"
)


def hidden_parts(samples: FloatArray, view: int, n_bands: int, n_frames: int) -> NDArray[np.bool_]:
    """Return the parts of a spectrogram that a view hides: one span of bands and one of frames.

    The width of each span is uniform from 0 to :data:`MAX_BANDS` or :data:`MAX_FRAMES`, but at most
    half of the spectrogram.  Its position is uniform as well.

    Parameters
    ----------
    samples : ndarray of shape (n_samples,)
    view : int
        Number of the view; 0 hides nothing.
    n_bands, n_frames : int

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
        hidden[_span(draws[:2], n_bands, MAX_BANDS), :] = True
        hidden[:, _span(draws[2:], n_frames, MAX_FRAMES)] = True
    return hidden


def _span(draws: tuple[int, ...], size: int, max_width: int) -> slice:
    """Turn two random numbers below 2**64 into a span, in exact integer arithmetic."""
    width = draws[0] * (min(max_width, size // 2) + 1) >> 64
    start = draws[1] * (size - width + 1) >> 64
    return slice(start, start + width)
