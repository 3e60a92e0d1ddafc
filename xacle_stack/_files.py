"""Writes files so that they appear complete or not at all, and reads small ones with care."""

import errno
import glob
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl

    _HAS_LOCKS = True
except ImportError:  # Windows
    _HAS_LOCKS = False

PARTIAL_SUFFIX = ".part"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def path_in_errors(path: Path) -> Iterator[None]:
    """Put the path of the file being written into any OSError, which a full disk leaves out."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


def name_in_files(name: str) -> str:
    """Return what a system or a set of pairs is called in the names of files.

    Examples
    --------
    >>> name_in_files("Toy + mini/mel")
    'toy---mini-mel'
    """
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name).lower()


def is_regular_file(path: Path) -> bool:
    """Return whether a path leads to a regular file; reading a pipe or a device may never end.

    Raises
    ------
    OSError
        If there is nothing, which `Path.is_file` would hide.
    """
    return stat.S_ISREG(path.stat().st_mode)


def read_small_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file, if it is not larger than `max_bytes`.

    Parameters
    ----------
    path : Path
        Symbolic links are followed.
    max_bytes : int

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    ValueError
        If it is larger, or not a regular file.
    """
    if not is_regular_file(path):
        raise ValueError("not a regular file")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"larger than {max_bytes} bytes")
    return content


def write_atomically(path: Path, content: bytes | memoryview | Iterable[bytes]) -> None:
    """Create or replace a file in one step, so that it also survives a power cut.

    Parameters
    ----------
    path : Path
        Its folder must exist.  The content is first written to a hidden file beside it that ends
        in :data:`PARTIAL_SUFFIX`.  A killed process may leave that file behind, and the next
        writing of the same path deletes it.  If the path is a symbolic link, the file that it
        points to is written.
    content : bytes, memoryview or iterable of bytes
        Pieces are written one after another, and need not be in memory together.

    Raises
    ------
    OSError
        If the disk is full or the folder cannot be written.  It names the path, and no file is
        left behind.
    """
    with open_atomically(path) as file:
        file.writelines([content] if isinstance(content, bytes | memoryview) else content)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its path when the context ends without an error.

    Parameters, errors and leftovers are those of :func:`write_atomically`.
    """
    with path_in_errors(path):
        path = path.resolve()
        _sweep_partials(path)
        partial, file = _locked_partial(path)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                if _HAS_LOCKS:  # rename the file while it is still locked
                    partial.replace(path)
            if not _HAS_LOCKS:  # Windows cannot rename an open file
                partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        make_durable(path.parent)


def _locked_partial(path: Path) -> tuple[Path, BinaryIO]:
    """Open a new hidden file beside `path`, locked so that no other process deletes it."""
    while True:
        name = f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
        partial = path.with_name(name)
        file = partial.open("xb")
        try:
            # Another process may have deleted it as a leftover before it was locked.
            if lock(file.fileno()) is not False and os.fstat(file.fileno()).st_nlink:
                return partial, file
        except BaseException:
            partial.unlink(missing_ok=True)
            file.close()
            raise
        file.close()


def _sweep_partials(path: Path) -> None:
    """Delete partial files that killed processes left behind."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL_SUFFIX}"):
        delete_leftover(partial)


def delete_leftover(partial: Path) -> None:
    """Delete a partial file if the process that wrote it has ended."""
    with suppress(OSError):
        if is_regular_file(partial):  # a pipe would be waited for
            with partial.open("rb") as file:
                if lock(file.fileno()):
                    partial.unlink()


def lock(handle: int) -> bool | None:
    """Try to lock an open file or folder for this process, without waiting.

    The lock ends with the process, or when all copies of the handle are closed.

    Returns
    -------
    is_locked : bool or None
        False if another process has the lock; None if the system has no locks.
    """
    if not _HAS_LOCKS:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some file systems have no locks
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def make_durable(folder: Path) -> None:
    """Make the renamed files of a folder survive a power cut."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
