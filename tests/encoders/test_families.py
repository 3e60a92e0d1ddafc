"""What every pretrained encoder keeps, run over tiny checkpoints in the real files' format."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_checkpoints import WRITERS, info_of, write_checkpoint
from support import WriteData

from xacle_stack.audio import read_clip
from xacle_stack.cache import FeatureCache
from xacle_stack.encoders import (
    Encoder,
    EncoderChoice,
    EncoderInfo,
    encoder_names,
    get_encoder,
)
from xacle_stack.errors import EncoderError, UnknownNameError
from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.extract import extract_embeddings
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import recipe_from
from xacle_stack.scorer import Scorer

pytest.importorskip("torch")
Choose = Callable[[str], EncoderChoice]
FAMILIES = sorted(WRITERS)
CAPTIONS = [
    "a dog barks",
    "Rain! Heavy rain on a tin roof, while a man speaks and a car passes",
    "sea",
]


def complete(choice: EncoderChoice) -> EncoderChoice:
    """Return the choice with all outputs on demand."""
    return replace(choice, outputs=tuple(choice.encoder.info.on_demand))


@pytest.fixture(scope="module")
def loaded(written: Choose) -> Callable[[str], Encoder]:
    """Return a function that gives a loaded encoder; each is loaded once."""
    encoders: dict[str, Encoder] = {}

    def get(name: str) -> Encoder:
        choice = written(name)
        if name not in encoders:
            encoders[name] = complete(choice).load()
        return encoders[name]

    return get


@pytest.fixture(scope="module")
def encoded(loaded) -> Callable[[str], dict[str, Any]]:
    """Return a function that gives what an encoder makes of the clips and the captions."""
    outputs: dict[str, dict[str, Any]] = {}

    def get(name: str) -> dict[str, Any]:
        encoder = loaded(name)
        if name not in outputs:
            outputs[name] = encode(encoder)
        return outputs[name]

    return get


def clips(encoder: Encoder) -> list[np.ndarray]:
    """Return clips of several lengths, two of them equal, as different as noise and tones.

    One is longer than the encoder's window.
    """
    rate = encoder.info.sample_rate_hz or 0
    if not rate:
        return []
    rng = np.random.default_rng(0)
    n_samples = round(1.2 * rate * (encoder.info.window_s or 4))
    time = np.arange(n_samples) / rate
    # Two tones would be one for a model that repeats short clips.
    tone = (0.3 * np.sin(2 * np.pi * (220 + 30 * time) * time)).astype(np.float32)
    noise = rng.normal(scale=0.1, size=2 * rate).astype(np.float32)
    return [tone[: 3 * rate // 2], noise[: 3 * rate // 2], tone, noise[: rate // 2 + 17]]


def encode(encoder: Encoder, items: list[Any] | None = None) -> dict[str, Any]:
    """Encode clips and captions, or the given items of one kind.

    For each sequence its mean stands, a vector.
    """
    found: dict[str, Any] = {}
    if items is None or not isinstance(items[0], str):
        audio = clips(encoder) if items is None else items
        if encoder.info.audio_outputs and audio:
            outputs = encoder.encode_audio(audio)
            found |= {f"audio {name}": values for name, values in outputs.items()}
    if encoder.info.text_outputs and (items is None or isinstance(items[0], str)):
        outputs = encoder.encode_text(CAPTIONS if items is None else items)
        found |= {f"text {name}": values for name, values in outputs.items()}
    for key, values in found.items():
        if key.partition(" ")[2] in encoder.info.sequences:
            assert isinstance(values, list)
            found[key] = np.stack([sequence.mean(axis=0) for sequence in values])
    return found


def assert_close(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_every_encoder_with_weights_is_tried_here() -> None:
    with_weights = {name for name in encoder_names() if get_encoder(name).info.weights}
    assert set(WRITERS) == {*with_weights, "text-tiny-deberta", "text-tiny-mpnet"}


@pytest.mark.parametrize("name", FAMILIES)
def test_alone_equals_together_in_any_order(loaded, encoded, name: str) -> None:
    encoder, together = loaded(name), encoded(name)
    for modality, items in (("audio", clips(encoder)), ("text", CAPTIONS)):
        if not encoder.info.outputs(modality):
            continue
        backwards = encode(encoder, items[::-1])
        for output in encoder.info.outputs(modality):
            key = f"{modality} {output}"
            alone = np.concatenate([encode(encoder, [item])[key] for item in items])
            assert_close(alone, together[key])
            assert_close(backwards[key][::-1], together[key])
            assert together[key].dtype == np.float32


@pytest.mark.parametrize("name", [n for n in FAMILIES if info_of(n).sequences])
def test_sequences_alone_equal_those_together(loaded, name: str) -> None:
    encoder = loaded(name)
    for modality, items, encode_side in (
        ("audio", clips(encoder), encoder.encode_audio),
        ("text", CAPTIONS, encoder.encode_text),
    ):
        outputs = encoder.info.outputs(modality)
        for output in outputs.keys() & encoder.info.sequences.keys():
            for item, sequence in zip(items, encode_side(items)[output], strict=True):
                (alone,) = encode_side([item])[output]
                assert alone.shape == sequence.shape == (len(sequence), outputs[output])
                assert_close(alone, sequence)


@pytest.mark.parametrize("name", [n for n in FAMILIES if info_of(n).views])
def test_views_alone_equal_those_together(loaded, name: str) -> None:
    encoder = loaded(name)
    views = [encode(encoder.with_view(view), clips(encoder)) for view in (0, 1, 2)]
    for key, values in views[1].items():
        backwards = encode(encoder.with_view(1), clips(encoder)[::-1])[key]
        alone = [encode(encoder.with_view(1), [clip])[key] for clip in clips(encoder)]
        assert_close(np.concatenate(alone), values)
        assert_close(backwards[::-1], values)
        for other in (views[0][key], views[2][key]):
            assert (np.abs(values - other).max(axis=1) > 1e-3 * np.abs(values).max()).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_bits_in_every_run_and_no_random_state_moved(encoded, written, name: str) -> None:
    import random

    import torch

    def seed_all() -> None:
        np.random.seed(1)  # noqa: NPY002 - the global state is what must not matter
        random.seed(1)
        torch.manual_seed(1)

    first = encoded(name)
    seed_all()
    again = complete(written(name)).load()
    for key, values in encode(again).items():
        np.testing.assert_array_equal(values, first[key])
    states = [np.random.random(), random.random(), torch.rand(1).item()]  # noqa: NPY002
    seed_all()
    assert states == [np.random.random(), random.random(), torch.rand(1).item()]  # noqa: NPY002


@pytest.mark.parametrize("name", FAMILIES)
def test_different_items_have_different_vectors(encoded, name: str) -> None:
    for values in encoded(name).values():
        distances = np.linalg.norm(values[:, None] - values[None], axis=-1)
        assert (distances[~np.eye(len(values), dtype=bool)] > 1e-3 * np.abs(values).max()).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_any_clip_and_caption_has_a_vector(loaded, name: str) -> None:
    encoder = loaded(name)
    rate = encoder.info.sample_rate_hz or 0
    rng = np.random.default_rng(1)
    odd_clips = [
        np.zeros(rate, dtype=np.float32),
        np.ones(1, dtype=np.float32),
        rng.normal(scale=0.1, size=100).astype(np.float32),
        rng.normal(scale=0.1, size=31 * rate).astype(np.float32),
        np.clip(rng.normal(size=rate), -1, 1).astype(np.float32),
    ]
    odd_captions = ["x", "a" * 3000, "rain " * 400, "雨の音", "!", "0", "  spaced  "]
    for modality, items in (("audio", odd_clips), ("text", odd_captions)):
        if encoder.info.outputs(modality):
            for values in encode(encoder, items).values():
                assert len(values) == len(items)
                assert np.isfinite(values).all()


# Without bfloat16 in the processor, convolutions are very slow in it.
CONVOLUTIONS = {"aisfx", "ms-clap-2022"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in CONVOLUTIONS else [])
        for name in FAMILIES
    ],
)
def test_a_lower_precision_is_near_and_has_its_own_store(encoded, written, name: str) -> None:
    choice = written(name)
    lower = replace(choice, precision="bfloat16")
    assert lower.fingerprint().digest != choice.fingerprint().digest
    encoder = complete(lower).load()
    # Of the clips, one that fits into a window.
    for modality, items in (("audio", clips(encoder)[:1]), ("text", CAPTIONS)):
        if not encoder.info.outputs(modality):
            continue
        for key, values in encode(encoder, items).items():
            if key.endswith("words"):  # the words of random weights change with any rounding
                continue
            exact = encoded(name)[key][: len(items)]
            products = (values * exact).sum(axis=1)
            lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(exact, axis=1)
            assert (products[lengths > 0] / lengths[lengths > 0] > 0.99).all()


def weights_file(choice: EncoderChoice, folder: Path) -> tuple[EncoderChoice, Path]:
    """Copy a checkpoint and return the choice of the copy and its file of weights."""
    path = choice.encoder.find_checkpoint(choice.checkpoint)
    assert path is not None
    # A single file may need what lies beside it, and its folder's name.
    source = path if path.is_dir() else path.parent
    copy = folder / source.name
    shutil.copytree(source, copy)
    target = copy if path.is_dir() else copy / path.name
    suffixes = {".safetensors", ".bin", ".pt", ".pth"}
    file = next(f for f in sorted(copy.rglob("*")) if f.suffix in suffixes)
    code = None if choice.code is None else choice.code.replace(str(source), str(copy))
    return replace(choice, checkpoint=str(target), code=code), file if path.is_dir() else target


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the tensors of a file of weights in place, wherever in it they stand."""
    import torch
    from safetensors.torch import load_file, save_file

    if file.suffix == ".safetensors":
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
        return
    content = torch.load(file, weights_only=False)
    if isinstance(content, tuple):
        nested = content[0]
    else:
        nested = next((content[key] for key in ("model", "state_dict") if key in content), content)
    change(nested)
    torch.save(content, file)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_and_a_surplus_tensor_are_named(written, tmp_path: Path, name: str) -> None:
    choice, file = weights_file(written(name), tmp_path)
    choice.load()
    removed = []

    def rename_a_weight(tensors: dict[str, Any]) -> None:
        n_axes = {key: getattr(value, "ndim", 0) for key, value in tensors.items()}
        matrices = [key for n in (2, 4) for key in n_axes if n_axes[key] == n]
        weights = [key for key in matrices if tensors[key].is_floating_point()]
        key = next(key for key in weights if not re.search(r"decoder|lm_head|^fc\.", key))
        removed.append(key.rpartition(".")[2])
        tensors[f"{key}_renamed"] = tensors.pop(key)

    rewrite(file, rename_a_weight)
    with pytest.raises(EncoderError, match=rf"(?s){name}.*missing: .*{removed}"):
        choice.load()


@pytest.mark.parametrize("name", FAMILIES)
def test_damaged_weights_are_named(written, tmp_path: Path, name: str) -> None:
    choice, file = weights_file(written(name), tmp_path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(EncoderError, match=rf"{name}.*{file.name} .*cannot be read"):
        choice.load()


class Payload:
    """What a stranger's pickle could hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code was run",)


@pytest.mark.parametrize("name", FAMILIES)
def test_code_in_a_file_is_never_run(written, tmp_path: Path, capsys, name: str) -> None:
    import torch

    choice, file = weights_file(written(name), tmp_path)
    if file.suffix == ".safetensors":
        bin_file = file.with_name("pytorch_model.bin")
        file.unlink()
        file = bin_file
    torch.save({"model": Payload(), "state_dict": Payload()}, file)
    with pytest.raises(EncoderError, match=name):
        choice.load()
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_of_another_model_is_refused(written, name: str) -> None:
    choice = written(name)
    for other in ("whisper-base", "beats"):
        if other == name or not info_of(other).is_installed:
            continue
        foreign = replace(choice, checkpoint=written(other).checkpoint)
        with pytest.raises(EncoderError, match=name):
            foreign.load()


def auxiliary_names(info: EncoderInfo) -> list[str]:
    outputs = {**info.audio_outputs, **info.text_outputs}
    return [output for output in outputs if output not in info.sequences]


def test_a_recipe_of_all_families_runs(written, make_data: WriteData, tmp_path: Path) -> None:
    choices = [written(name) for name in FAMILIES if info_of(name).is_installed]
    contrastive = [c for c in choices if c.encoder.info.is_contrastive]
    others = [
        c for c in choices if not c.encoder.info.is_contrastive and auxiliary_names(c.encoder.info)
    ]
    settings = {
        "name": "all",
        "spaces": [choice.name for choice in contrastive],
        "auxiliary": [f"{c.name}:{out}" for c in others for out in auxiliary_names(c.encoder.info)],
        "checkpoints": {choice.name: choice.checkpoint for choice in contrastive + others},
        "code": {choice.name: choice.code for choice in contrastive + others if choice.code},
        "subset_sizes": [],
        "stacker": {"preset": "paper"},
    }
    recipe = recipe_from(settings, source="a test")
    data = make_data(train=15, validation=6)
    wav = data / "wav"
    for path in sorted(wav.rglob("*.wav"))[3:]:  # three recordings under many names
        shutil.copy(wav / "train" / f"0000{int(path.stem) % 3}.wav", path)
    store, out = tmp_path / "store", tmp_path / "out"
    report = fill_cache(data, recipe, store, n_jobs=2)
    assert not report.failures
    assert {name for name, _ in report.encoded} == {
        choice.info.name for choice in contrastive + others
    }
    *_, results = run_experiment(data, recipe, recipe.stack_systems, store, out)
    assert [result.split for result in results] == ["validation"]
    again = fill_cache(data, recipe, store)
    assert again.encoded.total() == 0
    cached = FeatureCache(store).load(read_pairs(data, "train"), recipe.fingerprints())
    assert cached.audio("beats", "logits").shape == (15, 527)
    with pytest.raises(UnknownNameError, match="'tokens'"):
        cached.audio_sequences("beats", "tokens")


def test_what_the_baseline_needs_is_cached(written, make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=12), "train")
    choices = [written(name) for name in ("byol-a", "roberta-large")]
    report = extract_embeddings([pairs], choices, tmp_path / "store")
    assert report.encoded["byol-a", "audio"] == 12
    cached = FeatureCache(tmp_path / "store").load(pairs)
    assert cached.text("roberta-large").shape == (12, 1024)
    frames = cached.audio_sequences("byol-a")
    assert frames.lengths.tolist() == [5] * 12  # 0.2 s
    encoder = choices[0].load()
    clips = [read_clip(path).mono(16_000) for path in pairs.audio]
    for found, sequence in zip(frames[:], encoder.encode_audio(clips)["frames"], strict=True):
        np.testing.assert_allclose(found, sequence, rtol=2e-3, atol=1e-4)
    assert not extract_embeddings([pairs], choices, tmp_path / "store").encoded


def test_beats_and_roberta_attend_to_each_other(
    written, make_data: WriteData, tmp_path: Path
) -> None:
    choices = [written(name) for name in ("beats", "roberta-large")]
    if not all(choice.encoder.info.is_installed for choice in choices):
        pytest.skip("beats or roberta-large needs packages that are not installed")
    settings = {
        "name": "attention",
        "spaces": ["mini-mel"],
        "systems": {"attention": {"kind": "cross-attention", "width": 16, "epochs": 1, "seeds": 1}},
        "checkpoints": {choice.name: choice.checkpoint for choice in choices},
    }
    recipe, store = recipe_from(settings, source="a test"), tmp_path / "store"
    data = make_data(train=24, validation=12)
    fill_cache(data, recipe, store)
    *_, results = run_experiment(data, recipe, recipe.compared_systems, store, tmp_path / "out")
    assert [(result.system, result.kind) for result in results] == [
        ("attention", "cross-attention")
    ]
    pairs = read_pairs(data, "validation")
    cached = FeatureCache(store).load(pairs, recipe.fingerprints())
    tokens = cached.text_sequences("roberta-large")
    assert (tokens.n_dims, tokens.dtype) == (1024, np.float16)
    assert cached.audio_sequences("beats", "tokens").lengths.tolist() == [100] * 12
    scorer = Scorer.load(tmp_path / "out" / "models" / "attention.skops", recipe, store=store)
    np.testing.assert_allclose(
        scorer.score_clips(pairs.audio[:3], pairs.captions[:3]), scorer.score(pairs)[:3], rtol=1e-4
    )


def test_checkpoints_are_found_in_the_hubs_cache_by_default(tmp_path: Path, monkeypatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if not get_encoder("wavlm-large").info.is_installed:
        pytest.skip("wavlm-large needs packages that are not installed")
    path = write_checkpoint(tmp_path, "wavlm-large", full=False)
    choice = EncoderChoice("wavlm-large")
    assert choice.encoder.find_checkpoint(None) == path
    assert choice.fingerprint() == replace(choice, checkpoint=str(path)).fingerprint()
