"""The spectrograms that CLAP models with a HTSAT were trained on, in batched PyTorch.

Conventions: 100 frames a second, of 1,024 samples under a Hann window, centred, with reflected
ends; power in 64 mel bands, in decibels and at least −100.  LAION's models take 48 kHz.  Those
without feature fusion use librosa's mel scale, the others torchaudio's.
"""

from typing import Any

import numpy as np

Tensor = Any  # torch is imported where it is used

SAMPLE_RATE_HZ = 48_000
WINDOW = 10 * SAMPLE_RATE_HZ
N_FFT, HOP, N_MELS = 1024, 480, 64
N_FRAMES = 1 + WINDOW // HOP


def build_filters(
    audio_utils: Any,
    lowest_hz: float,
    highest_hz: float,
    scale: str,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> Tensor:
    """Return the mel filters, shape (513, 64), made by ``transformers.audio_utils``.

    `scale` is "slaney", librosa's scale with filters of equal area, or "htk", torchaudio's with
    filters of equal height.
    """
    import torch

    filters = audio_utils.mel_filter_bank(
        1 + N_FFT // 2,
        N_MELS,
        lowest_hz,
        highest_hz,
        sample_rate_hz,
        norm="slaney" if scale == "slaney" else None,
        mel_scale=scale,
    )
    return torch.from_numpy(filters).float()


def log_mel(samples: Tensor, mel_filters: Tensor, hop: int = HOP) -> Tensor:
    """Return the spectrogram of each row, shape (n_clips, 1 + n_samples // hop, 64).

    The samples are float32; each row depends on its own samples only.
    """
    import torch

    half = N_FFT // 2
    padded = torch.nn.functional.pad(samples.unsqueeze(1), (half, half), mode="reflect")
    frames = padded.squeeze(1).unfold(1, N_FFT, hop)
    window = torch.hann_window(N_FFT, device=samples.device)
    decibels = []
    for part in frames.split(N_FRAMES, dim=1):  # 10 s at a time, to bound the memory
        power = torch.view_as_real(torch.fft.rfft(part * window)).square().sum(dim=-1)
        decibels.append(10 * (power @ mel_filters).clamp(min=1e-10).log10())
    return torch.cat(decibels, dim=1)


def fuse(mel: Tensor) -> Tensor:
    """Return the four spectrograms that the model fuses: the whole clip and three chunks of it.

    The shape (n_clips, n_frames, 64), with at least 1,001 frames, becomes (n_clips, 4, 1001, 64).
    With exactly 1,001 frames the four are equal.
    """
    import torch

    thirds = np.array_split(np.arange(mel.shape[1] - N_FRAMES + 1), 3)
    # Just above 10 s some thirds are empty; their chunks begin where the clip does.
    starts = [int(third[len(third) // 2]) if len(third) else 0 for third in thirds]
    shrunk = torch.nn.functional.interpolate(
        mel.unsqueeze(1), size=(N_FRAMES, N_MELS), mode="bilinear", align_corners=False
    )
    chunks = [mel[:, None, start : start + N_FRAMES] for start in starts]
    return torch.cat([shrunk, *chunks], dim=1)
