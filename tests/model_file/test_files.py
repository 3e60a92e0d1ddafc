"""Models are saved and loaded: whole, in another process, and never what somebody changed."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hostile_models import (
    Node,
    X,
    change_schema,
    first_node,
    read_members,
    refusal,
    sign,
)
from sklearn.linear_model import LinearRegression, SGDRegressor

from xacle_stack.errors import ModelFileError
from xacle_stack.features import FeatureBuilder, PairEmbeddings
from xacle_stack.listeners import ListenerModel
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import BoostedTrees, GroupedRidge, Stacker

# Every kind of stack that is saved.
STACKS = {
    "best": {"n_splits": 2},
    "best rank": {"n_splits": 2, "target": "rank", "score_range": (-100, 100)},
    "paper": {"preset": "paper", "n_components": 8},
    "learners": {"learners": [("linear", LinearRegression()), ("ridge", GroupedRidge())]},
}


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 90, 5))
    source = PairEmbeddings({"one": (a, b)})
    builder = FeatureBuilder(["one"], n_components=2)
    X, y = builder.fit_transform(source), (a * b).sum(1)
    stackers = {name: Stacker(random_state=0, **given).fit(X, y) for name, given in STACKS.items()}
    return builder, stackers, source


@pytest.mark.parametrize("name", STACKS)
def test_a_round_trip_is_exact(fitted, tmp_path: Path, name: str) -> None:
    builder, stackers, source = fitted
    stacker = stackers[name]
    path = save_model(tmp_path / "model.skops", {"builder": builder, "stacker": stacker}, {"x": 1})
    loaded = load_model(path)
    X = builder.transform(source)
    np.testing.assert_array_equal(loaded["builder"].transform(source).values, X.values)
    np.testing.assert_array_equal(loaded["stacker"].predict(X), stacker.predict(X))
    np.testing.assert_array_equal(loaded["stacker"].oof_predictions_, stacker.oof_predictions_)
    assert loaded["stacker"].families_ == stacker.families_
    assert load_model(tmp_path).keys() == loaded.keys()  # by its folder


def test_another_process_predicts_the_same(fitted, tmp_path: Path) -> None:
    builder, stackers, source = fitted
    X = builder.transform(source)
    (tmp_path / "X.pickle").write_bytes(pickle.dumps(X))
    for name, stacker in stackers.items():
        save_model(tmp_path / name, stacker)
    kept = json.dumps({name: sorted(vars(stacker)) for name, stacker in stackers.items()})
    code = """
import json, pickle, sys, numpy as np
from pathlib import Path
from xacle_stack import load_model
folder = Path(sys.argv[1])
X = pickle.loads((folder / "X.pickle").read_bytes())
for name, kept in json.loads(sys.argv[2]).items():
    stacker = load_model(folder / name)
    np.save(folder / name / "y.npy", stacker.predict(X))
    assert sorted(vars(stacker)) == kept
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path), kept], check=True)
    for name, stacker in stackers.items():
        np.testing.assert_array_equal(np.load(tmp_path / name / "y.npy"), stacker.predict(X))


@pytest.mark.parametrize("found", [4, 6, "5", None])
def test_another_format_is_refused(saved: Path, found: object) -> None:
    card = json.loads(saved.with_suffix(".json").read_text())
    saved.with_suffix(".json").write_text(json.dumps({**card, "format_version": found}))
    message = f"model.json: model format {found!r}, .* reads 5.* the release .*xacle-stack 0.*fit"
    with pytest.raises(ModelFileError, match=message):
        load_model(saved)


def test_a_card_without_a_format_is_refused(saved: Path) -> None:
    card = json.loads(saved.with_suffix(".json").read_text())
    del card["format_version"], card["libraries"]
    saved.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(ModelFileError, match="model.json: model format None, .* reads 5.* fit"):
        load_model(saved)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_a_changed_byte_is_refused(saved: Path, share: float) -> None:
    content = bytearray(saved.read_bytes())
    content[round(share * (len(content) - 1))] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"card model\.json"):
        load_model(saved)


def test_a_model_and_the_card_of_another_fit_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path / "a.skops", GroupedRidge())
    save_model(tmp_path / "b.skops", LinearRegression())
    (tmp_path / "b.json").replace(tmp_path / "a.json")
    with pytest.raises(ModelFileError, match=r"card a\.json"):
        load_model(tmp_path / "a.skops")


def test_a_foreign_type_is_refused_before_it_is_built(tmp_path: Path) -> None:
    import skops.io

    path = save_model(tmp_path / "model.skops", LinearRegression())
    skops.io.dump({"stacker": _Foreign()}, path)
    sign(path)
    with pytest.raises(ModelFileError, match=r"refused.*was run") as caught:
        load_model(path)
    assert "_Foreign" in str(caught.value)


class _Foreign:
    def __setstate__(self, state: object) -> None:
        raise AssertionError("it was built")

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}


def test_a_file_changed_to_call_the_shell_is_refused(saved: Path) -> None:
    def change(schema: Node) -> None:
        stacker = first_node(schema, "Stacker")
        stacker["__module__"], stacker["__class__"] = "os", "system"

    change_schema(saved, change)
    with pytest.raises(ModelFileError, match=r"(?s)refused.*was run.*os.system"):
        load_model(saved)


def test_a_call_smuggled_into_a_model_does_not_run(saved: Path, tmp_path: Path) -> None:
    import skops.io

    marker = tmp_path / "marker"
    arguments = json.loads(read_schema(skops.io.dumps((f"touch '{marker}'",))))
    call = {
        "__class__": "system",
        "__module__": "posix",
        "__loader__": "ConstructorFromReduceNode",
        "__id__": 10**9,
        "content": {
            name: arguments[name] for name in arguments if name[0] == "_" or name == "content"
        },
    }

    def smuggle(schema: Node) -> None:
        schema["content"]["content"]["meta"] = call

    change_schema(saved, smuggle)
    with pytest.raises(ModelFileError, match=r"(?s)refused.*was run.*posix.system"):
        load_model(saved)
    assert not marker.exists()
    # The attempt is a real one: once the type is trusted, the call runs.
    trusted = skops.io.get_untrusted_types(file=saved)
    skops.io.load(saved, trusted=trusted)
    assert marker.exists()


def read_schema(content: bytes) -> bytes:
    with zipfile.ZipFile(BytesIO(content)) as archive:
        return archive.read("schema.json")


def test_a_listener_model_is_saved(tmp_path: Path, rng) -> None:
    pairs, listeners = rng.integers(20, size=200), rng.integers(5, size=200)
    ratings = pairs % 7 + listeners % 2 + rng.normal(size=200)
    for settings in ({}, {"standardize": True, "screening": 0.5}):
        model = ListenerModel(**settings).fit(pairs, listeners, ratings)
        again = load_model(save_model(tmp_path / "listeners.skops", model))
        assert again.get_params() == model.get_params()
        np.testing.assert_array_equal(again.scores_for([3, 4]), model.scores_for([3, 4]))
        np.testing.assert_array_equal(again.counted_, model.counted_)


def test_unusable_files_say_why(tmp_path: Path) -> None:
    model = GroupedRidge()
    with pytest.raises(ModelFileError, match="model.skops: no such file"):
        load_model(tmp_path / "model.skops")
    path = save_model(tmp_path / "model.skops", model)
    content = path.read_bytes()
    for damaged in (b"", b"no zip at all", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ModelFileError, match="not readable as a saved model: "):
            load_model(path)
        sign(path)
        with pytest.raises(ModelFileError, match=r"not readable as a saved model \("):
            load_model(path)
    save_model(path, model)
    path.write_bytes(content)
    card = tmp_path / "model.json"
    card.write_text("{")
    with pytest.raises(ModelFileError, match="JSON"):
        load_model(path)
    card.unlink()
    with pytest.raises(ModelFileError, match="model.json: no such file"):
        load_model(path)


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"(?s)not saved.*_Foreign"):
        save_model(tmp_path / "model.skops", {"learner": _Foreign()})
    assert not list(tmp_path.iterdir())
    save_model(tmp_path / "sgd.skops", SGDRegressor())  # scikit-learn's own are fine


def test_a_large_file_is_refused_unread_and_a_setting_reads_it(saved: Path) -> None:
    size = saved.stat().st_size
    message = refusal(saved, max_bytes=size - 1)
    assert f"{size} bytes, more than max_bytes={size - 1}" in message
    assert f"load_model(path, max_bytes={size})" in message
    load_model(saved, max_bytes=size)
    os.truncate(saved, 5 * 2**30)  # sparse: it has no bytes on the disk
    assert "5368709120 bytes, more than max_bytes=4294967296" in refusal(saved)


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
        for name, content in read_members(path).items()
    )
    assert b"num_leaves=" not in path.read_bytes()
    np.testing.assert_array_equal(load_model(path).predict(X), stack.predict(X))
