"""The card beside a saved model: a JSON file that says what the model is."""

import json
import stat
from pathlib import Path
from typing import Any

from xacle_stack.errors import ModelFileError

# The format of a model and its card.  It rises when a release could not read older files, or an
# older release could not make the same predictions from newer ones.  A model of another format is
# refused; it is loaded by the release that wrote it, or fitted again.
#
#   format  what changed
#   1       the first one
#   2       "best" and "paper" are learned from sums; a stack holds its compression and weights
#   3       trees are plain arrays; no member of the archive is compressed
#   4       families are tuples of block names; builders and learners have other attributes
#   5       a Gaussian process keeps its training rows along its axes
#
# A model of format 5 may hold LargeArrays, and has a third file then.  Releases without them refuse
# the type by its name.
FORMAT_VERSION = 5

# The files of a model; the tensors are there only if it holds large arrays, and the Markdown only
# beside a scorer.
MODEL_SUFFIXES = (".skops", ".json", ".safetensors", ".md")

_MAX_CARD_BYTES = 4 * 2**20


def load_card(path: Path | str) -> dict[str, Any]:
    """Return the card beside a saved model, without opening the model.

    Parameters
    ----------
    path : path-like
        As in :func:`~xacle_stack.save_model`.

    Returns
    -------
    card : dict

    Raises
    ------
    ModelFileError
        If one of the two files is missing, or the card is no JSON object of a usual size.
    """
    path = model_path(path)
    card_path = path.with_suffix(".json")
    for needed in (path, card_path):
        if not needed.exists():
            others = sorted(str(other) for other in path.parent.rglob("*.skops") if other != path)
            listed = ", ".join([*others[:10], *(["…"] if len(others) > 10 else [])])
            there = f" There are other models: {listed}." if others else ""
            raise ModelFileError(
                f"{needed}: no such file. A saved model is {path.name} and {card_path.name} in one "
                f"folder, which save_model and `xacle-stack stack` write.{there}"
            )
    regular_size(path)
    size = regular_size(card_path)
    if size > _MAX_CARD_BYTES:
        raise ModelFileError(
            f"{card_path}: {size} bytes, where a card has {_MAX_CARD_BYTES} or fewer. Check that "
            "it is the card of a saved model."
        )
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{card_path}: not readable as JSON ({error}).") from None
    if not isinstance(card, dict):
        raise ModelFileError(
            f"{card_path}: not a model's card: it holds a {type(card).__name__}, expected an "
            "object."
        )
    return card


def model_path(path: Path | str) -> Path:
    """Return the path of the ``.skops`` file that a path of a model's files or a folder means."""
    path = Path(path)
    if path.suffix in MODEL_SUFFIXES:
        return path.with_suffix(".skops")
    return path / "model.skops"


def regular_size(path: Path) -> int:
    """Return the size of a file in bytes.

    A ModelFileError says that it is no regular file: a pipe or a device may have no end.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{path}: a folder, a pipe or a device, where a file should be.")
    return status.st_size
