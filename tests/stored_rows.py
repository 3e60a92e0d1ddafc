"""Rows for tests of the cache, of both kinds: single vectors, and sequences of both types.

A row's content follows from its number, so that any process can write it and check it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xacle_stack.cache import (
    AudioKeys,
    CachedSequences,
    FeatureCache,
    StoreId,
    StoreWriter,
    text_key,
)
from xacle_stack.cache.raw_keys import hex_keys
from xacle_stack.pairs import Pairs
from xacle_stack.pairs.split_rows import numbered_ids

STORE = StoreId("toy", "0123456789abcdef")
KINDS = ("vectors", "sequences")
TYPES = ("float16", "float32")


def row_outputs(row: int, kind: str) -> dict[str, np.ndarray | list[np.ndarray]]:
    """Return what an encoder would have returned for this row alone."""
    rng = np.random.default_rng(row)
    if kind == "vectors":
        return {"embedding": rng.normal(size=(1, 9)).astype("float32")}
    shape = (1 + row % 4, 9)
    return {name: [rng.normal(size=shape).astype(name)] for name in TYPES}


def write_rows(root: Path, rows: Sequence[int], kind: str, segment_rows: int = 4096) -> None:
    """Store rows as those of captions."""
    with StoreWriter(root, STORE, "text", {}, segment_rows=segment_rows) as writer:
        for row in rows:
            writer.append([text_key(str(row))], row_outputs(row, kind))


def caption_pairs(rows: Sequence[int]) -> Pairs:
    """Return pairs whose captions are the rows' numbers."""
    captions = tuple(map(str, rows))
    return Pairs("test", numbered_ids(captions), (), captions)


def assert_rows(root: Path, rows: Sequence[int], kind: str) -> None:
    """Read rows back and compare every bit."""
    cached = FeatureCache(root).load(caption_pairs(rows))
    expected = [row_outputs(row, kind) for row in rows]
    if kind == "vectors":
        table = cached.text("toy")
        assert table.tobytes() == b"".join(
            row_output["embedding"].tobytes() for row_output in expected
        )
        return
    for name in TYPES:
        sequences = CachedSequences(cached, "toy", "text", name)
        for found, row_output in zip(sequences[:], expected, strict=True):
            (sequence,) = row_output[name]
            assert (found.shape, found.dtype) == (sequence.shape, sequence.dtype)
            assert found.tobytes() == sequence.tobytes()


def fill_store(root: Path, pairs: Pairs, rng: np.random.Generator, store: StoreId = STORE) -> None:
    """Store a random vector for every distinct clip and caption, in many small segments."""
    for modality, keys in {
        "audio": hex_keys(AudioKeys(root).look_up(pairs.audio)),
        "text": [text_key(caption) for caption in pairs.captions],
    }.items():
        with StoreWriter(root, store, modality, {}, segment_rows=8) as writer:
            for key in rng.permutation(sorted(set(keys))):
                vectors = {"embedding": rng.normal(size=(1, 5)), "other": rng.normal(size=(1, 2))}
                writer.append([str(key)], vectors)
