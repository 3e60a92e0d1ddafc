"""Makes files that nobody's save_model would write, out of a saved model."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import load_model

X = np.random.default_rng(0).normal(size=(60, 4))
# A schema is nodes: dictionaries with a loader, a type and a content.
Node = dict[str, Any]


def sign(path: Path) -> None:
    """Make the card fit a changed model, as whoever changes one would."""
    card = json.loads(path.with_suffix(".json").read_text())
    card["model_digest"] = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    if (tensors := path.with_suffix(".safetensors")).exists():
        card["tensors_digest"] = hashlib.blake2b(tensors.read_bytes(), digest_size=16).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card))


def read_members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path: Path, members: Mapping[str, bytes], compression: int = 0) -> None:
    """Write the archive anew, and sign it."""
    with zipfile.ZipFile(path, "w", compression=compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    sign(path)


def change_schema(path: Path, change: Callable[[Node], Any]) -> None:
    """Let a function change the schema in place, or return another one."""
    members = read_members(path)
    schema = json.loads(members["schema.json"])
    schema = change(schema) or schema
    members["schema.json"] = json.dumps(schema).encode()
    write_members(path, members)


def nodes(schema: Any) -> Iterator[Node]:
    """Go over all nodes."""
    if isinstance(schema, dict):
        if "__loader__" in schema:
            yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


def first_node(schema: Node, kind: str) -> Node:
    """Return the first object of a class."""
    return next(node for node in nodes(schema) if node["__class__"] == kind)


def first_attributes(schema: Node, kind: str) -> dict[str, Node]:
    return first_node(schema, kind)["content"]["content"]


def set_attribute(path: Path, kind: str, name: str, value: object) -> None:
    """Give the first object of a class another value: a node, an array, or a plain value."""
    _change_attribute(path, kind, name, value, is_new=False)


def add_attribute(path: Path, kind: str, name: str, value: object) -> None:
    """Give the first object of a class an attribute that it does not have."""
    _change_attribute(path, kind, name, value, is_new=True)


def _change_attribute(path: Path, kind: str, name: str, value: object, *, is_new: bool) -> None:
    members = read_members(path)
    schema = json.loads(members["schema.json"])
    new = node_for(value, members)
    # Numbers tell one object from another: each of the new ones has its own.
    largest = max(old["__id__"] for old in nodes(schema))
    for number, inner in enumerate(nodes(new)):
        inner["__id__"] = largest + 1 + number
    for found in nodes(schema):  # one object may be written in several places
        if found["__class__"] == kind and (name in found["content"]["content"]) != is_new:
            found["content"]["content"][name] = new
            break
    else:
        raise AssertionError(f"no {kind} {'lacks' if is_new else 'has'} {name}")
    if is_new:
        keys = found["content"]["key_types"]["content"]
        keys.append({**node("TypeNode", "builtins.str"), "__id__": largest + 10**6})
    members["schema.json"] = json.dumps(schema).encode()
    write_members(path, members)


def node_for(value: object, members: dict[str, bytes]) -> Node:
    if isinstance(value, dict) and "__loader__" in value:
        return value
    if isinstance(value, np.ndarray):
        buffer = io.BytesIO()
        np.save(buffer, value)
        name = f"changed-{len(members)}.npy"
        members[name] = buffer.getvalue()
        return {**node("NdArrayNode", "numpy.ndarray"), "type": "numpy", "file": name}
    return {**node("JsonNode", "builtins.str"), "content": json.dumps(value), "is_json": True}


def node(loader: str, name: str, content: object = None) -> Node:
    module, _, kind = name.rpartition(".")
    made: Node = {"__loader__": loader, "__module__": module, "__class__": kind, "__id__": 10**9}
    return made if content is None else {**made, "content": content}


def array_with_header(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    """Return an array's header that promises more than follows."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def refusal(path: Path, **options: Any) -> str:
    """Return the message with which a model is refused; it names the file."""
    with pytest.raises(ModelFileError) as caught:
        load_model(path, **options)
    assert str(path.parent) in str(caught.value)
    return str(caught.value)


def laughs(schema: Node) -> None:
    """Let each list hold the last one ten times by its number."""
    inner = {**node("ListNode", "builtins.list", []), "__id__": 3 * 10**9}
    for number in range(25):
        again = {**node("ListNode", "builtins.list", []), "__id__": inner["__id__"]}
        inner = {**node("ListNode", "builtins.list", [inner, *[again] * 9])}
        inner["__id__"] = 3 * 10**9 + 1 + number
    first_attributes(schema, "Stacker")["meta"] = inner
