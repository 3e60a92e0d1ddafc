import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import TOY, WriteData

from xacle_stack import Scorer, save_model
from xacle_stack.cache import FeatureCache
from xacle_stack.encoders import get_encoder
from xacle_stack.errors import (
    AudioError,
    ModelFileError,
    PairsError,
    RecipeError,
    UnknownNameError,
)
from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.features import FeatureBuilder, PairEmbeddings
from xacle_stack.pairs import Pairs, read_pairs
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.stacking import GroupedRidge, Stacker

SETTINGS = {"name": "mel", "spaces": ["mini-mel"], "features": {"n_components": 2}}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return recipe_from({**SETTINGS, "stacker": {"preset": "paper"}}, "a test")


@pytest.fixture
def train(make_data: WriteData) -> Pairs:
    return read_pairs(make_data(train=40, test=12), "train")


def mini_mel(n_pairs: int = 40) -> PairEmbeddings:
    n_dims = get_encoder("mini-mel").info.audio_outputs["embedding"]
    vectors = np.random.default_rng(0).normal(size=(2, n_pairs, n_dims))
    return PairEmbeddings({"mini-mel": tuple(vectors)})


@pytest.fixture(scope="module")
def saved(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small saved scorer."""
    folder = tmp_path_factory.mktemp("scorer")
    Scorer(recipe).fit(mini_mel(), np.arange(40.0) / 4).save(folder)
    return folder


def with_card(folder: Path, copy: Path, **changes: object) -> Path:
    """Return a copy of a model whose card's recipe says something else."""
    shutil.copytree(folder, copy)
    card = json.loads((copy / "model.json").read_text())
    card["recipe"] |= changes
    (copy / "model.json").write_text(json.dumps(card))
    return copy


def test_a_scorer_is_its_parts_together(train: Pairs, tmp_path: Path, recipe: Recipe) -> None:
    scorer = Scorer(recipe, store=tmp_path / "store").fit(train)
    cached = FeatureCache(tmp_path / "store").load(train)
    builder = FeatureBuilder(["mini-mel"], n_components=2)
    table = builder.fit_transform(cached)
    stacker = Stacker(preset="paper", random_state=0).fit(table, train.scores)
    np.testing.assert_array_equal(scorer.score(train), stacker.predict(table))
    np.testing.assert_array_equal(scorer.score(cached), scorer.score(train))
    again = Scorer.from_fitted(recipe, builder, stacker)
    np.testing.assert_array_equal(again.score(cached), scorer.score(train))


def test_captions_are_held_out_together_where_there_are_enough(
    make_data: WriteData, tmp_path: Path, recipe: Recipe
) -> None:
    train = read_pairs(make_data(train=90), "train")
    scorer = Scorer(recipe, store=tmp_path / "store").fit(train)
    by_caption: dict[str, set[int]] = {}
    for caption, fold in zip(train.captions, scorer.regressor_.folds_, strict=True):
        by_caption.setdefault(caption, set()).add(int(fold))
    assert len(by_caption) < len(train)
    assert {len(folds) for folds in by_caption.values()} == {1}
    mine = scorer.fit(train, groups=np.arange(len(train)) // 30).regressor_.folds_
    assert [len(set(mine[start : start + 30])) for start in (0, 30, 60)] == [1, 1, 1]


def test_another_process_gives_the_same_scores_from_files_and_from_memory(
    train: Pairs, tmp_path: Path, recipe: Recipe
) -> None:
    scorer = Scorer(recipe, store=tmp_path / "store").fit(train)
    path = scorer.save(tmp_path / "mine.skops")
    clips, texts = list(map(str, train.audio[:3])), list(train.captions[:3])
    code = f"""
import json
from xacle_stack import Scorer
print(json.dumps(Scorer.load({str(path)!r}).score_clips({clips!r}, {texts!r}).tolist()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = scorer.score(train)[:3]
    np.testing.assert_allclose(json.loads(done.stdout), expected, rtol=1e-6)
    samples = [soundfile.read(clip, dtype="float32") for clip in clips]
    for waveforms in ([s for s, _ in samples], [np.stack([s, s]) for s, _ in samples]):
        rates = [rate for _, rate in samples]
        for rate in (rates, rates[0]):
            scores = scorer.score_clips(waveforms, texts, sample_rate_hz=rate)
            np.testing.assert_allclose(scores, expected, rtol=1e-6)
    for one_clip in (samples[0][0][np.newaxis], np.stack([samples[0][0]] * 2, axis=1)):
        scores = scorer.score_clips(one_clip, texts[0], sample_rate_hz=rates[0])
        np.testing.assert_allclose(scores, expected[:1], rtol=1e-6)
    for paths in (np.array(clips), np.array(clips, dtype=object)):
        np.testing.assert_allclose(scorer.score_clips(paths, texts), expected, rtol=1e-6)
    alone = scorer.score_clips(samples[1][0], texts[1], sample_rate_hz=samples[1][1])
    np.testing.assert_allclose(alone, expected[1:2], rtol=1e-6)


@pytest.mark.usefixtures("few_resamples")
def test_encoders_of_clips_and_of_captions_that_share_no_space_score_together(
    make_data: WriteData, tmp_path: Path
) -> None:
    data, store, out = make_data(train=60, validation=30), tmp_path / "store", tmp_path / "out"
    toys = [TOY.name.replace("ToySpace", toy) for toy in ("ToyClips", "ToyCaptions")]
    recipe = recipe_from(
        {"name": "sides", "spaces": [], "auxiliary": [f"{toy}:embedding" for toy in toys]}, "a test"
    )
    fill_cache(data, recipe, store)
    *_, (result,) = run_experiment(data, recipe, recipe.stack_systems, store, out)
    assert result.system == "toy-clips + toy-captions"
    # Neither side says anything by itself: the score is whether the word names the tone.
    assert result.evaluation.lcc.low > 0.5
    scorer = Scorer.load(out, recipe, store=store)
    validation = read_pairs(data, "validation")
    scores = scorer.score(validation)
    alone = scorer.score_clips(validation.audio[3], validation.captions[3])
    np.testing.assert_allclose(alone, scores[3], rtol=1e-6)
    assert scorer.regressor_.families_ == {
        "auxiliary": ("toy-clips/embedding", "toy-captions/embedding")
    }
    cached = FeatureCache(store).load(read_pairs(data, "train"), recipe.fingerprints())
    stacker = Scorer(recipe).fit(cached, groups=None).regressor_
    table = recipe.builder().fit_transform(cached)
    (family,) = stacker.explain(table, cached.pairs.scores).families
    assert family.name == "auxiliary"


def test_tensors_are_scored_like_arrays(train: Pairs, tmp_path: Path, recipe: Recipe) -> None:
    torch = pytest.importorskip("torch")
    scorer = Scorer(recipe, store=tmp_path / "store").fit(train)
    samples, rate = soundfile.read(train.audio[0], dtype="float32")
    scores = scorer.score_clips(torch.from_numpy(samples), "rain", sample_rate_hz=rate)
    np.testing.assert_array_equal(scores, scorer.score_clips([train.audio[0]], ["rain"]))


def test_clips_that_cannot_be_scored_are_told(saved: Path, train: Pairs, tmp_path: Path) -> None:
    scorer = Scorer.load(saved)
    with pytest.raises(PairsError, match=r"clips: 2, texts: 3"):
        scorer.score_clips(train.audio[:2], ["a", "b", "c"])
    with pytest.raises(PairsError, match=r"clips: 0.*one clip or more"):
        scorer.score_clips([], "rain")
    with pytest.raises(AudioError, match="sample_rate_hz"):
        scorer.score_clips([np.zeros(800)], ["rain"])
    with pytest.raises(AudioError, match=r"\(2, 800\).*\[audio\] for one clip.*list\(audio\)"):
        scorer.score_clips(np.zeros((2, 800)), "rain", sample_rate_hz=8000)
    with pytest.raises(AudioError, match="nowhere.wav"):
        scorer.score_clips([tmp_path / "nowhere.wav"], ["rain"])
    with pytest.raises(PairsError, match="nowhere.wav"):
        Scorer.load(saved, store=tmp_path / "store").score(
            Pairs("test", ("a",), (tmp_path / "nowhere.wav",), ("rain",))
        )


def test_any_regressor_makes_a_scorer(train: Pairs, tmp_path: Path, recipe: Recipe) -> None:
    class OnValues(Ridge):
        """Takes the table's columns without their names."""

        def fit(self, X, y):
            return super().fit(X.values, y)

        def predict(self, X):
            return super().predict(X.values)

    scorer = Scorer(recipe, OnValues(), store=tmp_path / "store").fit(train)
    scores = scorer.score(train)
    assert ((scores >= 0) & (scores <= 10)).all()
    far = Scorer(recipe, DummyRegressor(), store=tmp_path / "store")
    far.fit(train)
    far.regressor_ = DummyRegressor(constant=12, strategy="constant").fit([[0]], [12])
    assert 9 < far.score(train).max() <= 10


def test_scores_are_needed_to_fit_on(recipe: Recipe) -> None:
    with pytest.raises(PairsError, match="give y"):
        Scorer(recipe).fit(mini_mel())


def test_a_model_without_a_recipe_says_how_to_make_it_a_scorer(
    tmp_path: Path, recipe: Recipe
) -> None:
    builder = FeatureBuilder(["mini-mel"], n_components=2)
    table = builder.fit_transform(mini_mel())
    stacker = Stacker(preset="paper", random_state=0).fit(table, np.arange(40.0) / 4)
    path = save_model(tmp_path / "bare.skops", {"builder": builder, "regressor": stacker})
    with pytest.raises(ModelFileError, match=r"Scorer\.from_fitted\(recipe, builder, regressor\)"):
        Scorer.load(path)
    Scorer.from_fitted(recipe, builder, stacker).save(path)
    np.testing.assert_array_equal(Scorer.load(path).score(mini_mel()), stacker.predict(table))


def test_a_model_of_other_encoders_is_refused(saved: Path, tmp_path: Path) -> None:
    place = "someone/weights\x1b[2J"
    out = with_card(saved, tmp_path / "copy", checkpoints={"mini-mel": place})
    card = json.loads((out / "model.json").read_text())
    card["fingerprints"]["mini-mel"] = "0" * 16
    (out / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelFileError, match="for: mini-mel.*--checkpoint mini-mel=PLACE") as told:
        Scorer.load(out)
    assert "'mini-mel' with 'someone/weights\\x1b[2J'" in str(told.value)


def test_a_strangers_model_runs_none_of_its_code(saved: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    out = with_card(saved, tmp_path / "copy", spaces=[f"{tmp_path}/evil.py:Evil"])
    with pytest.raises(ModelFileError, match=r"saved model's word.*--recipe"):
        Scorer.load(out)
    assert not ran.exists()


def test_an_encoder_from_a_file_is_allowed_by_its_recipe(train: Pairs, tmp_path: Path) -> None:
    recipe = recipe_from({**SETTINGS, "spaces": [TOY.name]}, "a test")
    scorer = Scorer(recipe, Stacker(preset="paper", random_state=0), store=tmp_path / "s")
    path = scorer.fit(train).save(tmp_path / "toy.skops")
    with pytest.raises(ModelFileError, match="Python file"):
        Scorer.load(path)
    again = Scorer.load(path, recipe, store=tmp_path / "s")
    np.testing.assert_array_equal(again.score(train), scorer.score(train))


@pytest.mark.parametrize("place", ["someone/weights", "/dev/zero", "pipe"])
def test_a_card_does_not_say_where_weights_are(
    saved: Path, tmp_path: Path, monkeypatch, place: str
) -> None:
    asked = []
    monkeypatch.setattr(
        "xacle_stack.encoders.base.Encoder.find_checkpoint",
        lambda checkpoint, download=True: asked.append(checkpoint),
    )
    out = with_card(
        saved,
        tmp_path / "copy",
        checkpoints={"mini-mel": place},
        views={"mini-mel": 10**9},
        code={"mini-mel": place},
    )
    recipe = Scorer.load(out).recipe
    assert (recipe.checkpoints, recipe.views, recipe.code) == ({}, {}, {})
    assert set(asked) == {None}
    Scorer.load(out, checkpoints={"mini-mel": "mine"})
    assert "mine" in asked


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"spaces": ["nobodys"]}, UnknownNameError, "unknown encoder 'nobodys'"),
        ({"spaces": 3}, RecipeError, "its card: 1 mistake"),
        (
            {"auxiliary": [f"mini-mel:{n}" for n in range(200_000)]},
            ModelFileError,
            "recipe .* bytes, .* 65,536 ",
        ),
        ({"stacker": {"preset": "os.system"}}, RecipeError, "its card: 1 mistake"),
        ({"auxiliary": ["evil.py:Evil:logits"]}, ModelFileError, "saved model's word"),
        ({"seeds": 10**12}, RecipeError, "1000000000000 "),
    ],
)
def test_a_card_with_mistakes_is_told(
    saved: Path, tmp_path: Path, changes: dict, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        Scorer.load(with_card(saved, tmp_path / "copy", **changes))


@pytest.mark.parametrize("missing", ["recipe", "fingerprints"])
def test_a_card_without_a_recipe_scores_nothing(saved: Path, tmp_path: Path, missing: str) -> None:
    out = with_card(saved, tmp_path / "copy")
    card = json.loads((out / "model.json").read_text())
    for value in ({}, {missing: [1]}):
        kept = {key: one for key, one in card.items() if key != missing}
        (out / "model.json").write_text(json.dumps(kept | value))
        with pytest.raises(ModelFileError, match="recipe and fingerprints"):
            Scorer.load(out)


@pytest.mark.parametrize(
    "parts",
    [
        {"builder": StandardScaler(), "regressor": GroupedRidge()},
        {"builder": make_pipeline(StandardScaler()), "regressor": GroupedRidge()},
        {"regressor": GroupedRidge()},
    ],
    ids=["scaler", "pipeline", "no builder"],
)
def test_a_scorer_is_made_of_this_librarys_parts(saved: Path, tmp_path: Path, parts) -> None:
    card = json.loads((saved / "model.json").read_text())
    save_model(tmp_path / "other", parts, card)
    with pytest.raises(ModelFileError, match="Scorer.save"):
        Scorer.load(tmp_path / "other")


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match="papr.*'paper'"):
        Scorer("papr")
