"""Imports optional packages where they are used, and nowhere else."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from xacle_stack.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which command installs it.

    Parameters
    ----------
    module : str
        Name to import, for example ``"matplotlib.pyplot"``.
    extra : str
        The extra of this library that installs it.
    purpose : str
        What needs the package, in the words of the error message.

    Returns
    -------
    module : module

    Raises
    ------
    MissingExtraError
        If the package itself is absent.  A package that is installed but broken raises its own
        error.

    Examples
    --------
    >>> require("json", extra="none", purpose="the example").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise _missing(package, extra, purpose) from None


def check_installed(package: str, *, extra: str, purpose: str) -> None:
    """Raise MissingExtraError if a package is absent, without importing it."""
    if importlib.util.find_spec(package) is None:
        raise _missing(package, extra, purpose)


def _missing(package: str, extra: str, purpose: str) -> MissingExtraError:
    return MissingExtraError(
        f"{purpose} needs the package {package!r}, which is not installed. "
        f"Install it with: pip install 'xacle-stack[{extra}]'"
    )


@contextmanager
def stand_ins(packages: Sequence[str]) -> Iterator[None]:
    """Replace packages that are absent or broken by empty stand-ins within the context.

    Model libraries import torchaudio and torchvision for functions that nothing here calls, and
    each build of these two needs one particular build of PyTorch.  With a stand-in the libraries
    can still be imported.  A package that can be imported is left alone.

    Examples
    --------
    >>> with stand_ins(["no_such_package"]):
    ...     from no_such_package.transforms import Resize
    """
    absent = [name for name in packages if not _works(name)]
    finder = _StandInFinder(absent)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _forget(absent)


def _works(package: str) -> bool:
    try:
        importlib.import_module(package)
    except Exception:  # a build for another PyTorch fails in many ways
        _forget([package])
        return False
    return True


def _forget(packages: Sequence[str]) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


class _StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Provides empty modules for some packages and all of their submodules."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing: the module is empty."""


class _StandInModule(ModuleType):
    """A module that provides a class for every name, to derive from or never to call."""

    __version__ = "2.0"

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandInType(name, (), {})


class _StandInType(type):
    """A class that has every attribute."""

    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandInType(name, (), {})
