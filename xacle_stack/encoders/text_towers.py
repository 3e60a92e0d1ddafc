"""Builds GPT-2, BERT and RoBERTa as text towers, in the sizes of a checkpoint's tensors.

Such a checkpoint seldom comes with its tokenizer, which is then taken from the hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._types import IntArray
from xacle_stack.encoders.checkpoint import Weights
from xacle_stack.encoders.sentencepiece_file import SentencePieceTokenizer
from xacle_stack.errors import EncoderError

HEAD_DIMS = 64  # in all published sizes


@dataclass(frozen=True)
class TextTokenizer:
    """The tokenizer of a kind of text tower: a class of transformers, and its files."""

    tokenizer_class: str
    tokenizer: Weights

    def read_tokenizer(
        self, what: str, transformers: Any, files: Sequence[Path], n_tokens: int
    ) -> Any:
        """Read the tokenizer from files in one folder and check that it belongs to the weights.

        `n_tokens` is the number of rows of the text tower's embeddings.
        """
        folder = files[0].parent
        try:
            tokenizer = getattr(transformers, self.tokenizer_class).from_pretrained(str(folder))
        except Exception as error:  # its type depends on the damage and on the version
            raise EncoderError(
                f"{what}: the tokenizer in {folder} cannot be read "
                f"({type(error).__name__}: {error})."
            ) from None
        if len(tokenizer) != n_tokens:
            raise EncoderError(
                f"{what}: the tokenizer in {folder} knows {len(tokenizer)} tokens, the weights "
                f"{n_tokens}: it belongs to another model. Replace its files by those of "
                f"{self.tokenizer.hub_id}."
            )
        return tokenizer


@dataclass(frozen=True, kw_only=True)
class TextTower(TextTokenizer):
    """A kind of text tower, with its tokenizer.

    `build` takes the transformers module and a state dict, and returns a model of that size without
    its weights; a missing tensor stands for the size of the base model.  `computed` are patterns of
    tables that the model computes and that older versions of transformers saved.
    """

    build: Callable[[Any, Mapping[str, Any]], Any]
    computed: tuple[str, ...]


def tokenise(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[IntArray, IntArray]:
    """Return the tokens of texts, padded to the longest, and a mask that is 0 for padding.

    Of a text with more than `max_tokens` tokens, the first ones and the last one, which marks the
    end, are kept.
    """
    rows = [
        row if len(row) <= max_tokens else [*row[: max_tokens - 1], row[-1]]
        for row in tokenizer(list(texts), verbose=False)["input_ids"]
    ]
    shape = len(rows), max(map(len, rows))
    ids, mask = np.full(shape, tokenizer.pad_token_id), np.zeros(shape, dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask


def _build_gpt2(transformers: Any, state: Mapping[str, Any]) -> Any:
    config = transformers.GPT2Config()
    config.vocab_size, config.n_embd = tensor_shape(
        state, "wte.weight", (config.vocab_size, config.n_embd)
    )
    (config.n_positions, _) = tensor_shape(state, "wpe.weight", (config.n_positions, config.n_embd))
    (config.n_inner,) = tensor_shape(state, "h.0.mlp.c_fc.bias", (4 * config.n_embd,))
    config.n_layer = count_layers(state, r"h\.(\d+)\.", config.n_layer)
    config.n_head = config.n_embd // HEAD_DIMS
    return transformers.GPT2Model(config)


def _build_bert(transformers: Any, state: Mapping[str, Any]) -> Any:
    config = transformers.BertConfig()
    config.vocab_size, config.hidden_size = tensor_shape(
        state, "embeddings.word_embeddings.weight", (config.vocab_size, config.hidden_size)
    )
    config.max_position_embeddings, _ = tensor_shape(
        state,
        "embeddings.position_embeddings.weight",
        (config.max_position_embeddings, config.hidden_size),
    )
    (config.intermediate_size,) = tensor_shape(
        state, "encoder.layer.0.intermediate.dense.bias", (config.intermediate_size,)
    )
    config.num_hidden_layers = count_layers(
        state, r"encoder\.layer\.(\d+)\.", config.num_hidden_layers
    )
    config.num_attention_heads = config.hidden_size // HEAD_DIMS
    return transformers.BertModel(config)


def tensor_shape(state: Mapping[str, Any], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return a tensor's shape; the default if it is missing or has another number of axes."""
    shape = tuple(getattr(state.get(key), "shape", ()))
    return shape if len(shape) == len(default) else default


def count_layers(state: Mapping[str, Any], pattern: str, default: int) -> int:
    """Return the number of layers, which the pattern's group numbers from 0."""
    numbers = [int(found[1]) for key in state if (found := re.match(pattern, key))]
    return max(numbers, default=default - 1) + 1


_OPTIONAL_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
GPT2 = TextTower(
    build=_build_gpt2,
    computed=("h.*.attn.bias", "h.*.attn.masked_bias"),
    tokenizer_class="GPT2TokenizerFast",
    tokenizer=Weights(
        files=(("vocab.json",), ("merges.txt",)),
        optional=_OPTIONAL_FILES,
        hub_id="openai-community/gpt2",
        source="gpt2 from the Hugging Face hub",
    ),
)
BERT = TextTower(
    build=_build_bert,
    computed=("embeddings.position_ids",),
    tokenizer_class="BertTokenizerFast",
    tokenizer=Weights(
        files=(("vocab.txt",),),
        optional=_OPTIONAL_FILES,
        hub_id="google-bert/bert-base-uncased",
        source="bert-base-uncased from the Hugging Face hub",
    ),
)
ROBERTA = TextTokenizer(
    tokenizer_class="RobertaTokenizerFast",
    tokenizer=Weights(
        # Either the one file, or both others.
        files=(("tokenizer.json", "vocab.json"), ("tokenizer.json", "merges.txt")),
        optional=("vocab.json", "merges.txt", *_OPTIONAL_FILES),
        hub_id="FacebookAI/roberta-base",
        source="roberta-base from the Hugging Face hub",
    ),
)
MPNET = TextTokenizer(
    tokenizer_class="MPNetTokenizerFast",
    tokenizer=Weights(
        files=(("vocab.txt",),),
        optional=_OPTIONAL_FILES,
        hub_id="microsoft/mpnet-base",
        source="mpnet-base from the Hugging Face hub",
    ),
)
DEBERTA = SentencePieceTokenizer(
    begin="[CLS]",
    end="[SEP]",
    padding="[PAD]",
    tokenizer=Weights(
        files=(("spm.model",),),
        optional=("tokenizer_config.json",),
        hub_id="microsoft/deberta-v3-base",
        source="deberta-v3-base from the Hugging Face hub",
    ),
)
