"""Writes rows into a store, segment by segment; nothing that is complete is ever touched again."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from xacle_stack._files import PARTIAL_SUFFIX, write_atomically
from xacle_stack._types import FloatArray
from xacle_stack.cache.schema import (
    FINGERPRINT_FILE,
    KEY_DTYPE,
    KeyArray,
    StoreId,
    bytes_digest,
    segment_image,
)
from xacle_stack.errors import CacheError

logger = logging.getLogger(__name__)

# A partial file lives for one write; one that is older was left behind by a killed process.
_STALE_AFTER_S = 3600.0


class StoreWriter:
    """Collects rows and writes them as immutable segments.

    A segment is written when it has ``segment_rows`` rows or holds the work of
    ``segment_seconds``, and when the ``with`` block is left, also by Ctrl-C or an error: what was
    encoded is kept.  SIGKILL loses at most the rows since the last segment.  Any number of
    writers may work in one store.

    Parameters
    ----------
    root : Path
        The folder of all stores.
    store : StoreId
    modality : {"audio", "text"}
    facts : mapping
        What the fingerprint was made from, kept as ``fingerprint.json`` for people to read.
    segment_rows : int, default=4096
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
        segment_seconds: float = 60.0,
    ) -> None:
        self.folder = root / store.folder
        self._store = store
        self._modality = modality
        self._facts = facts
        self._segment_rows = segment_rows
        self._segment_seconds = segment_seconds
        self._keys: list[str] = []
        self._outputs: dict[str, list[FloatArray]] = {}
        self._opened_at = time.monotonic()

    def __enter__(self) -> Self:
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

    def append(self, keys: Sequence[str], outputs: Mapping[str, FloatArray]) -> None:
        """Add rows.

        Parameters
        ----------
        keys : sequence of str of length n_rows
            Content keys.
        outputs : mapping of str to ndarray of shape (n_rows, n_dims)
            The same names and numbers of dimensions at every call.

        Raises
        ------
        CacheError
            If the outputs do not fit the keys or the rows before.
        """
        arrays = {name: np.asarray(values, dtype=np.float32) for name, values in outputs.items()}
        widths = {name: values.shape[1:] for name, values in arrays.items()}
        before = {name: parts[0].shape[1:] for name, parts in self._outputs.items()} or widths
        if widths != before or any(len(values) != len(keys) for values in arrays.values()):
            raise CacheError(
                f"{self.folder}: {len(keys)} keys with outputs of shapes "
                f"{ {name: values.shape for name, values in arrays.items()} } beside rows of "
                f"{before}: every row needs the same outputs. Nothing of this batch was kept."
            )
        self._keys.extend(keys)
        for name, values in arrays.items():
            self._outputs.setdefault(name, []).append(values)
        if (
            len(self._keys) >= self._segment_rows
            or time.monotonic() - self._opened_at >= self._segment_seconds
        ):
            self.flush()

    def flush(self) -> None:
        """Write the collected rows as one segment now."""
        if self._keys:
            self._make_store()
            outputs = {name: np.concatenate(parts) for name, parts in self._outputs.items()}
            keys = np.array(self._keys, dtype=KEY_DTYPE)
            write_segment(self.folder, self._store, self._modality, keys, outputs)
            self._keys, self._outputs = [], {}
        self._opened_at = time.monotonic()

    def _make_store(self) -> None:
        """Make the folder with the first rows: an encoder that fails to load leaves no store."""
        path = self.folder / FINGERPRINT_FILE
        with _disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_stale_partials(self.folder)
            if not path.exists():
                facts = {"encoder": self._store.encoder, **self._facts}
                content = json.dumps(facts, indent=2, sort_keys=True) + "\n"
                write_atomically(path, content.encode())


def write_segment(
    folder: Path, store: StoreId, modality: str, keys: KeyArray, outputs: Mapping[str, FloatArray]
) -> Path:
    """Write one segment and return its path; it appears complete or not at all."""
    image = segment_image(store, modality, keys, outputs)
    path = folder / f"{modality}-{bytes_digest(image)}.h5"
    with _disk_errors(path):
        write_atomically(path, image)
    logger.debug("%s: %d rows", path, len(keys))
    return path


def remove_stale_partials(folder: Path) -> None:
    """Delete what killed writers left behind, but nothing that a living one may be writing."""
    now = time.time()
    for partial in folder.glob(f".*{PARTIAL_SUFFIX}"):
        try:
            if now - partial.stat().st_mtime > _STALE_AFTER_S:
                partial.unlink()
        except FileNotFoundError:  # another writer was faster
            continue


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the disk into a CacheError that says what to do."""
    try:
        yield
    except CacheError:
        raise
    except OSError as error:
        raise CacheError(
            f"{path}: cannot be written ({error.strerror}). The segments that are complete are "
            "unharmed: make room or give permission, or choose another --store; then run again."
        ) from error
