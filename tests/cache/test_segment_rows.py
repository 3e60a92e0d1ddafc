from pathlib import Path

import h5py
import numpy as np
import pytest
from support import STORE

from xacle_stack.cache import text_key
from xacle_stack.cache.schema import KEY_DTYPE
from xacle_stack.cache.segment_rows import SegmentRows, SegmentSequences
from xacle_stack.cache.sequences import Sequences
from xacle_stack.cache.writer import write_segment
from xacle_stack.errors import CacheError, UnknownNameError

N_ROWS, N_DIMS = 700, 512  # six chunks, the last of them not full


def segment(folder: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    folder = folder / STORE.folder
    folder.mkdir()
    values = rng.normal(size=(N_ROWS, N_DIMS)).astype(np.float32)
    keys = np.array([text_key(str(row)) for row in range(N_ROWS)], dtype=KEY_DTYPE)
    return write_segment(folder, STORE, "audio", keys, {"embedding": values}), values


def read(rows: SegmentRows, wanted: list[int]) -> np.ndarray:
    out = np.full((len(wanted), *rows.row_shape), np.nan, dtype=rows.dtype)
    rows.read(np.array(wanted), out)
    return out


def test_every_reading_is_exact(tmp_path: Path, rng) -> None:
    path, values = segment(tmp_path, rng)
    rows = SegmentRows(path, "embedding")
    assert (rows.row_shape, rows.dtype) == ((N_DIMS,), np.float32)
    for _ in range(40):  # some chunks through HDF5, some in place, some half and half
        wanted = np.flatnonzero(rng.random(N_ROWS) < rng.choice([0.002, 0.05, 1.0])).tolist()
        if wanted:
            np.testing.assert_array_equal(read(rows, wanted), values[wanted])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_reading_of_sequences_is_exact(tmp_path: Path, rng, dtype: str) -> None:
    lengths = rng.integers(1, 90, size=60)
    sequences = [rng.normal(size=(length, 200)).astype(dtype) for length in lengths]
    keys = np.array([text_key(str(row)) for row in range(60)], dtype=KEY_DTYPE)
    folder = tmp_path / STORE.folder
    folder.mkdir()
    path = write_segment(folder, STORE, "audio", keys, {"frames": Sequences.join(sequences)})
    with h5py.File(path) as file:
        assert file["outputs/frames/frames"].id.get_num_chunks() >= 4
    rows = SegmentSequences(path, "frames")
    assert (rows.frame_shape, rows.dtype) == ((200,), np.dtype(dtype))
    np.testing.assert_array_equal(rows.lengths, lengths)
    for _ in range(20):  # some chunks through HDF5, some in place, some half and half
        wanted = np.flatnonzero(rng.random(60) < rng.choice([0.03, 0.3, 1.0]))
        if len(wanted):
            found = rows.read(wanted)
            for number, sequence in zip(wanted, found, strict=True):
                np.testing.assert_array_equal(sequence, sequences[number])
                assert sequence.dtype == dtype


def test_a_chunk_is_verified_before_it_is_read_in_place(tmp_path: Path, rng) -> None:
    path, values = segment(tmp_path, rng)
    with h5py.File(path) as file:
        place = file["outputs/embedding"].id.get_chunk_info_by_coord((128, 0)).byte_offset
    content = bytearray(path.read_bytes())
    content[place + 1000] ^= 1
    path.write_bytes(content)
    rows = SegmentRows(path, "embedding")
    for _ in range(2):
        np.testing.assert_array_equal(read(rows, [0, 300]), values[[0, 300]])
        with pytest.raises(CacheError, match="damaged"):
            read(rows, [127, 250])  # another row of the damaged chunk


def test_what_is_wrong_is_named(tmp_path: Path, rng) -> None:
    path, _ = segment(tmp_path, rng)
    with pytest.raises(UnknownNameError, match="no output 'logits'. It holds: embedding"):
        SegmentRows(path, "logits")
    rows = SegmentRows(path, "embedding")
    read(rows, [699])
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CacheError, match="damaged .*shorter"):
        read(rows, [698])
    path.unlink()
    with pytest.raises(CacheError, match="gone since"):
        read(rows, [699])
