"""A folder that is written beside its place and put there as a whole.

A folder cannot be renamed onto one that holds something, but Linux and macOS can exchange two: at
every moment, whenever the process is killed, the old one or the new one stands in the place.
"""

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from xacle_stack._files import PARTIAL_SUFFIX, lock, make_durable

_EXCHANGE, _THIS_FOLDER = 2, -100  # of Linux; macOS has the same number for its own function
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


class FolderDraft:
    """The hidden folder in which a folder's new content is written; use it in a ``with`` block.

    While the block lasts, no other process has a draft of the same folder.  A draft that a killed
    process left behind is swept by the next one.

    Parameters
    ----------
    target : path-like
        The folder to make or to replace.  A symbolic link stays one.

    Attributes
    ----------
    folder : Path
        Write here.

    Raises
    ------
    BlockingIOError
        If another process is at it.
    OSError
        If nothing can be written beside the target, or the target cannot be replaced: a file
        system is mounted there, or the current directory is in it and would be gone.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "results"
    >>> with FolderDraft(target) as draft:
    ...     _ = (draft.folder / "table.csv").write_text("1")
    ...     draft.publish()
    >>> [path.name for path in target.iterdir()]
    ['table.csv']
    """

    def __init__(self, target: Path | str) -> None:
        self.target = Path(target).resolve()
        self._place = self.target.with_name(f".{self.target.name}{PARTIAL_SUFFIX}")
        self.folder = self._place / "draft"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self._check_replaceable()
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._claim()
        try:
            self._sweep()
            self.folder.mkdir()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    def publish(self, is_kept: Callable[[Path], bool] = lambda _: True) -> None:
        """Put what the draft holds now into the place of the target; the draft stays.

        Parameters
        ----------
        is_kept : callable, optional
            Tells of a file in the old folder, by its path in there, whether it stands in the new
            one too, where the draft has none of the same name.

        Raises
        ------
        OSError
            If the new folder cannot be put there; the old one is unharmed then.
        """
        fresh = self._place / "new"
        shutil.copytree(self.folder, fresh, copy_function=_link)
        for path in sorted(self.target.rglob("*")) if self.target.is_dir() else ():
            own = path.relative_to(self.target)
            copy = fresh / own
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    copy.mkdir(parents=True, exist_ok=True)
            elif is_kept(own):
                copy.parent.mkdir(parents=True, exist_ok=True)
                if not copy.exists():
                    _link(str(path), str(copy))
        if self.target.exists():
            shutil.copymode(self.target, fresh)
        for folder in (fresh, *(path for path in fresh.rglob("*") if path.is_dir())):
            make_durable(folder)
        self._put(fresh)
        make_durable(self.target.parent)
        shutil.rmtree(fresh, ignore_errors=True)

    def _check_replaceable(self) -> None:
        """Refuse now what the system, or the user, would only stumble over at the end."""
        reason = None
        # Path.is_mount is not there on Windows before Python 3.12.
        if os.path.ismount(self.target):
            reason = "a file system is mounted there, so it cannot be replaced as a whole"
        elif self.target.is_dir() and Path.cwd().is_relative_to(self.target):
            reason = "it is replaced as a whole, and the current directory is in it"
        if reason:
            raise OSError(errno.EBUSY, reason, str(self.target))

    def _put(self, fresh: Path) -> None:
        if not self.target.exists():
            fresh.rename(self.target)
        elif not exchange(fresh, self.target):
            old = self._place / "old"
            self.target.rename(old)
            fresh.rename(self.target)
            shutil.rmtree(old, ignore_errors=True)

    def _claim(self) -> int | None:
        """Make the hidden folder and lock it; the system lets go of it when this process ends."""
        while True:
            self._place.mkdir(exist_ok=True)
            if os.name != "posix":  # where folders cannot be opened
                return None
            try:
                handle = os.open(self._place, os.O_RDONLY)
            except FileNotFoundError:  # the process before has just finished
                continue
            try:
                if lock(handle) is False:
                    raise BlockingIOError(errno.EWOULDBLOCK, "in use", str(self.target))
                if os.path.samestat(os.fstat(handle), self._place.stat()):
                    return handle
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _sweep(self) -> None:
        """Clear what a killed process left, once nothing that it had is missing."""
        old = self._place / "old"
        if old.exists() and not self.target.exists():
            old.rename(self.target)
        for left in self._place.iterdir():
            shutil.rmtree(left)

    def _release(self) -> None:
        shutil.rmtree(self._place, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False where the system cannot.

    Raises
    ------
    OSError
        If it can, but not these two.
    """
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, ctypes.c_uint(_EXCHANGE))
    elif hasattr(library, "renameat2"):
        here = ctypes.c_int(_THIS_FOLDER)
        failed = library.renameat2(here, names[0], here, names[1], ctypes.c_uint(_EXCHANGE))
    else:
        return False
    number = ctypes.get_errno()
    if failed and number not in _CANNOT_EXCHANGE:
        raise OSError(number, os.strerror(number), str(other))
    return not failed


def _link(source: str, target: str) -> str:
    """Give a file a second name, or copy it where there are no such."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target
