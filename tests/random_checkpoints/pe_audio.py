"""facebook/pe-av-large: the audio and the text model within the audio-visual one.

Of the video model there is one tensor of each kind: its other parts are not read.
"""

import json
from pathlib import Path

from random_checkpoints import hub_snapshot
from random_checkpoints.tokenizers import byte_alphabet

SPECIAL = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}


def write(root: Path, encoder: str, *, full: bool, seed: int) -> Path:
    import torch
    from safetensors.torch import save_file
    from transformers import PeAudioConfig, PeAudioModel

    small_audio = {
        "dac_config": {"encoder_hidden_size": 4, "codebook_dim": 16, "hidden_size": 32},
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 32,
    }
    ids = {name: 256 + number for number, name in enumerate(SPECIAL)}
    text = {
        "model_type": "modernbert",
        "hidden_size": 1024,
        "vocab_size": 50368 if full else 260,
        "intermediate_size": 2624 if full else 32,
        "num_hidden_layers": 22 if full else 1,
        "num_attention_heads": 16,
        "cls_token_id": ids["cls_token"],
        "bos_token_id": ids["cls_token"],
        "sep_token_id": ids["sep_token"],
        "eos_token_id": ids["sep_token"],
        "pad_token_id": ids["pad_token"],
    }
    config = PeAudioConfig(text_config=text, audio_config={} if full else small_audio)
    folder = hub_snapshot(root, "facebook/pe-av-large")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PeAudioModel(config)
        # As initialised, next to nothing of the samples and the words comes through.
        for convolution in model.audio_encoder.embedder.modules():
            if isinstance(convolution, torch.nn.Conv1d):
                torch.nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear")
                convolution.weight.data *= 0.7
        for layer in model.text_model.layers:
            layer.attn.Wo.weight.data *= 20
    state = {
        key if key.startswith("text_model.") else f"audio_model.{key}": value.contiguous()
        for key, value in model.state_dict().items()
    }
    for video_key in (
        "video_model.video_head.proj.weight",
        "audio_video_encoder.norm.weight",
        "audio_video_head.proj.weight",
        "text_audio_video_logit_bias",
        "audio_plus_text_head.proj.weight",
        "video_plus_text_logit_scale",
    ):
        state[video_key] = torch.zeros(1)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {
        "architectures": ["PeAudioVideoModel"],
        "model_type": "pe_audio_video",
        "text_config": config.text_config.to_dict(),
        "audio_video_config": {
            "model_type": "pe_audio_video_encoder",
            "audio_config": config.audio_config.to_dict(),
        },
    }
    (folder / "config.json").write_text(json.dumps(settings))
    _write_tokenizer(folder, ids)
    return folder


def _write_tokenizer(folder: Path, ids: dict[str, int]) -> None:
    """Write ModernBERT's kind of tokenizer with a vocabulary of bytes."""
    import tokenizers

    vocabulary = {character: number for number, character in enumerate(byte_alphabet())}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", ids["cls_token"]), ("[SEP]", ids["sep_token"])],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
