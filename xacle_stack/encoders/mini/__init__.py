"""mini-CLAP: three small sound–caption spaces that need no download and no GPU.

Each pairs one front end with one reader of captions; both are mapped linearly into a common
space by regularised canonical correlation analysis, fitted on synthesised scenes (see ``fit.py``).
They are toys that behave like the real models, for examples, tests and first steps.

References
----------
H. Hotelling, "Relations between two sets of variates", Biometrika 28, 1936.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.encoders.base import EMBEDDING, Encoder, EncoderInfo, Output
from xacle_stack.encoders.masks import MASKS
from xacle_stack.encoders.mini.captions import CaptionReader
from xacle_stack.encoders.mini.frontends import (
    SAMPLE_RATE_HZ,
    mel_features,
    mel_frames,
    mfcc_features,
    modulation_features,
)
from xacle_stack.encoders.mini.weights import MiniWeights

__all__ = ["MINI_ENCODERS", "MiniEncoder", "MiniMel", "MiniMfcc", "MiniMod"]

FRAMES, TOKENS = "frames", "tokens"
_N_DIMS = 64


def _info(name: str, summary: str) -> EncoderInfo:
    return EncoderInfo(
        name=name,
        summary=summary,
        audio_outputs={EMBEDDING: _N_DIMS},
        text_outputs={EMBEDDING: _N_DIMS},
        sample_rate_hz=SAMPLE_RATE_HZ,
        preprocessing="1",
        licence="MIT",
        tested_with="real weights",
        views=MASKS,
    )


class MiniEncoder(Encoder):
    """The base of the three spaces, which map features linearly to a unit vector.

    Parameters
    ----------
    weights : MiniWeights
        Use :meth:`load` to get them from a file.
    """

    reader: ClassVar[CaptionReader]

    def __init__(self, weights: MiniWeights) -> None:
        self.weights = weights

    @staticmethod
    @abstractmethod
    def front_end(samples: FloatArray, view: int = 0) -> FloatArray:
        """Return one clip's features, shape (n_features,)."""

    @classmethod
    def find_checkpoint(cls, checkpoint: str | None, *, download: bool = True) -> Path:
        """Return the path of the weights; the embedded file by default."""
        path = super().find_checkpoint(checkpoint, download=download)
        return path or Path(__file__).with_name(f"{cls.info.name}.npz")

    @classmethod
    def load(cls, checkpoint: str | None = None, device: str = "cpu") -> Self:
        """Read the weights from an npz file that ``fit.py`` wrote, by default the embedded one.

        They always run on the CPU.  EncoderError if the file is missing or holds other arrays.

        Examples
        --------
        >>> encoder = MiniMel.load()
        >>> encoder.encode_text(["A dog barks"])["embedding"].shape
        (1, 64)
        """
        n_features = len(cls.front_end(np.zeros(1, dtype=np.float32)))
        path = cls.find_checkpoint(checkpoint)
        return cls(MiniWeights.read(path, n_features, cls.reader.n_buckets, _N_DIMS))

    def encode_audio(self, clips: Sequence[FloatArray]) -> dict[str, Output]:
        """Encode mono clips at 16 kHz, one by one; see :meth:`Encoder.encode_audio`."""
        cls = type(self)
        vectors = [self.weights.embed_audio(cls.front_end(clip, self.view)) for clip in clips]
        return {EMBEDDING: np.array(vectors, dtype=np.float32).reshape(-1, _N_DIMS)}

    def encode_text(self, captions: Sequence[str]) -> dict[str, Output]:
        """Encode captions, one by one; see :meth:`Encoder.encode_text`."""
        return {EMBEDDING: self._read(captions)}

    def _read(self, texts: Sequence[str]) -> FloatArray:
        vectors = [self.weights.embed_caption(self.reader.buckets(text)) for text in texts]
        return np.array(vectors, dtype=np.float32).reshape(-1, _N_DIMS)


class MiniMel(MiniEncoder):
    """Fine spectrum against character n-grams; nearly insensitive to the course of time.

    The spectrum's course is in the sequence ``frames``, and the vectors of a caption's words, in
    their order, are in the sequence ``tokens``, where a recipe names them.
    """

    info = replace(
        _info("mini-mel", "Toy space: 64 mel bands and character n-grams."),
        audio_outputs={EMBEDDING: _N_DIMS, FRAMES: 64},
        text_outputs={EMBEDDING: _N_DIMS, TOKENS: _N_DIMS},
        sequences={FRAMES: "float16", TOKENS: "float16"},
        on_demand={
            FRAMES: "levels of 64 mel bands in 10 dB, mean of 80 ms",
            TOKENS: "each word as if it were the caption",
        },
    )
    front_end = staticmethod(mel_features)
    reader = CaptionReader(n_buckets=2048, seed=1, char_n=(3, 4))

    def encode_audio(self, clips: Sequence[FloatArray]) -> dict[str, Output]:
        """Encode mono clips at 16 kHz, one by one; see :meth:`Encoder.encode_audio`."""
        outputs: dict[str, Output] = dict(super().encode_audio(clips))
        if FRAMES in self.outputs:
            outputs[FRAMES] = [mel_frames(clip, self.view) for clip in clips]
        return outputs

    def encode_text(self, captions: Sequence[str]) -> dict[str, Output]:
        """Encode captions, one by one; see :meth:`Encoder.encode_text`."""
        outputs: dict[str, Output] = dict(super().encode_text(captions))
        if TOKENS in self.outputs:
            outputs[TOKENS] = [self._read(caption.split() or [caption]) for caption in captions]
        return outputs


class MiniMfcc(MiniEncoder):
    """Coarse envelope and its changes against words and word pairs."""

    info = _info("mini-mfcc", "Toy space: MFCC with derivatives and word n-grams.")
    front_end = staticmethod(mfcc_features)
    reader = CaptionReader(n_buckets=2048, seed=2, word_n=(1, 2))


class MiniMod(MiniEncoder):
    """Rhythm in broad bands against words, their positions and character n-grams."""

    info = _info("mini-mod", "Toy space: modulation spectrum, words and character n-grams.")
    front_end = staticmethod(modulation_features)
    reader = CaptionReader(n_buckets=2048, seed=3, word_n=(1,), char_n=(4,), positions=True)


MINI_ENCODERS: tuple[type[MiniEncoder], ...] = (MiniMel, MiniMfcc, MiniMod)
