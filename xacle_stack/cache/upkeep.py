"""Care of stores: finding damage, merging small segments."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from xacle_stack._types import IntArray
from xacle_stack.cache.schema import (
    KEY_DTYPE,
    KeyArray,
    StoreId,
    bytes_digest,
    is_shortage,
    open_segment,
    read_offsets,
    read_outputs,
)
from xacle_stack.cache.sequences import Rows, Sequences, concatenate, describe
from xacle_stack.cache.writer import remove_stale_partials, write_segment
from xacle_stack.errors import CacheError

# Merged segments have up to this size: large enough to be few, small enough for memory.
_MERGED_BYTES = 256 << 20


def segment_fault(path: Path, store: StoreId, modality: str) -> str | None:
    """Say what is wrong with a segment, reading every byte; None if nothing is."""
    try:
        if path.stem != f"{modality}-{bytes_digest(path.read_bytes())}":
            return (
                "its bytes are not those that were written. Delete the file and run "
                "`make features`: only its rows are encoded again"
            )
        with open_segment(path) as file:
            found = StoreId(str(file.attrs["encoder"]), str(file.attrs["fingerprint"]))
            if found != store or file.attrs["modality"] != modality:
                return f"it belongs to {found.folder}, {file.attrs['modality']}; move it there"
            n_rows = {len(file["keys"])}
            for values in file["outputs"].values():
                is_vectors = isinstance(values, h5py.Dataset)
                n_rows.add(len(values) if is_vectors else len(read_offsets(values)) - 1)
            if len(n_rows) != 1:
                return f"its data sets have different numbers of rows: {sorted(n_rows)}"
    except OSError as error:  # CacheError is one
        if is_shortage(error):
            raise
        return str(error)
    return None


def merge_segments(folder: Path, store: StoreId, modality: str, paths: Sequence[Path]) -> None:
    """Rewrite segments as few large ones without duplicate rows, then delete the old ones.

    Raises
    ------
    CacheError
        If a segment is damaged or the disk is full; whatever was not rewritten stays.
    """
    remove_stale_partials(folder)
    seen: set[bytes] = set()
    batch: list[Path] = []
    parts: list[tuple[KeyArray, dict[str, Rows]]] = []
    n_bytes = 0
    for path in paths:
        with open_segment(path) as file:
            keys = file["keys"][:].astype(KEY_DTYPE, copy=False)
            fresh = np.flatnonzero([key not in seen for key in keys.tolist()])
            outputs = {name: _take(rows, fresh) for name, rows in read_outputs(file).items()}
        kinds = {name: describe(rows) for name, rows in outputs.items()}
        if parts and kinds != {name: describe(rows) for name, rows in parts[0][1].items()}:
            raise CacheError(
                f"{path}: its outputs {kinds} differ from those of the segments before it, so "
                "they cannot be merged. Nothing of it was changed."
            )
        size = sum(rows.nbytes for rows in outputs.values())
        if batch and n_bytes + size > _MERGED_BYTES:
            _replace(folder, store, modality, batch, parts)
            batch, parts, n_bytes = [], [], 0
        seen.update(keys.tolist())
        parts.append((keys[fresh], outputs))
        batch.append(path)
        n_bytes += size
    _replace(folder, store, modality, batch, parts)


def _take(rows: Rows, wanted: IntArray) -> Rows:
    return rows.take(wanted) if isinstance(rows, Sequences) else rows[wanted]


def _replace(
    folder: Path,
    store: StoreId,
    modality: str,
    old: Sequence[Path],
    parts: Sequence[tuple[KeyArray, dict[str, Rows]]],
) -> None:
    """Write the parts as one segment; only then delete the segments that they came from."""
    keys = np.concatenate([keys for keys, _ in parts])
    written = None
    if len(keys):
        names = parts[0][1]
        merged = {name: concatenate([outputs[name] for _, outputs in parts]) for name in names}
        written = write_segment(folder, store, modality, keys, merged)
    for path in old:
        if path != written:  # a lone segment is rewritten as itself
            path.unlink(missing_ok=True)
