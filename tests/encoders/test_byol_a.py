import shutil
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import choose
from random_checkpoints.byol_a import MODELS, NAME

from xacle_stack.encoders import EncoderChoice, get_encoder
from xacle_stack.encoders.frames import cut
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

RATE = 16_000


@pytest.fixture(scope="module")
def choice(tmp_path_factory) -> EncoderChoice:
    return choose(tmp_path_factory.mktemp("byol"), "byol-a")


@pytest.fixture(scope="module")
def encoder(choice: EncoderChoice):
    return choice.load()


@pytest.fixture
def copy(choice: EncoderChoice, tmp_path: Path) -> EncoderChoice:
    """Return the choice of a file and a clone that may be changed."""
    code = shutil.copytree(choice.code, tmp_path / "clone")
    file = shutil.copy(choice.checkpoint, tmp_path / "weights.pth")
    return EncoderChoice("byol-a", str(file), code=str(code))


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = (3 * RATE, 10 * RATE, RATE // 2 + 77, 1024, 31 * RATE + 1)
    return [rng.normal(scale=0.1, size=n).astype(np.float32) for n in lengths]


def log_mel(clip: np.ndarray) -> np.ndarray:
    """Return the spectrogram by librosa, which nnAudio's is modelled on, as the clone wants it."""
    librosa = pytest.importorskip("librosa")
    power = librosa.feature.melspectrogram(
        y=clip,
        sr=RATE,
        n_fft=1024,
        hop_length=160,
        win_length=1024,
        window="hann",
        center=True,
        pad_mode="reflect",
        power=2.0,
        n_mels=64,
        fmin=60,
        fmax=7800,
    )
    level = np.log(power + np.finfo(np.float32).eps)
    return (level - -9.660292) / 4.7219563


def network(choice: EncoderChoice, name: str):
    """Return one of the clone's own models with the weights."""
    namespace: dict[str, type] = {}
    exec(MODELS.replace('print("imported")', ""), namespace)
    model = namespace[name](n_mels=64, d=3072)
    model.load_state_dict(torch.load(choice.checkpoint))
    return model.eval()


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # librosa's own
def test_the_spectrogram_is_librosas(encoder, clips) -> None:
    for clip in clips[:3]:
        with torch.inference_mode():
            ours = encoder._log_mel(clip[None])[0, 0].numpy()
        np.testing.assert_allclose(ours, log_mel(clip), atol=1e-3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # librosa's own
def test_frames_and_embedding_are_those_of_the_clone(choice: EncoderChoice, encoder, clips) -> None:
    outputs = encoder.encode_audio(clips[:4])
    encode, pool = network(choice, "AudioNTT2022Encoder"), network(choice, "AudioNTT2022")
    for clip, frames, vector in zip(clips, outputs["frames"], outputs["embedding"], strict=False):
        level = torch.from_numpy(log_mel(clip)).float()[None, None]
        with torch.inference_mode():
            assert_close(frames, encode(level)[0].numpy())
            assert_close(vector, pool(level)[0].numpy())
    # 25 a second, whole ones only; of a window, one.
    assert [len(frames) for frames in outputs["frames"]] == [75, 250, 12, 1]
    assert outputs["frames"][0].shape == (75, 3072)


def test_a_long_clip_is_its_pieces_end_to_end(encoder, clips) -> None:
    pieces, _ = cut([clips[4]], 30 * RATE)
    assert len(pieces) == 2
    together = encoder.encode_audio([clips[4]])
    alone = [encoder.encode_audio([piece])["frames"][0] for piece in pieces]
    assert_close(together["frames"][0], np.concatenate(alone))
    frames = together["frames"][0]
    assert_close(together["embedding"][0], frames.max(axis=0) + frames.mean(axis=0))


def test_a_shorter_clip_is_filled_to_one_window(encoder, clips) -> None:
    short = clips[0][:700]
    filled = np.pad(short, (0, 1024 - 700))
    ours, expected = encoder.encode_audio([short, filled])["frames"]
    assert ours.shape == (1, 3072)
    np.testing.assert_array_equal(ours, expected)


def test_the_clone_prints_into_nothing(choice: EncoderChoice, capsys) -> None:
    assert "print(" in MODELS
    choice.load()
    assert capsys.readouterr().out == ""


def test_the_weights_are_found_in_the_clone_and_in_any_wrapping(
    copy: EncoderChoice, encoder, clips
) -> None:
    expected = encoder.encode_audio(clips[:1])["embedding"]
    file = Path(copy.checkpoint)
    state = torch.load(file)
    wrapped = {f"model.{name}": values for name, values in state.items()}
    for content in (
        {"state_dict": {**wrapped, "norm_stats": torch.zeros(2)}},
        {"model": state, "epoch": 3},
        wrapped,
    ):
        torch.save(content, file)
        again = copy.load().encode_audio(clips[:1])["embedding"]
        np.testing.assert_array_equal(again, expected)
    file.rename(Path(copy.code) / "v2" / NAME)
    in_clone = EncoderChoice("byol-a", copy.code, code=copy.code)
    np.testing.assert_array_equal(in_clone.load().encode_audio(clips[:1])["embedding"], expected)


def test_other_places_of_the_code(copy: EncoderChoice) -> None:
    v2 = Path(copy.code) / "v2"
    EncoderChoice("byol-a", copy.checkpoint, code=str(v2)).load()
    baseline = Path(copy.code).parent / "baseline" / "models" / "byola"
    baseline.mkdir(parents=True)
    v2.rename(baseline / "v2")
    EncoderChoice("byol-a", copy.checkpoint, code=str(baseline.parent.parent)).load()


def test_no_clone_another_clone_and_a_broken_clone_are_told(copy: EncoderChoice) -> None:
    with pytest.raises(EncoderError, match="clone of github.com/nttcslab/byol-a"):
        EncoderChoice("byol-a", copy.checkpoint).load()
    with pytest.raises(EncoderError, match="`code`, .*github.com"):
        get_encoder("byol-a").load(copy.checkpoint)
    script = Path(copy.code) / "v2" / "byol_a2" / "models.py"
    for change, message in {
        "import no_such_package": "package 'no_such_package', .*pip install torch",
        "1 / 0": "weights.pth: ZeroDivisionError",
        "x = 1": "AttributeError.*AudioNTT2022Encoder",
    }.items():
        script.write_text(change)
        with pytest.raises(EncoderError, match=message):
            copy.load()
    script.unlink()
    with pytest.raises(EncoderError, match="there is no .*v2/byol_a2/models.py"):
        copy.load()
    with pytest.raises(EncoderError, match="Get AudioNTT2022.* v2"):
        get_encoder("byol-a").find_checkpoint(None)


def test_another_width_is_told(copy: EncoderChoice) -> None:
    state = torch.load(copy.checkpoint)
    state["fc.3.weight"], state["fc.3.bias"] = (
        state["fc.3.weight"][:1024],
        state["fc.3.bias"][:1024],
    )
    torch.save(state, copy.checkpoint)
    with pytest.raises(EncoderError, match=r"size:(?s:.*)fc\.3\.weight"):
        copy.load()
