"""FacebookAI/roberta-large: a language model, of which the encoder uses the body."""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.tokenizers import write_roberta

CONFIG = {
    "architectures": ["RobertaForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 1024,
    "initializer_range": 0.02,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "roberta",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "pad_token_id": 1,
    "type_vocab_size": 1,
    "vocab_size": 50265,
}
SMALL = {"intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 700}


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    from safetensors.torch import save_file
    from transformers import RobertaConfig, RobertaForMaskedLM

    settings = {**CONFIG, **({} if full else SMALL)}
    folder = hub_snapshot(root, "FacebookAI/roberta-large")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RobertaForMaskedLM(RobertaConfig.from_dict(settings))
        for name, values in model.named_parameters():
            if values.ndim > 1 and "embeddings" not in name:
                # As initialised, hardly anything of the other words reaches the first.
                torch.nn.init.normal_(values, std=values[0].numel() ** -0.5)
    state = {
        key: values.contiguous()
        for key, values in sorted(model.state_dict().items())
        if "lm_head.decoder" not in key  # one with the embeddings and lm_head.bias
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(settings, indent=2))
    write_roberta(folder, settings["vocab_size"])
    return folder
