"""Draws a clip's spectrogram as a small PNG, on the same scale for every clip."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

from xacle_stack._types import FloatArray
from xacle_stack.audio import Clip

WIDTH, HEIGHT = 320, 96  # pixels; one row for each band
LOWEST_HZ, HIGHEST_HZ = 50.0, 16_000.0
MIN_DB, MAX_DB = -90.0, -10.0  # a sine of full scale has 0 dB
_WINDOW_S = 0.04
_N_LEVELS = 64
_BLOCK_SAMPLES = 1 << 21
# From black over purple and orange to a light yellow, with a steadily growing lightness, so that it
# can be read on a light and on a dark page and without colours.
_COLOURS = np.array(
    [
        *((8, 8, 20), (45, 17, 88), (106, 28, 129), (164, 48, 125)),
        *((221, 74, 104), (248, 118, 92), (254, 175, 119), (252, 240, 190)),
    ],
    dtype=float,
)


def spectrogram_png(clip: Clip) -> bytes:
    """Return the spectrogram of the whole clip as a PNG file.

    Time goes from left to right.  The frequency goes from :data:`LOWEST_HZ` at the bottom to
    :data:`HIGHEST_HZ` at the top on a logarithmic scale, and the colour shows the level of each
    band from :data:`MIN_DB` to :data:`MAX_DB`.

    Examples
    --------
    >>> from xacle_stack.audio import clip_from_samples
    >>> spectrogram_png(clip_from_samples(np.zeros(8000), 8000))[1:4]
    b'PNG'
    """
    levels = (band_levels(clip) - MIN_DB) / (MAX_DB - MIN_DB)
    pixels = np.clip(levels * _N_LEVELS, 0, _N_LEVELS - 1).astype(np.uint8)[::-1]
    return _png(pixels)


def band_levels(clip: Clip) -> FloatArray:
    """Return the level of each band over the time, in dB, shape (HEIGHT, WIDTH); low bands first.

    A column is the mean power of windows that cover its part of the clip.
    """
    samples = clip.samples.mean(axis=1)
    n_window = max(16, round(_WINDOW_S * clip.sample_rate_hz))
    window = np.hanning(n_window + 2)[1:-1].astype(np.float32)
    padded = np.pad(samples, n_window // 2)  # the first and the last window are centred at the ends
    if len(padded) < n_window:
        padded = np.pad(padded, (0, n_window - len(padded)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_window)
    per_column = max(1, -(-len(samples) // (WIDTH * n_window)))
    starts = np.linspace(0, len(windows) - 1, WIDTH * per_column).astype(int)
    n_columns = max(1, _BLOCK_SAMPLES // (per_column * n_window))  # at a time, of a long clip
    powers = []
    for some in np.split(starts.reshape(WIDTH, per_column), range(n_columns, WIDTH, n_columns)):
        spectra = np.abs(rfft(windows[some] * window)) ** 2
        powers.append(spectra.mean(axis=1))
    bands = _band_weights(n_window, clip.sample_rate_hz) @ np.concatenate(powers).T
    full_scale = np.sum(window) ** 2 / 4
    return 10 * np.log10(bands / full_scale + 1e-12)


def _band_weights(n_window: int, sample_rate_hz: int) -> FloatArray:
    """Return how much of each frequency of the FFT belongs to each band."""
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, HEIGHT + 1)
    step = sample_rate_hz / n_window
    centres = np.arange(n_window // 2 + 1) * step
    low, high = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    shared = np.minimum(high, centres + step / 2) - np.maximum(low, centres - step / 2)
    return np.clip(shared, 0, None) / step


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels, which are numbers of colours, as a PNG file with a palette."""
    height, width = pixels.shape
    places = np.linspace(0, len(_COLOURS) - 1, _N_LEVELS)
    palette = np.stack([np.interp(places, range(len(_COLOURS)), c) for c in _COLOURS.T], axis=1)
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # each row begins with its filter, here none
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            (b"PLTE", palette.round().astype(np.uint8).tobytes()),
            (b"IDAT", zlib.compress(rows.tobytes())),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
