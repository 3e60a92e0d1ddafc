"""Checks the description in a saved model, ``schema.json``.

The description is a tree of nodes.  Each node names a loader, which is a piece of skops that builds
something, and the type that it builds.  One table says which loader may build which types;
everything else is refused by its name.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xacle_stack.errors import ModelFileError
from xacle_stack.model_file.saved_types import LARGE_ARRAYS, OWN_TYPES, SCIKIT_LEARN_TYPES

_ARRAY_TYPES = frozenset(
    f"numpy.{name}"
    for name in (
        *("ndarray", "bool_", "bool", "str_", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)
_KEY_TYPES = frozenset({"builtins.str", "builtins.int"})
# The loaders of a dictionary's keys have names of their own here, so that no other object can share
# a number with them.
_KEYS_LOADER, _KEY_LOADER = "ListNode of keys", "TypeNode of a key"
# scikit-learn prints this text in a warning when it comes from another release.
_VERSION_NAME, _VERSION = "_sklearn_version", re.compile(r'"[\w.+-]{1,40}"', re.ASCII)
# How deep nodes may nest; models of this library need a third of that.
MAX_DEPTH = 64
# Whole numbers in a setting must fit into 64 bits.
_MAX_INTEGER = 2**64
# The size of all arrays, each counted as often as the model refers to it, divided by the size of
# the file.  A prediction may go over an array once for each reference.
MAX_REPEATS = 16


@dataclass
class ArchiveTypes:
    """The types that an archive asks for, and how many objects of one of them."""

    accepted: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    n_large_arrays: int = 0


def types_in(
    schema: object, arrays: Mapping[str, int], size: int, trusted: frozenset[str]
) -> ArchiveTypes:
    """Check the nodes of a schema, and return the types that it asks for.

    `arrays` has the size in bytes of each array in the archive.  The rest is as of
    :func:`~xacle_stack.model_file.archive.archive_types`.
    """
    return _Schema(arrays, size, trusted).check(schema)


@dataclass
class _Content:
    """What skops builds for the node of one number, with everything in it."""

    kind: tuple[object, ...]
    n_objects: int = 0
    n_bytes: int = 0
    is_complete: bool = False


class _Schema:
    """Checks the nodes of a schema.

    When a node repeats an ``__id__``, skops takes the first node of that number in its place,
    whatever else the node says.  An honest file has the whole object again in such a node.  So the
    objects that would be built are counted, and must be no more than those that are written.  Both
    nodes must also be of one type: else a type of keys, an array or a list could stand where
    something else was checked.
    """

    def __init__(self, arrays: Mapping[str, int], size: int, trusted: frozenset[str]) -> None:
        self._arrays = arrays
        self._trusted = trusted
        self._size = size
        self._contents: dict[int, _Content] = {}
        # The number of the object that each array of the archive is read for.
        self._readers: dict[str, int] = {}
        self._n_written = 0
        self._types = ArchiveTypes()
        self._loaders: dict[str, tuple[frozenset[str], Callable[[Any], Iterator[Any]]]] = {
            "DictNode": (
                frozenset({"builtins.dict", "collections.OrderedDict"}),
                self._dict_children,
            ),
            _KEYS_LOADER: (frozenset({"builtins.list"}), self._list_children),
            _KEY_LOADER: (_KEY_TYPES, lambda _: iter(())),
            "ListNode": (frozenset({"builtins.list"}), self._list_children),
            "TupleNode": (frozenset({"builtins.tuple"}), self._list_children),
            "SliceNode": (frozenset({"builtins.slice"}), self._slice_children),
            "JsonNode": (frozenset({"builtins.str"}), self._json_children),
            "NdArrayNode": (_ARRAY_TYPES, self._array_children),
            "ObjectNode": (
                OWN_TYPES | SCIKIT_LEARN_TYPES | {LARGE_ARRAYS} | trusted,
                self._object_children,
            ),
            # These build what their node names, so the caller must have trusted that name.
            "FunctionNode": (trusted, lambda _: iter(())),
            "TreeNode": (trusted & {"sklearn.tree._tree.Tree"}, self._tree_children),
        }

    def check(self, schema: object) -> ArchiveTypes:
        """Check all nodes."""
        built = self._check(schema, 1, is_built=True)
        if built.n_objects > self._n_written:
            raise ModelFileError(
                f"schema.json has {self._n_written} objects, of which {built.n_objects} would be "
                "built"
            )
        if built.n_bytes > MAX_REPEATS * self._size:
            raise ModelFileError(
                f"its arrays are referred to so often that they have {built.n_bytes} bytes, the "
                f"file has {self._size}"
            )
        return self._types

    def _check(self, node: Any, depth: int, *, is_built: bool) -> _Content:
        """Check a node and those in it, and return what skops builds for it."""
        if depth > MAX_DEPTH:
            raise ModelFileError(f"schema.json nests deeper than {MAX_DEPTH} objects")
        self._n_written += 1
        name, loader, number = _type_name(node), str(node.get("__loader__")), node.get("__id__")
        accepted, children = self._loaders.get(loader, (frozenset(), None))
        kind = (loader, name, node.get("content")) if loader == "JsonNode" else (loader, name)
        content = _Content(kind, n_objects=1)
        if children is None:
            self._types.refused.add(f"{name} ({loader})")
            return content
        if name not in accepted:
            self._types.refused.add(name if loader != _KEY_LOADER else f"{name} (TypeNode)")
        elif loader != _KEY_LOADER:
            self._types.accepted.add(name)
        # skops does not remember an object of the number 0, and would build it again each time.
        if type(number) is not int or number < 1:
            raise ModelFileError(
                f"schema.json has an object of the number {number!r}, expected 1 or more"
            )
        first = self._contents.get(number)
        if first is not None and not first.is_complete and is_built:
            raise ModelFileError(f"schema.json has an object within itself, of the number {number}")
        if first is not None and first.kind != content.kind:
            raise ModelFileError(
                f"schema.json has two objects of the number {number} that are not the same: "
                f"{first.kind[1]} ({first.kind[0]}) and {name} ({loader})"
            )
        is_first = is_built and first is None
        if is_first:
            self._contents[number] = content
            self._types.n_large_arrays += name == LARGE_ARRAYS
        if loader == "NdArrayNode" and node.get("type") == "numpy":
            content.n_bytes = self._array_bytes(node, number)
        for child in children(node):
            inner = self._check(child, depth + 1, is_built=is_first)
            content.n_objects += inner.n_objects
            content.n_bytes += inner.n_bytes
        content.is_complete = True
        return first or content

    def _array_bytes(self, node: Any, number: int) -> int:
        """Return an array's size; another object that reads it would be a copy, and is refused."""
        name = node.get("file")
        if name not in self._arrays:
            raise ModelFileError(f"there is no array {name!r} in it")
        if self._readers.setdefault(name, number) != number:
            raise ModelFileError(f"its array {name!r} is read for two objects")
        return self._arrays[name]

    def _dict_children(self, node: Any) -> Iterator[Any]:
        content, keys = node.get("content"), node.get("key_types")
        if not isinstance(content, dict) or _type_name(keys) != "builtins.list":
            raise ModelFileError("schema.json has a dict without keys")
        types = keys.get("content")
        if keys.get("__loader__") != "ListNode" or not isinstance(types, list):
            raise ModelFileError("schema.json has a dict without keys")
        if len(types) != len(content):
            raise ModelFileError(
                f"schema.json has a dict of {len(content)} values for {len(types)} keys"
            )
        for key in types:
            name = _type_name(key)
            if key.get("__loader__") != "TypeNode":
                self._types.refused.add(f"{name} ({key.get('__loader__')})")
        version = content.get(_VERSION_NAME)
        if version is not None and not (
            isinstance(version, dict) and _VERSION.fullmatch(str(version.get("content")))
        ):
            raise ModelFileError(f"schema.json has a {_VERSION_NAME} that is no version")
        yield {
            **keys,
            "__loader__": _KEYS_LOADER,
            "content": [{**key, "__loader__": _KEY_LOADER} for key in types],
        }
        yield from content.values()

    def _list_children(self, node: Any) -> Iterator[Any]:
        if not isinstance(node.get("content"), list):
            raise ModelFileError("schema.json has a list without items")
        yield from node["content"]

    def _slice_children(self, node: Any) -> Iterator[Any]:
        ends = node.get("content")
        if not isinstance(ends, dict) or set(ends) != {"start", "stop", "step"}:
            raise ModelFileError("schema.json has a slice without start, stop and step")
        if not all(
            end is None or (type(end) is int and abs(end) < _MAX_INTEGER) for end in ends.values()
        ):
            raise ModelFileError(f"schema.json has the slice {str(ends)[:80]}")
        return iter(())

    def _json_children(self, node: Any) -> Iterator[Any]:
        try:
            value = json.loads(node.get("content"))
        except (TypeError, ValueError, RecursionError):
            value = node
        if not (value is None or isinstance(value, str | int | float)):
            raise ModelFileError("schema.json has a value that is no text and no number")
        if isinstance(value, int) and abs(value) >= _MAX_INTEGER:
            raise ModelFileError(
                f"schema.json has the number {str(value)[:20]}..., of over 64 bits"
            )
        return iter(())

    def _array_children(self, node: Any) -> Iterator[Any]:
        if node.get("type") == "numpy":
            return
        # The names of columns are an array of objects, which skops writes as a list.
        if node.get("type") != "json" or _type_name(node) != "numpy.ndarray":
            raise ModelFileError(f"schema.json has an array of the kind {node.get('type')!r}")
        for item in node.get("content") or ():
            if _type_name(item) != "builtins.str" or item.get("__loader__") != "JsonNode":
                raise ModelFileError("schema.json has an array of objects that are no text")
        yield from node.get("content") or ()
        shape = node.get("shape")
        if _type_name(shape) != "builtins.tuple":
            raise ModelFileError("schema.json has an array without a shape")
        yield shape

    def _object_children(self, node: Any) -> Iterator[Any]:
        state = node.get("content")
        if state is None:
            return
        if _type_name(node) not in self._trusted and _type_name(state) != "builtins.dict":
            raise ModelFileError(f"schema.json has a {_type_name(node)} without attributes")
        yield state

    def _tree_children(self, node: Any) -> Iterator[Any]:
        yield node["content"]
        yield node["__reduce__"]["args"]


def _type_name(node: Any) -> str:
    if not isinstance(node, dict):
        raise ModelFileError(f"schema.json has {str(node)[:40]!r} where an object should be")
    return f"{node.get('__module__')}.{node.get('__class__')}"
