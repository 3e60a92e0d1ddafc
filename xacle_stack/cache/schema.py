"""What a segment is: one immutable HDF5 file of embeddings, and how it is checked.

::

    <store>/<encoder>-<fingerprint>/fingerprint.json
    <store>/<encoder>-<fingerprint>/<modality>-<hash of the file's bytes>.h5
        attributes  schema_version, encoder, fingerprint, modality
        /keys                    (n_rows,)           32 hexadecimal digits, each row's content key
        /outputs/<name>          (n_rows, n_dims)    float32, where a row is one vector
        /outputs/<name>/frames   (n_frames, n_dims)  float16 or float32, where it is a sequence:
        /outputs/<name>/offsets  (n_rows + 1,)       row i is frames[offsets[i]:offsets[i + 1]]

Every data set is chunked with Fletcher32 and the file's own structures carry checksums (HDF5's
1.10 format), so a flipped byte that matters is an error on reading.  The file's name is the hash
of its bytes, so `verify` finds one anywhere.

The layout may grow without a new schema version (another attribute, another output).  Whatever
would make an older release read wrong rows, or lose some, raises it; the reader refuses versions
that it does not know.  A segment says the lowest version that describes it: 1, or 2 if it holds
sequences, which a release of version 1 would leave out when it merges segments.
"""

import errno
import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from xacle_stack.cache.sequences import Rows, Sequences
from xacle_stack.errors import CacheError

SCHEMA_VERSION = 2
_WITHOUT_SEQUENCES = 1
FINGERPRINT_FILE = "fingerprint.json"
KEY_DTYPE = np.dtype("S32")
# Chunks of about this size keep a single row cheap to read and a whole table fast.
_CHUNK_BYTES = 1 << 18

KeyArray = NDArray[np.bytes_]


@dataclass(frozen=True)
class StoreId:
    """Names one encoder with one fingerprint."""

    encoder: str
    fingerprint: str

    @property
    def folder(self) -> str:
        """Name of the store's folder."""
        return f"{self.encoder}-{self.fingerprint}"


def text_key(caption: str) -> str:
    """Return the content key of a caption: 32 hexadecimal digits from its UTF-8."""
    return hashlib.blake2b(b"text" + caption.encode("utf-8"), digest_size=16).hexdigest()


def bytes_digest(content: bytes) -> str:
    """Return the hash that names a segment file."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def segment_image(
    store: StoreId, modality: str, keys: KeyArray, outputs: Mapping[str, Rows]
) -> bytes:
    """Return the bytes of a segment file.

    It is built in memory: the disk sees one plain write, which a full disk or a signal can
    interrupt without leaving HDF5 in the middle of anything.

    Parameters
    ----------
    store : StoreId
    modality : {"audio", "text"}
    keys : ndarray of shape (n_rows,)
        Content keys.
    outputs : mapping of str to ndarray of shape (n_rows, n_dims), or Sequences
        float32; sequences in the type that they are to have.
    """
    sequences = any(isinstance(rows, Sequences) for rows in outputs.values())
    image = io.BytesIO()
    with h5py.File(image, "w", libver=("v110", "v110")) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION if sequences else _WITHOUT_SEQUENCES
        file.attrs["encoder"] = store.encoder
        file.attrs["fingerprint"] = store.fingerprint
        file.attrs["modality"] = modality
        _write(file, "keys", keys)
        for name, rows in outputs.items():
            if isinstance(rows, Sequences):
                _write(file, f"outputs/{name}/frames", rows.frames)
                _write(file, f"outputs/{name}/offsets", rows.offsets)
            else:
                _write(file, f"outputs/{name}", rows)
    return image.getvalue()


def _write(file: h5py.File, name: str, values: NDArray[np.generic]) -> None:
    row_bytes = max(1, values.nbytes // len(values))
    chunk_rows = int(np.clip(_CHUNK_BYTES // row_bytes, 1, len(values)))
    chunks = (chunk_rows, *values.shape[1:])
    file.create_dataset(name, data=values, chunks=chunks, fletcher32=True)


@contextmanager
def open_segment(path: Path) -> Iterator[h5py.File]:
    """Open a segment for reading; whatever fails inside becomes a CacheError that names it."""
    with segment_errors(path), h5py.File(path, "r") as file:
        found = int(file.attrs["schema_version"])
        if not _WITHOUT_SEQUENCES <= found <= SCHEMA_VERSION:
            raise CacheError(
                f"{path}: cache schema {found}, but this release reads {SCHEMA_VERSION} and older. "
                "Read it with the release that wrote it, or move the store away and rebuild "
                "it with: make features"
            )
        yield file


@contextmanager
def segment_errors(path: Path) -> Iterator[None]:
    """Turn whatever fails while a segment is read into a CacheError that names it."""
    try:
        yield
    except CacheError:
        raise
    except FileNotFoundError:
        raise CacheError(
            f"{path}: this segment is gone since the store was opened (compacted or deleted by "
            "another process?). Open the cache again."
        ) from None
    # What HDF5 raises on damage depends on which byte it meets first.
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        if is_shortage(error):
            raise
        raise CacheError(
            f"{path}: this segment is damaged ({type(error).__name__}: {error}). Delete the file "
            "and run `make features`: only its rows are encoded again."
        ) from error


def is_shortage(error: Exception) -> bool:
    """Tell whether the process lacks memory or open files; the file read may be sound."""
    return getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def read_keys(path: Path) -> KeyArray:
    """Return the content keys of a segment, shape (n_rows,)."""
    with open_segment(path) as file:
        keys: KeyArray = file["keys"][:].astype(KEY_DTYPE, copy=False)
        return keys


def read_offsets(sequences: h5py.Group) -> NDArray[np.int64]:
    """Return where the sequences of one output begin and end, shape (n_rows + 1,)."""
    offsets: NDArray[np.int64] = sequences["offsets"][:]
    ends = 0, len(sequences["frames"])
    if len(offsets) < 2 or (offsets[0], offsets[-1]) != ends or (np.diff(offsets) < 1).any():
        raise ValueError(f"the offsets of {sequences.name} do not lead from {ends[0]} to {ends[1]}")
    return offsets


def read_outputs(file: h5py.File) -> dict[str, Rows]:
    """Return everything that a segment holds beside its keys."""
    return {
        name: Sequences(found["frames"][:], read_offsets(found))
        if isinstance(found, h5py.Group)
        else found[:]
        for name, found in file["outputs"].items()
    }


def segment_paths(folder: Path, modality: str) -> list[Path]:
    """Return a store's segments of one modality, in the order of their names."""
    return sorted(folder.glob(f"{modality}-*.h5"))
