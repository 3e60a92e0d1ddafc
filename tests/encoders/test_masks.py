import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xacle_stack.encoders import EncoderChoice, encoder_names, get_encoder
from xacle_stack.encoders.masks import MAX_BANDS, MAX_FRAMES, hidden_parts
from xacle_stack.encoders.mini import frontends

WITH_VIEWS = [name for name in encoder_names() if get_encoder(name).info.views]
EMBEDDED = [name for name in WITH_VIEWS if get_encoder(name).info.weights is None]


def spans(hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which bands and which frames are hidden all along."""
    return np.flatnonzero(hidden.all(axis=1)), np.flatnonzero(hidden.all(axis=0))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 100), st.integers(1, 90), st.integers(1, 500), st.integers(0, 2**31))
def test_one_span_of_each_is_hidden_and_half_is_left(view, n_bands, n_frames, seed) -> None:
    samples = np.random.default_rng(seed).normal(size=50).astype(np.float32)
    hidden = hidden_parts(samples, view, n_bands, n_frames)
    bands, frames = spans(hidden)
    assert len(bands) <= min(MAX_BANDS, n_bands // 2)
    assert len(frames) <= min(MAX_FRAMES, n_frames // 2)
    for span in (bands, frames):
        assert (np.diff(span) == 1).all()
    expected = np.zeros((n_bands, n_frames), dtype=bool)
    expected[bands] = True
    expected[:, frames] = True
    np.testing.assert_array_equal(hidden, expected)


@pytest.mark.parametrize("sizes", [(MAX_BANDS, MAX_FRAMES), (15, 30)])
def test_widths_and_places_are_drawn_evenly(rng, sizes) -> None:
    samples = rng.normal(size=50)
    found = [spans(hidden_parts(samples, view, 80, 1001, *sizes)) for view in range(1, 2001)]
    for axis, (size, most) in enumerate(zip((80, 1001), sizes, strict=True)):
        widths = np.array([len(span[axis]) for span in found])
        assert widths.min() == 0
        assert widths.max() == most
        assert abs(widths.mean() - most / 2) < 4 * np.sqrt(most * (most + 2) / 12 / 2000)
        starts = [span[axis][0] for span in found if len(span[axis])]
        ends = [span[axis][-1] for span in found if len(span[axis])]
        assert min(starts) == 0
        assert max(ends) == size - 1


def test_a_view_is_a_matter_of_the_clip_and_the_number(rng) -> None:
    samples = rng.normal(size=100).astype(np.float32)
    first = hidden_parts(samples, 1, 80, 1001)
    np.testing.assert_array_equal(hidden_parts(samples.copy(), 1, 80, 1001), first)
    assert (hidden_parts(samples, 2, 80, 1001) != first).any()
    assert (hidden_parts(np.nextafter(samples, 1), 1, 80, 1001) != first).any()
    assert not hidden_parts(samples, 0, 80, 1001).any()
    # Whatever NumPy's generators become, views stay what they are.
    bands, frames = spans(hidden_parts(np.zeros(16, np.float32), 1, 80, 1001))
    assert (bands[[0, -1]].tolist(), frames[[0, -1]].tolist()) == ([53, 68], [93, 270])


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_spaces_hide_what_the_masks_say(name: str, rng, monkeypatch) -> None:
    samples = rng.normal(scale=0.1, size=16_000).astype(np.float32)
    plain, view = EncoderChoice(name).load(), EncoderChoice(name, view=3).load()
    found = view.encode_audio([samples, samples[:8000]])["embedding"]
    assert (np.abs(found - plain.encode_audio([samples, samples[:8000]])["embedding"]) > 1e-4).any()
    for clip, vector in zip((samples, samples[:8000]), found, strict=True):  # alone as together
        np.testing.assert_array_equal(view.encode_audio([clip])["embedding"][0], vector)
    # Independently: the same spectrogram with its parts filled before any feature is taken.
    spectrogram = frontends._log_mel

    def masked(clip: np.ndarray, n_bands: int, hop: int, view: int) -> np.ndarray:
        level = spectrogram(clip, n_bands, hop, 0).T.copy()
        mean = level.mean()
        for bands, frames in [spans(hidden_parts(clip, 3, *level.shape))]:
            level[bands, :] = mean
            level[:, frames] = mean
        return level.T.copy()

    monkeypatch.setattr(frontends, "_log_mel", masked)
    again = plain.encode_audio([samples])["embedding"]
    np.testing.assert_allclose(again[0], found[0], atol=1e-5)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_view_shares_the_model_and_leaves_it_alone(name: str, rng) -> None:
    plain = EncoderChoice(name).load()
    clips = [rng.normal(size=16_000).astype(np.float32)]
    before = plain.encode_audio(clips)["embedding"]
    view = plain.with_view(1)
    assert view.weights is plain.weights
    assert plain.with_view(0) is plain
    view.encode_audio(clips)
    np.testing.assert_array_equal(plain.encode_audio(clips)["embedding"], before)
