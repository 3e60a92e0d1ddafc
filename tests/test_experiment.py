import csv
import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from support import TESTS, TOY, WriteData, write_csv

from xacle_stack import Scorer
from xacle_stack._large_arrays import LargeArrays
from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.cross_validation import held_out_folds
from xacle_stack.errors import CacheError, MissingExtraError, ModelFileError, PairsError
from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.metrics import evaluate, probability_better, srcc
from xacle_stack.model_file import load_card
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import Recipe, chosen_settings, recipe_from
from xacle_stack.results import Result
from xacle_stack.stacking import Selection
from xacle_stack.submission import read_predictions
from xacle_stack.targets import training_targets

pytestmark = pytest.mark.usefixtures("few_resamples")

FRAMES = f"{TESTS / 'toy_encoder.py'}:ToyFrames"
ON_DEMAND = f"{TESTS / 'toy_encoder.py'}:ToyOnDemand"
CHEAP = {
    "linear": {"kind": "stack", "preset": "paper"},
    "cosine": {"kind": "cosine", "space": TOY.name},
    "both": {"kind": "ensemble", "of": ["linear", "cosine"], "method": "rank"},
}


def make_recipe(systems: dict[str, dict[str, object]], **more: object) -> Recipe:
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
def two_spaces() -> Recipe:
    return make_recipe(
        {},
        spaces=[TOY.name, "mini-mel"],
        auxiliary=[f"{TOY.name}:level"],
        stacker={"n_components": 8},
    )


@pytest.fixture
def data(make_data: WriteData) -> Path:
    return make_data(train=40, validation=24, test=16)


def run(data: Path, recipe: Recipe, folder: Path, systems: object = None) -> list[Result]:
    """Encode a data set and run an experiment on it: of a comparison if no systems are given."""
    fill_cache(data, recipe, folder / "store")
    systems = recipe.compared_systems if systems is None else systems
    steps = run_experiment(data, recipe, systems, folder / "store", folder / "out")
    found: list[Result] = []
    for results in steps:
        found = results
    return found


def load(name: str, recipe: Recipe, folder: Path) -> Scorer:
    return Scorer.load(folder / "out" / "models" / f"{name}.skops", recipe)


def cached(recipe: Recipe, data: Path, folder: Path, split: str) -> CachedPairs:
    cache = FeatureCache(folder / "store")
    return cache.load(read_pairs(data, split), recipe.fingerprints())


def of_split(results: list[Result], split: str) -> dict[str, Result]:
    return {result.system: result for result in results if result.split == split}


def files(folder: Path) -> list[str]:
    """Return the files of a run but those of its page."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in paths if path.parts[0] != "report")


def test_a_stack_is_set_beside_those_of_fewer_spaces(
    make_data: WriteData, tmp_path: Path, two_spaces: Recipe
) -> None:
    data = make_data(train=60, validation=40, test=12)
    hidden = read_pairs(data, "test")
    (data / "meta_data" / "test_average.csv").unlink()
    rows = [["wav_file_name", "text"], *zip(hidden.ids, hidden.captions, strict=True)]
    write_csv(data / "meta_data" / "test.csv", rows)

    results = run(data, two_spaces, tmp_path, two_spaces.stack_systems)
    assert [(result.system, result.split) for result in results] == [
        ("toy + mini-mel", "validation"),
        ("toy", "validation"),
        ("mini-mel", "validation"),
        ("rank ensemble of the singles", "validation"),
    ]
    by_name = of_split(results, "validation")
    assert float(by_name["toy"].evaluation.srcc) > 0.3  # the toy hears the tones' pitch
    names = ["toy-mini-mel", "toy", "mini-mel"]
    out = tmp_path / "out"
    page = (out / "report" / "index.html").read_text("utf-8")
    assert '"low":' in page
    assert '"novelty":' in page
    written = {path.replace("---", "-") for path in files(out) if not path.startswith("report/")}
    assert written - {"srcc.png", "srcc-mse.png", "difference.png"} == {
        *("model.skops", "model.json", "model.md"),
        *("results.csv", "results.json", "results.md", "written.txt"),
        *(f"models/{name}.{ending}" for name in names for ending in ("skops", "json", "md")),
        *(
            f"scores-{split}{system}.csv"
            for split in ("validation", "test")
            for system in ("", *(f"-{n}" for n in [*names, "rank-ensemble-of-the-singles"]))
        ),
    }
    card = json.loads((out / "model.json").read_text())
    assert card["recipe"]["name"] == "toy"
    reached = float(by_name["toy + mini-mel"].evaluation.srcc)
    assert card["metrics"]["validation"]["SRCC"][0] == reached
    assert card["training"]["n_pairs"] == 60
    assert '<td dir="auto">60</td>' in page
    assert "Scorer.load('model.skops'" in (out / "model.md").read_text("utf-8")
    assert "Scorer.load('mini-mel.skops'" in (out / "models" / "mini-mel.md").read_text("utf-8")
    assert "toy/level" in card["families"]["mini-mel"]
    scorer = Scorer.load(out, two_spaces, store=tmp_path / "store")
    for split in ("validation", "test"):
        pairs = read_pairs(data, split)
        saved = read_predictions(out / f"scores-{split}.csv", pairs.ids)
        np.testing.assert_allclose(scorer.score(pairs), saved, atol=0.0051)
        assert ((saved >= 0) & (saved <= 10)).all()


def test_the_table_holds_what_the_scores_give(data: Path, tmp_path: Path) -> None:
    recipe, out = make_recipe(CHEAP), tmp_path / "out"
    results = run(data, recipe, tmp_path)
    assert [(r.system, r.split, r.kind, r.n_seeds) for r in results] == [
        (name, split, kind, n_seeds)
        for name, kind, n_seeds in (
            ("linear", "stack", 2),
            ("cosine", "cosine", 1),
            ("both", "rank ensemble", 2),
        )
        for split in ("validation", "test")
    ]
    linear, cosine, both = of_split(results, "test").values()
    pairs = read_pairs(data, "test")
    scores = load("cosine", recipe, tmp_path).score(cached(recipe, data, tmp_path, "test"))
    assert cosine.evaluation == evaluate(pairs.scores, scores)
    written = read_predictions(out / "scores-test-cosine.csv", pairs.ids)
    np.testing.assert_allclose(written, scores, atol=0.006)
    assert math.isnan(cosine.srcc_spread)
    assert linear.srcc_spread >= 0
    assert linear.difference is None
    assert cosine.difference.low <= cosine.difference.value <= cosine.difference.high
    assert 0 <= cosine.probability_better <= 1
    assert linear.n_parameters == load("linear", recipe, tmp_path).n_parameters
    assert set(load_card(out / "models" / "cosine.skops")["recipe"]["systems"]) == {"cosine"}
    assert both.fit_s == pytest.approx(linear.fit_s + cosine.fit_s)
    assert both.n_parameters == linear.n_parameters + cosine.n_parameters
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["split"], row["system"]) for row in rows} == {
        (split, name) for split in ("validation", "test") for name in CHEAP
    }
    assert (out / "model.skops").read_bytes() == (out / "models" / "linear.skops").read_bytes()


def test_large_arrays_are_in_the_folder_of_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Scorer.fit

    def fit_with_arrays(self: Scorer, *args: object, **kwargs: object) -> Scorer:
        fit(self, *args, **kwargs)
        self.regressor_.weights_ = LargeArrays({"w": np.ones(3)})
        return self

    monkeypatch.setattr(Scorer, "fit", fit_with_arrays)
    recipe, out = make_recipe({"linear": CHEAP["linear"]}), tmp_path / "out"
    for _ in range(2):
        run(data, recipe, tmp_path)
        reference, model = out / "model.safetensors", out / "models" / "linear.safetensors"
        assert reference.samefile(model)
        written = (out / "written.txt").read_text().splitlines()
        assert {"model.safetensors", "models/linear.safetensors"} <= set(written)
        for path in (out, model):
            assert Scorer.load(path, recipe).regressor_.weights_["w"].sum() == 3
    monkeypatch.undo()
    run(data, recipe, tmp_path)
    assert not reference.exists()
    assert not model.exists()


def test_seeds_are_averaged(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe({"linear": CHEAP["linear"], "again": CHEAP["linear"]})
    one, other = of_split(run(data, recipe, tmp_path), "test").values()
    truth = read_pairs(data, "test").scores
    scorer, train, test = (
        load("linear", recipe, tmp_path),
        *(cached(recipe, data, tmp_path, split) for split in ("train", "test")),
    )
    singles = []
    for seed in (0, 1):
        alone = recipe.new_stacker().set_params(preset="paper", random_state=seed)
        alone.fit(scorer.builder_.transform(train), train.pairs.scores)
        singles.append(srcc(truth, alone.predict(scorer.builder_.transform(test))))
    assert one.evaluation.srcc.value == pytest.approx(np.mean(singles))
    assert one.srcc_spread == pytest.approx(np.std(singles, ddof=1))
    assert other.probability_better == 0.5
    assert other.difference.value == 0


def test_finished_systems_are_there_when_a_later_one_fails(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe(CHEAP)
    fill_cache(data, recipe, tmp_path / "store")
    steps = run_experiment(
        data, recipe, recipe.compared_systems, tmp_path / "store", tmp_path / "out"
    )
    assert {result.system for result in next(steps)} == {"linear"}
    assert (tmp_path / "out" / "models" / "linear.skops").is_file()
    assert not (tmp_path / "out" / "models" / "cosine.skops").exists()


def test_the_reference_comes_first_and_averages_last(data: Path, tmp_path: Path) -> None:
    systems = {"both": CHEAP["both"], "linear": CHEAP["linear"], "cosine": CHEAP["cosine"]}
    recipe = make_recipe(systems, reference="cosine", seeds=1)
    found = of_split(run(data, recipe, tmp_path), "test")
    assert [*found] == ["cosine", "linear", "both"]
    pairs = cached(recipe, data, tmp_path, "test")
    scores = {n: load(n, recipe, tmp_path).score(pairs) for n in ("cosine", "linear")}
    expected = probability_better(pairs.pairs.scores, scores["linear"], scores["cosine"])
    assert found["linear"].probability_better == expected


def test_a_system_without_ratings_stands_in_the_same_table(data: Path, tmp_path: Path) -> None:
    recipe = make_recipe({"linear": CHEAP["linear"], "free": {"kind": "label-free"}})
    found = of_split(run(data, recipe, tmp_path), "test")
    assert found["free"].kind == "label-free"
    pairs = cached(recipe, data, tmp_path, "test")
    scorer = load("free", recipe, tmp_path)
    train = cached(recipe, data, tmp_path, "train")
    unrated = Scorer.label_free(recipe, store=tmp_path / "store").fit(train)
    np.testing.assert_array_equal(scorer.score(pairs), unrated.score(pairs))


def test_an_svr_ensemble_is_trained_saved_and_scores(data: Path, tmp_path: Path, caplog) -> None:
    svr = {"kind": "svr-ensemble", "spaces_a": ["mini-mel"], "n_splits": 3}
    recipe = make_recipe({"svr": svr}, spaces=[TOY.name, "mini-mel"])
    (result,) = (one for one in run(data, recipe, tmp_path) if one.split == "test")
    assert (result.kind, result.n_seeds) == ("svr-ensemble", 1)
    path = tmp_path / "out" / "models" / "svr.skops"
    scorer = Scorer.load(path, recipe, store=tmp_path / "another store")
    members = scorer.regressor_.members_
    assert [member.spaces for member in members] == [("mini-mel",), ("toy", "mini-mel")]
    assert result.n_parameters > sum(member.vectors.size for member in members)
    assert "too few to hold some of them out (that takes 30)" in caplog.text
    test = read_pairs(data, "test")
    written = read_predictions(tmp_path / "out" / "scores-test-svr.csv", test.ids)
    np.testing.assert_allclose(scorer.score(test), written, atol=0.006)
    alone = scorer.score_clips(test.audio[:1], test.captions[:1])
    np.testing.assert_allclose(alone, scorer.score(test)[:1], rtol=1e-6)


def test_boosted_trees_alone_train_save_load_and_score(data: Path, tmp_path: Path) -> None:
    trees = {"kind": "boosting", "n_estimators": 5, "min_child_samples": 2}
    recipe = make_recipe({"trees": trees}, seeds=2)
    (found, *_) = run(data, recipe, tmp_path)
    assert (found.kind, found.n_seeds) == ("boosting", 2)
    path = tmp_path / "out" / "models" / "trees.skops"
    scorer = Scorer.load(path, recipe, store=tmp_path / "store")
    test = read_pairs(data, "test")
    written = read_predictions(tmp_path / "out" / "scores-test-trees.csv", test.ids)
    np.testing.assert_allclose(scorer.score(test), written, atol=0.006)
    assert scorer.has_intervals


@pytest.mark.parametrize(
    "system",
    [
        {"kind": "transformer", "space": TOY.name, "epochs": 2, "gate": "batch"},
        {"kind": "transformer", "space": TOY.name, "epochs": 2, "gate": "none"},
        {"kind": "projection-head", "loss": "listnet"},
        {"kind": "mlp", "epochs": 2},
        {"kind": "lstm", "frames": f"{FRAMES}:frames", "text": FRAMES, "epochs": 1},
        {"kind": "lstm", "frames": f"{ON_DEMAND}:frames", "text": ON_DEMAND, "epochs": 1},
        {
            "kind": "cross-attention",
            "frames": f"{ON_DEMAND}:frames",
            "text": f"{ON_DEMAND}:letters",
            "width": 8,
            "epochs": 1,
        },
    ],
    ids=["gated", "transformer", "head", "mlp", "lstm", "on demand", "cross-attention"],
)
def test_networks_train_save_load_and_score(
    data: Path, tmp_path: Path, system: dict[str, object]
) -> None:
    pytest.importorskip("torch")
    if find_spec("timm") is None:
        pytest.skip("timm is not installed")
    recipe = make_recipe({"net": system}, seeds=1)
    net = run(data, recipe, tmp_path)[0]
    assert net.n_parameters > 0
    path = tmp_path / "out" / "models" / "net.skops"
    scorer = Scorer.load(path, recipe, store=tmp_path / "another store")
    test = read_pairs(data, "test")
    written = read_predictions(tmp_path / "out" / "scores-test-net.csv", test.ids)
    np.testing.assert_allclose(scorer.score(test), written, atol=0.006)
    if system.get("gate") != "batch":  # which depends on the pairs scored together
        by_hand = scorer.score_clips(test.audio[:3], test.captions[:3])
        np.testing.assert_allclose(by_hand, scorer.score(test)[:3], rtol=1e-5)


def test_an_interrupted_training_stops_the_run_and_leaves_its_best_state(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
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
    recipe = make_recipe({"cosine": CHEAP["cosine"], "net": system, "later": CHEAP["cosine"]})
    fill_cache(data, recipe, tmp_path / "store")
    finished = []

    def start() -> None:
        for results in run_experiment(
            data, recipe, recipe.compared_systems, tmp_path / "store", tmp_path / "out"
        ):
            finished[:] = {result.system for result in results}

    with pytest.raises(KeyboardInterrupt):
        start()
    assert "2 of 4 epochs" in caplog.text
    assert finished == ["cosine"]
    models = tmp_path / "out" / "models"
    scorer = load("net-interrupted", recipe, tmp_path)
    assert scorer.score(cached(recipe, data, tmp_path, "test")).shape == (16,)
    assert not (models / "net.skops").exists()
    assert not (models / "later.skops").exists()

    monkeypatch.setattr(transformer, "weighted_mse", loss)
    run(data, recipe, tmp_path)
    assert sorted(path.stem for path in models.glob("*.skops")) == ["cosine", "later", "net"]
    assert not (models / "net-interrupted.json").exists()


def test_whenever_a_run_is_looked_at_its_parts_belong_together(data: Path, tmp_path: Path) -> None:
    recipe, out = make_recipe(CHEAP), tmp_path / "out"
    fill_cache(data, recipe, tmp_path / "store")
    states = []
    for _ in range(2):  # the second one replaces the first
        for results in run_experiment(
            data, recipe, recipe.compared_systems, tmp_path / "store", out
        ):
            finished = {result.system: result.kind for result in results}
            trained = {name for name, kind in finished.items() if kind != "rank ensemble"}
            scored = {path.stem for path in out.glob("scores-test-*.csv")}
            rows = csv.DictReader((out / "results.csv").read_text("utf-8").splitlines())
            assert {row["system"] for row in rows} == set(finished)
            assert {path.stem for path in out.glob("models/*.skops")} == trained
            assert scored == {f"scores-test-{name}" for name in finished}
            for name in trained:
                load(name, recipe, tmp_path)
            states.append(sorted(finished))
    assert states[:3] == states[3:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out", "store"]


def test_a_run_that_is_stopped_at_once_leaves_the_earlier_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = make_recipe({"cosine": CHEAP["cosine"]}), tmp_path / "out"
    run(data, recipe, tmp_path)
    before = {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()}

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xacle_stack.systems.CosineRegressor.fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(data, recipe, tmp_path)
    assert {path: path.read_bytes() for path in out.rglob("*.*") if path.is_file()} == before


def test_targets_of_a_listener_model_reach_every_system(data: Path, tmp_path: Path) -> None:
    file = data / "meta_data" / "train.csv"
    rows = list(csv.reader(file.read_text().splitlines()))
    for row in rows[4::4]:
        row[2] = str(min(float(row[2]) + 1.5, 10))  # one lenient listener
    write_csv(file, [row for number, row in enumerate(rows) if number % 7 != 1])
    recipe = make_recipe(CHEAP, seeds=1, listener_model=True)
    run(data, recipe, tmp_path)
    train = cached(recipe, data, tmp_path, "train")
    targets = training_targets(train.pairs, recipe)
    assert (targets.scores != train.pairs.scores).any()
    assert np.ptp(targets.sample_weight) > 0
    for name in ("linear", "cosine"):
        scorer = load(name, recipe, tmp_path)
        table = scorer.builder_.transform(train)
        again = clone(scorer.regressor_)
        again.fit(table, targets.scores, sample_weight=targets.sample_weight)
        np.testing.assert_array_equal(again.predict(table), scorer.regressor_.predict(table))


def test_a_network_may_choose_its_epoch_on_the_validation_split(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    head = {"kind": "projection-head", "loss": "mse"}
    systems = {
        "linear": CHEAP["linear"],
        "apart": head,
        "there": {**head, "choose_epoch_on": "validation"},
        "mean": {"kind": "ensemble", "of": ["linear", "there"]},
    }
    recipe = make_recipe(systems, seeds=1)
    results = run(data, recipe, tmp_path)
    chosen = {r.system: r.chose_epoch_here for r in results if r.split == "validation"}
    assert chosen == {"linear": False, "apart": False, "there": True, "mean": True}
    assert not any(result.chose_epoch_here for result in results if result.split == "test")
    pairs = cached(recipe, data, tmp_path, "validation")
    for name in ("there", "apart"):
        scorer = load(name, recipe, tmp_path)
        head = scorer.regressor_
        reached = srcc(pairs.pairs.scores, head.predict(scorer.builder_.transform(pairs)))
        best = head.validation_srcc_[head.best_epoch_ - 1]
        assert (best == pytest.approx(reached)) == (name == "there")


def test_a_stack_is_the_recipes_where_it_says_nothing_else(data: Path, tmp_path: Path) -> None:
    systems = {"plain": {"kind": "stack"}, "ranks": {"kind": "stack", "target": "rank"}}
    settings = {"preset": "paper", "n_splits": 2, "penalties": [1.0, 10.0], "random_state": 5}
    recipe = make_recipe(systems, seeds=1, stacker=settings)
    run(data, recipe, tmp_path)
    for name, target in (("plain", "score"), ("ranks", "rank")):
        stacker = load(name, recipe, tmp_path).regressor_
        assert (stacker.preset, stacker.n_splits, stacker.target) == ("paper", 2, target)
        assert (list(stacker.penalties), stacker.random_state) == ([1.0, 10.0], 5)


def test_same_seed_same_bytes_whatever_the_workers(
    make_data: WriteData, tmp_path: Path, two_spaces: Recipe
) -> None:
    data, systems = make_data(), two_spaces.stack_systems
    written = []
    for n_jobs in (1, 2):
        store, out = tmp_path / f"store-{n_jobs}", tmp_path / f"out-{n_jobs}"
        fill_cache(data, two_spaces, store, n_jobs=n_jobs)
        list(run_experiment(data, two_spaces, systems, store, out, n_jobs=n_jobs))
        scores = {path.name: path.read_bytes() for path in out.glob("scores-*.csv")}
        written.append(scores)
    assert written[0] == written[1]
    assert "scores-validation.csv" in written[0]


def test_what_is_missing_is_told(make_data: WriteData, tmp_path: Path) -> None:
    recipe = make_recipe(CHEAP)

    def start(data: Path) -> None:
        store, out = tmp_path / "store", tmp_path / "out"
        next(run_experiment(data, recipe, recipe.compared_systems, store, out))

    with pytest.raises(PairsError, match=r"'train', .*\['validation', 'test'\].*--train"):
        start(make_data("a", validation=10, test=10))
    with pytest.raises(PairsError, match="'test' .*one pair"):
        start(make_data("b", train=10, validation=10, test=1))
    data = make_data("c", train=40, validation=10)
    with pytest.raises(CacheError, match="store: .*cache.*`xacle-stack features"):
        start(data)
    fill_cache(data, recipe, tmp_path / "store")
    (data / "meta_data" / "train.csv").unlink()
    path = data / "meta_data" / "train_average.csv"
    path.write_text(path.read_text().replace("number", "no."))
    with pytest.raises(CacheError, match="text .* 40 of 40 pairs of 'train'"):
        start(data)


def test_without_scores_to_judge_by_systems_are_cross_validated(
    make_data: WriteData, tmp_path: Path
) -> None:
    data, recipe = make_data(train=60, test=8), make_recipe(CHEAP)
    (data / "meta_data" / "test.csv").unlink()
    file = data / "meta_data" / "test_average.csv"
    write_csv(file, [row[:2] for row in csv.reader(file.read_text().splitlines())])
    results = run(data, recipe, tmp_path)
    assert [(r.system, r.split, r.n_seeds) for r in results] == [
        (name, "cross-validation", n) for name, n in (("linear", 2), ("cosine", 1), ("both", 2))
    ]
    out, train = tmp_path / "out", cached(recipe, data, tmp_path, "train")
    folds = held_out_folds(train.pairs, recipe)
    assert folds.groups == train.pairs.captions
    linear, cosine, _ = results
    scores = np.empty(60)
    for rows, held_out in folds.rows:
        part = train[rows]
        fresh = load("cosine", recipe, tmp_path)
        fresh.fit(part)
        scores[held_out] = fresh.score(train[held_out])
    assert cosine.evaluation == evaluate(train.pairs.scores, scores, groups=folds.groups)
    assert cosine.evaluation.n_groups == len(set(train.pairs.captions))
    written = read_predictions(out / "scores-cross-validation-cosine.csv", train.pair_ids)
    np.testing.assert_allclose(written, scores, atol=0.006)
    # What is saved is fitted on all pairs, and scores the set without scores.
    everything = load("cosine", recipe, tmp_path)
    again = Scorer(recipe, everything.regressor, builder=everything.builder).fit(train)
    test = cached(recipe, data, tmp_path, "test")
    np.testing.assert_array_equal(everything.score(test), again.score(test))
    assert (out / "scores-test-cosine.csv").is_file()
    assert load_card(out)["metrics"]["cross-validation"]["SRCC"][0] == linear.evaluation.srcc.value
    curve = linear.learning_curve
    assert curve.n_training_pairs == (24, 48)
    assert cosine.learning_curve is None
    assert (out / "learning-curve.csv").read_text() == curve.to_csv()
    assert curve.finding in (out / "results.md").read_text()
    assert {"learning-curve.png", "srcc.png"} <= set(files(out))


def test_without_folds_only_the_reference_is_fitted(
    make_data: WriteData, tmp_path: Path, caplog
) -> None:
    data, recipe = make_data(train=40), make_recipe(CHEAP, seeds=1)
    fill_cache(data, recipe, tmp_path / "store")
    steps = run_experiment(
        *(data, recipe, recipe.compared_systems, tmp_path / "store", tmp_path / "out"), n_folds=0
    )
    assert list(steps) == [[]]
    assert "no split but train has scores" in caplog.text
    assert "'linear'" in caplog.text
    assert [path.stem for path in (tmp_path / "out" / "models").glob("*.skops")] == ["linear"]


def test_sets_may_have_any_names(make_data: WriteData, tmp_path: Path) -> None:
    data, recipe = make_data(train=40, validation=24, test=16), make_recipe(CHEAP, seeds=1)
    old = {name: read_pairs(data, name) for name in ("train", "validation", "test")}
    names = {"train": "rated by us", "validation": "AudioCaps/2", "test": "Clotho"}
    sets = {new: replace(old[name], split=new) for name, new in names.items()}
    places = (data, recipe, recipe.compared_systems, tmp_path / "store", tmp_path / "out")
    fill_cache(data, recipe, tmp_path / "store")
    with pytest.raises(PairsError, match=r"'train', .*'rated by us', 'AudioCaps/2'.*--train NAME"):
        next(run_experiment(*places, splits=sets))
    *_, results = run_experiment(*places, splits=sets, train="rated by us")
    assert [r.split for r in results[:2]] == ["AudioCaps/2", "Clotho"]
    expected = run(data, recipe, tmp_path / "again")
    assert [r.evaluation for r in results] == [r.evaluation for r in expected]
    written = set(files(tmp_path / "out"))
    assert {"scores-audiocaps-2.csv", "scores-clotho-linear.csv"} <= written
    assert "audiocaps-2-clotho.png" in written or find_spec("matplotlib") is None
    sets["audiocaps 2"] = sets["AudioCaps/2"]
    with pytest.raises(PairsError, match=r"'AudioCaps/2' .*'audiocaps 2' .*one file"):
        next(run_experiment(*places, splits=sets, train="rated by us"))
    hidden = replace(old["test"], scores=None, ratings=None)
    for name, said in (("cross-validation", "one file"), ("x" * 300, "too long")):
        with pytest.raises(PairsError, match=said):
            next(run_experiment(*places, splits={"train": old["train"], name: hidden}))


def test_an_epoch_is_chosen_on_a_validation_split_only_if_there_is_one(
    make_data: WriteData, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    recipe = make_recipe({"net": {"kind": "projection-head", "choose_epoch_on": "validation"}})
    with pytest.raises(PairsError, match="validation split .* 'net'"):
        run(make_data(train=10, test=5), recipe, tmp_path)


def test_a_split_of_equal_scores_is_told(data: Path, tmp_path: Path, caplog) -> None:
    file = data / "meta_data" / "test_average.csv"
    header, *rows = csv.reader(file.read_text().splitlines())
    write_csv(file, [header, *([name, text, 5.0] for name, text, _ in rows)])
    results = run(data, make_recipe({"cosine": CHEAP["cosine"]}), tmp_path)
    assert "all scores of the split 'test' are equal" in caplog.text
    assert math.isnan(of_split(results, "test")["cosine"].evaluation.srcc.value)


def test_what_an_earlier_run_left_is_no_longer_there(
    data: Path, make_data: WriteData, tmp_path: Path
) -> None:
    run(data, make_recipe(CHEAP, seeds=1), tmp_path)
    out = tmp_path / "out"
    for path in (out / "written.txt", *out.rglob("*.md")):  # as of an earlier version
        path.unlink()
    (out / "comparison.csv").touch()
    (out / "notes.txt").touch()
    run(data, make_recipe({"cosine": CHEAP["cosine"]}), tmp_path)
    there = {name for name in files(out) if not name.endswith((".png", ".svg"))}
    assert there == {
        *(f"{model}.{e}" for model in ("model", "models/cosine") for e in ("json", "md", "skops")),
        *("notes.txt", "results.csv", "results.json", "results.md", "written.txt"),
        *("scores-test.csv", "scores-test-cosine.csv"),
        *("scores-validation.csv", "scores-validation-cosine.csv"),
    }


def test_the_folder_of_the_results_is_checked_before_anything_is_fitted(
    data: Path, make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    recipe = make_recipe(CHEAP, seeds=1)
    run(data, recipe, tmp_path)
    monkeypatch.setattr(Scorer, "fit", None)
    other = make_data("other/data", train=20, validation=5)
    with pytest.raises(ModelFileError, match="another data set"):
        run(other, recipe, tmp_path)
    (tmp_path / "file").touch()
    systems = recipe.compared_systems
    with pytest.raises(ModelFileError, match=r"file/out: cannot be written \(.*--out"):
        next(run_experiment(data, recipe, systems, tmp_path / "store", tmp_path / "file" / "out"))


def test_few_captions_are_warned_of_once(
    make_data: WriteData, tmp_path: Path, two_spaces: Recipe, caplog
) -> None:
    run(make_data(train=40, validation=10), two_spaces, tmp_path, two_spaces.stack_systems)
    assert caplog.text.count("too few to hold some of them out") == 1


def test_what_is_not_installed_is_told_before_anything_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = {"kind": "transformer", "space": TOY.name}
    recipe = make_recipe({"cosine": CHEAP["cosine"], "net": network})
    fill_cache(data, recipe, tmp_path / "store")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "timm" else name)
    with pytest.raises(MissingExtraError, match=r"'net' .*'timm'.*\[neural\]"):
        run(data, recipe, tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for more in (
        {"systems": {**CHEAP, "trees": {"kind": "boosting", "library": "catboost"}}},
        {"systems": CHEAP, "stacker": {"boosting_library": "catboost"}},
    ):
        recipe = make_recipe(**more)
        with pytest.raises(MissingExtraError, match=r"'catboost'.*\[catboost\]"):
            run(data, recipe, tmp_path)


def test_views_of_train_only_are_cached(make_data: WriteData, tmp_path: Path) -> None:
    data = make_data(train=6, validation=4)
    settings = {"name": "x", "spaces": ["mini-mel"], "views": {"mini-mel": 2}}
    report = fill_cache(data, recipe_from(settings, source="a test"), tmp_path / "store")
    assert {key: n for key, n in report.encoded.items() if key[1] == "audio"} == {
        ("mini-mel", "audio"): 10,
        ("mini-mel.view-1", "audio"): 6,
        ("mini-mel.view-2", "audio"): 6,
    }


def test_a_selection_looks_at_train_alone_and_changes_no_system(
    make_data: WriteData, tmp_path: Path
) -> None:
    recipe = make_recipe(
        {}, spaces=[TOY.name, "mini-mel"], subset_sizes=[], stacker={"n_splits": 2}
    )
    written = []
    for name in ("data", "spoilt"):
        data, folder = make_data(name, train=40, validation=12), tmp_path / f"of-{name}"
        if name == "spoilt":
            path = data / "meta_data" / "validation_average.csv"
            header, *rows = path.read_text().splitlines()
            scores = [row.rpartition(",")[2] for row in rows][::-1]
            pairs = [row.rpartition(",")[0] for row in rows]
            spoilt = [f"{pair},{score}" for pair, score in zip(pairs, scores, strict=True)]
            path.write_text("\n".join([header, *spoilt, ""]))
        fill_cache(data, recipe, folder / "store")
        found: list[Selection] = []
        (*_,) = run_experiment(
            *(data, recipe, recipe.stack_systems, folder / "store", folder / "out"),
            report_audio="none",
            select=found.append,
        )
        written.append((folder / "out" / "selection.csv").read_bytes())
        (selection,) = found
        text = (folder / "out" / "selection.md").read_text()
        assert selection.to_markdown() in text
        assert f"```toml\n{chosen_settings(recipe, selection)}\n```" in text
        assert {"selection.csv", "selection.md"} <= {
            *(folder / "out" / "written.txt").read_text().splitlines()
        }
        assert {part for one in selection.candidates for part in one.parts} == {
            *("toy", "mini-mel", "agreement")
        }
        scorer = Scorer.load(folder / "out" / "model.skops", recipe)
        assert list(scorer.builder_.spaces) == ["toy", "mini-mel"]
    assert written[0] == written[1]
