"""facebook/wav2vec2-base-960h: old names, no embedding of masked frames, 32 letters and tokens."""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.wavlm import with_old_names

TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    from safetensors.torch import save_file
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    small = {
        "num_hidden_layers": 1,
        "intermediate_size": 64,
        "conv_dim": [32] * 7,
        "num_conv_pos_embeddings": 16,
    }
    config = Wav2Vec2Config(**({} if full else small))  # the defaults are the base model's
    folder = hub_snapshot(root, "facebook/wav2vec2-base-960h")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = with_old_names(Wav2Vec2ForCTC(config).state_dict())
    del state["wav2vec2.masked_spec_embed"]
    # Sure of itself, about many letters: so that there are words.
    state["lm_head.weight"] *= 20
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["Wav2Vec2ForCTC"]
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    numbers = {token: number for number, token in enumerate(TOKENS)}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    return folder
