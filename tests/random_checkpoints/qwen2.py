"""Qwen/Qwen2.5-0.5B-Instruct: a causal language model; the small one has a tokenizer of words."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from random_checkpoints.tokenizers import WORDS

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "torch_dtype": "float32",
}
END = "<|im_end|>"
N_WORDS = 151_643  # the real tokenizer's entries before those that it adds


def write(
    folder: Path,
    words: Sequence[str] = WORDS,
    *,
    full: bool = False,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Write the model's files into a folder; `settings` replace those of its config.json."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2Config

    from xacle_stack._optional import stand_ins

    with stand_ins(["torchaudio", "torchvision"]):
        from transformers import Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = [*dict.fromkeys(["[UNK]", *words])]
    added = [END]
    if full:
        vocabulary += [f"[{number}]" for number in range(N_WORDS - len(vocabulary))]
        added = ["<|endoftext|>", "<|im_start|>", END, *(f"<|{n}|>" for n in range(19))]
    n_tokens = len(vocabulary) + len(added)
    # As the real one, it has more embeddings than its tokenizer makes tokens.
    small = {**SMALL, "vocab_size": n_tokens + 5}
    config = {
        **CONFIG,
        **({} if full else small),
        "eos_token_id": len(vocabulary) + added.index(END),
        **settings,
    }
    write_words(folder, vocabulary, added)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(Qwen2Config.from_dict(config)).to(torch.bfloat16 if full else None)
    state = {
        key: values.contiguous()
        for key, values in sorted(model.state_dict().items())
        if not (key == "lm_head.weight" and config["tie_word_embeddings"])
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_words(folder: Path, vocabulary: Sequence[str], added: Sequence[str]) -> None:
    """Write a tokenizer of whole words; the first entry stands for all others."""
    tokens = [
        {"id": len(vocabulary) + number, "content": content, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, content in enumerate(added)
    ]
    tokenizer = {
        "version": "1.0",
        "added_tokens": tokens,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(vocabulary)},
            "unk_token": vocabulary[0],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
