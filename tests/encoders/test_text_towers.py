import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from random_checkpoints.tokenizers import write_bert, write_gpt2

from xacle_stack._optional import stand_ins
from xacle_stack.encoders.text_towers import BERT, GPT2, TextTower, tokenise
from xacle_stack.errors import EncoderError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def transformers():
    import transformers

    with stand_ins(["torchaudio", "torchvision"]):
        for name in ("GPT2Model", "BertModel", "GPT2TokenizerFast", "BertTokenizerFast"):
            getattr(transformers, name)
    return transformers


def tokenizer_files(folder: Path, tower: TextTower) -> list[Path]:
    write = write_gpt2 if tower is GPT2 else write_bert
    write(folder)
    return tower.tokenizer.files_in(folder)


def test_a_tower_has_the_sizes_of_the_tensors(transformers) -> None:
    small_gpt2 = transformers.GPT2Config(
        n_embd=128, n_head=2, n_layer=3, n_inner=60, n_positions=20, vocab_size=300
    )
    small_bert = transformers.BertConfig(
        hidden_size=128,
        num_attention_heads=2,
        num_hidden_layers=3,
        intermediate_size=60,
        max_position_embeddings=20,
        vocab_size=300,
    )
    for tower, original in (
        (GPT2, transformers.GPT2Model(small_gpt2)),
        (BERT, transformers.BertModel(small_bert)),
    ):
        state = original.state_dict()
        model = tower.build(transformers, state)
        model.load_state_dict(state)
        ids = torch.tensor([[1, 2, 3]])
        with torch.no_grad():
            torch.testing.assert_close(model.eval()(ids)[0], original.eval()(ids)[0])


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("tower", [GPT2, BERT], ids=["gpt2", "bert"])
def test_an_optional_file_that_is_a_pipe_is_not_waited_for(
    transformers, tmp_path: Path, tower: TextTower
) -> None:
    files = tokenizer_files(tmp_path, tower)
    for name in ("config.json", "chat_template.jinja", *tower.tokenizer.optional):
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
    needed = [file for file in files if file.is_file()]
    assert tower.tokenizer.files_in(tmp_path) == needed
    tower.read_tokenizer("encoder 'e'", transformers, needed, 257 if tower is GPT2 else 141)


@pytest.mark.parametrize("tower", [GPT2, BERT], ids=["gpt2", "bert"])
def test_without_tensors_the_sizes_are_those_of_the_base_model(tower: TextTower) -> None:
    built = {}
    stand_in = SimpleNamespace(
        GPT2Config=lambda: SimpleNamespace(vocab_size=50257, n_embd=768, n_positions=9, n_layer=12),
        BertConfig=lambda: SimpleNamespace(
            vocab_size=30522,
            hidden_size=768,
            max_position_embeddings=9,
            intermediate_size=3072,
            num_hidden_layers=12,
        ),
        GPT2Model=lambda config: built.update(vars(config)),
        BertModel=lambda config: built.update(vars(config)),
    )
    tower.build(stand_in, {"wte.weight": "no tensor"})
    assert 12 in (built.get("n_layer"), built.get("num_hidden_layers"))
    assert 12 in (built.get("n_head"), built.get("num_attention_heads"))
    assert 3072 in (built.get("n_inner"), built.get("intermediate_size"))


def test_tokens_are_padded_to_the_longest_and_keep_the_last(transformers, tmp_path: Path) -> None:
    files = tokenizer_files(tmp_path, BERT)
    tokenizer = BERT.read_tokenizer("x", transformers, files, 141)
    texts = ["a b", "", "a " * 50]
    ids, mask = tokenise(tokenizer, texts, 9)
    theirs = tokenizer(texts, padding="longest", truncation=True, max_length=9, return_tensors="np")
    np.testing.assert_array_equal(ids, theirs["input_ids"])
    np.testing.assert_array_equal(mask, theirs["attention_mask"])
    assert mask.sum(axis=1).tolist() == [4, 2, 9]


@pytest.mark.parametrize("tower", [GPT2, BERT], ids=["gpt2", "bert"])
def test_another_models_or_a_damaged_tokenizer_is_told(
    transformers, tmp_path: Path, tower: TextTower
) -> None:
    files = tokenizer_files(tmp_path, tower)
    n_tokens = len(tower.read_tokenizer("x", transformers, files, 257 if tower is GPT2 else 141))
    with pytest.raises(EncoderError, match=rf"x: .* {n_tokens} tokens, .*weights 9"):
        tower.read_tokenizer("x", transformers, files, 9)
    files = [path for path in files if path.name.startswith("vocab")]
    files[0].write_bytes(b"\xff\x00{")
    with pytest.raises(EncoderError, match=rf"x: the tokenizer in {tmp_path} cannot be read"):
        tower.read_tokenizer("x", transformers, files, n_tokens)
