import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
from random_checkpoints.beats import CONFIG, FILE, write
from torchaudio_kaldi import load_kaldi

from xacle_stack.audio import fixed_windows
from xacle_stack.encoders import EncoderChoice, Fingerprint, beats
from xacle_stack.encoders.base import hash_path
from xacle_stack.encoders.batches import encode_batch
from xacle_stack.encoders.beats import Beats
from xacle_stack.encoders.kaldi import count_samples, kaldi_fbank
from xacle_stack.encoders.masks import hidden_parts
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


@pytest.mark.parametrize("n_frames", [16, 33, 120, 998])
def test_it_is_speechbrains_own_forward(encoder, checkpoint, monkeypatch, n_frames):
    speechbrain = sys.modules["speechbrain.lobes.models.beats"]
    monkeypatch.setattr(speechbrain, "ta_kaldi", load_kaldi())
    reference = speechbrain.BEATs(ckp_path=str(checkpoint / FILE))
    clips = [noise(count_samples(n_frames), seed) for seed in range(2)]
    frames, probabilities, _ = reference(torch.from_numpy(np.stack(clips)), torch.ones(2))
    found = encoder.encode_audio(clips)
    np.testing.assert_allclose(found["pooled"], frames.mean(dim=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-found["logits"])), probabilities, atol=1e-6)
    tokens = encoder.with_outputs(["tokens"]).encode_audio(clips)["tokens"]
    expected = torch.nn.functional.adaptive_avg_pool1d(frames.transpose(1, 2), 100)
    np.testing.assert_allclose(np.stack(tokens), expected.transpose(1, 2), rtol=1e-4, atol=1e-5)


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
        "_last_layer",
        lambda self, part, own=Beats._last_layer: sizes.append(len(part)) or own(self, part),
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


def test_tokens_follow_the_clip_in_time(encoder):
    start, quiet = noise(80_000), np.zeros(80_000, dtype=np.float32)
    tokens = encoder.with_outputs(["tokens"])
    loud, plain = tokens.encode_audio(
        [np.concatenate([start, noise(80_000, seed=1)]), np.concatenate([start, quiet])]
    )["tokens"]
    assert loud.shape == (100, 768)
    change = np.linalg.norm(loud - plain, axis=1)
    assert change[52:].min() > 1.2 * change[:48].max()


def test_tokens_of_windows_follow_one_another(encoder, monkeypatch):
    clip = noise(37_000)
    tokens = encoder.with_outputs(["tokens"])
    # As many vectors as there are tokens, so that nothing is averaged: 6 x 8 of a window.
    monkeypatch.setattr(beats, "N_TOKENS", 48)
    windows = tokens.encode_audio(list(fixed_windows(clip, 16_000)))["tokens"]
    monkeypatch.setattr(beats, "N_TOKENS", 144)
    monkeypatch.setattr(beats, "_LONGEST", 16_000)
    found = tokens.encode_audio([noise(500, seed=1), clip])["tokens"][1]
    np.testing.assert_allclose(found, np.concatenate(windows), rtol=1e-4, atol=1e-5)


def test_tokens_beyond_float16_are_told_and_others_are_kept(checkpoint, tmp_path):
    content = torch.load(checkpoint / FILE)
    content["model"]["encoder.layers.1.final_layer_norm.weight"] *= 1e6
    torch.save(content, tmp_path / "large.pt")
    plain = EncoderChoice("beats", str(tmp_path / "large.pt"))
    assert {*encode_batch(plain.load(), "audio", [noise(4000)])} == {"logits", "pooled"}
    tokens = replace(plain, outputs=("tokens",)).load()
    with pytest.raises(EncoderError, match="'tokens': frame 0 holds .*float16"):
        encode_batch(tokens, "audio", [noise(4000)])


def test_without_tokens_the_fingerprint_is_that_of_releases_before_them(checkpoint):
    plain = EncoderChoice("beats", str(checkpoint))
    facts = {
        "audio": "mean of channels, soxr HQ",
        "outputs": {"audio": {"logits": 527, "pooled": 768}, "text": {}},
        "checkpoint": hash_path(checkpoint, Beats.info.weights),
        "preprocessing": (
            "kaldi fbank 128 mels, povey, scale 2^15, (x - 15.41663) / (2 * 6.55582); zeros to "
            "16 frames; windows of 30 s; logits before the sigmoid, mean over tokens"
        ),
        "libraries": {"speechbrain": version("speechbrain")},
        "precision": "float32",
    }
    assert plain.fingerprint() == Fingerprint("beats", facts)
    tokens = replace(plain, outputs=("tokens",)).fingerprint().facts
    assert tokens["outputs"]["audio"] == {"logits": 527, "pooled": 768, "tokens": 768}
    assert tokens["sequences"] == {"tokens": "float16"}
    assert "average pooling to 100" in tokens["preprocessing"]


@pytest.mark.parametrize("n_samples", [16_000, 37_000])
def test_a_view_fills_parts_of_the_filter_bank_with_0(encoder, monkeypatch, n_samples):
    clip = noise(n_samples)
    monkeypatch.setattr(beats, "_LONGEST", 16_000)  # the longer clip has three windows
    tokens = encoder.with_outputs(["tokens"])
    plain, view = tokens.encode_audio([clip]), tokens.with_view(2).encode_audio([clip])

    def masked(samples):
        fbank = kaldi_fbank(samples)
        for level, window in zip(fbank, samples.numpy() / 2**15, strict=True):
            hidden = hidden_parts(window, 2, 128, fbank.shape[1], 15, 30)
            level[torch.from_numpy(hidden.T)] = 15.41663
        return fbank

    monkeypatch.setattr(beats, "kaldi_fbank", masked)
    for name, values in tokens.encode_audio([clip]).items():
        np.testing.assert_allclose(view[name][0], values[0], rtol=1e-4, atol=1e-5)
        assert np.abs(view[name][0] - plain[name][0]).max() > 1e-3


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
