import logging
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from random_checkpoints import choose
from random_checkpoints.m2d_clap import PORTABLE_M2D

from xacle_stack.audio import fixed_windows
from xacle_stack.encoders import EncoderChoice, get_encoder
from xacle_stack.encoders.masks import hidden_parts
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
if not get_encoder("m2d-clap").info.is_installed:
    pytest.skip("what m2d-clap requires is not installed", allow_module_level=True)

RATE = 16_000


@pytest.fixture(scope="module")
def choice(tmp_path_factory) -> EncoderChoice:
    return choose(tmp_path_factory.mktemp("m2d"), "m2d-clap")


@pytest.fixture(scope="module")
def encoder(choice: EncoderChoice):
    return choice.load()


@pytest.fixture
def copy(choice: EncoderChoice, tmp_path: Path) -> EncoderChoice:
    """Return the choice of a checkpoint and a clone that may be changed."""
    path = Path(choice.checkpoint)
    folder = shutil.copytree(path.parent, tmp_path / path.parent.name)
    code = shutil.copytree(choice.code, tmp_path / "clone")
    return EncoderChoice("m2d-clap", str(folder / path.name), code=str(code))


def script_path(choice: EncoderChoice) -> Path:
    return Path(choice.code) / "examples" / "portable_m2d.py"


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_clips_have_the_vectors_of_the_clone(encoder, rng) -> None:
    clone = encoder.model["audio"]
    short, whole, long = (
        rng.normal(scale=0.1, size=n).astype(np.float32)
        for n in (3 * RATE, 10 * RATE, 10 * RATE + 1)
    )
    long[: 5 * RATE] = 0
    with torch.inference_mode():
        theirs = [clone.encode_clap_audio(torch.from_numpy(clip)[None]) for clip in (short, whole)]
        windows = torch.from_numpy(fixed_windows(long, 10 * RATE))
        theirs.append(clone.encode_clap_audio(windows).mean(dim=0, keepdim=True))
    ours = encoder.encode_audio([short, whole, long])["embedding"]
    assert_close(ours, torch.cat(theirs).numpy())
    assert not np.allclose(np.linalg.norm(ours, axis=1), 1)


def test_a_view_hides_parts_of_the_clones_spectrogram(encoder, rng) -> None:
    clone = encoder.model["audio"]
    clips = [
        rng.normal(scale=0.1, size=n).astype(np.float32) for n in (3 * RATE, 10 * RATE, 3 * RATE)
    ]
    view = encoder.with_view(2)
    together = view.encode_audio(clips)["embedding"]
    spectrogram = clone.to_spec.forward

    def masked(samples):
        (clip,), power = samples.numpy(), spectrogram(samples)
        level = (power + torch.finfo().eps).log()
        mean = level.mean()
        level[0, torch.from_numpy(hidden_parts(clip, 2, *power.shape[1:]))] = mean
        return level.exp() - torch.finfo().eps

    plain = encoder.encode_audio(clips)["embedding"]
    for clip, vector, unmasked in zip(clips, together, plain, strict=True):
        assert_close(view.encode_audio([clip])["embedding"][0], vector)
        with mock.patch.object(clone.to_spec, "forward", masked), torch.inference_mode():
            theirs = clone.encode_clap_audio(torch.from_numpy(clip)[None])[0].numpy()
        np.testing.assert_allclose(vector, theirs, atol=1e-4 * np.abs(theirs).max())
        assert np.abs(vector - unmasked).max() > 1e-3 * np.abs(unmasked).max()
    assert not clone.to_spec._forward_hooks


def test_every_window_of_a_long_clip_is_masked_by_itself(encoder, rng) -> None:
    long = rng.normal(scale=0.1, size=15 * RATE).astype(np.float32)
    view = encoder.with_view(1)
    windows = list(fixed_windows(long, 10 * RATE))
    alone = view.encode_audio(windows)["embedding"].mean(axis=0)
    assert_close(view.encode_audio([long])["embedding"][0], alone)


def test_captions_have_the_vectors_of_the_clone(choice: EncoderChoice, encoder) -> None:
    """The clone's own way is to load another BERT from the hub first, then its weights."""
    import transformers

    captions = ["a dog barks", "", "Heavy rain, 雨, on a tin roof!", "a " * 700]
    folder = str(Path(choice.checkpoint).parent)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
    with (
        mock.patch.object(transformers, "AutoModel") as models,
        mock.patch.object(transformers, "AutoTokenizer") as tokenizers,
        torch.inference_mode(),
    ):
        tokenizers.from_pretrained.return_value = tokenizer
        bert = transformers.BertModel(encoder.model["text"].config).eval()
        models.from_pretrained.return_value = bert
        theirs = encoder.model["audio"].encode_clap_text(captions, truncate=True).numpy()
    assert_close(encoder.encode_text(captions)["embedding"], theirs)


def test_the_clone_leaves_the_process_as_it_was(choice: EncoderChoice, monkeypatch, capsys) -> None:
    assert "print(" in PORTABLE_M2D
    assert "logging.info(" in PORTABLE_M2D
    assert "sys.path.append(" in PORTABLE_M2D
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    path = sys.path.copy()
    choice.load()
    assert sys.path == path
    assert logging.root.handlers == []
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert capsys.readouterr().out == ""


class Payload:
    """What a stranger's pickle could hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was run",)


def test_the_clone_cannot_run_code_from_a_pickle(copy: EncoderChoice, tmp_path: Path) -> None:
    """Even if it reads another file than the one that was looked through before."""
    torch.save({"model": Payload()}, tmp_path / "evil.pth")
    script = script_path(copy)
    script.write_text(
        script.read_text().replace(
            "state = torch.load(weight_file", f"state = torch.load({str(tmp_path / 'evil.pth')!r}"
        )
    )
    with pytest.raises(EncoderError, match=r"(?s)Weights only load fail"):
        copy.load()


def test_a_command_line_saved_with_the_weights_is_no_code(choice: EncoderChoice) -> None:
    content = torch.load(choice.checkpoint, weights_only=False)
    assert type(content["args"]).__name__ == "Namespace"


def test_the_folders_name_is_checked(copy: EncoderChoice, tmp_path: Path) -> None:
    folder = Path(copy.checkpoint).parent.rename(tmp_path / "m2d")
    renamed = EncoderChoice("m2d-clap", str(folder), code=copy.code)
    with pytest.raises(EncoderError, match=r"called 'm2d'; expected 'm2d_clap_vit_base-80x1001"):
        renamed.load()


def test_no_clone_another_clone_and_a_broken_clone_are_told(copy: EncoderChoice) -> None:
    with pytest.raises(EncoderError, match=r"clone of github.com/nttcslab/m2d"):
        EncoderChoice("m2d-clap", copy.checkpoint).load()
    with pytest.raises(EncoderError, match=r"`code`, .*github.com"):
        get_encoder("m2d-clap").load(copy.checkpoint)
    script = script_path(copy)
    for change, message in {
        "import no_such_package": r"'no_such_package'.*pip install timm einops nnAudio",
        "1 / 0": "checkpoint-30.pth: ZeroDivisionError",
    }.items():
        script.write_text(change)
        with pytest.raises(EncoderError, match=message):
            copy.load()
    script.unlink()
    with pytest.raises(EncoderError, match=r"no .*portable_m2d.py"):
        copy.load()


def test_the_script_alone_is_enough(copy: EncoderChoice, choice: EncoderChoice, encoder) -> None:
    script_path(copy).rename(Path(copy.code) / "portable_m2d.py")
    captions = ["a dog barks"]
    again = copy.load().encode_text(captions)["embedding"]
    np.testing.assert_array_equal(again, encoder.encode_text(captions)["embedding"])


def test_tensors_that_the_clone_leaves_random_are_named(copy: EncoderChoice) -> None:
    content = torch.load(copy.checkpoint, weights_only=False)
    for key in [key for key in content["model"] if ".audio_proj.norm." in key]:
        del content["model"][key]
    torch.save(content, copy.checkpoint)
    with pytest.raises(
        EncoderError, match=r"(?s)2 of its tensors.*missing: audio_proj\.norm\.weight"
    ):
        copy.load()
    text = [key for key in content["model"] if key.startswith("text_encoder.")]
    content = {"model": {key: content["model"][key] for key in text}}
    torch.save(content, copy.checkpoint)
    with pytest.raises(EncoderError, match=r"portable_m2d\.py cannot build.*checkpoint"):
        copy.load()


def test_weights_without_a_place_are_asked_for() -> None:
    with pytest.raises(EncoderError, match=r"Get m2d_clap_vit_base.*v0.5.0"):
        get_encoder("m2d-clap").find_checkpoint(None)
