"""Augmented views of a clip: parts of its spectrogram are hidden.

The masks follow from the clip's samples and the number of the view, so that a view is a property of
the clip, like its embedding: the same in every run, whatever else is in the batch.

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

MOST_BANDS, MOST_FRAMES = 40, 192
# Part of a view's fingerprint: to be changed with anything below, or with how the mean is taken.
MASKS = (
    f"one mask of up to {MOST_BANDS} mel bands and one of up to {MOST_FRAMES} frames, at most half "
    "of either, filled with the mean level"
)


def hidden_parts(samples: FloatArray, view: int, n_bands: int, n_frames: int) -> NDArray[np.bool_]:
    """Return which parts of a spectrogram a view hides: one span of bands and one of frames.

    Each of both has a width that is drawn evenly from 0 to the most, and then a place that is drawn
    evenly.  The most is :data:`MOST_BANDS` and :data:`MOST_FRAMES`, and never more than half, so
    that something is left of a short clip.

    Parameters
    ----------
    samples : ndarray of shape (n_samples,)
        What the spectrogram is of.
    view : int
        1 or more; 0 is the clip as it is and hides nothing.
    n_bands, n_frames : int
        Of the spectrogram.

    Returns
    -------
    hidden : ndarray of shape (n_bands, n_frames)
        bool.

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
        hidden[_span(draws[:2], n_bands, MOST_BANDS), :] = True
        hidden[:, _span(draws[2:], n_frames, MOST_FRAMES)] = True
    return hidden


def _span(draws: tuple[int, ...], size: int, most: int) -> slice:
    """Return a part of a range from two numbers below 2**64, in whole numbers throughout."""
    width = draws[0] * (min(most, size // 2) + 1) >> 64
    start = draws[1] * (size - width + 1) >> 64
    return slice(start, start + width)
