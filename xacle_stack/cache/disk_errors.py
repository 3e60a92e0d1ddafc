"""Errors of the operating system, with their remedies.

They say nothing about the bytes on the disk: a file that may not be read is not damaged.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xacle_stack.errors import CacheError

_PERMISSION = "give this user the permission for it and its folder (chmod, chown)"
_LOCK = "unset the environment variable HDF5_USE_FILE_LOCKING: segments are read without a lock"
_DISK = "check the disk and its connection"
_REMEDIES = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: "mount the disk writable",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close files of other processes",
    errno.ENOMEM: "free some memory",
    errno.EAGAIN: _LOCK,
    errno.ENOLCK: _LOCK,
    errno.ENOSYS: _LOCK,
    errno.EIO: _DISK,
    errno.ETIMEDOUT: _DISK,
}


@contextmanager
def disk_errors(path: Path, action: str) -> Iterator[None]:
    """Turn an OSError of an action, such as "read", into a CacheError that says what to do."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        raise refusal(path, action, error) from error


def list_folder(folder: Path) -> list[Path]:
    """Return the contents of a folder, sorted by name; a missing folder is empty.

    CacheError if the folder cannot be listed, where `Path.glob` would find nothing.
    """
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise refusal(folder, "listed", error) from error


def refusal(path: Path, action: str, error: OSError) -> CacheError:
    """Return the error to raise when the system refused an action."""
    cure = remedy(error)
    return CacheError(
        f"{path}: cannot be {action} ({reason(error)}). {cure[0].upper()}{cure[1:]}; then run "
        "again. Keep it: its content is intact."
    )


def reason(error: OSError) -> str:
    """Return the system's own message, without what HDF5 puts around it."""
    return str(error) if error.errno is None else os.strerror(error.errno)


def remedy(error: OSError) -> str:
    """Return what to do about an error; "then run again" is to follow."""
    return _REMEDIES.get(error.errno or 0, "mend that")
