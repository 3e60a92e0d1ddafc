"""Synthesisers of weather, machines and objects: ``f(rng, n_samples) -> mono at 16 kHz``."""

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


def _scaled(x: FloatArray) -> FloatArray:
    return np.asarray(x / (x.std() + 1e-9))


def _strikes(
    rng: Rng, n_samples: int, period_s: float, partials: FloatArray, decay_s: float
) -> FloatArray:
    """Strike a ringing body: partials in Hz, the higher ones dying sooner."""
    starts = onsets(rng, n_samples, period_s, 0.05)
    t = seconds(min(n_samples, int(5 * decay_s * SAMPLE_RATE_HZ)))
    weights = rng.uniform(0.4, 1, len(partials)) / np.sqrt(1 + np.arange(len(partials)))
    decays = decay_s * partials[0] / partials
    body = sum(
        w * np.sin(2 * np.pi * f * t) * np.exp(-t / d)
        for w, f, d in zip(weights, partials, decays, strict=True)
    )
    return overlay(n_samples, starts, [np.asarray(body)] * len(starts))


def rain(rng: Rng, n_samples: int) -> FloatArray:
    """Steady bright hiss with dense drops."""
    hiss = band_noise(rng, n_samples, rng.uniform(400, 1200), 7500, rng.uniform(-0.3, 0.1))
    drops = ring(poisson_hits(rng, n_samples, rng.uniform(100, 500)), 0.001) * white(rng, n_samples)
    return hiss + rng.uniform(0.2, 1) * _scaled(drops) * (
        1 + 0.1 * smooth_random(rng, n_samples, 1)
    )


def sea_waves(rng: Rng, n_samples: int) -> FloatArray:
    """Noise that swells slowly and breaks, brighter as it does."""
    swell = np.sin(2 * np.pi * (seconds(n_samples) / rng.uniform(2.5, 6) + rng.uniform()))
    swell = (0.5 + 0.5 * swell) ** rng.uniform(1, 2.5)
    low = band_noise(rng, n_samples, 60, rng.uniform(400, 900), -0.5)
    surf = band_noise(rng, n_samples, 500, rng.uniform(3000, 6000), -0.4)
    return np.asarray(low * (0.3 + 0.7 * swell) + surf * (0.1 + 1.1 * swell**2))


def wind(rng: Rng, n_samples: int) -> FloatArray:
    """Low noise in gusts with a wandering whistle."""
    gust = 0.55 + 0.45 * smooth_random(rng, n_samples, rng.uniform(0.7, 2))
    low = band_noise(rng, n_samples, 40, rng.uniform(250, 500), -0.8)
    centre = rng.uniform(400, 900)
    howl = _scaled(resonate(white(rng, n_samples), [centre, 1.6 * centre], [60, 120]))
    return gust * low + rng.uniform(0.1, 0.6) * gust**3 * howl


def thunder(rng: Rng, n_samples: int) -> FloatArray:
    """Crack, then a rumble that rolls away."""
    start = int(rng.uniform(0.02, 0.25) * n_samples)
    n = n_samples - start
    roll = np.abs(smooth_random(rng, n, 5)) + 0.3
    rumble = band_noise(rng, n, 25, rng.uniform(90, 200), -0.8) * roll * pulse(n, 0.15, 1.2)
    crack = rng.uniform(0.1, 0.9) * band_noise(rng, n, 200, 3500, -0.5) * pulse(n, 0.005, 0.12)
    return overlay(n_samples, [start], [rumble + crack])


def fire(rng: Rng, n_samples: int) -> FloatArray:
    """Sparse sharp crackles over a soft low roar."""
    roar = band_noise(rng, n_samples, 50, rng.uniform(300, 800), -0.5)
    roar *= 1 + 0.3 * smooth_random(rng, n_samples, 3)
    crackle = ring(poisson_hits(rng, n_samples, rng.uniform(8, 35)), 0.002) * white(rng, n_samples)
    return rng.uniform(0.1, 0.3) * roar + 2 * _scaled(crackle)


def water_drip(rng: Rng, n_samples: int) -> FloatArray:
    """Single drops: short tones that rise."""
    starts = onsets(rng, n_samples, rng.uniform(0.35, 0.9), 0.2)
    drops = []
    for _ in starts:
        n = random_length(rng, 0.06, 0.12)
        rise = rng.uniform(900, 1800) * np.linspace(1, rng.uniform(1.2, 1.7), n)
        drops.append(tone(phase(rise)) * pulse(n, 0.003, 0.02) * rng.uniform(0.5, 1))
    return overlay(n_samples, starts, drops)


def stream(rng: Rng, n_samples: int) -> FloatArray:
    """Noise of flowing water, alive with bubbling resonances."""
    flow = band_noise(rng, n_samples, 400, 5000, -0.4)
    bubbles = poisson_hits(rng, n_samples, rng.uniform(40, 120))
    gurgle = resonate(bubbles, rng.uniform(400, 1800, 5).tolist(), 60)
    return 0.7 * flow + rng.uniform(0.6, 1.4) * _scaled(gurgle)


def helicopter(rng: Rng, n_samples: int) -> FloatArray:
    """Rotor: broadband thumps 9 to 18 times a second over a turbine."""
    beat = phase(np.full(n_samples, rng.uniform(9, 18))) + rng.uniform()
    chop = np.exp(-((beat % 1.0) * rng.uniform(3, 6)))
    air = band_noise(rng, n_samples, 40, rng.uniform(300, 1200), -0.4)
    turbine = 0.08 * tone(phase(np.full(n_samples, rng.uniform(1200, 2400))))
    drift = 1 + 0.3 * smooth_random(rng, n_samples, 0.7)
    return np.asarray((air * (0.15 + chop) + turbine) * drift)


def chainsaw(rng: Rng, n_samples: int) -> FloatArray:
    """Two-stroke motor that revs, with a rough bright edge."""
    revs = rng.uniform(90, 150) * (1 + 0.35 * smooth_random(rng, n_samples, 1.5))
    cycles = phase(revs)
    rough = buzz(cycles) * (1 + 0.4 * white(rng, n_samples)) + 0.5 * buzz(cycles / 2)
    return resonate(rough, [450, 1500, 2900, 4600], [300, 700, 900, 1200])


def engine(rng: Rng, n_samples: int) -> FloatArray:
    """Idling motor: uneven low firing with mechanical noise."""
    rate = rng.uniform(20, 42) * (1 + 0.04 * smooth_random(rng, n_samples, 4))
    cycles = phase(rate)
    firing = np.exp(-5 * (cycles % 1.0)) * (1 + 0.3 * np.sin(np.pi * cycles))
    exhaust = resonate(firing - firing.mean(), [90, 220, 480], [50, 90, 200])
    rattle = band_noise(rng, n_samples, 500, 3000, -0.5) * (0.5 + 0.5 * firing)
    return np.asarray(_scaled(exhaust) + rng.uniform(0.08, 0.25) * rattle)


def vacuum(rng: Rng, n_samples: int) -> FloatArray:
    """Steady motor whine in rushing air."""
    whine = tone(phase(np.full(n_samples, rng.uniform(220, 420))), (0.4, 0.5, 0.2, 0.3, 0.15))
    air = band_noise(rng, n_samples, 300, rng.uniform(3500, 6500), -0.2)
    return air + rng.uniform(0.4, 0.9) * whine * (1 + 0.05 * smooth_random(rng, n_samples, 3))


def car_horn(rng: Rng, n_samples: int) -> FloatArray:
    """Two reed tones a third apart, in honks."""
    low = rng.uniform(330, 460)
    starts = onsets(rng, n_samples, rng.uniform(0.5, 1.3), 0.3)
    honks = []
    for _ in starts:
        n = random_length(rng, 0.25, 0.6)
        t = seconds(n)
        honk = resonate(buzz(low * t) + buzz(1.26 * low * t), [900, 2000, 3000], [500, 600, 800])
        honks.append(honk * np.minimum(1, 8 * arch(n)))
    return overlay(n_samples, starts, honks)


def siren(rng: Rng, n_samples: int) -> FloatArray:
    """Sweeping or two-tone emergency siren."""
    swing = np.sin(2 * np.pi * (rng.uniform(0.3, 1.2) * seconds(n_samples) + rng.uniform()))
    if rng.random() < 0.5:
        swing = np.clip(8 * swing, -1, 1)
    pitch = rng.uniform(600, 1000) * 2 ** (rng.uniform(0.25, 0.5) * swing)
    return tone(phase(pitch), (1, 0.3, 0.25, 0.1, 0.08))


def train_whistle(rng: Rng, n_samples: int) -> FloatArray:
    """Steam chord with breath, in long blows."""
    chord = rng.uniform(280, 420) * np.array([1, 1.25, 1.5, 1.85])
    starts = onsets(rng, n_samples, rng.uniform(1.3, 2.2), 0.2)
    blows = []
    for _ in starts:
        n = random_length(rng, 0.7, 1.3)
        bend = 1 - 0.04 * np.exp(-seconds(n) / 0.08)
        blow = sum((tone(phase(f * bend), (1, 0.4, 0.2)) for f in chord), np.zeros(n))
        blows.append((blow + 0.8 * band_noise(rng, n, 500, 5000)) * np.minimum(1, 6 * arch(n)))
    return overlay(n_samples, starts, blows)


def phone(rng: Rng, n_samples: int) -> FloatArray:
    """Old bell telephone or electronic trill, ringing and pausing."""
    t = seconds(n_samples)
    low, ratio = rng.uniform(700, 1500), rng.uniform(1.2, 1.35)
    warble = np.sin(2 * np.pi * rng.uniform(14, 26) * t) > 0
    notes = np.where(warble, tone(low * t, (1, 0.3, 0.2)), tone(ratio * low * t, (1, 0.3, 0.2)))
    period_s = rng.uniform(1.2, 2.4)
    ringing = ((t / period_s + rng.uniform(0, 0.4)) % 1) < 0.55
    return notes * ring(ringing * 0.01, 0.006)


def clock_tick(rng: Rng, n_samples: int) -> FloatArray:
    """Alternating tick and tock, once or more a second."""
    starts = onsets(rng, n_samples, rng.uniform(0.22, 1.0), 0.01)
    case_hz = rng.uniform(1500, 3500)
    pieces = []
    for i in range(len(starts)):
        n = random_length(rng, 0.05, 0.07)
        click = white(rng, n) * pulse(n, 0.0004, 0.003)
        pitch = case_hz * (1.0 if i % 2 else 0.8)
        pieces.append(resonate(click, [pitch, 2.1 * pitch], [200, 500]))
    return overlay(n_samples, starts, pieces)


def church_bell(rng: Rng, n_samples: int) -> FloatArray:
    """Large bell: inharmonic partials with a minor third, ringing long."""
    partials = rng.uniform(180, 420) * np.array([1, 2, 2.4, 3, 4, 5.3, 6.6])
    return _strikes(rng, n_samples, rng.uniform(0.9, 2.0), partials, rng.uniform(1.2, 2.5))


def door_knock(rng: Rng, n_samples: int) -> FloatArray:
    """Wooden knocks in groups of three to five."""
    wood = rng.uniform(180, 380)
    gap = rng.uniform(0.14, 0.24)
    group_starts = onsets(rng, n_samples, rng.uniform(1.3, 2.0), 0.15)
    n_knocks = int(rng.integers(3, 6))
    starts = [int(s + k * gap * SAMPLE_RATE_HZ) for s in group_starts for k in range(n_knocks)]
    starts = [s for s in starts if s < n_samples]
    knocks = []
    for _ in starts:
        n = random_length(rng, 0.1, 0.13)
        hit = white(rng, n) * pulse(n, 0.0006, 0.006)
        knock = resonate(hit, [wood, 2.3 * wood, 4.1 * wood], [40, 90, 200])
        knocks.append(_scaled(knock) * rng.uniform(0.7, 1))
    return overlay(n_samples, starts, knocks)


def gunshot(rng: Rng, n_samples: int) -> FloatArray:
    """Sudden full-band blasts with an echo."""
    starts = onsets(rng, n_samples, rng.uniform(0.7, 1.8), 0.4)
    shots = []
    for _ in starts:
        n = random_length(rng, 0.6, 1.0)
        blast = band_noise(rng, n, 80, 6000, -0.3) * pulse(n, 0.0008, rng.uniform(0.02, 0.05))
        echo = band_noise(rng, n, 80, 1500, -0.5) * pulse(n, 0.05, 0.2)
        shots.append(blast + rng.uniform(0.05, 0.2) * echo)
    return overlay(n_samples, starts, shots)


def drum(rng: Rng, n_samples: int) -> FloatArray:
    """Beat on a skin: the pitch drops, a slap on top."""
    period_s, skin = rng.uniform(0.2, 0.5), rng.uniform(70, 160)
    starts = onsets(rng, n_samples, period_s, 0.02)
    beats = []
    for i in range(len(starts)):
        n = random_length(rng, 0.18, 0.24)
        skin_tone = tone(phase(skin * (1 + 0.8 * np.exp(-seconds(n) / 0.02)))) * pulse(
            n, 0.001, 0.07
        )
        slap = band_noise(rng, n, 800, 5000) * pulse(n, 0.0008, 0.03)
        accent = 1.0 if i % 4 == 0 else 0.6
        beats.append(accent * (skin_tone + (0.5 if i % 2 else 0.1) * slap))
    return overlay(n_samples, starts, beats)


def glass_break(rng: Rng, n_samples: int) -> FloatArray:
    """Crash, then shards that ring and fall."""
    starts = onsets(rng, n_samples, rng.uniform(1.5, 2.5), 0.2)
    crashes = []
    for _ in starts:
        n = random_length(rng, 0.8, 1.2)
        crash = band_noise(rng, n, 1500, 7500, 0.3) * pulse(n, 0.001, 0.04)
        shards = poisson_hits(rng, n, 60) * pulse(n, 0.03, 0.3)
        ringing = resonate(shards, rng.uniform(2500, 7000, 8).tolist(), 25)
        crashes.append(crash + 0.25 * _scaled(ringing) * pulse(n, 0.01, 0.4))
    return overlay(n_samples, starts, crashes)


def alarm_beep(rng: Rng, n_samples: int) -> FloatArray:
    """Electronic beeps at one pitch, evenly spaced."""
    t = seconds(n_samples)
    period_s = rng.uniform(0.2, 0.7)
    sounding = ((t / period_s + rng.uniform()) % 1) < rng.uniform(0.35, 0.6)
    beep = tone(rng.uniform(900, 2400) * t, (1, 0, 0.3, 0, 0.15))
    return beep * ring(sounding * 0.02, 0.003)
