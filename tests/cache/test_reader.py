from pathlib import Path

import numpy as np
import pytest
from stored_rows import STORE, fill_store
from support import WriteData

from xacle_stack.cache import (
    FeatureCache,
    StoreId,
    StoreWriter,
    text_key,
)
from xacle_stack.errors import AudioError, CacheError, UnknownNameError
from xacle_stack.pairs import Pairs, read_pairs


def test_rows_follow_the_pairs(make_data: WriteData, tmp_path: Path, rng) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    fill_store(tmp_path / "store", pairs, rng)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    audio, text = cached.audio("toy"), cached.text("toy", "other")
    assert (audio.shape, text.shape, audio.dtype) == ((40, 5), (40, 2), np.float32)
    order = rng.permutation(40)
    again = FeatureCache(tmp_path / "store").load(pairs.take(order.tolist()))
    np.testing.assert_array_equal(again.audio("toy"), audio[order])
    np.testing.assert_array_equal(again.text("toy", "other"), text[order])
    assert again.pair_ids == tuple(pairs.ids[row] for row in order)


def test_equal_captions_share_a_row(make_data: WriteData, tmp_path: Path, rng) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    fill_store(tmp_path / "store", pairs, rng)
    text = FeatureCache(tmp_path / "store").load(pairs).text("toy")
    n_captions = len(set(pairs.captions))
    assert n_captions < 40
    assert len(np.unique(text, axis=0)) == n_captions
    summaries = {s.modality: s for s in FeatureCache(tmp_path / "store").summaries()}
    assert summaries["text"].n_rows == n_captions
    assert summaries["audio"].outputs == {"embedding": 5, "other": 2}


def test_missing_rows_are_named(make_data: WriteData, tmp_path: Path, rng) -> None:
    pairs = read_pairs(make_data(train=10), "train")
    fill_store(tmp_path / "store", pairs.take(range(8)), rng)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    with pytest.raises(CacheError, match=r"audio.* 2 of 10 .*`xacle-stack features`") as e:
        cached.audio("toy")
    assert "00008.wav" in str(e.value)
    assert "00009.wav" in str(e.value)
    assert "00007.wav" not in str(e.value)


def test_unknown_encoders_and_outputs_list_the_known(
    make_data: WriteData, tmp_path: Path, rng
) -> None:
    pairs = read_pairs(make_data(train=4), "train")
    fill_store(tmp_path / "store", pairs, rng)
    cached = FeatureCache(tmp_path / "store").load(pairs)
    with pytest.raises(UnknownNameError, match=r"'clap'.* toy\b"):
        cached.audio("clap")
    with pytest.raises(UnknownNameError, match="no output 'logits'. It holds: embedding, other"):
        cached.audio("toy", "logits")


def test_two_fingerprints_are_never_mixed(make_data: WriteData, tmp_path: Path, rng) -> None:
    pairs = read_pairs(make_data(train=4), "train")
    other = StoreId("toy", "f" * 16)
    fill_store(tmp_path / "store", pairs, rng)
    fill_store(tmp_path / "store", pairs, rng, other)
    cache = FeatureCache(tmp_path / "store")
    assert cache.stores("toy") == [STORE, other]
    with pytest.raises(CacheError, match=r"'toy' has 2 stores, .*fingerprints={'toy': 'ffff"):
        cache.load(pairs).audio("toy")
    first = cache.load(pairs, {"toy": STORE.fingerprint}).audio("toy")
    second = cache.load(pairs, {"toy": other.fingerprint}).audio("toy")
    assert not np.isclose(first, second).any()
    with pytest.raises(CacheError, match=r"'toy'.*'abc'.*`xacle-stack features`"):
        cache.load(pairs, {"toy": "abc"}).audio("toy")


def test_encoder_names_may_hold_hyphens(make_data: WriteData, tmp_path: Path, rng) -> None:
    pairs = read_pairs(make_data(train=4), "train")
    fill_store(tmp_path / "store", pairs, rng, StoreId("ms-clap-2023", "a" * 16))
    cache = FeatureCache(tmp_path / "store")
    assert cache.stores("ms-clap-2023") == [StoreId("ms-clap-2023", "a" * 16)]
    assert "ms-clap-2023" in repr(cache.load(pairs))
    assert "ms-clap-2023-aaaa" in repr(cache)


def test_a_clip_that_broke_since_is_named(make_data: WriteData, tmp_path: Path, rng) -> None:
    pairs = read_pairs(make_data(train=4), "train")
    fill_store(tmp_path / "store", pairs, rng)
    pairs.audio[2].write_text("no audio any more")
    with pytest.raises(AudioError, match=r"1 audio file\(s\) cannot be used"):
        FeatureCache(tmp_path / "store").load(pairs)


def test_reading_back_is_exact_across_chunks_and_segments(tmp_path: Path, rng) -> None:
    values = rng.normal(size=(3000, 300)).astype(np.float32)
    keys = [text_key(str(row)) for row in range(3000)]
    with StoreWriter(tmp_path, STORE, "text", {}, segment_rows=1300) as writer:
        for start in range(0, 3000, 100):
            writer.append(keys[start : start + 100], {"embedding": values[start : start + 100]})
    wanted = rng.choice(3000, size=500)
    pairs = Pairs("test", tuple(map(str, range(500))), (), tuple(str(row) for row in wanted))
    text = FeatureCache(tmp_path).load(pairs).text("toy")
    np.testing.assert_array_equal(text, values[wanted])


def test_a_folder_is_not_pairs(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"read_pairs.* str\b.*'data/demo'"):
        FeatureCache(tmp_path).load("data/demo")


def test_a_mistyped_folder_is_told_and_not_made(make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=4), "train")
    with pytest.raises(CacheError, match=r"mistyped: .*cache"):
        FeatureCache(tmp_path / "mistyped").load(pairs)
    assert not (tmp_path / "mistyped").exists()
