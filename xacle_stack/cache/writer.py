"""Writes rows into a store as segments, which never change once they are complete."""

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

# A partial file exists during one write; an older one was left by a killed process.
_STALE_AFTER_S = 3600.0
_KEY = re.compile("[0-9a-f]{32}")


class StoreWriter:
    """Collects rows and writes them as immutable segments.

    A segment is written when it reaches ``segment_rows``, ``segment_bytes`` or
    ``segment_seconds``, and at the end of the ``with`` block.  So an error or Ctrl-C loses no rows,
    and SIGKILL only those since the last segment.  Any number of writers may share a store.

    Parameters
    ----------
    root : Path
        The folder of all stores.
    store : StoreId
    modality : {"audio", "text"}
    facts : mapping
        What the fingerprint was made from; ``fingerprint.json`` records it for people to read.
    segment_rows : int, default=4096
    segment_bytes : int, default=64 MiB
        A segment is built in memory, which takes about four times as much.
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
        # Restores a lost record even if no row is missing.
        if self.folder.is_dir():
            try:
                write_facts(self.folder, self._store.encoder, self._facts)
            except OSError as error:  # a store may be read-only if no row is missing
                logger.info("%s: %s not written: %s", self.folder, FINGERPRINT_FILE, error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After a failed write, for example on a full disk, a second one would hide its error.
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
            An array holds one vector for each row and is stored as float32.  A list holds one
            sequence for each row, an array of shape (n_frames, n_dims); float16 stays float16, any
            other type becomes float32.  Every call needs the same names, types and numbers of
            dimensions.

        Raises
        ------
        CacheError
            If the outputs do not match the keys or the earlier rows, or a sequence is empty.
        """
        rows = {name: self._as_rows(name, values) for name, values in outputs.items()}
        kinds = {name: describe(values) for name, values in rows.items()}
        before = {name: describe(parts[0]) for name, parts in self._outputs.items()} or kinds
        if not rows or kinds != before or any(len(values) != len(keys) for values in rows.values()):
            raise CacheError(
                f"{self.folder}: {len(keys)} keys with outputs of "
                f"{ {name: (len(rows[name]), kind) for name, kind in kinds.items()} } after rows "
                f"of {before}: every row needs the same outputs. Nothing of this batch was kept."
            )
        if any(_KEY.fullmatch(key) is None for key in keys):
            raise CacheError(
                f"{self.folder}: keys {list(keys)}; expected 32 hexadecimal digits each. Nothing "
                "of this batch was kept."
            )
        self._keys.extend(keys)
        for name, values in rows.items():
            self._outputs.setdefault(name, []).append(values)
            self._n_bytes += values.nbytes
        if (
            len(self._keys) >= self._segment_rows
            or self._n_bytes >= self._segment_bytes
            or time.monotonic() - self._opened_at >= self._segment_seconds
        ):
            self.flush()

    def flush(self) -> None:
        """Write the collected rows as one segment."""
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
                "one array of shape (n_frames, n_dims) for each row, with the same n_dims and "
                "type, and at least one frame each. Nothing of this batch was kept."
            )
        return Sequences.join(parts)

    def _make_store(self) -> None:
        """Create the folder with the first rows, so a failing encoder leaves no store behind."""
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
    """Delete partial files of killed writers, but none that a running writer may still need.

    They are recognised by their age.  The process id in the name says nothing, because the writer
    may run on another host of a shared disk or in another container.
    """
    now = time.time()
    for partial in folder.glob(f".*{PARTIAL_SUFFIX}"):
        try:
            if now - partial.stat().st_mtime > _STALE_AFTER_S:
                partial.unlink()
        except FileNotFoundError:  # another writer was faster
            continue
        except OSError as error:  # another user's file is harmless
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
            f"{path}: cannot be written ({reason(error)}). Complete segments are unharmed: "
            f"{remedy(error)}, or choose another --store; then run again."
        ) from error
