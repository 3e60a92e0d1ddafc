"""The card beside a saved model."""

import json
import os
from pathlib import Path

import pytest
from hostile_models import refusal
from sklearn.linear_model import LinearRegression

from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import load_card, load_model, save_model
from xacle_stack.stacking import GroupedRidge


def test_the_card_is_readable_json(tmp_path: Path) -> None:
    save_model(tmp_path / "model.skops", LinearRegression(), {"recipe": {"name": "mine"}})
    card = json.loads((tmp_path / "model.json").read_text())
    assert card == load_card(tmp_path / "model.skops")
    assert card["recipe"] == {"name": "mine"}
    assert card["format_version"] == 5
    assert {"xacle-stack", "scikit-learn", "lightgbm"} <= set(card["libraries"])


def test_a_card_is_plain_json_and_keeps_its_own_facts(tmp_path: Path) -> None:
    path = save_model(tmp_path / "m.skops", LinearRegression(), {"format_version": 9})
    assert load_card(path)["format_version"] == 5
    load_model(path)
    for value in (float("nan"), object()):
        with pytest.raises(ModelFileError, match="plain JSON"):
            save_model(tmp_path / "new.skops", LinearRegression(), {"srcc": value})
    assert not (tmp_path / "new.skops").exists()


def test_a_model_is_found_by_its_card_and_others_are_named(tmp_path: Path) -> None:
    path = save_model(tmp_path / "models" / "head.skops", GroupedRidge())
    assert isinstance(load_model(path.with_suffix(".json")), GroupedRidge)
    with pytest.raises(ModelFileError, match="models/head.skops"):
        load_model(tmp_path)


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
        (b"[]", "it holds a list, expected an object"),
        (b"\xff", "not readable as JSON"),
        (b" " * (5 * 2**20), "5242880 bytes, where a card has 4194304 or fewer"),
        (b'{"format_version": "' + b"\\u001b" * 10**5 + b'"}', "model format '"),
        (b'{"format_version": 5, "model_digest": {}}', "not the file that its card"),
    ],
)
def test_a_card_that_is_none_is_refused(saved: Path, content: bytes, message: str) -> None:
    saved.with_suffix(".json").write_bytes(content)
    assert message in refusal(saved)
    assert len(refusal(saved)) < 1000
    assert "\x1b" not in refusal(saved)
