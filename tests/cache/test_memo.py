import json

import pytest

from xacle_stack.cache.memo import FolderMemo

FACTS = {"folder": "/clips", "decoding": 2}
NAMES = ["a.wav", "Ä😀.wav", "\udcff.wav", *(f"{i}.wav" for i in range(100))]
KEYS = [f"{i:02x}" * 15 + "00" for i in range(len(NAMES))]
STATUS = (2**63, -1, 2**64 - 1, 0)  # large files, times before 1970, inodes of networks


def filled() -> FolderMemo:
    memo = FolderMemo()
    for name, key in zip(NAMES, KEYS, strict=True):
        memo.remember(name, STATUS, key)
    return memo


def test_what_is_remembered_is_found_before_and_after_it_is_a_file() -> None:
    memo = filled()
    again = FolderMemo.from_bytes(memo.on(FolderMemo()).to_bytes(FACTS), FACTS)
    for one in (memo, memo.on(FolderMemo()), again):
        assert [one.find(name, STATUS) for name in NAMES] == KEYS
        assert one.find("b.wav", STATUS) is None
        assert one.find("a.wav", None) is None
        for place in range(4):
            other = [*STATUS]
            other[place] += 1
            assert one.find("a.wav", tuple(other)) is None
    assert len(memo.on(FolderMemo()).to_bytes(FACTS)) == 16 + len(json.dumps(FACTS)) + 1 + 64 * 103


def test_of_two_memos_the_later_word_holds() -> None:
    mine, theirs = FolderMemo().on(filled()), FolderMemo()
    mine.remember("a.wav", (1, 2, 3, 4), "ab" * 16)
    mine.remember("new.wav", STATUS, "cd" * 16)
    theirs.remember("a.wav", STATUS, "ef" * 16)
    theirs.remember("theirs.wav", STATUS, "ef" * 16)
    both = mine.on(theirs)
    assert both.find("a.wav", (1, 2, 3, 4)) == "ab" * 16
    assert both.find("a.wav", STATUS) is None
    assert both.find("new.wav", STATUS) == "cd" * 16
    assert both.find("theirs.wav", STATUS) == "ef" * 16
    assert both.find(NAMES[5], STATUS) == KEYS[5]


def test_a_memo_of_another_decoding_is_empty_and_a_damaged_one_refused() -> None:
    content = FolderMemo().on(filled()).to_bytes(FACTS)
    assert FolderMemo.from_bytes(content, {**FACTS, "decoding": 3}).find("a.wav", STATUS) is None
    for damaged in (content[:-1], content + b"0", b"x" + content[1:], b""):
        with pytest.raises(ValueError, match="checksum|substring|subsection"):
            FolderMemo.from_bytes(damaged, FACTS)
