import csv
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from support import TESTS, TOY, WriteData, write_csv

from xacle_stack.comparison import compare_systems
from xacle_stack.comparison.parameters import count_parameters
from xacle_stack.errors import (
    CacheError,
    MissingExtraError,
    ModelFileError,
    PairsError,
    RecipeError,
)
from xacle_stack.experiment import fill_cache, load_system, score_pairs
from xacle_stack.metrics import evaluate, probability_better, srcc
from xacle_stack.model_file import load_card, load_model
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.stacking.calibration import keep_in_range
from xacle_stack.submission import read_predictions
from xacle_stack.systems.fitted import FittedSystem
from xacle_stack.targets import Targets

pytestmark = pytest.mark.usefixtures("few_resamples")

QUIET = {"n_jobs": 1, "progress": False}
FRAMES = f"{TESTS / 'toy_encoder.py'}:ToyFrames"
CHEAP = {
    "linear": {"kind": "stack", "preset": "paper"},
    "cosine": {"kind": "cosine", "space": TOY.name},
    "both": {"kind": "ensemble", "of": ["linear", "cosine"], "method": "rank"},
}


def recipe_of(systems: dict[str, dict[str, object]], **more: object) -> Recipe:
    settings = {
        "name": "toy",
        "spaces": [TOY.name],
        "features": {"n_components": 2},
        "systems": systems,
        "seeds": 2,
        **more,
    }
    return recipe_from(settings, "a test")


@pytest.fixture
def data(make_data: WriteData) -> Path:
    return make_data(train=40, validation=24, test=16)


def compared(data: Path, recipe: Recipe, tmp_path: Path) -> list:
    fill_cache(data, recipe, tmp_path / "store", **QUIET)
    *_, results = compare_systems(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET)
    return [result for result in results if result.split == "test"]


def test_the_table_holds_what_the_scores_give(data: Path, tmp_path: Path) -> None:
    recipe, out = recipe_of(CHEAP), tmp_path / "out"
    linear, cosine, both = compared(data, recipe, tmp_path)
    assert [(s.system, s.kind, s.n_seeds) for s in (linear, cosine, both)] == [
        ("linear", "stack", 2),
        ("cosine", "cosine", 1),
        ("both", "ensemble", 2),
    ]
    truth = read_pairs(data, "test").scores
    model = load_model(out / "models" / "cosine.skops")
    scores = model["stacker"].predict(
        model["builder"].transform(_cached(recipe, data, tmp_path)["test"])
    )
    assert cosine.evaluation == evaluate(truth, scores)
    written = read_predictions(out / "scores-test-cosine.csv", read_pairs(data, "test").ids)
    np.testing.assert_allclose(written, scores, atol=0.006)
    assert math.isnan(cosine.srcc_spread)
    assert linear.srcc_spread >= 0
    assert math.isnan(linear.probability_better)
    assert 0 <= cosine.probability_better <= 1
    model = load_model(out / "models" / "linear.skops")
    assert linear.n_parameters == count_parameters([model["builder"], model["stacker"]])
    assert set(load_card(out / "models" / "cosine.skops")["recipe"]["systems"]) == {"cosine"}
    assert both.fit_s == pytest.approx(linear.fit_s + cosine.fit_s)
    assert both.n_parameters == linear.n_parameters + cosine.n_parameters


def test_seeds_are_averaged(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of({"linear": CHEAP["linear"], "again": CHEAP["linear"]})
    one, other = compared(data, recipe, tmp_path)
    truth = read_pairs(data, "test").scores
    singles = []
    for seed in (0, 1):
        alone = recipe.new_stacker().set_params(preset="paper", random_state=seed)
        model = load_model(tmp_path / "out" / "models" / "linear.skops")
        cached = _cached(recipe, data, tmp_path)
        alone.fit(model["builder"].transform(cached["train"]), read_pairs(data, "train").scores)
        scores = alone.predict(model["builder"].transform(cached["test"]))
        singles.append(srcc(truth, scores))
    assert one.evaluation.srcc.value == pytest.approx(np.mean(singles))
    assert one.srcc_spread == pytest.approx(np.std(singles, ddof=1))
    assert other.probability_better == 0.5


def _cached(recipe: Recipe, data: Path, tmp_path: Path) -> dict:
    from xacle_stack.cache import FeatureCache

    cache = FeatureCache(tmp_path / "store")
    return {
        split: cache.load(read_pairs(data, split), recipe.fingerprints())
        for split in ("train", "validation", "test")
    }


def test_finished_systems_are_there_when_a_later_one_fails(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(CHEAP)
    fill_cache(data, recipe, tmp_path / "store", **QUIET)
    steps = compare_systems(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET)
    assert {result.system for result in next(steps)} == {"linear"}
    assert (tmp_path / "out" / "models" / "linear.skops").is_file()
    assert not (tmp_path / "out" / "models" / "cosine.skops").exists()


def test_the_reference_comes_first_and_averages_last(data: Path, tmp_path: Path) -> None:
    systems = {"both": CHEAP["both"], "linear": CHEAP["linear"], "cosine": CHEAP["cosine"]}
    found = compared(data, recipe_of(systems, reference="cosine", seeds=1), tmp_path)
    assert [result.system for result in found] == ["cosine", "linear", "both"]
    truth = read_pairs(data, "test").scores
    cached = _cached(recipe_of(systems), data, tmp_path)
    scores = {}
    for name in ("cosine", "linear"):
        model = load_model(tmp_path / "out" / "models" / f"{name}.skops")
        scores[name] = model["stacker"].predict(model["builder"].transform(cached["test"]))
    expected = probability_better(truth, scores["linear"], scores["cosine"])
    assert found[1].probability_better == expected


@pytest.mark.parametrize(
    "system",
    [
        {"kind": "transformer", "space": TOY.name, "epochs": 2, "gate": "batch"},
        {"kind": "transformer", "space": TOY.name, "epochs": 2, "gate": "none"},
        {"kind": "projection-head", "loss": "listnet"},
        {"kind": "lstm", "frames": f"{FRAMES}:frames", "text": FRAMES, "epochs": 1},
    ],
    ids=["gated", "transformer", "head", "lstm"],
)
def test_networks_train_save_load_and_score(
    data: Path, tmp_path: Path, system: dict[str, object]
) -> None:
    pytest.importorskip("torch")
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")
    recipe = recipe_of({"net": system}, seeds=1)
    (net,) = compared(data, recipe, tmp_path)
    assert net.n_parameters > 0
    fitted, of_card = load_system(tmp_path / "out" / "models" / "net.skops", recipe)
    test = read_pairs(data, "test")
    again, _ = score_pairs(fitted, of_card, test, tmp_path / "another store")
    written = read_predictions(tmp_path / "out" / "scores-test-net.csv", test.ids)
    np.testing.assert_allclose(again, written, atol=0.006)


def test_an_interrupted_training_stops_the_comparison_and_leaves_its_best_state(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from xacle_stack.systems import transformer

    loss, calls = transformer.weighted_mse, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:  # a batch and a validation an epoch: in the third
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(transformer, "weighted_mse", interrupted)
    system = {"kind": "transformer", "space": TOY.name, "epochs": 4, "optimizer": "adam"}
    recipe = recipe_of({"cosine": CHEAP["cosine"], "net": system, "later": CHEAP["cosine"]})
    fill_cache(data, recipe, tmp_path / "store", **QUIET)
    finished = []

    def start() -> None:
        for systems in compare_systems(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET):
            finished[:] = {one.system for one in systems}

    message = r"after 2 of 4 epochs \(interrupted\)"
    with pytest.warns(UserWarning, match=message), pytest.raises(KeyboardInterrupt):
        start()
    assert finished == ["cosine"]
    models = tmp_path / "out" / "models"
    model = load_model(models / "net-interrupted.skops")
    cached = _cached(recipe, data, tmp_path)
    assert model["stacker"].was_interrupted_
    assert model["stacker"].predict(model["builder"].transform(cached["test"])).shape == (16,)
    assert not (models / "net.skops").exists()
    assert not (models / "later.skops").exists()

    monkeypatch.setattr(transformer, "weighted_mse", loss)
    *_, systems = compare_systems(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET)
    assert len({one.system for one in systems}) == 3
    assert sorted(path.stem for path in models.glob("*.skops")) == ["cosine", "later", "net"]
    assert not (models / "net-interrupted.json").exists()


def test_whenever_a_comparison_is_looked_at_its_parts_belong_together(
    data: Path, tmp_path: Path
) -> None:
    recipe, out = recipe_of(CHEAP), tmp_path / "out"
    fill_cache(data, recipe, tmp_path / "store", **QUIET)
    states = []
    for _ in range(2):  # the second one replaces the first
        for systems in compare_systems(data, recipe, tmp_path / "store", out, **QUIET):
            trained = {one.system for one in systems if one.kind != "ensemble"}
            scored = {path.stem for path in out.glob("scores-test-*.csv")}
            table = (out / "results.csv").read_text("utf-8").splitlines()
            rows = list(csv.DictReader(table))
            assert {row["system"] for row in rows} == {one.system for one in systems}
            assert {path.stem for path in out.glob("models/*.skops")} == trained
            assert scored == {f"scores-test-{one.system}" for one in systems}
            assert all(load_model(path) for path in out.glob("models/*.skops"))
            states.append(sorted({one.system for one in systems}))
    assert states[:3] == states[3:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out", "store"]


def test_a_comparison_that_is_stopped_at_once_leaves_the_earlier_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = recipe_of({"cosine": CHEAP["cosine"]}), tmp_path / "out"
    compared(data, recipe, tmp_path)
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xacle_stack.systems.CosineRegressor.fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        next(compare_systems(data, recipe, tmp_path / "store", out, **QUIET))
    assert {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()} == before


def test_targets_of_a_listener_model_reach_every_system(data: Path, tmp_path: Path) -> None:
    file = data / "meta_data" / "train.csv"
    rows = list(csv.reader(file.read_text().splitlines()))
    for row in rows[4::4]:
        row[2] = str(min(float(row[2]) + 1.5, 10))  # one lenient listener
    write_csv(file, [row for number, row in enumerate(rows) if number % 7 != 1])
    recipe = recipe_of(CHEAP, seeds=1, listener_model=True)
    compared(data, recipe, tmp_path)
    cached = _cached(recipe, data, tmp_path)["train"]
    targets = Targets.of(cached.pairs, recipe)
    assert (targets.scores != cached.pairs.scores).any()
    assert np.ptp(targets.sample_weight) > 0
    for name in ("linear", "cosine"):
        model = load_model(tmp_path / "out" / "models" / f"{name}.skops")
        table = model["builder"].transform(cached)
        again = clone(model["stacker"])
        again.fit(table, targets.scores, sample_weight=targets.sample_weight)
        np.testing.assert_array_equal(again.predict(table), model["stacker"].predict(table))


def test_a_data_set_that_cannot_be_compared_on(make_data: WriteData, tmp_path: Path) -> None:
    recipe = recipe_of(CHEAP)

    def start(data: Path) -> None:
        next(compare_systems(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET))

    with pytest.raises(PairsError, match="no train split with scores to fit on"):
        start(make_data("a", validation=10))
    with pytest.raises(PairsError, match="no split but train has scores"):
        start(make_data("b", train=10))
    with pytest.raises(PairsError, match="the split 'test' has one pair; metrics need two"):
        start(make_data("one", train=10, validation=10, test=1))
    with pytest.raises(CacheError, match="xacle-stack features"):
        start(make_data("c", train=10, validation=5))


@pytest.mark.parametrize(
    ("systems", "more", "message"),
    [
        ({"x": {"kind": "forest"}}, {}, "systems.x: .*'forest'"),
        ({"x": {"kind": "cosine"}}, {}, "systems.x.cosine.space: field required"),
        ({"x": {"kind": "cosine", "space": "mini-mel"}}, {}, "'mini-mel' is not among"),
        ({"x": {"kind": "stack", "depth": 3}}, {}, "systems.x.stack.depth: unknown setting"),
        ({"x": {"kind": "lstm", "epoch": 3}}, {}, "unknown setting; did you mean 'epochs'"),
        ({"x": {"preset": "paper"}}, {}, "systems.x: the setting 'kind' is missing: say which"),
        (
            {"x": {"kind": "ensemble", "of": ["x", "x"]}},
            {},
            "systems: there are only averages; name what they are averages of",
        ),
        (
            {"x": {"kind": "ensemble", "of": ["y", "z"]}},
            {},
            "systems.x: 'y' is no system to average",
        ),
        (CHEAP, {"reference": "nobody"}, "reference: there is no system 'nobody'"),
        (CHEAP, {"seeds": 0}, "seeds: input should be greater than 0"),
        (CHEAP, {"reference": "both"}, "reference: 'both' is an average of others; name one that"),
        (
            {"a b": CHEAP["cosine"], "A-b": CHEAP["cosine"]},
            {},
            "the files of 'a b' and 'A-b' would have the same name",
        ),
    ],
)
def test_mistakes_in_a_recipe(systems, more, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe_of(systems, **more)


def test_without_systems_one_of_each_kind_is_compared() -> None:
    recipe = recipe_of({})
    kinds = {system.kind for system in recipe.contenders.values()}
    assert kinds == {"stack", "cosine", "transformer", "projection-head", "ensemble"}
    assert next(iter(recipe.contenders)) == "stack"


def test_a_model_names_only_the_encoders_that_it_needs() -> None:
    recipe = recipe_from(
        {
            "name": "several",
            "spaces": ["mini-mel", "mini-mod"],
            "views": {"mini-mod": 2},
            "checkpoints": {"byol-a": "weights.pth"},
            "systems": {
                "zero-shot": {"kind": "cosine", "space": "mini-mod"},
                "linear": {"kind": "stack"},
                "frames": {"kind": "lstm"},
            },
            "reference": "linear",
        },
        "a test",
    )
    named = {
        name: [choice.name for choice in recipe.for_scoring_with(name).encoders]
        for name in recipe.contenders
    }
    assert named == {
        "zero-shot": ["mini-mod"],
        "linear": ["mini-mel", "mini-mod"],
        "frames": ["mini-mel", "mini-mod", "byol-a", "roberta-large"],
    }
    card = recipe.for_scoring_with("zero-shot").origin()
    assert recipe_from(card["recipe"], "a card").spaces == ("mini-mod",)
    assert list(card["fingerprints"]) == ["mini-mod"]


def test_an_epoch_is_chosen_on_a_validation_split_only_if_there_is_one(
    make_data: WriteData, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    recipe = recipe_of({"net": {"kind": "projection-head", "choose_epoch_on": "validation"}})
    data = make_data(train=10, test=5)
    with pytest.raises(PairsError, match="no validation split with scores, where the system 'net'"):
        next(compare_systems(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET))


def test_a_split_of_equal_scores_is_told(data: Path, tmp_path: Path, caplog) -> None:
    file = data / "meta_data" / "test_average.csv"
    header, *rows = csv.reader(file.read_text().splitlines())
    write_csv(file, [header, *([name, text, 5.0] for name, text, _ in rows)])
    *_, cosine = compared(data, recipe_of({"cosine": CHEAP["cosine"]}), tmp_path)
    assert "all scores of the split 'test' are equal: correlations with them are" in caplog.text
    assert math.isnan(cosine.evaluation.srcc.value)


def test_a_network_may_choose_its_epoch_on_the_validation_split(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    head = {"kind": "projection-head", "loss": "mse"}
    systems = {
        "linear": CHEAP["linear"],
        "apart": head,
        "there": {**head, "choose_epoch_on": "validation"},
        "mean": {"kind": "ensemble", "of": ["linear", "there"]},
    }
    recipe, out = recipe_of(systems, seeds=1), tmp_path / "out"
    compared(data, recipe, tmp_path)
    results = csv.DictReader((out / "results.csv").read_text().splitlines())
    chosen = {(row["split"], row["system"]) for row in results if row["chose_epoch_here"] == "1"}
    assert chosen == {("validation", "there"), ("validation", "mean")}
    models = {name: load_model(out / "models" / f"{name}.skops") for name in ("apart", "there")}
    truth = read_pairs(data, "validation").scores
    table = models["there"]["builder"].transform(_cached(recipe, data, tmp_path)["validation"])
    there, apart = (models[name]["stacker"] for name in ("there", "apart"))
    best = there.validation_srcc_[there.best_epoch_ - 1]
    assert best == pytest.approx(srcc(truth, there.predict(table)))
    assert apart.validation_srcc_[apart.best_epoch_ - 1] != pytest.approx(
        srcc(truth, apart.predict(table))
    )


def test_a_stack_is_the_recipes_where_it_says_nothing_else(data: Path, tmp_path: Path) -> None:
    systems = {"plain": {"kind": "stack"}, "ranks": {"kind": "stack", "target": "rank"}}
    settings = {"preset": "paper", "n_splits": 2, "penalties": [1.0, 10.0], "random_state": 5}
    recipe = recipe_of(systems, seeds=1, stacker=settings)
    compared(data, recipe, tmp_path)
    for name, target in (("plain", "score"), ("ranks", "rank")):
        stacker = load_model(tmp_path / "out" / "models" / f"{name}.skops")["stacker"]
        assert (stacker.preset, stacker.n_splits, stacker.target) == ("paper", 2, target)
        assert (tuple(stacker.penalties), stacker.random_state) == ((1.0, 10.0), 5)


def test_scores_lie_in_the_range_of_scores(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of({"cosine": CHEAP["cosine"]})
    compared(data, recipe, tmp_path)
    model = load_model(tmp_path / "out" / "models" / "cosine.skops")
    cached = _cached(recipe, data, tmp_path)["test"]
    system = FittedSystem(model["builder"], model["stacker"])
    raw = model["stacker"].predict(model["builder"].transform(cached))
    np.testing.assert_array_equal(system.score(cached), keep_in_range(raw, 0, 10))
    far = FittedSystem(model["builder"], DummyRegressor(constant=12, strategy="constant"))
    far.stacker.fit(raw[:, None], raw)
    assert 9 < far.score(cached).max() <= 10


def test_what_an_earlier_comparison_left_is_no_longer_there(
    data: Path, make_data: WriteData, tmp_path: Path
) -> None:
    compared(data, recipe_of(CHEAP, seeds=1), tmp_path)
    compared(data, recipe_of({"cosine": CHEAP["cosine"]}), tmp_path)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.rglob("*.*") if path.is_file()) == [
        "cosine.json",
        "cosine.skops",
        "results.csv",
        "results.md",
        "scores-test-cosine.csv",
        "scores-validation-cosine.csv",
        "srcc-mse.png",
        "srcc.png",
        "validation-test.png",
    ]
    other = make_data("other", train=20, validation=5)
    with pytest.raises(ModelFileError, match="it holds the results of another data set"):
        next(compare_systems(other, recipe_of(CHEAP), tmp_path / "store", out, **QUIET))
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="cannot be written"):
        next(
            compare_systems(
                data, recipe_of(CHEAP), tmp_path / "store", tmp_path / "file" / "out", **QUIET
            )
        )


def test_what_is_not_installed_is_told_before_anything_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = {"kind": "transformer", "space": TOY.name}
    recipe = recipe_of({"cosine": CHEAP["cosine"], "net": network})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "timm" else name)
    with pytest.raises(MissingExtraError, match=r"'net' needs the package 'timm'.*\[neural\]"):
        next(compare_systems(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET))


def test_seeds_of_the_command_line_are_those_of_every_system() -> None:
    recipe = recipe_of({"one": {"kind": "stack", "seeds": 7}, "two": {"kind": "stack"}})
    fewer = recipe.with_seeds(2)
    assert (fewer.seeds, [system.seeds for system in fewer.systems.values()]) == (2, [None, None])
