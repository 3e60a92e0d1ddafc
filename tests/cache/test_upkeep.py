from pathlib import Path

import h5py
import numpy as np
import pytest
from stored_rows import KINDS, STORE, assert_rows, write_rows

from xacle_stack.cache import FeatureCache, StoreWriter, text_key
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


def refusal(root: Path, kind: str) -> str | None:
    """Read every row; return the error's message, or None after checking what was read."""
    try:
        assert_rows(root, range(N_ROWS), kind)  # the byte may be one that HDF5 does not use
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
    of_data = data_bytes(path)
    assert len(of_data) >= 12 * (32 + 9 * 4)
    rng = np.random.default_rng(0)
    # Everywhere in the file's head, where HDF5's own structures are, and at random in the rest.
    for place in [*range(0, 400, 3), *rng.integers(400, len(sound), size=250)]:
        flipped = bytearray(sound)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        faults = [found for found, fault in FeatureCache(tmp_path).verify() if fault is not None]
        assert faults == [path]
        refused = refusal(tmp_path, kind)
        assert refused is not None or place not in of_data
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
    with pytest.raises(CacheError, match=f"{path.name}: this segment is damaged"):
        FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == before


def test_a_failed_write_deletes_nothing(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path)
    before = segments(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xacle_stack.cache.writer.write_atomically", full)
    with pytest.raises(CacheError, match="No space left on device"):
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
    with pytest.raises(CacheError, match="differ from those of the segments before it"):
        FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == before
