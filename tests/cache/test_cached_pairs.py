import copy
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from stored_rows import STORE, assert_rows, caption_pairs, fill_store, row_outputs, write_rows
from support import WriteData

from xacle_stack.cache import (
    CachedPairs,
    CachedSequences,
    FeatureCache,
    StoreWriter,
    index,
    segment_rows,
    text_key,
)
from xacle_stack.cache import cached_pairs as module
from xacle_stack.cache.raw_keys import text_keys
from xacle_stack.cache.segment_rows import SegmentRows
from xacle_stack.errors import CacheError, UnknownNameError
from xacle_stack.pairs import Pairs, read_pairs


def test_parts_are_rows_of_the_whole(make_data: WriteData, tmp_path: Path, rng) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    fill_store(tmp_path / "store", pairs, rng)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    audio, text = cached.audio("toy"), cached.text("toy", "other")
    some = rng.integers(0, 40, size=30)
    for rows in (slice(8, 24), slice(None, None, -1), slice(30, 2, -7), some, [3], np.array([-1])):
        part = cached.take(rows)
        assert part.pair_ids == tuple(np.array(pairs.ids)[rows].tolist())
        assert part.pairs.ids == part.pair_ids
        assert len(part) == len(part.pair_ids)
        np.testing.assert_array_equal(part.audio("toy"), audio[rows])
        np.testing.assert_array_equal(part.text("toy", "other"), text[rows])
        assert part.shape_of("toy", "text", "other") == (len(part), 2)
    twice = cached.take(some).take(slice(4, 20, 3)).take([1, 0])
    np.testing.assert_array_equal(twice.audio("toy"), audio[some[4:20:3][[1, 0]]])
    assert cached.pairs is pairs
    for none in (slice(3, 3), []):
        assert cached.take(none).pair_ids == ()
        with pytest.raises(CacheError, match=r"pairs is empty"):
            cached.take(none).audio("toy")
    with pytest.raises(IndexError, match=r"\b40 is out"):
        cached.take([40])


def test_parts_share_one_look_at_the_store(
    make_data: WriteData, tmp_path: Path, rng, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    fill_store(tmp_path / "store", pairs, rng)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    built, build = [], module.locate
    monkeypatch.setattr(
        module,
        "locate",
        lambda folder, modality, keys: built.append(modality) or build(folder, modality, keys),
    )
    for start in range(0, 40, 4):
        part = cached.take(slice(start, start + 4))
        part.shape_of("toy", "audio")
        part.audio("toy")
        part.text("toy")
        part.text("toy", "other")
    assert built == ["audio", "text"]


def test_a_part_without_the_missing_rows_can_be_read(
    make_data: WriteData, tmp_path: Path, rng
) -> None:
    pairs = read_pairs(make_data(train=10), "train")
    fill_store(tmp_path / "store", pairs.take(range(8)), rng)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    assert cached.take(slice(8)).audio("toy").shape == (8, 5)
    with pytest.raises(CacheError, match=r"audio.* 1 of 3 (?s:.*)- 00009.wav"):
        cached.take([1, 9, 2]).audio("toy")
    with pytest.raises(CacheError, match=r"audio.* 2 of 10 "):
        cached.shape_of("toy", "audio")
    fill_store(tmp_path / "store", pairs.take([8, 9]), rng)  # encoded meanwhile
    assert cached.audio("toy").shape == (10, 5)


def cached_captions(root: Path, n_pairs: int) -> CachedPairs:
    """Return pairs whose captions are their numbers, and whose clips are not in the cache."""
    names = tuple(map(str, range(n_pairs)))
    keys = text_keys(names)
    pairs = Pairs("test", names, tuple(map(Path, names)), names)
    return CachedPairs(root, pairs, {"audio": keys, "text": keys}, {})


def test_a_part_pickles_only_its_own_pairs(tmp_path: Path, rng) -> None:
    n_pairs = 20_000
    values = rng.normal(size=(n_pairs, 2)).astype(np.float32)
    with StoreWriter(tmp_path, STORE, "text", {}) as writer:
        for rows in np.array_split(np.arange(n_pairs), 5):
            writer.append([text_key(str(row)) for row in rows], {"embedding": values[rows]})
    cached = cached_captions(tmp_path, n_pairs)
    cached.shape_of("toy", "text")
    whole = len(pickle.dumps(cached))
    for rows in (slice(300, 500), rng.permutation(n_pairs)[:200], [7, 7, 3, *range(100, 297)]):
        part = cached.take(rows)
        pickled = pickle.dumps(part)
        assert len(pickled) < whole / 50
        for again in (pickle.loads(pickled), copy.deepcopy(part)):
            assert again.pair_ids == part.pair_ids
            assert again.take([1, 0]).pair_ids == (part.pair_ids[1], part.pair_ids[0])
            np.testing.assert_array_equal(again.text("toy"), values[rows])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cached)).text("toy"), values)


def test_a_process_opens_a_segment_once_for_all_its_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, range(40), "vectors", segment_rows=10)
    pairs = caption_pairs(range(40))
    cached = FeatureCache(tmp_path).load(pairs)
    expected = cached.text("toy")
    opened, open_one = [], segment_rows.open_segment
    monkeypatch.setattr(
        segment_rows, "open_segment", lambda path: opened.append(path) or open_one(path)
    )

    def read_as_a_worker_does() -> int:
        opened.clear()
        part = pickle.loads(pickle.dumps(cached.take(slice(None, None, -1))))
        np.testing.assert_array_equal(part.text("toy"), expected[::-1])
        return len(opened)

    # What was written a moment ago is checked each time.
    assert [read_as_a_worker_does() for _ in range(2)] == [8, 8]
    monkeypatch.setattr(segment_rows, "_SETTLED_S", 0)
    assert [read_as_a_worker_does() for _ in range(2)] == [8, 0]
    (path, *_) = sorted((tmp_path / STORE.folder).glob("*.h5"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CacheError, match="damaged"):
        read_as_a_worker_does()
    path.unlink()
    with pytest.raises(CacheError, match="no text row for 10 of 40"):
        read_as_a_worker_does()


def test_a_segment_of_a_block_costs_little_more_than_its_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_rows, "_SETTLED_S", 0)
    n_segments, n_rows = 60, 600
    write_rows(tmp_path, range(n_rows), "vectors", segment_rows=n_rows // n_segments)
    order = np.random.default_rng(0).permutation(n_rows)
    part = FeatureCache(tmp_path).load(caption_pairs(order.tolist())).take(slice(n_rows // 5))
    expected = part.text("toy")
    n_calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal n_calls
        n_calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        found = part.text("toy")
    finally:
        sys.setprofile(before)
    np.testing.assert_array_equal(found, expected)
    # A row is two calls, and the file's opening most of the others: about 30, not above 100.
    assert n_calls < 50 * n_segments


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_rows_of_many_segments_are_read_in_any_order(
    tmp_path: Path, rng, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(index, "_PIECE_ROWS", piece)
    write_rows(tmp_path, range(60), "vectors", segment_rows=9)
    for rows in (range(60), range(59, -1, -1), rng.integers(0, 60, size=90), [5] * 20):
        assert_rows(tmp_path, [int(row) for row in rows], "vectors")
    write_rows(tmp_path, range(60, 90), "vectors", segment_rows=7)
    cached = FeatureCache(tmp_path).load(caption_pairs(range(90)))
    expected = np.concatenate([row_outputs(row, "vectors")["embedding"] for row in range(90)])
    for _ in range(5):  # some segments through HDF5, others in place
        rows = rng.integers(0, 90, size=30)
        np.testing.assert_array_equal(cached.take(rows).text("toy"), expected[rows])


def test_a_pickled_part_still_misses_what_the_whole_missed(tmp_path: Path) -> None:
    write_rows(tmp_path, range(8), "vectors", segment_rows=3)
    cached = cached_captions(tmp_path, 10)
    assert len(cached.take(slice(8)).text("toy")) == 8
    part = pickle.loads(pickle.dumps(cached.take([9, 1, 8, 7])))
    with pytest.raises(CacheError, match=r"text.* 2 of 4 (?s:.*)- 9\n  - 8$"):
        part.text("toy")
    write_rows(tmp_path, [8, 9], "vectors")
    np.testing.assert_array_equal(part.text("toy"), cached.text("toy")[[9, 1, 8, 7]])


def test_a_store_may_be_compacted_while_it_is_read(
    make_data: WriteData, tmp_path: Path, rng
) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    fill_store(tmp_path / "store", pairs, rng)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    before = cached.audio("toy")
    FeatureCache(tmp_path / "store").compact()
    np.testing.assert_array_equal(cached.take(slice(5, 9)).audio("toy"), before[5:9])


def stored_sequence(row: int) -> np.ndarray:
    (sequence,) = row_outputs(row, "sequences")["float16"]
    return sequence


def test_sequences_are_indexed_by_pair(tmp_path: Path, rng) -> None:
    write_rows(tmp_path, rng.permutation(30), "sequences", segment_rows=8)
    captions = rng.integers(0, 30, size=50)
    cached = FeatureCache(tmp_path).load(caption_pairs(captions.tolist()))
    sequences = CachedSequences(cached, "toy", "text", "float16")
    assert (len(sequences), sequences.n_dims, sequences.dtype) == (50, 9, np.float16)
    assert repr(sequences) == "CachedSequences(50 x T x 9 float16, toy:float16)"
    np.testing.assert_array_equal(
        sequences.lengths, [len(stored_sequence(row)) for row in captions]
    )
    for rows in (slice(None), slice(40, 3, -5), [7, 7, 3], rng.permutation(50), np.array([-1]), []):
        found = sequences[rows]
        assert isinstance(found, list)
        for sequence, row in zip(found, captions[rows] if len(found) else [], strict=True):
            np.testing.assert_array_equal(sequence, stored_sequence(row))
    for row in (0, -1, np.int64(17)):
        np.testing.assert_array_equal(sequences[row], stored_sequence(captions[row]))
    part = CachedSequences(cached.take([5, 2]), "toy", "text", "float32")
    assert [sequence.dtype for sequence in part] == [np.float32, np.float32]
    assert len(part[0]) == sequences.lengths[5]
    with pytest.raises(IndexError, match=r"\b50 is out"):
        sequences[50]
    with pytest.raises(CacheError, match=r"pairs is empty"):
        CachedSequences(cached.take([]), "toy", "text", "float16")


def test_a_sequence_belongs_to_who_asked_for_it(tmp_path: Path) -> None:
    write_rows(tmp_path, range(4), "sequences")
    sequences = CachedSequences(
        FeatureCache(tmp_path).load(caption_pairs([1, 1, 2])), "toy", "text", "float16"
    )
    first, again, _ = sequences[:]
    first += 1
    np.testing.assert_array_equal(again, stored_sequence(1))
    np.testing.assert_array_equal(sequences[0], stored_sequence(1))


def test_only_the_sequences_asked_for_are_read(tmp_path: Path, monkeypatch) -> None:
    write_rows(tmp_path, range(200), "sequences")
    sequences = CachedSequences(
        FeatureCache(tmp_path).load(caption_pairs(range(200))), "toy", "text", "float16"
    )
    n_read, read = [], SegmentRows.read
    monkeypatch.setattr(
        SegmentRows,
        "read",
        lambda self, rows, out: n_read.append(len(rows)) or read(self, rows, out),
    )
    assert sequences.lengths.sum() == 500
    assert n_read == []
    sequences[[3, 11, 3]]
    assert sum(n_read) == len(stored_sequence(3)) + len(stored_sequence(11))


def test_vectors_and_sequences_are_not_taken_for_each_other(tmp_path: Path) -> None:
    write_rows(tmp_path, range(3), "sequences")
    cached = FeatureCache(tmp_path).load(caption_pairs(range(3)))
    for ask in (cached.text, lambda *names: cached.shape_of(names[0], "text", names[1])):
        with pytest.raises(CacheError, match=r"'float16'.* audio_sequences"):
            ask("toy", "float16")
    with pytest.raises(UnknownNameError, match="no output 'frames'. It holds: float16, float32"):
        cached.text_sequences("toy", "frames")
    (summary,) = FeatureCache(tmp_path).summaries()
    assert summary.outputs == {"float16": 9, "float32": 9}
    assert summary.sequences == {"float16": 1 + 2 + 3, "float32": 1 + 2 + 3}


def test_a_vector_is_no_sequence(make_data: WriteData, tmp_path: Path, rng) -> None:
    pairs = read_pairs(make_data(train=4), "train")
    fill_store(tmp_path / "store", pairs, rng)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    with pytest.raises(CacheError, match=r"'other'.* audio or text"):
        cached.audio_sequences("toy", "other")
    (summary, _) = FeatureCache(tmp_path / "store").summaries()
    assert summary.sequences == {}


def test_missing_sequences_are_named(tmp_path: Path) -> None:
    write_rows(tmp_path, range(5), "sequences")
    cached = FeatureCache(tmp_path).load(caption_pairs([0, 4, 7, 9]))
    with pytest.raises(CacheError, match=r"text.* 2 of 4 .*`xacle-stack features`") as e:
        cached.text_sequences("toy", "float16")
    assert str(e.value).endswith("  - 7\n  - 9")


def test_sequences_may_be_compacted_while_they_are_read(tmp_path: Path) -> None:
    write_rows(tmp_path, range(20), "sequences", segment_rows=6)
    sequences = CachedSequences(
        FeatureCache(tmp_path).load(caption_pairs(range(20))), "toy", "text", "float16"
    )
    np.testing.assert_array_equal(sequences[3], stored_sequence(3))
    FeatureCache(tmp_path).compact()
    np.testing.assert_array_equal(sequences[13], stored_sequence(13))
    assert_rows(tmp_path, range(20), "sequences")
