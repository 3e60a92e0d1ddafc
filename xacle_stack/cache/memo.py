"""What is remembered of the audio files of one folder: their content keys, 64 bytes a file.

As a file: a digest of all that follows; a line of JSON with what the caller notes; and for each
file, sorted, the digest of its name, its status and its content key.
"""

from __future__ import annotations

import hashlib
import json
import struct
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from typing import Self

import numpy as np

# A file's size, times of modification and change, and inode.
FileStatus = tuple[int, int, int, int]
_DIGEST_BYTES = 16
_RECORD = np.dtype([("name", "S16"), ("status", "<u8", 4), ("key", "S16")])
_KEY_START = _RECORD.fields["key"][1]  # type: ignore[index]  # it has fields


class FolderMemo:
    """The content keys of a folder's audio files, by their names and status.

    Parameters
    ----------
    records : bytes
        Sorted by the digests of the names, without repetition.

    Examples
    --------
    >>> memo = FolderMemo()
    >>> memo.remember("dog.wav", (44, 1, 1, 7), "0123456789abcdef" * 2)
    >>> memo.find("dog.wav", (44, 1, 1, 7)), memo.find("dog.wav", (46, 2, 2, 7))
    ('0123456789abcdef0123456789abcdef', None)
    """

    def __init__(self, records: bytes = b"") -> None:
        self._records = records
        words = np.frombuffer(records, ">u8").reshape(-1, _RECORD.itemsize // 8)
        # Python bisects its own integers several times as fast as NumPy's.
        self._names = array("Q", words[:, 0].astype(np.uint64).tobytes())
        self._added: dict[bytes, bytes] = {}

    @classmethod
    def from_bytes(cls, content: bytes, facts: Mapping[str, object]) -> Self:
        """Return the memo in the content of a file; it is empty if other facts were noted.

        ValueError if it is damaged.
        """
        digest, body = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
        if digest != _digest(body):
            raise ValueError("its checksum does not match")
        end = content.index(b"\n", _DIGEST_BYTES) + 1
        noted = json.loads(content[_DIGEST_BYTES:end])
        n_bytes = len(content) - end
        if n_bytes % _RECORD.itemsize:
            raise ValueError(f"{n_bytes} bytes, which are no records")
        return cls(content[end:] if noted == facts else b"")

    def to_bytes(self, facts: Mapping[str, object]) -> bytes:
        """Return the content of a file."""
        body = json.dumps(facts).encode() + b"\n" + self._records
        return _digest(body) + body

    def find(self, name: str, status: FileStatus | None) -> str | None:
        """Return the content key of a file; None if it is unknown, or has another status now."""
        if status is None:
            return None
        head = _head(name, status)
        if (record := self._added.get(head[:_DIGEST_BYTES])) is None:
            high = int.from_bytes(head[:8], "big")
            place = bisect_left(self._names, high)
            while place < len(self._names) and self._names[place] == high:
                begin = place * _RECORD.itemsize
                record = self._records[begin : begin + _RECORD.itemsize]
                if record[:_DIGEST_BYTES] == head[:_DIGEST_BYTES]:
                    break
                place, record = place + 1, None
        return record[_KEY_START:].hex() if record and record[:_KEY_START] == head else None

    def remember(self, name: str, status: FileStatus, key: str) -> None:
        """Note the content key of a file."""
        head = _head(name, status)
        self._added[head[:_DIGEST_BYTES]] = head + bytes.fromhex(key)

    def on(self, other: Self) -> FolderMemo:
        """Return what both know; of a file that both know, what this one does."""
        parts = (part for memo in (other, self) for part in (memo._records, *memo._added.values()))
        records = np.frombuffer(b"".join(parts), _RECORD)
        order = np.argsort(records["name"], kind="stable")
        names = records["name"][order]
        is_last = np.append(names[1:] != names[:-1], True)[: len(names)]
        return FolderMemo(records[order[is_last]].tobytes())


def _head(name: str, status: FileStatus) -> bytes:
    # Bytes of a name that are not UTF-8 arrive as surrogates; a time may be before 1970.
    digest = _digest(name.encode("utf-8", errors="surrogateescape"))
    return digest + struct.pack("<4Q", *(number % 2**64 for number in status))


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
