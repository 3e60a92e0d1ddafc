from unittest import mock

import numpy as np
import pytest
from random_checkpoints.laion_clap import PREPROCESSOR

from xacle_stack._optional import stand_ins
from xacle_stack.audio import repeat_to_length
from xacle_stack.encoders.laion_mel import build_filters, fuse, log_mel

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

RATE = 48_000


@pytest.mark.parametrize(
    ("scale", "seconds"),
    [
        ("slaney", 0.4),
        ("slaney", 10),
        ("htk", 0.4),
        ("htk", 10),
        ("htk", 10.005),  # as many frames as 10 s
        ("htk", 10.03),  # fewer places for a chunk than thirds
        ("htk", 27.3),
    ],
)
def test_it_is_the_librarys_spectrogram(scale: str, seconds: float) -> None:
    with stand_ins(["torchaudio", "torchvision"]):
        from transformers import ClapFeatureExtractor, audio_utils
    is_fused = scale == "htk"
    settings = {**PREPROCESSOR, "truncation": "fusion" if is_fused else "rand_trunc"}
    rng = np.random.default_rng(0)
    swell = np.linspace(0.001, 0.3, round(seconds * RATE))
    clip = (swell * rng.normal(size=len(swell))).astype(np.float32)
    with mock.patch("numpy.random.choice", lambda places: places[len(places) // 2]):
        extract = ClapFeatureExtractor(**settings)
        expected = extract(clip, sampling_rate=RATE, return_tensors="np")["input_features"]
    samples = torch.from_numpy(repeat_to_length(clip, 10 * RATE))[None]
    mel = log_mel(samples, build_filters(audio_utils, 50.0, 14_000.0, scale))
    found = fuse(mel) if is_fused else mel[:, None]
    np.testing.assert_allclose(found, expected, atol=1e-3)  # decibels
