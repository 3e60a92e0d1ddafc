"""The nodes of a model's description: what skops would not have written is refused."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_models import (
    Node,
    change_schema,
    first_attributes,
    first_node,
    laughs,
    node,
    node_for,
    refusal,
    set_attribute,
)

from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import load_model, save_model


def partial_call(members: dict[str, bytes]) -> Node:
    """Return a functools.partial that says it is a type of this library."""
    text = {name: node_for(value, members) for name, value in {"a": 1}.items()}
    keys = node("ListNode", "builtins.list", [node("TypeNode", "builtins.str")])
    kwds = {**node("DictNode", "builtins.dict", text), "key_types": keys}
    parts = {"func": node("TypeNode", "builtins.str"), "kwds": kwds, "namespace": kwds}
    args = node("TupleNode", "builtins.tuple", [])
    own = "xacle_stack.stacking.ridge.GroupedRidge"
    return node("PartialNode", own, {**parts, "args": args})


@pytest.mark.parametrize(
    ("smuggled", "message"),
    [
        (partial_call({}), r"xacle_stack.stacking.ridge.GroupedRidge \(PartialNode\)"),
        (
            {**node("OperatorFuncNode", "operator.methodcaller"), "attrs": {}},
            r"operator.methodcaller \(OperatorFuncNode\)",
        ),
        (node("FunctionNode", "numpy.load"), "numpy.load"),
        (node("FunctionNode", "xacle_stack.stacking.ridge.GroupedRidge"), "GroupedRidge"),
        (node("TreeNode", "xacle_stack.stacking.ridge.GroupedRidge", {}), "GroupedRidge|KeyError"),
        (node("TypeNode", "builtins.str"), r"builtins.str \(TypeNode\)"),
        (node("CachedNode", "builtins.list"), r"builtins.list \(CachedNode\)"),
        (
            node("ConstructorFromReduceNode", "xacle_stack.stacking.ridge.GroupedRidge", {}),
            r"GroupedRidge \(ConstructorFromReduceNode\)",
        ),
        (
            node("MethodNode", "xacle_stack.stacking.ridge.GroupedRidge", {"func": "fit"}),
            r"\(MethodNode\)",
        ),
        (node("ObjectNode", "sklearn.dummy.DummyClassifier"), "sklearn.dummy.DummyClassifier"),
        (node("ListNode", "builtins.map", []), "builtins.map"),
        (node("ObjectNode", "os.\x1b[2Jsystem"), r"os.\\x1b\[2Jsystem"),
        ({**node("BytesNode", "builtins.bytes"), "file": "1.npy"}, r"builtins.bytes \(BytesNode\)"),
    ],
)
def test_a_loader_that_needs_no_type_of_its_name_is_refused(
    saved: Path, smuggled: Node, message: str
) -> None:
    set_attribute(saved, "Stacker", "meta", smuggled)
    with pytest.raises(ModelFileError, match=f"(?s)refused.*was run.*{message}"):
        load_model(saved)


def keys_that_call(schema: Node) -> None:
    attributes = first_node(schema, "Stacker")["content"]
    attributes["key_types"]["content"][0] = node("TypeNode", "builtins.list")


def fewer_keys(schema: Node) -> None:
    first_node(schema, "Stacker")["content"]["key_types"]["content"].pop()


def endless(schema: Node) -> None:
    first_attributes(schema, "Stacker")["meta"] = node("ListNode", "builtins.list", [])
    first_attributes(schema, "Stacker")["meta"]["__id__"] = schema["__id__"]


def deep(schema: Node) -> None:
    inner = node("ListNode", "builtins.list", [])
    for number in range(80):
        inner = {**node("ListNode", "builtins.list", [inner]), "__id__": 2 * 10**9 + number}
    first_attributes(schema, "Stacker")["meta"] = inner


def nested_text(schema: Node) -> None:
    first_attributes(schema, "Stacker")["preset"]["content"] = "[" * 100_000


def containers_as_text(schema: Node) -> None:
    first_attributes(schema, "Stacker")["preset"]["content"] = "[1, 2]"


def odd_slice(schema: Node) -> None:
    first_node(schema, "slice")["content"]["start"] = {"a": 1}


def no_number(schema: Node) -> None:
    """Write a list that skops does not know again: what is in the second is built as well."""
    lists = [node("ListNode", "builtins.list", []) for _ in range(2)]
    for one in lists:
        one["__id__"] = 0
    first_attributes(schema, "Stacker")["meta"] = node("ListNode", "builtins.list", lists)


def a_type_as_a_value(schema: Node) -> None:
    state = first_node(schema, "Stacker")["content"]
    state["content"]["meta"]["__id__"] = state["key_types"]["content"][0]["__id__"]


def a_list_as_keys(schema: Node) -> None:
    state = first_node(schema, "Stacker")["content"]
    values = [node_for(name, {}) for name in "abc"]
    for number, value in enumerate(values):
        value["__id__"] = 4 * 10**9 + number
    state["content"]["meta"] = node("ListNode", "builtins.list", values)
    state["content"]["meta"]["__id__"] = state["key_types"]["__id__"]


def an_object_as_text(schema: Node) -> None:
    """Write an array of text whose item stands for a stack, of which nobody checks anything."""
    item = {**node_for("text", {}), "__id__": first_node(schema, "BoostedTrees")["__id__"]}
    shape = {**node("TupleNode", "builtins.tuple", []), "__id__": 5 * 10**9}
    hidden = {**node("NdArrayNode", "numpy.ndarray", [item]), "type": "json", "shape": shape}
    first_attributes(schema, "Stacker")["z"] = hidden
    state = first_node(schema, "Stacker")["content"]
    state["key_types"]["content"].append(state["key_types"]["content"][0])


def other_text(schema: Node) -> None:
    values = first_attributes(schema, "Stacker")
    values["target"]["__id__"] = values["preset"]["__id__"]


def attributes_in_a_list(schema: Node) -> None:
    first_node(schema, "Stacker")["content"] = node("ListNode", "builtins.list", [])


def huge_number(schema: Node) -> None:
    first_attributes(schema, "Stacker")["meta"] = {**node_for(0, {}), "content": "1" * 4000}


def huge_slice(schema: Node) -> None:
    first_node(schema, "slice")["content"]["stop"] = 10**30


def a_version_that_is_none(schema: Node) -> None:
    changed = {**node_for("\x1b[2J", {}), "__id__": 6 * 10**9}
    state = first_node(schema, "Stacker")["content"]
    state["content"]["_sklearn_version"] = changed
    state["key_types"]["content"].append(state["key_types"]["content"][0])


def an_array_for_two(schema: Node) -> None:
    array = {**first_node(schema, "ndarray"), "__id__": 7 * 10**9}
    first_attributes(schema, "Stacker")["meta"] = array


def other_protocol(schema: Node) -> None:
    schema["protocol"] = 0


def no_such_array(schema: Node) -> None:
    first_node(schema, "ndarray")["file"] = "../../etc/passwd"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (keys_that_call, r"builtins.list \(TypeNode\)"),
        (fewer_keys, r"a dict of \d+ values for \d+ keys"),
        (endless, "within itself"),
        (deep, "nests deeper than 64 objects"),
        (laughs, r"schema.json .*\d+ objects, .* \d{5,} "),
        (nested_text, "value that is no text and no number"),
        (containers_as_text, "value that is no text and no number"),
        (odd_slice, "schema.json .*slice"),
        (no_number, "number 0"),
        (a_type_as_a_value, r"number .* builtins\.str"),
        (a_list_as_keys, r"number .* builtins\.list"),
        (an_object_as_text, r"number .*BoostedTrees.* builtins\.str"),
        (other_text, "number .* not the same"),
        (attributes_in_a_list, "Stacker without attributes"),
        (huge_number, r"the number 1111.*\.\.\., of over 64 bits"),
        (huge_slice, r"the slice .*10000"),
        (a_version_that_is_none, "_sklearn_version"),
        (an_array_for_two, r"'\d+.npy'.* two objects"),
        (other_protocol, "the protocol 0, expected 2 or more"),
        (no_such_array, "'../../etc/passwd'"),
        (lambda schema: [1, 2], "the protocol None"),
        (lambda schema: {**schema, "content": 3}, r"schema\.json .*'3'.* object"),
    ],
)
def test_a_schema_that_skops_does_not_write_is_refused(
    saved: Path, change: Callable[[Node], object], message: str
) -> None:
    change_schema(saved, change)
    with pytest.raises(ModelFileError, match=f"(?s){message}"):
        load_model(saved)


def test_an_array_that_is_referred_to_very_often_is_refused(tmp_path: Path) -> None:
    """Each reference costs a hundred bytes, and a prediction goes over the array each time."""
    array = np.zeros(10_000)
    path = save_model(tmp_path / "m.skops", [array] * 10)
    assert len({id(one) for one in load_model(path)}) == 1
    change_schema(path, lambda schema: schema["content"].extend(schema["content"] * 19))
    assert re.search(
        r"referred to so often that they have 16025600 bytes, the file has", refusal(path)
    )
