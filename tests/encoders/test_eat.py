import importlib.util
import json
import os
import shutil

import numpy as np
import pytest
from random_checkpoints.eat import MODEL, write, write_code
from torchaudio_kaldi import load_kaldi

from xacle_stack.audio import fixed_windows
from xacle_stack.encoders import EncoderChoice
from xacle_stack.encoders.eat import Eat
from xacle_stack.encoders.patches import N_SAMPLES
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
# Looked for, not imported: that may need the stand-ins of the encoder's own loading.
if any(importlib.util.find_spec(package) is None for package in Eat.info.requires):
    pytest.skip(f"needs the extra {Eat.info.extra!r}", allow_module_level=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("hub"), "eat", full=False, seed=0)


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return Eat.load(str(checkpoint), code=checkpoint)


def noise(n_samples, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=n_samples).astype(np.float32) + 0.05


def read_tokens(encoder, clip):
    """Return the model's tokens for one window, prepared as its authors do."""
    samples = torch.from_numpy(clip)
    fbank = load_kaldi().fbank(
        (samples - samples.mean())[None], htk_compat=True, window_type="hanning", num_mel_bins=128
    )
    fbank = torch.nn.functional.pad(fbank, (0, 0, 0, 1024 - len(fbank)))
    with torch.inference_mode():
        return encoder.model.extract_features(((fbank + 4.268) / (2 * 4.569))[None, None])[
            0
        ].numpy()


@pytest.mark.parametrize(("n_samples", "n_times"), [(400, 1), (2960, 2), (160_000, 63)])
def test_statistics_are_those_of_the_patches_with_audio(encoder, n_samples, n_times):
    clip = noise(n_samples)
    tokens = read_tokens(encoder, clip)
    patches = tokens[1 : 1 + 8 * n_times]
    expected = [tokens[0], patches.mean(axis=0), patches.std(axis=0), patches.max(axis=0)]
    found = encoder.encode_audio([noise(9000, seed=1), clip])["pooled"][1]
    np.testing.assert_allclose(found, np.concatenate(expected), atol=2e-5)


def test_statistics_of_a_long_clip_are_those_of_all_its_windows(encoder):
    clip = noise(N_SAMPLES + 70_000) * np.linspace(0, 1, N_SAMPLES + 70_000, dtype=np.float32)
    tokens = [read_tokens(encoder, window) for window in fixed_windows(clip, N_SAMPLES)]
    cls_token = np.mean([window[0] for window in tokens], axis=0)
    patches = np.concatenate([window[1:] for window in tokens])
    expected = [cls_token, patches.mean(axis=0), patches.std(axis=0), patches.max(axis=0)]
    found = encoder.encode_audio([clip])["pooled"][0]
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-3)


def test_code_and_weights_may_lie_apart(encoder, checkpoint, tmp_path):
    write_code(tmp_path / "code")
    apart = EncoderChoice("eat", str(checkpoint), code=str(tmp_path / "code")).load()
    clip = noise(3000)
    np.testing.assert_array_equal(*(one.encode_audio([clip])["pooled"] for one in (apart, encoder)))


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_beside_the_code_is_not_waited_for(checkpoint, tmp_path):
    write_code(tmp_path)
    os.mkfifo(tmp_path / "other.py")
    Eat.load(str(checkpoint), code=tmp_path)


def test_changed_code_is_the_code_that_runs(encoder, checkpoint, tmp_path):
    write_code(tmp_path)
    (tmp_path / "eat_model.py").write_text(MODEL.replace("return x\n", "return 2 * x\n"))
    changed = Eat.load(str(checkpoint), code=tmp_path).encode_audio([noise(3000)])["pooled"]
    assert not np.allclose(changed, encoder.encode_audio([noise(3000)])["pooled"])


def test_without_consent_nothing_is_run(checkpoint):
    with pytest.raises(EncoderError, match=r"--code eat=FOLDER"):
        EncoderChoice("eat", str(checkpoint)).load()
    with pytest.raises(EncoderError, match=r"`code`, .*\.py files"):
        Eat.load(str(checkpoint))


def test_a_folder_without_the_code_says_what_is_missing(checkpoint, tmp_path):
    with pytest.raises(EncoderError, match=r"configuration_eat\.py\. .*\.py files"):
        Eat.load(str(checkpoint), code=tmp_path)


def test_code_that_fails_keeps_its_reason(checkpoint, tmp_path):
    write_code(tmp_path)
    (tmp_path / "eat_model.py").write_text("import no_such_package\n")
    with pytest.raises(EncoderError, match="ModuleNotFoundError: .*'no_such_package'"):
        Eat.load(str(checkpoint), code=tmp_path)


def test_code_of_another_size_is_noticed(checkpoint, tmp_path):
    write_code(tmp_path)
    (tmp_path / "eat_model.py").write_text(MODEL.replace("return x\n", "return x[:, 1:]\n"))
    other = Eat.load(str(checkpoint), code=tmp_path)
    with pytest.raises(EncoderError, match=r"tokens of shape \(1, 512, 768\); expected \(1, 513"):
        other.encode_audio([noise(3000)])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (json.dumps({"model_type": "clap"}), "'clap'.*'eat'"),
        ("[1]", "None.*'eat'"),
        ("{", "JSON"),
    ],
)
def test_another_models_config_is_refused(checkpoint, tmp_path, config, message):
    folder = shutil.copytree(checkpoint, tmp_path / "other")
    (folder / "config.json").write_text(config)
    with pytest.raises(EncoderError, match=rf"encoder 'eat': .*{message}"):
        Eat.load(str(folder), code=folder)
