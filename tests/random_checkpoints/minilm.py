"""sentence-transformers/all-MiniLM-L6-v2: a BERT with its pooler, which the encoder leaves out."""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.tokenizers import write_bert

CONFIG = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 384,
    "initializer_range": 0.02,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
SMALL = {"intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 141}


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel

    settings = {**CONFIG, **({} if full else SMALL)}
    folder = hub_snapshot(root, "sentence-transformers/all-MiniLM-L6-v2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(BertConfig.from_dict(settings))
    state = {key: values.contiguous() for key, values in sorted(model.state_dict().items())}
    state["embeddings.position_ids"] = torch.arange(512)[None]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    write_bert(folder, settings["vocab_size"])
    return folder
