"""Folders as the Hugging Face transformers library writes them: what their JSON files say."""

import json
from pathlib import Path
from typing import Any

from xacle_stack.errors import EncoderError


def read_json(what: str, folder: Path, name: str) -> Any:
    """Read one JSON file of a checkpoint's folder.

    Parameters
    ----------
    what : str
        For messages, such as ``"encoder 'wavlm-large'"``.
    folder : Path
    name : str

    Raises
    ------
    EncoderError
        If `folder` is a file, or the file is missing or not JSON.
    """
    if folder.is_file():
        raise EncoderError(
            f"{what}: {folder} is a file; expected the folder that holds it together with {name}."
        )
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{what}: {folder / name} cannot be read as JSON: {error}.") from None


def read_config(what: str, folder: Path, config_class: Any) -> Any:
    """Read ``config.json`` into a transformers configuration, after checking whose it is.

    Parameters
    ----------
    what : str
        For messages.
    folder : Path
    config_class : type
        Such as ``transformers.WavLMConfig``.

    Raises
    ------
    EncoderError
        If the file is missing or damaged, or of another type of model.
    """
    settings = read_json(what, folder, "config.json")
    check_model_type(what, folder, settings, config_class.model_type)
    try:
        return config_class.from_dict(settings)
    except Exception as error:  # transformers' own checks of values, by version
        raise EncoderError(
            f"{what}: {folder / 'config.json'} is no configuration of this model "
            f"({type(error).__name__}: {error})."
        ) from None


def check_model_type(what: str, folder: Path, settings: Any, *expected: str) -> str:
    """Return the ``model_type`` of a ``config.json``, which must be one of those expected.

    Raises
    ------
    EncoderError
        If it is not; the message names both.
    """
    found = settings.get("model_type") if isinstance(settings, dict) else None
    if found not in expected:
        raise EncoderError(
            f"{what}: {folder} holds a model of type {found!r}; expected "
            f"{' or '.join(map(repr, expected))}."
        )
    return str(found)


def check_settings(what: str, folder: Path, config: Any, **expected: object) -> None:
    """Check what distinguishes the wanted model from others of its type, such as its size.

    Raises
    ------
    EncoderError
        If a setting differs.
    """
    wrong = [
        f"{name} is {getattr(config, name, None)!r}, expected {value!r}"
        for name, value in expected.items()
        if getattr(config, name, None) != value
    ]
    if wrong:
        raise EncoderError(f"{what}: {folder} holds another model of its type: {'; '.join(wrong)}.")
