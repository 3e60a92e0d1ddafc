"""Saves fitted models so that opening one runs nothing.

A model is two files: ``NAME.skops`` (arrays and settings, no code) and ``NAME.json``, a card for
people and programs: format, versions, and whatever the caller adds.  Only the types listed here
are built on loading; anything else is refused before it is built.
"""

import hashlib
import json
import platform
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xacle_stack._files import write_atomically
from xacle_stack.errors import ModelFileError, bullet_list

# Raise it when an older release could not make the same predictions from a newer file.
FORMAT_VERSION = 2

TRUSTED_TYPES = (
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMRegressor",
    "xacle_stack.features.table.FeatureBuilder",
    "xacle_stack.stacking.calibration.MonotoneCalibration",
    "xacle_stack.stacking.compress.BlockPCA",
    "xacle_stack.stacking.fold_ridge.LinearModel",
    "xacle_stack.stacking.gaussian_process.BlockGaussianProcess",
    "xacle_stack.stacking.learners.FittedLearner",
    "xacle_stack.stacking.ridge.GroupedRidge",
    "xacle_stack.stacking.stacker.Stacker",
    "xacle_stack.features.sequences.SequenceColumns",
    "xacle_stack.features.spaces.SpaceColumns",
    "xacle_stack.listeners.model.ListenerModel",
    "xacle_stack.systems.cosine.CosineRegressor",
    "xacle_stack.systems.gate.GatedRegressor",
    "xacle_stack.systems.lstm.LSTMRegressor",
    "xacle_stack.systems.projection_head.ProjectionHeadRegressor",
    "xacle_stack.systems.transformer.TransformerRegressor",
)
_LIBRARIES = ("xacle-stack", "numpy", "scikit-learn", "lightgbm", "skops")


def save_model(path: Path | str, model: object, card: Mapping[str, Any] | None = None) -> Path:
    """Save a fitted model, or a dictionary of them, beside its card.

    Parameters
    ----------
    path : path-like
        ``NAME.skops``, or a folder for ``model.skops`` in it.
    model : object
        Estimators of this library or of scikit-learn, alone or in a dict.
    card : mapping, optional
        JSON-serialisable facts to keep: recipe, families, metrics.

    Returns
    -------
    path : Path

    Raises
    ------
    ModelFileError
        If the model holds a type that could not be loaded again, the card is not plain JSON (NaN
        is not), or the files cannot be written.
    """
    import skops.io  # takes a third of a second, and only this needs it

    path = _skops_path(path)
    content = skops.io.dumps(model)
    unknown = _untrusted(content)
    if unknown:
        raise ModelFileError(
            f"{path}: not saved: the model holds types that would be refused on loading:\n"
            + bullet_list(unknown)
        )
    facts = {
        **(card or {}),
        "format_version": FORMAT_VERSION,
        "model_digest": _digest(content),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    try:
        text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: not saved: the card is not plain JSON ({error}).") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
        write_atomically(path.with_suffix(".json"), text.encode())
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror}.") from None
    return path


def load_model(path: Path | str) -> Any:
    """Load what :func:`save_model` wrote.

    Parameters
    ----------
    path : path-like
        As in :func:`save_model`.

    Returns
    -------
    model : object

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, of another format, or holds types that are not trusted.
    """
    import skops.io

    path = _skops_path(path)
    card = load_card(path)
    if card.get("format_version") != FORMAT_VERSION:
        raise ModelFileError(
            f"{path.with_suffix('.json')}: model format {card.get('format_version')!r}, but this "
            f"release reads {FORMAT_VERSION}. Load it with the release that wrote it "
            f"({_versions(card)}), or fit it again with: make stack"
        )
    content = path.read_bytes()
    if card.get("model_digest") != _digest(content):
        raise ModelFileError(
            f"{path}: not readable as a saved model: it is not the file that its card "
            f"{path.with_suffix('.json').name} describes: damaged, changed, or of another fit. "
            "Fit it again with: make stack"
        )
    try:
        unknown = _untrusted(content)
        if not unknown:
            return skops.io.loads(content, trusted=list(TRUSTED_TYPES))
    except Exception as error:  # a damaged file can fail anywhere inside skops
        raise ModelFileError(
            f"{path}: not readable as a saved model ({type(error).__name__}: {error}). "
            "Fit it again with: make stack"
        ) from error
    raise ModelFileError(
        f"{path}: refused: it asks for types that a stack does not need. Nothing of it was run. "
        f"If you made it yourself, save it with save_model. Types:\n{bullet_list(unknown)}"
    )


def load_card(path: Path | str) -> dict[str, Any]:
    """Return the card beside a saved model, without opening the model."""
    path = _skops_path(path)
    card_path = path.with_suffix(".json")
    for needed in (path, card_path):
        if not needed.is_file():
            others = sorted(str(other) for other in path.parent.rglob("*.skops") if other != path)
            there = f" There are other models: {', '.join(others)}." if others else ""
            raise ModelFileError(
                f"{needed}: no such file. A saved model is {path.name} and {card_path.name} in one "
                f"folder, which `make stack` writes.{there}"
            )
    try:
        card: dict[str, Any] = json.loads(card_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{card_path}: not readable as JSON ({error}).") from None
    return card


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _versions(card: Mapping[str, Any]) -> str:
    libraries = card.get("libraries")
    if not isinstance(libraries, Mapping):
        return "unknown"
    return ", ".join(f"{name} {number}" for name, number in libraries.items())


def _untrusted(content: bytes) -> list[str]:
    import skops.io

    try:
        types = skops.io.get_untrusted_types(data=content)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelFileError(f"not a skops file ({error})") from None
    return sorted(set(types) - set(TRUSTED_TYPES))


def _skops_path(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix in (".skops", ".json"):
        return path.with_suffix(".skops")
    return path / "model.skops"
