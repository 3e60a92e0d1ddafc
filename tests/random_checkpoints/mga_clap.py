"""MGA-CLAP: what the authors' training saves, with the names of LAION's HTSAT."""

from pathlib import Path
from typing import Any

from random_checkpoints import hub_snapshot
from random_checkpoints.laion_clap import HTSAT_TINY, SMALL, SMALL_TEXT, draw_model, original_names
from random_checkpoints.tensors import draw_tensors
from random_checkpoints.tokenizers import write_bert

TINY_BERT = {"num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 141}
N_DIMS, N_CODES = 1024, 4096


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch

    state, n_tokens = draw_state(full=full, seed=seed)
    folder = root / "mga-clap"
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = {"state": {0: {"step": 9}}, "param_groups": [{"lr": 5e-5, "params": [0]}]}
    content = {"model": state, "optimizer": optimizer, "config": {"temp": 0.07}, "epoch": 9}
    torch.save(content, folder / "model.pt")
    write_bert(hub_snapshot(root, "google-bert/bert-base-uncased"), n_tokens)
    if not full:  # so that it is found outside of the hub's cache too
        write_bert(folder, n_tokens)
    return folder / "model.pt"


def draw_state(*, full: bool, seed: int) -> tuple[dict[str, Any], int]:
    """Return random tensors, and the number of tokens."""
    import torch
    import transformers

    clap = draw_model(HTSAT_TINY if full else SMALL, SMALL_TEXT, is_fused=False, seed=seed)
    config = transformers.BertConfig(**({} if full else TINY_BERT))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = transformers.BertModel(config, add_pooling_layer=False).state_dict()
    state = {
        _theirs(key): values
        for key, values in original_names(clap).items()
        if key.startswith("audio_branch.")
    }
    state |= {f"text_encoder.text_encoder.{key}": values for key, values in text.items()}
    widths = {"frame_proj": clap.config.audio_config.hidden_size, "word_proj": config.hidden_size}
    for name, width in widths.items():
        shapes = {"0": (width,), "1": (N_DIMS, width), "3": (N_DIMS,), "4": (N_DIMS, N_DIMS)}
        weights = draw_tensors({f"{n}.weight": shape for n, shape in shapes.items()}, seed)
        biases = draw_tensors({f"{n}.bias": shape[:1] for n, shape in shapes.items()}, seed)
        for layer in ("0", "3"):
            weights[f"{layer}.weight"] = 1 + 0.02 * weights[f"{layer}.weight"]
        state |= {f"{name}.{key}": values for key, values in {**weights, **biases}.items()}
    # So long that a few codes are much nearer than the others.
    codes = draw_tensors({"codebook": (N_CODES, N_DIMS)}, seed)["codebook"]
    return {**state, "codebook": codes * 3000, "temp": torch.tensor(0.07)}, config.vocab_size


def _theirs(key: str) -> str:
    for ours, theirs in (
        ("audio_branch.", "audio_encoder.audio_enc."),
        ("spectrogram_extractor.", "audio_feats_extractor.mel_trans."),
        ("logmel_extractor.", "audio_feats_extractor.log_trans."),
    ):
        key = key.replace(ours, theirs)
    return key
