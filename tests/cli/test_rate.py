"""``xacle-stack rate`` as its users meet it."""

import shutil
from pathlib import Path

import pytest
from support import TOY, WriteData, write_csv
from typer.testing import CliRunner

from xacle_stack.cli import app
from xacle_stack.errors import PairsError
from xacle_stack.pairs import read_pairs


@pytest.fixture
def place(make_data: WriteData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pairs = read_pairs(make_data(test=12), "test")
    (tmp_path / "toy.toml").write_text(f'spaces = ["{TOY.name}"]\n')
    for name in ("gen_A", "gen_B"):
        (tmp_path / name).mkdir()
        for number, clip in enumerate(pairs.audio):
            shutil.copyfile(clip, tmp_path / name / f"p{number}.wav")
    prompts = [["id", "prompt"], *([f"p{n}", f"{t} {n}"] for n, t in enumerate(pairs.captions))]
    write_csv(tmp_path / "prompts.csv", prompts)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rate(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["rate", *arguments, "--quiet"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_folders_of_clips_become_a_report(place: Path) -> None:
    said = rate("prompts.csv", "gen_A", "gen_B", "--recipe", "toy.toml", "--out", "out")
    assert "Generators: 12 prompts, 95% intervals" in said
    assert "gen_A" in said
    assert "The scale comes from the clips of this report" in said
    assert "out/index.html" in said
    assert {path.name for path in (place / "out").iterdir()} >= {
        *("index.html", "scores.csv", "summary.json"),
    }
    said = rate("prompts.csv", "gen_A", "--recipe", "toy.toml", "--reference", "data")
    assert "a reference of other pairs" in said
    assert (place / "report" / "index.html").is_file()


def test_the_small_encoders_are_said_to_be_for_first_steps(place: Path) -> None:
    assert "mini are small, for first steps" in rate("prompts.csv", "gen_A", "gen_B")


def test_typical_mistakes_are_told(place: Path) -> None:
    with pytest.raises(PairsError, match=r"gen_C"):
        rate("prompts.csv", "gen_A", "gen_C", "--recipe", "toy.toml")
    with pytest.raises(PairsError, match=r"(?s)column for the audio.*folder of each generator"):
        rate("prompts.csv", "--recipe", "toy.toml")
    done = CliRunner().invoke(
        app, ["rate", "prompts.csv", "gen_A", "--model", "x", "--reference", "data"]
    )
    assert done.exit_code == 2
    said = " ".join(done.output.replace("│", " ").split())
    assert "--reference is for the cosines of a --recipe" in said
