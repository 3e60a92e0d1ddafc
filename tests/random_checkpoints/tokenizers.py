"""Tokenizers that need no download, in the hub's files: bytes, and a few words where there is room.

The words keep captions about as long, in tokens, as the real tokenizers make them.
"""

import json
from pathlib import Path

# fmt: off
WORDS = [
    "a", "an", "the", "and", "of", "on", "in", "with", "by", "while", "then", "as", "is", "are",
    "to", "from", "dog", "dogs", "barks", "barking", "cat", "meows", "rain", "rains", "falls",
    "falling", "tin", "roof", "roofs", "heavy", "light", "wind", "blows", "man", "woman", "child",
    "old", "people", "speak", "speaks", "speaking", "talk", "talks", "laughs", "laughing",
    "cries", "crying", "baby", "bird", "birds", "chirp", "chirping", "sings", "rooster", "crows",
    "car", "cars", "pass", "passes", "passing", "engine", "runs", "running", "train", "horn",
    "helicopter", "chainsaw", "water", "waves", "sea", "ocean", "clock", "ticks", "ticking",
    "fire", "crackles", "crackling", "sneezes", "sound", "distance", "background", "loud",
    "quiet", "noise", "music", "plays", "playing", "door", "bell", "rings",
]
# fmt: on


def byte_alphabet() -> list[str]:
    """Return the 256 characters that byte-level BPE writes bytes as (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + n for n in range(256 - len(printable))]
    by_byte = dict.fromkeys(printable)
    characters = {byte: chr(byte) for byte in by_byte}
    rest = iter(others)
    for byte in range(256):
        if byte not in characters:
            characters[byte] = chr(next(rest))
    return [characters[byte] for byte in range(256)]


def write_roberta(folder: Path, n_tokens: int = 261) -> None:
    """Write roberta-base's files; the real one has 50,265 tokens."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *byte_alphabet()]
    _write_bpe(folder, vocabulary, n_tokens, "<mask>")
    settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_gpt2(folder: Path, n_tokens: int = 257) -> None:
    """Write gpt2's files: '!' is token 0, as in the real one, which has 50,257 tokens."""
    alphabet = sorted(byte_alphabet())
    _write_bpe(folder, alphabet, n_tokens, "<|endoftext|>")
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_bert(folder: Path, n_tokens: int = 141) -> None:
    """Write bert-base-uncased's files with a vocabulary of letters.

    Tokens beyond the letters never occur; the real one has 30,522.
    """
    _write_letters(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], n_tokens, [], "Bert")


def write_mpnet(folder: Path, n_tokens: int = 150) -> None:
    """Write mpnet-base's files in the same way: RoBERTa's marks, and BERT's words between them."""
    first = ["<s>", "<pad>", "</s>", "<unk>", "[PAD]", "[UNK]"]
    _write_letters(folder, first, n_tokens, ["<mask>"], "MPNet")


def _write_letters(
    folder: Path, first: list[str], n_tokens: int, last: list[str], tokenizer: str
) -> None:
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocabulary = [*first, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary += [f"[unused{number}]" for number in range(len(vocabulary), n_tokens - len(last))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join([*vocabulary, *last]) + "\n")
    settings = {
        "tokenizer_class": f"{tokenizer}Tokenizer",
        "do_lower_case": True,
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _write_bpe(folder: Path, letters: list[str], n_tokens: int, last: str) -> None:
    """Write a vocabulary of letters, every beginning of the words, fillers and a last token."""
    merges: dict[str, str] = {}
    for word in WORDS:
        for end in range(len(word)):
            merges[f"Ġ{word[: end + 1]}"] = f"Ġ{word[:end]} {word[end]}"
    if len(letters) + len(merges) >= n_tokens:
        merges = {}
    tokens = [*letters, *merges]
    tokens += [f"<{number}>" for number in range(len(tokens), n_tokens - 1)]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate([*tokens, last])}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    lines = ["#version: 0.2", *merges.values(), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
