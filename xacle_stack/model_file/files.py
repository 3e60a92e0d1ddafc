"""Saves fitted models so that opening one runs nothing.

A model is two files: ``NAME.skops`` holds arrays and settings and no code, and ``NAME.json`` is a
card for people and programs with the format, the versions, and whatever the caller adds.  A model
that holds :class:`~xacle_stack._large_arrays.LargeArrays` has a third: their numbers are in
``NAME.safetensors``.  Beside a scorer lies ``NAME.md``, its card for people, which is never loaded.
Whoever made the files, loading them builds only types of a short list, reads no other file, and
takes no more memory than several times the size of the files.  What was built is checked before
anybody predicts with it.

All files are complete before the first one gets its name; the arrays get theirs first, then the
archive, then the card.  A process that is killed before that leaves the old model, and after that
the new one.  If it is killed in between, the card has other digests than the files, and loading
says so.
"""

import hashlib
import io
import json
import platform
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from xacle_stack._files import open_atomically
from xacle_stack._large_arrays import LargeArrays
from xacle_stack.errors import MissingExtraError, ModelFileError, XacleStackError
from xacle_stack.model_file.archive import archive_types
from xacle_stack.model_file.card import FORMAT_VERSION, load_card, model_path, regular_size
from xacle_stack.model_file.model_card import is_markdown_card
from xacle_stack.model_file.saved_types import refusal, type_names
from xacle_stack.model_file.states import check_states, large_arrays
from xacle_stack.model_file.tensor_file import (
    is_tensor_file,
    map_tensor_file,
    tensor_file_pieces,
    tensor_path_of,
)

MAX_MODEL_BYTES = 4 * 2**30

_READ_BYTES = 2**20
_DIGEST_BYTES = 16
_LIBRARIES = ("xacle-stack", "numpy", "scikit-learn", "lightgbm", "skops")
_FIT_AGAIN = "Fit it again, with Scorer.fit or: xacle-stack stack"


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
        ``NAME.skops``, or a folder for ``model.skops`` in it.  A third file, ``NAME.safetensors``,
        holds large arrays, if the model has any; one of an earlier save is removed if it has none.
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
        If the model could not be loaded again, the card is not plain JSON (NaN is not), the files
        cannot be written, or a file ``NAME.safetensors`` of another origin is there.

    Notes
    -----
    A process that is killed while it saves leaves the old model or the new one, or, in the moment
    between the renames of its files, a model that is refused because its card has other digests.
    """
    return write_model(path, model, card, trusted=trusted)


def write_model(
    path: Path | str,
    model: object,
    card: Mapping[str, Any] | None = None,
    *,
    trusted: Iterable[str | type] = (),
    describe: Callable[[Mapping[str, Any], Path], str] | None = None,
) -> Path:
    """Save a model as :func:`save_model` does, with its card in Markdown beside it.

    `describe` makes that from the whole card and the path.  Without it, no Markdown is written, and
    that of an earlier save is removed.

    Raises
    ------
    ModelFileError
        As in :func:`save_model`; also if ``NAME.md`` is there and no card of a model.
    """
    path = model_path(path)
    tensor_path, markdown_path = tensor_path_of(path), path.with_suffix(".md")
    if describe is not None and not is_markdown_card(markdown_path):
        raise ModelFileError(
            f"{path}: not saved: its card would replace {markdown_path.name}, which is no card of "
            "a model. Save it under another name, or in another folder."
        )
    content, arrays = _archive(model, trusted, f"{path}: not saved")
    if arrays and tensor_path.exists() and not is_tensor_file(tensor_path):
        raise ModelFileError(
            f"{path}: not saved: its large arrays would replace {tensor_path.name}, which is of "
            "another origin. Save it under another name, or in another folder."
        )
    facts = {
        **(card or {}),
        "format_version": FORMAT_VERSION,
        "model_digest": _digest(io.BytesIO(content)),
        "tensors_digest": None,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }
    _card_text(path, facts)  # checked before gigabytes are written
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:  # they are renamed from the last one opened to the first
            if describe is not None:
                page = files.enter_context(open_atomically(markdown_path))
                page.write(describe(facts, path).encode())
            card_file = files.enter_context(open_atomically(path.with_suffix(".json")))
            files.enter_context(open_atomically(path)).write(content)
            if arrays:
                tensor_file = files.enter_context(open_atomically(tensor_path))
                facts["tensors_digest"] = _write_tensors(tensor_file, arrays)
            card_file.write(_card_text(path, facts))
        if not arrays and is_tensor_file(tensor_path):
            with suppress(OSError):  # the card does not name it, so nothing reads it
                tensor_path.unlink()
        if describe is None and is_markdown_card(markdown_path):
            with suppress(OSError):
                markdown_path.unlink()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror}.") from None
    return path


def check_can_be_saved(estimator: object, trusted: Iterable[str | type] = ()) -> None:
    """Check before a fit that the fitted estimator could be saved.

    Parameters
    ----------
    estimator : object
        An unfitted estimator, with the estimators that it holds: steps of a pipeline, learners of
        a stack.
    trusted : iterable of str or type, optional
        As in :func:`save_model`.  What a trusted type makes while it is fitted is not known
        before, such as the trees of a forest; those types have to be named as well.

    Raises
    ------
    ModelFileError
        If it could not; the message names the types and what to use in their place.

    Examples
    --------
    >>> from sklearn.linear_model import Lasso
    >>> from xacle_stack import Stacker
    >>> check_can_be_saved(Stacker(learners=[("lasso", Lasso())]))
    """
    _archive(estimator, trusted, f"{type(estimator).__name__} could not be saved once it is fitted")


def load_model(
    path: Path | str, *, trusted: Iterable[str | type] = (), max_bytes: int = MAX_MODEL_BYTES
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
        The largest size of the model that is read, with its large arrays, by default 4 GiB.
        Nothing in it is compressed.

    Returns
    -------
    model : object

    Raises
    ------
    ModelFileError
        If a file is missing, damaged, too large, of another format, or holds types that are not
        trusted, or arrays that do not make up such a model.
    """
    import skops.io

    path = model_path(path)
    card = load_card(path)
    if card.get("format_version") != FORMAT_VERSION:
        found = reprlib.repr(card.get("format_version"))
        raise ModelFileError(
            f"{path.with_suffix('.json')}: model format {found}, but this release reads "
            f"{FORMAT_VERSION}. Load it with the release that wrote it "
            f"({_versions(card)}), or fit it again, with Scorer.fit or: xacle-stack stack"
        )
    size, digest = regular_size(path), card.get("tensors_digest")
    tensor_path = tensor_path_of(path)
    if digest is not None and not tensor_path.exists():
        raise ModelFileError(
            f"{tensor_path}: no such file. The large arrays of {path.name} are in it: keep the "
            f"three files of this model in one folder. {_FIT_AGAIN}"
        )
    n_bytes = size if digest is None else size + regular_size(tensor_path)
    if n_bytes > max_bytes:
        files = path if digest is None else f"{path} and {tensor_path.name}"
        raise ModelFileError(
            f"{files}: {n_bytes} bytes, more than max_bytes={max_bytes}. If it is no mistake, load "
            f"it with load_model(path, max_bytes={n_bytes}), or score with --max-model-bytes "
            f"{n_bytes}."
        )
    tensor_context = nullcontext() if digest is None else tensor_path.open("rb")
    with path.open("rb") as file, tensor_context as tensor_file:
        _check_digest(path, file, card.get("model_digest"))
        if tensor_file is not None:
            _check_digest(tensor_path, tensor_file, digest)
        try:
            types = archive_types(file, size, type_names(trusted))
            if not types.refused:
                model = skops.io.load(file, trusted=sorted(types.accepted))
                arrays = large_arrays(model, types.n_large_arrays)
                if bool(arrays) != (tensor_file is not None):
                    raise ModelFileError(
                        f"its card and its archive disagree whether it has a {tensor_path.name}"
                    )
                if tensor_file is not None:
                    map_tensor_file(tensor_file, arrays)
                check_states(model)
                return model
        except MissingExtraError:
            raise
        except (Exception, MemoryError) as error:  # a damaged file can fail anywhere inside skops
            raise ModelFileError(
                f"{path}: not readable as a saved model ({_message(error)}). {_FIT_AGAIN}"
            ) from error
    raise ModelFileError(
        f"{path}: refused: it asks for types that a saved model may not hold. Nothing of it was "
        f"run. If you made it yourself, save it with save_model. Types:\n{refusal(types.refused)}"
    )


def _archive(
    model: object, trusted: Iterable[str | type], failure: str
) -> tuple[bytes, list[LargeArrays]]:
    """Return the archive of a model and the large arrays that are not in it.

    Before that, the model is loaded from there and checked as any other, with the same arrays.
    """
    import skops.io  # takes a third of a second, and only this needs it

    try:
        content = skops.io.dumps(model)
        types = archive_types(io.BytesIO(content), len(content), type_names(trusted))
        if not types.refused:
            loaded = skops.io.loads(content, trusted=sorted(types.accepted))
            arrays = large_arrays(model, types.n_large_arrays)
            for one, again in zip(arrays, large_arrays(loaded, len(arrays)), strict=True):
                again.give(one)
            check_states(loaded)
            return content, arrays
    except MissingExtraError:
        raise
    except Exception as error:  # skops knows some types only
        raise ModelFileError(f"{failure}: {_message(error)}.") from error
    raise ModelFileError(
        f"{failure}: it holds types that loading would refuse:\n{refusal(types.refused)}"
    )


def _card_text(path: Path, facts: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(facts, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: not saved: the card is not plain JSON ({error}).") from None


def _write_tensors(file: IO[bytes], arrays: Sequence[LargeArrays]) -> str:
    """Write large arrays, and return the digest of the file."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for piece in tensor_file_pieces(arrays):
        digest.update(piece)
        file.write(piece)
    return digest.hexdigest()


def _check_digest(path: Path, file: IO[bytes], expected: object) -> None:
    if expected != _digest(file):
        raise ModelFileError(
            f"{path}: not readable as a saved model: it is not the file that its card "
            f"{path.with_suffix('.json').name} describes: damaged, changed, or of another fit. "
            f"{_FIT_AGAIN}"
        )


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
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


def _message(error: BaseException) -> str:
    """Return an error's message; one of this library needs no name of its type."""
    text = _quoted(str(error).removesuffix("."))
    return text if isinstance(error, XacleStackError) else f"{type(error).__name__}: {text}"


def _quoted(text: object) -> str:
    """Return a file's words for a message: no control characters, and not too many."""
    short = str(text)[:400]
    return short if short.isprintable() else repr(short)
