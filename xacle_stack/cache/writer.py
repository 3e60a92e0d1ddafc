"""Writes rows into a store, segment by segment; nothing that is complete is ever touched again."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from xacle_stack._files import PARTIAL_SUFFIX, write_atomically
from xacle_stack._types import FloatArray
from xacle_stack.cache.disk_errors import reason, remedy
from xacle_stack.cache.facts import write_facts
from xacle_stack.cache.schema import (
    FINGERPRINT_FILE,
    KEY_DTYPE,
    SEGMENT_SUFFIX,
    KeyArray,
    StoreId,
    bytes_digest,
    segment_image,
)
from xacle_stack.cache.sequences import Rows, Sequences, concatenate, describe
from xacle_stack.errors import CacheError

logger = logging.getLogger(__name__)

# A partial file lives for one write; one that is older was left behind by a killed process.
_STALE_AFTER_S = 3600.0
_KEY = re.compile("[0-9a-f]{32}")


class StoreWriter:
    """Collects rows and writes them as immutable segments.

    A segment is written when it has ``segment_rows`` rows or ``segment_bytes`` bytes or holds the
    work of ``segment_seconds``, and when the ``with`` block is left, also by Ctrl-C or an error:
    what was encoded is kept.  SIGKILL loses at most the rows since the last segment.  Any number
    of writers may work in one store.

    Parameters
    ----------
    root : Path
        The folder of all stores.
    store : StoreId
    modality : {"audio", "text"}
    facts : mapping
        What the fingerprint was made from, kept as ``fingerprint.json`` for people to read.
    segment_rows : int, default=4096
    segment_bytes : int, default=64 MiB
        A segment is built in memory, which takes some four times that.
    segment_seconds : float, default=60

    Raises
    ------
    CacheError
        If the disk is full or the folder cannot be written; the store stays valid.
    """

    def __init__(
        self,
        root: Path,
        store: StoreId,
        modality: str,
        facts: Mapping[str, object],
        *,
        segment_rows: int = 4096,
        segment_bytes: int = 64 << 20,
        segment_seconds: float = 60.0,
    ) -> None:
        self.folder = root / store.folder
        self._store = store
        self._modality = modality
        self._facts = facts
        self._segment_rows = segment_rows
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._keys: list[str] = []
        self._outputs: dict[str, list[Rows]] = {}
        self._n_bytes = 0
        self._opened_at = time.monotonic()

    def __enter__(self) -> Self:
        # A store that lost its record gets it back, also if every row is there already.
        if self.folder.is_dir():
            try:
                write_facts(self.folder, self._store.encoder, self._facts)
            except OSError as error:  # a store that is only read needs no permission to write
                logger.info("%s: %s not written: %s", self.folder, FINGERPRINT_FILE, error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After a failed write (a full disk) another attempt would only hide the first error.
        if not isinstance(error, CacheError):
            self.flush()

    def append(
        self, keys: Sequence[str], outputs: Mapping[str, FloatArray | Sequence[FloatArray]]
    ) -> None:
        """Add rows.

        Parameters
        ----------
        keys : sequence of str of length n_rows
            Content keys.
        outputs : mapping of str to ndarray of shape (n_rows, n_dims), or list of ndarray
            An array holds one vector a row, which is stored as float32.  A list holds one sequence
            of vectors a row, an array of shape (n_frames, n_dims), each with its own number of
            frames; float16 stays float16, everything else becomes float32.  The same names, types
            and numbers of dimensions at every call.

        Raises
        ------
        CacheError
            If the outputs do not fit the keys or the rows before, or a sequence is empty.
        """
        rows = {name: self._as_rows(name, values) for name, values in outputs.items()}
        kinds = {name: describe(of_output) for name, of_output in rows.items()}
        before = {name: describe(parts[0]) for name, parts in self._outputs.items()} or kinds
        if (
            not rows
            or kinds != before
            or any(len(of_output) != len(keys) for of_output in rows.values())
        ):
            raise CacheError(
                f"{self.folder}: {len(keys)} keys with outputs of "
                f"{ {name: (len(rows[name]), kind) for name, kind in kinds.items()} } beside rows "
                f"of {before}: every row needs the same outputs. Nothing of this batch was kept."
            )
        if any(_KEY.fullmatch(key) is None for key in keys):
            raise CacheError(
                f"{self.folder}: keys {list(keys)}; expected 32 hexadecimal digits each. Nothing "
                "of this batch was kept."
            )
        self._keys.extend(keys)
        for name, of_output in rows.items():
            self._outputs.setdefault(name, []).append(of_output)
            self._n_bytes += of_output.nbytes
        if (
            len(self._keys) >= self._segment_rows
            or self._n_bytes >= self._segment_bytes
            or time.monotonic() - self._opened_at >= self._segment_seconds
        ):
            self.flush()

    def flush(self) -> None:
        """Write the collected rows as one segment now."""
        if self._keys:
            self._make_store()
            outputs = {name: concatenate(parts) for name, parts in self._outputs.items()}
            keys = np.array(self._keys, dtype=KEY_DTYPE)
            write_segment(self.folder, self._store, self._modality, keys, outputs)
            self._keys, self._outputs, self._n_bytes = [], {}, 0
        self._opened_at = time.monotonic()

    def _as_rows(self, name: str, values: FloatArray | Sequence[FloatArray]) -> Rows:
        if isinstance(values, np.ndarray):
            if values.ndim != 2 or values.shape[1] == 0:
                raise CacheError(
                    f"{self.folder}: output {name!r} of shape {values.shape}; expected one array "
                    "of shape (n_rows, n_dims). Nothing of this batch was kept."
                )
            return np.asarray(values, dtype=np.float32)
        parts: list[FloatArray] = [
            part if part.dtype == np.float16 else part.astype(np.float32, copy=False)
            for part in map(np.asarray, values)
        ]
        shapes = [part.shape for part in parts]
        if any(len(shape) != 2 or shape[0] == 0 for shape in shapes) or (
            len({(part.shape[1], part.dtype) for part in parts}) != 1
        ):
            raise CacheError(
                f"{self.folder}: output {name!r} with sequences of the shapes {shapes}; expected "
                "one array (n_frames, n_dims) a row, all of one n_dims and type, each with at "
                "least one frame. Nothing of this batch was kept."
            )
        return Sequences.join(parts)

    def _make_store(self) -> None:
        """Make the folder with the first rows: an encoder that fails to load leaves no store."""
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_facts(self.folder, self._store.encoder, self._facts)
        remove_stale_partials(self.folder)


def write_segment(
    folder: Path,
    store: StoreId,
    modality: str,
    keys: KeyArray,
    outputs: Mapping[str, Rows],
    generation: int = 0,
) -> Path:
    """Write one segment and return its path; it appears complete or not at all."""
    image = segment_image(store, modality, keys, outputs, generation)
    path = folder / f"{modality}-{bytes_digest(image)}{SEGMENT_SUFFIX}"
    with _writing(path):
        write_atomically(path, image)
    logger.debug("%s: %d rows", path, len(keys))
    return path


def remove_stale_partials(folder: Path) -> None:
    """Delete what killed writers left behind, but nothing that a living one may be writing.

    Only age tells them apart.  The process id in the name does not: the writer may run on another
    host of a shared disk, or in another container, where the same number means another process.
    """
    now = time.time()
    for partial in folder.glob(f".*{PARTIAL_SUFFIX}"):
        try:
            if now - partial.stat().st_mtime > _STALE_AFTER_S:
                partial.unlink()
        except FileNotFoundError:  # another writer was faster
            continue
        except OSError as error:  # another user's, which harms nobody
            logger.info("%s: not deleted: %s", partial, error)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the disk into a CacheError that says what to do."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(
            f"{path}: cannot be written ({reason(error)}). The segments that are complete are "
            f"unharmed: {remedy(error)}, or choose another --store; then run again."
        ) from error
