import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xacle_stack._files import delete_leftover, lock, path_in_errors, write_atomically


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_an_error_names_the_file_and_leaves_nothing(tmp_path: Path, monkeypatch, at: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[at], full)
    path = tmp_path / "scores.csv"
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, b"content")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


def test_pieces_are_written_one_after_another_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    write_atomically(path, (piece for piece in (b"one ", b"", b"two")))
    assert path.read_bytes() == b"one two"

    def broken() -> Iterator[bytes]:
        yield b"three"
        raise RuntimeError("no fourth")

    with pytest.raises(RuntimeError, match="no fourth"):
        write_atomically(path, broken())
    assert path.read_bytes() == b"one two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_told_by_the_files_own_name(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "scores.csv"
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(path, b"")
    assert caught.value.filename == str(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_a_full_disk_is_told_with_the_file_that_was_written() -> None:
    path = Path("/dev/full")
    with pytest.raises(OSError) as caught, path_in_errors(path):  # noqa: PT011
        path.write_text("x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))


def test_what_a_killed_writer_left_is_swept_by_the_next_and_a_living_ones_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a[1].csv"
    (tmp_path / ".a[1].csv.1-00.part").write_bytes(b"half")
    (tmp_path / ".b.csv.1-00.part").write_bytes(b"half of another file")
    with (tmp_path / ".a[1].csv.2-00.part").open("wb") as living:
        assert lock(living.fileno())
        write_atomically(path, b"whole")
        assert sorted(one.name for one in tmp_path.iterdir()) == [
            *(".a[1].csv.2-00.part", ".b.csv.1-00.part", "a[1].csv")
        ]
    write_atomically(path, b"again")
    assert sorted(one.name for one in tmp_path.iterdir()) == [".b.csv.1-00.part", "a[1].csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_with_the_name_of_a_leftover_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / ".a.csv.1-00.part"
    os.mkfifo(pipe)
    write_atomically(tmp_path / "a.csv", b"whole")
    delete_leftover(pipe)
    assert sorted(one.name for one in tmp_path.iterdir()) == [pipe.name, "a.csv"]
