import json
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import qwen2
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from xacle_stack.errors import EncoderError, FeatureError, ModelFileError, StackingError
from xacle_stack.features import CaptionedSequences
from xacle_stack.metrics import srcc
from xacle_stack.model_file import load_model, save_model
from xacle_stack.systems import AudioCaptioner, AudioLanguageModelRegressor
from xacle_stack.systems.audio_language_network import (
    audio_language_network,
    projection,
    score_head,
)
from xacle_stack.systems.language_model import LanguageModel, read_language_model
from xacle_stack.systems.losses import listnet_top1
from xacle_stack.table import FeatureTable

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

WORDS = ["a", "and", "dog", "cat", "bell", "rain", "barks", "rings", "falls", "meows", "loudly"]
SOUNDS = {"dog": "a dog barks", "cat": "a cat meows", "bell": "a bell rings", "rain": "rain falls"}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory) -> Path:
    return qwen2.write(tmp_path_factory.mktemp("language") / "tiny", WORDS)


QUICK = AudioLanguageModelRegressor(
    "see `quick`",
    n_audio_tokens=3,
    max_tokens=12,
    learning_rate=2e-3,
    epochs=3,
    batch_size=16,
    precision="float32",
    device="cpu",
    random_state=0,
)


@pytest.fixture
def quick(language_folder: Path) -> AudioLanguageModelRegressor:
    return clone(QUICK).set_params(language_model=str(language_folder))


def captioner(language_folder: Path, **settings: object) -> AudioCaptioner:
    shared = {"n_audio_tokens": 3, "max_tokens": 12, "precision": "float32", "device": "cpu"}
    given = {"learning_rate": 3e-3, "epochs": 12, "batch_size": 16, "random_state": 0, **settings}
    return AudioCaptioner(str(language_folder), **shared, **given)


def clips_of(sounds: list[str], rng) -> list[np.ndarray]:
    """Return sequences of 4 to 7 vectors that stand for sounds, with noise."""
    kinds = np.random.default_rng(7).normal(size=(len(SOUNDS), 6))
    of_sound = dict(zip(SOUNDS, kinds, strict=True))
    return [
        (of_sound[sound] + rng.normal(scale=0.3, size=(rng.integers(4, 8), 6))).astype(np.float16)
        for sound in sounds
    ]


def rated(n_pairs: int, rng) -> tuple[CaptionedSequences, np.ndarray]:
    """Return pairs whose score is high where the caption is that of the sound."""
    sounds = rng.choice(list(SOUNDS), size=n_pairs)
    named = [sound if rng.uniform() < 0.5 else rng.choice(list(SOUNDS)) for sound in sounds]
    scores = np.where(sounds == np.array(named), 8.0, 2.0) + rng.normal(scale=0.5, size=n_pairs)
    return CaptionedSequences(clips_of(list(sounds), rng), [SOUNDS[s] for s in named]), scores


def matched(n_pairs: int, rng) -> CaptionedSequences:
    sounds = [str(sound) for sound in rng.choice(list(SOUNDS), size=n_pairs)]
    return CaptionedSequences(clips_of(sounds, rng), [SOUNDS[sound] for sound in sounds])


def test_scikit_learn_checks(quick) -> None:
    check_estimator(
        quick.set_params(n_audio_tokens=1, epochs=4, head="linear", learning_rate=0.02),
        on_skip=None,
        expected_failed_checks={
            "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is drawn once, and "
            "not in two batches",
            "check_methods_subset_invariance": "float32 products of other shapes differ by about "
            "1e-6, as tested below",
        },
    )


def test_the_projection_is_its_formula(rng) -> None:
    network = projection(6, 8, dropout=0.1).eval()
    x = torch.from_numpy(rng.normal(size=(2, 5, 6)).astype(np.float32))
    linear = torch.nn.functional.linear
    state = network.state_dict()
    with torch.no_grad():
        normed = (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, correction=0) + 1e-5
        ).sqrt()
        both = linear(normed, state["value_and_gate.weight"], state["value_and_gate.bias"])
        value, gate = both[..., :32], both[..., 32:]
        hidden = value * gate / (1 + torch.exp(-gate))
        hidden = linear(hidden, state["output.weight"], state["output.bias"])
        share = linear(normed, state["gate.weight"], state["gate.bias"]).sigmoid()
        residual = linear(normed, state["residual.weight"], state["residual.bias"])
        expected = share * residual + (1 - share) * hidden
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


def test_the_published_sizes() -> None:
    def count(network) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert count(projection(768, 896, 0.1)) == 10_103_936
    assert count(score_head(896, "mlp", 0.1)) == 787_713
    assert count(score_head(896, "linear", 0.1)) == 897


def test_the_head_is_drawn_as_published() -> None:
    network = score_head(896, "mlp", 0.1)
    kinds = [type(layer).__name__ for layer in network]
    assert kinds == ["Linear", "ReLU", "Dropout"] * 3 + ["Linear"]
    for layer in network[::3]:
        bound = (6 / sum(layer.weight.shape)) ** 0.5  # Xavier, uniform
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_the_sequence_is_the_caption_then_the_clip_then_the_score(language_folder: Path) -> None:
    """What the network computes is a language model's own output on the row of vectors."""
    language, _ = read_language_model(str(language_folder))
    network = audio_language_network(language, 6, dropout=0.1, head="mlp").eval()
    audio = torch.randn(1, 3, 6)
    tokens = torch.tensor([language.tokens("a dog barks")])
    with torch.no_grad():
        words = network.language_model.get_input_embeddings()(tokens)[0]
        start, end, score = network.special.weight
        row = [*words, start, *network.projection(audio)[0], end, score]
        hidden = network.language_model.model(inputs_embeds=torch.stack(row)[None])
        expected = network.head(hidden.last_hidden_state[0, -1])
        found = network(audio, tokens, torch.ones_like(tokens))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_loss_of_a_caption_is_that_of_its_next_tokens(language_folder: Path) -> None:
    language, _ = read_language_model(str(language_folder))
    network = audio_language_network(language, 6, dropout=0.1, head=None).eval()
    audio = torch.randn(2, 3, 6)
    end = language.end_token
    tokens = torch.tensor(
        [[*language.tokens("rain falls"), end], [*language.tokens("cat"), end, 0]]
    )
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with torch.no_grad():
        found = network(audio, tokens, mask)
        for row, length in enumerate((3, 2)):
            vectors = network.language_model.get_input_embeddings()(tokens[row, : length - 1])
            start, end, _ = network.special.weight
            sequence = torch.stack([start, *network.projection(audio[row]), end, *vectors])
            logits = network.language_model(inputs_embeds=sequence[None]).logits[0, 4:]
            expected = torch.nn.functional.cross_entropy(logits, tokens[row, :length])
            assert float(found[row]) == pytest.approx(float(expected), abs=1e-5)


def test_a_pair_alone_is_the_pair_among_longer_captions(quick, rng) -> None:
    X, y = rated(40, rng)
    model = quick.set_params(epochs=1).fit(X, y)
    captions = ["rain", "a dog barks and a cat meows loudly", *X.captions[2:]]
    X = CaptionedSequences(X.frames, captions)
    alone = [model.predict(X[row : row + 1])[0] for row in range(8)]
    np.testing.assert_allclose(alone, model.predict(X)[:8], atol=1e-5)


def test_listnet_is_its_formula(rng) -> None:
    predicted, target = rng.normal(size=(2, 12))
    q, p = (np.exp(each) / np.exp(each).sum() for each in (target, predicted))
    found = listnet_top1(*map(torch.from_numpy, (predicted, target, np.ones(12))))
    assert float(found) == pytest.approx(-(q * np.log(p)).sum())


@pytest.mark.parametrize(
    ("loss", "tuning"),
    [("listnet", "full"), ("mse", "full"), ("pairwise", "lora")],
)
def test_it_learns(quick, rng, loss: str, tuning: str) -> None:
    if tuning == "lora":
        pytest.importorskip("peft")
    model = quick.set_params(loss=loss, tuning=tuning, epochs=14, learning_rate=4e-3)
    model.fit(*rated(240, rng))
    X, y = rated(150, rng)
    scores = model.predict(X)
    assert srcc(y, scores) > 0.6
    assert np.square(scores - y).mean() < y.var()  # on the scale of the scores


def test_what_is_frozen_stays(quick, rng, language_folder: Path) -> None:
    from safetensors.numpy import load_file

    before = load_file(language_folder / "model.safetensors")
    X, y = rated(40, rng)
    frozen = clone(quick).set_params(tuning="frozen").fit(X, y)
    for name, array in before.items():
        np.testing.assert_array_equal(frozen.weights_[f"language_model.{name}"], array)
    full = clone(quick).fit(X, y)
    changed = [
        name for name, x in before.items() if (full.weights_[f"language_model.{name}"] != x).any()
    ]
    assert len(changed) == len(before)
    n_all = sum(array.size for array in full.weights_.values())
    assert full.n_parameters_ == n_all
    assert frozen.n_parameters_ == n_all - sum(array.size for array in before.values())


def test_adapters_are_added_to_the_weights(quick, rng) -> None:
    pytest.importorskip("peft")
    X, y = rated(40, rng)
    model = quick.set_params(tuning="lora", lora_rank=2).fit(X, y)
    assert not any("lora" in name for name in model.weights_)
    full = clone(model).set_params(tuning="full").fit(X, y)
    assert model.weights_.keys() == full.weights_.keys()
    assert model.n_parameters_ < full.n_parameters_


def test_gradient_checkpointing_and_micro_batches_change_nothing(quick, rng) -> None:
    X, y = rated(40, rng)
    whole = clone(quick).set_params(epochs=1).fit(X, y).predict(X)
    for settings in ({"gradient_checkpointing": True}, {"micro_batch": 5}):
        other = clone(quick).set_params(epochs=1, **settings).fit(X, y)
        np.testing.assert_allclose(other.predict(X), whole, atol=2e-3)


def test_views_are_drawn_in_training_only(quick, rng) -> None:
    X, y = rated(40, rng)
    viewed = CaptionedSequences(X.frames, X.captions, [X.frames, X.frames])
    strange = CaptionedSequences(X.frames, X.captions, [X.frames.take(np.arange(40)[::-1])])
    plain = clone(quick).fit(X, y)
    assert (clone(quick).fit(strange, y).predict(X) != plain.predict(X)).any()
    np.testing.assert_array_equal(plain.predict(viewed), plain.predict(X))


def test_the_captioner_learns_and_begins_the_next_stage(
    language_folder: Path, quick, rng, tmp_path: Path
) -> None:
    from safetensors.numpy import save_file

    model = captioner(language_folder).fit(matched(160, rng))
    assert model.validation_loss_[-1] < 0.3 * np.log(len(WORDS))
    assert model.best_epoch_ == 1 + model.validation_loss_.argmin()
    new = matched(40, rng)
    assert np.mean(np.array(model.predict(new)) == np.array(new.captions)) > 0.9
    assert model.write(new, n_beams=3) == model.predict(new)
    assert model.losses(new).mean() < 0.5
    assert all(len(text.split()) <= 2 for text in model.write(new, max_new_tokens=2))
    file = tmp_path / "stage-1.safetensors"
    save_file(dict(model.weights_), file)
    X, y = rated(60, rng)
    other = clone(quick).set_params(initial=str(file), epochs=1, learning_rate=1e-9).fit(X, y)
    for name, array in model.weights_.items():
        if "lm_head" not in name:
            np.testing.assert_allclose(other.weights_[name], array, atol=1e-6)
    second = tmp_path / "stage-2.safetensors"
    save_file(dict(other.weights_), second)
    third = clone(quick).set_params(initial=str(second), epochs=1, learning_rate=1e-9).fit(X, y)
    np.testing.assert_allclose(third.predict(X), other.predict(X), atol=1e-2)
    save_file({"something": np.zeros(3)}, file)
    with pytest.raises(EncoderError, match=r"stage-1\.safetensors is not a checkpoint of this"):
        other.fit(X, y)


def test_it_is_saved_loaded_and_reproducible(quick, rng, tmp_path: Path, language_folder) -> None:
    X, y = rated(40, rng)
    model, again = clone(quick).fit(X, y), clone(quick).fit(X, y)
    np.testing.assert_array_equal(model.predict(X), again.predict(X))
    path = save_model(tmp_path / "alm.skops", model)
    np.testing.assert_array_equal(load_model(path).predict(X), model.predict(X))
    path = save_model(tmp_path / "captions.skops", captioner(language_folder, epochs=1).fit(X))
    assert load_model(path).predict(X) == captioner(language_folder, epochs=1).fit(X).predict(X)


def test_a_file_cannot_ask_for_much_memory(quick, rng) -> None:
    """GPT-J computes the angles of all positions, whose memory no weights account for."""
    model = quick.set_params(epochs=1).fit(*rated(30, rng))
    settings = {"n_embd": 32, "n_layer": 1, "n_head": 2, "rotary_dim": 4, "vocab_size": 17}
    settings |= {"model_type": "gptj", "n_positions": 2**28}
    model.language_ = {**model.language_, "settings": json.dumps(settings)}
    with torch.device("meta"):
        state = model._build().state_dict()
    model.weights_ = {name: np.zeros(x.shape, np.float32) for name, x in state.items()}
    with pytest.raises(ModelFileError, match=r"compute \d{10} numbers in advance"):
        model.predict(rated(5, rng)[0])


class Killed(BaseException):
    pass


def test_a_fit_goes_on_where_it_was_killed(quick, rng, tmp_path: Path, monkeypatch) -> None:
    X, y = rated(60, rng)
    undisturbed = clone(quick).fit(X, y)
    kept = clone(quick).set_params(checkpoints=tmp_path, checkpoint_minutes=1e-9)
    calls = []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 7:
            raise Killed
        return listnet_top1(*arguments)

    loss = "xacle_stack.systems.audio_language_model.LOSSES"
    with monkeypatch.context() as patched:
        patched.setattr(loss, {"listnet": dying})
        with pytest.raises(Killed):
            kept.fit(X, y)
    assert len(list(tmp_path.iterdir())) == 1
    resumed = clone(kept).fit(X, y)
    np.testing.assert_array_equal(resumed.predict(X), undisturbed.predict(X))
    for other in (X[:-1], CaptionedSequences(X.frames, [*X.captions[:-1], "rain"])):
        clone(kept).fit(other, y[: len(other)])  # has a state of its own
    clone(kept).set_params(learning_rate=1e-3).fit(X, y)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_caption_that_is_too_long_is_named(quick, rng) -> None:
    X, y = rated(40, rng)
    long = CaptionedSequences(X.frames, ["a dog " * 7, *X.captions[1:]])
    with pytest.raises(
        StackingError, match=r"1 caption.*max_tokens=12 tokens.*\n.*14 tokens: 'a d"
    ):
        quick.fit(long, y)
    model = clone(quick).set_params(epochs=1).fit(X, y)
    with pytest.raises(StackingError, match="max_tokens=12"):
        model.predict(long)


def test_other_bad_input(quick, rng) -> None:
    X, y = rated(40, rng)
    with pytest.raises(FeatureError, match="40 sequences and 39 captions"):
        CaptionedSequences(X.frames, X.captions[1:])
    with pytest.raises(FeatureError, match=r"view 1: 39 sequences of 6 .* 40 of 6"):
        CaptionedSequences(X.frames, X.captions, [X.frames.take(slice(39))])
    with pytest.raises(StackingError, match="FeatureTable.*CaptionedSequences"):
        quick.fit(FeatureTable(np.zeros((4, 2)), {"a": slice(0, 2)}, list("abcd")), np.arange(4.0))
    model = clone(quick).set_params(epochs=1).fit(X, y)
    with pytest.raises(StackingError, match="vectors of 5 dimensions, 6 when fitted"):
        model.predict(CaptionedSequences([np.zeros((2, 5))], ["rain"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "huber"}, r"loss .*\['listnet'|loss .*huber"),
        ({"head": "none"}, "head .*none"),
        ({"tuning": "some"}, r"tuning .*\['full', 'frozen', 'lora'\].*some"),
        ({"n_audio_tokens": 0}, r"n_audio_tokens .*got 0\b"),
        ({"max_tokens": 2.5}, r"max_tokens .*got 2.5"),
        ({"micro_batch": 0}, r"micro_batch .*got 0\b"),
        ({"max_gradient": -1}, "max_gradient .*got -1"),
        ({"checkpoint_minutes": 0}, r"checkpoint_minutes .*got 0\b"),
        ({"gradient_checkpointing": 1}, r"gradient_checkpointing .*got 1\b"),
        ({"language_model": ""}, "language_model .*got ''"),
        ({"initial": 3}, "initial .*got 3"),
        ({"n_audio_tokens": 600}, r"615 tokens.* room for 512"),
    ],
)
def test_settings_are_checked(quick, rng, settings, message: str) -> None:
    with pytest.raises(StackingError, match=message):
        quick.set_params(**settings).fit(*rated(30, rng))


def broken(language_folder: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in language_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_a_language_model_that_is_incomplete_is_told(
    language_folder: Path, quick, rng, tmp_path: Path
) -> None:
    def fails(folder: Path, message: str) -> None:
        with pytest.raises(EncoderError, match=message):
            clone(quick).set_params(language_model=str(folder)).fit(*rated(30, rng))

    folder = broken(language_folder, tmp_path / "one")
    (folder / "tokenizer.json").unlink()
    fails(folder, r"one is incomplete: there is no tokenizer\.json")
    folder = broken(language_folder, tmp_path / "two")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    fails(folder, r"there is no model\.safetensors.*pytorch_model\.bin is a pickle.*safe_serial")
    folder = broken(language_folder, tmp_path / "three")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 3}))
    fails(folder, r"(?s)12 of its tensors are missing.*layers\.2")
    (folder / "config.json").write_text(json.dumps({**settings, "vocab_size": 9}))
    fails(folder, r"three: .* 9 token embeddings.* 13 different tokens.*resize_token_embeddings")
    (folder / "config.json").write_text(json.dumps({**settings, "model_type": "unheard"}))
    fails(folder, r"config\.json is none that this version of transformers knows.*unheard")
    (folder / "config.json").write_text(json.dumps({**settings, "eos_token_id": None}))
    fails(folder, r"eos_token_id.*which token ends a text")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": qwen2.END}))
    assert read_language_model(str(folder))[0].end_token == settings["eos_token_id"]
    (folder / "tokenizer.json").write_text("{}")
    fails(folder, r"which token ends a text|tokenizer\.json cannot be read")
    fails(tmp_path / "nowhere", "nowhere': no folder of that name.*Qwen/Qwen2.5")
    folder = broken(language_folder, tmp_path / "four")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    fails(folder, r"model\.safetensors .* cannot be read as weights")


def test_code_in_a_configuration_is_not_run(language_folder: Path) -> None:
    language, _ = read_language_model(str(language_folder))
    settings = {**json.loads(language.settings), "auto_map": {"AutoConfig": "evil.Evil"}}
    plain = LanguageModel(json.dumps(settings), language.tokenizer, language.end_token)
    assert not hasattr(plain._config, "auto_map")


def test_untied_and_sharded_weights_are_read(tmp_path: Path, quick, rng) -> None:
    from safetensors.numpy import load_file, save_file

    folder = qwen2.write(tmp_path / "untied", WORDS, tie_word_embeddings=False)
    state = load_file(folder / "model.safetensors")
    assert "lm_head.weight" in state
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = folder / f"model-0000{number}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, file)
    model = clone(quick).set_params(language_model=str(folder), learning_rate=1e-9, epochs=1)
    found = model.fit(*rated(30, rng)).weights_
    for name in names:
        if name != "lm_head.weight":
            np.testing.assert_allclose(found[f"language_model.{name}"], state[name], atol=1e-6)
    written = captioner(folder, epochs=1, learning_rate=1e-9).fit(matched(30, rng)).weights_
    np.testing.assert_allclose(
        written["language_model.lm_head.weight"], state["lm_head.weight"], atol=1e-6
    )
