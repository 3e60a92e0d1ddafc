"""Turns a waveform into a fixed number of features, in the three ways of mini-CLAP.

Each front end represents one property well and others badly, so their spaces err differently:

- ``mel_features``: the fine spectrum; hardly anything about its course in time.
- ``mfcc_features``: the coarse spectral envelope and how fast it changes; no fine structure.
- ``modulation_features``: the rhythm of each broad band; hardly anything about timbre.

All take one or more mono float samples at 16 kHz, do not depend on the level of the recording, and
give finite values for silence.  In an augmented view, parts of the spectrogram are filled with its
mean level; see :func:`~xacle_stack.encoders.masks.hidden_parts`.
"""

from functools import cache

import numpy as np
from scipy import fft

from xacle_stack._types import FloatArray
from xacle_stack.encoders.masks import hidden_parts

SAMPLE_RATE_HZ = 16_000
_N_FFT = 512
_RANGE_DB = 70.0
_N_MEL, _N_MEL_COARSE, _N_MFCC = 64, 32, 16
_FRAMES_POOLED = 8
_N_BANDS, _ENVELOPE_RATE_HZ = 12, 200
_MODULATION_EDGES_HZ = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100)


def mel_features(samples: FloatArray, view: int = 0) -> FloatArray:
    """Return the clip's fine spectrum: mean and loud level of 64 mel bands, early against late.

    Parameters
    ----------
    samples : ndarray of shape (n_samples,)
        Mono at 16 kHz.
    view : int, default=0
        Number of the augmented view; 0 is the clip itself.

    Returns
    -------
    features : ndarray of shape (256,)
        float32, decibels relative to the clip's own mean power.

    Examples
    --------
    >>> mel_features(np.zeros(1, dtype=np.float32)).shape
    (256,)
    """
    level = _log_mel(samples, _N_MEL, hop=160, view=view)
    half = max(1, len(level) // 2)
    ordered, last = np.sort(level, axis=0), len(level) - 1
    loud, quiet = ordered[int(0.95 * last)], ordered[int(0.2 * last)]
    early, late = level[:half].mean(axis=0), level[-half:].mean(axis=0)
    return np.concatenate([level.mean(axis=0), loud, quiet, early - late])


def mel_frames(samples: FloatArray, view: int = 0) -> FloatArray:
    """Return the course of the fine spectrum: levels of 64 mel bands, the mean of every 80 ms.

    Parameters as in :func:`mel_features`.

    Returns
    -------
    frames : ndarray of shape (n_frames, 64)
        float32, in units of 10 dB relative to the clip's own mean power.  The last frame may be
        the mean of less than 80 ms.

    Examples
    --------
    >>> mel_frames(np.ones(16_000, dtype=np.float32)).shape
    (13, 64)
    """
    level = _log_mel(samples, _N_MEL, hop=160, view=view) / 10
    starts = np.arange(0, len(level), _FRAMES_POOLED)
    counts = np.diff([*starts, len(level)])[:, np.newaxis]
    frames: FloatArray = np.add.reduceat(level, starts, axis=0) / counts.astype(np.float32)
    return frames


def mfcc_features(samples: FloatArray, view: int = 0) -> FloatArray:
    """Return the clip's coarse envelope: statistics of 16 MFCC and their first two derivatives.

    Parameters as in :func:`mel_features`.

    Returns
    -------
    features : ndarray of shape (128,)
        float32: mean, spread, lower and upper decile, spread and mean size of the first
        derivative, spread of the second, correlation of neighbouring frames.
    """
    level = _log_mel(samples, _N_MEL_COARSE, hop=160, view=view)
    cepstra = fft.dct(level, axis=1, norm="ortho")
    cepstra = cepstra[:, :_N_MFCC]
    first = _slope(cepstra)
    second = _slope(first)
    ordered = np.sort(cepstra, axis=0)
    last = len(ordered) - 1
    spread = cepstra.std(axis=0)
    parts = [
        cepstra.mean(axis=0),
        spread,
        ordered[int(0.1 * last)],
        ordered[int(0.9 * last)],
        first.std(axis=0),
        np.abs(first).mean(axis=0),
        second.std(axis=0),
        first.std(axis=0) / (spread + 1e-3),
    ]
    return np.concatenate(parts)


def modulation_features(samples: FloatArray, view: int = 0) -> FloatArray:
    """Return the clip's rhythm: the modulation spectrum of the level in 12 broad bands.

    Parameters as in :func:`mel_features`.

    Returns
    -------
    features : ndarray of shape (240,)
        float32: for each band the log power of the fluctuation of its level between 1 and 100 Hz
        in 17 steps, then its mean level, the height of its peaks and its skewness.
    """
    level = _log_mel(samples, _N_BANDS, hop=SAMPLE_RATE_HZ // _ENVELOPE_RATE_HZ, view=view)
    centred = level - level.mean(axis=0)
    spread = centred.std(axis=0)
    skew = (centred**3).mean(axis=0) / (spread + 1.0) ** 3
    peak = level.max(axis=0) - level.mean(axis=0)
    # One-second segments that overlap by half, windowed: Welch's estimate at 1 Hz resolution.
    n = _ENVELOPE_RATE_HZ
    if len(centred) < n:
        centred = np.pad(centred, ((0, n - len(centred)), (0, 0)))
    segments = np.lib.stride_tricks.sliding_window_view(centred, n, axis=0)[:: n // 2]
    power = np.abs(fft.rfft(segments * np.hanning(n).astype(np.float32), axis=-1)) ** 2
    power = power.mean(axis=0)
    bins = np.array(_MODULATION_EDGES_HZ)
    summed = np.add.reduceat(power, bins[:-1], axis=1) / np.diff(bins)
    fluctuation = 10 * np.log10(summed + 1.0)
    features: FloatArray = np.concatenate([fluctuation.ravel(), peak, skew]).astype(np.float32)
    return features


def _log_mel(samples: FloatArray, n_bands: int, hop: int, view: int) -> FloatArray:
    """Return levels of shape (n_frames, n_bands), in dB relative to the clip's mean, floored."""
    x = np.asarray(samples, dtype=np.float32)
    if len(x) < _N_FFT:
        x = np.pad(x, (0, _N_FFT - len(x)))
    x = x - x.mean()
    frames = np.lib.stride_tricks.sliding_window_view(x, _N_FFT)[::hop]
    window = np.hanning(_N_FFT).astype(np.float32)
    spectrum = fft.rfft(frames * window, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2) @ _mel_filters(n_bands)
    mean_power = float(power.mean())
    if mean_power < 1e-12:
        return np.full(power.shape, -_RANGE_DB, dtype=np.float32)
    level = 10 * np.log10(power / mean_power + 10 ** (-_RANGE_DB / 10))
    if view:
        level[hidden_parts(samples, view, n_bands, len(level)).T] = level.mean()
    return np.asarray(level, dtype=np.float32)


@cache
def _mel_filters(n_bands: int) -> FloatArray:
    """Return triangular filters of equal area on the mel scale, shape (257, n_bands)."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    lowest = 2595 * np.log10(1 + 40 / 700)
    edges = 700 * (10 ** (np.linspace(lowest, highest, n_bands + 2) / 2595) - 1)
    f = np.linspace(0, SAMPLE_RATE_HZ / 2, _N_FFT // 2 + 1)[:, np.newaxis]
    # Narrow low bands are widened so that each holds at least one bin.
    bin_hz = SAMPLE_RATE_HZ / _N_FFT
    rise = np.maximum(edges[1:-1] - edges[:-2], bin_hz)
    fall = np.maximum(edges[2:] - edges[1:-1], bin_hz)
    triangles = np.minimum(1 - (edges[1:-1] - f) / rise, 1 - (f - edges[1:-1]) / fall)
    triangles = np.maximum(triangles, 0)
    return np.asarray(triangles / triangles.sum(axis=0), dtype=np.float32)


def _slope(frames: FloatArray) -> FloatArray:
    """Return the slope over five frames, the usual delta coefficients."""
    padded = np.pad(frames, ((2, 2), (0, 0)), mode="edge")
    n = len(frames)
    ahead_1, behind_1 = padded[3 : 3 + n], padded[1 : 1 + n]
    ahead_2, behind_2 = padded[4 : 4 + n], padded[:n]
    slope: FloatArray = (ahead_1 - behind_1 + 2 * (ahead_2 - behind_2)) / 10
    return slope
