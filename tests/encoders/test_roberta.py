import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints import write_checkpoint

from xacle_stack.encoders.roberta import RobertaLarge
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

CAPTIONS = [
    "A dog barks while heavy rain falls on a tin roof",
    "sea",
    "",
    "Café — 雨の音!",
    "a car passes and " * 300,  # far beyond 512 tokens
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hub"), "roberta-large", full=False)


@pytest.fixture(scope="module")
def encoder(folder: Path) -> RobertaLarge:
    return RobertaLarge.load(str(folder))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.filterwarnings("ignore")  # transformers' own, by version
def test_tokens_and_vectors_are_the_libraries_one_caption_at_a_time(
    folder: Path, encoder: RobertaLarge
) -> None:
    from transformers import RobertaModel, RobertaTokenizerFast

    tokenizer = RobertaTokenizerFast.from_pretrained(folder)
    model = RobertaModel.from_pretrained(folder).eval()
    found = encoder.with_outputs(["tokens"]).encode_text(CAPTIONS)
    assert found["embedding"].shape == (len(CAPTIONS), 1024)
    assert "tokens" not in encoder.encode_text(CAPTIONS[:1])
    n_tokens = []
    for caption, vector, sequence in zip(CAPTIONS, *found.values(), strict=True):
        tokens = tokenizer(caption, truncation=True, max_length=512, return_tensors="pt")
        with torch.inference_mode():
            theirs = model(**tokens).last_hidden_state[0].numpy()
        for ours, other in ((vector, theirs[0]), (sequence, theirs)):
            np.testing.assert_allclose(ours, other, rtol=1e-4, atol=2e-5 * np.abs(other).max())
        n_tokens.append(tokens["input_ids"].shape[1])
    assert min(n_tokens) == 2
    assert max(n_tokens) == 512


def test_of_a_long_caption_the_first_511_tokens_and_the_end_are_kept(
    encoder: RobertaLarge,
) -> None:
    words = "rain " * 600
    kept, other = encoder.encode_text([words, words[:-5] + "dogs"])["embedding"]
    np.testing.assert_array_equal(kept, other)
    early = encoder.encode_text(["dogs " + words])["embedding"][0]
    assert not np.allclose(early, kept, atol=1e-3)


def test_the_older_file_and_a_bare_model_load_alike(
    folder: Path, encoder: RobertaLarge, copy: Path
) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    assert {key.partition(".")[0] for key in state} == {"roberta", "lm_head"}
    (copy / "model.safetensors").unlink()
    old = {**state, "roberta.embeddings.position_ids": torch.arange(514)[None]}
    pooler = {
        "pooler.dense.weight": torch.zeros(1024, 1024),
        "pooler.dense.bias": torch.zeros(1024),
    }
    body = {k.removeprefix("roberta."): v for k, v in state.items() if k.startswith("roberta.")}
    for content in (old, {**body, **pooler}):
        torch.save(content, copy / "pytorch_model.bin")
        again = RobertaLarge.load(str(copy)).encode_text(CAPTIONS[:2])["embedding"]
        np.testing.assert_array_equal(again, encoder.encode_text(CAPTIONS[:2])["embedding"])


def test_another_size_and_another_tokenizer_are_told(copy: Path) -> None:
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "hidden_size": 768}))
    with pytest.raises(EncoderError, match="hidden_size is 768, expected 1024"):
        RobertaLarge.load(str(copy))
    (copy / "config.json").write_text(json.dumps({**settings, "vocab_size": 701}))
    with pytest.raises(EncoderError, match="word_embeddings"):
        RobertaLarge.load(str(copy))
    (copy / "config.json").write_text(json.dumps(settings))
    vocabulary = json.loads((copy / "vocab.json").read_text())
    vocabulary.pop(next(token for token in vocabulary if token.startswith("<6")))
    (copy / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(EncoderError, match="knows 699 tokens, the weights 700"):
        RobertaLarge.load(str(copy))
    (copy / "vocab.json").unlink()
    with pytest.raises(EncoderError, match=r"no tokenizer\.json or vocab\.json"):
        RobertaLarge.load(str(copy))


def test_it_has_no_ears(encoder: RobertaLarge) -> None:
    assert not encoder.info.is_contrastive
    with pytest.raises(EncoderError, match="'roberta-large'.* encode audio"):
        encoder.encode_audio([np.zeros(16_000, dtype=np.float32)])
