"""MGA-CLAP: clips and captions in one 1,024-dimensional space, as mixtures of 4,096 shared codes.

Source: Li et al., Advancing multi-grained alignment for contrastive language-audio pre-training,
ACM MM 2024, arXiv:2408.07919.  Extra: ``encoders``.

The authors' code needs a dozen packages for training and evaluation, so the model is built here:
transformers' HTSAT and BERT, the authors' last block, and their codebook.  With random weights, its
vectors were within 3e-6 of those of the authors' code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import (
    Weights,
    find_tokenizer,
    load_exactly,
    numpy_numbers,
    read_tensors,
    state_dict_in,
)
from xacle_stack.encoders.laion_mel import build_filters, log_mel
from xacle_stack.encoders.laion_original import config_settings, renamed
from xacle_stack.encoders.text_towers import BERT, tensor_shape
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, TorchEncoder

N_DIMS, N_CODES = 1024, 4096
SAMPLE_RATE_HZ, HOP = 32_000, 320
MAX_TOKENS = 30
# What attention to the codes is divided by, beside the root of the dimensions.
TEMPERATURE = 1000.0

_WINDOW_S = 10.0
_AUDIO, _TEXT = "audio_encoder.audio_enc.", "text_encoder.text_encoder."
_WEIGHTS = Weights(
    files=(("model.pt", "*.pt"),),
    source="model.pt, to which the README of github.com/Ming-er/MGA-CLAP links",
)
# Tables that the model computes, and the temperature of training.
_NOT_USED = ("*.position_ids", "*.relative_position_index", "temp")


class MgaClap(TorchEncoder):
    """The normalised mixtures of codes of a clip's frames and of a caption's words.

    Notes
    -----
    A clip shorter than 10 s is padded with zeros.  For a longer one, the embeddings of its fixed
    10 s windows are averaged, and the mean is normalised.

    Captions lose their punctuation, as in the authors' training.  Of one with more than 30 tokens
    (about 25 words), the first 29 tokens and the one that marks the end are kept.
    """

    info = EncoderInfo(
        name="mga-clap",
        summary="MGA-CLAP: one space for clips and captions, of codes that both share",
        audio_outputs={EMBEDDING: N_DIMS},
        text_outputs={EMBEDDING: N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        window_s=_WINDOW_S,
        preprocessing=(
            "zeros to 10 s, mean over 10 s windows; 30 tokens without punctuation; normalised"
        ),
        weights=_WEIGHTS,
        tokenizer=BERT.tokenizer,
        extra="encoders",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=100,
        licence="MIT (code)",
        tested_with="real code",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what = cls._what()
        torch = cls._require("torch")
        transformers = cls._require("transformers")
        audio_utils = cls._require("transformers.audio_utils")
        file = _WEIGHTS.file(path)
        # The training saves the state of the optimizer beside them.
        with torch.serialization.safe_globals(numpy_numbers()):
            state = state_dict_in(what, read_tensors(what, file), "model", file)
        state = renamed({str(k).replace(_AUDIO, "audio_branch."): v for k, v in state.items()})
        model = _network(transformers, state)
        state = {key.replace(_TEXT, "text_model."): value for key, value in state.items()}
        load_exactly(what, model, state, file, may_miss=_NOT_USED, may_ignore=_NOT_USED)
        filters = build_filters(audio_utils, 50.0, 14_000.0, "slaney", SAMPLE_RATE_HZ)
        model.register_buffer("mel_filters", filters, persistent=False)
        files = find_tokenizer(cls.info.name, BERT.tokenizer, path)
        n_tokens = model.text_model.config.vocab_size
        return model, BERT.read_tokenizer(what, transformers, files, n_tokens)

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        vectors = self._mean_over_windows(clips, round(_WINDOW_S * SAMPLE_RATE_HZ), self._windows)
        return {EMBEDDING: _normalise(vectors)}

    def _windows(self, windows: Tensor) -> Tensor:
        with self._full_precision():
            mel = log_mel(windows, self.model.mel_filters, HOP).unsqueeze(1)
        frames = self.model.audio_model(input_features=mel).last_hidden_state.mean(dim=2)
        return self._mix(self.model.frame_proj(frames.transpose(1, 2)))

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        plain = [re.sub(r'[(),.!?;:|*"]', " ", caption) for caption in captions]
        tokens = self._tokens(plain, MAX_TOKENS)
        words = self.model.word_proj(self.model.text_model(**tokens)[0][:, 1:])
        # Neither the token that marks the end is a word, nor padding.
        is_word = tokens["attention_mask"].roll(-1, dims=1)
        is_word[:, -1] = 0
        return {EMBEDDING: self._mix(words * is_word[:, 1:].unsqueeze(2))}

    def _mix(self, parts: Tensor) -> Tensor:
        """Return the mixture of codes that frames or words stand for, shape (n_items, 1024).

        A code's share depends on the part that is nearest to it.
        """
        with self._full_precision():
            codes = self.model.codebook
            near = (parts.float() @ codes.T).amax(dim=1) / (N_DIMS**0.5 * TEMPERATURE)
            return _normalise(sparsemax(near) @ codes)


def sparsemax(values: Tensor) -> Tensor:
    """Return the point nearest to each row among those that are non-negative and sum up to 1.

    References
    ----------
    Martins and Astudillo, From softmax to sparsemax, ICML 2016, arXiv:1602.02068.
    """
    import torch

    centred = values - values.amax(dim=1, keepdim=True)
    descending = centred.sort(dim=1, descending=True).values
    numbers = torch.arange(1, values.shape[1] + 1, device=values.device)
    excess = descending.cumsum(dim=1) - 1
    count = (numbers * descending > excess).sum(dim=1, keepdim=True)
    return (centred - excess.gather(1, count - 1) / count).clamp(min=0)


def _normalise(vectors: Tensor) -> Tensor:
    import torch

    return torch.nn.functional.normalize(vectors.float(), dim=1)


def _network(transformers: Any, state: Mapping[str, Any]) -> Any:
    """Return the model in the sizes of a checkpoint's tensors, without its weights."""
    import torch
    from torch import nn

    audio = transformers.ClapAudioConfig(**config_settings(state)["audio_config"])
    text = {key.removeprefix(_TEXT): value for key, value in state.items()}
    model = nn.Module()
    model.audio_model = transformers.ClapAudioModel(audio)
    model.audio_model.audio_encoder.layers[-1].blocks[-1].register_forward_hook(_see_locally)
    model.text_model = BERT.build(transformers, text)
    model.text_model.pooler = None
    model.frame_proj = _projection(audio.hidden_size)
    model.word_proj = _projection(model.text_model.config.hidden_size)
    model.codebook = nn.Parameter(
        torch.zeros(tensor_shape(state, "codebook", (N_CODES, N_DIMS))[0], N_DIMS)
    )
    return model.float()


def _see_locally(block: Any, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Any:
    """Replace the last block's output: each place attends to itself only, without an MLP."""
    before = inputs[0]
    values = block.attention.self.value(block.layernorm_before(before))
    seen = before + block.attention.output.dense(values)
    return seen + block.layernorm_after(seen), *outputs[1:]


def _projection(n_dims: int) -> Any:
    from torch import nn

    return nn.Sequential(
        nn.LayerNorm(n_dims),
        nn.Linear(n_dims, N_DIMS),
        nn.GELU(),
        nn.LayerNorm(N_DIMS),
        nn.Linear(N_DIMS, N_DIMS),
    )
