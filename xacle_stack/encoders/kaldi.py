"""Kaldi's log-mel filterbank as BEATs, AudioMAE and EAT were trained on it, in batched PyTorch.

Conventions: 16 kHz; frames of 25 ms every 10 ms that lie wholly inside the clip (``snip_edges``);
in each frame the mean removed, pre-emphasis of 0.97 and a window; a 512-point power spectrum;
triangular filters on Kaldi's mel scale from 20 Hz to 8 kHz; the natural logarithm, limited to
float32's epsilon; no dither.  These are the defaults of ``torchaudio.compliance.kaldi.fbank``.

References
----------
Povey et al., The Kaldi speech recognition toolkit, ASRU 2011.
"""

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np

Tensor = Any  # torch is imported where it is used

SAMPLE_RATE_HZ = 16_000
FRAME_LENGTH = 400
FRAME_SHIFT = 160
_N_FFT = 512
_PRE_EMPHASIS = 0.97
_LOWEST_HZ = 20.0
_FLOOR = float(np.finfo(np.float32).eps)


def count_frames(n_samples: int) -> int:
    """Return the number of frames of a clip; a clip shorter than one frame is padded to one.

    Examples
    --------
    >>> count_frames(160_000), count_frames(1)
    (998, 1)
    """
    return 1 + max(0, n_samples - FRAME_LENGTH) // FRAME_SHIFT


def count_samples(n_frames: int) -> int:
    """Return the smallest number of samples that gives `n_frames`.

    Examples
    --------
    >>> count_samples(1024)
    164080
    """
    return FRAME_LENGTH + (n_frames - 1) * FRAME_SHIFT


def kaldi_fbank(
    samples: Tensor, n_mels: int = 128, window: Literal["povey", "hanning"] = "povey"
) -> Tensor:
    """Return the log-mel filterbank of each row.

    Parameters
    ----------
    samples : tensor of shape (n_clips, n_samples)
        float32 at 16 kHz.  Rows shorter than one frame are padded with zeros.
    n_mels : int, default=128
    window : {"povey", "hanning"}, default="povey"
        ``"povey"`` is the Hann window to the power of 0.85.

    Returns
    -------
    fbank : tensor of shape (n_clips, n_frames, n_mels)
        Each value depends on its own row only; ``n_frames`` is :func:`count_frames`.
    """
    import torch

    missing = FRAME_LENGTH - samples.shape[1]
    if missing > 0:
        samples = torch.nn.functional.pad(samples, (0, missing))
    frames = samples.unfold(1, FRAME_LENGTH, FRAME_SHIFT)
    frames = frames - frames.mean(dim=2, keepdim=True)
    # The first sample of a frame counts as its own predecessor.
    earlier = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
    frames = frames - _PRE_EMPHASIS * earlier
    taper = torch.hann_window(FRAME_LENGTH, periodic=False, device=samples.device)
    frames = frames * (taper**0.85 if window == "povey" else taper)
    power = torch.fft.rfft(frames, n=_N_FFT).abs().square()
    return (power @ _mel_filters(n_mels).to(samples.device)).clamp(min=_FLOOR).log()


@lru_cache
def _mel_filters(n_mels: int) -> Tensor:
    """Return triangles on the mel scale, shape (n_bins, n_mels).

    They are computed in float32 like torchaudio's.  The lowest of 128 filters hold at most one bin,
    and the logarithm would show every difference in the rounding of so small a weight.
    """
    import torch

    lowest, highest = _mel(_LOWEST_HZ), _mel(SAMPLE_RATE_HZ / 2)
    corners = lowest + torch.arange(n_mels + 2) * ((highest - lowest) / (n_mels + 1))
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    bins_hz = torch.arange(_N_FFT // 2 + 1) * (SAMPLE_RATE_HZ / _N_FFT)
    mel = 1127 * (1 + bins_hz / 700).log().unsqueeze(1)
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    filters[-1] = 0  # Kaldi leaves the Nyquist frequency out
    return filters


def _mel(hertz: float) -> float:
    return 1127 * math.log(1 + hertz / 700)
