"""microsoft/deberta-v3-base: a language model in float16, and a file of SentencePiece."""

import io
import json
import warnings
from pathlib import Path

import numpy as np

from random_checkpoints import hub_snapshot
from random_checkpoints.tokenizers import WORDS

CONFIG = {
    "model_type": "deberta-v2",
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "layer_norm_eps": 1e-7,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 0,
    "vocab_size": 128100,
}
# More tokens than pieces, as in the real one.
SMALL = {"intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 1100}
MARKS = ("pad", "bos", "eos", "unk")


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    from transformers import DebertaV2Config

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # transformers 4's own
        from transformers import DebertaV2Model

    settings = {**CONFIG, **({} if full else SMALL)}
    name = encoder.removeprefix("text-")
    folder = hub_snapshot(root, "microsoft/deberta-v3-base") if full else root / name
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DebertaV2Model(DebertaV2Config.from_dict(settings)).half()
    state = {f"deberta.{key}": values for key, values in sorted(model.state_dict().items())}
    n_dims, n_tokens = settings["hidden_size"], settings["vocab_size"]
    state["lm_predictions.lm_head.dense.weight"] = torch.zeros(n_dims, n_dims).half()
    state["lm_predictions.lm_head.bias"] = torch.zeros(n_tokens).half()
    state["mask_predictions.classifier.weight"] = torch.zeros(1, n_dims).half()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')
    names = dict(zip(MARKS, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"), strict=True))
    (folder / "spm.model").write_bytes(train_pieces(names, "unigram", byte_fallback=True))
    return folder


def train_pieces(names: dict[str, str], kind: str, **settings: object) -> bytes:
    """Return SentencePiece's file of pieces of the words, after the marks in their order."""
    import sentencepiece

    rng = np.random.default_rng(0)
    content = io.BytesIO()
    numbers = {f"{mark}_id": number for number, mark in enumerate(names)}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(" ".join(rng.choice(WORDS, size=8)) for _ in range(500)),
        model_writer=content,
        model_type=kind,
        vocab_size=600,
        hard_vocab_limit=False,
        minloglevel=2,
        **numbers,
        **{f"{mark}_piece": name for mark, name in names.items()},
        **settings,
    )
    return content.getvalue()
