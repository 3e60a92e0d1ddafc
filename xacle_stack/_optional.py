"""Optional packages, imported where they are used and only there."""

import importlib
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
        What needs it, as it should read in the message.

    Returns
    -------
    module : module

    Raises
    ------
    MissingExtraError
        If the package itself is absent.  A package that is installed but broken keeps its own
        traceback.

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
        raise MissingExtraError(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'xacle-stack[{extra}]'"
        ) from None
