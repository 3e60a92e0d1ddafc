"""Tokenizers that need no download: bytes and special tokens only, in the hub's files."""

import json
from pathlib import Path


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
    """Write roberta-base's files with a vocabulary of bytes.

    Tokens beyond the bytes never occur; the real one has 50,265.
    """
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *byte_alphabet()]
    fillers = [f"<{number}>" for number in range(len(vocabulary), n_tokens - 1)]
    _write_bpe(folder, [*vocabulary, *fillers, "<mask>"])
    settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_gpt2(folder: Path, n_tokens: int = 257) -> None:
    """Write gpt2's files with a vocabulary of bytes: '!' is token 0, as in the real one.

    Tokens beyond the bytes never occur; the real one has 50,257.
    """
    alphabet = sorted(byte_alphabet())
    fillers = [f"<{number}>" for number in range(len(alphabet), n_tokens - 1)]
    _write_bpe(folder, [*alphabet, *fillers, "<|endoftext|>"])
    settings = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_bert(folder: Path, n_tokens: int = 141) -> None:
    """Write bert-base-uncased's files with a vocabulary of letters.

    Tokens beyond the letters never occur; the real one has 30,522.
    """
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary += [f"[unused{number}]" for number in range(len(vocabulary), n_tokens)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _write_bpe(folder: Path, vocabulary: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: number for number, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
