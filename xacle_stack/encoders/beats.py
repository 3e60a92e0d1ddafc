"""BEATs, fine-tuned on AudioSet to recognise sounds of 527 classes.

Source: Chen et al., BEATs: Audio pre-training with acoustic tokenizers, ICML 2023,
arXiv:2212.09058.  The model is SpeechBrain's.  Extra: ``beats``.

The columns of ``logits`` are in the order of the checkpoint's own ``label_dict``, which is not
that of AudioSet's list of classes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.audio import fixed_windows
from xacle_stack.encoders.base import EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.frames import group_by_clip
from xacle_stack.encoders.kaldi import SAMPLE_RATE_HZ, count_samples, kaldi_fbank
from xacle_stack.encoders.masks import describe_masks, hidden_parts
from xacle_stack.encoders.torch_encoder import (
    PRECISIONS,
    Tensor,
    TorchEncoder,
    by_length,
    in_order,
)
from xacle_stack.errors import EncoderError

FILES = tuple(f"BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt{number}.pt" for number in (2, 1))
N_CLASSES, N_DIMS = 527, 768
TOKENS, N_TOKENS = "tokens", 100
MAX_BANDS, MAX_FRAMES = 15, 30

WEIGHTS = Weights(
    files=(FILES,),
    hub_id="camenduru/beats",
    source="a fine-tuned BEATs_iter3+ checkpoint (microsoft/unilm, folder beats)",
)

_SCALE = 2.0**15
_FBANK_MEAN, _FBANK_STD = 15.41663, 6.55582
_PATCH = 16
_LONGEST = 30 * SAMPLE_RATE_HZ
_USUAL = 11 * SAMPLE_RATE_HZ


class Beats(TorchEncoder):
    """AudioSet logits, and the last layer's tokens: their mean, and on demand themselves.

    Notes
    -----
    A clip shorter than one patch (16 frames, 0.175 s) is padded with zeros; of longer clips the
    model drops up to 15 frames at the end.  A clip longer than 30 s is cut into fixed windows, and
    logits and mean are those over the tokens of all windows.

    The output ``tokens`` is computed only where it is asked for.  A token is a patch of 0.16 s and
    16 mel bands; the 8 patches of one time are neighbours, and the tokens of windows follow one
    another, although the windows of such a clip overlap.  PyTorch's adaptive average pooling makes
    100 vectors of them, which are stored in float16 (154 kB a clip).  In the published system that
    takes them (arXiv:2602.00604), a clip is first padded with zeros or cut to 10 s, so that a
    vector always stands for a tenth of a second.  Here a clip keeps its length, and a vector stands
    for a hundredth of it; only for a clip of 10 s both are the same.

    An augmented view fills parts of each window's normalised filter bank with 0, the mean level of
    AudioSet.  Its masks have the sizes of that system.
    """

    info = EncoderInfo(
        name="beats",
        summary="BEATs iter3+ fine-tuned on AudioSet: 527 class logits and the pooled last layer",
        audio_outputs={"logits": N_CLASSES, "pooled": N_DIMS, TOKENS: N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        preprocessing=(
            "kaldi fbank 128 mels, povey, scale 2^15, (x - 15.41663) / (2 * 6.55582); zeros to "
            "16 frames; windows of 30 s; logits before the sigmoid, mean over tokens"
        ),
        libraries=("speechbrain",),
        weights=WEIGHTS,
        extra="beats",
        requires=("torch", "speechbrain"),
        precisions=PRECISIONS,
        item_mb=200,
        licence="MIT",
        tested_with="real code",
        sequences={TOKENS: "float16"},
        on_demand={
            TOKENS: f"last layer, time-major, all windows, adaptive average pooling to {N_TOKENS}"
        },
        views=describe_masks(MAX_BANDS, MAX_FRAMES, "0 on the normalised scale"),
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        file = WEIGHTS.file(path)
        content = read_tensors(cls._what(), file)
        settings, state = content.get("cfg"), content.get("model")
        if not isinstance(settings, Mapping) or not isinstance(state, Mapping):
            raise EncoderError(
                f"{cls._what()}: {file} is not a BEATs checkpoint: it holds "
                f"{sorted(map(str, content))[:5]}, expected 'cfg' and 'model'. "
                f"Get {' or '.join(FILES)}."
            )
        if not settings.get("finetuned_model"):
            raise EncoderError(
                f"{cls._what()}: {file} is a checkpoint of pre-training only, without "
                f"a classifier and logits. Get {' or '.join(FILES)}."
            )
        found = settings.get("predictor_class"), settings.get("encoder_embed_dim")
        if found != (N_CLASSES, N_DIMS):
            raise EncoderError(
                f"{cls._what()}: {file} has {found[0]} classes and {found[1]} dimensions; "
                f"expected {N_CLASSES} and {N_DIMS}. Get {' or '.join(FILES)}."
            )
        with without_side_effects():
            speechbrain = cls._require("speechbrain.lobes.models.beats")
        model = assemble(speechbrain, settings, N_CLASSES)
        load_exactly(cls._what(), model, state, file)
        return model, None

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        import torch

        windows = [self._cut(clip) for clip in clips]
        means = []
        tokens: dict[int, Tensor] = {}
        for indices, stacked in by_length(
            [window for group in windows for window in group],
            # Attention needs memory for the square of the length, so fewer long clips go together.
            lambda n_samples: max(1, int(len(clips) * min(1.0, _USUAL / n_samples) ** 2)),
        ):
            last_layer = self._last_layer(stacked)
            means.append((indices, last_layer.mean(dim=0)))
            if TOKENS in self.outputs:
                tokens.update(zip(indices.tolist(), last_layer.unbind(dim=1), strict=True))
        counts = [len(group) for group in windows]
        # A clip's windows have one length, so their mean is the mean over all tokens.
        by_clip = in_order(means).split(counts)
        pooled = torch.stack([vectors.mean(dim=0) for vectors in by_clip])
        with self._full_precision():
            outputs = {"pooled": pooled}
            if "predictor" in self.model:
                # The classifier is linear, so the mean of the logits is the logits of the mean.
                outputs["logits"] = self.model["predictor"](pooled)
            if TOKENS in self.outputs:
                outputs[TOKENS] = [_pool(group) for group in group_by_clip(tokens, counts)]
        return outputs

    def _last_layer(self, samples: FloatArray) -> Tensor:
        """Return the last layer's tokens, float32 of shape (n_tokens, n_clips, n_dims), time-major.

        SpeechBrain's own loop over the layers draws from NumPy's global random state, even in
        evaluation, and keeps the output of every layer.
        """
        with self._full_precision():
            fbank = kaldi_fbank(self._on_device(samples) * _SCALE)
            fbank = (fbank - self.model.fbank_mean) / (2 * self.model.fbank_std)
            if self.view:
                fbank = fbank.masked_fill(self._hidden(samples, *fbank.shape[1:]), 0.0)
        model, encoder = self.model, self.model["encoder"]
        tokens = model["patch_embedding"](fbank.unsqueeze(1)).flatten(2).transpose(1, 2)
        tokens = model["layer_norm"](tokens)
        if "post_extract_proj" in model:
            tokens = model["post_extract_proj"](tokens)
        tokens = tokens + encoder.pos_conv(tokens.transpose(1, 2)).transpose(1, 2)
        if not encoder.layer_norm_first:
            tokens = encoder.layer_norm(tokens)
        tokens = tokens.transpose(0, 1)
        position_bias = None
        for layer in encoder.layers:
            tokens, _, position_bias = layer(tokens, need_weights=False, pos_bias=position_bias)
        if encoder.layer_norm_first:
            tokens = encoder.layer_norm(tokens)
        return tokens.float()

    @staticmethod
    def _cut(clip: FloatArray) -> FloatArray:
        """Return a clip's windows, shape (n_windows, n_samples)."""
        if len(clip) > _LONGEST:
            return fixed_windows(clip, _LONGEST)
        return np.pad(clip, (0, max(0, count_samples(_PATCH) - len(clip))))[np.newaxis]

    def _hidden(self, samples: FloatArray, n_frames: int, n_bands: int) -> Tensor:
        """Return which parts of the windows' filter banks the view hides."""
        hidden = [
            hidden_parts(window, self.view, n_bands, n_frames, MAX_BANDS, MAX_FRAMES).T
            for window in samples
        ]
        return self._on_device(np.stack(hidden))


def _pool(windows: Sequence[Tensor]) -> Tensor:
    """Return a clip's tokens as :data:`N_TOKENS` vectors, from the tokens of its windows."""
    import torch

    return torch.nn.functional.adaptive_avg_pool1d(torch.cat([*windows]).T, N_TOKENS).T


def assemble(speechbrain: Any, settings: Mapping[str, Any], n_classes: int = 0) -> Any:
    """Build the model from SpeechBrain's parts, with a classifier of `n_classes` if there are any.

    Its class ``BEATs`` would read the settings from a file that it unpickles.
    """
    from torch import nn

    config = speechbrain.BEATsConfig(dict(settings))
    patch = config.input_patch_size
    parts = {
        "patch_embedding": nn.Conv2d(1, config.embed_dim, patch, patch, bias=config.conv_bias),
        "layer_norm": nn.LayerNorm(config.embed_dim),
        "encoder": speechbrain.TransformerEncoder(config),
    }
    if n_classes:
        parts["predictor"] = nn.Linear(config.encoder_embed_dim, n_classes)
    if config.embed_dim != config.encoder_embed_dim:
        parts["post_extract_proj"] = nn.Linear(config.embed_dim, config.encoder_embed_dim)
    model = nn.ModuleDict(parts)
    model.fbank_mean, model.fbank_std = _FBANK_MEAN, _FBANK_STD
    return model


@contextmanager
def without_side_effects() -> Iterator[None]:
    """Keep SpeechBrain's import from changing the process.

    The import would allow TF32 for every model on the GPU, log, and leave modules in
    ``sys.modules`` that import absent packages when any attribute of theirs is used.
    """
    settings = {"SB_LOG_LEVEL": "ERROR", "SB_DISABLE_QUIRKS": "allow_tf32,disable_jit_profiling"}
    before = {name: os.environ.pop(name, None) for name in settings}
    known = set(sys.modules)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None})
        for name in set(sys.modules) - known:
            if type(sys.modules[name]).__module__ == "speechbrain.utils.importutils":
                del sys.modules[name]
