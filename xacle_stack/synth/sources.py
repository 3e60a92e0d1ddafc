"""Building blocks of the synthesisers: noises, tones, envelopes, onsets and resonances.

All are mono at :data:`SAMPLE_RATE_HZ`; lengths are in samples, frequencies in Hz, times in
seconds.  Recursions run in ``scipy.signal`` instead of loops over samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft, signal

from xacle_stack._types import FloatArray, IntArray

SAMPLE_RATE_HZ = 16_000
_NYQUIST_HZ = SAMPLE_RATE_HZ / 2


def seconds(n_samples: int) -> FloatArray:
    """Return the time of each sample in seconds, shape (n_samples,)."""
    return np.arange(n_samples) / SAMPLE_RATE_HZ


def random_length(rng: np.random.Generator, low_s: float, high_s: float) -> int:
    """Draw a duration and return it in samples."""
    return int(rng.uniform(low_s, high_s) * SAMPLE_RATE_HZ)


def phase(frequency_hz: FloatArray) -> FloatArray:
    """Return the running phase, in cycles, of a tone whose frequency changes in time."""
    return np.asarray(np.cumsum(frequency_hz) / SAMPLE_RATE_HZ)


def tone(cycles: FloatArray, amplitudes: Sequence[float] = (1.0,)) -> FloatArray:
    """Return a sum of harmonics, the k-th with ``amplitudes[k - 1]``."""
    harmonics = [a * np.sin(2 * np.pi * k * cycles) for k, a in enumerate(amplitudes, start=1) if a]
    return np.asarray(np.sum(harmonics, axis=0))


def buzz(cycles: FloatArray) -> FloatArray:
    """Return a sawtooth in [-1, 1]: the raw voice of throats and motors."""
    return 2 * (cycles % 1.0) - 1


def white(rng: np.random.Generator, n_samples: int) -> FloatArray:
    """Return white noise of unit variance."""
    return rng.standard_normal(n_samples)


def band_noise(
    rng: np.random.Generator, n_samples: int, low_hz: float, high_hz: float, slope: float = 0.0
) -> FloatArray:
    """Return noise between two frequencies, its amplitude falling or rising as f**slope.

    The edges have a soft slope of second order, as in real bodies and rooms.
    """
    n_fft = fft.next_fast_len(n_samples, real=True)
    spectrum = fft.rfft(white(rng, n_fft))
    f = np.maximum(fft.rfftfreq(n_fft, 1 / SAMPLE_RATE_HZ), 1.0)
    gain = (f / 1000.0) ** slope / np.sqrt((1 + (low_hz / f) ** 4) * (1 + (f / high_hz) ** 4))
    shaped = fft.irfft(spectrum * gain, n_fft)[:n_samples]
    return np.asarray(shaped / (shaped.std() + 1e-12))


def resonate(
    x: FloatArray, centres_hz: Sequence[float], widths_hz: Sequence[float] | float
) -> FloatArray:
    """Pass a sound through parallel two-pole resonances (formants, bodies, pipes)."""
    widths = np.broadcast_to(np.asarray(widths_hz, dtype=float), len(centres_hz))
    total = np.zeros(len(x))
    for centre, width in zip(centres_hz, widths, strict=True):
        centre = min(float(centre), 0.95 * _NYQUIST_HZ)
        radius = np.exp(-np.pi * width / SAMPLE_RATE_HZ)
        poles = [1.0, -2 * radius * np.cos(2 * np.pi * centre / SAMPLE_RATE_HZ), radius**2]
        total += signal.lfilter([1 - radius, 0.0, radius - 1], poles, x)
    return total


def smooth_random(rng: np.random.Generator, n_samples: int, rate_hz: float) -> FloatArray:
    """Return a slow random curve in about [-1, 1] that turns ``rate_hz`` times a second."""
    n_knots = max(4, int(n_samples / SAMPLE_RATE_HZ * rate_hz) + 3)
    knots = rng.uniform(-1, 1, n_knots)
    return np.interp(np.linspace(0, n_knots - 1, n_samples), np.arange(n_knots), knots)


def pulse(n_samples: int, attack_s: float, decay_s: float) -> FloatArray:
    """Return an envelope that rises linearly and then falls exponentially."""
    t = seconds(n_samples)
    return np.asarray(
        np.minimum(t / attack_s, 1.0) * np.exp(-np.maximum(t - attack_s, 0.0) / decay_s)
    )


def arch(n_samples: int, sharpness: float = 1.0) -> FloatArray:
    """Return an envelope that rises from zero and falls back to it."""
    return np.asarray(np.sin(np.pi * (np.arange(n_samples) + 0.5) / n_samples) ** sharpness)


def onsets(
    rng: np.random.Generator, n_samples: int, period_s: float, jitter: float = 0.1
) -> IntArray:
    """Return the starts of a nearly regular series, the first within one half period.

    ``jitter`` is the standard deviation of the gaps as a share of the period; every gap is at
    least a fifth of it.
    """
    n_gaps = int(n_samples / SAMPLE_RATE_HZ / period_s * 2) + 4
    gaps = period_s * np.maximum(1 + jitter * rng.standard_normal(n_gaps), 0.2)
    gaps[0] = rng.uniform(0.02, 0.5) * min(period_s, n_samples / SAMPLE_RATE_HZ)
    starts: IntArray = (np.cumsum(gaps) * SAMPLE_RATE_HZ).astype(np.intp)
    return starts[starts < n_samples]


def poisson_hits(rng: np.random.Generator, n_samples: int, rate_hz: float) -> FloatArray:
    """Return single-sample impulses at random times, most of them weak, a few strong."""
    hits = np.zeros(n_samples)
    n_hits = max(1, rng.poisson(rate_hz * n_samples / SAMPLE_RATE_HZ))
    indices = rng.integers(0, n_samples, n_hits)
    np.add.at(hits, indices, rng.exponential(1.0, n_hits) ** 1.5 * rng.choice([-1.0, 1.0], n_hits))
    return hits


def ring(hits: FloatArray, decay_s: float) -> FloatArray:
    """Make every impulse decay exponentially."""
    decay = float(np.exp(-1 / (decay_s * SAMPLE_RATE_HZ)))
    return np.asarray(signal.lfilter([1.0], [1.0, -decay], hits))


def overlay(
    n_samples: int, starts: Sequence[int] | IntArray, pieces: Sequence[FloatArray]
) -> FloatArray:
    """Add up pieces at their starts; what exceeds the length is cut off."""
    total = np.zeros(n_samples)
    for start, piece in zip(starts, pieces, strict=True):
        end = min(n_samples, int(start) + len(piece))
        total[int(start) : end] += piece[: end - int(start)]
    return total
