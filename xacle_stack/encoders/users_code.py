"""Code that the user brings, because it may not be shipped: found, run, and kept from side effects.

It runs only from a folder that the user names.
"""

import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from xacle_stack.errors import EncoderError

logger = logging.getLogger(__name__)


def find_script(what: str, clone: Path, candidates: Sequence[str], description: str) -> Path:
    """Return the first candidate, a relative path, that exists in the folder that the user named.

    EncoderError if none does; the message says that the folder should be `description`.
    """
    script = next((clone / path for path in candidates if (clone / path).is_file()), None)
    if script is None:
        raise EncoderError(
            f"{what}: there is no {clone / candidates[0]}. Name the folder of {description}."
        )
    return script


def build_with_script(
    what: str, script: Path, build: Callable[[ModuleType], Any], weights: Path, packages: str
) -> Any:
    """Import a user's script and let `build` make its model from the module.

    EncoderError if the script lacks a package or fails in any way; the message names the weights
    and the packages that it imports, as arguments of pip.
    """
    try:
        with _contained(script.parent):
            return build(_import_script(script))
    except ModuleNotFoundError as error:
        raise EncoderError(
            f"{what}: {script} needs the package {error.name!r}, which is not installed. Install "
            f"what it imports: pip install {packages}"
        ) from error
    except Exception as error:  # the user's code may raise anything
        raise EncoderError(
            f"{what}: {script} cannot build its model from {weights}: {type(error).__name__}: "
            f"{error}"
        ) from error


def _import_script(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_xacle_stack_user_{script.stem}", script)
    if spec is None or spec.loader is None:
        raise EncoderError(f"{script}: not a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _contained(folder: Path) -> Iterator[None]:
    """Run the clone's code so that it leaves the process as it was.

    The code prints, changes ``sys.path``, adds a handler to the root logger, and reads its weights
    as a pickle.  PyTorch is told to refuse pickles with code.
    """
    settings = {
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": None,  # the two exclude each other
    }
    environment = {name: os.environ.get(name) for name in settings}
    path, handlers = sys.path.copy(), logging.root.handlers.copy()
    sys.path.insert(0, str(folder))
    _set_environment(settings)
    try:
        with redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
            # The code imports timm.layers under its former name.
            warnings.filterwarnings("ignore", r"Importing from timm\.", FutureWarning)
            yield
        logger.debug("%s: %s", folder, printed.getvalue())
    finally:
        _set_environment(environment)
        sys.path[:], logging.root.handlers[:] = path, handlers


def _set_environment(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
