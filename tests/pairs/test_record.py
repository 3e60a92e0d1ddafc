import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xacle_stack.audio import SampleSource
from xacle_stack.cache import FeatureCache
from xacle_stack.errors import CacheError, PairsError
from xacle_stack.pairs import Pairs, Ratings, record


def given(**changed: Any) -> Pairs:
    fields = {
        "split": "test",
        "ids": ["a", "b"],
        "audio": ["a.wav", Path("b.wav")],
        "captions": ["rain", "wind"],
        "scores": [0, 10],
        "ratings": Ratings(["a"], ["x"], [3]),
    }
    return Pairs(**{**fields, **changed})


def test_lists_and_text_paths_become_what_read_pairs_gives() -> None:
    pairs = given()
    assert (pairs.ids, pairs.captions) == (("a", "b"), ("rain", "wind"))
    assert pairs.audio == (Path("a.wav"), Path("b.wav"))
    assert pairs.scores is not None
    assert (pairs.scores.dtype, pairs.scores.tolist()) == (np.float64, [0, 10])
    assert pairs.ratings is not None
    assert (pairs.ratings.pair_ids, pairs.ratings.listener_ids) == (("a",), ("x",))
    assert replace(pairs, split="train").ids == pairs.ids


def test_columns_of_a_data_frame_will_do() -> None:
    frame = pd.DataFrame({"text": ["rain", "wind"], "score": [1, 2.5]}, index=[7, 3])
    pairs = given(captions=frame["text"], scores=frame["score"], ids=np.array(["a", "b"]))
    assert pairs.captions == ("rain", "wind")
    assert pairs.scores is not None
    assert pairs.scores.tolist() == [1, 2.5]
    assert {type(text) for text in (*pairs.ids, *pairs.captions)} == {str}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"split": None}, "split: None; expected a name"),
    ({"ids": "ab"}, "ids: expected a sequence of str, got 'ab'"),
    ({"ids": ["a", 7]}, "ids, row 1: 7 is not a text; expected a str"),
    ({"ids": ["b", "b"]}, "ids, row 1: 'b'"),
    ({"ids": ["a", ""]}, "ids, row 1: '' is empty"),
    ({"captions": ["rain", 42]}, "captions, row 1: 42 is not a text"),
    ({"captions": [float("nan"), "wind"]}, "captions, row 0: nan is not a text"),
    ({"captions": ["rain", None]}, "captions, row 1: None is not a text"),
    ({"captions": ["rain", " \t"]}, r"captions, row 1: ' \t' is empty"),
    ({"captions": ["rain", "\udce9"]}, r"captions, row 1: '\udce9' is not UTF-8"),
    ({"captions": ["rain"]}, "captions: 1 value(s), but ids has 2; expected as many"),
    ({"captions": ()}, "captions: 0 value(s), but ids has 2; expected as many"),
    ({"captions": None}, "captions: expected a sequence of str, got None"),
    ({"audio": ["a.wav"]}, "audio: 1 value(s), but ids has 2"),
    ({"audio": "a.wav"}, "audio: expected a sequence of paths, got 'a.wav'"),
    ({"audio": ["a.wav", 3]}, "audio, row 1: 3 is not the path of a file"),
    ({"audio": ["a.wav", ""]}, "audio, row 1: '' is not the path of a file"),
    ({"audio": ["a.wav", "b\0"]}, r"audio, row 1: 'b\x00' is not the path of a file"),
    ({"scores": [1, float("nan")]}, "scores, row 1: nan; expected a number from 0 to 10"),
    ({"scores": [-0.1, 3]}, "scores, row 0: -0.1; expected a number from 0 to 10"),
    ({"scores": [1, 10.5]}, "scores, row 1: 10.5; expected a number from 0 to 10"),
    ({"scores": [1, None]}, "scores, row 1: None; expected a number from 0 to 10"),
    ({"scores": ["1", "2"]}, "scores: expected numbers, got ['1', '2']"),
    ({"scores": [True, False]}, "scores: expected numbers, got [True, False]"),
    ({"scores": [[1], [2, 3]]}, "scores: expected numbers, got [[1], [2, 3]]"),
    ({"scores": 5}, "scores: an array of shape () for 2 pairs"),
    ({"scores": [1, 2, 3]}, "scores: an array of shape (3,) for 2 pairs"),
    ({"ratings": [3]}, "ratings: expected Ratings or None, got [3]"),
    ({"ratings": Ratings(["a", "c"], ["x", "y"], [1, 2])}, "row 1: 'c'"),
]


@pytest.mark.parametrize(("changed", "message"), MISTAKES)
def test_a_mistake_names_its_field_and_row(changed: dict[str, Any], message: str) -> None:
    changed = {"ratings": None, **changed}
    with pytest.raises(PairsError) as caught:
        given(**changed)
    assert message in str(caught.value)


def test_mistakes_of_all_fields_are_told_at_once() -> None:
    with pytest.raises(PairsError, match=r"split 'test': 3 mistake\(s\)"):
        given(captions=["rain", 1], scores=[11, 2], audio=["a.wav"])


def test_ratings_are_checked_likewise() -> None:
    with pytest.raises(PairsError, match=r"Ratings: 3 mistake\(s\)") as caught:
        Ratings(["a", "b"], [4], [1, np.inf])
    for part in (
        "listener_ids, row 0: 4 is not a text",
        "1 value(s), but pair_ids has 2",
        "row 1: inf",
    ):
        assert part in str(caught.value)


def test_a_row_may_be_taken_twice() -> None:
    taken = given().take([1, 1])
    assert (taken.ids, taken.captions) == (("b", "b"), ("wind", "wind"))
    assert taken.scores is not None
    assert taken.scores.tolist() == [10, 10]


def test_repr_says_what_there_is() -> None:
    assert repr(given(scores=None)) == "Pairs('test', 2 pairs, no scores, 1 ratings)"


def test_pairs_of_a_reloaded_module_are_pairs(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("record_again", record.__file__)
    assert spec is not None
    assert spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    sys.modules["record_again"] = again
    try:
        spec.loader.exec_module(again)
    finally:
        del sys.modules["record_again"]
    pairs = again.Pairs("test", ["a"], [], ["rain"], None, Ratings(["a"], ["x"], [3]))
    assert not isinstance(pairs, Pairs)
    with pytest.raises(CacheError, match="cache"):  # the next check
        FeatureCache(tmp_path).load(pairs)
    with pytest.raises(CacheError, match=r"read_pairs.* list\b"):
        FeatureCache(tmp_path).load(["a"])


def test_columns_and_sounds_in_memory_follow_their_pairs() -> None:
    hum = SampleSource(np.sin(np.arange(800)), 8000, name="hum")
    pairs = given(audio=["a.wav", hum], columns={"system": ["A", "B"], "n": [1, None]})
    part = pairs.take([1])
    assert part.audio == (hum,)
    assert part.columns == {"system": ("B",), "n": (None,)}
    assert str(hum) == "hum"


def test_columns_have_a_value_for_each_pair() -> None:
    with pytest.raises(PairsError, match=r"column 'system': 1 value\(s\), but ids has 2"):
        given(columns={"system": ["A"]})
    with pytest.raises(PairsError, match="columns: expected a mapping"):
        given(columns=["system"])
