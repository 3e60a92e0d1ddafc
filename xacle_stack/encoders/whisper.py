"""Whisper-base: statistics over time of its encoder's output.

Source: Radford et al., ICML 2023, arXiv:2212.04356.  Extra: ``encoders``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.frames import LONGEST_S, pad, pool_frames
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, TorchEncoder
from xacle_stack.encoders.transformers_folder import check_settings, read_config

_RATE_HZ = 16_000
_N_FFT, _HOP = 400, 160
_SAMPLES_A_FRAME = 2 * _HOP  # the second convolution halves the rate
_WINDOW = LONGEST_S * _RATE_HZ
_WEIGHTS = Weights(
    files=(("model.safetensors", "pytorch_model.bin"), ("config.json",)),
    hub_id="openai/whisper-base",
    source="openai/whisper-base from the Hugging Face hub",
)


class Whisper(TorchEncoder):
    """Mean, standard deviation and maximum over the encoder's frames that hold audio.

    The model always takes 30 s, the clip followed by silence.  The first 500 of its 1,500 frames
    belong to a clip of 10 s.
    """

    info = EncoderInfo(
        name="whisper-base",
        summary="Whisper-base encoder: mean, deviation and maximum over the clip's frames",
        audio_outputs={"pooled": 3 * 512},
        sample_rate_hz=_RATE_HZ,
        preprocessing="pieces of at most 30 s, zeros after; frames of the clip: mean, std, max",
        weights=_WEIGHTS,
        extra="encoders",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=120,
        licence="Apache-2.0",
        tested_with="real code",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        import torch

        transformers = cls._require("transformers")
        modeling = cls._require("transformers.models.whisper.modeling_whisper")
        audio_utils = cls._require("transformers.audio_utils")
        config = read_config(cls._what(), path, transformers.WhisperConfig)
        check_settings(cls._what(), path, config, d_model=512)
        model = modeling.WhisperEncoder(config).float()
        file = _WEIGHTS.file(path)
        state = {
            key.removeprefix("model.").removeprefix("encoder."): value
            for key, value in read_tensors(cls._what(), file).items()
        }
        # Only the encoder is used: the decoder writes transcripts.
        load_exactly(cls._what(), model, state, file, may_ignore=["decoder.*", "proj_out.*"])
        filters = audio_utils.mel_filter_bank(
            1 + _N_FFT // 2,
            config.num_mel_bins,
            min_frequency=0.0,
            max_frequency=_RATE_HZ / 2,
            sampling_rate=_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        mel_filters = torch.from_numpy(filters.T.copy()).float()
        model.register_buffer("mel_filters", mel_filters, persistent=False)
        return model, None

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        # Every piece is padded to 30 s, so a batch may hold clips of any length.
        return {"pooled": pool_frames(clips, _RATE_HZ, self._frames, spread=math.inf)}

    def _frames(self, pieces: Sequence[FloatArray]) -> tuple[Tensor, Tensor]:
        stacked, lengths = pad(pieces, _WINDOW)
        n_frames = -(-lengths // _SAMPLES_A_FRAME)
        with self._full_precision():
            mel = log_mel(self._on_device(stacked), self.model.mel_filters)
        hidden = self.model(mel).last_hidden_state
        return hidden[:, : n_frames.max()], self._on_device(n_frames)


def log_mel(samples: Tensor, mel_filters: Tensor) -> Tensor:
    """Return Whisper's log-mel spectrogram of each row, shape (n_clips, n_mels, n_samples // 160).

    It has frames of 25 ms every 10 ms under a Hann window, and the base-10 logarithm of power in
    mel bands, limited to 80 dB below the row's maximum and scaled by (x + 4) / 4.
    """
    import torch

    window = torch.hann_window(_N_FFT, device=samples.device)
    spectrum = torch.stft(samples, _N_FFT, _HOP, window=window, return_complex=True)
    power = spectrum[..., :-1].abs().square()  # Whisper leaves the last frame out
    decades = (mel_filters @ power).clamp(min=1e-10).log10()
    floor = decades.amax(dim=(1, 2), keepdim=True) - 8
    return (torch.maximum(decades, floor) + 4) / 4
