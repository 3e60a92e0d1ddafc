from pathlib import Path

import h5py
import numpy as np
from support import STORE

from xacle_stack.cache.schema import (
    KEY_DTYPE,
    SCHEMA_VERSION,
    bytes_digest,
    segment_image,
    text_key,
)
from xacle_stack.cache.sequences import Sequences


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
            "belongs_to": b"toy-0123456789abcdef/audio",
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


def test_text_keys_are_of_the_utf8() -> None:
    assert len(text_key("rain")) == 32
    assert text_key("rain") != text_key("Rain")
    assert text_key("caf\u00e9") != text_key("cafe\u0301")
