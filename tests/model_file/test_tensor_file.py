"""The numbers of large arrays lie beside a model: exact, unread until used, and never another's."""

import errno
import json
import mmap
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hostile_models import X, change_schema, first_node, nodes, refusal, sign
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator

from xacle_stack._large_arrays import LargeArrays
from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import load_card, load_model, save_model
from xacle_stack.stacking import GroupedRidge

FILES = ("m.skops", "m.json", "m.safetensors")


class Unseen:
    """Its attributes are in no __dict__, so large arrays in it are not found."""

    __slots__ = ("large",)

    def __getstate__(self) -> dict[str, object]:
        return {"large": self.large}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.large = state["large"]


class Holder(BaseEstimator):
    """A user's own estimator."""


def make(seed: int = 0, shape: tuple[int, ...] = (3, 5)) -> LargeArrays:
    rng = np.random.default_rng(seed)
    return LargeArrays(
        {
            "half": rng.normal(size=7).astype(np.float16),
            "weight": rng.normal(size=shape).astype(np.float32),
            "turned": rng.normal(size=(4, 6)).T,
            "count": np.array(3),
            "bytes": np.arange(5, dtype=np.uint8),
            "big-endian": np.arange(4, dtype=">f4"),
            "ä\n": np.array([np.nan, -0.0]),
        }
    )


def assert_equal(found: LargeArrays, expected: LargeArrays) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.astype(found[name].dtype).tobytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(tmp_path / "m.skops", {"a": make(), "b": [make(1)]})


def test_a_round_trip_is_exact_and_the_archive_has_no_numbers(saved: Path) -> None:
    assert sorted(contents(saved.parent)) == sorted(FILES)
    assert b".npy" not in saved.read_bytes()
    for path in (saved, saved.with_suffix(".safetensors")):
        loaded = load_model(path)
        assert_equal(loaded["a"], make())
        assert_equal(loaded["b"][0], make(1))


def test_the_package_safetensors_reads_the_file(saved: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    found = package.load_file(saved.with_suffix(".safetensors"))
    expected = {f"0/{name}": array for name, array in make().items()}
    expected |= {f"1/{name}": array for name, array in make(1).items()}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=array.dtype.isnative)


def test_arrays_stay_in_the_file_and_writing_to_them_does_not_change_it(saved: Path) -> None:
    before = saved.with_suffix(".safetensors").read_bytes()
    one, other = load_model(saved)["a"], load_model(saved)["a"]
    assert isinstance(one["weight"].base, mmap.mmap)
    assert all(array.flags.aligned for array in one.values())
    one["weight"][:] = 0
    assert_equal(other, make())
    assert saved.with_suffix(".safetensors").read_bytes() == before


def test_a_file_system_that_cannot_map_files_is_read(saved: Path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, "no such device")

    monkeypatch.setattr(mmap, "mmap", fail)
    assert_equal(load_model(saved)["b"][0], make(1))


def test_an_estimator_has_its_arrays_when_its_state_is_checked(tmp_path: Path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        GroupedRidge, "check_state", lambda ridge: seen.append(ridge.weights_["weight"].sum())
    )
    ridge = GroupedRidge().fit(X, X[:, 0])
    ridge.weights_ = make()
    loaded = load_model(save_model(tmp_path, [ridge, ridge]))
    assert seen == [make()["weight"].sum()] * 2  # when it was saved, and now
    assert loaded[0] is loaded[1]
    assert_equal(loaded[1].weights_, make())
    # Saved again under its own name, while its arrays are in the file.
    again = load_model(save_model(tmp_path, loaded))
    assert_equal(again[1].weights_, make())
    assert_equal(loaded[1].weights_, make())


def test_a_trained_network_predicts_the_same(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from xacle_stack.systems import TransformerRegressor

    model = TransformerRegressor(epochs=1, warmup_epochs=0, optimizer="adam", score_weighting=0)
    expected = model.fit(X, X[:, 0]).predict(X)
    model.weights_ = LargeArrays(model.weights_)
    assert load_model(save_model(tmp_path, model)).predict(X).tobytes() == expected.tobytes()


def test_loaded_arrays_go_to_workers(saved: Path) -> None:
    large = load_model(saved)["a"]
    assert_equal(pickle.loads(pickle.dumps(large)), make())
    (found,) = Parallel(n_jobs=2)(delayed(dict)(one) for one in [large])
    np.testing.assert_array_equal(found["weight"], large["weight"])


def test_users_types_hold_large_arrays_where_they_are_found(tmp_path: Path) -> None:
    holder, unseen = Holder(), Unseen()
    holder.weights_ = unseen.large = make()
    loaded = load_model(save_model(tmp_path, holder, trusted=[Holder]), trusted=[Holder])
    assert_equal(loaded.weights_, make())
    before = contents(tmp_path)
    with pytest.raises(ModelFileError, match=r"has 1 LargeArrays, of which 0 .* an attribute"):
        save_model(tmp_path, unseen, trusted=[Unseen])
    assert contents(tmp_path) == before


def test_saving_and_loading_take_no_second_copy(tmp_path: Path) -> None:
    n_bytes = 200 * 2**20
    arrays = {str(number): np.ones((2**20, 5), dtype=np.float32) for number in range(10)}
    ridge = GroupedRidge().fit(X, X[:, 0])
    ridge.weights_ = LargeArrays(arrays)
    assert ridge.weights_.n_bytes == n_bytes
    save_model(tmp_path / "small", GroupedRidge())  # imports what saving needs
    tracemalloc.start()
    try:
        path = save_model(tmp_path, ridge)
        assert path.with_suffix(".safetensors").stat().st_size > n_bytes
        loaded = load_model(path)
        assert tracemalloc.get_traced_memory()[1] < n_bytes / 10
    finally:
        tracemalloc.stop()
    assert loaded.weights_["9"][-1, -1] == 1


# What is there before and after ------------------------------------------------------------------


def test_a_model_without_large_arrays_removes_the_file_of_an_earlier_one(saved: Path) -> None:
    card = load_card(saved)
    assert card["tensors_digest"]
    save_model(saved, GroupedRidge(), card)
    assert sorted(contents(saved.parent)) == ["m.json", "m.skops"]
    load_model(saved)


@pytest.mark.parametrize("content", [b"", b"weights of a language model" * 9])
def test_a_file_of_another_origin_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    theirs = tmp_path / "model.safetensors"
    theirs.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"replace model\.safetensors.*another name"):
        save_model(tmp_path, make())
    assert contents(tmp_path) == {theirs.name: content}
    load_model(save_model(tmp_path, GroupedRidge()))
    assert theirs.read_bytes() == content


@pytest.mark.parametrize("n_renamed", [0, 1, 2])
def test_a_rename_that_fails_leaves_the_old_model_or_one_clear_error(
    saved: Path, monkeypatch, n_renamed: int
) -> None:
    before, renamed = contents(saved.parent), []
    replace = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if len(renamed) == n_renamed:
            raise OSError(errno.EIO, "Input/output error")
        renamed.append(target.name)
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(ModelFileError, match=r"m\.skops: cannot be written: Input/output"):
            save_model(saved, {"a": make(5)})
    assert renamed == ["m.safetensors", "m.skops"][:n_renamed]
    assert sorted(contents(saved.parent)) == sorted(FILES)
    if n_renamed == 0:
        assert contents(saved.parent) == before
    else:
        assert "not the file that its card m.json describes" in refusal(saved)
    assert_equal(load_model(save_model(saved, make(5))), make(5))


# Ends a process before its first step at the files, then before its second, until it gets through.
KILLS = """
import json, os, shutil, sys
from itertools import count
from pathlib import Path
import numpy as np
from xacle_stack._large_arrays import LargeArrays
from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import load_model, save_model

root = Path(sys.argv[1]).resolve()
old, new = (LargeArrays({"w": np.full(9, value)}) for value in (1.0, 2.0))
models = {"arrays": new, "none": [1.0]}

def save(at):
    n_steps = 0
    def step(event, arguments):
        nonlocal n_steps
        if any(str(root) in str(argument) for argument in arguments):
            if n_steps == at:
                os._exit(9)
            n_steps += 1
    sys.addaudithook(step)
    save_model(root, models[sys.argv[2]])
    os._exit(0)

def value():
    try:
        return float(load_model(root)["w"][0]) if isinstance(load_model(root), LargeArrays) else 2
    except ModelFileError as error:
        return str(error)

seen = []
for at in count():
    shutil.rmtree(root, ignore_errors=True)
    save_model(root, old)
    child = os.fork()
    if child == 0:
        save(at)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    at_once = value()
    save_model(root, models[sys.argv[2]])
    seen.append([at_once, value(), sorted(os.listdir(root))])
    if ended == 0:
        break
print(json.dumps(seen))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed in forks")
@pytest.mark.parametrize("new", ["arrays", "none"])
def test_whenever_a_process_is_killed_there_is_one_model_or_one_clear_error(
    tmp_path: Path, new: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path / "root"), new],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    states = [at_once for at_once, _, _ in seen]
    first_new = states.index(2)
    errors = [state for state in states[:first_new] if state != 1]
    assert states[: first_new - len(errors)] == [1] * (first_new - len(errors))
    assert errors
    assert all("not the file that its card model.json describes" in error for error in errors)
    assert all(state == 2 for state in states[first_new:])
    endings = ["json", "safetensors", "skops"] if new == "arrays" else ["json", "skops"]
    for _, afterwards, files in seen:
        assert afterwards == 2
        assert files == [f"model.{ending}" for ending in endings]


# What somebody changed ---------------------------------------------------------------------------


def test_a_missing_file_is_named(saved: Path) -> None:
    saved.with_suffix(".safetensors").unlink()
    assert "m.safetensors: no such file" in (message := refusal(saved))
    assert "keep the three files" in message


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_changed_byte_is_refused(saved: Path, share: float) -> None:
    tensors = saved.with_suffix(".safetensors")
    content = bytearray(tensors.read_bytes())
    content[round(share * (len(content) - 1))] ^= 1
    tensors.write_bytes(content)
    assert "m.safetensors: not readable as a saved model: it is not" in refusal(saved)


def test_files_of_two_models_are_not_mixed(saved: Path) -> None:
    other = save_model(saved.with_name("other.skops"), {"a": make(2), "b": [make(3)]})
    for suffix in (".safetensors", ".skops"):
        mixed = saved.with_name("mixed.skops")
        for ending in (".skops", ".json", ".safetensors"):
            source = other if ending == suffix else saved
            shutil.copy(source.with_suffix(ending), mixed.with_suffix(ending))
        assert f"mixed{suffix}: not readable as a saved model: it is not" in refusal(mixed)


def test_a_pipe_is_not_opened(saved: Path) -> None:
    saved.with_suffix(".safetensors").unlink()
    os.mkfifo(saved.with_suffix(".safetensors"))
    assert "m.safetensors: a folder, a pipe or a device" in refusal(saved)
    with pytest.raises(ModelFileError, match=r"m\.safetensors, which is of another origin"):
        save_model(saved, make())


def test_the_limit_counts_both_files(saved: Path) -> None:
    size = sum(saved.with_suffix(ending).stat().st_size for ending in (".skops", ".safetensors"))
    message = refusal(saved, max_bytes=size - 1)
    assert f"m.skops and m.safetensors: {size} bytes, more than max_bytes={size - 1}" in message
    load_model(saved, max_bytes=size)
    os.truncate(saved.with_suffix(".safetensors"), 5 * 2**40)  # sparse
    assert "more than max_bytes=4294967296" in refusal(saved)


def other_length(content: bytes) -> bytes:
    return content[:8].replace(content[:1], bytes([content[0] ^ 8]), 1) + content[8:]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:100],
        lambda content: content.replace(b'"F32"', b'"I32"', 1),
        lambda content: content.replace(b"[3,5]", b"[5,3]", 1),
        lambda content: content.replace(b'"0/half"', b'"0/calf"', 1),
        lambda content: b"\xff" * 8 + content[8:],
        other_length,
    ],
)
def test_a_signed_file_of_other_arrays_is_refused(saved: Path, change) -> None:
    tensors = saved.with_suffix(".safetensors")
    content = tensors.read_bytes()
    tensors.write_bytes(change(content))
    assert tensors.read_bytes() != content
    sign(saved)
    assert "does not hold the 14 arrays that it lists" in refusal(saved)


def test_one_array_more_or_less_is_refused(saved: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    tensors = saved.with_suffix(".safetensors")
    arrays = package.load_file(tensors)
    for changed in ({**arrays, "2/more": np.ones(3)}, dict(list(arrays.items())[1:])):
        package.save_file(changed, tensors)
        sign(saved)
        assert "does not hold the 14 arrays that it lists" in refusal(saved)


def set_first_item(schema: dict, value: str) -> None:
    array = first_node(schema, "LargeArrays")["content"]["content"]["arrays"]["content"]["weight"]
    array["content"][1] = {**array["content"][1], "content": value, "__id__": 10**9}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("4", "does not hold the 14 arrays"),
        (str(2**62), "does not hold the 14 arrays"),
        ("-3", "no length of zero"),
        ("true", "no length of zero"),
        ('"x"', "no length of zero"),
    ],
)
def test_an_archive_that_lists_other_arrays_is_refused(
    saved: Path, value: str, message: str
) -> None:
    change_schema(saved, lambda schema: set_first_item(schema, value))
    assert message in refusal(saved)


def test_an_archive_without_a_list_is_refused(saved: Path) -> None:
    def remove(schema: dict) -> None:
        for node in nodes(schema):
            if node["__class__"] == "LargeArrays":
                node["content"] = None

    change_schema(saved, remove)
    assert "not readable as a saved model" in refusal(saved)


def test_a_card_that_disagrees_with_the_archive_is_refused(saved: Path) -> None:
    card = saved.with_suffix(".json")
    facts = json.loads(card.read_text())
    for nothing in ({**facts, "tensors_digest": None}, {**facts, "tensors_digest": [1]}):
        card.write_text(json.dumps(nothing))
        refusal(saved)
    del facts["tensors_digest"]
    card.write_text(json.dumps(facts))
    assert "disagree whether it has a m.safetensors" in refusal(saved)
    plain = save_model(saved.with_name("plain.skops"), GroupedRidge())
    shutil.copy(saved.with_suffix(".safetensors"), plain.with_suffix(".safetensors"))
    load_model(plain)  # a file that its card does not name is not looked at
    sign(plain)
    assert "disagree whether it has a plain.safetensors" in refusal(plain)


def test_arrays_that_are_referred_to_very_often_are_refused(tmp_path: Path) -> None:
    large = make()
    load_model(save_model(tmp_path, [large] * 16))
    with pytest.raises(ModelFileError, match="referred to so often"):
        save_model(tmp_path, [large] * 17)
