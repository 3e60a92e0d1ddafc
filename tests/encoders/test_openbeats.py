"""OpenBEATs against the authors' package, where that is installed, and its own promises."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write_checkpoint
from random_checkpoints.openbeats import SETTINGS, TINY
from torchaudio_kaldi import load_kaldi

from xacle_stack._optional import stand_ins
from xacle_stack.encoders import EncoderChoice, get_encoder
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
if not get_encoder("openbeats-large").info.is_installed:
    pytest.skip("the extra beats is not installed", allow_module_level=True)

NAMES = ["openbeats-large", "openbeats-large-as20k"]


@pytest.fixture
def folder(tmp_path: Path):
    return lambda name: write_checkpoint(tmp_path, name, full=False)


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(n_samples).normal(scale=0.1, size=n_samples).astype(np.float32)


def change(folder: Path, **changes: object) -> Path:
    """Change what a file of an exported encoder holds beside its tensors."""
    (file,) = folder.rglob("*.pt")
    torch.save({**torch.load(file), **changes}, file)
    return folder


@pytest.mark.filterwarnings("ignore")  # the package's own
@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_the_authors_package(folder, name: str, monkeypatch) -> None:
    if importlib.util.find_spec("openbeats") is None:
        pytest.skip("needs: pip install --no-deps openbeats")
    kaldi = load_kaldi()
    with stand_ins(["torchaudio", "torchvision"]):
        from openbeats import beats_encoder, model, utils
    monkeypatch.setattr(beats_encoder, "ta_kaldi", kaldi)
    # It would fetch a fine-tuned model's settings from the repository of the base.
    monkeypatch.setattr(utils, "_base_beats_config", lambda base: {**SETTINGS, **TINY, **plain})
    plain = {"fbank_mean": 15.41663, "fbank_std": 6.55582}
    path = folder(name)
    reference = model.OpenBeats.from_pretrained(str(path), base="its base")
    ours = EncoderChoice(name, str(path), outputs=("tokens",)).load()
    for n_samples in (17, 3000, 3300, 16_000, 160_000):
        expected = reference.encode(noise(n_samples))
        found = ours.encode_audio([noise(n_samples)])
        pooled = expected["patch_embeddings"].mean(axis=0)
        np.testing.assert_allclose(found["pooled"][0], pooled, atol=2e-5)
        if "logits" in expected:
            np.testing.assert_allclose(found["logits"][0], expected["logits"], atol=2e-5)


def test_a_clip_shorter_than_a_fifth_of_a_second_is_repeated(folder) -> None:
    encoder = EncoderChoice(NAMES[0], str(folder(NAMES[0]))).load()
    clip = noise(1500)
    short, repeated = encoder.encode_audio([clip, np.tile(clip, 3)])["pooled"]
    np.testing.assert_array_equal(short, repeated)


def test_the_statistics_of_the_filter_bank_are_the_checkpoints(folder) -> None:
    path = folder(NAMES[0])
    clip = [noise(16_000)]
    own = EncoderChoice(NAMES[0], str(path)).load().encode_audio(clip)["pooled"]
    settings = {**SETTINGS, **TINY}
    change(path, cfg={**settings, "fbank_mean": 15.41663, "fbank_std": 6.55582})
    explicit = EncoderChoice(NAMES[0], str(path)).load().encode_audio(clip)["pooled"]
    del settings["fbank_mean"], settings["fbank_std"]
    change(path, cfg=settings)
    default = EncoderChoice(NAMES[0], str(path)).load().encode_audio(clip)["pooled"]
    np.testing.assert_array_equal(explicit, default)
    assert np.abs(own - default).max() > 1e-3


def test_a_fine_tuned_file_takes_what_it_leaves_open_from_the_config_beside_it(folder) -> None:
    path = folder(NAMES[1])
    choice = EncoderChoice(NAMES[1], str(path))
    default, before = choice.load(), choice.fingerprint()
    assert (default.model.fbank_mean, default.model.fbank_std) == (15.41663, 6.55582)
    (file,) = path.rglob("config.yaml")
    encoder = {"fbank_mean": 3.0, "fbank_std": 4.0, "beats_config": {**TINY, "fbank_std": 5.0}}
    file.write_text(json.dumps({"encoder_conf": encoder}))
    configured = choice.load()
    assert (configured.model.fbank_mean, configured.model.fbank_std) == (3.0, 5.0)
    assert choice.fingerprint() != before
    for content in ("- 3", "encoder_conf: [", "{}", "encoder_conf: {beats_config: 3}"):
        file.write_text(content)
        with pytest.raises(EncoderError, match=r"config\.yaml cannot be read as ESPnet's"):
            choice.load()


def test_a_fine_tuned_files_encoder_is_one_without_its_classifier(folder) -> None:
    path = folder(NAMES[1])
    clip = [noise(16_000)]
    with_logits = EncoderChoice(NAMES[1], str(path)).load().encode_audio(clip)
    without = EncoderChoice(NAMES[0], str(path)).load().encode_audio(clip)
    assert {*with_logits} == {"logits", "pooled"}
    assert {*without} == {"pooled"}
    np.testing.assert_array_equal(without["pooled"], with_logits["pooled"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cfg": {**SETTINGS, "encoder_embed_dim": 768}}, "768 dimensions; expected 1024"),
        ({"cfg": {}}, "None dimensions"),
        ({"cfg": 3}, "'cfg' and 'model' are no dictionaries"),
        ({"cfg": {**SETTINGS, **TINY, "encoder_attention_heads": 0}}, "no model can be made"),
        ({"cfg": {**SETTINGS, "encoder_layers": 10**6}}, "no model has more than 512"),
        ({"cfg": {**SETTINGS, **TINY, "fbank_std": "wide"}}, "no model can be made"),
        ({"cfg": {**SETTINGS, **TINY, "encoder_layers": 1}}, "not of this model"),
    ],
)
def test_another_checkpoint_is_told(folder, changes: dict, message: str) -> None:
    path = change(folder(NAMES[0]), **changes)
    with pytest.raises(EncoderError, match=rf"openbeats-large.*epoch_latest(?s:.*){message}"):
        EncoderChoice(NAMES[0], str(path)).load()


def test_an_encoder_alone_has_no_logits(folder, tmp_path: Path) -> None:
    (file,) = folder(NAMES[0]).rglob("*.pt")
    shutil.copy(file, tmp_path / "model.pth")
    with pytest.raises(EncoderError, match=r"missing: predictor\.weight"):
        EncoderChoice(NAMES[1], str(tmp_path / "model.pth")).load()
