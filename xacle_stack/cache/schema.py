"""Defines a segment, an immutable HDF5 file of embeddings, and makes its bytes.

::

    <store>/<encoder>-<fingerprint>/fingerprint.json
    <store>/<encoder>-<fingerprint>/<modality>-<hash of the file's bytes>.h5
        attributes  schema_version, encoder, fingerprint, modality, belongs_to, generation
        /keys                    (n_rows,)           each row's content key, 32 hexadecimal digits
        /outputs/<name>          (n_rows, n_dims)    float32, if each row is one vector
        /outputs/<name>/frames   (n_frames, n_dims)  float16 or float32, if it is a sequence:
        /outputs/<name>/offsets  (n_rows + 1,)       row i is frames[offsets[i]:offsets[i + 1]]
        /sorted/keys             (n_rows,)           in a merged segment: the keys, 16 bytes each,
        /sorted/rows             (n_rows,)           sorted, and their rows

Every data set is chunked with Fletcher32 and the file's own structures carry checksums (HDF5's
1.10 format), so a flipped byte that matters is an error on reading.  The file's name is the hash
of its bytes, so `verify` finds a flipped byte anywhere.  ``belongs_to`` repeats the three preceding
names as ``<encoder>-<fingerprint>/<modality>`` in a string of fixed length.  HDF5 keeps the other
strings without a checksum, and a flipped byte there can make it search for ever.  A segment of
newly encoded rows has the generation 0, which is not stored.  A merged segment has one more than
the highest generation of its sources.  Its keys are there once more, sorted, so that a few of a
million are found without reading the others.

The schema version stays the same when the layout only grows, by another attribute or group.  It
rises when an older release would read wrong rows or lose some; the reader refuses versions that it
does not know.  A segment states the lowest version that describes it: 1, or 2 if it holds
sequences, which a release of version 1 would drop when it merges segments.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import h5py
import numpy as np
from numpy.typing import NDArray

from xacle_stack.cache.disk_errors import list_folder
from xacle_stack.cache.raw_keys import raw_keys, text_digest
from xacle_stack.cache.sequences import Rows, Sequences

SCHEMA_VERSION = 2
VERSION_WITHOUT_SEQUENCES = 1
SORTED_GROUP = "sorted"
FINGERPRINT_FILE = "fingerprint.json"
SEGMENT_SUFFIX = ".h5"
MODALITIES = ("audio", "text")
KEY_DTYPE = np.dtype("S32")
# Chunks of about this size make both a single row and a whole table quick to read.
_CHUNK_BYTES = 1 << 18

KeyArray = NDArray[np.bytes_]


@dataclass(frozen=True)
class StoreId:
    """The name of the store of one encoder with one fingerprint."""

    encoder: str
    fingerprint: str

    @property
    def folder(self) -> str:
        """Name of the store's folder."""
        return f"{self.encoder}-{self.fingerprint}"

    @classmethod
    def from_folder(cls, name: str) -> Self:
        """Return the store whose folder has this name."""
        # An encoder's name may contain hyphens, a fingerprint does not.
        encoder, _, fingerprint = name.rpartition("-")
        return cls(encoder, fingerprint)


def text_key(caption: str) -> str:
    """Return the content key of a caption: 32 hexadecimal digits from its UTF-8."""
    return text_digest(caption).hex()


def segment_hasher(content: bytes | memoryview = b"") -> hashlib.blake2b:
    """Return the hash whose digest names a segment."""
    return hashlib.blake2b(content, digest_size=16)


def bytes_digest(content: bytes | memoryview) -> str:
    """Return the digest that names a segment file with this content."""
    return segment_hasher(content).hexdigest()


def owner_name(store: StoreId, modality: str) -> str:
    """Return the value of ``belongs_to``: the store and modality of a segment."""
    return f"{store.folder}/{modality}"


def segment_image(
    store: StoreId,
    modality: str,
    keys: KeyArray,
    outputs: Mapping[str, Rows],
    generation: int = 0,
) -> memoryview:
    """Return the bytes of a segment file with the layout of the module's docstring.

    The file is built in memory and written at once, so a full disk or a signal cannot interrupt
    HDF5 in the middle of its work.
    """
    sequences = any(isinstance(rows, Sequences) for rows in outputs.values())
    image = io.BytesIO()
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION if sequences else VERSION_WITHOUT_SEQUENCES
        file.attrs["encoder"] = store.encoder
        file.attrs["fingerprint"] = store.fingerprint
        file.attrs["modality"] = modality
        file.attrs["belongs_to"] = np.bytes_(owner_name(store, modality).encode())
        if generation:
            file.attrs["generation"] = generation
            raw = raw_keys(keys)
            order = np.argsort(raw).astype(np.int32)
            _write(file, f"{SORTED_GROUP}/keys", raw[order])
            _write(file, f"{SORTED_GROUP}/rows", order)
        _write(file, "keys", keys)
        for name, rows in outputs.items():
            if isinstance(rows, Sequences):
                _write(file, f"outputs/{name}/frames", rows.frames)
                _write(file, f"outputs/{name}/offsets", rows.offsets)
            else:
                _write(file, f"outputs/{name}", rows)
    return image.getbuffer()


def _write(file: h5py.File, name: str, values: NDArray[np.generic]) -> None:
    row_bytes = max(1, values.nbytes // len(values))
    chunk_rows = int(np.clip(_CHUNK_BYTES // row_bytes, 1, len(values)))
    chunks = (chunk_rows, *values.shape[1:])
    file.create_dataset(name, data=values, chunks=chunks, fletcher32=True)


def segment_paths(folder: Path, modality: str) -> list[Path]:
    """Return a store's segments of one modality, sorted by name.

    Raises
    ------
    CacheError
        If the folder cannot be listed.  A missing folder has no segments.
    """
    return [
        path
        for path in list_folder(folder)
        if path.name.startswith(f"{modality}-") and path.suffix == SEGMENT_SUFFIX
    ]
