from pathlib import Path

import numpy as np
from stored_rows import STORE, write_rows

from xacle_stack.cache import FeatureCache, KnownKeys, StoreWriter, text_key


def keys_of(rows: range) -> set[str]:
    return {text_key(str(row)) for row in rows}


def test_known_keys_are_those_of_the_store(tmp_path: Path) -> None:
    # Keys that end and begin with zero bytes, which NumPy leaves out of texts.
    edges = {"0" * 32, "ab" * 15 + "00", "00" * 15 + "ab", "f" * 32, "f" * 16 + "0" * 16}
    with StoreWriter(tmp_path, STORE, "text", {}) as writer:
        writer.append([*edges], {"embedding": np.zeros((len(edges), 2))})
    write_rows(tmp_path, range(50), "vectors", segment_rows=9)
    known = FeatureCache(tmp_path).known_keys(STORE, "text")
    assert set(known) == edges | keys_of(range(50))
    assert all(key in known for key in edges | keys_of(range(50)))
    others = ["e" * 32, "f" * 31 + "0", "0" * 31 + "1", "", "no key"]
    assert not any(key in known for key in others)
    assert not set(FeatureCache(tmp_path).known_keys(STORE, "audio"))


def test_what_is_written_by_this_process_and_others_becomes_known(tmp_path: Path) -> None:
    known = KnownKeys(tmp_path, STORE, "text")
    known.refresh()
    assert text_key("1") not in known
    for n_rows in (20, 25, 27, 60):
        write_rows(tmp_path, range(n_rows - 5, n_rows), "vectors")
        assert text_key(str(n_rows - 1)) not in known
        known.update(keys_of(range(n_rows - 5, n_rows - 3)))
        assert text_key(str(n_rows - 5)) in known
        known.refresh()
        assert all(key in known for key in keys_of(range(n_rows - 5, n_rows)))
    assert set(known) == keys_of(range(15, 27)) | keys_of(range(55, 60))


def test_a_store_compacted_meanwhile_is_read_anew(tmp_path: Path) -> None:
    write_rows(tmp_path, range(20), "vectors", segment_rows=6)
    known = FeatureCache(tmp_path).known_keys(STORE, "text")
    FeatureCache(tmp_path).compact()
    write_rows(tmp_path, range(20, 25), "vectors")
    known.refresh()
    assert set(known) == keys_of(range(25))
    for path in (tmp_path / STORE.folder).glob("*.h5"):
        path.unlink()  # as one deletes a damaged segment
    known.refresh()
    assert not set(known)
