import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored_rows import KINDS, STORE, assert_rows, write_rows
from support import TESTS

from xacle_stack.cache import FeatureCache, StoreWriter, index, known_keys, reader, text_key, upkeep
from xacle_stack.cache.segment_file import read_keys
from xacle_stack.errors import CacheError

N_ROWS = 50
both_kinds = pytest.mark.parametrize("kind", KINDS)


def fill(
    root: Path, kind: str = "vectors", rows: range = range(N_ROWS), segment_rows: int = 12
) -> None:
    write_rows(root, rows, kind, segment_rows)


def segments(root: Path) -> list[Path]:
    return sorted((root / STORE.folder).glob("*.h5"))


@both_kinds
def test_a_sound_store_has_no_faults(tmp_path: Path, kind: str) -> None:
    fill(tmp_path, kind)
    assert list(FeatureCache(tmp_path).verify()) == [(path, None) for path in segments(tmp_path)]


def refusal(root: Path, kind: str, n_rows: int = N_ROWS) -> str | None:
    """Read every row; return the error's message, or None after checking what was read."""
    try:
        assert_rows(root, range(n_rows), kind)  # the byte may be one that HDF5 does not use
    except CacheError as error:
        return str(error)
    return None


def data_bytes(path: Path) -> set[int]:
    """Return the places of all bytes that hold keys, vectors or offsets."""
    places: set[int] = set()
    with h5py.File(path, "r") as file:
        data_sets: list[h5py.Dataset] = []
        file.visititems(lambda _, found: data_sets.append(found))
        for data_set in [found for found in data_sets if isinstance(found, h5py.Dataset)]:
            for number in range(data_set.id.get_num_chunks()):
                chunk = data_set.id.get_chunk_info(number)
                places.update(range(chunk.byte_offset, chunk.byte_offset + chunk.size))
    return places


@both_kinds
def test_every_flipped_byte_is_found_and_none_is_read(tmp_path: Path, kind: str) -> None:
    fill(tmp_path, kind)
    path = max(segments(tmp_path), key=lambda segment: segment.stat().st_size)
    sound = path.read_bytes()
    data_content = data_bytes(path)
    assert len(data_content) >= 12 * (32 + 9 * 4)
    rng = np.random.default_rng(0)
    # Everywhere in the file's head, where HDF5's own structures are, and at random in the rest.
    for place in [*range(0, 400, 5), *rng.integers(400, len(sound), size=120)]:
        flipped = bytearray(sound)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        faults = [found for found, fault in FeatureCache(tmp_path).verify() if fault is not None]
        assert faults == [path]
        refused = refusal(tmp_path, kind)
        assert refused is not None or place not in data_content
        assert refused is None or str(path) in refused


def test_verify_names_a_segment_in_the_wrong_store(tmp_path: Path) -> None:
    fill(tmp_path)
    path = segments(tmp_path)[0]
    folder = tmp_path / "other-0000000000000000"
    folder.mkdir()
    (folder / "fingerprint.json").write_text("{}")
    (folder / path.name).write_bytes(path.read_bytes())
    faults = [fault for _, fault in FeatureCache(tmp_path).verify() if fault]
    (fault,) = faults
    assert f"{folder / path.name}: this segment belongs to toy-0123456789abcdef/text" in fault
    assert "Move it to the folder toy-0123456789abcdef" in fault


@both_kinds
def test_compact_merges_and_drops_duplicates(tmp_path: Path, kind: str) -> None:
    fill(tmp_path, kind)
    fill(tmp_path, kind, range(10, 40), segment_rows=7)
    n_before = sum(len(read_keys(path)) for path in segments(tmp_path))
    assert n_before == N_ROWS + 30
    (summary,) = FeatureCache(tmp_path).compact()
    assert (summary.n_rows, summary.n_segments) == (N_ROWS, 1)
    assert sum(len(read_keys(path)) for path in segments(tmp_path)) == N_ROWS
    assert_rows(tmp_path, range(N_ROWS), kind)
    only = segments(tmp_path)
    FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == only


def test_compact_keeps_segments_below_a_size(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path, segment_rows=5)
    monkeypatch.setattr("xacle_stack.cache.upkeep._MERGED_BYTES", 15 * 9 * 4)
    (summary,) = FeatureCache(tmp_path).compact()
    assert (summary.n_rows, summary.n_segments) == (N_ROWS, 4)
    assert_rows(tmp_path, range(N_ROWS), "vectors")


@both_kinds
def test_compact_deletes_nothing_beside_damage(tmp_path: Path, kind: str) -> None:
    fill(tmp_path, kind)
    path = segments(tmp_path)[-1]
    path.write_bytes(path.read_bytes()[:-200])
    before = segments(tmp_path)
    with pytest.raises(CacheError, match=f"{path.name}: .*damaged"):
        FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == before


@both_kinds
@pytest.mark.parametrize("n_copies", [5, 12])
def test_no_copy_is_deleted_in_favour_of_a_damaged_one(
    tmp_path: Path, kind: str, n_copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Too large to be merged, so that the highest is kept as it is.
    monkeypatch.setattr("xacle_stack.cache.upkeep._MERGED_BYTES", 1)
    write_rows(tmp_path, range(12), kind)
    write_rows(tmp_path, range(11, 11 - n_copies, -1), kind)
    path = segments(tmp_path)[-1]
    content = bytearray(path.read_bytes())
    with h5py.File(path, "r") as file:
        values = file["outputs/embedding" if kind == "vectors" else "outputs/float32/frames"]
        content[values.id.get_chunk_info(0).byte_offset] ^= 1
    path.write_bytes(content)
    before = segments(tmp_path)
    assert len(before) == 2
    with pytest.raises(CacheError, match=f"{path.name}: .*damaged"):
        FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == before


def test_a_failed_write_deletes_nothing(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path)
    before = segments(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xacle_stack.cache.writer.write_atomically", full)
    with pytest.raises(CacheError, match="No space"):
        FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == before


def test_segments_with_other_outputs_are_not_merged(tmp_path: Path) -> None:
    for outputs in (
        {"a": np.zeros((1, 2))},
        {"a": np.zeros((1, 2)), "b": np.zeros((1, 3))},
        {"a": np.zeros((1, 4))},
        {"a": [np.zeros((1, 2))]},
    ):
        with StoreWriter(tmp_path, STORE, "text", {}) as writer:
            writer.append([text_key(str(outputs))], outputs)
    before = segments(tmp_path)
    with pytest.raises(CacheError, match="its outputs .* cannot be merged"):
        FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == before


@given(data=st.data())
@settings(derandomize=True, max_examples=50, deadline=None)
def test_a_changed_file_gives_the_right_values_or_is_refused(tmp_path_factory, data) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    root = tmp_path_factory.mktemp("changed")
    write_rows(root, range(3), kind)
    (path,) = segments(root)
    sound = path.read_bytes()
    place = data.draw(st.integers(0, len(sound) - 1))
    changed = {
        "flip": bytearray(sound[:place]) + bytes([sound[place] ^ 0x55]) + sound[place + 1 :],
        "truncate": sound[:place],
        "append": sound + sound[place:],
        "zeros": sound[:place] + bytes(len(sound[place : place + 64])) + sound[place + 64 :],
        "shift": sound[place:] + sound[:place],
    }[data.draw(st.sampled_from(["flip", "truncate", "append", "zeros", "shift"]))]
    path.write_bytes(changed)
    is_sound = bytes(changed) == sound
    faults = [found for found, fault in FeatureCache(root).verify() if fault is not None]
    assert faults == ([] if is_sound else [path])
    refused = refusal(root, kind, 3)
    assert refused is None or (f"{path}: this segment is damaged" in refused and not is_sound)


@pytest.mark.parametrize("use", ["known_keys", "summaries", "compact", "verify", "load"])
def test_a_store_compacted_by_another_meanwhile_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    fill(tmp_path, segment_rows=5)
    cache, opened = FeatureCache(tmp_path), []

    def compact_at_the_third(module, name: str) -> None:
        read = getattr(module, name)

        def wrapped(path: Path, *arguments: object) -> object:
            opened.append(path)
            if len(opened) == 3:
                monkeypatch.undo()
                FeatureCache(tmp_path).compact()
            return read(path, *arguments)

        monkeypatch.setattr(module, name, wrapped)

    if use == "compact":
        compact_at_the_third(upkeep, "open_segment")
        (summary,) = cache.compact()
        assert (summary.n_rows, summary.n_segments) == (N_ROWS, 1)
    elif use == "verify":
        compact_at_the_third(upkeep, "has_own_bytes")
        found = dict(cache.verify())
        assert set(found.values()) == {None}
        assert segments(tmp_path)[0] in found
    else:
        readers = {"load": index, "known_keys": known_keys, "summaries": reader}
        compact_at_the_third(readers[use], "open_segment")
        if use == "load":
            assert_rows(tmp_path, range(N_ROWS), "vectors")
        elif use == "summaries":
            assert cache.summaries()[0].n_rows == N_ROWS
        else:
            assert len(set(cache.known_keys(STORE, "text"))) == N_ROWS
    assert len(opened) >= 3
    assert len(segments(tmp_path)) == 1


def test_a_list_that_another_process_changed_under_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    listed, list_segments = [], index.segment_paths

    def list_too_early(folder: Path, modality: str) -> list[Path]:
        listed.append(folder)  # neither the merged segment nor what it replaced
        return list_segments(folder, modality) if len(listed) > 1 else []

    monkeypatch.setattr(index, "segment_paths", list_too_early)
    assert len(set(FeatureCache(tmp_path).known_keys(STORE, "text"))) == N_ROWS


def test_two_that_compact_at_once_never_delete_a_row_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    write, delete = upkeep.write_segment, Path.unlink
    monkeypatch.setattr(upkeep, "_MERGED_BYTES", 20 * 9 * 4)
    for number in range(6):
        root = tmp_path / str(number)
        others = [rng.permutation(30)[: rng.integers(3, 25)].tolist() for _ in range(6)]
        for rows in (range(30), *others[:3]):
            write_rows(root, rows, "vectors", segment_rows=int(rng.integers(4, 12)))
        waiting, moments = others[3:], set(rng.integers(0, 8, size=3).tolist())
        steps = []

        def other_process(
            root=root, waiting=waiting, moments=moments, steps=steps
        ) -> None:  # a writer and one that compacts, between two steps of ours
            steps.append(None)
            if waiting and len(steps) in moments:
                write_rows(root, waiting.pop(), "vectors", segment_rows=9)
                FeatureCache(root).compact()

        def write_and_wait(*arguments: object, between=other_process) -> Path:
            between()
            written = write(*arguments)
            between()
            return written

        def wait_and_delete(path: Path, *arguments: object, between=other_process, **named) -> None:
            between()
            delete(path, *arguments, **named)

        with monkeypatch.context() as patches:
            patches.setattr(upkeep, "write_segment", write_and_wait)
            patches.setattr(Path, "unlink", wait_and_delete)
            FeatureCache(root).compact()
        assert_rows(root, range(30), "vectors")


def test_of_two_segments_with_the_same_rows_all_keep_the_same(tmp_path: Path) -> None:
    for rows in ([0, 1, 2], [2, 0, 1]):
        write_rows(tmp_path, rows, "vectors")
    highest = segments(tmp_path)[-1]
    FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == [highest]


def test_compacting_that_is_cut_off_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    fill(tmp_path, rows=range(10, 40), segment_rows=7)
    n_before, delete, deleted = len(segments(tmp_path)), Path.unlink, []

    def cut_off(path: Path, *arguments: object, **named: object) -> None:
        if len(deleted) in (0, 3):
            deleted.append(path)
            raise KeyboardInterrupt
        deleted.append(path)
        delete(path, *arguments, **named)

    with monkeypatch.context() as patches:
        patches.setattr(Path, "unlink", cut_off)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                FeatureCache(tmp_path).compact()
            assert_rows(tmp_path, range(N_ROWS), "vectors")
    assert len(segments(tmp_path)) == n_before + 1 - 2
    FeatureCache(tmp_path).compact()
    assert len(segments(tmp_path)) == 1
    assert_rows(tmp_path, range(N_ROWS), "vectors")


# Another process: reads every row, or compacts, so many times.
OTHER = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from stored_rows import assert_rows
from xacle_stack.cache import FeatureCache

root, job = Path(sys.argv[1]), sys.argv[2]
for _ in range(25):
    if job == "read":
        assert_rows(root, range({N_ROWS}), "vectors")
        assert not [fault for _, fault in FeatureCache(root).verify() if fault]
    else:
        FeatureCache(root).compact()
"""


def test_readers_writers_and_compacting_at_once(tmp_path: Path) -> None:
    fill(tmp_path, segment_rows=5)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER, str(tmp_path), job], stderr=subprocess.PIPE, text=True
        )
        for job in ("read", "compact")
    ]
    for number in range(25):
        fill(tmp_path, rows=range(number, number + 20), segment_rows=3)
        FeatureCache(tmp_path).compact()
    for child in children:
        _, said = child.communicate()
        assert child.returncode == 0, said
    assert_rows(tmp_path, range(N_ROWS), "vectors")
    assert [fault for _, fault in FeatureCache(tmp_path).verify() if fault] == []


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_lost_record_of_the_fingerprint_is_told_and_made_again(
    tmp_path: Path, content: bytes | None
) -> None:
    fill(tmp_path)
    record = tmp_path / STORE.folder / "fingerprint.json"
    record.unlink()
    if content is not None:
        record.write_bytes(content)
    cache = FeatureCache(tmp_path)
    assert cache.stores() == [STORE]
    assert_rows(tmp_path, range(N_ROWS), "vectors")
    with pytest.raises(CacheError, match=f"{record}: .*unharmed: .*`xacle-stack features`"):
        cache.facts(STORE)
    (fault,) = [fault for path, fault in cache.verify() if path == record]
    assert fault is not None
    write_rows(tmp_path, [], "vectors")  # every row is there already
    assert cache.facts(STORE) == {"encoder": "toy"}
    assert {fault for _, fault in cache.verify()} == {None}


def test_a_record_that_is_no_small_file_is_not_waited_for(tmp_path: Path) -> None:
    fill(tmp_path)
    record, cache = tmp_path / STORE.folder / "fingerprint.json", FeatureCache(tmp_path)
    record.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(CacheError, match=f"{record}: .*larger than 1048576 bytes.*unharmed"):
        cache.facts(STORE)
    record.unlink()
    os.mkfifo(record)
    with pytest.raises(CacheError, match=f"{record}: .*regular file.*unharmed"):
        cache.facts(STORE)
    write_rows(tmp_path, [], "vectors")
    assert cache.facts(STORE) == {"encoder": "toy"}


def test_a_record_is_not_written_through_a_link(tmp_path: Path) -> None:
    fill(tmp_path)
    record, elsewhere = tmp_path / STORE.folder / "fingerprint.json", tmp_path / "private"
    elsewhere.write_text("somebody's notes")
    record.unlink()
    record.symlink_to(elsewhere)
    write_rows(tmp_path, [], "vectors")
    assert elsewhere.read_text() == "somebody's notes"
    assert FeatureCache(tmp_path).facts(STORE) == {"encoder": "toy"}


def test_a_folder_that_cannot_be_listed_is_not_an_empty_store(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path)
    cache, folder, iterate = FeatureCache(tmp_path), tmp_path / STORE.folder, Path.iterdir

    def refuse(path: Path) -> object:
        if path == folder:
            raise PermissionError(13, "Permission denied")
        return iterate(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    message = f"{folder}: cannot be listed .Permission denied.. Give this user the permission"
    for use in (lambda: cache.known_keys(STORE, "text"), cache.summaries, cache.compact):
        with pytest.raises(CacheError, match=message):
            use()
    assert {path for path, fault in cache.verify() if fault} == {folder}


def test_a_segment_that_cannot_be_deleted_is_told(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(CacheError, match=r"cannot be deleted \(Operation not permitted\)"):
        FeatureCache(tmp_path).compact()
    assert_rows(tmp_path, range(N_ROWS), "vectors")


def test_leftovers_of_another_user_harm_nobody(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path)
    partial = tmp_path / STORE.folder / ".other.part"
    partial.touch()
    os.utime(partial, (1, 1))
    delete = Path.unlink

    def refuse(path: Path, *arguments: object, **named: object) -> None:
        if path == partial:
            raise PermissionError(1, "Operation not permitted")
        delete(path, *arguments, **named)

    monkeypatch.setattr(Path, "unlink", refuse)
    fill(tmp_path, rows=range(N_ROWS, N_ROWS + 3))
    FeatureCache(tmp_path).compact()
    assert_rows(tmp_path, range(N_ROWS + 3), "vectors")
