"""Finds a split's audio files, and similar names for a file that is missing."""

import errno
import os
import stat
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
_Simplify = Callable[[str], str]


class AudioFolder:
    """Finds the audio files that a CSV file names.

    A name in another Unicode form than the CSV's is found too, because archives made on a Mac write
    "é" as two characters.

    Parameters
    ----------
    root : Path
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listings: dict[tuple[Path, _Simplify], dict[str, list[str]]] = {}

    def find(self, file: str, mistakes: list[str]) -> Path:
        """Return the path of a file, and note what is wrong with it.

        Parameters
        ----------
        file : str
            Path relative to the folder, or absolute, with ``/`` between its parts.
        mistakes : list of str
            Gets a line if the file is missing, not a file, or not readable.
        """
        path = self._root / file
        try:
            mode = self._mode(path)
            if mode is None:
                path = self._beside(file, composed) or path
                mode = self._mode(path)
        except OSError as error:  # such as a name that is too long
            mistakes.append(f"{path}: cannot be accessed ({error.strerror})")
            return path
        if mode is None:
            near = (
                self._beside(file, _without_case)
                or self._beside(file, _without_ending)
                or self._beside(f"{file}.wav", _without_ending)
            )
            shown = near if near is None or path == Path(file) else near.relative_to(self._root)
            hint = f"; did you mean {shown.as_posix()!r}?" if shown else ""
            mistakes.append(f"{path}: no such audio file{hint}")
        elif stat.S_ISDIR(mode):
            mistakes.append(f"{path}: this is a folder, not an audio file")
        elif not stat.S_ISREG(mode):  # reading a pipe may never end
            mistakes.append(f"{path}: this is not a regular file")
        elif not os.access(path, os.R_OK):
            mistakes.append(f"{path}: not readable; change its permissions")
        return path

    def _mode(self, path: Path) -> int | None:
        try:
            return path.stat().st_mode
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise

    def _beside(self, file: str, simplify: _Simplify) -> Path | None:
        """Return the only file with the same simplified name as `file`, if there is one."""
        whole = PurePosixPath(file)
        path = Path(whole.anchor) if whole.is_absolute() else self._root
        for part in whole.relative_to(whole.anchor).parts:
            if part == "..":
                path /= part
                continue
            names = self._listing(path, simplify).get(simplify(part), [])
            if part in names:
                names = [part]
            if len(names) != 1:
                return None
            path /= names[0]
        return path

    def _listing(self, folder: Path, simplify: _Simplify) -> dict[str, list[str]]:
        if (folder, simplify) not in self._listings:
            listing: dict[str, list[str]] = {}
            with suppress(OSError):  # what cannot be listed has no names to offer
                for name in sorted(path.name for path in folder.iterdir()):
                    listing.setdefault(simplify(name), []).append(name)
            self._listings[folder, simplify] = listing
        return self._listings[folder, simplify]


def composed(name: str) -> str:
    """Return a name in the Unicode form NFC."""
    return unicodedata.normalize("NFC", name)


def _without_case(name: str) -> str:
    return composed(name).casefold()


def _without_ending(name: str) -> str:
    return _without_case(PurePosixPath(name).stem)
