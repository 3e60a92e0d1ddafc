import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write_checkpoint

from xacle_stack.encoders.wavlm import WavLM
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub"), "wavlm-large", full=False)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> WavLM:
    return WavLM.load(str(folder))


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0.3, 0.1, size=n).astype(np.float32) for n in (16_000, 24_321, 15_700, 400)]


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # transformers' own
def test_vectors_are_statistics_of_the_libraries_last_hidden_states(
    folder: Path, encoder: WavLM, clips
) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor.from_pretrained(folder)
    pooled = encoder.encode_audio(clips)["pooled"]
    for clip, found in zip(clips, pooled, strict=True):
        inputs = extractor(clip, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            frames = encoder.model(inputs.input_values).last_hidden_state[0].numpy()
        expected = [frames.mean(axis=0), frames.std(axis=0), frames.max(axis=0)]
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-4, atol=1e-5)


def test_both_names_of_the_positional_weight_load_alike(
    folder: Path, encoder: WavLM, clips, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert "encoder.pos_conv_embed.conv.weight_g" in torch.load(folder / "pytorch_model.bin")
    (tmp_path / "pytorch_model.bin").unlink()
    state = encoder.model.state_dict()
    assert "encoder.pos_conv_embed.conv.parametrizations.weight.original0" in state
    save_file(state, tmp_path / "model.safetensors")
    again = WavLM.load(str(tmp_path)).encode_audio(clips)["pooled"]
    np.testing.assert_array_equal(again, encoder.encode_audio(clips)["pooled"])


def test_a_half_of_the_positional_weight_is_missed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    state = torch.load(folder / "pytorch_model.bin")
    del state["encoder.pos_conv_embed.conv.weight_g"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="2 of its tensors .*missing, 1 .*surplus"):
        WavLM.load(str(tmp_path))


def test_the_preprocessor_decides_on_the_level(
    folder: Path, encoder: WavLM, clips, tmp_path: Path
) -> None:
    loud = [2 * clip for clip in clips]
    levelled = [encoder.encode_audio(c)["pooled"] for c in (clips, loud)]
    np.testing.assert_allclose(*levelled, rtol=1e-3, atol=1e-4)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["do_normalize"] = False
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    plain = WavLM.load(str(tmp_path)).encode_audio(clips)["pooled"]
    assert not np.allclose(plain, levelled[0], atol=0.01)


def test_another_size_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((folder / "config.json").read_text()) | {"hidden_size": 768}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(EncoderError, match="hidden_size is 768, expected 1024"):
        WavLM.load(str(tmp_path))
