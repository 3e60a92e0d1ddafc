"""An encoder in one short file, as a user would write it: cheap, exact, three outputs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np

from xacle_stack import Encoder, EncoderInfo
from xacle_stack.encoders.base import FloatArray

# Which sixth of the spectrum holds the tone that a word names.
BANDS = {"low": 0, "middle": 1, "high": 4}


class ToySpace(Encoder):
    """Fourier magnitudes beside words that name a band; never all zero."""

    info = EncoderInfo(
        name="toy",
        summary="for tests",
        audio_outputs={"embedding": 6, "level": 2},
        text_outputs={"embedding": 6},
        sample_rate_hz=8_000,
        licence="MIT",
    )

    @classmethod
    def load(cls, checkpoint: str | None = None, device: str = "cpu") -> Self:
        return cls()

    def encode_audio(self, clips: Sequence[FloatArray]) -> dict[str, FloatArray]:
        spectra = [np.abs(np.fft.rfft(clip, 2048))[:1020].reshape(6, -1).mean(1) for clip in clips]
        levels = [[np.abs(clip).mean(), np.abs(clip).max()] for clip in clips]
        return {"embedding": np.array(spectra) + 0.01, "level": np.array(levels)}

    def encode_text(self, captions: Sequence[str]) -> dict[str, FloatArray]:
        rows = np.full((len(captions), 6), 0.01)
        for row, caption in zip(rows, captions, strict=True):
            for word in caption.lower().split():
                row[BANDS.get(word, 5)] += 1.0 if word in BANDS else 0.01 * len(word)
        return {"embedding": rows}


class BatchToy(ToySpace):
    """Breaks the contract on purpose: every vector tells which batch it came in."""

    info = replace(ToySpace.info, name="batch-toy")

    def encode_audio(self, clips: Sequence[FloatArray]) -> dict[str, FloatArray]:
        outputs = super().encode_audio(clips)
        return {name: rows + rows.sum() for name, rows in outputs.items()}

    def encode_text(self, captions: Sequence[str]) -> dict[str, FloatArray]:
        rows = super().encode_text(captions)["embedding"]
        return {"embedding": rows + rows.sum()}
