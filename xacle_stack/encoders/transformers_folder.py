"""Folders as the Hugging Face transformers library writes them: what their JSON files say."""

import json
import stat
from pathlib import Path
from typing import Any

from xacle_stack.errors import EncoderError

# The largest vocabulary has some megabytes.
_MAX_BYTES = 64 * 2**20
# No model here has more layers, nor a length or a size beyond these.
_MAX_LAYERS, _MAX_INT = 512, 2**31 - 1
# Settings of a configuration by which transformers fetches code, beside those that begin with "_".
_FETCHES_CODE = ("attn_implementation", "auto_map", "quantization_config")


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
        If `folder` is a file, or the file is missing, not JSON, or larger than any such file.

    Notes
    -----
    Of ``config.json`` only the settings of the model itself are returned.  Others, such as
    ``_attn_implementation``, can name code on a hub that transformers would fetch and run.
    """
    if folder.is_file():
        raise EncoderError(
            f"{what}: {folder} is a file; expected the folder that holds it together with {name}."
        )
    try:
        status = (folder / name).stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
            raise ValueError(f"it is no regular file of at most {_MAX_BYTES >> 20} MiB")
        settings = json.loads((folder / name).read_text(encoding="utf-8"))
        return _model_settings(settings) if name == "config.json" else settings
    except RecursionError:
        raise EncoderError(
            f"{what}: {folder / name} cannot be read as JSON: it is nested too deeply."
        ) from None
    except (OSError, ValueError) as error:
        raise EncoderError(f"{what}: {folder / name} cannot be read as JSON: {error}.") from None


def _model_settings(value: Any, name: str = "") -> Any:
    """Return settings, also of the parts of a model, without those that lead to code.

    Raises
    ------
    ValueError
        If a number is beyond that of any model.
    """
    if isinstance(value, dict):
        return {
            key: _model_settings(one, key)
            for key, one in value.items()
            if not key.startswith("_") and key not in _FETCHES_CODE
        }
    if isinstance(value, list):
        return [_model_settings(one, name) for one in value]
    most = _MAX_LAYERS if name.endswith("layers") else _MAX_INT
    if isinstance(value, int) and abs(value) > most:
        raise ValueError(f"{name} is {str(value)[:20]}, and no model has more than {most}")
    return value


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
