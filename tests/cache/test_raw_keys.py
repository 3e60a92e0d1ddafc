import numpy as np
import pytest

from xacle_stack.cache import text_key
from xacle_stack.cache.raw_keys import (
    distinct,
    first_of_runs,
    hex_keys,
    raw_keys,
    text_keys,
)

# Keys that end and begin with zero bytes, which NumPy leaves out of texts.
EDGES = ["0" * 32, "ab" * 15 + "00", "00" * 15 + "ab", "f" * 32, "f" * 16 + "0" * 16]
CAPTIONS = ["a dog", "Ä😀", *map(str, range(200))]


def test_keys_are_those_of_the_digits_in_the_same_order() -> None:
    digits = [*EDGES, *map(text_key, CAPTIONS)]
    keys = raw_keys(digits)
    assert keys.nbytes == 16 * len(digits)
    assert hex_keys(keys) == digits
    assert hex_keys(np.sort(keys)) == sorted(digits)
    assert hex_keys(raw_keys(np.array(digits, dtype="S32"))) == digits
    assert hex_keys(text_keys(CAPTIONS)) == [text_key(caption) for caption in CAPTIONS]
    assert hex_keys(raw_keys([])) == hex_keys(text_keys([])) == []


@pytest.mark.parametrize("digits", ["A" * 32, "a" * 31, "g" + "0" * 31, "-" + "1" * 31])
def test_other_characters_are_refused(digits: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        raw_keys([digits])


def test_distinct_keys_are_sorted_and_there_once() -> None:
    keys = raw_keys([*EDGES, *EDGES[::-1], EDGES[0]])
    assert hex_keys(distinct(keys)) == sorted(EDGES)
    assert first_of_runs(raw_keys([EDGES[0], EDGES[0], EDGES[1]])).tolist() == [True, False, True]
    assert len(distinct(raw_keys([]))) == 0
