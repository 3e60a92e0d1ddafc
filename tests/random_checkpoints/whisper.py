"""openai/whisper-base: encoder and decoder; the output layer is the decoder's embedding."""

from pathlib import Path

from random_checkpoints import hub_snapshot


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    from safetensors.torch import save_file
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    small = {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": 100,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "decoder_start_token_id": 1,
        "suppress_tokens": [],
        "begin_suppress_tokens": [],
    }
    config = WhisperConfig(
        **{
            "d_model": 512,
            "encoder_layers": 6,
            "decoder_layers": 6,
            "encoder_attention_heads": 8,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 2048,
            "decoder_ffn_dim": 2048,
            **({} if full else small),
        }
    )
    folder = hub_snapshot(root, "openai/whisper-base")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = WhisperForConditionalGeneration(config).state_dict()
    state = {key: value.contiguous() for key, value in state.items() if key != "proj_out.weight"}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config.architectures = ["WhisperForConditionalGeneration"]
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    return folder
