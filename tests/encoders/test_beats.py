import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from random_checkpoints.beats import CONFIG, FILE, write
from torchaudio_kaldi import load_kaldi

from xacle_stack.audio import fixed_windows
from xacle_stack.encoders import beats
from xacle_stack.encoders.beats import Beats
from xacle_stack.encoders.kaldi import count_samples
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
# Looked for, not imported: that may need the stand-ins of the encoder's own loading.
if any(importlib.util.find_spec(package) is None for package in Beats.info.requires):
    pytest.skip(f"needs the extra {Beats.info.extra!r}", allow_module_level=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hub"), "beats", full=False, seed=0)


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return Beats.load(str(checkpoint))


def noise(n_samples, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=n_samples).astype(np.float32)


@pytest.mark.parametrize("n_frames", [16, 33, 120])
def test_it_is_speechbrains_own_forward(encoder, checkpoint, monkeypatch, n_frames):
    speechbrain = sys.modules["speechbrain.lobes.models.beats"]
    monkeypatch.setattr(speechbrain, "ta_kaldi", load_kaldi())
    reference = speechbrain.BEATs(ckp_path=str(checkpoint / FILE))
    clips = [noise(count_samples(n_frames), seed) for seed in range(2)]
    frames, probabilities, _ = reference(torch.from_numpy(np.stack(clips)), torch.ones(2))
    found = encoder.encode_audio(clips)
    np.testing.assert_allclose(found["pooled"], frames.mean(dim=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-found["logits"])), probabilities, atol=1e-6)


def test_logits_reach_where_probabilities_round(checkpoint, tmp_path):
    content = torch.load(checkpoint / FILE)
    content["model"]["predictor.bias"][:2] = torch.tensor([200.0, -200.0])
    torch.save(content, tmp_path / "sure.pt")
    logits = Beats.load(str(tmp_path / "sure.pt")).encode_audio([noise(4000)])["logits"][0]
    assert logits[0] > 150
    assert logits[1] < -150


def test_a_long_clip_is_the_mean_of_its_windows(encoder, monkeypatch):
    clip = noise(37_000)
    expected = encoder.encode_audio(list(fixed_windows(clip, 16_000)))
    monkeypatch.setattr(beats, "_LONGEST", 16_000)
    found = encoder.encode_audio([noise(500, seed=1), clip])
    for name in ("logits", "pooled"):
        np.testing.assert_allclose(
            found[name][1], expected[name].mean(axis=0), rtol=1e-4, atol=1e-5
        )


def test_long_clips_are_computed_in_smaller_parts(encoder, monkeypatch):
    clips = [noise(20_000, seed) for seed in range(4)]
    expected = encoder.encode_audio(clips)
    monkeypatch.setattr(beats, "_USUAL", 15_000)
    sizes = []
    monkeypatch.setattr(
        Beats,
        "_mean_token",
        lambda self, part, own=Beats._mean_token: sizes.append(len(part)) or own(self, part),
    )
    np.testing.assert_allclose(
        encoder.encode_audio(clips)["pooled"], expected["pooled"], rtol=1e-4, atol=1e-5
    )
    assert sizes == [2, 2]


def test_a_clip_of_less_than_a_patch_is_filled_with_zeros(encoder):
    clip = noise(1000)
    filled = np.pad(clip, (0, count_samples(16) - len(clip)))
    found = encoder.encode_audio([clip, filled])
    for vectors in found.values():
        np.testing.assert_array_equal(*vectors)


def save(path, checkpoint, **changes):
    content = {**torch.load(checkpoint / FILE), **changes}
    torch.save({name: value for name, value in content.items() if value is not None}, path)
    return str(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cfg": {**CONFIG, "finetuned_model": False}}, "pre-training only.* logits"),
        ({"cfg": {"encoder_layers": 12}}, "pre-training only"),
        ({"cfg": {**CONFIG, "predictor_class": 10}}, "10 classes and 768 dimensions; expected 527"),
        ({"cfg": None}, r"\['label_dict', 'model'\].*'cfg'"),
    ],
)
def test_another_checkpoint_says_which_one_is_needed(tmp_path, checkpoint, changes, message):
    path = save(tmp_path / "other.pt", checkpoint, **changes)
    with pytest.raises(EncoderError, match=rf"other\.pt .*{message}.*Get .*finetuned_on_AS2M_cpt2"):
        Beats.load(path)


def test_a_classifier_that_is_not_there_is_named(tmp_path, checkpoint):
    state = torch.load(checkpoint / FILE)["model"]
    path = save(tmp_path / "cut.pt", checkpoint, model={**state, "predictor.weight": torch.ones(3)})
    with pytest.raises(EncoderError, match=r"size:(?s:.*)predictor\.weight"):
        Beats.load(path)


def test_loading_it_leaves_the_process_as_it_was(checkpoint):
    program = f"""
import os, sys, torch
from xacle_stack.encoders.beats import Beats
Beats.load({str(checkpoint)!r})
assert "speechbrain" in sys.modules
assert not torch.backends.cuda.matmul.allow_tf32
assert torch.get_float32_matmul_precision() == "highest"
assert [name for name in os.environ if name.startswith("SB_")] == ["SB_LOG_LEVEL"]
assert os.environ["SB_LOG_LEVEL"] == "DEBUG"
for module in list(sys.modules.values()):
    if "speechbrain" in module.__name__:
        getattr(module, "__warningregistry__", None)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "SB_LOG_LEVEL": "DEBUG"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
