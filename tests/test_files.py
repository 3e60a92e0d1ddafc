import errno
from pathlib import Path

import pytest

from xacle_stack._files import write_atomically


def test_what_the_disk_refuses_names_the_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "scores.csv"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("xacle_stack._files.os.fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: .*{path.name}'$") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError) as missing:
        write_atomically(tmp_path / "nowhere" / "scores.csv", b"new")
    assert missing.value.filename == str(tmp_path / "nowhere" / "scores.csv")
