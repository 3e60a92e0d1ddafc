from pathlib import Path

import h5py
import numpy as np
import pytest
from support import STORE

from xacle_stack.cache.schema import (
    KEY_DTYPE,
    SCHEMA_VERSION,
    bytes_digest,
    open_segment,
    read_keys,
    read_offsets,
    segment_errors,
    segment_image,
    text_key,
)
from xacle_stack.cache.sequences import Sequences
from xacle_stack.errors import CacheError


def write(folder: Path, n_rows: int = 3) -> Path:
    keys = np.array([text_key(str(i)) for i in range(n_rows)], dtype=KEY_DTYPE)
    values = np.arange(n_rows * 4, dtype=np.float32).reshape(n_rows, 4)
    image = segment_image(STORE, "audio", keys, {"embedding": values})
    path = folder / f"audio-{bytes_digest(image)}.h5"
    path.write_bytes(image)
    return path


def test_anyone_can_read_a_segment_with_h5py(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path), "r") as file:
        assert dict(file.attrs) == {
            "schema_version": 1,
            "encoder": "toy",
            "fingerprint": "0123456789abcdef",
            "modality": "audio",
        }
        assert file["keys"][1].decode() == text_key("1")
        np.testing.assert_array_equal(file["outputs/embedding"][1], [4, 5, 6, 7])
        for data_set in (file["keys"], file["outputs/embedding"]):
            assert data_set.fletcher32
            assert data_set.chunks is not None


def test_anyone_can_read_sequences_with_h5py(tmp_path: Path) -> None:
    keys = np.array([text_key(str(i)) for i in range(2)], dtype=KEY_DTYPE)
    first, second = np.ones((3, 4), np.float16), np.full((1, 4), 2, np.float16)
    image = segment_image(STORE, "audio", keys, {"frames": Sequences.join([first, second])})
    (tmp_path / "segment.h5").write_bytes(image)
    with h5py.File(tmp_path / "segment.h5", "r") as file:
        # Another version, because a release of version 1 would merge segments without them.
        assert file.attrs["schema_version"] == SCHEMA_VERSION == 2
        frames, offsets = file["outputs/frames/frames"], file["outputs/frames/offsets"]
        assert offsets[:].tolist() == [0, 3, 4]
        np.testing.assert_array_equal(frames[offsets[0] : offsets[1]], first)
        np.testing.assert_array_equal(frames[offsets[1] : offsets[2]], second)
        assert frames.dtype == np.float16
        assert frames.fletcher32
        assert offsets.fletcher32


@pytest.mark.parametrize("offsets", [[0, 3], [1, 3, 4], [0, 0, 4], [0, 3, 5], [4], []])
def test_offsets_that_lead_elsewhere_are_damage(tmp_path: Path, offsets: list[int]) -> None:
    with h5py.File(tmp_path / "segment.h5", "w") as file:
        file.attrs["schema_version"] = 2
        file["outputs/frames/frames"] = np.zeros((4, 2))
        file["outputs/frames/offsets"] = np.array(offsets, dtype=np.int64)
    with (
        pytest.raises(CacheError, match="segment.h5: this segment is damaged .*do not lead from 0"),
        open_segment(tmp_path / "segment.h5") as file,
    ):
        read_offsets(file["outputs/frames"])


def test_equal_rows_make_equal_bytes(tmp_path: Path) -> None:
    assert write(tmp_path) == write(tmp_path)


def test_large_tables_are_chunked_by_rows(tmp_path: Path) -> None:
    keys = np.array([text_key(str(i)) for i in range(1000)], dtype=KEY_DTYPE)
    image = segment_image(STORE, "text", keys, {"embedding": np.zeros((1000, 512), np.float32)})
    (tmp_path / "segment.h5").write_bytes(image)
    with h5py.File(tmp_path / "segment.h5", "r") as file:
        rows, dims = file["outputs/embedding"].chunks
        assert dims == 512
        assert 1 < rows < 1000


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 3
    with pytest.raises(CacheError, match="cache schema 3, but this release reads 2 and older"):
        read_keys(path)


def test_what_is_no_segment_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audio-x.h5"
    path.write_text("this is no HDF5")
    with pytest.raises(CacheError, match=r"audio-x.h5: this segment is damaged .*only its rows"):
        read_keys(path)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    with pytest.raises(CacheError, match="audio-x.h5: this segment is damaged"):
        read_keys(path)
    path.unlink()
    with pytest.raises(CacheError, match="is gone since the store was opened"), open_segment(path):
        pass


def test_text_keys_are_of_the_utf8() -> None:
    assert len(text_key("rain")) == 32
    assert text_key("rain") != text_key("Rain")
    assert text_key("caf\u00e9") != text_key("cafe\u0301")


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = write(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files") as caught:
            read_keys(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(caught.value, CacheError)


def test_too_little_memory_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(MemoryError), segment_errors(tmp_path / "audio-x.h5"):
        raise MemoryError
