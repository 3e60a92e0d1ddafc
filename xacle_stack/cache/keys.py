"""Content keys of audio files, remembered so that an unchanged file is not decoded again.

A file's key is that of its decoded audio.  The memo identifies a file by its
folder, its name and its status (size, times of modification and change, inode).  If the memo is
damaged or out of date, the file is only decoded once more.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from xacle_stack._files import read_small_file, write_atomically
from xacle_stack.audio import DECODING_VERSION, ClipSource, read_clip
from xacle_stack.cache.memo import FileStatus, FolderMemo
from xacle_stack.cache.raw_keys import RAW_DTYPE, RawKeys
from xacle_stack.errors import AudioError, bullet_list

logger = logging.getLogger(__name__)

_FOLDER, _SUFFIX = "keys", ".keys"
_MAX_BYTES = 1 << 32  # of 67 million files in one folder


def file_status(path: Path | ClipSource) -> FileStatus | None:
    """Return a file's size, times and inode, which change with its content; None without a file.

    The time of change and the inode distinguish files that an archive unpacked with equal sizes
    and equal modification times.
    """
    if isinstance(path, ClipSource):
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class AudioKeys:
    """Looks up the content keys of audio files.

    Parameters
    ----------
    root : Path
        The folder of all stores; the memo lives in its subfolder ``keys``.
    save_seconds : float, default=60
        How often the memo is saved while it grows.  A killed process loses this much work.
    """

    def __init__(self, root: Path, *, save_seconds: float = 60.0) -> None:
        self._folder = root / _FOLDER
        self._save_seconds = save_seconds
        self._saved_at = time.monotonic()
        self._memos: dict[Path, FolderMemo] = {}
        self._changed: set[Path] = set()

    def known(self, path: Path | ClipSource) -> str | None:
        """Return the key of a file that has not changed since it was decoded; None otherwise."""
        if isinstance(path, ClipSource):
            return path.content_key
        return self._memo(path.parent).find(path.name, file_status(path))

    def remember(self, path: Path | ClipSource, key: str, before: FileStatus | None) -> str:
        """Note the key of a file that was decoded, and return it.

        `before` is the file's status before it was decoded.  A file that has changed meanwhile is
        not remembered.
        """
        if isinstance(path, ClipSource):
            path.content_key = key
        elif before is not None and before == file_status(path):
            self._memo(path.parent).remember(path.name, before, key)
            self._changed.add(path.parent)
            if time.monotonic() - self._saved_at >= self._save_seconds:
                self.save()
        return key

    def look_up(self, paths: Sequence[Path | ClipSource]) -> RawKeys:
        """Return the keys of files, shape (n_paths,), decoding those that are new.

        Raises
        ------
        AudioError
            With every file that cannot be decoded, at most 20 shown.
        """
        failures: list[str] = []

        def each() -> Iterator[bytes]:
            for path in paths:
                try:
                    before = file_status(path)
                    key = self.known(path) or self.remember(
                        path, read_clip(path).content_key, before
                    )
                    yield bytes.fromhex(key)
                except AudioError as error:
                    failures.append(str(error))
                    yield b""

        try:
            keys: RawKeys = np.fromiter(each(), RAW_DTYPE, len(paths))
        finally:  # Ctrl-C also keeps what was learned
            self.save()
        if failures:
            raise AudioError(
                f"{len(failures)} audio file(s) cannot be used. Mend them, or take their pairs out "
                f"of the CSV files:\n{bullet_list(failures)}"
            )
        return keys

    def save(self) -> None:
        """Write what was learned, if there is a cache and it may be written."""
        self._saved_at = time.monotonic()
        # Reading from a mistyped path must not create that folder.
        if not self._folder.parent.is_dir():
            return
        for folder in self._changed:
            # Another process may have added other files meanwhile.
            memo = self._memos[folder] = self._memos[folder].on(self._read(folder))
            path = self._path(folder)
            try:
                self._folder.mkdir(exist_ok=True)
                if path.is_symlink():  # its target may not be a memo
                    path.unlink()
                write_atomically(path, memo.to_bytes(_facts(folder)))
            except OSError as error:
                logger.info("%s: content keys not remembered: %s", self._folder, error)
        self._changed.clear()

    def _memo(self, folder: Path) -> FolderMemo:
        if folder not in self._memos:
            self._memos[folder] = self._read(folder)
        return self._memos[folder]

    def _read(self, folder: Path) -> FolderMemo:
        path = self._path(folder)
        try:
            return FolderMemo.from_bytes(read_small_file(path, _MAX_BYTES), _facts(folder))
        except FileNotFoundError:
            return FolderMemo()
        except (OSError, ValueError, RecursionError) as error:
            logger.warning("%s: ignored and made again: %s", path, error)
            return FolderMemo()

    def _path(self, folder: Path) -> Path:
        name = str(folder.resolve()).encode("utf-8", errors="surrogateescape")
        return self._folder / f"{hashlib.blake2b(name, digest_size=16).hexdigest()}{_SUFFIX}"


def _facts(folder: Path) -> dict[str, object]:
    # An older release may have decoded a file to other samples.
    return {"folder": str(folder.resolve()), "decoding": DECODING_VERSION}
