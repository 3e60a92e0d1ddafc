"""Renders scenes of one to three sound events as recordings of about four seconds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy import fft

from xacle_stack._types import FloatArray
from xacle_stack.synth.events import EVENTS, synthesise
from xacle_stack.synth.sources import SAMPLE_RATE_HZ, band_noise, overlay
from xacle_stack.synth.wording import Half, Level, Order, Story, pick

# The first spawn key of every random stream, so that fitting and testing never share a sound.
_STREAMS: dict[Half, int] = {"fit": 1, "demo": 2}
_LEVELS_DB: dict[Level, tuple[float, float]] = {
    "faint": (-14, -8),
    "plain": (-5, 1),
    "loud": (2, 6),
}


@dataclass(frozen=True)
class Scene:
    """The description of a recording, except for its random details.

    Attributes
    ----------
    kinds : tuple of str
        Keys of ``EVENTS``, in the order of time if the events follow one another.
    gains_db : tuple of float
        Level of each event; 0 is the level of a plain event.
    order : {"then", "while"}
    duration_s : float
    noise_db : float
        Level of the background noise, on the scale of ``gains_db``.
    """

    kinds: tuple[str, ...]
    gains_db: tuple[float, ...]
    order: Order
    duration_s: float
    noise_db: float


def random_stream(seed: int, half: Literal["fit", "demo"], *indices: int) -> np.random.Generator:
    """Return the generator of an item, which is different for every half, seed and index.

    Parameters
    ----------
    seed : int
        At least 0.
    half : {"fit", "demo"}
    *indices : int
        Identify the item.

    Returns
    -------
    rng : numpy.random.Generator
    """
    key = (_STREAMS[half], *indices)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def draw_story(rng: np.random.Generator) -> Story:
    """Draw one to three different events, their levels and their order."""
    n_events = int(rng.choice([1, 2, 3], p=[0.35, 0.5, 0.15]))
    kinds = rng.choice(np.array(list(EVENTS)), n_events, replace=False)
    levels: tuple[Level, ...] = ("plain", "plain", "plain", "faint", "loud")
    return Story(
        tuple(str(kind) for kind in kinds),
        tuple(pick(rng, levels) for _ in range(n_events)),
        "then" if rng.random() < 0.5 else "while",
    )


def draw_scene(rng: np.random.Generator, story: Story) -> Scene:
    """Draw a scene in which a story happens as told."""
    return Scene(
        story.kinds,
        tuple(float(rng.uniform(*_LEVELS_DB[level])) for level in story.levels),
        story.order,
        duration_s=float(rng.uniform(3.5, 5.0)),
        noise_db=float(rng.uniform(-38, -10)),
    )


def render_scene(rng: np.random.Generator, scene: Scene) -> FloatArray:
    """Render a scene.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides the sounds of the events, their times, noise, room and microphone.
    scene : Scene

    Returns
    -------
    samples : ndarray of shape (n_samples,)
        float32 at 16 kHz; the peak lies between 0.3 and 0.95.

    Examples
    --------
    >>> scene = Scene(("dog", "rain"), (0.0, -6.0), "while", 4.0, -30.0)
    >>> render_scene(np.random.default_rng(0), scene).shape
    (64000,)
    """
    n_samples = round(scene.duration_s * SAMPLE_RATE_HZ)
    spans = _place_events(rng, len(scene.kinds), scene.order, n_samples)
    mix = np.zeros(n_samples)
    for kind, gain_db, (start, end) in zip(scene.kinds, scene.gains_db, spans, strict=True):
        sound = synthesise(kind, rng, end - start) * 10 ** (gain_db / 20)
        mix += overlay(n_samples, [start], [_faded(sound)])
    low_hz, high_hz = rng.uniform(20, 300), rng.uniform(1500, 7500)
    noise = band_noise(rng, n_samples, low_hz, high_hz, rng.uniform(-0.8, 0.0))
    # 0.1 is the root mean square of a plain event at its loudest.
    recorded = _record(rng, mix + noise * (0.1 * 10 ** (scene.noise_db / 20)))
    peak = float(np.abs(recorded).max())
    return (recorded * (rng.uniform(0.3, 0.95) / max(peak, 1e-9))).astype(np.float32)


def _place_events(
    rng: np.random.Generator, n_events: int, order: Order, n_samples: int
) -> list[tuple[int, int]]:
    """Return (start, end) of each event in samples."""
    if order == "then" and n_events > 1:
        shares = rng.uniform(0.7, 1.3, n_events)
        edges = np.concatenate([[0], np.cumsum(shares) / shares.sum()]) * n_samples
        overhang = 0.05 * n_samples
        return [(int(start), int(min(end + overhang, n_samples))) for start, end in pairwise(edges)]
    spans = []
    for _ in range(n_events):
        length = int(rng.uniform(0.7, 1.0) * n_samples)
        start = int(rng.integers(0, n_samples - length + 1))
        spans.append((start, start + length))
    return spans


def _faded(sound: FloatArray, fade_s: float = 0.02) -> FloatArray:
    n_fade = min(int(fade_s * SAMPLE_RATE_HZ), len(sound) // 2)
    ramp = np.linspace(0, 1, n_fade)
    faded = sound.astype(np.float64)
    faded[:n_fade] *= ramp
    faded[len(faded) - n_fade :] *= ramp[::-1]
    return faded


def _record(rng: np.random.Generator, mix: FloatArray) -> FloatArray:
    """Add the reverberation of a room and the frequency response of a microphone."""
    n_room = int(rng.uniform(0.05, 0.6) * SAMPLE_RATE_HZ)
    decay = np.exp(-6.9 * np.arange(n_room) / n_room)
    room = rng.standard_normal(n_room) * decay
    room *= rng.uniform(0.0, 0.7) / np.sqrt((room**2).sum())
    room[0] += 1.0
    n_fft = fft.next_fast_len(len(mix) + n_room, real=True)
    f = np.maximum(fft.rfftfreq(n_fft, 1 / SAMPLE_RATE_HZ), 20.0)
    tilt = (f / 1000.0) ** rng.uniform(-0.35, 0.35)
    high_cut = 1 / np.sqrt(1 + (f / rng.uniform(3500, 12000)) ** 4)
    low_cut = 1 / np.sqrt(1 + (rng.uniform(20, 120) / f) ** 4)
    spectrum = fft.rfft(mix, n_fft) * fft.rfft(room, n_fft) * tilt * high_cut * low_cut
    return np.asarray(fft.irfft(spectrum, n_fft)[: len(mix)])
