"""Dasheng against the authors' package, where that is installed, and its own promises."""

from pathlib import Path

import numpy as np
import pytest
from random_checkpoints.dasheng import draw_state

from xacle_stack.encoders import EncoderChoice, get_encoder
from xacle_stack.encoders.dasheng import decibels
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
if not get_encoder("dasheng-base").info.is_installed:
    pytest.skip("the extra timm is not installed", allow_module_level=True)

RATE = 16_000


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authors' own format."""
    path = tmp_path_factory.mktemp("dasheng") / "dasheng_base.pt"
    config = {"embed_dim": 768, "depth": 2, "num_heads": 12, "target_length": 1008}
    state = draw_state(2, 4 * 768, seed=3)
    state["front_end.0.spectrogram.window"] = torch.hann_window(512)
    state["front_end.0.mel_scale.fb"] = filters()
    torch.save({"model": state, "config": config}, path)
    return path


def filters() -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(257, 64, 0.0, 8000.0, RATE, mel_scale="htk")
    return torch.from_numpy(bank).float()


def noise(n_samples: int, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(n_samples).normal(scale=scale, size=n_samples).astype(np.float32)


# Shorter than a window, of exactly one, and of two and a part.
@pytest.mark.parametrize("duration_s", [0.5, 10.0, 10.07, 25.3])
def test_vectors_are_those_of_the_authors_package(original: Path, duration_s: float) -> None:
    pytest.importorskip("torchaudio.transforms", exc_type=Exception)
    models = pytest.importorskip("dasheng.pretrained.pretrained")
    model = models.Dasheng.from_pretrained(str(original)).eval()
    clip = noise(round(duration_s * RATE))
    clip[: RATE // 4] = 0  # where the range of 120 dB matters
    with torch.inference_mode():
        theirs = model(torch.from_numpy(clip)[None]).mean(dim=1).numpy()
    ours = EncoderChoice("dasheng-base", str(original)).load().encode_audio([clip])["pooled"]
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


def test_the_spectrogram_is_the_librarys(original: Path) -> None:
    from transformers.audio_utils import spectrogram, window_function

    encoder = EncoderChoice("dasheng-base", str(original)).load()
    clip = noise(12 * RATE)
    clip[: 6 * RATE] *= 1e-9
    with torch.inference_mode():
        ours = decibels(encoder.model, torch.from_numpy(clip)[None])[0, :, 0].numpy()
    bank, window = encoder.model.mel_filters.numpy(), window_function(512, "hann")
    power = spectrogram(clip, window, 512, 160, power=2.0, mel_filters=bank)
    theirs = 10 * np.log10(np.maximum(power, 1e-10))
    np.testing.assert_allclose(ours, np.maximum(theirs, theirs.max() - 120), atol=2e-3)


def test_a_long_clip_is_the_mean_over_parts_of_1008_frames(original: Path) -> None:
    encoder = EncoderChoice("dasheng-base", str(original)).load()
    clip = noise(1008 * 160 * 2)
    (whole,) = encoder.encode_audio([clip])["pooled"]
    halves = encoder.encode_audio([clip[: 1008 * 160 - 160], clip[1008 * 160 :]])["pooled"]
    # Only the frames at the joint differ.
    np.testing.assert_allclose(whole, halves.mean(axis=0), atol=0.02 * np.abs(whole).max())


def test_a_folder_of_another_model_is_told(written, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "ced"}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(EncoderError, match="type 'ced'; expected 'dasheng'"):
        EncoderChoice("dasheng-base", str(tmp_path)).load()
