import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler
from support import TOY, WriteData, write_csv

from xacle_stack.encoders import get_encoder
from xacle_stack.errors import (
    CacheError,
    ModelFileError,
    PairsError,
    RecipeError,
    UnknownNameError,
)
from xacle_stack.experiment import (
    fill_cache,
    load_system,
    run_experiment,
    score_pairs,
    space_subsets,
)
from xacle_stack.features import FeatureBuilder, PairEmbeddings
from xacle_stack.model_file import save_model
from xacle_stack.pairs import read_pairs
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.stacking import (
    GroupedRidge,
    Stacker,
)
from xacle_stack.submission import read_predictions

pytestmark = pytest.mark.usefixtures("few_resamples")

QUIET = {"n_jobs": 1, "progress": False}


@pytest.fixture
def recipe() -> Recipe:
    settings = {
        "name": "toy",
        "spaces": [TOY.name, "mini-mel"],
        "auxiliary": [f"{TOY.name}:level"],
        "features": {"n_components": 2},
        "stacker": {"n_components": 8},
    }
    return recipe_from(settings, "a test")


def test_from_data_to_results_and_a_model_that_scores(
    make_data: WriteData, tmp_path: Path, recipe: Recipe
) -> None:
    data, store, out = make_data(train=60, validation=40, test=12), tmp_path / "s", tmp_path / "o"
    hidden = read_pairs(data, "test")
    (data / "meta_data" / "test_average.csv").unlink()
    rows = [["wav_file_name", "text"], *zip(hidden.ids, hidden.captions, strict=True)]
    write_csv(data / "meta_data" / "test.csv", rows)

    fill_cache(data, recipe, store, **QUIET)
    results, published = run_experiment(data, recipe, store, out, **QUIET)
    assert [(r.system, r.split) for r in results] == [
        ("toy", "validation"),
        ("mini-mel", "validation"),
        ("toy + mini-mel", "validation"),
        ("rank ensemble of the singles", "validation"),
    ]
    assert published == []
    by_name = {result.system: float(result.evaluation.srcc) for result in results}
    assert by_name["toy"] > 0.3  # the tones' pitch is what the toy hears
    assert sorted(path.name for path in out.iterdir()) == [
        "model.json",
        "model.skops",
        "results.csv",
        "results.md",
        "scores-test.csv",
        "scores-validation.csv",
    ]
    card = json.loads((out / "model.json").read_text())
    assert card["recipe"]["name"] == "toy"
    assert card["metrics"]["validation"]["SRCC"][0] == by_name["toy + mini-mel"]
    assert card["n_training_pairs"] == 60

    with pytest.raises(ModelFileError, match="an encoder from a Python file, which is not run"):
        load_system(out)
    system, loaded = load_system(out, recipe)
    assert loaded == recipe
    for split in ("validation", "test"):
        pairs = read_pairs(data, split)
        scores, report = score_pairs(system, loaded, pairs, store)
        assert report.encoded.total() == 0
        saved = read_predictions(out / f"scores-{split}.csv", pairs.ids)
        np.testing.assert_allclose(scores, saved, atol=0.0051)
        assert ((saved >= 0) & (saved <= 10)).all()


def test_same_seed_same_bytes_whatever_the_workers(
    make_data: WriteData, tmp_path: Path, recipe: Recipe
) -> None:
    data = make_data()
    written = []
    for n_jobs in (1, 2):
        store, out = tmp_path / f"store-{n_jobs}", tmp_path / f"out-{n_jobs}"
        fill_cache(data, recipe, store, n_jobs=n_jobs, progress=False)
        run_experiment(data, recipe, store, out, n_jobs=n_jobs, progress=False)
        written.append({path.name: path.read_bytes() for path in out.glob("*.[cm][sd]*")})
    assert written[0] == written[1]
    assert "scores-validation.csv" in written[0]


def test_what_is_missing_is_told(make_data: WriteData, tmp_path: Path, recipe: Recipe) -> None:
    data, store, out = make_data(train=40, test=10), tmp_path / "store", tmp_path / "out"
    with pytest.raises(
        CacheError, match=r"store: there is no cache here. Make one with `xacle-stack features"
    ):
        run_experiment(data, recipe, store, out, **QUIET)
    fill_cache(data, recipe, store, **QUIET)
    (data / "meta_data" / "train.csv").unlink()
    path = data / "meta_data" / "train_average.csv"
    path.write_text(path.read_text().replace("number", "no."))
    with pytest.raises(CacheError, match="no text row for 40 of 40 pairs of 'train'"):
        run_experiment(data, recipe, store, out, **QUIET)
    path.unlink()
    with pytest.raises(PairsError, match=r"no train split to fit on; found \['test'\]"):
        run_experiment(data, recipe, store, out, **QUIET)


def test_a_model_of_other_encoders_is_refused(
    make_data: WriteData, tmp_path: Path, recipe: Recipe
) -> None:
    data, store, out = make_data(), tmp_path / "store", tmp_path / "out"
    fill_cache(data, recipe, store, **QUIET)
    run_experiment(data, recipe, store, out, **QUIET)
    path = out / "model.json"
    card = json.loads(path.read_text())
    card["fingerprints"]["toy"] = "f" * 16
    path.write_text(json.dumps(card))
    with pytest.raises(
        ModelFileError, match="fitted on other embeddings .* for: toy. .*--checkpoint toy=PLACE"
    ):
        load_system(out, recipe)


def test_a_strangers_model_runs_none_of_its_code(make_data: WriteData, tmp_path: Path) -> None:
    data, store, out = make_data(), tmp_path / "store", tmp_path / "out"
    settings = {"name": "mel", "spaces": ["mini-mel"], "features": {"n_components": 2}}
    plain = recipe_from(settings, "a test")
    fill_cache(data, plain, store, **QUIET)
    run_experiment(data, plain, store, out, **QUIET)
    load_system(out)
    ran = tmp_path / "ran"
    (out / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    card = json.loads((out / "model.json").read_text())
    card["recipe"]["spaces"] = [f"{out}/evil.py:Evil"]
    (out / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelFileError, match="not run on a saved model's word"):
        load_system(out)
    assert not ran.exists()


@pytest.fixture(scope="module")
def saved_system(tmp_path_factory) -> Path:
    """Return the folder of a small system that `stack` would write."""
    spaces = {name: tuple(rng_vectors(name)) for name in ("mini-mel",)}
    settings = {"name": "mel", "spaces": ["mini-mel"], "features": {"n_components": 2}}
    recipe = recipe_from(settings, "a test")
    builder = FeatureBuilder(["mini-mel"], n_components=2)
    X = builder.fit_transform(PairEmbeddings(spaces))
    stacker = Stacker(preset="paper", random_state=0).fit(X, np.arange(40.0) / 4)
    folder = tmp_path_factory.mktemp("system")
    save_model(folder, {"builder": builder, "stacker": stacker}, recipe.origin())
    return folder


def rng_vectors(name: str) -> np.ndarray:
    n_dims = get_encoder(name).info.audio_outputs["embedding"]
    return np.random.default_rng(0).normal(size=(2, 40, n_dims))


def with_card(folder: Path, copy: Path, **changes: object) -> Path:
    """Return a copy of a model whose card's recipe says something else."""
    shutil.copytree(folder, copy)
    card = json.loads((copy / "model.json").read_text())
    card["recipe"] |= changes
    (copy / "model.json").write_text(json.dumps(card))
    return copy


@pytest.mark.parametrize("place", ["someone/weights", "/dev/zero", "pipe"])
def test_a_card_does_not_say_where_weights_are(
    saved_system: Path, tmp_path: Path, monkeypatch, place: str
) -> None:
    asked = []
    monkeypatch.setattr(
        "xacle_stack.encoders.base.Encoder.find_checkpoint",
        lambda checkpoint, download=True: asked.append(checkpoint),
    )
    out = with_card(
        saved_system,
        tmp_path / "copy",
        checkpoints={"mini-mel": place},
        views={"mini-mel": 10**9},
        code={"mini-mel": place},
    )
    _, recipe = load_system(out)
    assert (recipe.checkpoints, recipe.views, recipe.code) == ({}, {}, {})
    assert set(asked) == {None}
    load_system(out, checkpoints={"mini-mel": "mine"})
    assert "mine" in asked


def test_a_model_of_another_checkpoint_says_how_to_name_it(
    saved_system: Path, tmp_path: Path
) -> None:
    place = "someone/weights\x1b[2J"
    out = with_card(saved_system, tmp_path / "copy", checkpoints={"mini-mel": place})
    card = json.loads((out / "model.json").read_text())
    card["fingerprints"]["mini-mel"] = "0" * 16
    (out / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelFileError, match="for: mini-mel.*--checkpoint mini-mel=PLACE") as told:
        load_system(out)
    assert "'mini-mel' with 'someone/weights\\x1b[2J'" in str(told.value)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"spaces": ["nobodys"]}, UnknownNameError, "unknown encoder 'nobodys'"),
        ({"spaces": 3}, RecipeError, "its card: 1 mistake"),
        (
            {"auxiliary": [f"mini-mel:{n}" for n in range(200_000)]},
            ModelFileError,
            "the recipe in its card has .* bytes, expected 65,536 or fewer",
        ),
        ({"stacker": {"preset": "os.system"}}, RecipeError, "its card: 1 mistake"),
        ({"auxiliary": ["evil.py:Evil:logits"]}, ModelFileError, "not run on a saved model's word"),
        ({"seeds": 10**12}, RecipeError, "1000000000000 is beyond what any setting takes"),
    ],
)
def test_a_card_with_mistakes_is_told(
    saved_system: Path, tmp_path: Path, changes: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        load_system(with_card(saved_system, tmp_path / "copy", **changes))


@pytest.mark.parametrize("missing", ["recipe", "fingerprints"])
def test_a_card_without_a_recipe_scores_nothing(
    saved_system: Path, tmp_path: Path, missing: str
) -> None:
    out = with_card(saved_system, tmp_path / "copy")
    card = json.loads((out / "model.json").read_text())
    for value in ({}, {missing: [1]}):
        kept = {key: one for key, one in card.items() if key != missing}
        (out / "model.json").write_text(json.dumps(kept | value))
        with pytest.raises(ModelFileError, match="its card has no recipe and fingerprints"):
            load_system(out)


def test_a_system_is_made_of_this_librarys_parts(saved_system: Path, tmp_path: Path) -> None:
    out, card = tmp_path / "other", json.loads((saved_system / "model.json").read_text())
    save_model(out, {"builder": StandardScaler(), "stacker": GroupedRidge()}, card)
    with pytest.raises(ModelFileError, match="its builder is a StandardScaler"):
        load_system(out)


def test_results_of_an_earlier_run_do_not_stay_beside_a_new_model(
    make_data: WriteData, tmp_path: Path, recipe: Recipe
) -> None:
    data, store, out = make_data(), tmp_path / "store", tmp_path / "out"
    fill_cache(data, recipe, store, **QUIET)
    run_experiment(data, recipe, store, out, **QUIET)
    assert (out / "scores-validation.csv").exists()
    for name in ("validation.csv", "validation_average.csv"):
        (data / "meta_data" / name).unlink()
    mine = out / "scores-of-mine.csv"
    mine.touch()
    results, _ = run_experiment(data, recipe, store, out, **QUIET)
    assert results == []
    assert not (out / "scores-validation.csv").exists()
    assert mine.exists()


def test_the_folder_of_the_results_is_checked_before_anything_is_fitted(
    make_data: WriteData, tmp_path: Path, recipe: Recipe, monkeypatch
) -> None:
    data, store, out = make_data(), tmp_path / "store", tmp_path / "out"
    fill_cache(data, recipe, store, **QUIET)
    run_experiment(data, recipe, store, out, **QUIET)
    monkeypatch.setattr("xacle_stack.experiment.fit_system", None)
    other = make_data("other/data")
    fill_cache(other, recipe, store, **QUIET)
    with pytest.raises(ModelFileError, match="results of another data set of the same name"):
        run_experiment(other, recipe, store, out, **QUIET)
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match=r"file/out: cannot be written \(.*--out"):
        run_experiment(data, recipe, store, tmp_path / "file" / "out", **QUIET)


def test_a_split_of_one_pair_is_told_before_anything_is_fitted(
    make_data: WriteData, tmp_path: Path, recipe: Recipe
) -> None:
    data = make_data(train=40, validation=1)
    with pytest.raises(PairsError, match="the split 'validation' has one pair"):
        run_experiment(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET)


def test_subsets_are_singles_couples_and_all() -> None:
    both = ["singles", "couples"]
    assert space_subsets(("a",), both) == [("a",)]
    assert len(space_subsets(("a", "b", "c"), both)) == 3 + 3 + 1
    assert space_subsets(("a", "b", "c", "d"), both)[-1] == ("a", "b", "c", "d")
    assert space_subsets(("a", "b", "c"), ["singles"]) == [("a",), ("b",), ("c",), ("a", "b", "c")]


def test_few_captions_are_warned_of_once(
    make_data: WriteData, tmp_path: Path, recipe: Recipe, caplog
) -> None:
    data = make_data(train=40, validation=10)
    fill_cache(data, recipe, tmp_path / "store", **QUIET)
    run_experiment(data, recipe, tmp_path / "store", tmp_path / "out", **QUIET)
    assert caplog.text.count("too few to hold some of them out") == 1


def test_views_of_train_only_are_cached(make_data: WriteData, tmp_path: Path) -> None:
    data = make_data(train=6, validation=4)
    settings = {"name": "x", "spaces": ["mini-mel"], "views": {"mini-mel": 2}}
    report = fill_cache(data, recipe_from(settings, source="a test"), tmp_path / "store")
    assert {key: n for key, n in report.encoded.items() if key[1] == "audio"} == {
        ("mini-mel", "audio"): 10,
        ("mini-mel.view-1", "audio"): 6,
        ("mini-mel.view-2", "audio"): 6,
    }
