"""The folder of a run's results: of one run, the old one or the new one, at every moment."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Self

from xacle_stack._files import write_atomically
from xacle_stack._folder_draft import FolderDraft
from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import load_card

# Below the folder of a run.
MODELS = "models"
# The list of the files that a run wrote.  Others in the folder are the user's, and they stay.
WRITTEN = "written.txt"
# What runs wrote in versions without that list.
_WRITTEN_BEFORE = (
    *("model.skops", "model.json", "results.csv", "results.md", "comparison.csv", "comparison.md"),
    *(
        f"scores-{split}{system}.csv"
        for split in ("train", "validation", "test")
        for system in ("", "-*")
    ),
    *("srcc.png", "srcc-mse.png", "validation-test.png", "difference.png"),
    *(f"{MODELS}/*.skops", f"{MODELS}/*.json"),
)


class RunFolder:
    """The results of one run, which replace those of an earlier one as a whole.

    Use it in a ``with`` block.  Files of the user's own stay in the folder.

    Parameters
    ----------
    out : Path
        The folder of the results.
    data : Path
        The data set that they are about.
    store : Path
        The embeddings that they are made from.

    Attributes
    ----------
    out : Path
    draft : Path
        Write here.

    Raises
    ------
    ModelFileError
        If nothing can be written there, another run is writing, or the folder holds the results of
        another data set, or the data set or the store itself; before anything is fitted.
    """

    def __init__(self, out: Path, data: Path, store: Path) -> None:
        self.out = out
        self._data = data
        self._store = store
        self._folder = FolderDraft(out)
        self.draft = self._folder.folder

    def __enter__(self) -> Self:
        if self.out.exists() and not self.out.is_dir():
            raise ModelFileError(f"{self.out}: this is a file. Give a folder with --out.")
        for what, place in (("data set", self._data), ("store of embeddings", self._store)):
            # Another process may write there while the folder is replaced.
            if place.resolve().is_relative_to(self.out.resolve()):
                raise ModelFileError(
                    f"{self.out}: the {what} is in this folder, which would be replaced as a "
                    "whole. Give a folder of its own with --out."
                )
        try:
            self._folder.__enter__()
        except BlockingIOError:
            raise ModelFileError(
                f"{self.out}: another run is writing its results there. Wait until it is finished, "
                "or give another folder with --out."
            ) from None
        except OSError as error:
            raise ModelFileError(
                f"{self.out}: cannot be written ({error.strerror}). Give another folder with --out."
            ) from None
        try:
            self._check_data()
        except BaseException:
            self._folder.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.__exit__(None, None, None)

    @property
    def has_results(self) -> bool:
        """Whether a run before has left results."""
        return any(map(self._earlier_files(), _files_below(self.out)))

    def publish(self) -> None:
        """Put what stands in the draft now into the place of the results; go on as often as needed.

        Raises
        ------
        ModelFileError
            If that cannot be done; the results before are unharmed then.
        """
        try:
            written = sorted({WRITTEN, *(path.as_posix() for path in _files_below(self.draft))})
            write_atomically(self.draft / WRITTEN, "".join(f"{x}\n" for x in written).encode())
            is_earlier = self._earlier_files()
            self._folder.publish(is_kept=lambda path: not is_earlier(path))
        except OSError as error:
            raise ModelFileError(
                f"{self.out}: the results cannot be put there ({error.strerror}). Those of the run "
                "before are unharmed. Make room or give permission, or give another --out."
            ) from None

    def _earlier_files(self) -> Callable[[PurePath], bool]:
        """Return what tells the files of an earlier run from the user's."""
        listed = self.out / WRITTEN
        if listed.is_file():
            written = {
                PurePath(line) for line in listed.read_text("utf-8", errors="replace").splitlines()
            }
            return written.__contains__
        return lambda path: any(
            len(path.parts) == len(PurePath(pattern).parts) and path.match(pattern)
            for pattern in _WRITTEN_BEFORE
        )

    def _check_data(self) -> None:
        for model in [self.out, *self.out.glob(f"{MODELS}/*.skops")]:
            try:
                card = load_card(model)
            except ModelFileError:  # no finished run
                continue
            if card.get("data", data_digest(self._data)) != data_digest(self._data):
                raise ModelFileError(
                    f"{self.out}: it holds the results of another data set of the same name. Give "
                    "another folder with --out, or remove this one."
                )


def data_digest(data: Path) -> str:
    """Return what a model's card says of where its data set was."""
    # Not the path itself: a model may be given away.
    return hashlib.blake2b(str(data.resolve()).encode(), digest_size=8).hexdigest()


def _files_below(folder: Path) -> Iterator[PurePath]:
    return (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
