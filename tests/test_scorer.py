import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support import TOY, WriteData
from threadpoolctl import threadpool_info, threadpool_limits

from xacle_stack import Scorer, save_model
from xacle_stack._large_arrays import LargeArrays
from xacle_stack.cache import FeatureCache
from xacle_stack.encoders import get_encoder
from xacle_stack.errors import (
    AudioError,
    ModelFileError,
    PairsError,
    RecipeError,
    StackingError,
    UnknownNameError,
)
from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.features import FeatureBuilder, PairEmbeddings, VectorBuilder, cosine_similarity
from xacle_stack.pairs import Pairs, read_pairs
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.stacking import GroupedRidge, Stacker
from xacle_stack.systems import CosineMean, CosineRegressor

FEATURES = {"n_components": 2, "n_whitened": 4, "proximities": True}
SETTINGS = {"name": "mel", "spaces": ["mini-mel"], "features": FEATURES}


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
    builder = FeatureBuilder(["mini-mel"], **FEATURES)
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


def test_an_array_with_one_row_for_each_text_is_a_batch(saved: Path, rng) -> None:
    scorer, texts = Scorer.load(saved, device="cpu"), ["rain", "a dog", "wind"]
    batch = rng.uniform(-0.5, 0.5, (3, 4000)).astype(np.float32)
    expected = scorer.score_clips(list(batch), texts, sample_rate_hz=8000)
    found = scorer.score_clips(batch, texts, sample_rate_hz=8000)
    np.testing.assert_array_equal(found, expected)
    stereo = np.stack([batch, batch], axis=1)
    found = scorer.score_clips(stereo, texts, sample_rate_hz=8000)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    torch = pytest.importorskip("torch")
    found = scorer.score_clips(torch.from_numpy(batch).requires_grad_(), texts, sample_rate_hz=8000)
    np.testing.assert_array_equal(found, expected)


def test_threads_share_the_encoders_and_get_the_same_scores(saved: Path, rng, monkeypatch) -> None:
    choice = Scorer.load(saved).recipe.encoders[0]
    loaded, load = [], choice.encoder.load
    monkeypatch.setattr(
        choice.encoder, "load", lambda *args: (time.sleep(0.1), loaded.append(1), load(*args))[2]
    )
    clips = [rng.uniform(-0.5, 0.5, 4000 + 10 * n) for n in range(12)]
    alone = Scorer.load(saved, device="cpu")
    expected = [alone.score_clips(clip, "rain", sample_rate_hz=8000)[0] for clip in clips]
    shared = Scorer.load(saved, device="cpu")
    with threadpool_limits(2):
        before = threadpool_info()
        with ThreadPoolExecutor(6) as pool:
            found = list(
                pool.map(lambda clip: shared.score_clips(clip, "rain", sample_rate_hz=8000), clips)
            )
        assert threadpool_info() == before
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert len(loaded) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_scores_while_threads_of_its_parent_do(saved: Path) -> None:
    code = f"""
import multiprocessing, threading
import numpy as np
from xacle_stack import Scorer
scorer = Scorer.load({str(saved)!r}, device="cpu")
clip = np.sin(np.arange(8000) / 9)
def score():
    return float(scorer.score_clips(clip, "rain", sample_rate_hz=8000)[0])
expected, is_over = score(), threading.Event()
def go_on():
    while not is_over.is_set():
        score()
threads = [threading.Thread(target=go_on) for _ in range(2)]
for thread in threads:
    thread.start()
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
for _ in range(4):
    child = context.Process(target=lambda: queue.put(score()))
    child.start()
    child.join(60)
    assert child.exitcode == 0, child.exitcode
    assert queue.get() == expected
is_over.set()
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=300)
    assert done.returncode == 0


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


def test_intervals_come_with_scores_and_survive_saving(
    train: Pairs, tmp_path: Path, recipe: Recipe
) -> None:
    scorer = Scorer(recipe, store=tmp_path / "store").fit(train)
    scored = scorer.score(train, interval=0.9)
    np.testing.assert_array_equal(scored.scores, scorer.score(train))
    assert (scored.pairs, scored.confidence) == (train, 0.9)
    assert ((scored.low <= scored.scores) & (scored.scores <= scored.high)).all()
    assert 0 <= scored.low.min() < scored.high.max() <= 10
    again = Scorer.load(scorer.save(tmp_path / "mine.skops"), store=tmp_path / "store")
    assert again.score(train, interval=0.9).to_csv() == scored.to_csv()
    clips = scorer.score_clips(train.audio[:2], train.captions[:2], interval=0.9)
    np.testing.assert_allclose(clips.low, scored.low[:2], rtol=1e-6)
    np.testing.assert_allclose(clips.high, scored.high[:2], rtol=1e-6)
    with pytest.raises(StackingError, match="below 1.*got 90"):
        scorer.score(train, interval=90)


def test_scores_without_a_range_have_intervals_on_the_scale(recipe: Recipe) -> None:
    stacker = Stacker(preset="paper", random_state=0, score_range=None)
    scorer = Scorer(recipe, stacker).fit(mini_mel(), np.linspace(-20, 30, 40))
    scored = scorer.score(mini_mel(), interval=0.9)
    assert scored.pairs is None
    assert ((scored.low <= scored.scores) & (scored.scores <= scored.high)).all()
    assert (scored.low.min(), scored.high.max()) == (0, 10)


def test_a_regressor_without_intervals_says_how_to_get_them(train: Pairs, tmp_path: Path) -> None:
    recipe = recipe_from(SETTINGS, "a test")
    builder = VectorBuilder(["mini-mel"])
    for regressor, has_intervals in (
        (CosineRegressor(), False),
        (Stacker([("one", CosineRegressor())], random_state=0), True),
    ):
        scorer = Scorer(recipe, regressor, builder=builder, store=tmp_path / "store").fit(train)
        if has_intervals:
            assert scorer.score(train, interval=0.8).low is not None
        else:
            with pytest.raises(StackingError, match=r"Stacker\(\[\('one', CosineRegressor"):
                scorer.score(train, interval=0.8)


def test_scores_are_needed_to_fit_on(recipe: Recipe) -> None:
    with pytest.raises(PairsError, match="give y"):
        Scorer(recipe).fit(mini_mel())


def test_a_model_without_a_recipe_says_how_to_make_it_a_scorer(
    tmp_path: Path, recipe: Recipe
) -> None:
    builder = FeatureBuilder(["mini-mel"], **FEATURES)
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


def test_large_arrays_of_a_scorer_are_saved_and_counted(
    train: Pairs, tmp_path: Path, recipe: Recipe
) -> None:
    stacker = Stacker(preset="paper", random_state=0)
    scorer = Scorer(recipe, stacker, store=tmp_path / "store").fit(train)
    n_parameters = scorer.n_parameters
    scorer.regressor_.weights_ = LargeArrays({"w": np.arange(6.0).reshape(2, 3)})
    path = scorer.save(tmp_path / "mine.skops")
    assert path.with_suffix(".safetensors").is_file()
    loaded = Scorer.load(path, store=tmp_path / "store")
    np.testing.assert_array_equal(loaded.regressor_.weights_["w"], np.arange(6.0).reshape(2, 3))
    assert loaded.n_parameters == n_parameters + 6
    np.testing.assert_array_equal(loaded.score(train), scorer.score(train))


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
        ({"auxiliary": ["text:evil/one:embedding"]}, ModelFileError, "looked for on a saved"),
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


def test_without_ratings_the_mean_of_the_cosines_scores(
    make_data: WriteData, tmp_path: Path
) -> None:
    data = make_data(train=40, test=12)
    train, test = (read_pairs(data, split) for split in ("train", "test"))
    unrated = replace(train, scores=None, ratings=None)
    scorer = Scorer.label_free("mini", store=tmp_path / "store").fit(unrated)
    assert isinstance(scorer.regressor_, CosineMean)
    scores = scorer.score(test)
    assert ((scores > 0) & (scores < 10)).all()
    cached = FeatureCache(tmp_path / "store").load(test)
    expected = [cosine_similarity(cached.audio(s), cached.text(s)) for s in scorer.recipe.spaces]
    cosines = scorer.regressor_.cosines(scorer.builder_.transform(cached))
    np.testing.assert_array_equal(cosines, np.column_stack(expected))
    # Ratings change nothing, and neither do the other pairs that are scored.
    again = Scorer.label_free("mini", store=tmp_path / "store").fit(train)
    np.testing.assert_array_equal(again.score(test), scores)
    np.testing.assert_array_equal(scorer.score(test.take([3])), scores[3:4])
    loaded = Scorer.load(scorer.save(tmp_path / "free.skops"), store=tmp_path / "store")
    np.testing.assert_array_equal(loaded.score(test), scores)
    assert loaded.novelty(test) is None


def around(centre: float, n_pairs: int = 40) -> PairEmbeddings:
    """Return pairs whose vectors have one direction in common."""
    pairs = mini_mel(n_pairs)
    vectors = centre + np.stack([pairs.audio("mini-mel"), pairs.text("mini-mel")])
    return PairEmbeddings({"mini-mel": tuple(vectors)})


def test_a_scorer_says_what_is_far_from_its_training_pairs(
    recipe: Recipe, tmp_path: Path, caplog
) -> None:
    scorer = Scorer(recipe).fit(around(2), np.arange(40.0) / 4)
    loaded = Scorer.load(scorer.save(tmp_path / "mine.skops"))
    for scored in (around(2), around(-2)):
        np.testing.assert_array_equal(loaded.novelty(scored), scorer.novelty(scored))
        # What is asked beside the scores changes none of them.
        scores = loaded.score(scored, check_novelty=False)
        np.testing.assert_array_equal(scores, scorer.score(scored, check_novelty=False))
    scorer.score(around(2))
    assert caplog.text == ""
    assert (scorer.novelty(around(-2)) > 1).all()
    np.testing.assert_array_equal(loaded.score(around(-2)), scores)
    assert "40 of 40 pairs" in caplog.text
    caplog.clear()
    loaded.score(around(-2)[:1])
    assert caplog.text == ""  # told once: a training loop scores at every step
    Scorer.load(tmp_path / "mine.skops").score(around(-2)[:1])
    assert "1 of 1 pairs" in caplog.text


def test_a_table_that_is_not_read_yet_is_told(recipe: Recipe) -> None:
    scorer = Scorer(recipe).fit(around(2), np.arange(40.0) / 4)
    with pytest.raises(PairsError, match=r"got a list.*read_pairs"):
        scorer.score([{"audio": "a.wav", "text": "rain"}])  # type: ignore[arg-type]


def test_a_scorer_without_novelty_scores_in_silence(recipe: Recipe, tmp_path: Path, caplog) -> None:
    scorer = Scorer(recipe).fit(around(2), np.arange(40.0) / 4)
    parts = {"builder": scorer.builder_, "regressor": scorer.regressor_}
    for novelty in ({}, {"novelty": None}):
        card = {"recipe": recipe.model_dump(mode="json"), "fingerprints": scorer.fingerprints_}
        path = save_model(tmp_path / "old.skops", parts | novelty, card)
        old = Scorer.load(path)
        assert old.novelty(around(-2)) is None
        expected = scorer.score(around(-2), check_novelty=False)
        np.testing.assert_array_equal(old.score(around(-2)), expected)
    assert caplog.text == ""
    save_model(path, {**parts, "novelty": GroupedRidge()}, card)
    with pytest.raises(ModelFileError, match="its novelty is a GroupedRidge"):
        Scorer.load(path)
