"""Files that are there whole or not at all."""

import errno
import glob
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # Windows has no such locks
    _HAS_LOCKS = False

PARTIAL_SUFFIX = ".part"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


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


def read_small_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file that is no larger than it has any reason to be.

    Parameters
    ----------
    path : Path
        Symbolic links are followed.
    max_bytes : int

    Raises
    ------
    OSError
        If the file is not there or cannot be read.
    ValueError
        If it is larger, or no regular file: a pipe may never end, nor some devices.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes} bytes")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one step, durable also after a power cut; an old one is replaced.

    Parameters
    ----------
    path : Path
        Its folder must exist.  Beside it, a hidden file ending in :data:`PARTIAL_SUFFIX` lives
        while the content is written; a killed process can leave that one behind, until the same
        file is written again.  A symbolic link stays one: the file that it points to is written.
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
    _sweep_partials(path)
    partial, file = _locked_partial(path)
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if _HAS_LOCKS:  # the lock lasts until the file has its name
                partial.replace(path)
        if not _HAS_LOCKS:  # Windows renames no open file
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    make_durable(path.parent)


def _locked_partial(path: Path) -> tuple[Path, BinaryIO]:
    """Open a new file beside another one, locked to tell others that somebody is at it."""
    while True:
        name = f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
        partial = path.with_name(name)
        file = partial.open("xb")
        try:
            # Before it was locked, another process may have taken it for a leftover.
            if lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
                return partial, file
        except BaseException:
            partial.unlink(missing_ok=True)
            file.close()
            raise
        file.close()


def _sweep_partials(path: Path) -> None:
    """Delete what killed processes left of earlier attempts at the same file."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL_SUFFIX}"):
        with suppress(OSError), partial.open("rb") as file:
            if lock(file.fileno()):
                partial.unlink()


def lock(handle: int) -> bool | None:
    """Lock an open file or folder for this process, where there are locks; it is not waited for.

    The lock ends with the process, or when all copies of the handle are closed.

    Returns
    -------
    is_locked : bool or None
        Whether nobody else has it; None where there are no locks, so that nobody knows.
    """
    if not _HAS_LOCKS:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # not every file system has them
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def make_durable(folder: Path) -> None:
    """Make what was renamed in a folder last also through a power cut."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
