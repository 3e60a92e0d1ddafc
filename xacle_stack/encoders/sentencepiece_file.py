"""Reads a tokenizer from SentencePiece's own file, with neither its library nor protobuf.

Source: Kudo and Richardson, SentencePiece, EMNLP 2018, arXiv:1808.06226.  The file is a protobuf
message of pieces with scores; the package tokenizers, which transformers needs, runs them.  Texts
become the pieces that the library makes of them, whereas those of transformers depend on its
version, and leave bytes out.  Only marks that combine with no character before them may differ.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xacle_stack._files import read_small_file
from xacle_stack._optional import require
from xacle_stack.encoders.checkpoint import Weights
from xacle_stack.errors import EncoderError

# The largest files hold 256,000 pieces in 5 MB.
_MAX_BYTES = 64 * 2**20
_UNIGRAM, _BPE = 1, 2
_NORMAL, _UNKNOWN, _USER_DEFINED, _BYTE = 1, 2, 4, 6
# A space within pieces, and what stands for a piece that no text may become: no character.
_SPACE, _NOT_IN_TEXTS = "▁", "\ufdd0"


@dataclass(frozen=True)
class SentencePieces:
    """The pieces of a file, and the tokenizer that makes them of texts.

    Attributes
    ----------
    pieces : tuple of str
        By number.  Control pieces such as ``"[CLS]"`` are among them.
    tokenizer : tokenizers.Tokenizer
        It adds no marks of begin and end.
    """

    pieces: tuple[str, ...]
    tokenizer: Any

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the numbers of each text's pieces."""
        return [one.ids for one in self.tokenizer.encode_batch(list(texts))]


@dataclass(frozen=True)
class MarkedPieces:
    """Makes tokens of texts: numbers of pieces plus `shift`, between two marks."""

    pieces: SentencePieces
    begin: int
    end: int
    pad_token_id: int
    shift: int = 0

    def __call__(self, texts: Sequence[str], *, verbose: bool = False) -> dict[str, Any]:
        """Return the tokens of texts as ``"input_ids"``, like a tokenizer of transformers."""
        rows = self.pieces.encode(texts)
        return {
            "input_ids": [
                [self.begin, *(number + self.shift for number in row), self.end] for row in rows
            ]
        }


@dataclass(frozen=True)
class SentencePieceTokenizer:
    """A tokenizer in SentencePiece's file, with the pieces that mark a text and fill a row."""

    begin: str
    end: str
    padding: str
    tokenizer: Weights

    def read_tokenizer(
        self, what: str, transformers: Any, files: Sequence[Path], n_tokens: int
    ) -> MarkedPieces:
        """Read the tokenizer and check that the weights have a token for each of its pieces."""
        (file,) = Weights(self.tokenizer.files).files_in(files[0].parent)
        pieces = read_sentencepiece(what, file)
        marks = (self.begin, self.end, self.padding)
        missing = [mark for mark in marks if mark not in pieces.pieces]
        if missing or len(pieces.pieces) > n_tokens:
            raise EncoderError(
                f"{what}: {file} belongs to another model: it has {len(pieces.pieces)} pieces"
                + (f", and none for {', '.join(missing)}" if missing else "")
                + f"; the weights have {n_tokens} tokens. Replace it by that of the weights."
            )
        return MarkedPieces(pieces, *map(pieces.pieces.index, marks))


def read_sentencepiece(what: str, file: Path) -> SentencePieces:
    """Read the pieces of a SentencePiece file (``spm.model``).

    EncoderError if it is damaged, or asks for what this library does not build.
    """
    tokenizers = require("tokenizers", extra="encoders", purpose=what)
    try:
        return _build(tokenizers, read_small_file(file, _MAX_BYTES))
    except Exception as error:  # each kind of damage has its own exception
        raise EncoderError(
            f"{what}: {file} cannot be read as a SentencePiece model "
            f"({type(error).__name__}: {error}). If it is a download, delete it and fetch it again."
        ) from None


def _build(tokenizers: Any, content: bytes) -> SentencePieces:
    message = list(_fields(content))
    rows = [dict(_fields(value)) for number, value in message if number == 1]
    pieces = [row[1].decode() for row in rows]
    scores = [struct.unpack("<f", row.get(2, bytes(4)))[0] for row in rows]
    kinds = [row.get(3, _NORMAL) for row in rows]
    trainer, normalizer = (
        dict(_fields(b"".join(value for field, value in message if field == number)))
        for number in (2, 3)
    )
    if kinds.count(_UNKNOWN) != 1:
        raise ValueError(f"{kinds.count(_UNKNOWN)} pieces for unknown characters, expected 1")
    if trainer.get(24) or not normalizer.get(5, 1):
        raise ValueError("spaces are not marked at the beginning of words")
    in_texts = (_NORMAL, _USER_DEFINED, _BYTE)
    names = [
        piece if kind in in_texts else f"{_NOT_IN_TEXTS}{number}"
        for number, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
    ]
    unknown, falls_back = kinds.index(_UNKNOWN), bool(trainer.get(35))
    kind = trainer.get(3, _UNIGRAM)
    if kind == _UNIGRAM:
        # SentencePiece prefers a piece that a user defined to all others.
        best = max(scores)
        scores = [
            len(piece.encode()) * best - 0.1 if kind == _USER_DEFINED else score
            for piece, kind, score in zip(pieces, kinds, scores, strict=True)
        ]
        model = tokenizers.models.Unigram(
            list(zip(names, scores, strict=True)), unk_id=unknown, byte_fallback=falls_back
        )
    elif kind == _BPE and _USER_DEFINED not in kinds:
        model = tokenizers.models.BPE(
            {name: number for number, name in enumerate(names)},
            _merges(names, scores, kinds),
            unk_token=names[unknown],
            fuse_unk=True,
            byte_fallback=falls_back,
        )
    else:
        raise ValueError("its pieces are neither unigrams nor those of a plain BPE")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = _normalizer(tokenizers, normalizer)
    return SentencePieces(tuple(pieces), tokenizer)


def _normalizer(tokenizers: Any, settings: dict[int, Any]) -> Any:
    replace, kinds = tokenizers.normalizers.Replace, tokenizers.normalizers
    steps = [kinds.Precompiled(settings[2])] if settings.get(2) else []
    if settings.get(4, 1):
        steps += [replace(tokenizers.Regex(end), "") for end in (r"\A +", r" +\z")]
        steps += [replace(tokenizers.Regex(" {2,}"), " ")]
    steps += [kinds.Prepend(_SPACE)] if settings.get(3, 1) else []
    return kinds.Sequence([*steps, replace(" ", _SPACE)])


def _merges(names: list[str], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """Return the pairs that are joined to pieces, those first that SentencePiece joins first."""
    known = {name for name, kind in zip(names, kinds, strict=True) if kind == _NORMAL}
    pairs = [
        (-score, name[:end], name[end:])
        for name, score in zip(names, scores, strict=True)
        if name in known
        for end in range(1, len(name))
        if name[:end] in known and name[end:] in known
    ]
    return [(left, right) for _, left, right in sorted(pairs, key=lambda pair: pair[0])]


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the fields of a protobuf message: numbers as int, all else as bytes."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        if key % 8 == 0:
            value, position = _varint(message, position)
            yield key // 8, value
            continue
        size = {1: 8, 5: 4}.get(key % 8)
        if key % 8 == 2:
            size, position = _varint(message, position)
        if size is None or position + size > len(message):
            raise ValueError(f"no field of a message at byte {position}")
        yield key // 8, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return the number at a position, in groups of seven bits, and the position behind it."""
    value = 0
    for count, byte in enumerate(message[position : position + 10]):
        value |= (byte & 127) << (7 * count)
        if byte < 128:
            return value, position + count + 1
    raise ValueError(f"no number at byte {position}")
