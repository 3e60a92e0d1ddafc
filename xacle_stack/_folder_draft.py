"""Replaces a folder as a whole by one that was written beside it.

A folder cannot be renamed onto one that is not empty, but Linux and macOS can exchange two folders.
So either the old or the new folder is there at every moment, even if the process is killed.
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

_EXCHANGE, _THIS_FOLDER = 2, -100  # Linux's numbers; macOS has the same for its own function
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


class FolderDraft:
    """A hidden folder for the new content of a folder; use it in a ``with`` block.

    Within the block, no other process can have a draft of the same folder.  A draft that a killed
    process left behind is deleted by the next one.

    Parameters
    ----------
    target : path-like
        The folder to create or to replace.  If it is a symbolic link, its target is replaced.

    Attributes
    ----------
    folder : Path
        The folder to write to.

    Raises
    ------
    BlockingIOError
        If another process has a draft of the same folder.
    OSError
        If the folder beside the target cannot be written, or the target cannot be replaced because
        a file system is mounted there or the current directory is in it.

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
        self._hidden = self.target.with_name(f".{self.target.name}{PARTIAL_SUFFIX}")
        self.folder = self._hidden / "draft"
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
        """Replace the target by the draft's present content; the draft remains.

        Parameters
        ----------
        is_kept : callable, optional
            Takes a file's path within the old folder and returns whether the new folder keeps the
            file, provided that the draft has none of the same name.

        Raises
        ------
        OSError
            If the target cannot be replaced; it is then unharmed.
        """
        fresh = self._hidden / "new"
        shutil.copytree(self.folder, fresh, copy_function=link_or_copy)
        for path in sorted(self.target.rglob("*")) if self.target.is_dir() else ():
            own = path.relative_to(self.target)
            copy = fresh / own
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    copy.mkdir(parents=True, exist_ok=True)
            elif is_kept(own):
                copy.parent.mkdir(parents=True, exist_ok=True)
                if not copy.exists():
                    link_or_copy(str(path), str(copy))
        if self.target.exists():
            shutil.copymode(self.target, fresh)
        for folder in (fresh, *(path for path in fresh.rglob("*") if path.is_dir())):
            make_durable(folder)
        self._put(fresh)
        make_durable(self.target.parent)
        shutil.rmtree(fresh, ignore_errors=True)

    def _check_replaceable(self) -> None:
        """Refuse a target now that could not be replaced at the end."""
        reason = None
        # Windows has no Path.is_mount before Python 3.12.
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
            old = self._hidden / "old"
            self.target.rename(old)
            fresh.rename(self.target)
            shutil.rmtree(old, ignore_errors=True)

    def _claim(self) -> int | None:
        """Create and lock the hidden folder; the lock ends with this process."""
        while True:
            try:
                self._hidden.mkdir(exist_ok=True)
            except FileExistsError:
                if os.path.lexists(self._hidden) and not self._hidden.is_dir():
                    raise
                continue  # the previous process has just finished
            if os.name != "posix":  # a system that cannot open folders
                return None
            try:
                handle = os.open(self._hidden, os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                is_locked = lock(handle) is not False
                # Otherwise the previous process deleted this folder before we had the lock.
                if os.path.samestat(os.fstat(handle), self._hidden.stat()):
                    if is_locked:
                        return handle
                    raise BlockingIOError(errno.EWOULDBLOCK, "in use", str(self.target))
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _sweep(self) -> None:
        """Delete what a killed process left, after restoring a target that it had moved away."""
        old = self._hidden / "old"
        if old.exists() and not self.target.exists():
            old.rename(self.target)
        for left in self._hidden.iterdir():
            shutil.rmtree(left)

    def _release(self) -> None:
        shutil.rmtree(self._hidden, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False if the system has no such call.

    Raises
    ------
    OSError
        If the system cannot exchange these two.
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


def link_or_copy(source: str, target: str) -> str:
    """Give a file a second name, or copy it on a file system without hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target
