"""What the description in a saved model may ask for.

It is a tree of nodes: each names a loader, which is a piece of skops that builds something, and the
type that it builds.  Here every node is held against one table of loaders and types; what is in no
table is refused by its name.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xacle_stack.errors import ModelFileError

OWN_TYPES = frozenset(
    {
        "xacle_stack.features.sequences.SequenceBuilder",
        "xacle_stack.features.vectors.VectorBuilder",
        "xacle_stack.features.builder.FeatureBuilder",
        "xacle_stack.listeners.model.ListenerModel",
        "xacle_stack.stacking.boosted_trees.BoostedTrees",
        "xacle_stack.stacking.calibration.MonotoneCalibration",
        "xacle_stack.stacking.block_pca.BlockPCA",
        "xacle_stack.stacking.fold_ridge.LinearModel",
        "xacle_stack.stacking.gaussian_process.BlockGaussianProcess",
        "xacle_stack.stacking.learners.BlockView",
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
# The loaders of a dictionary's keys, under names that stand for nothing else: a number that is
# theirs is no other object's.
_KEYS_LOADER, _KEY_LOADER = "ListNode of keys", "TypeNode of a key"
# scikit-learn prints it where it is not its own.
_VERSION_NAME, _VERSION = "_sklearn_version", re.compile(r'"[\w.+-]{1,40}"', re.ASCII)
# Nodes within nodes; models of this library have a third of that.
MAX_DEPTH = 64
# Whole numbers that a setting may be: those of 64 bits.
_MAX_WHOLE = 2**64
# What the arrays have together, each as often as the model refers to it, in units of the file.  A
# prediction goes over an array once for each.
_MAX_REPEATS = 16


@dataclass
class ArchiveTypes:
    """The types that an archive asks for.

    Attributes
    ----------
    accepted, refused : set of str
    """

    accepted: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)


def types_in(
    schema: object, arrays: Mapping[str, int], size: int, trusted: frozenset[str]
) -> ArchiveTypes:
    """Check the nodes of a schema, and return the types that it asks for.

    Parameters
    ----------
    schema : object
        What its JSON says.
    arrays : mapping of str to int
        The bytes of each array beside it.
    size : int
        Bytes of the whole file.
    trusted : frozenset of str
        Types that the caller accepts beside those of this module.

    Returns
    -------
    types : ArchiveTypes

    Raises
    ------
    ModelFileError
        If skops would not have written it.
    """
    return _Schema(arrays, size, trusted).check(schema)


@dataclass
class _Content:
    """What skops builds for a number, with everything in it."""

    kind: tuple[object, ...]
    n_objects: int = 0
    n_bytes: int = 0
    is_complete: bool = False


class _Schema:
    """Goes over the nodes of a schema.

    A node that repeats an ``__id__`` stands for the first one of that number to skops, whatever
    else it says.  skops itself writes the whole object again.  So what is built is counted, and it
    has to be no more than what is written; and both have to be of one type, or a type of keys, an
    array or a list could stand where another thing was checked.
    """

    def __init__(self, arrays: Mapping[str, int], size: int, trusted: frozenset[str]) -> None:
        self._arrays = arrays
        self._trusted = trusted
        self._size = size
        self._contents: dict[int, _Content] = {}
        # The object that each array of the archive is read for.
        self._readers: dict[str, int] = {}
        self._n_written = 0
        self._types = ArchiveTypes()
        self._loaders: dict[str, tuple[frozenset[str], Callable[[Any], Iterator[Any]]]] = {
            "DictNode": (
                frozenset({"builtins.dict", "collections.OrderedDict"}),
                self._children_of_dict,
            ),
            _KEYS_LOADER: (frozenset({"builtins.list"}), self._children_of_list),
            _KEY_LOADER: (_KEY_TYPES, lambda _: iter(())),
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
        built = self._check(schema, 1, is_built=True)
        if built.n_objects > self._n_written:
            raise ModelFileError(
                f"schema.json has {self._n_written} objects, of which {built.n_objects} would be "
                "built"
            )
        if built.n_bytes > _MAX_REPEATS * self._size:
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
        name, loader, number = _type_of(node), str(node.get("__loader__")), node.get("__id__")
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
        # skops keeps no object of the number 0, and builds each of that number anew.
        if type(number) is not int or number < 1:
            raise ModelFileError(f"schema.json has an object of the number {number!r}")
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
        if loader == "NdArrayNode" and node.get("type") == "numpy":
            content.n_bytes = self._bytes_of_array(node, number)
        for child in children(node):
            inner = self._check(child, depth + 1, is_built=is_first)
            content.n_objects += inner.n_objects
            content.n_bytes += inner.n_bytes
        content.is_complete = True
        return first or content

    def _bytes_of_array(self, node: Any, number: int) -> int:
        """Return an array's size, once it is read for no other object: each would be a copy."""
        name = node.get("file")
        if name not in self._arrays:
            raise ModelFileError(f"there is no array {name!r} in it")
        if self._readers.setdefault(name, number) != number:
            raise ModelFileError(f"its array {name!r} is read for two objects")
        return self._arrays[name]

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

    def _children_of_list(self, node: Any) -> Iterator[Any]:
        if not isinstance(node.get("content"), list):
            raise ModelFileError("schema.json has a list without items")
        yield from node["content"]

    def _children_of_slice(self, node: Any) -> Iterator[Any]:
        ends = node.get("content")
        if not isinstance(ends, dict) or set(ends) != {"start", "stop", "step"}:
            raise ModelFileError("schema.json has a slice without ends")
        if not all(
            end is None or (type(end) is int and abs(end) < _MAX_WHOLE) for end in ends.values()
        ):
            raise ModelFileError(f"schema.json has the slice {str(ends)[:80]}")
        return iter(())

    def _children_of_json(self, node: Any) -> Iterator[Any]:
        try:
            value = json.loads(node.get("content"))
        except (TypeError, ValueError, RecursionError):
            value = node
        if not (value is None or isinstance(value, str | int | float)):
            raise ModelFileError("schema.json has a value that is no text and no number")
        if isinstance(value, int) and abs(value) >= _MAX_WHOLE:
            raise ModelFileError(
                f"schema.json has the number {str(value)[:20]}..., of over 64 bits"
            )
        return iter(())

    def _children_of_array(self, node: Any) -> Iterator[Any]:
        if node.get("type") == "numpy":
            return
        # Names of columns are an array of objects, which skops writes as a list.
        if node.get("type") != "json" or _type_of(node) != "numpy.ndarray":
            raise ModelFileError(f"schema.json has an array of the kind {node.get('type')!r}")
        for item in node.get("content") or ():
            if _type_of(item) != "builtins.str" or item.get("__loader__") != "JsonNode":
                raise ModelFileError("schema.json has an array of objects that are no text")
        yield from node.get("content") or ()
        shape = node.get("shape")
        if _type_of(shape) != "builtins.tuple":
            raise ModelFileError("schema.json has an array without a shape")
        yield shape

    def _children_of_object(self, node: Any) -> Iterator[Any]:
        state = node.get("content")
        if state is None:
            return
        if _type_of(node) not in self._trusted and _type_of(state) != "builtins.dict":
            raise ModelFileError(f"schema.json has a {_type_of(node)} without attributes")
        yield state

    def _children_of_tree(self, node: Any) -> Iterator[Any]:
        yield node["content"]
        yield node["__reduce__"]["args"]


def _type_of(node: Any) -> str:
    if not isinstance(node, dict):
        raise ModelFileError(f"schema.json has {str(node)[:40]!r} where an object should be")
    return f"{node.get('__module__')}.{node.get('__class__')}"
