import io

import numpy as np
import pytest

from xacle_stack.audio import clip_from_samples
from xacle_stack.results.page.spectrograms import (
    HEIGHT,
    HIGHEST_HZ,
    LOWEST_HZ,
    WIDTH,
    band_levels,
    spectrogram_png,
)

RATE = 16_000


def tone(frequency_hz: float, duration_s: float, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(round(RATE * duration_s)) / RATE
    return amplitude * np.sin(2 * np.pi * frequency_hz * time)


@pytest.mark.parametrize("frequency_hz", [200.0, 1000.0, 5000.0])
def test_a_tone_is_in_its_band_and_a_tenth_of_it_is_20_db_lower(frequency_hz: float) -> None:
    levels = band_levels(clip_from_samples(tone(frequency_hz, 1), RATE))
    assert levels.shape == (HEIGHT, WIDTH)
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, HEIGHT + 1)
    loudest = np.argmax(levels[:, WIDTH // 2])
    step_hz = 1 / 0.04
    assert edges[loudest] - step_hz <= frequency_hz <= edges[loudest + 1] + step_hz
    quiet = band_levels(clip_from_samples(tone(frequency_hz, 1, 0.1), RATE))
    middle = loudest, WIDTH // 2
    np.testing.assert_allclose(levels[middle] - quiet[middle], 20, atol=0.1)
    assert levels.max() < 3


def test_time_goes_from_left_to_right_in_a_clip_of_any_length() -> None:
    for duration_s in (0.2, 3, 40):
        silence = np.zeros(round(RATE * duration_s / 2))
        levels = band_levels(
            clip_from_samples(np.concatenate([silence, tone(800, duration_s / 2)]), RATE)
        ).max(axis=0)
        assert (levels[: WIDTH // 2 - 40] < -90).all()
        assert (levels[WIDTH // 2 + 40 : -40] > -20).all()


@pytest.mark.parametrize("n_samples", [1, 7, 500])
@pytest.mark.parametrize("rate", [1_000, 192_000])
def test_a_short_clip_of_any_rate_has_a_picture(n_samples: int, rate: int) -> None:
    picture = spectrogram_png(clip_from_samples(np.ones(n_samples), rate))
    assert picture.startswith(b"\x89PNG")


def test_the_picture_is_a_png_with_low_frequencies_at_the_bottom() -> None:
    image = pytest.importorskip("matplotlib.image")
    picture = spectrogram_png(clip_from_samples(tone(100, 1), RATE))
    pixels = image.imread(io.BytesIO(picture), format="png")
    assert pixels.shape[:2] == (HEIGHT, WIDTH)
    brightness = pixels[..., :3].sum(axis=2).mean(axis=1)
    assert brightness[HEIGHT // 2 :].max() > brightness[: HEIGHT // 2].max() + 0.5
    assert spectrogram_png(clip_from_samples(tone(100, 1), RATE)) == picture
