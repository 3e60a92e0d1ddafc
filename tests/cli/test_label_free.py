"""`xacle-stack score --method cosine`."""

import csv
from pathlib import Path

import numpy as np
import pytest
from support import WriteData
from typer.testing import CliRunner

from xacle_stack import Scorer, read_pairs
from xacle_stack.cli import app


@pytest.fixture
def data(make_data: WriteData) -> Path:
    return make_data(train=40, test=12)


def score(*arguments: object) -> str:
    done = CliRunner().invoke(
        app, ["score", *map(str, arguments), "--quiet"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_without_a_reference_the_scale_is_said_to_be_that_of_the_set(
    data: Path, tmp_path: Path
) -> None:
    out, store = tmp_path / "mine.csv", tmp_path / "store"
    options = ("--method", "cosine", "--recipe", "mini", "--data", data, "--store", store)
    said = score(*options, "--out", out)
    assert "The scale is relative to this set" in said
    test = read_pairs(data, "test")
    scorer = Scorer.label_free("mini", store=store).fit(test)
    for space in scorer.recipe.spaces:
        assert f"{space} built in {scorer.fingerprints_[space]}" in said
    scored = scorer.assess(test)
    assert out.read_text("utf-8") == scored.to_csv()
    written = rows(out)
    assert [row["id"] for row in written] == list(test.ids)
    for name in ("cosine of mini-mel", "cosine of mini-mfcc", "cosine of mini-mod"):
        np.testing.assert_allclose([float(r[name]) for r in written], scored.parts[name], atol=6e-5)


def test_with_a_reference_a_score_does_not_depend_on_the_set(data: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    options = ("--method", "cosine", "--recipe", "mini", "--reference", data, "--store", store)
    out = tmp_path / "mine.csv"
    said = score(*options, "--data", data, "--out", out)
    assert "The scale is that of the reference" in said
    assert "relative to this set" not in said
    test = read_pairs(data, "test")
    by_hand = score(*options, "--audio", test.audio[0], "--text", test.captions[0])
    assert float(by_hand) == pytest.approx(float(rows(out)[0]["score"]), abs=0.006)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "d"), "either a MODEL, or --method cosine"),
        (("m", "--method", "cosine", "--recipe", "mini", "--data", "d"), "either a MODEL, or"),
        (("m", "--reference", "d", "--data", "d"), "--reference is for --method cosine"),
        (("--method", "cosine", "--data", "d"), "--method cosine needs --recipe"),
        (
            ("--method", "cosine", "--recipe", "mini", "--audio", "a.wav", "--text", "rain"),
            "needs --reference to score single clips",
        ),
    ],
)
def test_what_does_not_go_together_is_told(arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["score", *arguments])
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())
