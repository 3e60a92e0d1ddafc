"""Finds a language model and reads it without running code from its files.

A language model is any decoder that transformers loads as a causal language model, from a folder or
a hub id: ``config.json``, ``tokenizer.json`` and weights in safetensors.  Extra: ``language``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from xacle_stack._files import read_small_file
from xacle_stack._optional import require, stand_ins
from xacle_stack.encoders.checkpoint import HUB_ID, Weights, find_on_hub, load_exactly, read_tensors
from xacle_stack.encoders.transformers_folder import model_settings, read_json
from xacle_stack.errors import EncoderError, ModelFileError

Module = Any  # torch and transformers are imported where a model is built

FILES = Weights(
    files=(
        ("model.safetensors", "model-*-of-*.safetensors"),
        ("config.json",),
        ("tokenizer.json",),
    ),
    optional=("generation_config.json", "tokenizer_config.json"),
    source="a causal language model of the Hugging Face hub, in safetensors",
)

_MAX_TOKENIZER_BYTES = 64 * 2**20
# What says how weights are stored, not what the model computes.
_STORAGE = ("torch_dtype", "dtype")


@dataclass(frozen=True)
class LanguageModel:
    """A language model without its weights: what builds it, as plain text.

    Attributes
    ----------
    settings : str
        The model's ``config.json``.
    tokenizer : str
        Its ``tokenizer.json``.
    end_token : int
        The token after the last one of a text.
    """

    settings: str
    tokenizer: str
    end_token: int

    def __post_init__(self) -> None:
        n_rows, n_tokens = self._config.vocab_size, self._n_tokens
        if n_tokens > n_rows:
            raise EncoderError(
                f"the language model has {n_rows} token embeddings, and its tokenizer makes "
                f"{n_tokens} different tokens, so that some have none. Take the tokenizer.json "
                "that belongs to the model, or add embeddings with transformers' "
                "resize_token_embeddings and save the model again."
            )
        if not 0 <= self.end_token < n_rows:
            raise EncoderError(f"the language model has no token {self.end_token!r} of the end.")

    @property
    def n_dims(self) -> int:
        """The length of a token's vector."""
        return int(self._config.hidden_size)

    @property
    def n_positions(self) -> int | None:
        """The longest sequence, or None where the model has no limit."""
        found = getattr(self._config, "max_position_embeddings", None)
        return None if found is None else int(found)

    def build(self) -> Module:
        """Return the model in float32 with random weights."""
        transformers = _transformers()
        torch = require("torch", extra="language", purpose=_PURPOSE)
        with stand_ins(["torchaudio", "torchvision"]):  # transformers imports them beside others
            return transformers.AutoModelForCausalLM.from_config(self._config, dtype=torch.float32)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text, without any that mark its beginning or end."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def text(self, tokens: list[int]) -> str:
        """Return the text that tokens stand for."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    @cached_property
    def _config(self) -> Any:
        transformers = _transformers()
        try:
            settings = model_settings(json.loads(self.settings))
            kind = settings.pop("model_type", None)
            return transformers.AutoConfig.for_model(kind, **settings)
        except Exception as error:  # transformers checks values, differently in each version
            raise EncoderError(
                "the language model's config.json is none that this version of transformers knows "
                f"({type(error).__name__}: {str(error)[:200]})."
            ) from None

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizers = require("tokenizers", extra="language", purpose=_PURPOSE)
        try:
            return tokenizers.Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # tokenizers raises Exception itself
            raise EncoderError(
                f"the language model's tokenizer.json cannot be read ({str(error)[:200]})."
            ) from None

    @property
    def _n_tokens(self) -> int:
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)


_PURPOSE = "a language model"


@lru_cache(maxsize=2)
def language_from(settings: str, tokenizer: str, end_token: int) -> LanguageModel:
    """Return a language model from what is saved of it; large tokenizers are read once."""
    return LanguageModel(settings, tokenizer, end_token)


def read_language_model(place: str) -> tuple[LanguageModel, Path]:
    """Return a language model without its weights, and the folder of its files.

    Parameters
    ----------
    place : str
        A folder, or a hub id such as ``"Qwen/Qwen2.5-0.5B-Instruct"``.

    Raises
    ------
    EncoderError
        If there is no such model, files are missing or damaged, or the tokenizer does not fit it.
    MissingExtraError
        If transformers is not installed.
    """
    folder = find_language_model(place)
    what = _what(place)
    settings = read_json(what, folder, "config.json")
    if not isinstance(settings, dict):
        raise EncoderError(f"{what}: {folder / 'config.json'} holds no settings of a model.")
    try:
        tokenizer = read_small_file(folder / "tokenizer.json", _MAX_TOKENIZER_BYTES).decode()
    except (OSError, ValueError) as error:
        raise EncoderError(f"{what}: {folder / 'tokenizer.json'}: not readable: {error}.") from None
    plain = {name: value for name, value in settings.items() if name not in _STORAGE}
    try:
        end_token = _end_token(what, folder, settings, tokenizer)
        return LanguageModel(json.dumps(plain), tokenizer, end_token), folder
    except EncoderError as error:
        raise EncoderError(f"{what}, {folder}: {error}") from None


def find_language_model(place: str) -> Path:
    """Return the folder of a language model, from the hub if need be; errors as of its reading."""
    what, path = _what(place), Path(place).expanduser()
    if path.is_dir():
        try:
            FILES.files_in(path)
        except EncoderError as error:
            pickled = [file.name for file in sorted(path.glob("*.bin"))]
            hint = (
                f" {pickled[0]} is a pickle, which is not read: save the model once with "
                "save_pretrained(..., safe_serialization=True)."
                if pickled
                else ""
            )
            raise EncoderError(
                f"{what}: {path} is incomplete: {error} (it needs {FILES.summary}).{hint}"
            ) from None
        return path
    if path.exists() or not HUB_ID.fullmatch(place):
        raise EncoderError(
            f"{what}: no folder of that name. Give a folder with {FILES.summary}, or a hub id such "
            "as 'Qwen/Qwen2.5-0.5B-Instruct'."
        )
    use = "copy the folder here and give it as language_model."
    return find_on_hub(what, FILES, place, option=None, use=use)


def load_pretrained(model: Module, folder: Path) -> None:
    """Load the weights of a folder into the model that :meth:`LanguageModel.build` returned.

    An EncoderError says which tensors are missing, surplus or of another shape.
    """
    what = f"language model {folder.name!r}"
    files = Weights(FILES.files[:1]).files_in(folder)
    state: dict[str, Any] = {}
    for file in files:
        state |= read_tensors(what, file)
    own = model.get_output_embeddings()
    head = [f"{name}.*" for name, module in model.named_modules() if module is own]
    table = model.get_input_embeddings().weight
    is_used, is_tied = hasattr(own, "weight"), getattr(own, "weight", None) is table
    # What models compute for themselves, such as masks and rotations, older files hold as well.
    computed = ["*.attn.bias", "*.masked_bias", "*.rotary_emb.inv_freq"]
    load_exactly(
        what,
        model,
        state,
        files[0],
        may_miss=head if is_tied else [],
        may_ignore=computed if is_used else [*computed, *head],
    )


def _end_token(what: str, folder: Path, settings: Mapping[str, Any], tokenizer: str) -> int:
    """Return the first token that ends a text, by the model's settings or by its tokenizer's."""
    found = settings.get("eos_token_id")
    if isinstance(found, list):
        found = next(iter(found), None)
    if isinstance(found, int):
        return found
    if (folder / "tokenizer_config.json").is_file():
        name = read_json(what, folder, "tokenizer_config.json").get("eos_token")
        name = name.get("content") if isinstance(name, dict) else name
        for token in json.loads(tokenizer).get("added_tokens", []):
            if token.get("content") == name:
                return int(token["id"])
    raise EncoderError(
        "neither config.json (eos_token_id) nor tokenizer_config.json (eos_token) says which token "
        "ends a text. Add it to config.json."
    )


def check_language_state(language: Any) -> None:
    """Check a language model that comes from a file; a ModelFileError says what is wrong."""
    if not isinstance(language, dict) or {*language} != {"settings", "tokenizer", "end_token"}:
        raise ModelFileError("language_ is not the settings, the tokenizer and the end token.")
    if not isinstance(language["settings"], str) or not isinstance(language["tokenizer"], str):
        raise ModelFileError("language_ holds no text of settings and tokenizer.")


def _what(place: str) -> str:
    return f"language model {place!r}"


def _transformers() -> Any:
    return require("transformers", extra="language", purpose=_PURPOSE)
