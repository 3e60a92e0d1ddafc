import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import laion_reference
import numpy as np
import pytest
from random_checkpoints import hub_snapshot, write_checkpoint
from random_checkpoints.laion_clap import (
    HTSAT_BASE,
    HTSAT_TINY,
    SMALL,
    SMALL_TEXT,
    draw_model,
    write_original,
)
from random_checkpoints.tokenizers import write_roberta

from xacle_stack._optional import stand_ins
from xacle_stack.audio import fixed_windows
from xacle_stack.encoders import Encoder, get_encoder
from xacle_stack.encoders.laion_clap import (
    LaionClapFused,
    LaionClapLargerGeneral,
    LaionClapUnfused,
)
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

RATE = 48_000
NAMES = {False: "laion-clap-unfused", True: "laion-clap-fused"}
CAPTIONS = ["a dog barks", "Rain! Heavy rain on a tin roof, " * 5, "雨の音", "x"]


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    swell = np.linspace(0.01, 0.3, n_samples)
    return (swell * rng.normal(size=n_samples)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Return a folder in transformers' format, by whether it is of a fused model."""
    root = tmp_path_factory.mktemp("hub")
    return {fused: write_checkpoint(root, name, full=False) for fused, name in NAMES.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Return LAION's kind of file, of the same weights as the folder."""
    found = {}
    for is_fused, name in NAMES.items():
        found[is_fused] = tmp_path_factory.mktemp("original") / f"{name}.pt"
        with stand_ins(["torchaudio", "torchvision"]):
            model = draw_model(SMALL, SMALL_TEXT, is_fused=is_fused, seed=int(is_fused))
        write_original(found[is_fused], model)
    return found


@pytest.fixture(scope="module")
def encoders(folders: dict[bool, Path]) -> dict[bool, Encoder]:
    return {fused: get_encoder(NAMES[fused]).load(str(path)) for fused, path in folders.items()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """Return a folder with LAION's kind of files of a size, and what laion_clap makes of them."""
    if importlib.util.find_spec("laion_clap") is None:
        pytest.skip("laion_clap, the reference, is not installed")
    folder = tmp_path_factory.mktemp("reference")
    try:
        write_reference(folder, request.param)
        yield folder
    finally:
        shutil.rmtree(folder)  # hundreds of megabytes, which pytest would keep


def write_reference(folder: Path, size: str) -> None:
    sizes = {"tiny": HTSAT_TINY, "base": HTSAT_BASE}[size]
    with stand_ins(["torchaudio", "torchvision"]), torch.random.fork_rng():
        laion_reference.write_home(folder)
        for name, is_fused in laion_reference.VARIANTS.items():
            model = draw_model(sizes, laion_reference.TEXT, is_fused=is_fused, seed=1)
            write_original(folder / f"{name}.pt", model)
    np.savez(folder / "clips.npz", *reference_clips())
    (folder / "captions.txt").write_text("\n".join(CAPTIONS), encoding="utf-8")
    settings = {
        "HF_HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(laion_reference.__file__).parent),
    }
    result = subprocess.run(
        [sys.executable, laion_reference.__file__, str(folder), size],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def reference_clips() -> list[np.ndarray]:
    return [noise(70_001), noise(480_000, 1), noise(480_100, 2), noise(640_123, 3)]


@pytest.mark.parametrize(
    "reference", ["tiny", pytest.param("base", marks=pytest.mark.slow)], indirect=True
)
@pytest.mark.parametrize("variant", list(laion_reference.VARIANTS))
def test_laions_own_files_give_laions_own_embeddings(reference: Path, variant: str) -> None:
    is_fused = laion_reference.VARIANTS[variant]
    expected = np.load(reference / f"{variant}.npz")
    encoder = get_encoder(NAMES[is_fused]).load(str(reference / f"{variant}.pt"))
    clips = [clip for clip in reference_clips() if is_fused or len(clip) <= 10 * RATE]
    found = encoder.encode_audio(clips)["embedding"]
    np.testing.assert_allclose(found, expected["audio"], atol=1e-5)
    assert np.linalg.norm(found[0] - found[1]) > 1e-2
    found = encoder.encode_text(CAPTIONS)["embedding"]
    np.testing.assert_allclose(found, expected["text"], atol=1e-5)
    assert np.linalg.norm(found[0] - found[1]) > 1e-2


def test_a_longer_clip_is_the_mean_of_its_windows(encoders) -> None:
    clip = noise(25 * RATE)
    windows = encoders[False].encode_audio(list(fixed_windows(clip, 10 * RATE)))["embedding"]
    found = encoders[False].encode_audio([noise(100), clip])["embedding"][1]
    mean = windows.mean(axis=0)
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("is_fused", [False, True], ids=["unfused", "fused"])
def test_a_file_and_a_folder_of_the_same_weights_agree(
    folders, files, encoders, tmp_path: Path, is_fused: bool
) -> None:
    clips = [noise(RATE), noise(12 * RATE, 1)]
    encoder = type(encoders[is_fused])
    from_file = encoder.load(str(files[is_fused]))
    expected = encoders[is_fused].encode_audio(clips)["embedding"]
    np.testing.assert_array_equal(from_file.encode_audio(clips)["embedding"], expected)
    # The folders on the hub have another constant in the text tower's norms than RoBERTa.
    shutil.copytree(folders[is_fused], tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["text_config"]["layer_norm_eps"] == 1e-12
    settings["text_config"]["layer_norm_eps"] = 1e-5
    (tmp_path / "config.json").write_text(json.dumps(settings))
    expected = encoder.load(str(tmp_path)).encode_text(CAPTIONS)["embedding"]
    np.testing.assert_array_equal(from_file.encode_text(CAPTIONS)["embedding"], expected)


def test_an_older_pickle_and_one_tokenizer_file_load_alike(
    folders, encoders, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    shutil.copytree(folders[False], tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    state = load_file(folders[False] / "model.safetensors")
    positions = torch.arange(512)[None]
    state["text_model.embeddings.position_ids"] = positions
    del state["text_model.embeddings.token_type_ids"]
    state = {key: value for key, value in state.items() if "relative_position_index" not in key}
    torch.save(state, tmp_path / "pytorch_model.bin")
    encoders[False].tokenizer.save_pretrained(tmp_path)
    (tmp_path / "merges.txt").unlink(missing_ok=True)
    (tmp_path / "vocab.json").unlink(missing_ok=True)
    again = LaionClapUnfused.load(str(tmp_path))
    for method, items in (("encode_audio", [noise(RATE)]), ("encode_text", CAPTIONS)):
        found, expected = (getattr(e, method)(items)["embedding"] for e in (again, encoders[False]))
        np.testing.assert_array_equal(found, expected)


def test_feature_fusion_decides_which_encoder_it_is(folders, files, tmp_path: Path) -> None:
    for paths in (folders, files):
        with pytest.raises(EncoderError, match="with feature fusion. .* laion-clap-fused="):
            LaionClapUnfused.load(str(paths[True]))
        with pytest.raises(EncoderError, match="with feature fusion. .* laion-clap-fused="):
            LaionClapLargerGeneral.load(str(paths[True]))
        with pytest.raises(EncoderError, match="without feature fusion. .* laion-clap-unfused="):
            LaionClapFused.load(str(paths[False]))
    content = torch.load(files[False], weights_only=False)
    content["state_dict"]["module.audio_branch.patch_embed.proj.weight"] = torch.zeros(128, 1, 4, 4)
    torch.save(content, tmp_path / "base.pt")
    write_roberta(tmp_path)
    with pytest.raises(EncoderError, match="without .* laion-clap-larger-general="):
        LaionClapFused.load(str(tmp_path / "base.pt"))


def test_a_bare_file_takes_the_tokenizer_of_the_hub(files, tmp_path: Path, monkeypatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    bare = tmp_path / "bare" / "630k-audioset-best.pt"
    bare.parent.mkdir()
    shutil.copy(files[False], bare)
    with pytest.raises(
        EncoderError, match=r"`hf download FacebookAI/roberta-base tokenizer\.json "
    ):
        LaionClapUnfused.load(str(bare))
    write_roberta(hub_snapshot(tmp_path, "FacebookAI/roberta-base"))
    assert LaionClapUnfused.load(str(bare)).encode_text(["a"])["embedding"].shape == (1, 512)
    before = LaionClapUnfused.fingerprint(str(bare))
    assert before == LaionClapUnfused.fingerprint(str(files[False]))
    write_roberta(bare.parent, 300)
    assert LaionClapUnfused.fingerprint(str(bare)) != before
    with pytest.raises(EncoderError, match="knows 300 tokens, the weights 261"):
        LaionClapUnfused.load(str(bare))


@pytest.mark.parametrize(
    ("file", "section", "setting", "message"),
    [
        ("preprocessor_config.json", None, ("hop_length", 320), "hop_length is 320, expected 480"),
        (
            "preprocessor_config.json",
            None,
            ("padding", "pad"),
            "padding .*'pad'.*'repeat",
        ),
        ("config.json", None, ("projection_dim", 256), "projection_dim is 256, expected 512"),
        ("config.json", "audio_config", ("spec_size", 128), "spec_size is 128, expected 256"),
    ],
)
def test_another_spectrogram_or_size_is_told(
    folders, tmp_path: Path, file: str, section: str | None, setting, message: str
) -> None:
    shutil.copytree(folders[False], tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / file).read_text())
    (settings if section is None else settings[section]).update([setting])
    (tmp_path / file).write_text(json.dumps(settings))
    with pytest.raises(EncoderError, match=message):
        LaionClapUnfused.load(str(tmp_path))
