from pathlib import Path

import pytest
from support import TESTS, TOY

from xacle_stack.errors import RecipeError, UnknownNameError
from xacle_stack.recipe import read_recipe, recipe_from
from xacle_stack.stacking import Stacker

RECIPES = Path(__file__).parent.parent / "features" / "recipes"


def write(folder: Path, content: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(content)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_the_project_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.encoders


def test_defaults_and_settings(tmp_path: Path) -> None:
    (tmp_path / "weights").touch()
    recipe = read_recipe(
        write(
            tmp_path,
            f"""
spaces = ["mini-mel", "{TOY.name}"]
auxiliary = ["{TOY.name}:level"]
[checkpoints]
"{TOY.name}" = "{tmp_path}/weights"
[features]
n_components = 5
[stacker]
n_splits = 4
group_by = "none"
penalties = [1, 10]
""",
        )
    )
    assert [choice.name for choice in recipe.encoders] == ["mini-mel", TOY.name]
    assert recipe.encoders[1].checkpoint == f"{tmp_path}/weights"
    builder = recipe.builder()
    assert (builder.spaces, builder.auxiliary) == (["mini-mel", "toy"], ["toy:level"])
    assert builder.n_components == 5
    stacker = recipe.new_stacker(n_jobs=2)
    assert (stacker.n_splits, stacker.penalties, stacker.n_jobs) == (4, (1, 10), 2)
    assert stacker.score_range == Stacker().score_range  # the same model as without a recipe
    assert set(recipe.fingerprints()) == {"mini-mel", "toy"}
    assert recipe_from(recipe.model_dump(mode="json"), "again") == recipe


@pytest.mark.parametrize("preset", ["best", "paper"])
def test_penalties_that_nothing_uses_are_told(tmp_path: Path, caplog, preset: str) -> None:
    content = f'spaces = ["mini-mel"]\n[stacker]\npreset = "{preset}"\n'
    read_recipe(write(tmp_path, content))
    assert caplog.text == ""
    recipe = read_recipe(write(tmp_path, f"{content}penalties = [1.0, 10.0]"))
    unused = 'mine.toml: the preset "best" does not use penalties under [stacker]'
    assert (unused in caplog.text) == (preset == "best")
    assert len(caplog.records) == (preset == "best")
    caplog.clear()
    recipe.override(precision="bfloat16")  # told once
    assert caplog.text == ""


def test_paths_are_relative_to_the_recipe(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text((TESTS / "toy_encoder.py").read_text())
    (tmp_path / "weights").touch()
    content = """
spaces = ["mini-mel", "mine.py:ToySpace"]
auxiliary = ["mine.py:ToySpace:level"]
[checkpoints]
"mine.py:ToySpace" = "weights"
"""
    path = write(tmp_path, content)
    monkeypatch.chdir("/")
    recipe = read_recipe(path)
    assert recipe.encoders[1].name == f"{tmp_path / 'mine.py'}:ToySpace"
    assert recipe.encoders[1].checkpoint == str(tmp_path / "weights")
    assert recipe.builder().auxiliary == ["toy:level"]


def test_paths_of_systems_are_relative_to_the_recipe_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text((TESTS / "toy_encoder.py").read_text())
    content = """
spaces = ["mine.py:ToySpace"]
[systems.cosine]
kind = "cosine"
space = "mine.py:ToySpace"
[systems.head]
kind = "projection-head"
spaces = ["mine.py:ToySpace"]
[systems.baseline]
kind = "lstm"
frames = "mine.py:ToyFrames:frames"
text = "mine.py:ToyFrames"
"""
    systems = read_recipe(write(tmp_path, content)).systems
    file = tmp_path / "mine.py"
    assert systems["cosine"].space == f"{file}:ToySpace"
    assert systems["head"].spaces == (f"{file}:ToySpace",)
    assert systems["baseline"].frames == f"{file}:ToyFrames:frames"
    assert systems["baseline"].text == f"{file}:ToyFrames"


def test_two_encoders_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text((TESTS / "toy_encoder.py").read_text())
    path = write(tmp_path, 'spaces = ["one.py:ToySpace"]\nauxiliary = ["two.py:ToySpace:level"]')
    with pytest.raises(RecipeError, match=r"two.py:ToySpace' and .* are both called 'toy'"):
        read_recipe(path)


def test_words_are_counted_in_captions_too(tmp_path: Path) -> None:
    content = (TESTS / "toy_encoder.py").read_text()
    (tmp_path / "mine.py").write_text(content.replace('"level"', '"words"'))
    write(tmp_path, 'spaces = ["mini-mel"]\nauxiliary = ["wav2vec2-ctc:words"]')
    assert read_recipe(tmp_path / "mine.toml").builder().auxiliary == ["wav2vec2-ctc:words"]
    path = write(tmp_path, 'spaces = ["mini-mel"]\nauxiliary = ["mine.py:ToySpace:words"]')
    with pytest.raises(RecipeError, match="compared with the captions' words, which this encoder"):
        read_recipe(path)


MISTAKES = {
    'space = ["mini-mel"]': r"(?s)2 mistake.*spaces: field required.*did you mean 'spaces'",
    "spaces = []": "spaces: list should have at least 1 item",
    'spaces = "mini-mel"': "spaces: input should be a valid list",
    'spaces = ["mini-mel", "mini-mel"]': "spaces: 'mini-mel' stands twice",
    'spaces = ["mini-mel"]\n[stacker]\nnsplits = 3': "stacker.nsplits: .*did you mean 'n_splits'",
    'spaces = ["mini-mel"]\n[stacker]\nn_splits = 1': "stacker.n_splits: .*greater than or equal",
    'spaces = ["mini-mel"]\n[stacker]\ngroup_by = "clip"': "'auto', 'caption' or 'none'",
    'spaces = ["mini-mel"]\n[stacker]\npenalties = [0]': "stacker.penalties.0: .*greater than 0",
    'spaces = ["mini-mel"]\n[checkpoints]\nmini-mfcc = "x"': "'mini-mfcc' is no encoder of this",
    'spaces = ["mini-mel"]\nauxiliary = ["mini-mfcc:logits"]': "no audio output; expected one of",
    'name = "x"\nspaces = ["mini-mel"]': "'name' is not a setting",
    "spaces = [": "not readable as a TOML file",
}


@pytest.mark.parametrize("content", MISTAKES)
def test_mistakes_name_the_setting(tmp_path: Path, content: str) -> None:
    with pytest.raises(RecipeError, match=MISTAKES[content]) as caught:
        read_recipe(write(tmp_path, content))
    assert "mine.toml" in str(caught.value)


def test_an_unknown_encoder_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown encoder 'clap'. Known: .*mini-mel"):
        read_recipe(write(tmp_path, 'spaces = ["clap"]'))


def test_augmented_views() -> None:
    settings = {
        "name": "x",
        "spaces": ["mini-mel", "mini-mod"],
        "auxiliary": ["beats:logits"],
        "views": {"mini-mel": 2},
    }
    recipe = recipe_from(settings, source="a test")
    assert [choice.info.name for choice in recipe.view_encoders] == [
        "mini-mel.view-1",
        "mini-mel.view-2",
    ]
    for change, message in (
        ({"views": {"beats": 1}}, "views: 'beats' makes no augmented views"),
        ({"views": {"mini-mfcc": 1}}, "views: 'mini-mfcc' is no encoder of this recipe"),
        ({"views": {"mini-mel": 0}}, "views.mini-mel: input should be greater than 0"),
        ({"auxiliary": ["byol-a:frames"]}, "'byol-a:frames' is a sequence of vectors a clip"),
    ):
        with pytest.raises(RecipeError, match=message):
            recipe_from({**settings, **change}, source="a test")
