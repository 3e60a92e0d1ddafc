import importlib.util
import json
import shutil

import numpy as np
import pytest
from random_checkpoints.audiomae import write
from torchaudio_kaldi import load_kaldi

from xacle_stack._optional import stand_ins
from xacle_stack.audio import fixed_windows
from xacle_stack.encoders.audiomae import AudioMae
from xacle_stack.encoders.patches import N_SAMPLES
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
# Looked for, not imported: that may need the stand-ins of the encoder's own loading.
if any(importlib.util.find_spec(package) is None for package in AudioMae.info.requires):
    pytest.skip(f"needs the extra {AudioMae.info.extra!r}", allow_module_level=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hub"), "audiomae", full=False, seed=0)


@pytest.fixture(scope="module")
def state(checkpoint):
    return torch.load(checkpoint / "pytorch_model.bin")


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return AudioMae.load(str(checkpoint))


def noise(n_samples, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=n_samples).astype(np.float32) + 0.05


def reference(state, clip, **settings):
    """Return timm's model and its input as the checkpoint's authors prepare it."""
    with stand_ins(["torchaudio", "torchvision"]):
        import timm
    options = {"num_classes": 0, **settings}
    model = timm.create_model(
        "vit_base_patch16_224",
        img_size=(1024, 128),
        in_chans=1,
        depth=2,
        mlp_ratio=1 / 12,
        **options,
    )
    model.load_state_dict(state)
    samples = torch.from_numpy(clip)
    fbank = load_kaldi().fbank(
        (samples - samples.mean())[None], htk_compat=True, window_type="hanning", num_mel_bins=128
    )
    fbank = torch.nn.functional.pad(fbank, (0, 0, 0, 1024 - len(fbank)))
    return model.eval(), ((fbank + 4.2677393) / (2 * 4.5689974))[None, None]


def test_a_full_window_is_timms_average_pool(encoder, state):
    clip = noise(N_SAMPLES)
    model, spectrogram = reference(state, clip, global_pool="avg", fc_norm=False)
    with torch.inference_mode():
        expected = model(spectrogram)
    np.testing.assert_allclose(encoder.encode_audio([clip])["pooled"], expected, atol=1e-5)


@pytest.mark.parametrize(("n_samples", "n_times"), [(400, 1), (2800, 1), (2960, 2), (160_000, 63)])
def test_tokens_of_the_padding_are_not_pooled(encoder, state, n_samples, n_times):
    clip = noise(n_samples)
    model, spectrogram = reference(state, clip)
    with torch.inference_mode():
        tokens = model.forward_features(spectrogram)[0, 1:]
    # Patches run through the 8 frequency bands first.
    found = encoder.encode_audio([noise(9000, seed=1), clip])["pooled"][1]
    np.testing.assert_allclose(found, tokens[: 8 * n_times].mean(dim=0), atol=1e-5)


def test_a_fine_tuned_checkpoint_normalises_the_mean(state, tmp_path):
    draw = torch.Generator().manual_seed(1)
    tuned = {("fc_" + name if name.startswith("norm.") else name): t for name, t in state.items()}
    tuned["head.weight"] = torch.randn(527, 768, generator=draw)
    tuned["head.bias"] = torch.zeros(527)
    torch.save(tuned, tmp_path / "pytorch_model.bin")
    clip = noise(N_SAMPLES)
    model, spectrogram = reference(tuned, clip, num_classes=527, global_pool="avg")
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(spectrogram), pre_logits=True)
    found = AudioMae.load(str(tmp_path / "pytorch_model.bin")).encode_audio([clip])["pooled"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_long_clip_is_the_mean_of_its_windows(encoder):
    clip = noise(N_SAMPLES + 5000)
    windows = list(fixed_windows(clip, N_SAMPLES))
    expected = encoder.encode_audio(windows)["pooled"].mean(axis=0)
    np.testing.assert_allclose(encoder.encode_audio([clip])["pooled"][0], expected, atol=1e-4)


def test_a_constant_offset_does_not_matter(encoder):
    clip = noise(20_000)
    plain, shifted = encoder.encode_audio([clip, clip + np.float32(0.25)])["pooled"]
    np.testing.assert_allclose(plain, shifted, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": "resnet50"}, "'resnet50'.* timm"),
        ({"model_type": "clap"}, "'clap'"),
        ({}, "type None"),
        ("{", "JSON"),
    ],
)
def test_another_models_config_is_refused(checkpoint, tmp_path, config, message):
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text)
    with pytest.raises(EncoderError, match=rf"encoder 'audiomae': .*{message}"):
        AudioMae.load(str(folder))


def test_another_size_is_refused(state, tmp_path):
    state = {**state, "patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}
    torch.save(state, tmp_path / "three.bin")
    with pytest.raises(EncoderError, match=r"size:(?s:.*)patch_embed\.proj\.weight"):
        AudioMae.load(str(tmp_path / "three.bin"))
