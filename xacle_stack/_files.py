"""Files that are there whole or not at all."""

import os
import secrets
from pathlib import Path

PARTIAL_SUFFIX = ".part"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one step, durable also after a power cut; an old one is replaced.

    Parameters
    ----------
    path : Path
        Its folder must exist.  Beside it, a hidden file ending in :data:`PARTIAL_SUFFIX` lives
        while the content is written; a killed process can leave that one behind.  A symbolic
        link stays one: the file that it points to is written.
    content : bytes

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written; nothing is left behind then.
    """
    path = path.resolve()
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk is told without a name, else the partial's
            error.filename = str(path)
        raise
    if os.name == "posix":  # make the rename itself durable
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
