"""Synthesisers of animals and people: ``f(rng, n_samples) -> mono at 16 kHz``, any level."""

from __future__ import annotations

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.synth.sources import (
    SAMPLE_RATE_HZ,
    arch,
    band_noise,
    buzz,
    onsets,
    overlay,
    phase,
    poisson_hits,
    pulse,
    random_length,
    resonate,
    ring,
    seconds,
    smooth_random,
    tone,
    white,
)

Rng = np.random.Generator


def dog_bark(rng: Rng, n_samples: int) -> FloatArray:
    """Short voiced bursts whose pitch jumps up and falls, with breath noise."""
    pitch, body = rng.uniform(250, 650), rng.uniform(0.8, 1.3)
    starts = onsets(rng, n_samples, rng.uniform(0.35, 0.9), 0.25)
    barks = []
    for _ in starts:
        n = random_length(rng, 0.12, 0.22)
        bend = pitch * rng.uniform(0.9, 1.1) * (0.7 + 0.6 * arch(n, 0.7))
        voice = buzz(phase(bend)) + 0.35 * white(rng, n)
        voice = resonate(voice, [600 * body, 1200 * body, 2400 * body], [250, 350, 600])
        barks.append(voice * pulse(n, 0.012, 0.06) * rng.uniform(0.6, 1))
    return overlay(n_samples, starts, barks)


def cat_meow(rng: Rng, n_samples: int) -> FloatArray:
    """Long gliding voiced calls whose formant opens and closes."""
    pitch = rng.uniform(450, 800)
    starts = onsets(rng, n_samples, rng.uniform(1.0, 1.7), 0.2)
    calls = []
    for _ in starts:
        n = random_length(rng, 0.5, 0.9)
        voice = buzz(phase(pitch * rng.uniform(0.9, 1.1) * (0.8 + 0.35 * arch(n, 0.6))))
        opened = arch(n, 1.5)
        calls.append(
            arch(n, 0.5)
            * ((1 - opened) * resonate(voice, [900], 200) + opened * resonate(voice, [2300], 300))
        )
    return overlay(n_samples, starts, calls)


def rooster(rng: Rng, n_samples: int) -> FloatArray:
    """Crow in four notes, the third rising and held."""
    base = rng.uniform(500, 800)
    length_s = min(rng.uniform(1.3, 2.2), n_samples / SAMPLE_RATE_HZ)
    n = int(length_s * SAMPLE_RATE_HZ)
    at = np.linspace(0, 1, n)
    pitch = np.interp(at, [0, 0.1, 0.2, 0.32, 0.45, 0.75, 1], [1, 1.2, 1.05, 1.5, 1.75, 1.6, 0.9])
    gate = np.interp(
        at,
        [0, 0.03, 0.14, 0.17, 0.2, 0.29, 0.32, 0.36, 0.8, 1],
        [0, 0.8, 0.7, 0.1, 0.7, 0.6, 0.1, 1, 0.8, 0],
    )
    wobble = 1 + 0.01 * np.sin(2 * np.pi * rng.uniform(18, 30) * at * length_s)
    crow = buzz(phase(base * pitch * wobble)) + 0.15 * white(rng, n)
    crow = gate * resonate(crow, [1200, 2200, 3300], [300, 400, 600])
    starts = onsets(rng, n_samples, length_s + rng.uniform(0.3, 1.0), 0.1)
    return overlay(n_samples, starts, [crow] * len(starts))


def bird_chirp(rng: Rng, n_samples: int) -> FloatArray:
    """Quick high sweeps in groups."""
    pitch, sweep = rng.uniform(2800, 5500), rng.uniform(-0.35, 0.35)
    starts = onsets(rng, n_samples, rng.uniform(0.1, 0.28), 0.4)
    starts = starts[rng.random(len(starts)) < 0.75]
    chirps = []
    for _ in starts:
        n = random_length(rng, 0.04, 0.12)
        glide = pitch * rng.uniform(0.85, 1.15) * (1 + sweep * np.linspace(-1, 1, n))
        chirps.append(tone(phase(glide), (1, 0.1)) * arch(n) * rng.uniform(0.4, 1))
    return overlay(n_samples, starts, chirps)


def frog(rng: Rng, n_samples: int) -> FloatArray:
    """Croaks: low pulse trains through a throaty resonance."""
    rate, body = rng.uniform(35, 70), rng.uniform(0.8, 1.3)
    starts = onsets(rng, n_samples, rng.uniform(0.5, 1.1), 0.2)
    croaks = []
    for _ in starts:
        n = random_length(rng, 0.2, 0.45)
        clicks = np.maximum(tone(phase(np.full(n, rate * rng.uniform(0.9, 1.1)))), 0) ** 6
        croak = resonate(clicks * white(rng, n), [650 * body, 1500 * body], [120, 250])
        croaks.append(croak * arch(n, 0.5))
    return overlay(n_samples, starts, croaks)


def cricket(rng: Rng, n_samples: int) -> FloatArray:
    """Trills: a pure high tone cut into pulses, the pulses into groups."""
    t = seconds(n_samples)
    trill = np.maximum(np.sin(2 * np.pi * rng.uniform(22, 40) * t), 0)
    group = np.sin(2 * np.pi * rng.uniform(1.2, 3.0) * t + rng.uniform(0, 6)) > -0.2
    return np.asarray(tone(rng.uniform(3800, 5600) * t) * trill * group)


def cow_moo(rng: Rng, n_samples: int) -> FloatArray:
    """Long low voiced calls with a nasal start."""
    pitch = rng.uniform(95, 160)
    starts = onsets(rng, n_samples, rng.uniform(1.8, 2.8), 0.1)
    calls = []
    for _ in starts:
        n = random_length(rng, 1.0, 1.7)
        voice = buzz(phase(pitch * (0.85 + 0.3 * arch(n, 0.8)))) + 0.05 * white(rng, n)
        calls.append(resonate(voice, [320, 700, 1900], [90, 140, 400]) * arch(n, 0.6))
    return overlay(n_samples, starts, calls)


def bee(rng: Rng, n_samples: int) -> FloatArray:
    """Wing buzz whose pitch and nearness wander."""
    pitch = rng.uniform(170, 280) * (1 + 0.12 * smooth_random(rng, n_samples, 3))
    near = 0.55 + 0.45 * smooth_random(rng, n_samples, 2)
    return resonate(buzz(phase(pitch)), [500, 1100, 2800], [300, 500, 900]) * near


def baby_cry(rng: Rng, n_samples: int) -> FloatArray:
    """Wails of about a second, high voiced with a falling end, gasps between them."""
    pitch = rng.uniform(380, 560)
    period_s = rng.uniform(0.9, 1.4)
    starts = onsets(rng, n_samples, period_s, 0.12)
    cries = []
    for _ in starts:
        n = int(period_s * rng.uniform(0.6, 0.85) * SAMPLE_RATE_HZ)
        vibrato = 1 + 0.03 * np.sin(2 * np.pi * rng.uniform(5, 8) * seconds(n))
        voice = buzz(phase(pitch * rng.uniform(0.9, 1.15) * (0.75 + 0.35 * arch(n, 0.5)) * vibrato))
        voice = resonate(voice + 0.15 * white(rng, n), [1100, 1700, 3500], [250, 300, 500])
        gasp = 0.15 * band_noise(rng, n // 4, 1500, 4000) * arch(n // 4)
        cries.append(np.concatenate([voice * arch(n, 0.4) / (voice.std() + 1e-9), gasp]))
    return overlay(n_samples, starts, cries)


def sneeze(rng: Rng, n_samples: int) -> FloatArray:
    """Breath drawn in, then a burst of noise with some voice."""
    pitch = rng.uniform(150, 350)
    starts = onsets(rng, n_samples, rng.uniform(1.4, 2.6), 0.15)
    sneezes = []
    for _ in starts:
        n_in, n_out = random_length(rng, 0.2, 0.45), random_length(rng, 0.25, 0.5)
        breath = 0.2 * band_noise(rng, n_in, 700, 3000) * np.linspace(0, 1, n_in) ** 2
        voice = resonate(buzz(phase(pitch * np.linspace(1.4, 0.7, n_out))), [700, 1600], 300)
        burst = band_noise(rng, n_out, 1200, 6500) + 2.5 * voice / (voice.std() + 1e-9) * arch(
            n_out
        )
        sneezes.append(np.concatenate([breath, burst * pulse(n_out, 0.01, 0.1)]))
    return overlay(n_samples, starts, sneezes)


def speech(rng: Rng, n_samples: int) -> FloatArray:
    """Babble like speech: voiced syllables through wandering vowels, hissed consonants."""
    pitch = rng.uniform(90, 240)
    melody = pitch * (1 + 0.18 * smooth_random(rng, n_samples, 4))
    voice = buzz(phase(melody)) + 0.05 * white(rng, n_samples)
    vowels = [resonate(voice, f, [80, 110, 160]) for f in _VOWELS_HZ]
    mixing = np.stack([smooth_random(rng, n_samples, 6) for _ in vowels])
    shares = np.exp(4 * mixing)
    spoken = (np.stack(vowels) * shares / shares.sum(axis=0)).sum(axis=0)
    syllables = np.clip(1.4 * smooth_random(rng, n_samples, rng.uniform(8, 12)) + 0.4, 0, 1)
    hiss = np.clip(1.5 * smooth_random(rng, n_samples, 7) - 0.8, 0, 1)
    return np.asarray(
        spoken / spoken.std() * syllables + 0.8 * hiss * band_noise(rng, n_samples, 3000, 7000)
    )


_VOWELS_HZ = ((730, 1100, 2450), (300, 2250, 3000), (320, 800, 2300), (520, 1800, 2500))


def laughter(rng: Rng, n_samples: int) -> FloatArray:
    """Quick voiced "ha" with breath, in runs that fall in pitch."""
    pitch = rng.uniform(160, 380)
    starts = onsets(rng, n_samples, rng.uniform(0.16, 0.24), 0.12)
    fall = 1.2 - 0.35 * ((np.arange(len(starts)) % 8) / 7)
    notes = []
    for share in fall:
        n = random_length(rng, 0.09, 0.14)
        voice = buzz(phase(pitch * share * (0.9 + 0.2 * arch(n)))) + 0.5 * white(rng, n)
        notes.append(resonate(voice, [750, 1300, 2600], [150, 200, 300]) * arch(n, 0.8) * share)
    return overlay(n_samples, starts, notes)


def snoring(rng: Rng, n_samples: int) -> FloatArray:
    """Slow breaths, the breath in rattling."""
    period_s, rattle_hz = rng.uniform(1.6, 2.6), rng.uniform(28, 55)
    t = seconds(n_samples)
    breath = np.sin(2 * np.pi * (t / period_s + rng.uniform()))
    rattle = np.maximum(np.sin(2 * np.pi * phase(rattle_hz * (1 + 0.1 * breath))), 0) ** 3
    drawn = resonate(white(rng, n_samples) * rattle, [180, 420, 1100], [90, 150, 400])
    blown = 0.12 * band_noise(rng, n_samples, 800, 3000)
    return np.asarray(drawn / drawn.std() * np.maximum(breath, 0) + blown * np.maximum(-breath, 0))


def whistling(rng: Rng, n_samples: int) -> FloatArray:
    """Tune of pure notes that glide into one another."""
    n_notes = max(2, int(n_samples / SAMPLE_RATE_HZ * rng.uniform(2, 4)))
    steps = rng.choice([0, 2, 4, 5, 7, 9, 12], n_notes)
    position = np.linspace(0, n_notes - 1e-9, n_samples)
    eased = np.floor(position) + np.minimum((position % 1) * 6, 1)
    notes = np.interp(eased, np.arange(n_notes + 1), np.append(steps[0], steps))
    glide = rng.uniform(900, 1500) * 2 ** (notes / 12)
    sound = tone(phase(glide), (1, 0.04)) * (0.25 + 0.75 * np.minimum(1, 5 * (1 - position % 1)))
    sung: FloatArray = sound + 0.03 * white(rng, n_samples)
    return sung


def applause(rng: Rng, n_samples: int) -> FloatArray:
    """Many hands: dense short claps, swelling and thinning."""
    claps = ring(poisson_hits(rng, n_samples, rng.uniform(40, 160)), 0.004) * white(rng, n_samples)
    swell = 0.75 + 0.25 * smooth_random(rng, n_samples, 1)
    return resonate(claps, [rng.uniform(900, 1500), rng.uniform(2200, 3200)], [700, 1500]) * swell


def footsteps(rng: Rng, n_samples: int) -> FloatArray:
    """Regular steps, each a heel's thud and a sole's scrape."""
    starts = onsets(rng, n_samples, rng.uniform(0.4, 0.7), 0.06)
    floor_hz, grit = rng.uniform(100, 260), rng.uniform(0.1, 0.6)
    steps = []
    for _ in starts:
        n = random_length(rng, 0.15, 0.22)
        thud = resonate(white(rng, n), [floor_hz, 3 * floor_hz], [80, 200]) * pulse(n, 0.002, 0.025)
        scrape = band_noise(rng, n, 1500, 6000) * arch(n, 2)
        steps.append((thud / (thud.std() + 1e-9) + grit * scrape) * rng.uniform(0.6, 1))
    return overlay(n_samples, starts, steps)


def typing(rng: Rng, n_samples: int) -> FloatArray:
    """Key clicks: quick, uneven, each with a press and a softer release."""
    starts = onsets(rng, n_samples, rng.uniform(0.09, 0.2), 0.5)
    plate_hz = rng.uniform(1800, 3200)
    clicks = []
    for _ in starts:
        n = random_length(rng, 0.06, 0.1)
        click = white(rng, n) * (pulse(n, 0.0005, 0.004))
        click += 0.4 * np.roll(white(rng, n) * pulse(n, 0.0005, 0.003), n // 2)
        clicks.append(resonate(click, [plate_hz * rng.uniform(0.9, 1.1), 4800], [500, 1500]))
    return overlay(n_samples, starts, clicks)
