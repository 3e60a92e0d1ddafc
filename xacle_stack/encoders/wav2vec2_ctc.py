"""wav2vec 2.0 with CTC: hidden states, and an English transcript of a clip.

Source: Baevski et al., NeurIPS 2020, arXiv:2006.11477.  Extra: ``encoders``.

The transcript is greedy: it takes the best token of each frame, merges repetitions and drops
blanks.  The output ``words`` is a hashed bag of words of the transcript or of the caption, for
their lexical overlap.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray, IntArray
from xacle_stack.encoders.base import WORDS, EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, load_exactly, read_tensors
from xacle_stack.encoders.frames import (
    LONGEST_S,
    cut,
    group_by_clip,
    masked_statistics,
    max_pieces,
    merge_statistics,
    pad,
    receptive_field,
    standardise,
)
from xacle_stack.encoders.torch_encoder import (
    PRECISIONS,
    Tensor,
    TorchEncoder,
    by_length,
    in_order,
)
from xacle_stack.encoders.transformers_folder import check_settings, read_config, read_json
from xacle_stack.errors import EncoderError

N_BUCKETS = 1024
TRANSCRIPT = ("confidence mean", "confidence variance", "blank ratio", "words", "characters")

_RATE_HZ = 16_000
_BLANK, _DELIMITER = "<pad>", "|"
_WEIGHTS = Weights(
    files=(("model.safetensors", "pytorch_model.bin"), ("config.json",), ("vocab.json",)),
    hub_id="facebook/wav2vec2-base-960h",
    source="facebook/wav2vec2-base-960h from the Hugging Face hub",
)


class Wav2Vec2Ctc(TorchEncoder):
    """Pooled hidden states, statistics of the transcript and a hashed bag of its words.

    ``transcript`` holds, in this order, mean and variance over frames of the best token's
    probability, the share of frames whose best token is the blank, and the transcript's length in
    words and in letters.

    Clips of equal length form a batch, because the model's first layer normalises over time and
    padding would change the result.
    """

    info = EncoderInfo(
        name="wav2vec2-ctc",
        summary="wav2vec2-base-960h: pooled hidden states, transcript statistics, hashed words",
        audio_outputs={"pooled": 3 * 768, "transcript": len(TRANSCRIPT), WORDS: N_BUCKETS},
        text_outputs={WORDS: N_BUCKETS},
        sample_rate_hz=_RATE_HZ,
        preprocessing=(
            "zero mean and unit variance, pieces of at most 30 s; mean, std, max; greedy CTC; "
            "lower-case words, blake2b modulo 1024"
        ),
        weights=_WEIGHTS,
        extra="encoders",
        requires=("torch", "transformers>=4.57"),
        precisions=PRECISIONS,
        item_mb=400,
        licence="Apache-2.0",
        tested_with="real code",
    )

    @classmethod
    def _build(cls, path: Path, code: Path | None) -> tuple[Any, Any]:
        transformers = cls._require("transformers")
        config = read_config(cls._what(), path, transformers.Wav2Vec2Config)
        check_settings(cls._what(), path, config, hidden_size=768)
        vocabulary = read_json(cls._what(), path, "vocab.json")
        tokens = _tokens(vocabulary, config.vocab_size)
        if tokens is None:
            raise EncoderError(
                f"{cls._what()}: {path / 'vocab.json'} is not this model's vocabulary; expected "
                f"{config.vocab_size} tokens numbered from 0, {_BLANK!r} and {_DELIMITER!r} among "
                "them."
            )
        model = transformers.Wav2Vec2ForCTC(config).float()
        file = _WEIGHTS.file(path)
        state = read_tensors(cls._what(), file)
        # Only training uses the embedding of masked frames; the hub's files lack it.
        missing = ["wav2vec2.masked_spec_embed"]
        load_exactly(cls._what(), model, state, file, may_miss=missing)
        return model, tokens

    def _embed_audio(self, clips: Sequence[FloatArray]) -> dict[str, Tensor]:
        import torch

        config = self.model.config
        shortest = receptive_field(config.conv_kernel, config.conv_stride)
        pieces, counts = cut([standardise(clip) for clip in clips], LONGEST_S * _RATE_HZ)
        pieces = [pad([piece], shortest)[0][0] for piece in pieces]
        statistics: list[tuple[IntArray, Tensor]] = []
        read: dict[int, _Frames] = {}
        for indices, stacked in by_length(pieces, lambda n: max_pieces(len(clips), n, _RATE_HZ)):
            rows, frames = self._hear(stacked)
            statistics.append((indices, rows))
            read |= zip(indices.tolist(), frames, strict=True)
        n_frames = torch.tensor([len(read[index].best) for index in range(len(pieces))])
        pooled = in_order(statistics)
        pooled = merge_statistics(pooled, n_frames.to(pooled.device), counts)
        heard = [self._describe(clip_frames) for clip_frames in group_by_clip(read, counts)]
        return {
            "pooled": pooled,
            "transcript": torch.tensor([values for values, _ in heard]),
            WORDS: torch.from_numpy(np.stack([bag for _, bag in heard])),
        }

    def _embed_text(self, captions: Sequence[str]) -> dict[str, Tensor]:
        import torch

        return {WORDS: torch.from_numpy(np.stack([bag_of_words(split_words(c)) for c in captions]))}

    def _hear(self, stacked: FloatArray) -> tuple[Tensor, list[_Frames]]:
        import torch

        outputs = self.model.wav2vec2(self._on_device(stacked))
        hidden = outputs.last_hidden_state
        probabilities = self.model.lm_head(hidden).float().softmax(dim=-1)
        confidence, best = (values.cpu().numpy() for values in probabilities.max(dim=-1))
        n_frames = torch.full((len(hidden),), hidden.shape[1], device=hidden.device)
        frames = [_Frames(*piece) for piece in zip(confidence, best, strict=True)]
        return masked_statistics(hidden, n_frames), frames

    def _describe(self, pieces: Sequence[_Frames]) -> tuple[list[float], FloatArray]:
        """Return a clip's transcript statistics and its bag of words."""
        confidence = np.concatenate([piece.confidence for piece in pieces]).astype(np.float64)
        best = np.concatenate([piece.best for piece in pieces])
        blank = self.tokenizer.index(_BLANK)
        words = [
            w for piece in pieces for w in split_words(greedy_text(piece.best, self.tokenizer))
        ]
        statistics = [
            confidence.mean(),
            confidence.var(),
            (best == blank).mean(),
            len(words),
            sum(map(len, words)),
        ]
        return [float(value) for value in statistics], bag_of_words(words)


@dataclass(frozen=True, eq=False)
class _Frames:
    """The most probable token of each frame of a piece, and its probability."""

    confidence: FloatArray
    best: IntArray


def _tokens(vocabulary: Any, n_tokens: int) -> list[str] | None:
    """Return the tokens by number; None if they are not this model's tokens."""
    if not isinstance(vocabulary, Mapping) or not {_BLANK, _DELIMITER} <= {*vocabulary}:
        return None
    if sorted(vocabulary.values()) != list(range(n_tokens)):
        return None
    return sorted(vocabulary, key=lambda token: int(vocabulary[token]))


def greedy_text(best: IntArray, tokens: Sequence[str]) -> str:
    """Return the text of the best tokens, without repetitions and special tokens.

    Examples
    --------
    >>> greedy_text(np.array([1, 1, 0, 1, 2, 2, 3]), ["<pad>", "O", "|", "H"])
    'OO H'
    """
    if not len(best):
        return ""
    kept = best[np.insert(np.diff(best) != 0, 0, True)]
    letters = (tokens[number] for number in kept)
    return "".join(
        " " if letter == _DELIMITER else letter for letter in letters if letter[0] != "<"
    )


def split_words(text: str) -> list[str]:
    """Return the words of a text in lower case; apostrophes within a word belong to it.

    Examples
    --------
    >>> split_words("A dog's bark, 2 times: 'WOOF'")
    ['a', "dog's", 'bark', 'times', 'woof']
    """
    return re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower().replace("’", "'"))


def bag_of_words(words: Sequence[str]) -> FloatArray:
    """Return the number of words in each hash bucket, shape (1024,), the same on any machine.

    Examples
    --------
    >>> float(bag_of_words(["rain", "rain"]).max())
    2.0
    """
    bag = np.zeros(N_BUCKETS, dtype=np.float32)
    for word in words:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        bag[int.from_bytes(digest, "little") % N_BUCKETS] += 1
    return bag
