"""Files that are there whole or not at all."""

import os
import tempfile
from pathlib import Path

PARTIAL_SUFFIX = ".part"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one step, durable also after a power cut; an old one is replaced.

    Parameters
    ----------
    path : Path
        Its folder must exist.  Beside it, a hidden file ending in :data:`PARTIAL_SUFFIX` lives
        while the content is written; a killed process can leave that one behind.
    content : bytes

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; nothing is left behind then.
    """
    handle, name = tempfile.mkstemp(PARTIAL_SUFFIX, f".{path.name}.", path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o666 & ~_umask())  # mkstemp makes private files; results are shared
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # make the rename itself durable
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
