from collections.abc import Callable
from pathlib import Path

import pytest
from support import TOY, WriteData

pytestmark = pytest.mark.usefixtures("few_resamples")


def test_select_prints_what_can_be_dropped_and_how_to_ask_for_it(
    make_data: WriteData, tmp_path: Path, run: Callable[..., str], caplog
) -> None:
    data = make_data(train=40, validation=12)
    recipe = tmp_path / "toy.toml"
    recipe.write_text(
        f'spaces = ["{TOY.name}"]\n[features]\nn_components = 2\n[stacker]\nn_splits = 2\n'
    )
    options = ("--data", data, "--recipe", recipe, "--store", tmp_path / "store")
    run("features", *options, "--quiet")
    printed = run("stack", *options, "--select", "--out", "out")
    assert "at most 6 stacks are fitted, of up to 2 parts: toy, agreement" in caplog.text
    assert "the smaller ones take at most about" in caplog.text
    assert "validation: 12 pairs" in printed
    assert "Stacks compared out-of-fold on 40 training pairs" in printed
    assert "best without agreement" in printed
    assert "models in out are those of the recipe as it is" in printed
    assert f'spaces = ["{TOY.name}"]\n' in printed
    assert (tmp_path / "out" / "selection.csv").is_file()
    run("stack", *options, "--quiet", "--out", "out")
    assert not (tmp_path / "out" / "selection.csv").exists()
