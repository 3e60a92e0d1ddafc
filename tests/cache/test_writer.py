"""Faults of the disk and of processes, committed for real."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import STORE

from xacle_stack._files import PARTIAL_SUFFIX
from xacle_stack.cache import FeatureCache, StoreWriter, text_key
from xacle_stack.cache.index import Index
from xacle_stack.errors import CacheError

N_ROWS = 60

# Writes rows 0 … N_ROWS-1 in segments of seven, unless the store has them already.
WRITE_ALL = f"""
import sys
from pathlib import Path
import numpy as np
from xacle_stack.cache import FeatureCache, StoreId, StoreWriter, text_key

store = StoreId("toy", "0123456789abcdef")

def main(root, before_each=lambda: None):
    known = FeatureCache(root).known_keys(store, "audio")
    with StoreWriter(root, store, "audio", {{}}, segment_rows=7) as writer:
        for row in range({N_ROWS}):
            before_each()
            if text_key(str(row)) not in known:
                writer.append([text_key(str(row))], {{"embedding": np.full((1, 5), row)}})
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WRITE_ALL + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def rows_in(root: Path) -> np.ndarray:
    """Return the rows that the store holds, checked against their keys."""
    keys = np.array([text_key(str(row)) for row in range(N_ROWS)], dtype="S32")
    places = Index.build(root / STORE.folder, "audio").locate(keys)
    rows = np.flatnonzero(places.segments >= 0)
    if len(rows):
        table = places.read(rows, "embedding")
        np.testing.assert_array_equal(table, np.repeat(rows[:, None], 5, axis=1))
    assert all(fault is None for _, fault in FeatureCache(root).verify())
    return rows


def test_segments_are_cut_by_rows_and_the_rest_is_written_on_leaving(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, STORE, "audio", {"a": 1}, segment_rows=4) as writer:
        for row in range(10):
            writer.append([text_key(str(row))], {"embedding": np.full((1, 5), row)})
        assert len(list(writer.folder.glob("*.h5"))) == 2
    assert len(list(writer.folder.glob("*.h5"))) == 3
    assert rows_in(tmp_path).tolist() == list(range(10))
    facts = json.loads((writer.folder / "fingerprint.json").read_text())
    assert facts == {"encoder": "toy", "a": 1}


def test_segments_are_cut_by_time(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, STORE, "audio", {}, segment_seconds=0) as writer:
        for row in range(3):
            writer.append([text_key(str(row))], {"embedding": np.full((1, 5), row)})
    assert len(list(writer.folder.glob("*.h5"))) == 3


def test_an_error_in_the_block_keeps_what_was_encoded(tmp_path: Path) -> None:
    def interrupted() -> None:
        with StoreWriter(tmp_path, STORE, "audio", {}) as writer:
            writer.append([text_key("0")], {"embedding": np.zeros((1, 5))})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert rows_in(tmp_path).tolist() == [0]


# The child counts the Python calls of its own work and kills itself at a random one, so that the
# kill falls anywhere: between two rows, inside HDF5, before or after the rename.
KILL_AT_CALL = """
import os, signal
calls, limit = 0, int(sys.argv[2])
def count(frame, event, argument):
    global calls
    calls += 1
    if calls == limit:
        os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(count)
main(Path(sys.argv[1]))
sys.setprofile(None)
print(calls)
"""


def test_kill_9_at_any_moment_loses_at_most_one_segment(tmp_path: Path) -> None:
    undisturbed = run(KILL_AT_CALL, tmp_path / "undisturbed", 0)
    n_calls = int(undisturbed.stdout)
    rng = np.random.default_rng(0)
    n_killed = 0
    for number, limit in enumerate(rng.integers(1, n_calls, size=16)):
        root = tmp_path / f"killed-{number}"
        killed = run(KILL_AT_CALL, root, limit)
        assert killed.returncode == -9
        rows = rows_in(root)
        # Complete segments, from the first row on: the one being written is all that is lost.
        assert rows.tolist() == list(range(len(rows)))
        assert len(rows) % 7 == 0 or len(rows) == N_ROWS
        n_killed += 0 < len(rows) < N_ROWS
        assert run("main(Path(sys.argv[1]))", root).returncode == 0
        assert rows_in(root).tolist() == list(range(N_ROWS))
    assert n_killed >= 8  # most kills fell in the middle of the work


# The parent kills as soon as it hears of a row, at a moment that nobody chose.
REPORT_ROWS = """
main(Path(sys.argv[1]), before_each=lambda: print("row", flush=True))
"""


def test_kill_9_from_outside(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_ALL + REPORT_ROWS, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            for _ in range(rng.integers(1, N_ROWS - 1)):
                child.stdout.readline()
            child.kill()
        rows_in(tmp_path)
    assert run("main(Path(sys.argv[1]))", tmp_path).returncode == 0
    assert rows_in(tmp_path).tolist() == list(range(N_ROWS))


def test_two_processes_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    code = WRITE_ALL + "main(Path(sys.argv[1]), before_each=lambda: sys.stdin.readline())"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, text=True, bufsize=1
        )
        for _ in range(2)
    ]
    for _ in range(N_ROWS):  # row by row in turn: both work on the same segment at once
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
    for child in children:
        child.communicate()
        assert child.returncode == 0
    assert rows_in(tmp_path).tolist() == list(range(N_ROWS))


def test_leftovers_of_the_killed_are_removed_but_not_those_of_the_living(tmp_path: Path) -> None:
    folder = tmp_path / STORE.folder
    folder.mkdir()
    old, fresh = folder / f".a{PARTIAL_SUFFIX}", folder / f".b{PARTIAL_SUFFIX}"
    old.touch()
    fresh.touch()
    os.utime(old, (1, 1))
    fill(tmp_path, 1)
    assert not old.exists()
    assert fresh.exists()


def test_a_writer_without_rows_makes_no_store(tmp_path: Path) -> None:
    fill(tmp_path / "cache", 0)
    assert not (tmp_path / "cache").exists()


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, STORE, "audio", {}) as writer:
        writer.append(["a" * 32], {"x": np.zeros((1, 5))})
        for keys, outputs in (
            (["b" * 32, "c" * 32], {"x": np.zeros((1, 5))}),
            (["b" * 32], {"x": np.zeros((1, 4))}),
            (["b" * 32], {"x": np.zeros((1, 5)), "y": np.zeros((1, 2))}),
            (["b" * 32], {"y": np.zeros((1, 5))}),
        ):
            with pytest.raises(CacheError, match="every row needs the same outputs"):
                writer.append(keys, outputs)
    assert FeatureCache(tmp_path).known_keys(STORE, "audio") == {"a" * 32}


def fill(root: Path, n_rows: int) -> None:
    with StoreWriter(root, STORE, "audio", {}, segment_rows=7) as writer:
        for row in range(n_rows):
            writer.append([text_key(str(row))], {"embedding": np.full((1, 5), row)})


def test_a_size_limit_is_an_error_that_leaves_the_store_valid(tmp_path: Path) -> None:
    fill(tmp_path, 14)
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    main(Path(sys.argv[1]))
except OSError as error:
    print(type(error).__name__, error)
"""
    said = run(code, tmp_path).stdout
    assert said.startswith("CacheError ")
    assert "cannot be written (File too large)" in said
    assert "choose another --store; then run again" in said
    assert rows_in(tmp_path).tolist() == list(range(14))
    assert not list((tmp_path / STORE.folder).glob(f".*{PARTIAL_SUFFIX}"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mount.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_an_error_that_leaves_the_store_valid(small_disk: Path) -> None:
    with pytest.raises(CacheError, match=r"cannot be written \(No space left on device\)"):
        fill(small_disk, N_ROWS * 100)
    rows = rows_in(small_disk)
    assert len(rows) >= 7
    assert not list((small_disk / STORE.folder).glob(f".*{PARTIAL_SUFFIX}"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(CacheError, match="store/toy-0123456789abcdef: cannot be written"):
        fill(tmp_path / "store", 1)
