from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write_checkpoint

from xacle_stack.encoders.whisper import Whisper, log_mel

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CLIP_LENGTHS = (1, 16_000, 24_321, 480_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub"), "whisper-base", full=False)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Whisper:
    return Whisper.load(str(folder))


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(scale=0.1, size=n).astype(np.float32) for n in CLIP_LENGTHS]


@pytest.fixture(scope="module")
def mel(clips) -> np.ndarray:
    """Return the library's spectrograms, computed in float64 without PyTorch."""
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor()
    padded = [np.pad(clip, (0, 480_000 - len(clip))) for clip in clips]
    return extractor._np_extract_fbank_features(np.stack(padded), "cpu")


def test_the_spectrogram_is_the_libraries(encoder: Whisper, clips, mel: np.ndarray) -> None:
    samples = torch.zeros(len(clips), 480_000)
    for row, clip in zip(samples, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    found = log_mel(samples, encoder.model.mel_filters)
    assert found.shape == (len(clips), 80, 3000)
    np.testing.assert_allclose(found.numpy(), mel, atol=1e-4)
    for row, alone in zip(samples, found, strict=True):
        torch.testing.assert_close(log_mel(row[None], encoder.model.mel_filters)[0], alone)


def test_vectors_are_statistics_of_the_clips_frames(encoder: Whisper, clips, mel) -> None:
    pooled = encoder.encode_audio(clips)["pooled"]
    for clip, spectrogram, found in zip(clips, mel, pooled, strict=True):
        n_frames = max(1, round(len(clip) / 16_000 * 50 + 0.4999))
        with torch.inference_mode():
            hidden = encoder.model(torch.from_numpy(spectrogram)[None].float()).last_hidden_state
        frames = hidden[0, :n_frames].numpy()
        expected = [frames.mean(axis=0), frames.std(axis=0), frames.max(axis=0)]
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-3, atol=1e-4)


def test_the_decoder_may_be_absent_and_the_names_short(
    folder: Path, encoder: Whisper, clips, tmp_path: Path
) -> None:
    state = {f"encoder.{name}": value for name, value in encoder.model.state_dict().items()}
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    torch.save(state, tmp_path / "pytorch_model.bin")
    again = Whisper.load(str(tmp_path)).encode_audio(clips[:2])["pooled"]
    np.testing.assert_array_equal(again, encoder.encode_audio(clips[:2])["pooled"])
