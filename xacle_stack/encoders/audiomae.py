"""AudioMAE: a vision transformer pre-trained to fill in masked spectrograms.

Source: Huang et al., Masked autoencoders that listen, NeurIPS 2022, arXiv:2207.06405; weights in
timm's format.  Extra: ``timm``.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xacle_stack.encoders.base import EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.kaldi import SAMPLE_RATE_HZ
from xacle_stack.encoders.patches import (
    N_BANDS,
    N_FRAMES,
    N_MELS,
    N_TIMES,
    WINDOW_S,
    PatchEncoder,
)
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor
from xacle_stack.encoders.transformers_folder import read_json
from xacle_stack.errors import EncoderError

ARCHITECTURE = "vit_base_patch16_224"
N_DIMS = 768
WEIGHTS = Weights(
    files=(("model.safetensors", "pytorch_model.bin"), ("config.json",)),
    hub_id="gaunernst/vit_base_patch16_1024_128.audiomae_as2m",
    source="AudioMAE in timm's format",
)


class AudioMae(PatchEncoder):
    """The mean over the time–frequency map of the last layer's tokens.

    Notes
    -----
    A pre-trained checkpoint normalises each token before the mean, and a fine-tuned one
    (``fc_norm``) normalises the mean.  The classifier is not used.
    """

    info = EncoderInfo(
        name="audiomae",
        summary="AudioMAE ViT-B pre-trained on AudioSet: mean of the patch tokens",
        audio_outputs={"pooled": N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        window_s=WINDOW_S,
        preprocessing=(
            "clip mean removed; kaldi fbank 128 mels, hanning; 0 to 1,024 frames; "
            "(x + 4.2677393) / (2 * 4.5689974); mean over patches with audio, over windows"
        ),
        libraries=("timm",),
        weights=WEIGHTS,
        extra="timm",
        requires=("torch", "timm"),
        precisions=PRECISIONS,
        item_mb=60,
        licence="CC-BY-NC-4.0",
        tested_with="real code",
    )
    fbank_mean, fbank_deviation = -4.2677393, 4.5689974

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        if path.is_dir():
            _check_config(cls._what(), path)
        file = WEIGHTS.file(path)
        state = read_tensors(cls._what(), file)
        timm = cls._require("timm")
        model = timm.create_model(
            ARCHITECTURE,
            pretrained=False,
            img_size=(N_FRAMES, N_MELS),
            in_chans=1,
            num_classes=0,
            global_pool="avg",
            fc_norm="fc_norm.weight" in state,
            **_size(state),
        )
        load_exactly(cls._what(), model, state, file, may_ignore=["head.*"])
        return model, None

    def _embed_patches(self, spectrograms: Tensor, n_times: Sequence[int]) -> Tensor:
        import torch

        tokens = self.model.forward_features(spectrograms)[:, 1:].float()
        columns = tokens.unflatten(1, (N_TIMES, N_BANDS)).mean(dim=2)
        counts = torch.tensor(n_times, device=columns.device).unsqueeze(1)
        holds_audio = torch.arange(N_TIMES, device=columns.device) < counts
        pooled = (columns * holds_audio.unsqueeze(2)).sum(dim=1) / counts
        with self._full_precision():
            normalised: Tensor = self.model.fc_norm(pooled)
        return normalised

    def _join_windows(self, vectors: Tensor) -> Tensor:
        return vectors.mean(dim=0)


def _check_config(what: str, folder: Path) -> None:
    config = read_json(what, folder, "config.json")
    named = config if isinstance(config, dict) else {}
    found = named.get("architecture", named.get("model_type"))
    if found != ARCHITECTURE:
        raise EncoderError(
            f"{what}: {folder} holds a model of type {found!r}; expected timm's {ARCHITECTURE!r}. "
            f"Give a checkpoint such as {WEIGHTS.hub_id}."
        )


def _size(state: Mapping[str, Any]) -> dict[str, float]:
    """Return the number of layers and the width of their feed-forward parts, from the tensors."""
    blocks = [re.match(r"blocks\.(\d+)\.", key) for key in state]
    hidden = getattr(state.get("blocks.0.mlp.fc1.weight"), "shape", (4 * N_DIMS,))[0]
    return {
        "depth": 1 + max((int(block[1]) for block in blocks if block), default=0),
        "mlp_ratio": hidden / N_DIMS,
    }
