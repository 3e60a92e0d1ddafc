from pathlib import Path

import h5py
import numpy as np
import pytest
from support import STORE

from xacle_stack.cache import FeatureCache, StoreWriter, text_key
from xacle_stack.cache.schema import read_keys
from xacle_stack.errors import CacheError
from xacle_stack.pairs import Pairs

N_ROWS = 50
PAIRS = Pairs("test", tuple(map(str, range(N_ROWS))), (), tuple(map(str, range(N_ROWS))))


def fill(root: Path, rows: range = range(N_ROWS), segment_rows: int = 12) -> np.ndarray:
    values = np.random.default_rng(5).normal(size=(N_ROWS, 9)).astype(np.float32)
    with StoreWriter(root, STORE, "text", {}, segment_rows=segment_rows) as writer:
        for row in rows:
            writer.append([text_key(str(row))], {"embedding": values[[row]]})
    return values


def segments(root: Path) -> list[Path]:
    return sorted((root / STORE.folder).glob("*.h5"))


def test_a_sound_store_has_no_faults(tmp_path: Path) -> None:
    fill(tmp_path)
    assert list(FeatureCache(tmp_path).verify()) == [(path, None) for path in segments(tmp_path)]


def refusal(root: Path, values: np.ndarray) -> str | None:
    """Read every row; return the error's message, or None after checking what was read."""
    try:
        read = FeatureCache(root).load(PAIRS).text("toy")
    except CacheError as error:
        return str(error)
    np.testing.assert_array_equal(read, values)  # the byte was one that HDF5 does not use
    return None


def data_bytes(path: Path) -> set[int]:
    """Return the places of all bytes that hold keys or vectors."""
    places: set[int] = set()
    with h5py.File(path, "r") as file:
        for data_set in (file["keys"], file["outputs/embedding"]):
            for number in range(data_set.id.get_num_chunks()):
                chunk = data_set.id.get_chunk_info(number)
                places.update(range(chunk.byte_offset, chunk.byte_offset + chunk.size))
    return places


def test_every_flipped_byte_is_found_and_none_is_read(tmp_path: Path) -> None:
    values = fill(tmp_path)
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
        refused = refusal(tmp_path, values)
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
    assert faults == ["it belongs to toy-0123456789abcdef, text; move it there"]


def test_compact_merges_and_drops_duplicates(tmp_path: Path) -> None:
    values = fill(tmp_path)
    fill(tmp_path, range(10, 40), segment_rows=7)
    n_before = sum(len(read_keys(path)) for path in segments(tmp_path))
    assert n_before == N_ROWS + 30
    (summary,) = FeatureCache(tmp_path).compact()
    assert (summary.n_rows, summary.n_segments) == (N_ROWS, 1)
    assert sum(len(read_keys(path)) for path in segments(tmp_path)) == N_ROWS
    np.testing.assert_array_equal(FeatureCache(tmp_path).load(PAIRS).text("toy"), values)
    only = segments(tmp_path)
    FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == only


def test_compact_keeps_segments_below_a_size(tmp_path: Path, monkeypatch) -> None:
    values = fill(tmp_path, segment_rows=5)
    monkeypatch.setattr("xacle_stack.cache.upkeep._MERGED_BYTES", 15 * 9 * 4)
    (summary,) = FeatureCache(tmp_path).compact()
    assert (summary.n_rows, summary.n_segments) == (N_ROWS, 4)
    np.testing.assert_array_equal(FeatureCache(tmp_path).load(PAIRS).text("toy"), values)


def test_compact_deletes_nothing_beside_damage(tmp_path: Path) -> None:
    fill(tmp_path)
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
    ):
        with StoreWriter(tmp_path, STORE, "text", {}) as writer:
            writer.append([text_key(str(outputs))], outputs)
    before = segments(tmp_path)
    with pytest.raises(CacheError, match="differ from those of the segments before it"):
        FeatureCache(tmp_path).compact()
    assert segments(tmp_path) == before
