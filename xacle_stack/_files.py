"""Files that are there whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_SUFFIX = ".part"


@contextmanager
def path_in_errors(path: Path) -> Iterator[None]:
    """Name the file that is being written in what the system raises: of a full disk it names none.

    Parameters
    ----------
    path : Path
    """
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


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
        If the disk is full or the folder cannot be written, with the path; nothing is left behind
        then.
    """
    with path_in_errors(path):
        _write_atomically(path.resolve(), content)


def _write_atomically(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
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
