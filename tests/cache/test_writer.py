"""Faults of the disk and of processes, committed for real."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stored_rows import KINDS, STORE, assert_rows, row_outputs, write_rows
from support import TESTS

from xacle_stack._files import PARTIAL_SUFFIX
from xacle_stack.cache import FeatureCache, StoreWriter, text_key
from xacle_stack.errors import CacheError

N_ROWS = 60
# A row may be one vector, or a sequence of vectors: the same faults, the same promises.
both_kinds = pytest.mark.parametrize("kind", KINDS)

# Writes rows 0 … N_ROWS-1 in segments of seven, unless the store has them already.
WRITE_ALL = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from stored_rows import STORE, row_outputs
from xacle_stack.cache import FeatureCache, StoreWriter, text_key

root, kind = Path(sys.argv[1]), sys.argv[2]

def main(before_each=lambda: None):
    known = FeatureCache(root).known_keys(STORE, "text")
    with StoreWriter(root, STORE, "text", {{}}, segment_rows=7) as writer:
        for row in range({N_ROWS}):
            before_each()
            if text_key(str(row)) not in known:
                writer.append([text_key(str(row))], row_outputs(row, kind))
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WRITE_ALL + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def rows_in(root: Path, kind: str) -> list[int]:
    """Return the rows that the store holds, all checked bit by bit."""
    known = FeatureCache(root).known_keys(STORE, "text")
    rows = [row for row in range(100 * N_ROWS) if text_key(str(row)) in known]
    assert len(rows) == len(set(known))
    if rows:
        assert_rows(root, rows, kind)
    assert all(fault is None for _, fault in FeatureCache(root).verify())
    return rows


def test_segments_are_cut_by_rows_and_the_rest_is_written_on_leaving(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, STORE, "text", {"a": 1}, segment_rows=4) as writer:
        for row in range(10):
            writer.append([text_key(str(row))], row_outputs(row, "vectors"))
        assert len(list(writer.folder.glob("*.h5"))) == 2
    assert len(list(writer.folder.glob("*.h5"))) == 3
    assert rows_in(tmp_path, "vectors") == list(range(10))
    facts = json.loads((writer.folder / "fingerprint.json").read_text())
    assert facts == {"encoder": "toy", "a": 1}


def test_segments_are_cut_by_time(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, STORE, "text", {}, segment_seconds=0) as writer:
        for row in range(3):
            writer.append([text_key(str(row))], row_outputs(row, "vectors"))
    assert len(list(writer.folder.glob("*.h5"))) == 3


@both_kinds
def test_segments_are_cut_by_bytes(tmp_path: Path, kind: str) -> None:
    n_bytes = sum(
        np.concatenate(values).nbytes
        for row in range(4)
        for values in row_outputs(row, kind).values()
    )
    with StoreWriter(tmp_path, STORE, "text", {}, segment_bytes=n_bytes) as writer:
        for row in range(9):
            writer.append([text_key(str(row))], row_outputs(row, kind))
    sizes = [summary.n_segments for summary in FeatureCache(tmp_path).summaries()]
    assert sizes == [3]
    assert rows_in(tmp_path, kind) == list(range(9))


@both_kinds
def test_an_error_in_the_block_keeps_what_was_encoded(tmp_path: Path, kind: str) -> None:
    def interrupted() -> None:
        with StoreWriter(tmp_path, STORE, "text", {}) as writer:
            writer.append([text_key("0")], row_outputs(0, kind))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert rows_in(tmp_path, kind) == [0]


# The child counts the Python calls of its own work and kills itself at a random one, so that the
# kill falls anywhere: between two rows, inside HDF5, before or after the rename.
KILL_AT_CALL = """
import os, signal
calls, limit = 0, int(sys.argv[3])
def count(frame, event, argument):
    global calls
    calls += 1
    if calls == limit:
        os.kill(os.getpid(), signal.SIGKILL)
sys.setprofile(count)
main()
sys.setprofile(None)
print(calls)
"""


@both_kinds
def test_kill_9_at_any_moment_loses_at_most_one_segment(tmp_path: Path, kind: str) -> None:
    undisturbed = run(KILL_AT_CALL, tmp_path / "undisturbed", kind, 0)
    n_calls = int(undisturbed.stdout)
    rng = np.random.default_rng(0)
    n_killed = 0
    for number, limit in enumerate(rng.integers(1, n_calls, size=10)):
        root = tmp_path / f"killed-{number}"
        killed = run(KILL_AT_CALL, root, kind, limit)
        assert killed.returncode == -9
        rows = rows_in(root, kind)
        # Complete segments, from the first row on: the one being written is all that is lost.
        assert rows == list(range(len(rows)))
        assert len(rows) % 7 == 0 or len(rows) == N_ROWS
        n_killed += 0 < len(rows) < N_ROWS
        assert run("main()", root, kind).returncode == 0
        assert rows_in(root, kind) == list(range(N_ROWS))
    assert n_killed >= 5  # most kills fell in the middle of the work


# The parent kills as soon as it hears of a row, at a moment that nobody chose.
REPORT_ROWS = """
main(before_each=lambda: print("row", flush=True))
"""


@both_kinds
def test_kill_9_from_outside(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITE_ALL + REPORT_ROWS, str(tmp_path), kind],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            for _ in range(rng.integers(1, N_ROWS - 1)):
                child.stdout.readline()
            child.kill()
        rows_in(tmp_path, kind)
    assert run("main()", tmp_path, kind).returncode == 0
    assert rows_in(tmp_path, kind) == list(range(N_ROWS))


@both_kinds
def test_two_processes_at_once_do_not_harm_each_other(tmp_path: Path, kind: str) -> None:
    code = WRITE_ALL + "main(before_each=lambda: sys.stdin.readline())"
    command = [sys.executable, "-c", code, str(tmp_path), kind]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1) for _ in range(2)
    ]
    for _ in range(N_ROWS):  # row by row in turn: both work on the same segment at once
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
    for child in children:
        child.communicate()
        assert child.returncode == 0
    assert rows_in(tmp_path, kind) == list(range(N_ROWS))


def test_leftovers_of_the_killed_are_removed_but_not_those_of_the_living(tmp_path: Path) -> None:
    folder = tmp_path / STORE.folder
    folder.mkdir()
    old, fresh = folder / f".a{PARTIAL_SUFFIX}", folder / f".b{PARTIAL_SUFFIX}"
    old.touch()
    fresh.touch()
    os.utime(old, (1, 1))
    write_rows(tmp_path, [0], "vectors")
    assert not old.exists()
    assert fresh.exists()


def test_a_writer_without_rows_makes_no_store(tmp_path: Path) -> None:
    write_rows(tmp_path / "cache", [], "vectors")
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
            with pytest.raises(CacheError, match="same outputs"):
                writer.append(keys, outputs)
    assert set(FeatureCache(tmp_path).known_keys(STORE, "audio")) == {"a" * 32}


@pytest.mark.parametrize("keys", [["a"], ["A" * 32], ["b" * 33], ["x" * 32]])
def test_what_is_no_key_is_refused(tmp_path: Path, keys: list[str]) -> None:
    with (
        StoreWriter(tmp_path, STORE, "audio", {}) as writer,
        pytest.raises(CacheError, match="32 hexadecimal"),
    ):
        writer.append(keys, {"x": np.zeros((1, 5))})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1,), (1, 2, 3), (1, 0)])
def test_rows_that_are_no_vectors_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with (
        StoreWriter(tmp_path, STORE, "audio", {}) as writer,
        pytest.raises(CacheError, match="n_rows, n_dims"),
    ):
        writer.append(["a" * 32], {"x": np.zeros(shape)})
    assert not list(tmp_path.iterdir())


def test_sequences_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = np.zeros((2, 3), dtype=np.float16)
    with StoreWriter(tmp_path, STORE, "audio", {}) as writer:
        writer.append(["a" * 32], {"x": [good]})
        for sequences, message in (
            ([good, good], "same outputs"),
            ([good.astype(np.float32)], r"'3 float16'|T × 3 float16"),
            ([np.zeros((2, 4), np.float16)], "T × 3 float16"),
            (np.zeros((1, 3)), "T × 3 float16"),
            ([good[:0]], r"'x'.* \[\(0, 3\)\].*frame"),
            ([good[0]], "at least one frame"),
            ([], "at least one frame"),
        ):
            with pytest.raises(CacheError, match=message):
                writer.append(["b" * 32], {"x": sequences})
        writer.append(["c" * 32, "d" * 32], {"x": [good, good[:1]]})
        with pytest.raises(CacheError, match="same n_dims and type"):
            writer.append(["e" * 32, "f" * 32], {"x": [good, np.zeros((2, 4), np.float16)]})
    assert set(FeatureCache(tmp_path).known_keys(STORE, "audio")) == {"a" * 32, "c" * 32, "d" * 32}


@both_kinds
def test_a_size_limit_is_an_error_that_leaves_the_store_valid(tmp_path: Path, kind: str) -> None:
    write_rows(tmp_path, range(14), kind, segment_rows=7)
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    main()
except OSError as error:
    print(type(error).__name__, error)
"""
    said = run(code, tmp_path, kind).stdout
    assert said.startswith("CacheError ")
    assert "cannot be written (File too large)" in said
    assert "choose another --store; then run again" in said
    assert rows_in(tmp_path, kind) == list(range(14))
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


@both_kinds
def test_a_full_disk_is_an_error_that_leaves_the_store_valid(small_disk: Path, kind: str) -> None:
    with pytest.raises(CacheError, match=r"cannot be written .*No space"):
        write_rows(small_disk, range(N_ROWS * 100), kind, segment_rows=7)
    rows = rows_in(small_disk, kind)
    assert len(rows) >= 7
    assert not list((small_disk / STORE.folder).glob(f".*{PARTIAL_SUFFIX}"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").touch()
    with pytest.raises(CacheError, match="store/toy-0123456789abcdef: cannot be written"):
        write_rows(tmp_path / "store", [0], "vectors")
