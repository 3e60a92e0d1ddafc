import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from support import TOY, WriteData

from xacle_stack.errors import ModelFileError, RecipeError
from xacle_stack.experiment import fill_cache, planned_record, run_experiment
from xacle_stack.metrics import Estimate, evaluate
from xacle_stack.pairs import Pairs, read_splits
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.results import LearningCurve, Result
from xacle_stack.run_record import (
    Command,
    Figures,
    RunRecord,
    changes,
    differences,
    read_record,
)

pytestmark = pytest.mark.usefixtures("few_resamples")


def make_recipe(**more: object) -> Recipe:
    settings = {"name": "mine", "spaces": ["mini-mel"], "features": {"n_components": 2}, **more}
    return recipe_from(settings, "a test")


RECIPE = make_recipe()


def record(
    data: Path, recipe: Recipe, store: Path, splits: dict[str, Pairs] | None = None
) -> RunRecord:
    splits = read_splits(data) if splits is None else splits
    fill_cache(data, recipe, store, splits=splits)
    systems = recipe.stack_systems
    return planned_record(
        data, recipe, systems, store, splits=splits, command=Command(name="stack")
    )


@pytest.fixture
def data(make_data: WriteData) -> Path:
    return make_data(train=12, validation=6)


def test_a_run_is_recorded_with_every_figure_in_full(data: Path, tmp_path: Path) -> None:
    recipe, store, out = make_recipe(stacker={"preset": "paper"}), tmp_path / "s", tmp_path / "out"
    fill_cache(data, recipe, store)
    *_, results = run_experiment(data, recipe, recipe.stack_systems, store, out)
    found = read_record(out)
    (figures,) = found.results
    assert figures.metrics["SRCC"][0] == float(results[0].evaluation.srcc)
    assert (figures.system, figures.n_pairs, found.command) == ("mini-mel", 6, None)
    assert (found.train, found.data, found.store) == ("train", str(data), str(store))
    assert found.recipe_again("it") == recipe
    assert found.encoders["mini-mel"].fingerprint == recipe.fingerprints()["mini-mel"]
    assert found.encoders["mini-mel"].licence == "MIT"
    assert {"python", "xacle-stack", "numpy", "scipy", "scikit-learn", "lightgbm"} == {
        *found.versions
    }
    train = found.sets["train"]
    assert (train.n_pairs, train.n_clips, len(train.digests)) == (12, 12, 12)
    assert train.score_range == (
        min(read_splits(data)["train"].scores),
        max(read_splits(data)["train"].scores),
    )
    assert found.machine
    assert "results.json" in (out / "written.txt").read_text()


def test_what_is_undefined_is_null_and_a_curve_is_kept(tmp_path: Path) -> None:
    evaluation = evaluate([1, 2, 3], [2, 2, 2])
    curve = LearningCurve((8, 16), (Estimate(0.5, 0.4, 0.6), Estimate(0.6, 0.5, 0.7)), None)
    figures = Figures.of(Result("a", "test", "stack", evaluation, learning_curve=curve))
    assert math.isnan(float(evaluation.srcc))
    assert figures.metrics["SRCC"] == (None, None, None)
    assert ("SRCC after 16 pairs", (0.6, 0.5, 0.7)) in [*figures.compared()]
    json.dumps(figures.model_dump(mode="json"), allow_nan=False)


def test_equal_runs_differ_in_nothing_wherever_the_data_are(
    make_data: WriteData, tmp_path: Path
) -> None:
    one, other = make_data("one", train=12), make_data("other", train=12)
    found = [record(data, RECIPE, tmp_path / data.name / "store") for data in (one, other)]
    assert differences(*found) == []


def test_what_changed_in_the_data_is_told_by_split(data: Path, tmp_path: Path) -> None:
    store, splits = tmp_path / "store", read_splits(data)
    before, train = record(data, RECIPE, store), splits["train"]
    scores = train.scores.copy()
    scores[3] = 5.25
    captions = ("another caption", *train.captions[1:])
    audio = (*train.audio[:-1], train.audio[0])
    for changed, said in (
        (replace(train, scores=scores), "1 of 12 pairs have changed or are gone, and 1 of now 12"),
        (replace(train, captions=captions), "1 of 12 pairs have changed"),
        (replace(train, audio=audio), "1 of 12 pairs have changed"),
        (replace(train, ratings=None), "12 of 12 pairs have changed"),
        (replace(train, columns={"group": range(12)}), "12 of 12 pairs have changed"),
        (train.take(range(10)), "2 of 12 pairs have changed or are gone, and 0 of now 10"),
        (train.take([*range(11, -1, -1)]), "the same 12 pairs in another order"),
        (replace(train, columns={"note": range(12)}), ""),
    ):
        lines = differences(before, record(data, RECIPE, store, {**splits, "train": changed}))
        assert len(lines) == bool(said)
        assert said in "".join(lines)
        assert not said or lines[0].startswith("data, train: ")
    lines = differences(before, record(data, RECIPE, store, {"train": train}))
    assert lines == ["data, validation: it is not in the data any more"]


def test_changed_settings_fingerprints_and_versions_are_told(data: Path, tmp_path: Path) -> None:
    before = record(data, RECIPE, tmp_path / "store")
    other = make_recipe(stacker={"preset": "paper"})
    assert differences(before, record(data, other, tmp_path / "store")) == [
        "recipe, stacker.preset: none, now 'paper'"
    ]
    named = make_recipe(systems={"a": {"kind": "stack", "boosting_library": "xgboost"}})
    now = record(data, named, tmp_path / "store")
    assert any(line.startswith("version, xgboost: none") for line in differences(before, now)) == (
        now.versions["xgboost"] is not None
    )
    old = before.model_copy(
        update={
            "encoders": {
                "mini-mel": before.encoders["mini-mel"].model_copy(update={"fingerprint": "0" * 16})
            },
            "versions": {**before.versions, "numpy": "1.0", "gone\n": "2"},
            "machine": "another",
            "n_folds": 3,
        }
    )
    lines = differences(old, before)
    assert lines[0] == "folds: 3, now 5"
    assert lines[1].startswith("fingerprint, mini-mel: '0000000000000000', now '")
    assert lines[2].startswith("version, numpy: '1.0', now '")
    assert lines[3] == "version, gone\\n: '2', now none"
    assert lines[4].startswith("machine: another; now ")


def figures_of(*values: float | None) -> RunRecord:
    """Return a record with one system's figures; the last value is the end of an interval."""
    evaluation = evaluate([1, 2, 3, 4], [1, 2, 4, 3])
    figures = Figures.of(Result("a", "test", "stack", evaluation))
    return RunRecord.model_construct(
        results=(figures.model_copy(update={"metrics": {"SRCC": values}}),)
    )


@pytest.mark.parametrize(
    ("now", "difference"),
    [
        ((0.5, 0.4, 0.6), 0.0),
        ((0.5, 0.4, 0.7), 0.1),
        ((0.2, 0.4, 0.7), 0.3),
        ((None, None, None), math.inf),
    ],
)
def test_a_figure_differs_by_its_value_or_an_end_of_its_interval(
    now: tuple[float | None, ...], difference: float
) -> None:
    (change,) = changes(figures_of(0.5, 0.4, 0.6), figures_of(*now))
    assert change.difference == pytest.approx(difference)
    assert (change.split, change.system, change.figure) == ("test", "a", "SRCC")


def test_undefined_figures_are_equal_and_missing_ones_are_not() -> None:
    undefined = figures_of(None, None, None)
    assert changes(undefined, undefined)[0].difference == 0
    (change,) = changes(undefined, RunRecord.model_construct(results=()))
    assert change.now is None
    (change,) = changes(figures_of(0.5, 0.4, 0.6), RunRecord.model_construct(results=()))
    assert change.difference == math.inf


def test_a_record_gives_no_permission_to_run_code(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(spaces=[TOY.name])
    with pytest.raises(RecipeError, match=r"it: its recipe names .* Python file.* --recipe"):
        record(data, recipe, tmp_path / "store").recipe_again("it")
    found = record(data, RECIPE, tmp_path / "store")
    for recipe, message in (
        ({**found.recipe, "spaces": ["mini-mel"] * 20_000}, "longer than any recipe"),
        ({**found.recipe, "auxiliary": ["a\x1bb"]}, "control characters"),
        ({**found.recipe, "spaces": []}, "name one encoder"),
    ):
        with pytest.raises(RecipeError, match=message):
            found.model_copy(update={"recipe": recipe}).recipe_again("it")
    code = {**found.recipe, "code": {"mini-mel": "/somewhere"}}
    assert found.model_copy(update={"recipe": code}).recipe_again("it").code == {}


def test_a_record_that_is_none_is_refused(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ModelFileError, match=r"results.json: no such file. Give the folder of a"):
        read_record(run)
    run.mkdir()
    (run / "results.csv").touch()
    with pytest.raises(ModelFileError, match=r"a version that wrote none.* Run .* again"):
        read_record(run)
    record(data, RECIPE, tmp_path / "store").write(run)
    content = json.loads((run / "results.json").read_text())
    for changed, message in (
        ({**content, "format_version": 2}, "format 2, but this release reads 1"),
        ({**content, "train": 3, "x\n": 1}, r"damaged.*\n.*train: .*\n.*x\\n: Extra"),
        ([], "not the record of a run"),
    ):
        (run / "results.json").write_text(json.dumps(changed))
        with pytest.raises(ModelFileError, match=message):
            read_record(run)
    for text in ("{", "[" * 100_000, "\xff"):
        (run / "results.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ModelFileError, match="not readable as the record of a run"):
            read_record(run)
