"""SentencePiece's file, read with and without its library."""

import struct
from pathlib import Path

import numpy as np
import pytest
from random_checkpoints.deberta import train_pieces
from random_checkpoints.tokenizers import WORDS

from xacle_stack.encoders.sentencepiece_file import read_sentencepiece
from xacle_stack.encoders.text_towers import DEBERTA
from xacle_stack.errors import EncoderError

pytest.importorskip("tokenizers")
sentencepiece = pytest.importorskip("sentencepiece")

TEXTS = [
    "",
    "  ",
    "  Rain!  Heavy rain\ton a tin roof, \n",
    "雨の音 😀 x",
    "<unk> <s> </s>",
    "a" * 3000,
    "ﬁne ｆｕｌｌ ①",
    "\u3000sea\u3000",
    "▁under▁score",
    "Ünïcode ελλ русский e\u0301",
]
NAMES = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}
SETTINGS: list[dict[str, object]] = [
    {},
    {"byte_fallback": True},
    {"normalization_rule_name": "identity"},
    {"add_dummy_prefix": False},
    {"remove_extra_whitespaces": False},
    {"character_coverage": 0.98},
]


def texts() -> list[str]:
    rng = np.random.default_rng(0)
    characters = list("abcdeéß雨の😀 \t.,!ｆ①")
    odd = ["".join(rng.choice(characters, size=rng.integers(1, 40))) for _ in range(300)]
    return TEXTS + odd + [" ".join(rng.choice(WORDS, size=9)) for _ in range(100)]


def write(folder: Path, content: bytes) -> Path:
    path = folder / "spm.model"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(kind, settings) for kind in ("unigram", "bpe") for settings in SETTINGS]
    + [("unigram", {"user_defined_symbols": ["dog_", "rain"]})],
)
def test_texts_become_the_pieces_that_the_library_makes(
    tmp_path: Path, kind: str, settings: dict[str, object]
) -> None:
    content = train_pieces(NAMES, kind, **settings)
    library = sentencepiece.SentencePieceProcessor(model_proto=content)
    found = read_sentencepiece("x", write(tmp_path, content))
    assert found.pieces[:3] == ("<unk>", "<s>", "</s>")
    assert len(found.pieces) == library.get_piece_size()
    for text, numbers in zip(texts(), found.encode(texts()), strict=True):
        assert numbers == library.encode(text), repr(text)


def field(number: int, value: int | bytes) -> bytes:
    """Return a field of a protobuf message."""
    if isinstance(value, int):
        return bytes([*varint(number * 8), *varint(value)])
    return bytes([*varint(number * 8 + 2), *varint(len(value))]) + value


def varint(value: int) -> list[int]:
    return [value] if value < 128 else [value % 128 + 128, *varint(value // 128)]


def piece(name: str, kind: int = 1, score: float = 0.0) -> bytes:
    score_field = bytes([2 * 8 + 5]) + struct.pack("<f", score)
    return field(1, field(1, name.encode()) + score_field + field(3, kind))


UNKNOWN, LETTERS = piece("<unk>", 2), piece("▁", score=-1.0) + piece("a", score=-2.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 pieces for unknown"),
        (b"not a message", "no field|no number"),
        (UNKNOWN[:-3], "no field"),
        (UNKNOWN + b"\x08" + b"\xff" * 20, "no number"),
        (UNKNOWN + UNKNOWN + LETTERS, "2 pieces for unknown"),
        (UNKNOWN + field(1, field(3, 1)), "KeyError"),
        (UNKNOWN + field(1, field(1, b"\xff")), "UnicodeDecodeError"),
        (UNKNOWN + field(1, 3), "TypeError"),
        (UNKNOWN + LETTERS + field(2, field(3, 3)), "neither unigrams nor"),
        (UNKNOWN + LETTERS + piece("x", 4) + field(2, field(3, 2)), "neither unigrams nor"),
        (UNKNOWN + LETTERS + field(2, field(24, 1)), "spaces"),
        (UNKNOWN + LETTERS + field(3, field(5, 0)), "spaces"),
        (UNKNOWN + LETTERS + field(3, field(2, b"rules")), "precompiled"),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(EncoderError, match=rf"^x: .*spm\.model cannot be read .*({message})"):
        read_sentencepiece("x", path)


def test_a_file_may_leave_out_what_is_usual(tmp_path: Path) -> None:
    pieces = read_sentencepiece("x", write(tmp_path, UNKNOWN + LETTERS))
    assert pieces.encode(["a  a", "b", ""]) == [[1, 2, 1, 2], [1, 0], []]


def test_the_marks_of_a_text_are_looked_for(tmp_path: Path) -> None:
    marks = b"".join(piece(name, 3) for name in ("[PAD]", "[CLS]", "[SEP]"))
    path = write(tmp_path, UNKNOWN + marks + LETTERS)
    tokenizer = DEBERTA.read_tokenizer("x", None, [path], n_tokens=6)
    assert tokenizer(["a", "[CLS]"])["input_ids"] == [[2, 4, 5, 3], [2, 4, 0, 3]]
    assert tokenizer.pad_token_id == 1
    with pytest.raises(EncoderError, match="it has 6 pieces; the weights have 5 tokens"):
        DEBERTA.read_tokenizer("x", None, [path], n_tokens=5)
    write(tmp_path, UNKNOWN + LETTERS)
    with pytest.raises(EncoderError, match=r"none for \[CLS\], \[SEP\], \[PAD\]"):
        DEBERTA.read_tokenizer("x", None, [path], n_tokens=6)
