"""What a saved model may contain, checked before anything of it is built.

A ``.skops`` file is a zip archive of arrays and of ``schema.json``, a tree of nodes: each names a
loader, which is a piece of skops that builds something, and the type that it builds.  Here every
node is held against one table of loaders and types, and every size against a limit; what is in no
table is refused by its name.
"""

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from xacle_stack.errors import ModelFileError

OWN_TYPES = frozenset(
    {
        "xacle_stack.features.sequences.SequenceColumns",
        "xacle_stack.features.spaces.SpaceColumns",
        "xacle_stack.features.builder.FeatureBuilder",
        "xacle_stack.listeners.model.ListenerModel",
        "xacle_stack.stacking.boosted_trees.BoostedTrees",
        "xacle_stack.stacking.calibration.MonotoneCalibration",
        "xacle_stack.stacking.compress.BlockPCA",
        "xacle_stack.stacking.fold_ridge.LinearModel",
        "xacle_stack.stacking.gaussian_process.BlockGaussianProcess",
        "xacle_stack.stacking.learners.FittedLearner",
        "xacle_stack.stacking.ridge.GroupedRidge",
        "xacle_stack.stacking.stacker.Stacker",
        "xacle_stack.systems.cosine.CosineRegressor",
        "xacle_stack.systems.gate.GatedRegressor",
        "xacle_stack.systems.lstm.LSTMRegressor",
        "xacle_stack.systems.projection_head.ProjectionHeadRegressor",
        "xacle_stack.systems.transformer.TransformerRegressor",
    }
)
# Reviewed: their `predict` and `transform` are NumPy's arithmetic on arrays of the file.  They open
# no file, and no compiled code takes an index from the file, as that of trees and neighbours does.
SCIKIT_LEARN_TYPES = frozenset(
    {
        "sklearn.compose._target.TransformedTargetRegressor",
        "sklearn.cross_decomposition._pls.PLSRegression",
        "sklearn.decomposition._pca.PCA",
        "sklearn.decomposition._truncated_svd.TruncatedSVD",
        "sklearn.linear_model._base.LinearRegression",
        "sklearn.linear_model._bayes.ARDRegression",
        "sklearn.linear_model._bayes.BayesianRidge",
        "sklearn.linear_model._coordinate_descent.ElasticNet",
        "sklearn.linear_model._coordinate_descent.ElasticNetCV",
        "sklearn.linear_model._coordinate_descent.Lasso",
        "sklearn.linear_model._coordinate_descent.LassoCV",
        "sklearn.linear_model._huber.HuberRegressor",
        "sklearn.linear_model._ridge.Ridge",
        "sklearn.linear_model._ridge.RidgeCV",
        "sklearn.linear_model._stochastic_gradient.SGDRegressor",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.MaxAbsScaler",
        "sklearn.preprocessing._data.MinMaxScaler",
        "sklearn.preprocessing._data.Normalizer",
        "sklearn.preprocessing._data.PowerTransformer",
        "sklearn.preprocessing._data.QuantileTransformer",
        "sklearn.preprocessing._data.RobustScaler",
        "sklearn.preprocessing._data.StandardScaler",
    }
)
_ARRAY_TYPES = frozenset(
    f"numpy.{name}"
    for name in (
        *("ndarray", "bool_", "bool", "str_", "float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
)
_KEY_TYPES = frozenset({"builtins.str", "builtins.int"})
# What a type of keys is counted as, once it is known to be one.
_KEY = {"__loader__": "JsonNode", "__module__": "builtins", "__class__": "str", "content": "0"}
# The format that skops has written since 0.12; its code for older ones knows fewer checks.
_LEAST_PROTOCOL = 2

# Nodes within nodes; models of this library have a third of that.
_MAX_DEPTH = 64
_MAX_SCHEMA_BYTES = 32 * 2**20
_MAX_DIRECTORY_BYTES = 4 * 2**20
# Of an array without numbers: lengths beside the one that is zero, which cost nothing in a file.
_MAX_EMPTY_LENGTH = 65_536
_END_SIGNATURE, _END_BYTES = b"PK\x05\x06", 22
_LOCATOR_SIGNATURE, _LOCATOR_BYTES = b"PK\x06\x07", 20
_ZIP64_SIGNATURE, _ZIP64_BYTES = b"PK\x06\x06", 56
_ENCRYPTED = 0x1


@dataclass
class ArchiveTypes:
    """The types that an archive asks for.

    Attributes
    ----------
    accepted, refused : set of str
    """

    accepted: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


def archive_types(file: IO[bytes], size: int, trusted: frozenset[str]) -> ArchiveTypes:
    """Check an archive's sizes, arrays and nodes, and return the types that it asks for.

    Parameters
    ----------
    file : binary file
        Seekable.
    size : int
        Its bytes.
    trusted : frozenset of str
        Types that the caller accepts beside those of this module.

    Returns
    -------
    types : ArchiveTypes

    Raises
    ------
    ModelFileError
        If it is no archive as this library writes them, or larger inside than outside.
    """
    _check_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        members = _checked_members(archive, size)
        for name, member in members.items():
            if name != "schema.json":
                _check_array(archive, member)
        try:
            schema = json.loads(archive.read("schema.json"))
        except RecursionError:
            raise ModelFileError(f"schema.json nests deeper than {_MAX_DEPTH} objects") from None
        protocol = schema.get("protocol") if isinstance(schema, dict) else None
        if type(protocol) is not int or protocol < _LEAST_PROTOCOL:
            raise ModelFileError(
                f"schema.json has the protocol {protocol!r}, expected {_LEAST_PROTOCOL} or more"
            )
        return _Schema(members, trusted).check(schema)


def _check_directory(file: IO[bytes], size: int) -> None:
    """Check the size of the archive's directory, which zipfile reads as a whole."""
    file.seek(max(0, size - _END_BYTES - _LOCATOR_BYTES - _ZIP64_BYTES))
    tail = file.read()
    end = tail[-_END_BYTES:]
    if len(end) < _END_BYTES or end[:4] != _END_SIGNATURE or end[-2:] != b"\0\0":
        raise ModelFileError("it does not end as a zip archive without a comment ends")
    n_bytes = int.from_bytes(end[12:16], "little")
    if tail[-_END_BYTES - _LOCATOR_BYTES :][:4] == _LOCATOR_SIGNATURE:  # more than 4 GB
        if tail[:4] != _ZIP64_SIGNATURE:
            raise ModelFileError("its directory's size is not where it should be")
        n_bytes = int.from_bytes(tail[40:48], "little")
    if n_bytes > _MAX_DIRECTORY_BYTES:
        raise ModelFileError(
            f"its directory has {n_bytes} bytes, expected {_MAX_DIRECTORY_BYTES} or fewer"
        )


def _checked_members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename
        if name in members:
            raise ModelFileError(f"it has two members called {name!r}")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
            raise ModelFileError(f"its member {name!r} is compressed or encrypted; none should be")
        if name != "schema.json" and not name.endswith(".npy"):
            raise ModelFileError(f"its member {name!r} is neither an array (.npy) nor schema.json")
        members[name] = member
    n_bytes = sum(member.file_size for member in members.values())
    if n_bytes > size:
        raise ModelFileError(f"its members have {n_bytes} bytes, the file has {size}")
    if "schema.json" not in members:
        raise ModelFileError("it has no schema.json")
    if members["schema.json"].file_size > _MAX_SCHEMA_BYTES:
        raise ModelFileError(
            f"its schema.json has {members['schema.json'].file_size} bytes, expected "
            f"{_MAX_SCHEMA_BYTES} or fewer"
        )
    return members


def _check_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that an array's header promises the bytes that follow it, and plain numbers or text."""
    npy: Any = np.lib.format  # typed in some releases of NumPy only
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ModelFileError(f"its array {member.filename!r} has the format {version}")
        shape, _, dtype = npy.read_array_header_1_0(file)
        n_header = file.tell()
    is_plain = dtype.kind in "fiubU" or (dtype.names and not dtype.hasobject)
    if not is_plain or dtype.shape:
        raise ModelFileError(
            f"its array {member.filename!r} is of type {dtype}, expected numbers or text"
        )
    n_bytes = n_header + math.prod(shape) * dtype.itemsize
    is_empty = 0 in shape and max(shape) > _MAX_EMPTY_LENGTH
    if min(shape, default=0) < 0 or is_empty or n_bytes != member.file_size:
        raise ModelFileError(
            f"its array {member.filename!r} has the shape {shape} of {dtype}, {n_bytes} bytes, but "
            f"there are {member.file_size}"
        )


class _Schema:
    """Goes over the nodes of a schema.

    A node that repeats an ``__id__`` stands for the first one of that number to skops, whatever
    else it says.  skops itself writes the whole object again.  So what is built is counted, and it
    has to be no more than what is written.
    """

    def __init__(self, members: Mapping[str, zipfile.ZipInfo], trusted: frozenset[str]) -> None:
        self._members = members
        self._trusted = trusted
        # Nodes that each number stands for; 0 while they are being counted.
        self._sizes: dict[int, int] = {}
        self._n_written = 0
        self._types = ArchiveTypes()
        self._loaders: dict[str, tuple[frozenset[str], Callable[[Any], Iterator[Any]]]] = {
            "DictNode": (
                frozenset({"builtins.dict", "collections.OrderedDict"}),
                self._children_of_dict,
            ),
            "ListNode": (frozenset({"builtins.list"}), self._children_of_list),
            "TupleNode": (frozenset({"builtins.tuple"}), self._children_of_list),
            "SliceNode": (frozenset({"builtins.slice"}), self._children_of_slice),
            "JsonNode": (frozenset({"builtins.str"}), self._children_of_json),
            "NdArrayNode": (_ARRAY_TYPES, self._children_of_array),
            "ObjectNode": (
                OWN_TYPES | SCIKIT_LEARN_TYPES | trusted,
                self._children_of_object,
            ),
            # They build what they are named after only where a caller trusts that name.
            "FunctionNode": (trusted, lambda _: iter(())),
            "TreeNode": (trusted & {"sklearn.tree._tree.Tree"}, self._children_of_tree),
        }

    def check(self, schema: object) -> ArchiveTypes:
        """Check all nodes."""
        n_built = self._check(schema, 1, is_built=True)
        if n_built > self._n_written:
            raise ModelFileError(
                f"schema.json has {self._n_written} objects, of which {n_built} would be built"
            )
        return self._types

    def _check(self, node: Any, depth: int, *, is_built: bool) -> int:
        """Check a node and those in it, and return how many skops builds for it."""
        if depth > _MAX_DEPTH:
            raise ModelFileError(f"schema.json nests deeper than {_MAX_DEPTH} objects")
        self._n_written += 1
        name, loader, number = _type_of(node), node.get("__loader__"), node.get("__id__")
        accepted, children = self._loaders.get(str(loader), (frozenset(), None))
        if children is None:
            self._types.refused.add(f"{name} ({loader})")
            return 1
        (self._types.accepted if name in accepted else self._types.refused).add(name)
        if type(number) is not int:
            raise ModelFileError(f"schema.json has an object of the number {number!r}")
        size = self._sizes.get(number)
        if size == 0 and is_built:
            raise ModelFileError(f"schema.json has an object within itself, of the number {number}")
        is_first = is_built and size is None
        if is_first:
            self._sizes[number] = 0
        n_inside = sum(self._check(child, depth + 1, is_built=is_first) for child in children(node))
        if is_first:
            self._sizes[number] = 1 + n_inside
        return size or 1 + n_inside

    def _children_of_dict(self, node: Any) -> Iterator[Any]:
        content, keys = node.get("content"), node.get("key_types")
        if not isinstance(content, dict) or _type_of(keys) != "builtins.list":
            raise ModelFileError("schema.json has a dict without keys")
        types = keys.get("content")
        if keys.get("__loader__") != "ListNode" or not isinstance(types, list):
            raise ModelFileError("schema.json has a dict without keys")
        if len(types) != len(content):
            raise ModelFileError(
                f"schema.json has a dict of {len(content)} values for {len(types)} keys"
            )
        for key in types:
            name = _type_of(key)
            if key.get("__loader__") != "TypeNode" or name not in _KEY_TYPES:
                self._types.refused.add(f"{name} ({key.get('__loader__')})")
        yield {**keys, "content": [{**key, **_KEY} for key in types]}
        yield from content.values()

    def _children_of_list(self, node: Any) -> Iterator[Any]:
        if not isinstance(node.get("content"), list):
            raise ModelFileError("schema.json has a list without items")
        yield from node["content"]

    def _children_of_slice(self, node: Any) -> Iterator[Any]:
        ends = node.get("content")
        if not isinstance(ends, dict) or set(ends) != {"start", "stop", "step"}:
            raise ModelFileError("schema.json has a slice without ends")
        if not all(end is None or type(end) is int for end in ends.values()):
            raise ModelFileError(f"schema.json has the slice {ends!r}")
        return iter(())

    def _children_of_json(self, node: Any) -> Iterator[Any]:
        try:
            value = json.loads(node.get("content"))
        except (TypeError, ValueError, RecursionError):
            value = node
        if not (value is None or isinstance(value, str | int | float)):
            raise ModelFileError("schema.json has a value that is no text and no number")
        return iter(())

    def _children_of_array(self, node: Any) -> Iterator[Any]:
        if node.get("type") == "numpy":
            if node.get("file") not in self._members or node["file"] == "schema.json":
                raise ModelFileError(f"there is no array {node.get('file')!r} in it")
            return
        # Names of columns are an array of objects, which skops writes as a list.
        if node.get("type") != "json" or _type_of(node) != "numpy.ndarray":
            raise ModelFileError(f"schema.json has an array of the kind {node.get('type')!r}")
        for item in node.get("content") or ():
            if _type_of(item) != "builtins.str" or item.get("__loader__") != "JsonNode":
                raise ModelFileError("schema.json has an array of objects that are no text")
        yield from node.get("content") or ()
        yield node.get("shape")

    def _children_of_object(self, node: Any) -> Iterator[Any]:
        if node.get("content") is not None:
            yield node["content"]

    def _children_of_tree(self, node: Any) -> Iterator[Any]:
        yield node["content"]
        yield node["__reduce__"]["args"]


def _type_of(node: Any) -> str:
    if not isinstance(node, dict):
        raise ModelFileError(f"schema.json has {str(node)[:40]!r} where an object should be")
    return f"{node.get('__module__')}.{node.get('__class__')}"
