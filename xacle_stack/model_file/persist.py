"""Saves fitted models so that opening one runs nothing.

A model is two files: ``NAME.skops`` (arrays and settings, no code) and ``NAME.json``, a card for
people and programs: format, versions, and whatever the caller adds.  Whoever made them, loading
builds only types of a short list, reads no other file, and takes no more memory than the file has
bytes, several times over; what was built is checked before anybody predicts with it.  See
:mod:`xacle_stack.model_file.archive` and :mod:`xacle_stack.model_file.schema`.
"""

import hashlib
import io
import json
import platform
import reprlib
import stat
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from xacle_stack._files import write_atomically
from xacle_stack.errors import MissingExtraError, ModelFileError, XacleStackError, bullet_list
from xacle_stack.model_file.archive import archive_types
from xacle_stack.model_file.states import check_attributes_in, check_states

# Raise it when an older release could not make the same predictions from a newer file.
FORMAT_VERSION = 3
MAX_MODEL_BYTES = 4 * 2**30

_MAX_CARD_BYTES = 4 * 2**20
_READ_BYTES = 2**20
_LIBRARIES = ("xacle-stack", "numpy", "scikit-learn", "lightgbm", "skops")
# What to do in place of saving a type.
_INSTEAD = {
    "lightgbm.": "Use xacle_stack.BoostedTrees in place of LightGBM's estimators.",
    "numpy.random.": "Give a whole number as random_state.",
    "sklearn.": "Of scikit-learn's estimators only some are known to be harmless in a stranger's "
    "file. Where all files are your own, name the type: save_model(..., trusted=[...]) and "
    "load_model(..., trusted=[...]).",
}


def save_model(
    path: Path | str,
    model: object,
    card: Mapping[str, Any] | None = None,
    *,
    trusted: Iterable[str | type] = (),
) -> Path:
    """Save a fitted model, or a dictionary of them, beside its card.

    Parameters
    ----------
    path : path-like
        ``NAME.skops``, or a folder for ``model.skops`` in it.
    model : object
        Estimators of this library, or scikit-learn's linear models and scalers, alone or in a dict.
    card : mapping, optional
        JSON-serialisable facts to keep: recipe, families, metrics.
    trusted : iterable of str or type, optional
        Further types that the model holds.  Whoever loads it has to name them as well.

    Returns
    -------
    path : Path

    Raises
    ------
    ModelFileError
        If the model holds a type or an attribute that could not be loaded again, the card is not
        plain JSON (NaN is not), or the files cannot be written.
    """
    import skops.io  # takes a third of a second, and only this needs it

    path = _skops_path(path)
    try:
        content = skops.io.dumps(model)
        types = archive_types(io.BytesIO(content), len(content), _names(trusted))
        check_attributes_in(model)
    except Exception as error:  # skops knows some types only
        raise ModelFileError(f"{path}: not saved: {_told(error)}.") from error
    if types.refused:
        raise ModelFileError(
            f"{path}: not saved: the model holds types that would be refused on loading:\n"
            + _refused(types.refused)
        )
    facts = {
        **(card or {}),
        "format_version": FORMAT_VERSION,
        "model_digest": _digest(io.BytesIO(content)),
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


def load_model(
    path: Path | str,
    *,
    trusted: Iterable[str | type] = (),
    max_bytes: int = MAX_MODEL_BYTES,
) -> Any:
    """Load what :func:`save_model` wrote.

    Parameters
    ----------
    path : path-like
        As in :func:`save_model`.
    trusted : iterable of str or type, optional
        Further types that may be built, by full name or themselves.  Only name what you have
        looked at: building one runs its code on what the file says.
    max_bytes : int, optional
        The largest file that is read, by default 4 GiB.  Nothing in it is compressed.

    Returns
    -------
    model : object

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, too large, of another format, or holds types that are not
        trusted, or arrays that do not make up such a model.
    """
    import skops.io

    path = _skops_path(path)
    card = load_card(path)
    if card.get("format_version") != FORMAT_VERSION:
        found = reprlib.repr(card.get("format_version"))
        raise ModelFileError(
            f"{path.with_suffix('.json')}: model format {found}, but this release reads "
            f"{FORMAT_VERSION}. Load it with the release that wrote it "
            f"({_versions(card)}), or fit it again with: xacle-stack stack"
        )
    size = _regular_size(path)
    if size > max_bytes:
        raise ModelFileError(
            f"{path}: {size} bytes, more than max_bytes={max_bytes}. If it is no mistake, load it "
            f"with load_model(path, max_bytes={size}), or score with --max-model-bytes {size}."
        )
    with path.open("rb") as file:
        if card.get("model_digest") != _digest(file):
            raise ModelFileError(
                f"{path}: not readable as a saved model: it is not the file that its card "
                f"{path.with_suffix('.json').name} describes: damaged, changed, or of another fit. "
                "Fit it again with: xacle-stack stack"
            )
        try:
            types = archive_types(file, size, _names(trusted))
            if not types.refused:
                model = skops.io.load(file, trusted=sorted(types.accepted))
                check_states(model)
                return model
        except MissingExtraError:
            raise
        except (Exception, MemoryError) as error:  # a damaged file can fail anywhere inside skops
            raise ModelFileError(
                f"{path}: not readable as a saved model ({_told(error)}). "
                "Fit it again with: xacle-stack stack"
            ) from error
    raise ModelFileError(
        f"{path}: refused: it asks for types that a stack does not need. Nothing of it was run. "
        f"If you made it yourself, save it with save_model. Types:\n{_refused(types.refused)}"
    )


def load_card(path: Path | str) -> dict[str, Any]:
    """Return the card beside a saved model, without opening the model.

    Raises
    ------
    ModelFileError
        If one of the two files is missing, or the card is no JSON object of a usual size.
    """
    path = _skops_path(path)
    card_path = path.with_suffix(".json")
    for needed in (path, card_path):
        if not needed.exists():
            others = sorted(str(other) for other in path.parent.rglob("*.skops") if other != path)
            there = f" There are other models: {', '.join(others)}." if others else ""
            raise ModelFileError(
                f"{needed}: no such file. A saved model is {path.name} and {card_path.name} in one "
                f"folder, which `xacle-stack stack` writes.{there}"
            )
    _regular_size(path)
    size = _regular_size(card_path)
    if size > _MAX_CARD_BYTES:
        raise ModelFileError(
            f"{card_path}: {size} bytes, where a card has {_MAX_CARD_BYTES} or fewer."
        )
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{card_path}: not readable as JSON ({error}).") from None
    if not isinstance(card, dict):
        raise ModelFileError(
            f"{card_path}: not a model's card: it holds a {type(card).__name__}, no object."
        )
    return card


def _regular_size(path: Path) -> int:
    """Return a file's bytes, once it is a file: a pipe or a device may have no end."""
    try:
        status = path.stat()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelFileError(f"{path}: a folder, a pipe or a device, where a file should be.")
    return status.st_size


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    while block := file.read(_READ_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _versions(card: Mapping[str, Any]) -> str:
    libraries = card.get("libraries")
    if not isinstance(libraries, Mapping):
        return "unknown"
    return ", ".join(
        f"{name} {_quoted(libraries[name])}" for name in _LIBRARIES if name in libraries
    )


def _told(error: BaseException) -> str:
    """Return a message about a file; one of ours needs no name of its type."""
    text = _quoted(str(error).removesuffix("."))
    return text if isinstance(error, XacleStackError) else f"{type(error).__name__}: {text}"


def _names(types: Iterable[str | type]) -> frozenset[str]:
    return frozenset(
        one if isinstance(one, str) else f"{one.__module__}.{one.__qualname__}" for one in types
    )


def _refused(types: Iterable[str]) -> str:
    names = sorted(types)
    instead = [
        sentence
        for start, sentence in _INSTEAD.items()
        if any(name.startswith(start) for name in names)
    ]
    return "\n".join([bullet_list(map(_quoted, names)), *instead])


def _quoted(text: object) -> str:
    """Return a file's words for a message: no control characters, and not too many."""
    short = str(text)[:400]
    return short if short.isprintable() else repr(short)


def _skops_path(path: Path | str) -> Path:
    path = Path(path)
    if path.suffix in (".skops", ".json"):
        return path.with_suffix(".skops")
    return path / "model.skops"
