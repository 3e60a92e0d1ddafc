from pathlib import Path

import h5py
import numpy as np
import pytest
from stored_rows import STORE, assert_rows, write_rows

from xacle_stack.cache import FeatureCache, text_key
from xacle_stack.cache.raw_keys import distinct, hex_keys, raw_keys, text_keys
from xacle_stack.cache.schema import bytes_digest
from xacle_stack.cache.segment_file import open_segment, read_keys
from xacle_stack.cache.segment_keys import find_rows, unordered_keys
from xacle_stack.cache.writer import write_segment
from xacle_stack.errors import CacheError

N_ROWS = 40


def only_segment(root: Path) -> Path:
    (path,) = (root / STORE.folder).glob("*.h5")
    return path


@pytest.fixture
def merged(tmp_path: Path) -> Path:
    write_rows(tmp_path, range(N_ROWS), "vectors", segment_rows=9)
    FeatureCache(tmp_path).compact()
    return only_segment(tmp_path)


@pytest.mark.parametrize("generation", [0, 1])
@pytest.mark.parametrize("chunk_bytes", [16, 48, 1 << 18])
def test_keys_are_found_wherever_they_are(
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    generation: int,
    chunk_bytes: int,
) -> None:
    monkeypatch.setattr("xacle_stack.cache.schema._CHUNK_BYTES", chunk_bytes)
    texts = [text_key(str(row)) for row in range(N_ROWS)]
    keys = np.array(texts, dtype="S32")
    values = {"embedding": np.zeros((N_ROWS, 2), np.float32)}
    (tmp_path / STORE.folder).mkdir()
    path = write_segment(tmp_path / STORE.folder, STORE, "text", keys, values, generation)
    with open_segment(path) as segment:
        assert (segment.sorted_keys is not None) == (generation > 0)
        for n_there, n_elsewhere in [(40, 0), (40, 200), (3, 0), (1, 1), (0, 5), (0, 0), (20, 20)]:
            there = rng.permutation(N_ROWS)[:n_there]
            asked = [*(str(row) for row in there), *(f"other {i}" for i in range(n_elsewhere))]
            wanted = distinct(text_keys(asked))
            places, rows = find_rows(segment, wanted)
            assert sorted(rows.tolist()) == sorted(there.tolist())
            assert hex_keys(wanted[places]) == [texts[row] for row in rows]
        assert sorted(hex_keys(unordered_keys(segment))) == sorted(texts)


def test_only_chunks_that_may_hold_a_key_are_read(
    merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xacle_stack.cache.schema._CHUNK_BYTES", 16)  # one key a chunk
    with open_segment(merged) as segment:
        keys, outputs = segment.read_keys(), {"embedding": segment.outputs["embedding"][:]}
    path = write_segment(merged.parent, STORE, "text", keys, outputs, 2)
    read: list[object] = []
    get = h5py.Dataset.__getitem__

    def counted(values: h5py.Dataset, what: object) -> object:
        read.append(values.name)
        return get(values, what)

    with open_segment(path) as segment:
        monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
        find_rows(segment, text_keys(["7"]))
    assert "/keys" not in read
    assert read.count("/sorted/keys") <= 6  # of 40
    assert read.count("/sorted/rows") == 1


def test_a_key_that_a_segment_has_twice_is_its_first_row(tmp_path: Path) -> None:
    keys = np.array([text_key("b"), text_key("a"), text_key("b"), text_key("a")], dtype="S32")
    (tmp_path / STORE.folder).mkdir()
    values = {"embedding": np.zeros((4, 2), np.float32)}
    path = write_segment(tmp_path / STORE.folder, STORE, "text", keys, values)
    wanted = distinct(text_keys(["a", "b", "c"]))
    with open_segment(path) as segment:
        places, rows = find_rows(segment, wanted)
    assert dict(zip(hex_keys(wanted[places]), rows.tolist(), strict=True)) == {
        text_key("a"): 1,
        text_key("b"): 0,
    }


def change(path: Path, name: str, values: np.ndarray) -> Path:
    """Replace a data set and name the segment after its new bytes, as a stranger could."""
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
    return path.rename(path.with_name(f"text-{bytes_digest(path.read_bytes())}.h5"))


def test_a_merged_segment_of_an_earlier_version_has_none(merged: Path) -> None:
    with h5py.File(merged, "r+") as file:
        del file["sorted"]
    merged.rename(merged.with_name(f"text-{bytes_digest(merged.read_bytes())}.h5"))
    root = merged.parent.parent
    assert_rows(root, range(N_ROWS), "vectors")
    assert {fault for _, fault in FeatureCache(root).verify()} == {None}


@pytest.mark.parametrize("sizes", [(N_ROWS - 1, N_ROWS), (N_ROWS, N_ROWS - 1)])
def test_sorted_keys_of_another_number_are_refused(merged: Path, sizes: tuple[int, int]) -> None:
    path = change(merged, "sorted/keys", np.sort(text_keys([*map(str, range(sizes[0]))])))
    path = change(path, "sorted/rows", np.arange(sizes[1], dtype=np.int32))
    with pytest.raises(CacheError, match=f"{path}: .*40 keys, but {sizes[0]} sorted ones"):
        read_keys(path)


def test_sorted_keys_that_are_no_group_are_refused(merged: Path) -> None:
    path = change(merged, "sorted", np.zeros(3, np.float32))
    with pytest.raises(CacheError, match=f"{path}: .*/sorted is not a group"):
        read_keys(path)


@pytest.mark.parametrize("row", [-1, N_ROWS, 2**31 - 1])
def test_rows_that_there_are_not_are_refused(merged: Path, row: int) -> None:
    path = change(merged, "sorted/rows", np.full(N_ROWS, row, dtype=np.int32))
    with pytest.raises(CacheError, match=f"{path}: .*/sorted/rows holds more"):
        assert_rows(path.parent.parent, range(N_ROWS), "vectors")


def test_verify_finds_sorted_keys_that_are_not_those_of_the_rows(merged: Path) -> None:
    rows = np.arange(N_ROWS, dtype=np.int32)
    path = change(merged, "sorted/rows", rows)
    ((_, fault),) = FeatureCache(path.parent.parent).verify()
    assert f"{path}: " in fault
    assert "/sorted/keys are not those of the rows" in fault
    path = change(path, "sorted/keys", raw_keys(["a" * 32] * N_ROWS))
    ((_, fault),) = FeatureCache(path.parent.parent).verify()
    assert "/sorted/keys does not rise" in fault
