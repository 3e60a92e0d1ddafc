"""Sentence encoders of any hub id or folder: captions only, named ``text:HUB_ID_OR_FOLDER``.

Source: Reimers and Gurevych, Sentence-BERT, EMNLP 2019, arXiv:1908.10084.  Extra: ``encoders``.

The models are those in the format of the package sentence-transformers, which is not needed.  Its
JSON files say how many tokens of a caption are used, and how they become one vector.  A DeBERTa may
come without them; its vector is then the mean over tokens, which is that package's default.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from xacle_stack.encoders.base import EMBEDDING, EncoderInfo
from xacle_stack.encoders.checkpoint import Weights, find_on_hub
from xacle_stack.encoders.sentence import (
    BODIES,
    ON_DEMAND,
    SEQUENCES,
    TOKENS,
    WEIGHT_FILES,
    Pooling,
    SentenceEncoder,
)
from xacle_stack.encoders.text_towers import DEBERTA
from xacle_stack.encoders.torch_encoder import PRECISIONS
from xacle_stack.encoders.transformers_folder import check_model_type, read_json
from xacle_stack.errors import EncoderError

TEXT_PREFIX = "text:"

_EXAMPLE = f"{TEXT_PREFIX}sentence-transformers/all-mpnet-base-v2"
_MODULES, _LIMITS = "modules.json", "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_TOKENIZER = "tokenizer_config.json"
_FOLDER_NAME = re.compile(r"\w[\w.-]*")
_REQUIRES = ("torch", "transformers>=4.57")
_POOLINGS: dict[str, Pooling] = {"mean": "mean", "cls": "first"}
# What one file says by switches, and the newest by a name.
_SWITCHES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


class AnySentenceEncoder(SentenceEncoder):
    """What is known of the sentence encoders before one is named."""

    info = EncoderInfo(
        name="text",
        summary=f"any sentence encoder of the hub or of a folder, such as {_EXAMPLE}",
        text_outputs={EMBEDDING: 0, TOKENS: 0},  # a model's config.json says how many
        extra="encoders",
        requires=_REQUIRES,
        precisions=PRECISIONS,
        tested_with="real code",
        sequences=SEQUENCES,
        on_demand=ON_DEMAND,
    )


@dataclass(frozen=True)
class _Settings:
    """What the JSON files of a model say, as far as vectors depend on it."""

    body: str
    n_dims: int
    max_tokens: int
    pooling: Pooling
    files: tuple[str, ...]
    is_normalised: bool
    is_lower_case: bool

    @property
    def summary(self) -> str:
        parts = [f"{self.pooling} of {self.max_tokens} tokens"]
        parts += ["in lower case"] * self.is_lower_case + ["length 1"] * self.is_normalised
        return ", ".join(parts)


def split_text_output(name: str) -> tuple[str, str]:
    """Return the encoder and the output of ``"text:PLACE:output"``; without one it is empty.

    Examples
    --------
    >>> split_text_output("text:some/one:tokens"), split_text_output("text:some/one")
    (('text:some/one', 'tokens'), ('text:some/one', ''))
    """
    for output in (EMBEDDING, TOKENS):
        if name.endswith(f":{output}"):
            return name.removesuffix(f":{output}"), output
    return name, ""


def sentence_encoder(source: str) -> type[SentenceEncoder]:
    """Return the class of the encoder of a hub id or folder, without reading its weights.

    Its small JSON files are read, and downloaded if they are neither in a folder nor in the hub's
    cache.

    Raises
    ------
    EncoderError
        If there is no such model, or it is none that this library can build.
    MissingExtraError
        If the hub's client is needed and not installed.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return _make(source, None, _read_settings(source, _on_hub(source)))
    return _make(source, folder.absolute(), _read_settings(source, folder))


@lru_cache
def _on_hub(source: str) -> Path:
    """Return the folder in the hub's cache that holds the JSON files of a model."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", source):
        raise EncoderError(
            f"{_what(source)}: there is no folder {source!r}. Give an existing folder, or a hub "
            f"id, as in {_EXAMPLE!r}."
        )
    # A DeBERTa without the other files is known by its tokenizer.
    pieces = DEBERTA.tokenizer.files[0]
    files = Weights(
        files=(("config.json",), (_MODULES, *pieces), ("*Pooling/config.json", *pieces)),
        optional=(_LIMITS, _PROMPTS, _TOKENIZER),
    )
    return find_on_hub(_what(source), files, source, option=None, use=_USE)


_USE = f"name that folder: {TEXT_PREFIX}FOLDER."


@lru_cache
def _make(source: str, folder: Path | None, settings: _Settings) -> type[SentenceEncoder]:
    name = Path(source).name if folder is None else folder.name
    tokenizer = BODIES[settings.body].tokenizer.tokenizer
    needed = Weights(
        files=(*WEIGHT_FILES, *((name,) for name in settings.files), *tokenizer.files),
        optional=(*tokenizer.optional, _LIMITS, _PROMPTS),
        hub_id=source,
        source=source,
    )

    class OfFolder(SentenceEncoder):
        info = EncoderInfo(
            name="text-" + re.sub(r"[^a-z0-9._-]+", "-", name.lower()),
            summary=f"{source}: a sentence encoder of captions, {settings.summary}",
            text_outputs=dict.fromkeys((EMBEDDING, TOKENS), settings.n_dims),
            preprocessing=settings.summary,
            weights=needed,
            extra="encoders",
            requires=_REQUIRES,
            precisions=PRECISIONS,
            item_mb=settings.n_dims // 10,
            tested_with="real code",
            sequences=SEQUENCES,
            on_demand=ON_DEMAND,
        )
        body = settings.body
        pooling = settings.pooling
        is_normalised = settings.is_normalised
        max_tokens = settings.max_tokens

        @classmethod
        def find_checkpoint(cls, checkpoint: str | None, *, download: bool = True) -> Path | None:
            if checkpoint is None and folder is None:
                what = _what(source)
                return find_on_hub(what, needed, source, option=None, use=_USE, download=download)
            return super().find_checkpoint(checkpoint or str(folder), download=download)

        @classmethod
        def _clean(cls, caption: str) -> str:
            stripped = caption.strip()
            return stripped.lower() if settings.is_lower_case else stripped

    return OfFolder


def _what(source: str) -> str:
    return f"encoder {TEXT_PREFIX + source!r}"


def _read_settings(source: str, folder: Path) -> _Settings:
    """Read a model's JSON files; EncoderError if they ask for what this library does not build."""
    what = _what(source)
    config = read_json(what, folder, "config.json")
    body = check_model_type(what, folder, config, *BODIES)
    pooling: Pooling = "mean"
    files: tuple[str, ...] = ()
    is_normalised = False
    if not (BODIES[body].published_alone and _has_no_steps(folder)):
        pooling_file, is_normalised = _read_modules(what, folder)
        pooling, files = _read_pooling(what, folder, pooling_file), (_MODULES, pooling_file)
    limits = _read_optional(what, folder, _LIMITS)
    is_lower_case = limits.get("do_lower_case") is True
    if BODIES[body].tokenizer is DEBERTA:  # the other tokenizers read this file themselves
        own = _read_optional(what, folder, _TOKENIZER)
        is_lower_case |= own.get("do_lower_case") is True
        if own.get("split_by_punct"):
            raise EncoderError(
                f"{what}: {folder / _TOKENIZER} sets split_by_punct, which this library does not "
                "build; no published DeBERTa does."
            )
    n_positions = _number(what, folder / "config.json", config, "max_position_embeddings")
    max_tokens = n_positions - BODIES[body].n_reserved
    if limits.get("max_seq_length") is not None:
        max_tokens = min(max_tokens, _number(what, folder / _LIMITS, limits, "max_seq_length"))
    prompt = _read_optional(what, folder, _PROMPTS).get("default_prompt_name")
    if prompt is not None:
        raise EncoderError(
            f"{what}: {folder / _PROMPTS} puts the prompt {prompt!r} before every text, which this "
            "library does not. Set default_prompt_name to null to do without."
        )
    return _Settings(
        body=body,
        n_dims=_number(what, folder / "config.json", config, "hidden_size"),
        max_tokens=max_tokens,
        pooling=pooling,
        files=files,
        is_normalised=is_normalised,
        is_lower_case=is_lower_case,
    )


def _has_no_steps(folder: Path) -> bool:
    """Return whether a folder has none of the package's files, so that none can have been lost."""
    return not any((folder / name).exists() for name in (_MODULES, _LIMITS, _PROMPTS, "1_Pooling"))


def _read_modules(what: str, folder: Path) -> tuple[str, bool]:
    """Return the file that describes the pooling, and whether vectors get the length 1."""
    modules = read_json(what, folder, _MODULES)
    try:
        steps = [(str(one["type"]).rpartition(".")[2], str(one["path"])) for one in modules]
    except (KeyError, TypeError):
        steps = []
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or not (
        steps[0][1] == "" and _FOLDER_NAME.fullmatch(steps[1][1])
    ):
        raise EncoderError(
            f"{what}: {folder / _MODULES} lists the steps {kinds}; expected a Transformer in this "
            "folder, a Pooling in a folder below, and perhaps a Normalize."
        )
    return f"{steps[1][1]}/config.json", len(steps) > 2


def _read_pooling(what: str, folder: Path, file: str) -> Pooling:
    settings = read_json(what, folder, file)
    if not isinstance(settings, dict):
        settings = {}
    switched_on = [
        _SWITCHES.get(name, name)
        for name, value in settings.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    named = [settings["pooling_mode"]] if "pooling_mode" in settings else switched_on
    if len(named) != 1 or named[0] not in ("mean", "cls"):
        raise EncoderError(
            f"{what}: {folder / file} asks for the poolings {named}; expected one, 'mean' over "
            "tokens or 'cls', the first token."
        )
    return _POOLINGS[named[0]]


def _read_optional(what: str, folder: Path, name: str) -> dict[str, Any]:
    settings = read_json(what, folder, name) if (folder / name).is_file() else {}
    return settings if isinstance(settings, dict) else {}


def _number(what: str, file: Path, settings: dict[str, Any], name: str) -> int:
    value = settings.get(name)
    if not isinstance(value, int) or value < 3:
        raise EncoderError(f"{what}: {file} says {name} is {value!r}; expected a number above 2.")
    return value
