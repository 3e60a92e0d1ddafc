"""sentence-transformers/all-mpnet-base-v2: an MPNet with its pooler, and how to pool."""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.tokenizers import write_mpnet

CONFIG = {
    "_name_or_path": "microsoft/mpnet-base",
    "architectures": ["MPNetForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "mpnet",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "relative_attention_num_buckets": 32,
    "vocab_size": 30527,
}
SMALL = {"intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 150}
STEPS = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
POOLINGS = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    from safetensors.torch import save_file
    from transformers import MPNetConfig, MPNetModel

    settings = {**CONFIG, **({} if full else SMALL)}
    hub_id = "sentence-transformers/all-mpnet-base-v2"
    folder = hub_snapshot(root, hub_id) if full else root / encoder.removeprefix("text-")
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MPNetModel(MPNetConfig.from_dict(settings))
    state = {key: values.contiguous() for key, values in sorted(model.state_dict().items())}
    state["embeddings.position_ids"] = torch.arange(514)[None]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_mpnet(folder, settings["vocab_size"])
    write_steps(folder, settings["hidden_size"])
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    limits = {"max_seq_length": 384, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
    return folder


def write_steps(folder: Path, n_dims: int, pooling: str = "mean_tokens") -> None:
    """Write how the package sentence-transformers makes one vector of the tokens."""
    steps = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(STEPS.items())
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    switches = {f"pooling_mode_{mode}": mode == pooling for mode in POOLINGS}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    settings = {"word_embedding_dimension": n_dims, **switches}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
