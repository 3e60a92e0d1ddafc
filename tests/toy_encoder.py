"""An encoder in one short file, as a user would write it: cheap, exact, three outputs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Self

import numpy as np

from xacle_stack import Encoder, EncoderInfo
from xacle_stack.encoders.base import FloatArray, Output

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


class ToyClips(ToySpace):
    """Only the clips' side."""

    info = replace(ToySpace.info, name="toy-clips", text_outputs={})


class ToyCaptions(ToySpace):
    """Only the captions' side."""

    info = replace(ToySpace.info, name="toy-captions", audio_outputs={}, sample_rate_hz=None)


class ToyFrames(ToySpace):
    """The same, with sequences beside the vectors: the samples in frames, and the letters."""

    info = replace(
        ToySpace.info,
        name="toy-frames",
        audio_outputs={**ToySpace.info.audio_outputs, "frames": 100},
        text_outputs={**ToySpace.info.text_outputs, "letters": 2},
        sequences={"frames": "float16", "letters": "float32"},
    )

    def encode_audio(self, clips: Sequence[FloatArray]) -> dict[str, Output]:
        frames = [clip[: max(100, len(clip) // 100 * 100)] for clip in clips]
        frames = [np.pad(clip, (0, -len(clip) % 100)).reshape(-1, 100) for clip in frames]
        return {**super().encode_audio(clips), "frames": frames}

    def encode_text(self, captions: Sequence[str]) -> dict[str, Output]:
        letters = [np.array([[ord(letter), 0.1] for letter in caption]) for caption in captions]
        return {**super().encode_text(captions), "letters": letters}


class ToyOnDemand(ToyFrames):
    """The same, but sequences only where they are asked for; each view halves the level."""

    info = replace(
        ToyFrames.info,
        name="toy-on-demand",
        on_demand={"frames": "100 samples each", "letters": "code points"},
        views="halved",
    )

    def encode_audio(self, clips: Sequence[FloatArray]) -> dict[str, Output]:
        return self._asked_for(super().encode_audio([clip / 2**self.view for clip in clips]))

    def encode_text(self, captions: Sequence[str]) -> dict[str, Output]:
        return self._asked_for(super().encode_text(captions))

    def _asked_for(self, outputs: dict[str, Output]) -> dict[str, Output]:
        left_out = self.info.on_demand.keys() - set(self.outputs)
        return {name: values for name, values in outputs.items() if name not in left_out}


class BatchToy(ToyFrames):
    """Breaks the contract on purpose: every vector tells which batch it came in."""

    info = replace(ToyFrames.info, name="batch-toy")

    def encode_audio(self, clips: Sequence[FloatArray]) -> dict[str, Output]:
        return _mark(super().encode_audio(clips))

    def encode_text(self, captions: Sequence[str]) -> dict[str, Output]:
        return _mark(super().encode_text(captions))


def _mark(outputs: dict[str, Output]) -> dict[str, Output]:
    mark = outputs["embedding"].sum()
    return {
        name: [rows + mark for rows in values] if isinstance(values, list) else values + mark
        for name, values in outputs.items()
    }
