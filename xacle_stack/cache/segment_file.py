"""Opens a segment for reading and checks it, or says what is wrong with it.

A reader takes no lock, follows no link inside the file and loads no filter.  It checks what the
file declares before it reads or allocates anything.  A segment is called damaged only if the hash
of its bytes differs from its name.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from xacle_stack.cache.disk_errors import refusal
from xacle_stack.cache.raw_keys import RAW_DTYPE, RawKeys, raw_keys
from xacle_stack.cache.schema import (
    KEY_DTYPE,
    SCHEMA_VERSION,
    SORTED_GROUP,
    VERSION_WITHOUT_SEQUENCES,
    KeyArray,
    StoreId,
    owner_name,
    segment_hasher,
)
from xacle_stack.cache.sequences import Sequences
from xacle_stack.errors import CacheError, XacleStackError

T = TypeVar("T")
CHECKSUM_BYTES = 4
_VECTOR_TYPES = (np.dtype(np.float32),)
_FRAME_TYPES = (np.dtype(np.float16), np.dtype(np.float32))
_OFFSET_TYPES = (np.dtype(np.int64),)
_ROW_TYPES = (np.dtype(np.int32),)
_READINGS = 20
_MAX_GENERATION = 1 << 32
_AGAIN = "run `xacle-stack features`: only its rows are encoded again"


class SegmentGoneError(CacheError):
    """A segment that has been compacted by another process, or deleted, since it was listed."""


class StructureError(ValueError):
    """The structure of a file is not that of a segment."""


@dataclass(frozen=True)
class StoredSequences:
    """The two data sets of an output whose rows are sequences."""

    frames: h5py.Dataset
    offsets: h5py.Dataset

    def read_offsets(self) -> NDArray[np.int64]:
        """Return the bounds of the sequences, shape (n_rows + 1,)."""
        offsets: NDArray[np.int64] = self.offsets[:]
        ends = 0, len(self.frames)
        if (
            (offsets[0], offsets[-1]) != ends
            or (np.diff(offsets) < 1).any()
            or (offsets < 0).any()  # a difference may have overflowed
        ):
            raise StructureError(f"{self.offsets.name} does not rise from {ends[0]} to {ends[1]}")
        return offsets

    def read(self) -> Sequences:
        """Return all sequences."""
        return Sequences(self.frames[:], self.read_offsets())


@dataclass(frozen=True)
class SortedKeys:
    """The two data sets of a merged segment's sorted keys."""

    keys: h5py.Dataset
    rows: h5py.Dataset

    def read_rows(self, first: int, last: int) -> NDArray[np.int32]:
        """Return the rows of some of the sorted keys, shape (last - first,)."""
        rows: NDArray[np.int32] = self.rows[first:last]
        if (rows < 0).any() or (rows >= len(self.rows)).any():
            raise StructureError(f"{self.rows.name} holds more than the numbers of rows")
        return rows


@dataclass(frozen=True)
class Segment:
    """An open segment whose structure was checked.

    Its generation is 0, or for a merged segment one more than the highest of its sources.
    """

    n_bytes: int
    generation: int
    key_set: h5py.Dataset
    outputs: Mapping[str, h5py.Dataset | StoredSequences]
    sorted_keys: SortedKeys | None = None

    def read_keys(self) -> KeyArray:
        """Return the content key of each row, shape (n_rows,)."""
        keys: KeyArray = self.key_set[:]
        self._as_raw(keys)
        return keys

    def read_raw_keys(self) -> RawKeys:
        """Return the content key of each row as bytes, shape (n_rows,)."""
        return self._as_raw(self.key_set[:])

    def _as_raw(self, keys: KeyArray) -> RawKeys:
        try:
            return raw_keys(keys)
        except ValueError:
            raise StructureError(
                f"{self.key_set.name} holds more than hexadecimal digits"
            ) from None


@contextmanager
def open_segment(path: Path) -> Iterator[Segment]:
    """Open a segment for reading; any error becomes a CacheError that names it."""
    with segment_errors(path):
        n_bytes = _size(path)
        # Some network file systems have no locks, and a file that never changes needs none.
        with h5py.File(path, "r", locking=False) as file:
            attributes = file.attrs  # each asking opens the group again
            _check_schema(path, attributes)
            _check_owner(path, attributes)
            yield _checked(file, n_bytes)


@contextmanager
def segment_errors(path: Path) -> Iterator[None]:
    """Turn any error of reading a segment into a CacheError that names it."""
    try:
        yield
    except XacleStackError:
        raise
    # The type of HDF5's exception depends on which damaged byte it meets first.
    except (
        OSError,
        LookupError,
        ValueError,
        TypeError,
        RuntimeError,
        ArithmeticError,
        AttributeError,
    ) as error:
        raise _explain(path, error) from error


def has_own_bytes(path: Path) -> bool:
    """Return whether the hash of a segment's bytes is its name."""
    _size(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, segment_hasher).hexdigest()
    return path.stem.rpartition("-")[2] == found


def damage(path: Path, error: Exception | None = None) -> CacheError:
    """Return the error for a segment whose bytes are not those that were written."""
    found = "" if error is None else f" ({type(error).__name__}: {error})"
    return CacheError(f"{path}: this segment is damaged{found}. Delete the file and {_AGAIN}.")


def read_again_while_gone(read: Callable[[], T]) -> T:
    """Read, and read again if a segment vanishes meanwhile.

    A process that compacts the store deletes segments whose rows are in others.
    """
    for _ in range(_READINGS - 1):
        with suppress(SegmentGoneError):
            return read()
    return read()


def read_keys(path: Path) -> KeyArray:
    """Return the content keys of a segment, shape (n_rows,)."""
    with open_segment(path) as segment:
        return segment.read_keys()


def _explain(path: Path, error: Exception) -> CacheError:
    """Return the error for a segment that could not be read."""
    if _is_gone(error):
        return _gone(path)
    try:
        is_sound = has_own_bytes(path)
    except CacheError as no_file:
        return no_file
    except OSError as read_error:
        return _gone(path) if _is_gone(read_error) else refusal(path, "read", read_error)
    if not is_sound:
        return damage(path, error)
    if isinstance(error, StructureError):
        return CacheError(
            f"{path}: not a segment that this release can read: {error}. Its bytes are intact, "
            f"so another program wrote it. Move it out of the store and {_AGAIN}."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return refusal(path, "read", error)
    return CacheError(
        f"{path}: HDF5 cannot read it ({type(error).__name__}: {error}), but its bytes are "
        "intact. If this process has the file open elsewhere, close it there and run "
        f"again; if another program wrote it, move it out of the store and {_AGAIN}."
    )


def _is_gone(error: Exception) -> bool:
    # A network file system reports ESTALE for a file that another host deleted.
    return getattr(error, "errno", None) in (errno.ENOENT, errno.ESTALE)


def _gone(path: Path) -> CacheError:
    if path.is_symlink():
        return CacheError(
            f"{path}: a symbolic link to a missing file. Restore the file, or delete "
            f"the link and {_AGAIN}."
        )
    return SegmentGoneError(
        f"{path}: this segment has gone since the store was opened (compacted or deleted by "
        "another process?). Open the cache again."
    )


def _size(path: Path) -> int:
    """Return the size of a regular file; opening anything else might block for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CacheError(
            f"{path}: not a regular file, although it has a segment's name. Move it out of the "
            "store."
        )
    return status.st_size


def _number(attributes: h5py.AttributeManager, name: str) -> int:
    found = attributes.get_id(name)
    if found.shape != () or found.dtype.kind not in "iu":
        raise StructureError(f"the attribute {name!r} is not an integer")
    return int(attributes[name])


def _text(attributes: h5py.AttributeManager, name: str, kind: str) -> str:
    """Return an attribute that is a string, of fixed (kind S) or variable (kind O) length."""
    attribute = attributes.get_id(name)
    found = attributes[name] if (attribute.shape, attribute.dtype.kind) == ((), kind) else None
    if not isinstance(found, bytes | str):
        raise StructureError(f"the attribute {name!r} is not stored as a segment stores strings")
    return found.decode() if isinstance(found, bytes) else found


def _check_schema(path: Path, attributes: h5py.AttributeManager) -> None:
    found = _number(attributes, "schema_version")
    if not VERSION_WITHOUT_SEQUENCES <= found <= SCHEMA_VERSION:
        raise CacheError(
            f"{path}: cache schema {found}, but this release reads {SCHEMA_VERSION} and older. "
            "Read it with the release that wrote it, or move the store away and run "
            "`xacle-stack features` to make it anew."
        )


def _check_owner(path: Path, attributes: h5py.AttributeManager) -> None:
    """Refuse a segment that lies in another store than its own."""
    if "belongs_to" in attributes:
        owner = _text(attributes, "belongs_to", "S")
    else:
        # Older segments name their store in strings without a checksum, so their bytes are checked
        # first: HDF5 may search a damaged string for ever.
        if not _has_own_bytes_cached(path, *identity(path.stat())):
            raise damage(path)
        encoder, fingerprint, modality = (
            _text(attributes, name, "O") for name in ("encoder", "fingerprint", "modality")
        )
        owner = owner_name(StoreId(encoder, fingerprint), modality)
    expected = f"{path.parent.name}/{path.name.partition('-')[0]}"
    if owner != expected:
        folder, _, modality = owner.rpartition("/")
        raise CacheError(
            f"{path}: this segment belongs to {owner}, not to {expected}. Move it to the folder "
            f"{folder} and let its name begin with '{modality}-'."
        )


def identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes with the content of a file."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@lru_cache(maxsize=1 << 16)
def _has_own_bytes_cached(path: Path, *_identity: int) -> bool:
    return has_own_bytes(path)


def _checked(file: h5py.File, n_bytes: int) -> Segment:
    if file.userblock_size:
        raise StructureError("it has bytes before the HDF5 file")
    key_set = _data_set(_member(file, "keys"), 1, (KEY_DTYPE,), n_bytes)
    stored = _member(file, "outputs")
    if not isinstance(stored, h5py.Group):
        raise StructureError(f"{stored.name} is not a group")
    outputs: dict[str, h5py.Dataset | StoredSequences] = {}
    for name in stored:
        found = _member(stored, name)
        if isinstance(found, h5py.Group):
            sequences = StoredSequences(
                _data_set(_member(found, "frames"), 2, _FRAME_TYPES, n_bytes),
                _data_set(_member(found, "offsets"), 1, _OFFSET_TYPES, n_bytes),
            )
            outputs[name], n_rows = sequences, len(sequences.offsets) - 1
        else:
            outputs[name] = _data_set(found, 2, _VECTOR_TYPES, n_bytes)
            n_rows = len(found)
        if n_rows != len(key_set):
            raise StructureError(f"{len(key_set)} keys, but {n_rows} rows of {found.name}")
    if not outputs:
        raise StructureError("it has no outputs")
    sorted_keys = _sorted_keys(file, len(key_set), n_bytes)
    _check_no_bytes_are_shared(key_set, sorted_keys, outputs.values(), n_bytes)
    generation, attributes = 0, file.attrs
    if "generation" in attributes:
        generation = _number(attributes, "generation")
    if not 0 <= generation <= _MAX_GENERATION:
        raise StructureError(f"the attribute 'generation' is {generation}")
    return Segment(n_bytes, generation, key_set, outputs, sorted_keys)


def _sorted_keys(file: h5py.File, n_rows: int, n_bytes: int) -> SortedKeys | None:
    if not file.id.links.exists(SORTED_GROUP.encode()):
        return None
    group = _member(file, SORTED_GROUP)
    if not isinstance(group, h5py.Group):
        raise StructureError(f"{group.name} is not a group")
    found = SortedKeys(
        _data_set(_member(group, "keys"), 1, (RAW_DTYPE,), n_bytes),
        _data_set(_member(group, "rows"), 1, _ROW_TYPES, n_bytes),
    )
    if not n_rows == len(found.keys) == len(found.rows):
        raise StructureError(
            f"{n_rows} keys, but {len(found.keys)} sorted ones with {len(found.rows)} rows"
        )
    return found


def _check_no_bytes_are_shared(
    key_set: h5py.Dataset,
    sorted_keys: SortedKeys | None,
    outputs: Iterable[h5py.Dataset | StoredSequences],
    n_bytes: int,
) -> None:
    """Refuse a file that is smaller than the sum of its data sets."""
    data_sets = [key_set]
    if sorted_keys is not None:
        data_sets += [sorted_keys.keys, sorted_keys.rows]
    for found in outputs:
        data_sets += (
            [found.frames, found.offsets] if isinstance(found, StoredSequences) else [found]
        )
    n_declared = sum(values.id.get_storage_size() for values in data_sets)
    if n_declared > n_bytes:
        raise StructureError(
            f"its data sets need {n_declared} bytes together, but the file has {n_bytes}"
        )


def _member(group: h5py.Group, name: str) -> h5py.HLObject:
    """Return a member of a group; a link to something else is refused."""
    path, links = f"{group.name.rstrip('/')}/{name}", group.id.links
    if not links.exists(name.encode()):
        raise StructureError(f"{path} is missing")
    if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise StructureError(f"{path} is a link to something else")
    return group[name]


def _data_set(
    found: h5py.HLObject, n_axes: int, dtypes: Sequence[np.dtype[Any]], n_bytes: int
) -> h5py.Dataset:
    """Return a data set after checking that it is stored as in a segment, wholly in the file."""
    if not isinstance(found, h5py.Dataset):
        raise StructureError(f"{found.name} is not a data set")
    if h5py.h5o.get_info(found.id).rc != 1:
        raise StructureError(f"{found.name} has more than one name")
    if found.shape is None or len(found.shape) != n_axes or 0 in found.shape:
        raise StructureError(f"{found.name} has the shape {found.shape}")
    dtype = found.dtype
    # HDF5 has types that NumPy lacks.  It would convert them, but rows may be read without HDF5.
    if dtype.newbyteorder("=") not in dtypes or (
        dtype.kind != "S" and not found.id.get_type().equal(h5py.h5t.py_create(dtype))
    ):
        raise StructureError(f"{found.name} has the type {dtype}")
    properties = found.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    # Virtual and external data sets are not chunked.
    if (
        properties.get_layout() != h5py.h5d.CHUNKED
        or filters != [h5py.h5z.FILTER_FLETCHER32]
        or found.chunks[1:] != found.shape[1:]
    ):
        raise StructureError(f"{found.name} is not in chunks of whole rows with Fletcher32 alone")
    n_chunks = -(-len(found) // found.chunks[0])
    n_stored = n_chunks * chunk_bytes(found)
    if n_stored > n_bytes or found.id.get_storage_size() != n_stored:
        raise StructureError(f"{found.name} needs {n_stored} bytes, but the file has {n_bytes}")
    return found


def chunk_bytes(values: h5py.Dataset) -> int:
    """Return the bytes that a chunk takes in the file, including its checksum."""
    n_bytes: int = math.prod(values.chunks) * values.dtype.itemsize + CHECKSUM_BYTES
    return n_bytes
