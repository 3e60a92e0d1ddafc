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
from xacle_stack.cache.sequences import Rows, Sequences, concatenate, describe
from xacle_stack.errors import CacheError

logger = logging.getLogger(__name__)

# A partial file lives for one write; one that is older was left behind by a killed process.
_STALE_AFTER_S = 3600.0


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
        if kinds != before or any(len(of_output) != len(keys) for of_output in rows.values()):
            raise CacheError(
                f"{self.folder}: {len(keys)} keys with outputs of "
                f"{ {name: (len(rows[name]), kind) for name, kind in kinds.items()} } beside rows "
                f"of {before}: every row needs the same outputs. Nothing of this batch was kept."
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
        path = self.folder / FINGERPRINT_FILE
        with _disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_stale_partials(self.folder)
            if not path.exists():
                facts = {"encoder": self._store.encoder, **self._facts}
                content = json.dumps(facts, indent=2, sort_keys=True) + "\n"
                write_atomically(path, content.encode())


def write_segment(
    folder: Path, store: StoreId, modality: str, keys: KeyArray, outputs: Mapping[str, Rows]
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
