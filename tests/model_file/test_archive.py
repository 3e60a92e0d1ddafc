"""Archives that save_model did not write are refused, and nothing else happens."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile_models import (
    X,
    array_with_header,
    change_schema,
    laughs,
    read_members,
    refusal,
    set_attribute,
    sign,
    write_members,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from xacle_stack.errors import XacleStackError
from xacle_stack.model_file import load_model


def test_a_compressed_archive_is_refused_before_it_is_read(saved: Path) -> None:
    members = {**read_members(saved), "zeros.npy": bytes(10**7)}
    write_members(saved, members, zipfile.ZIP_DEFLATED)
    assert saved.stat().st_size < 10**5
    assert "is compressed or encrypted" in refusal(saved)


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
    members = read_members(saved)
    name = next(name for name in members if name.endswith(".npy"))
    write_members(saved, {**members, name: content})
    assert message in refusal(saved)


def test_members_beside_the_arrays_are_refused(saved: Path) -> None:
    members = read_members(saved)
    write_members(saved, {**members, "code.py": b""})
    assert "its member 'code.py' is neither an array (.npy) nor schema.json" in refusal(saved)
    del members["schema.json"]
    write_members(saved, members)
    assert "it has no schema.json" in refusal(saved)


def test_a_directory_of_very_many_members_is_refused(saved: Path) -> None:
    empty = {f"{number}{'x' * 60_000}.npy": b"" for number in range(80)}
    write_members(saved, {**read_members(saved), **empty})
    assert "its directory has" in refusal(saved)
    with saved.open("ab") as file:
        file.write(b"behind the end")
    sign(saved)
    assert "does not end as a zip archive" in refusal(saved)


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
        index = data.draw(st.integers(0, len(content) - 1))
        flipped[index] ^= 1 << data.draw(st.integers(0, 7))
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
    members = read_members(path)
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
