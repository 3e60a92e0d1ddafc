"""The common base of AudioMAE and EAT, which divide 1,024 Kaldi frames into 64 × 8 patches.

Both repositories prepare a clip in the same way: they remove its mean, compute log-mel frames with
a Hann window, append frames of value 0, and normalise all by ``(x - mean) / (2 * deviation)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.audio import fixed_windows
from xacle_stack.encoders.kaldi import SAMPLE_RATE_HZ, count_frames, count_samples, kaldi_fbank
from xacle_stack.encoders.torch_encoder import Tensor, TorchEncoder

N_FRAMES, N_MELS, PATCH = 1024, 128, 16
N_TIMES, N_BANDS = N_FRAMES // PATCH, N_MELS // PATCH
N_SAMPLES = count_samples(N_FRAMES)
WINDOW_S = N_SAMPLES / SAMPLE_RATE_HZ


class PatchEncoder(TorchEncoder):
    """An encoder of fixed spectrograms whose tokens are patches, time first.

    A clip longer than :data:`WINDOW_S` is cut into fixed windows.  Tokens of padding alone are not
    pooled.
    """

    fbank_mean: ClassVar[float]
    fbank_deviation: ClassVar[float]

    @abstractmethod
    def _embed_patches(self, spectrograms: Tensor, n_times: Sequence[int]) -> Tensor:
        """Return one vector for each window, shape (n_windows, n_dims).

        `spectrograms` has the shape (n_windows, 1, 1024, 128); the first ``n_times[i]`` columns of
        window ``i``'s 64 × 8 patches hold audio.
        """

    @abstractmethod
    def _join_windows(self, vectors: Tensor) -> Tensor:
        """Combine the vectors of a clip's windows into one, shape (n_dims,)."""

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        import torch

        windows = [_cut(clip) for clip in clips]
        counts = [len(clip_windows) for clip_windows in windows]
        n_frames = np.repeat([min(count_frames(len(clip)), N_FRAMES) for clip in clips], counts)
        samples, vectors = np.concatenate(windows), []
        for start in range(0, len(samples), len(clips)):
            rows = slice(start, start + len(clips))
            spectrograms = self._spectrograms(samples[rows], n_frames[rows])
            n_times = -(-n_frames[rows] // PATCH)
            vectors.append(self._embed_patches(spectrograms, n_times.tolist()).float())
        by_clip = torch.cat(vectors).split(counts)
        return {"pooled": torch.stack([self._join_windows(group) for group in by_clip])}

    def _spectrograms(self, samples: FloatArray, n_frames: IntArray) -> Tensor:
        import torch

        with self._full_precision():
            fbank = kaldi_fbank(self._on_device(samples), N_MELS, "hanning")
            is_padding = torch.arange(N_FRAMES) >= torch.from_numpy(n_frames)[:, np.newaxis]
            fbank = fbank.masked_fill(is_padding.unsqueeze(2).to(fbank.device), 0.0)
            return ((fbank - self.fbank_mean) / (2 * self.fbank_deviation)).unsqueeze(1)


def _cut(clip: FloatArray) -> FloatArray:
    """Return a clip's windows without its mean, shape (n_windows, N_SAMPLES)."""
    centred = (clip - clip.mean(dtype=np.float64)).astype(np.float32)
    if len(clip) > N_SAMPLES:
        return fixed_windows(centred, N_SAMPLES)
    return np.pad(centred, (0, N_SAMPLES - len(clip)))[np.newaxis]
