"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from support import TOY, WriteData

from xacle_stack import read_pairs

pytestmark = pytest.mark.usefixtures("few_resamples")
Run = Callable[..., str]


@pytest.fixture
def table(make_data: WriteData, tmp_path: Path) -> Path:
    """Return a table of the splits of a data set, whose clips lie elsewhere."""
    data = make_data(train=40, validation=20)
    frames = []
    for split in ("train", "validation"):
        pairs = read_pairs(data, split)
        frame = {"clip no.": [f"{split}/{path.name}" for path in pairs.audio]}
        frame |= {"what": pairs.captions, "score": pairs.scores, "split": split}
        frames.append(pd.DataFrame(frame))
    path = tmp_path / "tables" / "pilot.csv"
    path.parent.mkdir()
    pd.concat(frames).to_csv(path, index=False)
    return path


def test_every_command_takes_a_table(run: Run, table: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "toy.toml"
    recipe.write_text(f'spaces = ["{TOY.name}"]\n[features]\nn_components = 2\n')
    text = ("--text-column", "what")
    columns = ("--audio-column", "clip no.", *text, "--audio-root", tmp_path / "data" / "wav")
    store = ("--store", tmp_path / "store", "--quiet")
    options = ("--data", table, "--recipe", recipe, *store)

    assert "toy: 60 clips encoded" in run("features", *options, *columns)
    printed = run("stack", *options, *columns)
    assert "validation: 20 pairs" in printed
    model = tmp_path / "runs" / "toy-pilot"
    assert (model / "model.skops").is_file()

    out = tmp_path / "scores.csv"
    more = (*options, *columns, "--split", "validation", "--out", out)
    assert "20 scores" in run("score", model, *more)
    assert len(out.read_text().splitlines()) == 21
    printed = run("evaluate", out, "--data", table, *text, "--split", "validation")
    assert "SRCC" in printed
    # Without PyTorch there are no networks to compare.
    system = f'[systems.cosine]\nkind = "cosine"\nspace = "{TOY.name}"\n'
    recipe.write_text(recipe.read_text() + system)
    printed = run("compare", recipe, "--data", table, *store, *columns)
    assert (tmp_path / "runs" / "compare-toy-pilot" / "results.csv").is_file(), printed


def test_mistakes_in_a_table_name_the_option(run: Run, table: Path) -> None:
    assert "--audio-column" in run("features", "--data", table)
    named = ("--audio-column", "clip no.", "--text-column", "what")
    assert "--audio-root" in run("stack", "--data", table, *named)
    assert "Did you mean 'what'" in run("stack", "--data", table, "--text-column", "waht")
    assert "several sets: train, validation" in run(
        "evaluate", "x.csv", "--data", table, *named[2:]
    )
