import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from random_checkpoints import qwen2
from support import TESTS, WriteData

from xacle_stack import cli, pretraining
from xacle_stack.captions import caption_similarity, write_captions
from xacle_stack.errors import MissingExtraError, PairsError, RecipeError, StackingError
from xacle_stack.experiment import fill_cache, run_experiment
from xacle_stack.features import CaptionedSequences
from xacle_stack.pairs import read_pairs
from xacle_stack.pretraining import check_training, pretrain, stage_pairs, weights_of
from xacle_stack.recipe import Recipe, missing_extras, read_recipe, recipe_from
from xacle_stack.scorer import Scorer
from xacle_stack.systems import AudioLanguageModelRegressor, captioner

pytest.importorskip("torch")
pytest.importorskip("transformers")

WORDS = ["a", "low", "middle", "high", "tone", "number", *map(str, range(40))]
TOY = f"{TESTS / 'toy_encoder.py'}:ToyOnDemand"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data(make_data: WriteData) -> Path:
    return make_data(train=40, test=12)


@pytest.fixture
def recipe_file(tmp_path: Path, data: Path) -> Path:
    qwen2.write(tmp_path / "language", WORDS)
    lines = ["audio\ttext"]
    for row in read_pairs(data, "train").take(range(20)).audio:
        lines.append(f"{row}\ta low tone number {len(lines)}")
    (tmp_path / "clips.tsv").write_text("\n".join(lines))
    path = tmp_path / "alm.toml"
    path.write_text(
        f"""
spaces = ["{TOY}"]
seeds = 1
reference = "all stages"
[views]
"{TOY}" = 1
[systems."all stages"]
kind = "audio-language-model"
tokens = "{TOY}:frames"
language_model = "language"
n_audio_tokens = 4
max_tokens = 8
precision = "float32"
epochs = 2
learning_rate = 1e-3
[systems."all stages".captioning]
data = "clips.tsv"
epochs = 3
learning_rate = 3e-3
[systems."all stages".pseudo_labels]
data = "clips.tsv"
epochs = 2
wrong_captions = 2
[systems."scores only"]
kind = "audio-language-model"
tokens = "{TOY}:frames"
language_model = "language"
n_audio_tokens = 4
max_tokens = 8
precision = "float32"
epochs = 2
learning_rate = 1e-3
[systems.ranks]
kind = "ensemble"
of = ["all stages", "scores only"]
"""
    )
    return path


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return read_recipe(recipe_file)


def test_a_recipe_names_its_stages(recipe: Recipe, recipe_file: Path) -> None:
    spec = recipe.systems["all stages"]
    assert spec.captioning.data == str(recipe_file.parent / "clips.tsv")
    stage = spec.stage(spec.captioning)
    assert (stage.epochs, stage.n_audio_tokens) == (3, 4)
    assert stage.language_model == str(recipe_file.parent / "language")
    stage = spec.stage(spec.pseudo_labels)
    assert (stage.epochs, stage.learning_rate, stage.max_tokens) == (2, 1e-5, 8)
    (choice,) = recipe.encoders
    assert choice.outputs == ("embedding", "frames") or choice.outputs == ("frames",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("wrong_captions = 2", "wrong_captions = 0", "pseudo_labels.wrong_captions"),
        ("max_tokens = 8", "initial = 'a'", "initial: unknown setting"),
        ("n_audio_tokens = 4", "n_audio_token = 4", "did you mean 'n_audio_tokens'"),
        ("epochs = 3", "epoch = 3", r"captioning.*did you mean 'epochs'"),
        ("epochs = 3", "epochs = 0", r"epochs must be a whole number"),
        (":frames", ":letters", r"no sequence of clips.*:frames"),
    ],
)
def test_mistakes_in_a_recipe(recipe_file: Path, old: str, new: str, message: str) -> None:
    recipe_file.write_text(recipe_file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_recipe(recipe_file)


def test_all_stages_are_trained_compared_saved_and_score(
    recipe: Recipe, data: Path, tmp_path: Path, capsys
) -> None:
    store, out = tmp_path / "store", tmp_path / "run"
    fill_cache(data, recipe, store)
    *_, results = run_experiment(data, recipe, recipe.compared_systems, store, out)
    assert {one.system for one in results} >= {"all stages", "scores only", "ranks"}
    assert not (store / "training").exists() or not [*(store / "training").iterdir()]
    test = read_pairs(data, "test")
    model = Scorer.load(out / "models" / "all-stages.skops", recipe, store=store)
    assert (out / "models" / "all-stages.safetensors").exists()
    saved = (out / "scores-test-all-stages.csv").read_text().splitlines()[1:]
    found = model.score(test)
    np.testing.assert_allclose([float(line.split(",")[1]) for line in saved], found, atol=0.006)
    clips = model.score_clips([*test.audio], [*test.captions])
    np.testing.assert_allclose(clips, found, atol=1e-3)
    params = model.regressor_.get_params()
    assert params["initial"] is None
    assert params["checkpoints"] is None
    # The stage before wrote a model of its own, which captions clips.
    stages = ["all-stages-captioning", "all-stages-pseudo_labels"]
    assert all((out / "models" / f"{name}.safetensors").exists() for name in stages)
    path = out / "models" / f"{stages[0]}.skops"
    writer = Scorer.load(path, recipe, store=store)
    written = write_captions(writer, test)
    assert len(written) == 12
    with pytest.raises(StackingError, match="writes captions.*xacle-stack caption"):
        writer.score(test)
    with pytest.raises(StackingError, match="gives scores and writes no captions"):
        write_captions(model, test)


def test_a_stage_is_trained_once_for_its_data(recipe: Recipe, tmp_path: Path, monkeypatch) -> None:
    spec, store = recipe.systems["all stages"], tmp_path / "store"
    found = pretrain(spec, recipe, store)
    assert [*found] == ["captioning", "pseudo_labels"]
    assert not [*store.rglob("training-*.pt")]

    def never(*_: object) -> None:
        raise AssertionError("it is trained again")

    with monkeypatch.context() as patched:
        patched.setattr(captioner.AudioCaptioner, "fit", never)
        patched.setattr(AudioLanguageModelRegressor, "fit", never)
        assert pretrain(spec, recipe, store) == found
    alone = spec.model_copy(update={"captioning": None})
    other = pretrain(alone, recipe, store)
    assert other["pseudo_labels"] != found["pseudo_labels"]
    assert weights_of(other["pseudo_labels"]).exists()
    alone = spec.model_copy(update={"pseudo_labels": None})
    seeded = recipe_from({**recipe.model_dump(), "stacker": {"random_state": 1}}, "a test")
    assert pretrain(alone, seeded, store)["captioning"] != found["captioning"]


def test_a_stage_that_was_killed_goes_on(recipe: Recipe, tmp_path: Path, monkeypatch) -> None:
    spec = recipe.systems["all stages"].model_copy(update={"pseudo_labels": None})
    undisturbed = pretrain(spec, recipe, tmp_path / "one")["captioning"]
    calls, loss = [], captioner.AudioCaptioner._loss

    def dying(self, *arguments):
        calls.append(1)
        if len(calls) == 5:
            raise SystemExit
        return loss(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(captioner.AudioCaptioner, "_loss", dying)
        with pytest.raises(SystemExit):
            pretrain(spec, recipe, tmp_path / "two")
    assert len([*(tmp_path / "two").rglob("training-*.pt")]) == 1
    resumed = pretrain(spec, recipe, tmp_path / "two")["captioning"]
    assert weights_of(resumed).read_bytes() == weights_of(undisturbed).read_bytes()


def test_missing_data_of_stages_are_named_before_anything_is_encoded(
    recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    text = recipe_file.read_text()
    recipe_file.write_text(text.replace('"clips.tsv"', '"none.tsv"'))
    where = r"systems\.all stages\.captioning: there is no table 'none\.tsv'"
    recipe, store = read_recipe(recipe_file), tmp_path / "store"
    with pytest.raises(PairsError, match=f"^{where}, neither in the recipe's folder nor in"):
        fill_cache(data, recipe, store)
    assert not store.exists()
    with pytest.raises(PairsError, match=where):
        next(run_experiment(data, recipe, recipe.compared_systems, store, tmp_path / "run"))
    (tmp_path / "bad.tsv").write_text("audio\ttext\nnone.wav\ta tone\n")
    recipe_file.write_text(
        text.replace('"clips.tsv"', '"none.tsv"', 1).replace('"clips.tsv"', '"bad.tsv"')
    )
    both = r"(?s)^2 table.*captioning: .*none\.tsv.*pseudo_labels, data = .*line 2: .*none\.wav"
    with pytest.raises(PairsError, match=both):
        stage_pairs(read_recipe(recipe_file))


def test_what_a_training_begins_with_is_checked_before_it(
    recipe_file: Path, data: Path, tmp_path: Path
) -> None:
    recipe = read_recipe(recipe_file)
    systems = recipe.systems
    captioner_alone = systems["all stages"].model_copy(update={"pseudo_labels": None})
    writer = pretrain(captioner_alone, recipe, tmp_path / "store")["captioning"]
    text = recipe_file.read_text().replace("wrong_captions = 2", f"teacher = '{writer}'")
    recipe_file.write_text(text.replace('language_model = "language"', 'language_model = "no"'))
    (tmp_path / "no").mkdir()
    recipe = read_recipe(recipe_file)
    with pytest.raises(StackingError) as caught:
        next(run_experiment(data, recipe, recipe.systems, tmp_path / "store", tmp_path / "run"))
    said = str(caught.value)
    assert said.startswith("2 thing(s) cannot be used:")
    assert "systems.all stages: language model" in said
    assert "is incomplete" in said
    assert "systems.all stages.pseudo_labels, teacher = " in said
    assert "systems.scores only" not in said  # the same language model, told once
    check_training(recipe, {"ranks": recipe.systems["ranks"]})


def test_a_label_free_teacher_needs_spaces(recipe_file: Path) -> None:
    text = recipe_file.read_text().replace(f'spaces = ["{TOY}"]', "spaces = []")
    recipe_file.write_text(text)
    with pytest.raises(RecipeError, match=r"pseudo_labels: the teacher .label-free. .* are empty"):
        read_recipe(recipe_file)


def test_a_teachers_encoders_are_where_the_recipe_says(
    recipe: Recipe, tmp_path: Path, monkeypatch
) -> None:
    asked: dict[str, object] = {}

    def load(teacher: str, **settings: object) -> SimpleNamespace:
        asked.update(settings)
        return SimpleNamespace(regressor_=None)

    monkeypatch.setattr(pretraining.Scorer, "load", load)
    fingerprints = {"fingerprints": {"m2d-clap": "0123456789abcdef"}}
    monkeypatch.setattr(pretraining, "load_card", lambda _: fingerprints)
    places = {"m2d-clap": "folder", "beats": "weights.pt"}
    chosen = recipe.model_copy(update={"checkpoints": places, "code": places})
    spec = recipe.systems["all stages"]
    labels = spec.pseudo_labels.model_copy(update={"teacher": "teacher.skops"})
    spec = spec.model_copy(update={"captioning": None, "pseudo_labels": labels})
    check_training(chosen, {"one": spec})
    own = {"m2d-clap": "folder"}
    assert asked == {"checkpoints": own, "code": own}


@pytest.mark.parametrize(
    ("package", "tuning", "of_estimator", "of_system"),
    [
        ("lightning_fabric", "full", "neural", "language"),
        ("transformers", "full", "language", "language"),
        ("peft", "lora", "lora", "lora"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    recipe_file: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch,
    package,
    tuning,
    of_estimator,
    of_system,
) -> None:
    text = recipe_file.read_text()
    recipe_file.write_text(text.replace("max_tokens = 8", f'max_tokens = 8\ntuning = "{tuning}"'))
    recipe = read_recipe(recipe_file)
    spec = recipe.systems["scores only"]
    monkeypatch.setitem(sys.modules, package, None)
    needed = f"'{package}'.*pip install 'xacle-stack.{{}}.'"
    with pytest.raises(MissingExtraError, match=f"'all stages' needs .*{needed.format(of_system)}"):
        next(run_experiment(data, recipe, recipe.systems, tmp_path / "store", tmp_path / "run"))
    assert of_system in missing_extras(recipe_file)
    regressor = AudioLanguageModelRegressor(**spec.parameters)
    rng = np.random.default_rng(0)
    clips = CaptionedSequences([*rng.normal(size=(20, 3, 2))], ["a low tone"] * 20)
    with pytest.raises(MissingExtraError, match=needed.format(of_estimator)):
        regressor.fit(clips, np.arange(20) / 2)


def test_the_command_writes_captions(
    recipe: Recipe, data: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    spec = recipe.systems["all stages"].model_copy(update={"pseudo_labels": None})
    model = pretrain(spec, recipe, tmp_path / "store")["captioning"]
    # The card names an encoder in a Python file, which only the caller may allow.
    writer = Scorer.load(model, recipe, store=tmp_path / "store")
    command = sys.modules["xacle_stack.cli.caption"]
    monkeypatch.setattr(command, "chosen_scorer", lambda *_, **__: writer)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["caption", str(model), *map(str, arguments), "--quiet"])
        printed = capsys.readouterr()
        return printed.out + printed.err if ended.value.code else printed.out

    said = run("--data", data, "--similarity", "mini-mel")
    assert "12 captions: captions-test.csv" in said
    assert "mean similarity to the captions of the data, by mini-mel: " in said
    header, *rows = Path("captions-test.csv").read_text().splitlines()
    assert header == "id,caption,reference,similarity"
    assert len(rows) == 12
    clips = read_pairs(data, "test").audio[:2]
    printed = run("--audio", clips[0], "--audio", clips[1], "--beams", 2)
    assert [line.split("\t")[0] for line in printed.splitlines()] == [*map(str, clips)]
    assert "give either --data or --audio" in run()
    assert "--similarity is to the captions of --data" in run(
        "--audio", clips[0], "--similarity", "mini-mel"
    )


def test_similarity_needs_a_reference_for_each() -> None:
    with pytest.raises(PairsError, match="1 captions for 2 references"):
        caption_similarity(["a"], ["a", "b"])
