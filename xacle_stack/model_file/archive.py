"""Checks a saved model's archive before anything of it is built.

A ``.skops`` file is a zip archive of arrays and of ``schema.json``.  This module compares every
size with a limit and every array's header with the bytes that follow it;
:mod:`xacle_stack.model_file.schema` checks what the schema asks for.
"""

import json
import math
import zipfile
from typing import IO, Any

import numpy as np

from xacle_stack.errors import ModelFileError
from xacle_stack.model_file.schema import MAX_DEPTH, ArchiveTypes, types_in

# The format that skops has written since 0.12; its code for older formats checks less.
_MIN_PROTOCOL = 2
_MAX_SCHEMA_BYTES = 32 * 2**20
_MAX_DIRECTORY_BYTES = 4 * 2**20
# An array of which one length is zero has no bytes, whatever its other lengths are.
_MAX_EMPTY_LENGTH = 65_536
# The size of a float64; compiled code takes no wider floats.
_MAX_FLOAT_BYTES = 8
_END_SIGNATURE, _END_BYTES = b"PK\x05\x06", 22
_LOCATOR_SIGNATURE, _LOCATOR_BYTES = b"PK\x06\x07", 20
_ZIP64_SIGNATURE, _ZIP64_BYTES = b"PK\x06\x06", 56
_ENCRYPTED = 0x1


def archive_types(file: IO[bytes], size: int, trusted: frozenset[str]) -> ArchiveTypes:
    """Check an archive's sizes, arrays and nodes, and return the types that it asks for.

    Parameters
    ----------
    file : binary file
        It must be seekable.
    size : int
        The size of the file in bytes.
    trusted : frozenset of str
        Types that the caller accepts beside those that a saved model may hold.

    Raises
    ------
    ModelFileError
        If this library would not have written it, or its members are larger than the file.
    """
    _check_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        members = _checked_members(archive, size)
        arrays = {name: member for name, member in members.items() if name != "schema.json"}
        for member in arrays.values():
            _check_array(archive, member)
        try:
            schema = json.loads(archive.read("schema.json"))
        except RecursionError:
            raise ModelFileError(f"schema.json nests deeper than {MAX_DEPTH} objects") from None
        protocol = schema.get("protocol") if isinstance(schema, dict) else None
        if type(protocol) is not int or protocol < _MIN_PROTOCOL:
            raise ModelFileError(
                f"schema.json has the protocol {protocol!r}, expected {_MIN_PROTOCOL} or more"
            )
        n_bytes = {name: member.file_size for name, member in arrays.items()}
        return types_in(schema, n_bytes, size, trusted)


def _check_directory(file: IO[bytes], size: int) -> None:
    """Check the size of the archive's directory, which zipfile reads at once."""
    file.seek(max(0, size - _END_BYTES - _LOCATOR_BYTES - _ZIP64_BYTES))
    tail = file.read()
    end = tail[-_END_BYTES:]
    if len(end) < _END_BYTES or end[:4] != _END_SIGNATURE or end[-2:] != b"\0\0":
        raise ModelFileError("it does not end as a zip archive without a comment ends")
    n_bytes = int.from_bytes(end[12:16], "little")
    if tail[-_END_BYTES - _LOCATOR_BYTES :][:4] == _LOCATOR_SIGNATURE:  # more than 4 GB
        if tail[:4] != _ZIP64_SIGNATURE:
            raise ModelFileError("it has no size of its directory where a zip64 archive has one")
        n_bytes = int.from_bytes(tail[40:48], "little")
    if n_bytes > _MAX_DIRECTORY_BYTES:
        raise ModelFileError(
            f"its directory has {n_bytes} bytes, expected {_MAX_DIRECTORY_BYTES} or fewer"
        )


def _checked_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if name in members:
            raise ModelFileError(f"it has two members called {name!r}")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise ModelFileError(
                f"its member {name!r} is compressed or encrypted, expected neither"
            )
        if name != "schema.json" and not name.endswith(".npy"):
            raise ModelFileError(f"its member {name!r} is neither an array (.npy) nor schema.json")
        members[name] = member
    n_bytes = sum(member.file_size for member in members.values())
    if n_bytes > size:
        raise ModelFileError(f"its members have {n_bytes} bytes, the file has {size}")
    if "schema.json" not in members:
        raise ModelFileError("it has no schema.json")
    if members["schema.json"].file_size > _MAX_SCHEMA_BYTES:
        raise ModelFileError(
            f"its schema.json has {members['schema.json'].file_size} bytes, expected "
            f"{_MAX_SCHEMA_BYTES} or fewer"
        )
    return members


def _check_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that an array's header declares numbers or text, and the bytes that follow it."""
    npy: Any = np.lib.format  # typed in some releases of NumPy only
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ModelFileError(
                f"its array {member.filename!r} has the format {version}, expected (1, 0)"
            )
        shape, _, dtype = npy.read_array_header_1_0(file)
        n_header = file.tell()
    is_plain = dtype.kind in "fiubU" and dtype.isnative
    is_plain = is_plain and not (dtype.kind == "f" and dtype.itemsize > _MAX_FLOAT_BYTES)
    if not (is_plain or (dtype.names and not dtype.hasobject)) or dtype.shape:
        raise ModelFileError(
            f"its array {member.filename!r} is of type {dtype}, expected numbers or text"
        )
    n_bytes = n_header + math.prod(shape) * dtype.itemsize
    is_empty = 0 in shape and max(shape) > _MAX_EMPTY_LENGTH
    if min(shape, default=0) < 0 or is_empty or n_bytes != member.file_size:
        raise ModelFileError(
            f"its array {member.filename!r} has the shape {shape} of {dtype}, {n_bytes} bytes, but "
            f"there are {member.file_size}"
        )
