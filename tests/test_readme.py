"""What the README shows is typed as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from xacle_stack.cli import app
from xacle_stack.experiment import fill_cache
from xacle_stack.recipe import read_recipe
from xacle_stack.synth.demo import write_demo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that looks as after `make stack`, with a smaller demo."""
    folder = tmp_path_factory.mktemp("workplace")
    write_demo(folder / "data" / "demo", n_pairs=120)
    recipe = read_recipe(ROOT / "features" / "recipes" / "mini.toml")
    fill_cache(
        folder / "data" / "demo", recipe, folder / "features/store", n_jobs=1, progress=False
    )
    return folder


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[0])
def test_python_runs_as_shown(block: str, workplace: Path) -> None:
    if "ProjectionHeadRegressor" in block:
        pytest.importorskip("torch")
    subprocess.run([sys.executable, "-W", "error", "-c", block], cwd=workplace, check=True)


def test_the_encoder_of_your_own_works_with_its_recipe(workplace: Path, monkeypatch) -> None:
    (source,) = (block for block in blocks("python") if block.startswith("# my_encoder.py"))
    (recipe,) = (block for block in blocks("toml") if block.startswith("# my_recipe.toml"))
    (workplace / "my_encoder.py").write_text(source)
    (workplace / "my_recipe.toml").write_text(recipe)
    monkeypatch.chdir(workplace)
    report = fill_cache(
        Path("data/demo"), read_recipe("my_recipe.toml"), Path("s"), n_jobs=1, progress=False
    )
    assert report.encoded["loudness", "audio"] == 120


def test_commands_exist_with_the_options_shown() -> None:
    command = get_command(app)
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    calls = [shlex.split(line, comments=True) for line in lines if line.startswith("xacle-stack")]
    assert {call[1] for call in calls} == set(command.commands)
    for call in calls:
        found = command.commands[call[1]]
        if call[1] == "cache":
            found = found.commands[call[2]]
        options = {name for parameter in found.params for name in parameter.opts}
        assert {word for word in call if word.startswith("--")} <= options


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    shown = set(re.findall(r"\bmake ([a-z]+)", "\n".join(blocks("bash")))) | {"notebooks"}
    assert {"stack", "test", "features"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), target
