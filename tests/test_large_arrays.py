"""Large arrays are a dict of arrays to an estimator, a pickle and a copy."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone

from xacle_stack._large_arrays import LargeArrays
from xacle_stack.errors import ModelFileError
from xacle_stack.stacking import GroupedRidge


def test_they_are_a_mapping_of_the_arrays_themselves() -> None:
    arrays = {"b": np.ones((2, 3), dtype=np.float16), "a": np.array(7)}
    large = LargeArrays(arrays)
    assert dict(large) == arrays
    assert list(large) == ["b", "a"]
    assert large["b"] is arrays["b"]
    assert "c" not in large
    with pytest.raises(KeyError):
        large["c"]
    assert large.n_bytes == 12 + 8
    assert repr(large) == "<LargeArrays: 2 arrays, 20 bytes>"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": [1.0]}, "expected NumPy arrays, got a list"),
        ({"a": np.array(["x"])}, "'a' is of type str32 .* expected a name, one of float16"),
        ({"a": np.array([None])}, "'a' is of type object"),
        ({"a": np.ones(2, dtype=complex)}, "'a' is of type complex128"),
        ({"a": np.ones((3, 0))}, r"'a' is .* shape \(3, 0\), expected .* no length of zero"),
        ({1: np.ones(3)}, "1 is .* expected a name"),
    ],
)
def test_what_cannot_be_saved_is_refused(arrays: dict, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        LargeArrays(arrays)


def test_pickles_and_deep_copies_hold_the_numbers() -> None:
    large = LargeArrays({"a": np.arange(6.0).reshape(2, 3)})
    for again in (pickle.loads(pickle.dumps(large)), copy.deepcopy(large)):
        np.testing.assert_array_equal(again["a"], large["a"])
        again["a"][:] = 0
    assert large["a"].sum() == 15


def test_a_clone_of_an_estimator_has_none() -> None:
    ridge = GroupedRidge(n_splits=4)
    ridge.weights_ = LargeArrays({"a": np.ones(3)})
    assert vars(clone(ridge)) == vars(GroupedRidge(n_splits=4))


def test_an_archive_has_names_types_and_lengths_and_says_where_the_numbers_are() -> None:
    large = LargeArrays({"a": np.ones((2, 3), dtype=np.int32)})
    assert large.__getstate__() == {"arrays": {"a": ["int32", 2, 3]}}
    empty = LargeArrays.__new__(LargeArrays)
    empty.__setstate__(large.__getstate__())
    assert empty.kinds() == large.kinds()
    with pytest.raises(ModelFileError, match=r"NAME\.safetensors .* Scorer\.load"):
        empty["a"]
    with pytest.raises(ModelFileError, match="not those that the model lists"):
        empty.give({"a": np.ones((2, 3))})
    empty.give(large)
    assert empty["a"] is large["a"]


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"arrays": []},
        {"arrays": {"a": ["float32", 2]}, "more": 1},
        {"arrays": {"a": ["float32", -1]}},
        {"arrays": {"a": ["float32", True]}},
        {"arrays": {"a": ["float32", 2.0]}},
        {"arrays": {"a": ["object", 2]}},
        {"arrays": {"a": [["float32"], 2]}},
        {"arrays": {"a": "float32"}},
    ],
)
def test_a_state_that_nobody_saved_is_refused(state: dict) -> None:
    with pytest.raises(ModelFileError):
        LargeArrays.__new__(LargeArrays).__setstate__(state)
