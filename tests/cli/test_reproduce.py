"""`xacle-stack reproduce`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
from support import TOY, WriteData

pytestmark = pytest.mark.usefixtures("few_resamples")
Run = Any


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(
        'spaces = ["mini-mel"]\nseeds = 1\n'
        '[features]\nn_components = 2\n[stacker]\npreset = "paper"\n'
        '[systems.linear]\nkind = "stack"\n[systems.cosine]\nkind = "cosine"\nspace = "mini-mel"\n'
    )
    return path


@pytest.fixture
def data(run: Run, make_data: WriteData, recipe: Path) -> Path:
    data = make_data(train=24, validation=12)
    run("features", "--data", data, "--recipe", recipe, "--quiet")
    run("compare", recipe, "--data", data, "--out", "run", "--quiet", "--jobs", 1)
    return data


def again(run: Run, *options: object) -> str:
    """Return what the command says in one line, and its exit code."""
    said = run("reproduce", "run", "--quiet", "--jobs", 1, *options)
    return f"{' '.join(said.split())} exit code {run.exit_code}"


def test_an_equal_run_reproduces_wherever_its_data_are(
    run: Run, data: Path, tmp_path: Path
) -> None:
    said = again(run)
    assert "Data, recipe, fingerprints, versions and machine are as they were." in said
    assert "validation: before and now" in said
    assert said.endswith("Reproduced: all 9 figures are equal within 0.0005. exit code 0")
    assert sorted(path.name for path in tmp_path.glob("*")) == [
        *("data", "features", "mine.toml", "run")
    ]
    data.rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "features")
    assert "there are no data here any more. Say where with --data." in again(run)
    assert "there is no cache here any more. Say with --store" in again(run, "--data", "moved")
    said = again(run, "--data", "moved", "--store", "store", "--out", "new", "--tolerance", 0)
    assert "New cache of embeddings" in said
    assert "as they were" in said
    assert (tmp_path / "new" / "results.json").is_file()


def test_what_changed_is_told_before_the_figures(run: Run, data: Path, recipe: Path) -> None:
    wav = data / "wav" / "train" / "00003.wav"
    samples, rate = soundfile.read(data / "wav" / "train" / "00004.wav")
    soundfile.write(wav, samples / 2, rate)
    table = data / "meta_data" / "validation_average.csv"
    head, first, *others = table.read_text().splitlines()
    table.write_text("\n".join([head, f"{first.rpartition(',')[0]},0.125", *others]))
    recipe.write_text(recipe.read_text().replace("n_components = 2", "n_components = 3"))
    said = again(run, "--recipe", recipe)
    assert "Not as it was" in said
    assert "data, train: 1 of 24 pairs have changed or are gone" in said
    assert "data, validation: 1 of 12 pairs have changed or are gone" in said
    assert "recipe, features.n_components: 2, now 3" in said
    assert said.index("n_components") < said.index("validation: before and now")
    assert "not reproduced" in said
    assert "differ by more than 0.0005" in said
    assert said.endswith("exit code 1")
    assert again(run, "--recipe", recipe, "--tolerance", 100).endswith("exit code 0")


def test_mistakes(run: Run, data: Path, tmp_path: Path, recipe: Path) -> None:
    path = tmp_path / "run" / "results.json"
    content = json.loads(path.read_text())
    assert "results.json: no such file" in run("reproduce", "data")
    assert "run: it is there already. Give a new folder" in again(run, "--out", "run")
    told = again(run, "--tolerance", -1)
    assert "--tolerance" in told
    assert "exit code 2" in told
    for changed, message in (
        ({"command": None}, "started from Python, not by a command"),
        ({"format_version": 9}, "format 9, but this release reads 1"),
        ({"train": "gone"}, "would be 'gone', but there is no such set"),
        ({"recipe": {**content["recipe"], "spaces": [TOY.name]}}, "not run on a record's word"),
        ({"recipe": {**content["recipe"], "spaces": ["mini-mol"]}}, "mini-mel"),
    ):
        path.write_text(json.dumps({**content, **changed}))
        assert message in again(run)
    path.unlink()
    assert "made by a version that wrote none" in again(run)


def test_a_cross_validation_is_run_again(
    run: Run, make_data: WriteData, tmp_path: Path, recipe: Path
) -> None:
    data = make_data(train=24)
    options = ("--recipe", recipe, "--out", "run", "--quiet", "--jobs", 1)
    said = run("evaluate", "--cv", 2, data, *options)
    assert "24 pairs" in said
    said = again(run)
    assert "cross-validation: before and now" in said
    assert "Reproduced: all 5 figures" in said
