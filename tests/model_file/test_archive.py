"""Files that nobody's save_model wrote: each is refused, and nothing else happens."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_models import (
    Node,
    add_attribute,
    array_with_header,
    attributes_of,
    change_schema,
    members_of,
    node,
    node_for,
    node_of,
    set_attribute,
    sign,
    write_members,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMRegressor
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils import get_tags

from xacle_stack.errors import ModelFileError, XacleStackError
from xacle_stack.features import (
    FeatureBuilder,
    PairEmbeddings,
    SequenceBuilder,
    VectorBuilder,
)
from xacle_stack.listeners import ListenerModel
from xacle_stack.model_file import load_model, save_model
from xacle_stack.model_file.schema import SCIKIT_LEARN_TYPES
from xacle_stack.model_file.states import check_states
from xacle_stack.stacking import (
    BoostedTrees,
    GroupedRidge,
    Stacker,
    fitted_state,
)

X = np.random.default_rng(0).normal(size=(60, 4))


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model = Stacker(n_splits=2, random_state=0, target="rank").fit(X, X[:, 0])
    return save_model(folder, model)


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """Return a saved stack that a test may change."""
    for path in (saved_once, saved_once.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / saved_once.name


def refusal(path: Path, **options) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path, **options)
    assert str(path.parent) in str(caught.value)
    return str(caught.value)


# What is built, by type and by loader.


def test_scikit_learns_readers_of_files_are_refused(tmp_path: Path) -> None:
    """It would read the file that its vocabulary names, and score by what stands there."""
    reader = make_pipeline(CountVectorizer(input="filename"), LinearRegression())
    name = "sklearn.feature_extraction.text.CountVectorizer"
    with pytest.raises(ModelFileError, match=f"(?s)not saved.*{name}.*trusted=") as caught:
        save_model(tmp_path / "m.skops", reader)
    assert "LinearRegression" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LGBMRegressor(), "lightgbm.sklearn.LGBMRegressor.*Use xacle_stack.BoostedTrees"),
        (RandomForestRegressor(), r"sklearn.ensemble._forest.RandomForestRegressor.*trusted=\["),
        (GroupedRidge(random_state=np.random.RandomState(0)), "numpy.random.*a whole number as"),
        (FunctionTransformer(np.exp), r"numpy.*exp \(FunctionNode\)|FunctionTransformer"),
        (Path("/etc/passwd"), "pathlib"),
    ],
)
def test_what_would_not_be_loaded_is_not_saved(tmp_path: Path, model, message: str) -> None:
    with pytest.raises(ModelFileError, match=f"(?s)not saved.*{message}"):
        save_model(tmp_path / "m.skops", {"a": model})
    assert not list(tmp_path.iterdir())


def test_a_caller_may_trust_a_type_in_code(tmp_path: Path) -> None:
    forest = RandomForestRegressor(3, random_state=0).fit(X, X[:, 0])
    types = [
        RandomForestRegressor,
        "sklearn.tree._classes.DecisionTreeRegressor",
        "sklearn.tree._tree.Tree",
    ]
    path = save_model(tmp_path / "m.skops", forest, trusted=types)
    assert "DecisionTreeRegressor" in refusal(path)
    np.testing.assert_array_equal(load_model(path, trusted=types).predict(X), forest.predict(X))


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
    with pytest.raises(ModelFileError, match=f"(?s)refused.*Nothing of it was run.*{message}"):
        load_model(saved)


def keys_that_call(schema: Node) -> None:
    attributes = node_of(schema, "Stacker")["content"]
    attributes["key_types"]["content"][0] = node("TypeNode", "builtins.list")


def fewer_keys(schema: Node) -> None:
    node_of(schema, "Stacker")["content"]["key_types"]["content"].pop()


def endless(schema: Node) -> None:
    attributes_of(schema, "Stacker")["meta"] = node("ListNode", "builtins.list", [])
    attributes_of(schema, "Stacker")["meta"]["__id__"] = schema["__id__"]


def deep(schema: Node) -> None:
    inner = node("ListNode", "builtins.list", [])
    for number in range(80):
        inner = {**node("ListNode", "builtins.list", [inner]), "__id__": 2 * 10**9 + number}
    attributes_of(schema, "Stacker")["meta"] = inner


def laughs(schema: Node) -> None:
    """Let each list hold the last one ten times by its number."""
    inner = {**node("ListNode", "builtins.list", []), "__id__": 3 * 10**9}
    for number in range(25):
        again = {**node("ListNode", "builtins.list", []), "__id__": inner["__id__"]}
        inner = {**node("ListNode", "builtins.list", [inner, *[again] * 9])}
        inner["__id__"] = 3 * 10**9 + 1 + number
    attributes_of(schema, "Stacker")["meta"] = inner


def nested_text(schema: Node) -> None:
    attributes_of(schema, "Stacker")["preset"]["content"] = "[" * 100_000


def text_of_containers(schema: Node) -> None:
    attributes_of(schema, "Stacker")["preset"]["content"] = "[1, 2]"


def odd_slice(schema: Node) -> None:
    node_of(schema, "slice")["content"]["start"] = {"a": 1}


def number_of_none(schema: Node) -> None:
    """Write a list that skops does not know again: what is in the second is built as well."""
    lists = [node("ListNode", "builtins.list", []) for _ in range(2)]
    for one in lists:
        one["__id__"] = 0
    attributes_of(schema, "Stacker")["meta"] = node("ListNode", "builtins.list", lists)


def a_type_as_a_value(schema: Node) -> None:
    state = node_of(schema, "Stacker")["content"]
    state["content"]["meta"]["__id__"] = state["key_types"]["content"][0]["__id__"]


def a_list_as_keys(schema: Node) -> None:
    state = node_of(schema, "Stacker")["content"]
    values = [node_for(name, {}) for name in "abc"]
    for number, value in enumerate(values):
        value["__id__"] = 4 * 10**9 + number
    state["content"]["meta"] = node("ListNode", "builtins.list", values)
    state["content"]["meta"]["__id__"] = state["key_types"]["__id__"]


def an_object_as_text(schema: Node) -> None:
    """Write an array of text whose item stands for a stack, of which nobody checks anything."""
    item = {**node_for("text", {}), "__id__": node_of(schema, "BoostedTrees")["__id__"]}
    shape = {**node("TupleNode", "builtins.tuple", []), "__id__": 5 * 10**9}
    hidden = {**node("NdArrayNode", "numpy.ndarray", [item]), "type": "json", "shape": shape}
    attributes_of(schema, "Stacker")["z"] = hidden
    state = node_of(schema, "Stacker")["content"]
    state["key_types"]["content"].append(state["key_types"]["content"][0])


def other_text(schema: Node) -> None:
    values = attributes_of(schema, "Stacker")
    values["target"]["__id__"] = values["preset"]["__id__"]


def attributes_in_a_list(schema: Node) -> None:
    node_of(schema, "Stacker")["content"] = node("ListNode", "builtins.list", [])


def huge_number(schema: Node) -> None:
    attributes_of(schema, "Stacker")["meta"] = {**node_for(0, {}), "content": "1" * 4000}


def huge_slice(schema: Node) -> None:
    node_of(schema, "slice")["content"]["stop"] = 10**30


def a_version_that_is_none(schema: Node) -> None:
    changed = {**node_for("\x1b[2J", {}), "__id__": 6 * 10**9}
    state = node_of(schema, "Stacker")["content"]
    state["content"]["_sklearn_version"] = changed
    state["key_types"]["content"].append(state["key_types"]["content"][0])


def an_array_for_two(schema: Node) -> None:
    array = {**node_of(schema, "ndarray"), "__id__": 7 * 10**9}
    attributes_of(schema, "Stacker")["meta"] = array


def other_protocol(schema: Node) -> None:
    schema["protocol"] = 0


def no_such_array(schema: Node) -> None:
    node_of(schema, "ndarray")["file"] = "../../etc/passwd"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (keys_that_call, r"builtins.list \(TypeNode\)"),
        (fewer_keys, r"a dict of \d+ values for \d+ keys"),
        (endless, "an object within itself"),
        (deep, "nests deeper than 64 objects"),
        (laughs, r"schema.json has \d+ objects, of which \d{5,} would be built"),
        (nested_text, "a value that is no text and no number"),
        (text_of_containers, "a value that is no text and no number"),
        (odd_slice, "schema.json has the slice"),
        (number_of_none, "an object of the number 0"),
        (a_type_as_a_value, "two objects of the number .* builtins.str"),
        (a_list_as_keys, "two objects of the number .* builtins.list"),
        (an_object_as_text, "two objects of the number .*BoostedTrees.* builtins.str"),
        (other_text, "two objects of the number .* that are not the same"),
        (attributes_in_a_list, "Stacker without attributes"),
        (huge_number, r"the number 1111.*\.\.\., of over 64 bits"),
        (huge_slice, r"the slice .*10000"),
        (a_version_that_is_none, "a _sklearn_version that is no version"),
        (an_array_for_two, r"its array '\d+.npy' is read for two objects"),
        (other_protocol, "the protocol 0, expected 2 or more"),
        (no_such_array, "there is no array '../../etc/passwd' in it"),
        (lambda schema: [1, 2], "the protocol None"),
        (lambda schema: {**schema, "content": 3}, "schema.json has '3' where an object should be"),
    ],
)
def test_a_schema_that_skops_does_not_write_is_refused(
    saved: Path, change: Callable[[Node], object], message: str
) -> None:
    change_schema(saved, change)
    with pytest.raises(ModelFileError, match=f"(?s){message}"):
        load_model(saved)


# How large it is.


def test_an_array_that_is_referred_to_very_often_is_refused(tmp_path: Path) -> None:
    """Each reference costs a hundred bytes, and a prediction goes over the array each time."""
    array = np.zeros(10_000)
    path = save_model(tmp_path / "m.skops", [array] * 10)
    assert len({id(one) for one in load_model(path)}) == 1
    change_schema(path, lambda schema: schema["content"].extend(schema["content"] * 19))
    assert re.search(
        r"referred to so often that they have 16025600 bytes, the file has", refusal(path)
    )


def test_a_compressed_archive_is_refused_before_it_is_read(saved: Path) -> None:
    members = {**members_of(saved), "zeros.npy": bytes(10**7)}
    write_members(saved, members, zipfile.ZIP_DEFLATED)
    assert saved.stat().st_size < 10**5
    assert "is compressed or encrypted; none should be" in refusal(saved)


def test_members_that_share_bytes_are_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        for number in range(3):
            largest = max(archive.infolist(), key=lambda member: member.file_size)
            shared = zipfile.ZipInfo(f"{number}.npy")
            for name in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(shared, name, getattr(largest, name))
            archive.filelist.append(shared)
            archive.NameToInfo[shared.filename] = shared
        archive._didModify = True
    sign(saved)
    message = refusal(saved)
    assert "members have" in message or "verlap" in message or "differ" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (array_with_header((5 * 10**9,)), "has the shape (5000000000,) of float64, 40000000128"),
        (array_with_header((10**9, 0)), "has the shape (1000000000, 0)"),
        (array_with_header((2,), "|O"), "is of type object, expected numbers or text"),
        (array_with_header((1,), "<c16") + bytes(16), "is of type complex128"),
        (array_with_header((1,), ">f8") + bytes(8), "is of type >f8, expected numbers or text"),
        (array_with_header((-1,)), "has the shape (-1,)"),
        (b"\x93NUMPY\x03\x00" + bytes(100), "has the format (3, 0)"),
        (b"no array", "magic string"),
        (array_with_header((3,)) + bytes(23), "152 bytes, but there are 151"),
    ],
)
def test_an_array_that_is_none_is_refused(saved: Path, content: bytes, message: str) -> None:
    members = members_of(saved)
    name = next(name for name in members if name.endswith(".npy"))
    write_members(saved, {**members, name: content})
    assert message in refusal(saved)


def test_members_beside_the_arrays_are_refused(saved: Path) -> None:
    members = members_of(saved)
    write_members(saved, {**members, "code.py": b""})
    assert "its member 'code.py' is neither an array (.npy) nor schema.json" in refusal(saved)
    del members["schema.json"]
    write_members(saved, members)
    assert "it has no schema.json" in refusal(saved)


def test_a_directory_of_very_many_members_is_refused(saved: Path) -> None:
    empty = {f"{number}{'x' * 60_000}.npy": b"" for number in range(80)}
    write_members(saved, {**members_of(saved), **empty})
    assert "its directory has" in refusal(saved)
    with saved.open("ab") as file:
        file.write(b"behind the end")
    sign(saved)
    assert "does not end as a zip archive" in refusal(saved)


def test_a_large_file_is_refused_unread_and_a_setting_reads_it(saved: Path) -> None:
    size = saved.stat().st_size
    message = refusal(saved, max_bytes=size - 1)
    assert f"{size} bytes, more than max_bytes={size - 1}" in message
    assert f"load_model(path, max_bytes={size})" in message
    load_model(saved, max_bytes=size)
    os.truncate(saved, 5 * 2**30)  # sparse: it has no bytes on the disk
    assert "5368709120 bytes, more than max_bytes=4294967296" in refusal(saved)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("suffix", [".skops", ".json"])
@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
def test_only_files_are_read(saved: Path, suffix: str, kind: str) -> None:
    path = saved.with_suffix(suffix)
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert f"{path}: a folder, a pipe or a device, where a file should be" in refusal(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "not readable as JSON"),
        (b"[]", "it holds a list, no object"),
        (b"\xff", "not readable as JSON"),
        (b" " * (5 * 2**20), "5242880 bytes, where a card has 4194304 or fewer"),
        (b'{"format_version": "' + b"\\u001b" * 10**5 + b'"}', "model format '"),
        (b'{"format_version": 3, "model_digest": {}}', "not the file that its card"),
    ],
)
def test_a_card_that_is_none_is_refused(saved: Path, content: bytes, message: str) -> None:
    saved.with_suffix(".json").write_bytes(content)
    assert message in refusal(saved)
    assert len(refusal(saved)) < 1000
    assert "\x1b" not in refusal(saved)


# What the arrays say.


def with_huge(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[0] = value
    return changed


STATES = [
    # LightGBM's: what its text could be edited to
    ("BoostedTrees", "split_feature_", lambda a: with_huge(a, 10**9), "split_feature_ holds"),
    ("BoostedTrees", "left_child_", lambda a: with_huge(a, 0), "leads from split 0"),
    ("BoostedTrees", "n_leaves_", lambda a: with_huge(a, 4 * 10**9), "n_leaves_ holds 4000000000"),
    ("BoostedTrees", "leaf_value_", lambda a: with_huge(a, np.inf), "leaf_value_ holds NaN or inf"),
    ("BlockGaussianProcess", "block_of_", lambda a: with_huge(a, 9), "block_of_ holds 9"),
    ("BlockGaussianProcess", "landmarks_", lambda a: a[:, 1:], r"landmarks_ has shape"),
    ("BlockGaussianProcess", "dual_coef_", lambda a: a[1:], r"dual_coef_ has shape"),
    ("BlockGaussianProcess", "amplitude_", lambda a: np.ones(10**4), "relevance_ has shape"),
    ("BlockPCA", "mean_", lambda a: a[1:], r"scale_ has shape"),
    ("BlockPCA", "n_features_out_", lambda _: 10**12, "n_features_out_ = 1000000000000"),
    ("GroupedRidge", "coef_", lambda a: np.ones((10**5, a.shape[-1])), "GroupedRidge: "),
    ("GroupedRidge", "intercept_", lambda _: "high", "intercept_ is of type str"),
    ("GroupedRidge", "n_features_in_", lambda _: 10**12, "n_features_in_ is 1000000000000"),
    ("MonotoneCalibration", "knots_", lambda a: a[::-1].copy(), "knots_ do not rise"),
    ("MonotoneCalibration", "values_", lambda a: a[1:], "values_ has shape"),
    ("BlockGaussianProcess", "amplitude_", lambda a: np.ones(5), "relevance_ has shape"),
    ("BlockPCA", "axes_", lambda _: 3, "axes_ is a int"),
    ("FittedLearner", "models", lambda _: 3, "models is '3', expected a list"),
    ("FittedLearner", "sees", lambda _: "nothing", "a learner sees 'nothing', which is no family"),
    ("FittedLearner", "columns", lambda _: np.arange(5), "holds 4, expected numbers below 4"),
    (
        "FittedLearner",
        "columns",
        lambda _: np.zeros(10**5, dtype=int),
        "a learner names 100000 columns, there are 4",
    ),
    ("Stacker", "n_features_in_", lambda _: 10**12, "n_features_in_ is 1000000000000"),
    ("Stacker", "n_jobs", lambda _: 10**9, "n_jobs is 1000000000"),
    ("Stacker", "families_", lambda _: 3, "families_ is a int"),
    ("Stacker", "level0_models_", lambda _: None, "Stacker: TypeError"),
    ("Stacker", "oof_predictions_", lambda a: a[:, 1:], "oof_predictions_ has shape"),
    ("Stacker", "calibration_", lambda _: "x", "Stacker: AttributeError"),
    ("Stacker", "score_range_", lambda _: 7, "score_range must be"),
    ("Stacker", "training_", lambda _: 3, "training_ is no dict of"),
]


@pytest.mark.parametrize(("kind", "name", "change", "message"), STATES)
def test_parts_that_do_not_fit_are_refused(
    saved: Path, kind: str, name: str, change: Callable, message: str
) -> None:
    found = [load_model(saved)]
    while type(found[0]).__name__ != kind or not hasattr(found[0], name):
        first = found.pop(0)
        items = first.values() if isinstance(first, dict) else first
        found += list(items) if isinstance(first, dict | list) else list(vars(first).values())
        found = [one for one in found if isinstance(one, dict | list) or hasattr(one, "__dict__")]
    value = change(getattr(found[0], name))
    set_attribute(saved, kind, name, value)
    with pytest.raises(ModelFileError, match=f"not readable as a saved model .*{message}"):
        load_model(saved)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("Stacker", "predict", "an attribute 'predict', which its class has"),
        ("Stacker", "_check_new", "an attribute '_check_new', which its class has"),
        ("BoostedTrees", "check_state", "an attribute 'check_state', which its class has"),
        ("FittedLearner", "__class__", "an attribute '__class__', which its class has"),
        ("GroupedRidge", "n", "an attribute 'n', which its class does not know"),
        ("BlockPCA", "not a name", "an attribute 'not a name', which its class has"),
    ],
)
def test_attributes_that_a_class_does_not_give_are_refused(
    saved: Path, kind: str, name: str, message: str
) -> None:
    add_attribute(saved, kind, name, 1)
    assert f"{kind}: {message}" in refusal(saved)


def test_an_attribute_that_would_be_refused_is_not_saved(tmp_path: Path) -> None:
    model = GroupedRidge().fit(X, X[:, 0])
    model.note = "mine"
    with pytest.raises(ModelFileError, match="not saved: GroupedRidge: an attribute 'note', which"):
        save_model(tmp_path / "m.skops", [model])
    assert not list(tmp_path.iterdir())


THIN = np.ones((5, 1))


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (LinearRegression(), {"intercept_": THIN}, r"intercept_ has shape \(5, 1\)"),
        (LinearRegression(), {"coef_": np.ones((5, 4)), "intercept_": THIN}, "intercept_ has"),
        (LinearRegression(), {"coef_": np.ones((5, 4, 1))}, r"coef_ has shape \(5, 4, 1\)"),
        (LinearRegression(), {"intercept_": np.ones(5)}, r"intercept_ has shape \(5,\), .*\(1,\)"),
        (LinearRegression(), {"coef_": None}, "coef_|TypeError"),
        (SGDRegressor(), {"coef_": np.ones((5, 4))}, r"intercept_ has shape \(1,\)"),
        (PCA(2), {"components_": np.ones((5, 4))}, "explained_variance_ has|5 components"),
        (PCA(2), {"mean_": np.ones((5, 4))}, r"mean_ has shape \(5, 4\)"),
        (PCA(2), {"explained_variance_": THIN}, r"explained_variance_ has shape"),
        (TruncatedSVD(2), {"components_": np.ones((5, 4))}, "5 components of 4 columns"),
        (PLSRegression(1), {"intercept_": np.ones((5, 1, 1))}, r"intercept_ has shape \(5, 1, 1\)"),
        (PLSRegression(1), {"_x_mean": THIN}, r"_x_mean has shape \(5, 1\), expected \(4,\)"),
        (StandardScaler(), {"mean_": THIN}, r"mean_ has shape \(5, 1\), expected \(4,\)"),
        (StandardScaler(), {"scale_": np.full(4, np.nan)}, "scale_ holds NaN"),
        (MinMaxScaler(), {"min_": THIN}, r"min_ has shape \(5, 1\), expected \(4,\)"),
        (MaxAbsScaler(), {"scale_": "4"}, r"scale_ is of type str, expected numbers"),
        (RobustScaler(), {"center_": THIN}, r"center_ has shape \(5, 1\), expected \(4,\)"),
        (PowerTransformer(), {"lambdas_": np.ones(5)}, r"lambdas_ has shape \(5,\)"),
        (
            QuantileTransformer(n_quantiles=9),
            {"references_": THIN},
            r"references_ has shape \(5, 1\)",
        ),
        (
            QuantileTransformer(n_quantiles=9),
            {"quantiles_": np.ones((9, 5))},
            r"quantiles_ has shape \(9, 5\)",
        ),
        (StandardScaler(), {"n_features_in_": 10**12}, "n_features_in_ is 1000000000000"),
        (
            TransformedTargetRegressor(LinearRegression(), transformer=StandardScaler()),
            {"regressor_": "x"},
            "regressor_ is a str",
        ),
        (make_pipeline(StandardScaler()), {"steps": "x"}, "steps is a str, expected a list"),
        (make_pipeline(StandardScaler()), {"transform_input": "x"}, "transform_input is set"),
        (
            GroupedRidge(),
            {"coef_": np.ones((5000, 4)), "intercept_": np.ones(5000)},
            "5000 outputs",
        ),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit") else "",
)
@pytest.mark.filterwarnings("ignore:n_quantiles")
def test_arrays_of_scikit_learn_that_would_be_broadcast_are_refused(
    tmp_path: Path, model, changes: dict[str, object], message: str
) -> None:
    path = save_model(tmp_path / "m.skops", clone(model).fit(X, X[:, 0]))
    load_model(path)
    for name, value in changes.items():
        set_attribute(path, type(model).__name__, name, value)
    assert re.search(f"{type(model).__name__}: {message}", refusal(path))


SCIKIT_LEARN = [
    getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
    for name in sorted(SCIKIT_LEARN_TYPES)
]


@pytest.mark.parametrize("kind", SCIKIT_LEARN)
def test_each_type_of_scikit_learn_is_saved_and_loaded(tmp_path: Path, kind: type) -> None:
    settings = {
        "PLSRegression": {"n_components": 1},
        "Pipeline": {"steps": [("a", StandardScaler()), ("b", None), ("c", LinearRegression())]},
        "QuantileTransformer": {"n_quantiles": 9},
        "SGDRegressor": {"average": True},
        "TransformedTargetRegressor": {"transformer": StandardScaler()},
    }
    model = kind(**settings.get(kind.__name__, {}))
    for targets in (X[:, 0], X[:, :2]):
        if targets.ndim == 2 and not get_tags(model).target_tags.multi_output:
            continue
        fitted = clone(model).fit(X, targets)
        loaded = load_model(save_model(tmp_path / "m.skops", [fitted, fitted]))[1]
        method = "predict" if hasattr(fitted, "predict") else "transform"
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(fitted, method)(X))


def test_very_many_estimators_for_a_wide_table_are_refused() -> None:
    scaler = StandardScaler(with_mean=False, with_std=False)
    scaler.n_features_in_ = 2**20
    check_states([scaler] * 1000)
    with pytest.raises(ModelFileError, match="1050 estimators for up to 1048576 columns"):
        check_states([scaler] * 1050)
    by_column = PowerTransformer()
    by_column.n_features_in_ = 2**20
    with pytest.raises(ModelFileError, match="2048 estimators for up to 1048576 columns"):
        check_states([by_column] * 2)


def test_estimators_that_are_referred_to_twice_are_checked_once(monkeypatch) -> None:
    ridge, checked = GroupedRidge().fit(X, X[:, 0]), []
    monkeypatch.setitem(fitted_state.STATE_CHECKS, GroupedRidge, checked.append)
    check_states([ridge, {"a": ridge, "b": [ridge]}])
    assert checked == [ridge]


def test_scikit_learn_arrays_are_no_wider_than_their_table(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(X, X[:, 0])
    path = save_model(tmp_path / "m.skops", model)
    np.testing.assert_array_equal(load_model(path).predict(X), model.predict(X))
    set_attribute(path, "LinearRegression", "coef_", np.ones((70_000, 4)))
    assert "LinearRegression: 70000 outputs, the most is 4096" in refusal(path)


def test_a_pipeline_with_a_folder_for_results_is_refused(tmp_path: Path) -> None:
    """Refitting it would write, and unpickle, what stands there."""
    model = make_pipeline(StandardScaler(), LinearRegression())
    path = save_model(tmp_path / "m.skops", model)
    set_attribute(path, "Pipeline", "memory", str(tmp_path / "elsewhere"))
    assert "Pipeline: memory names a folder" in refusal(path)


IN_A_LIMIT = """
import json, resource, sys
from pathlib import Path
from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import load_model
import skops.io, lightgbm

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for path in sys.argv[1:]:
    try:
        load_model(path)
        print(json.dumps("loaded"))
    except ModelFileError as error:
        print(json.dumps(str(error)))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no limit of memory")
def test_what_would_fill_the_memory_or_never_end_is_refused_within_a_gigabyte(
    saved_once: Path, tmp_path: Path
) -> None:
    def copied(name: str) -> Path:
        path = tmp_path / f"{name}.skops"
        shutil.copy(saved_once, path)
        shutil.copy(saved_once.with_suffix(".json"), path.with_suffix(".json"))
        return path

    change_schema(laughing := copied("laughs"), laughs)
    write_members(bomb := copied("bomb"), {"a.npy": bytes(5 * 10**7)}, zipfile.ZIP_DEFLATED)
    set_attribute(trees := copied("trees"), "BoostedTrees", "n_leaves_", np.array([2**40]))
    set_attribute(wide := copied("wide"), "Stacker", "n_features_in_", 10**10)
    many = {"n_leaves_": [3], "left_child_": [1, 0], "right_child_": [-1, -2]}
    circle = copied("circle")
    for name, value in many.items():
        set_attribute(circle, "BoostedTrees", name, np.array(value))
    paths = [laughing, bomb, trees, wide, circle]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_LIMIT, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(messages) == len(paths)
    for message, path in zip(messages, paths, strict=True):
        assert message.startswith(f"{path}: not readable as a saved model"), message


def with_flipped_bits(content: bytes, data) -> bytes:
    flipped = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(flipped)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(data=st.data())
def test_any_change_is_loaded_to_the_same_scores_or_refused(saved_once: Path, data) -> None:
    """Flip bytes of the model or its card, and sign it: what is loaded predicts numbers or raises
    one of our errors."""
    folder = saved_once.parent / "fuzzed"
    folder.mkdir(exist_ok=True)
    path = folder / "model.skops"
    for suffix in (".skops", ".json"):
        shutil.copy(saved_once.with_suffix(suffix), path.with_suffix(suffix))
    part = data.draw(st.sampled_from(["schema", "member", "member", "archive", "card"]))
    members = members_of(path)
    if part == "schema":
        schema = members["schema.json"].decode()
        old = data.draw(st.sampled_from(['"start": 0', '"4"', "null", "true", '"builtins"', "0"]))
        new = data.draw(st.sampled_from(['"start": -5', '"-1"', "1e999", "[]", '"os"', "99999999"]))
        members["schema.json"] = schema.replace(old, new, data.draw(st.integers(1, 3))).encode()
        write_members(path, members)
    elif part == "member":  # with a right checksum
        name = data.draw(st.sampled_from(sorted(members, key=len)))
        write_members(path, {**members, name: with_flipped_bits(members[name], data)})
    else:
        spoiled = path if part == "archive" else path.with_suffix(".json")
        spoiled.write_bytes(with_flipped_bits(spoiled.read_bytes(), data))
        if part == "archive":
            sign(path)
    try:
        scores = load_model(path).predict(X)
    except XacleStackError:
        return
    assert scores.shape == (len(X),)
    assert np.isfinite(scores).all()


def test_one_estimator_in_two_places_is_saved(tmp_path: Path) -> None:
    ridge = GroupedRidge()
    stack = Stacker([("a", ridge), ("b", ridge)], ridge, n_splits=2, random_state=0)
    path = save_model(tmp_path / "m.skops", [stack.fit(X, X[:, 0]), stack, ridge])
    np.testing.assert_array_equal(load_model(path)[1].predict(X), stack.predict(X))


def test_trees_of_a_user_are_saved_as_arrays(tmp_path: Path) -> None:
    stack = Stacker([("trees", BoostedTrees(5))], n_splits=2, random_state=0).fit(X, X[:, 0])
    path = save_model(tmp_path / "m.skops", stack)
    assert all(
        name == "schema.json" or content[1:6] == b"NUMPY"
        for name, content in members_of(path).items()
    )
    assert b"num_leaves=" not in path.read_bytes()
    np.testing.assert_array_equal(load_model(path).predict(X), stack.predict(X))


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Return a file with one of each estimator that is no part of a stack."""
    a, b = np.random.default_rng(0).normal(size=(2, 30, 5))
    source = PairEmbeddings({"one": (a, b)})
    sequences = SequenceBuilder("byol-a:frames", "roberta-large")
    sequences.n_dims_ = (3, 4)
    model = {
        "builder": FeatureBuilder(["one"], n_components=2).fit(source),
        "spaces": VectorBuilder(["one"]).fit(source),
        "sequences": sequences,
        "listeners": ListenerModel().fit([0, 0, 1, 1], [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.5]),
    }
    return save_model(tmp_path_factory.mktemp("parts"), model)


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        # Not searched for each name in all names, which would take hours.
        ("FeatureBuilder", "spaces", np.arange(100_000).astype(str), "projections_ are not those"),
        ("FeatureBuilder", "projections_", 3, "projections_ are not those of the spaces"),
        ("FeatureBuilder", "spaces", "one", "spaces must be a list of encoder names"),
        ("FeatureBuilder", "n_components", -1, "n_components must be 1 or more"),
        ("VectorBuilder", "slices_", 3, "VectorBuilder: AttributeError"),
        ("VectorBuilder", "spaces", 3, "VectorBuilder: TypeError"),
        ("SequenceBuilder", "n_dims_", 3, "n_dims_ is 3, expected two whole numbers"),
        ("SequenceBuilder", "frames", 3, r"frames and text are \(3, 'roberta-large'\)"),
        ("ListenerModel", "scores_", np.zeros(3), r"scores_ has shape \(3,\), expected \(2,\)"),
        ("ListenerModel", "weights_", np.full(2, np.nan), "weights_ holds NaN"),
        ("ListenerModel", "pair_ids_", None, "ListenerModel: TypeError"),
    ],
)
def test_other_parts_that_do_not_fit_are_refused(
    parts: Path, tmp_path: Path, kind: str, name: str, value: object, message: str
) -> None:
    for path in (parts, parts.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    load_model(tmp_path)
    set_attribute(tmp_path / parts.name, kind, name, value)
    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path)
