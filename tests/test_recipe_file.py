"""Recipes of strangers: a clear error, at once, and nothing of them is run."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from xacle_stack.errors import RecipeError, XacleStackError
from xacle_stack.recipe import read_recipe, registered_encoders
from xacle_stack.recipe_file import recipe_path, shipped_recipes

ROOT = Path(__file__).parent.parent

GOOD = 'spaces = ["mini-mel"]\n'
SYSTEM = '[systems."{}"]\nkind = "cosine"\nspace = "mini-mel"\n'

STRANGE = {
    "lists in lists": ("a = " + "[" * 8_000 + "]" * 8_000, "nested too deeply|unknown setting"),
    "tables in tables": ("a = " + "{a=" * 4_000 + "1" + "}" * 4_000, "too deeply|unknown setting"),
    "keys in keys": (GOOD + ".".join("a" * 3_000) + " = 1", "unknown setting|extra"),
    "more than a recipe": (GOOD + "#" * 70_000, "more than 16,384 bytes"),
    "thousands of digits": ("seeds = " + "9" * 5_000, "not readable as a TOML file"),
    "a huge number": (GOOD + f"seeds = {10**30}", "1000000000.* beyond what any setting takes"),
    "a huge number in a system": (
        GOOD + '[systems.a]\nkind = "lstm"\nepochs = 99999999999',
        "99999999999 is beyond what any setting takes",
    ),
    "infinite": (GOOD + "[stacker]\npenalties = [inf]", "inf, no finite number, is beyond"),
    "not a number": (GOOD + "[stacker]\npenalties = [nan]", "nan, no finite number, is beyond"),
    "a negative random state": (
        GOOD + "[features]\nrandom_state = -1",
        "random_state .*got -1",
    ),
    "a million views": (GOOD + "[views]\nmini-mel = 1000000", "views.mini-mel: .*less than or equ"),
    "NUL": ('spaces = ["mine\\u0000.py:A"]', r"'mine\\x00.py:A' holds control characters"),
    "escape sequence": (GOOD + SYSTEM.format("a\\u001b[2J"), r"'a\\x1b\[2J' holds control"),
    "turned letters": (GOOD + SYSTEM.format("a\\u202eb"), r"'a\\u202eb' holds control"),
    "two lines": (GOOD + SYSTEM.format("a\\nb"), r"'a\\nb' holds control"),
    "Windows path": (GOOD + '[checkpoints]\nmini-mel = "c:\\new"', r"'c:\\new' holds control char"),
    "no name": (GOOD + SYSTEM.format(""), "systems.*at least 1 character"),
    "a long name": (GOOD + SYSTEM.format("é" * 61), "systems.*at most 60 characters"),
    "one file for two": (GOOD + SYSTEM.format("../x") + SYSTEM.format("..-x"), "the same name"),
    "raw control characters": (GOOD + "#\0", "not readable as a TOML file"),
    "not UTF-8": (b"# \xe9", "not readable as a TOML file"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_strangers_recipe_ends_in_a_message(tmp_path: Path, what: str) -> None:
    content, message = STRANGE[what]
    path = tmp_path / "strange.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=f"(?is)strange.toml.*({message})") as caught:
        read_recipe(path)
    assert len(str(caught.value)) < 200_000


def test_a_name_with_separators_names_no_folder(tmp_path: Path) -> None:
    from xacle_stack._files import name_in_files

    path = tmp_path / "strange.toml"
    path.write_text(GOOD + SYSTEM.format("../../x/.."))
    (name,) = read_recipe(path).systems
    assert name_in_files(name) == "------x---"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    (tmp_path / "folder.toml").mkdir()
    for name in ("pipe.toml", "endless.toml", "folder.toml"):
        with pytest.raises(RecipeError, match=f"{name}: .*regular file"):
            read_recipe(tmp_path / name)
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    with pytest.raises(RecipeError, match="loop.toml: cannot be read"):
        read_recipe(tmp_path / "loop.toml")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(tmp_path / ("x" * 300 + ".toml"))


def test_a_link_to_a_recipe_is_one(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "recipe.toml").write_text(GOOD + '[checkpoints]\nmini-mel = "weights"\n')
    (tmp_path / "inner" / "weights").touch()
    (tmp_path / "link.toml").symlink_to("inner/recipe.toml")
    recipe = read_recipe(tmp_path / "link.toml")
    assert recipe.name == "link"
    assert recipe.checkpoints["mini-mel"] == str(tmp_path / "inner" / "weights")


def test_the_registered_encoders_are_found_without_running_the_others(tmp_path: Path) -> None:
    trace = tmp_path / "was-run"
    (tmp_path / "mine.py").write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n")
    path = tmp_path / "strange.toml"
    path.write_text(
        'spaces = ["mine.py:A", "mini-mel"]\n'
        'auxiliary = ["mine.py:B:c", "beats:logits", "text:some/one:embedding"]\n'
        '[systems.a]\nkind = "lstm"\nframes = "mine.py:C:frames"\n'
    )
    choices = registered_encoders(path)
    names = [choice.name for choice in choices]
    assert names == ["mini-mel", "beats", "text:some/one", "roberta-large"]
    assert choices[2].family.info.extra == "encoders"  # the hub is not asked
    assert not trace.exists()
    with pytest.raises(XacleStackError, match="defines no 'A'"):
        read_recipe(path)
    assert trace.exists()


def test_a_bare_name_is_a_shipped_recipe_from_any_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for other in ("paper", "paper.toml"):
        Path(other).write_text(GOOD)
    assert recipe_path("paper").is_absolute()
    assert recipe_path("paper") != tmp_path / "paper.toml"
    assert (
        read_recipe(recipe_path("paper")).spaces == read_recipe(shipped_recipes()["paper"]).spaces
    )
    # A path is one by its folder or its ending.
    assert recipe_path("./paper") == Path("paper")
    assert recipe_path("paper.toml") == Path("paper.toml")
    assert recipe_path(tmp_path / "mine") == tmp_path / "mine"


def test_every_recipe_of_the_project_is_shipped() -> None:
    names = {path.stem for path in (ROOT / "features" / "recipes").glob("*.toml")}
    assert set(shipped_recipes()) == names >= {"mini", "paper"}


@pytest.mark.parametrize("name", ["papr", "Paper", "elsewhere/papers.toml", "papr.toml"])
def test_an_unknown_recipe_lists_the_shipped_ones(name: str) -> None:
    with pytest.raises(RecipeError, match="'paper'.*mini, .*paper, ") as caught:
        read_recipe(recipe_path(name))
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["", "..", "\x1b[2J"])
def test_a_name_that_no_recipe_has_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="mini, ") as caught:
        read_recipe(recipe_path(name))
    assert "\x1b" not in str(caught.value)


def test_a_wheel_has_the_recipes_and_all_that_the_package_reads(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="it needs a newer `packaging` than this library does")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
        for name, path in shipped_recipes().items():
            assert archive.read(f"xacle_stack/recipes/{name}.toml") == path.read_bytes()
    files = {path for path in (ROOT / "xacle_stack").rglob("*") if path.is_file()}
    wanted = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert wanted <= found
