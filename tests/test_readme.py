"""What README.md and the pages in docs/ show is run as it is written."""

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import write_csv
from typer.main import get_command

from xacle_stack import FeatureBuilder, ListenerModel, Stacker, list_splits, read_pairs
from xacle_stack.cli import app
from xacle_stack.experiment import fill_cache
from xacle_stack.recipe import Recipe, read_recipe
from xacle_stack.recipe_file import shipped_recipes
from xacle_stack.synth.demo import write_demo
from xacle_stack.systems.specs import NOT_IN_RECIPES

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [
    ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "features/README.md")
]


def blocks(language: str, *pages: Path) -> list[str]:
    text = "\n".join(page.read_text("utf-8") for page in pages or PAGES)
    found = re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    assert found
    return found


def commands(*pages: Path) -> list[list[str]]:
    """Return the words of every xacle-stack command that pages show."""
    lines = [
        line
        for block in blocks("bash", *pages)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("xacle-stack")
    ]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def block_that_begins(first_line: str, language: str) -> str:
    (found,) = (block for block in blocks(language) if block.startswith(first_line))
    return found


TINY = block_that_begins("# tiny_language_model.py", "python")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that looks as after `make features`, with a smaller demo."""
    folder = tmp_path_factory.mktemp("workplace")
    data = write_demo(folder / "data" / "demo", n_pairs=120)
    fill_cache(data, read_recipe("mini"), folder / "features/store", n_jobs=1, progress=False)
    # The clip that the README scores is one of the larger demo.
    clip = read_pairs(data, "test").audio[0]
    shutil.copyfile(clip, data / "wav" / "test" / "00750.wav")
    return folder


def run_python(code: str, workplace: Path) -> str:
    if "ProjectionHeadRegressor" in code:
        pytest.importorskip("torch")
    if "tiny-language-model" in code:
        pytest.importorskip("transformers")
        pytest.importorskip("lightning_fabric")
        if code != TINY and not (workplace / "tiny-language-model").exists():
            run_python(TINY, workplace)
    for package in ("distributed", "ray"):
        if f"import {package}" in code or f"from {package} import" in code:
            pytest.importorskip(package)
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=workplace, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def run_command(words: list[str], workplace: Path) -> str:
    command = [sys.executable, "-c", "from xacle_stack.cli import main; main()", *words]
    done = subprocess.run(command, cwd=workplace, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def test_the_readmes_scorer_scores_in_another_process_and_on_the_command_line(
    workplace: Path,
) -> None:
    fit_and_save, load_and_score = blocks("python", README)
    assert "SRCC" in run_python(fit_and_save, workplace)
    assert (workplace / "my_scorer.skops").exists()
    by_file, in_memory = (
        float(line.strip("[]")) for line in run_python(load_and_score, workplace).splitlines()
    )
    assert by_file == in_memory
    (command,) = (words for words in commands(README) if "my_scorer.skops" in words)
    assert float(run_command(command, workplace)) == pytest.approx(by_file, abs=0.0051)


def write_generators(folder: Path) -> None:
    """Write what the README's first commands take: prompts, clips of generators, ratings."""
    train = read_pairs(write_demo(folder / "theirs", n_pairs=120, seed=1), "train")
    rows = range(20)
    prompts = [("id", "prompt"), *((f"p{row}", train.captions[row]) for row in rows)]
    write_csv(folder / "prompts.csv", prompts)
    for shift, name in enumerate(("gen_A", "gen_B", "gen_C")):
        (folder / name).mkdir()
        for row in rows:
            shutil.copyfile(train.audio[(row + 3 * shift) % 20], folder / name / f"p{row}.wav")
    ratings = zip(train.audio, train.captions, train.scores, strict=True)
    write_csv(folder / "ratings.csv", [("audio", "text", "score"), *ratings])


@pytest.mark.slow
def test_the_readmes_commands_run_one_after_the_other(tmp_path: Path) -> None:
    shown = [words for words in commands(README) if "my_scorer.skops" not in words]
    assert [words[0] for words in shown] == [
        *("rate", "evaluate", "rate"),
        *("demo", "features", "stack", "score", "score"),
        *("features", "compare", "score"),
    ]
    write_generators(tmp_path)
    challenge = "XACLE_Challenge_2027_development_dataset"
    for words in shown:
        is_demo = words[0] == "demo"
        words = [word.replace("$DATA", challenge) for word in words]
        run_command([*words, *(["--pairs", "120"] if is_demo else [])], tmp_path)
        if is_demo:
            clips = tmp_path / "data/demo/wav/test"
            shutil.copytree(tmp_path / "data/demo", tmp_path / challenge)
            shutil.copyfile(min(clips.glob("*.wav")), clips / "00750.wav")
    assert list_splits(tmp_path / "data/demo") == ["train", "validation", "test"]
    assert {path.name for path in (tmp_path / "runs/mini-demo").iterdir()} >= {
        *("model.skops", "model.json", "models", "scores-test.csv", "results.csv", "results.md"),
        "report",
    }
    assert (tmp_path / "scores.csv").exists()
    submission = (tmp_path / "submission.csv").read_text().splitlines()
    assert submission[0] == "wav_file_name,prediction_score"
    assert (tmp_path / "report" / "index.html").exists()
    assert "low,high,novelty" in (tmp_path / "report" / "scores.csv").read_text()


@pytest.mark.parametrize(
    ("page", "block"),
    [
        (page.stem, block)
        for page in PAGES[1:]
        if "```python" in page.read_text("utf-8")
        for block in blocks("python", page)
    ],
    ids=lambda part: part if part.isidentifier() else part.splitlines()[0],
)
def test_python_runs_as_shown(page: str, block: str, workplace: Path) -> None:
    run_python(block, workplace)


def test_the_encoder_of_your_own_works_with_its_recipe(workplace: Path, monkeypatch) -> None:
    encoder = block_that_begins("# my_encoder.py", "python")
    recipe = block_that_begins("# my_recipe.toml", "toml")
    (workplace / "my_encoder.py").write_text(encoder)
    (workplace / "my_recipe.toml").write_text(recipe)
    monkeypatch.chdir(workplace)
    report = fill_cache(
        Path("data/demo"), read_recipe("my_recipe.toml"), Path("s"), n_jobs=1, progress=False
    )
    assert report.encoded["loudness", "audio"] == 120


@pytest.mark.slow
def test_the_language_model_of_the_page_is_trained_and_writes_captions(workplace: Path) -> None:
    run_python(TINY, workplace)
    (workplace / "tiny.toml").write_text(block_that_begins("# tiny.toml", "toml"))
    shown = [words for words in commands(ROOT / "docs" / "systems.md") if "tiny" in " ".join(words)]
    assert [words[0] for words in shown] == ["features", "compare", "caption", "score"]
    said = [run_command(words, workplace) for words in shown]
    assert "all stages" in said[1]
    assert "mean similarity" in said[2]
    assert 0 <= float(said[3]) <= 10


@pytest.mark.slow
def test_the_cross_attention_of_the_page_is_trained(workplace: Path) -> None:
    recipe = block_that_begins("# attention.toml", "toml")
    (workplace / "attention.toml").write_text(recipe)
    page = ROOT / "docs" / "systems.md"
    shown = [words for words in commands(page) if "./attention.toml" in words]
    assert [words[0] for words in shown] == ["features", "compare"]
    assert "attention" in [run_command(words, workplace) for words in shown][1]


def test_the_page_of_recipes_shows_every_setting(tmp_path: Path) -> None:
    text = block_that_begins("# all_settings.toml", "toml")
    path = tmp_path / "all_settings.toml"
    path.write_text(text)
    recipe = read_recipe(path)
    assert recipe.model_fields_set == set(Recipe.model_fields)
    shown = set(re.findall(r"^#? ?(\w+) = ", text, flags=re.MULTILINE))
    for estimator in (FeatureBuilder, ListenerModel, Stacker):
        settings = set(inspect.signature(estimator).parameters) - NOT_IN_RECIPES
        assert settings <= shown, estimator


def test_the_page_of_recipes_has_the_targets_of_spo_clapscore(tmp_path: Path) -> None:
    path = tmp_path / "spo_targets.toml"
    path.write_text(block_that_begins("# spo_targets.toml", "toml"))
    plain = {"biases": False, "noise": False}
    assert read_recipe(path).listener_model.parameters == {
        **plain,
        "standardize": True,
        "screening": 5,
    }


def test_the_page_of_recipes_names_every_recipe() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    named = re.findall(r"^\| `([\w-]+)` \|", text, flags=re.MULTILINE)
    assert sorted(named) == sorted(shipped_recipes())


def test_commands_exist_with_the_options_shown() -> None:
    command = get_command(app)
    shown = commands()
    assert {words[0] for words in shown} == set(command.commands)
    for words in shown:
        found = command.commands[words[0]]
        if words[0] == "cache":
            found = found.commands[words[1]]
        options = {name for parameter in found.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    shown = set(re.findall(r"\bmake ([a-z]+)", "\n".join(blocks("bash")))) | {"notebooks"}
    assert {"stack", "test", "features", "compare"} <= shown
    for target in shown:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", page.read_text("utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_readme_leads_to_every_page() -> None:
    text = README.read_text("utf-8")
    for page in PAGES[1:]:
        assert f"](docs/{page.name})" in text
