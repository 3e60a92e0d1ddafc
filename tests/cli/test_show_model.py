"""`xacle-stack show`."""

import json
from pathlib import Path
from typing import Any

import pytest

from xacle_stack.model_file import card_markdown


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model whose archive is none: its card is read all the same."""
    (tmp_path / "mine.skops").write_text("nothing")
    (tmp_path / "mine.json").write_text(json.dumps({"system": "a [b]\x1b[2J", "metrics": {}}))
    return tmp_path / "mine.skops"


def test_the_card_is_printed_as_the_markdown_beside_the_model(run: Any, model: Path) -> None:
    said = run("show", model)
    assert said == card_markdown(json.loads(model.with_suffix(".json").read_text()), model)
    assert "# a [b]" in said
    assert run.exit_code == 0
    assert run("show", model.with_suffix(".md")) == said


def test_mistakes(run: Any, model: Path, tmp_path: Path) -> None:
    assert "model.skops: no such file" in run("show", tmp_path)
    assert "mine.skops" in run("show", tmp_path)
    model.with_suffix(".json").write_text("{")
    assert "not readable as JSON" in run("show", model)
    assert run.exit_code == 1
