"""Reads the JSON files in a folder of the Hugging Face transformers library."""

import json
from pathlib import Path
from typing import Any

from xacle_stack._files import read_small_file
from xacle_stack.errors import EncoderError

# The largest vocabularies have a few megabytes.
_MAX_BYTES = 64 * 2**20
# The supported models have fewer layers, and no larger number in their configuration.
_MAX_LAYERS, _MAX_INT = 512, 2**31 - 1
# Settings that make transformers fetch code, beside those that begin with "_".
_FETCHES_CODE = ("attn_implementation", "auto_map", "quantization_config")


def read_json(what: str, folder: Path, name: str) -> Any:
    """Read one JSON file of a checkpoint's folder.

    EncoderError if `folder` is a file, or the file is missing, not JSON, or too large.  Settings of
    ``config.json`` that can name code, such as ``_attn_implementation``, are left out, because
    transformers would fetch that code from a hub and run it.
    """
    if folder.is_file():
        raise EncoderError(
            f"{what}: {folder} is a file; expected the folder that holds it together with {name}."
        )
    try:
        settings = json.loads(read_small_file(folder / name, _MAX_BYTES).decode("utf-8"))
        return model_settings(settings) if name == "config.json" else settings
    except RecursionError:
        raise EncoderError(
            f"{what}: {folder / name} cannot be read as JSON: it is nested too deeply."
        ) from None
    except (OSError, ValueError) as error:
        raise EncoderError(f"{what}: {folder / name} cannot be read as JSON: {error}.") from None


def model_settings(value: Any, name: str = "") -> Any:
    """Return settings without those that can name code; ValueError if a number is too large."""
    if isinstance(value, dict):
        return {
            key: model_settings(one, key)
            for key, one in value.items()
            if not key.startswith("_") and key not in _FETCHES_CODE
        }
    if isinstance(value, list):
        return [model_settings(one, name) for one in value]
    maximum = _MAX_LAYERS if name.endswith("layers") else _MAX_INT
    if isinstance(value, int) and abs(value) > maximum:
        raise ValueError(f"{name} is {str(value)[:20]}, and no model has more than {maximum}")
    return value


def read_config(what: str, folder: Path, config_class: Any) -> Any:
    """Read ``config.json`` into an object of a class such as ``transformers.WavLMConfig``.

    EncoderError if the file is missing or damaged, or of another type of model.
    """
    settings = read_json(what, folder, "config.json")
    check_model_type(what, folder, settings, config_class.model_type)
    try:
        return config_class.from_dict(settings)
    except Exception as error:  # transformers checks values, differently in each version
        raise EncoderError(
            f"{what}: {folder / 'config.json'} is not a configuration of this model "
            f"({type(error).__name__}: {error})."
        ) from None


def check_model_type(what: str, folder: Path, settings: Any, *expected: str) -> str:
    """Return the ``model_type`` of a ``config.json``; EncoderError if it is not an expected one."""
    found = settings.get("model_type") if isinstance(settings, dict) else None
    if found not in expected:
        raise EncoderError(
            f"{what}: {folder} holds a model of type {found!r}; expected "
            f"{' or '.join(map(repr, expected))}."
        )
    return str(found)


def check_settings(what: str, folder: Path, config: Any, **expected: object) -> None:
    """Check settings that distinguish a model from others of its type, such as its size.

    EncoderError if a setting differs.
    """
    wrong = [
        f"{name} is {getattr(config, name, None)!r}, expected {value!r}"
        for name, value in expected.items()
        if getattr(config, name, None) != value
    ]
    if wrong:
        raise EncoderError(f"{what}: {folder} holds another model of its type: {'; '.join(wrong)}.")
