import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write_checkpoint

from xacle_stack.encoders.pe_audio import PeAudio
from xacle_stack.errors import EncoderError, MissingExtraError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

has_model = pytest.mark.skipif(
    int(transformers.__version__.partition(".")[0]) < 5, reason="PE-Audio needs transformers 5"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub"), "pe-audio", full=False)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PeAudio:
    return PeAudio.load(str(folder))


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(scale=0.1, size=n).astype(np.float32) for n in (48_000, 47_990, 96_000)]


def test_an_old_release_of_transformers_is_told(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("transformers.__version__", "4.57.6")
    with pytest.raises(MissingExtraError, match="'pe-audio' needs transformers 5 or later; 4.57.6"):
        PeAudio.load(str(tmp_path / "nothing is looked for"))


@has_model
def test_clips_are_embedded_as_by_the_library(encoder: PeAudio, clips) -> None:
    from transformers import PeAudioFeatureExtractor

    extractor = PeAudioFeatureExtractor()
    found = encoder.encode_audio(clips)["embedding"]
    for clip, embedding in zip(clips, found, strict=True):
        inputs = extractor(clip, sampling_rate=48_000, return_tensors="pt")
        with torch.inference_mode():
            expected = encoder.model.get_audio_embeds(**inputs)[0].numpy()
        np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-4)


@has_model
def test_captions_are_embedded_from_the_last_layer_before_its_norm(encoder: PeAudio) -> None:
    model, kept = encoder.model, []
    hook = model.text_model.layers[-1].register_forward_hook(
        lambda _module, _inputs, output: kept.append(output)
    )
    captions = ["a dog barks", "rain " * 300, ""]
    found = encoder.encode_text(captions)["embedding"]
    kept.clear()
    for caption, embedding in zip(captions, found, strict=True):
        ids = [257, *(byte_ids(encoder, caption)[: 512 - 2]), 258]
        with torch.inference_mode():
            model.text_model(input_ids=torch.tensor([ids]))
            output = kept.pop()
            hidden = output[0] if isinstance(output, tuple) else output
            expected = model.text_audio_head(hidden[:, 0])[0].numpy()
        np.testing.assert_allclose(embedding, expected, rtol=1e-4, atol=1e-4)
    hook.remove()


def byte_ids(encoder: PeAudio, text: str) -> list[int]:
    return encoder.tokenizer.encode(text, add_special_tokens=False)


@has_model
def test_an_audio_checkpoint_and_other_names_load_alike(
    folder: Path, encoder: PeAudio, clips, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    video_state = load_file(folder / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text())
    audio_state = {
        key.removeprefix("audio_model."): value
        for key, value in video_state.items()
        if key.startswith(("audio_model.", "text_model."))
    }
    shared = {
        key.replace("audio_model.audio_enc", "audio_video_encoder.embedder.audio_enc"): value
        for key, value in video_state.items()
    }
    audio_settings = {
        "model_type": "pe_audio",
        "text_config": settings["text_config"],
        "audio_config": settings["audio_video_config"]["audio_config"],
    }
    expected = encoder.encode_audio(clips[:1])["embedding"]
    for state, state_settings in ((audio_state, audio_settings), (shared, settings)):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        (tmp_path / "config.json").write_text(json.dumps(state_settings))
        save_file(state, tmp_path / "model.safetensors")
        again = PeAudio.load(str(tmp_path)).encode_audio(clips[:1])["embedding"]
        np.testing.assert_array_equal(again, expected)


@has_model
def test_weights_may_stand_in_several_files(
    folder: Path, encoder: PeAudio, clips, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    state = load_file(folder / "model.safetensors")
    for part in (0, 1):
        some = dict(list(state.items())[part::2])
        save_file(some, tmp_path / f"model-0000{part + 1}-of-00002.safetensors")
    again = PeAudio.load(str(tmp_path)).encode_audio(clips[:1])["embedding"]
    np.testing.assert_array_equal(again, encoder.encode_audio(clips[:1])["embedding"])
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(EncoderError, match="tensors .*missing"):
        PeAudio.load(str(tmp_path))


@has_model
def test_a_configuration_without_its_parts_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text('{"model_type": "pe_audio_video"}')
    with pytest.raises(EncoderError, match="KeyError"):
        PeAudio.load(str(tmp_path))
