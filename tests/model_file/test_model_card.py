import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xacle_stack import Scorer, load_card, read_pairs, save_model
from xacle_stack.errors import ModelFileError
from xacle_stack.model_file import card_markdown, card_sections
from xacle_stack.stacking import Stacker
from xacle_stack.synth.demo import write_demo

NASTY = "a|b `c` *d* <img src=x>\n# e [f](javascript:g) \x1b[2J\u202e"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    folder = tmp_path_factory.mktemp("demo")
    train = read_pairs(write_demo(folder / "demo", n_pairs=20), "train")
    stacker = Stacker(preset="paper", n_splits=2, random_state=0)
    return Scorer("mini", stacker, store=folder / "store").fit(train)


def section(text: str, title: str) -> str:
    """Return the part of a page below a heading."""
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_card_says_what_a_model_is_and_how_to_load_it(scorer: Scorer, tmp_path: Path) -> None:
    scorer.save(tmp_path / "mine.skops")
    text = (tmp_path / "mine.md").read_text("utf-8")
    assert text == card_markdown(load_card(tmp_path / "mine.skops"), "mine.skops")
    assert "\n# mine\n" in text
    assert scorer.training_ is not None
    data = section(text, "Training data")
    assert f"| pairs | {scorer.training_['n_pairs']} |" in data
    assert f"| digest of the content | {scorer.training_['digest']} |" in data
    assert "| human scores | from " in data
    fingerprint = scorer.fingerprints_["mini-mel"]
    assert f"| mini-mel | MIT | any length | {fingerprint} |" in section(text, "Encoders")
    assert "| preset | paper |" in section(text, "System")
    assert "Not evaluated" in section(text, "Figures")
    assert "novelty above 1" in section(text, "Limits")
    assert "Intervals of single scores" in section(text, "Limits")
    assert "Scorer.load('mine.skops')" in section(text, "Use")
    assert "| numpy | " in section(text, "Versions")


def test_a_loaded_scorer_keeps_what_it_was_fitted_on(scorer: Scorer, tmp_path: Path) -> None:
    again = Scorer.load(scorer.save(tmp_path / "one"))
    assert again.training_ == scorer.training_
    again.save(tmp_path / "two")
    pages = [(tmp_path / name / "model.md").read_text() for name in ("one", "two")]
    # The archive holds numbers of Python's objects, so the digest of the file differs.
    one, two = (page.partition("| digest of the file")[0] for page in pages)
    assert one == two


def test_the_markdown_is_replaced_with_the_model_and_goes_with_a_scorer(
    scorer: Scorer, tmp_path: Path
) -> None:
    path = scorer.save(tmp_path, card={"system": "first"})
    scorer.save(tmp_path, card={"system": "second"})
    assert "# second" in (tmp_path / "model.md").read_text()
    save_model(path, Stacker(n_splits=2).fit(RNG.normal(size=(20, 3)), RNG.normal(size=20)))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "model.skops"]


def test_a_file_of_the_users_is_not_replaced(scorer: Scorer, tmp_path: Path) -> None:
    (tmp_path / "model.md").write_text("my notes")
    with pytest.raises(ModelFileError, match=r"model.md, which is no card .* another name"):
        scorer.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.md"]
    save_model(tmp_path, Stacker(n_splits=2).fit(RNG.normal(size=(20, 3)), RNG.normal(size=20)))
    assert (tmp_path / "model.md").read_text() == "my notes"


def nasty_card() -> dict[str, Any]:
    figures = {"SRCC": [0.5, 0.4, None], "LCC": NASTY, "KTAU": [NASTY] * 3, "MSE": [1, 2]}
    return {
        "system": NASTY,
        "data_name": NASTY,
        "training": {"split": NASTY, "n_pairs": NASTY, "score_range": [NASTY, 1]},
        "encoders": {NASTY: {"licence": NASTY, "window_s": NASTY}},
        "fingerprints": {NASTY: NASTY},
        "recipe": {"name": NASTY, "stacker": {NASTY: NASTY}, "spaces": [f"{NASTY}.py:X"]},
        "regressor": {"type": NASTY, "settings": {NASTY: NASTY}},
        "metrics": {NASTY: figures},
        "evaluations": {NASTY: {"n_pairs": NASTY, "chose_epoch_here": True}},
        "libraries": {NASTY: NASTY},
        "python": NASTY,
        NASTY: NASTY,
    }


def test_nothing_of_a_card_is_markup() -> None:
    text = card_markdown(nasty_card(), f"{NASTY}.skops")
    assert "\x1b" not in text
    assert "\u202e" not in text
    for line in text.splitlines():
        outside = "" if line.startswith("scorer = ") else line.removeprefix("<!--")
        assert "<" not in outside
        assert "](" not in outside
        assert not re.search(r"(?<!\\)[`*]", outside.removeprefix("```"))
        if line.startswith("|"):  # a row has the cells of its header, whatever names hold
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 5, 8)
    assert sum(line.startswith("#") for line in text.splitlines()) == 1 + len(
        card_sections(nasty_card(), "x")
    )
    assert text.count("\n```") == 2


@pytest.mark.parametrize(
    "value",
    [None, 3, "text", [], [1], {}, {"a": None}, {"a": {"b": 1}}, 10**400, 1e308, [[[[]]]], True],
)
def test_a_strange_card_is_shown_all_the_same(value: object) -> None:
    for key in nasty_card():
        card_markdown({**nasty_card(), key: value}, "x")
        card_markdown({key: value}, "x")
        card_markdown({key: {"x": value}}, "x")
        card_markdown({key: {"x": {"SRCC": value, "window_s": value}}}, "x")


def test_figures_are_shown_with_their_intervals_and_what_they_are_of() -> None:
    metrics = {name: [0.5, 0.4, 0.61] for name in ("SRCC", "LCC", "KTAU", "MSE")}
    card = {
        "metrics": {"test": {**metrics, "SRCC": [None, None, None]}, "cross-validation": metrics},
        "evaluations": {"test": {"n_pairs": 1234, "n_seeds": 5, "chose_epoch_here": True}},
    }
    text = section(card_markdown(json.loads(json.dumps(card)), "x"), "Figures")
    assert "| test | nan | .500 [.400, .610] |" in text
    assert "| 1,234 | 5 |" in text
    assert "On test it chose its epoch" in text
    assert "of fits without the pairs' fold" in text
    assert "Not evaluated" not in text


def test_what_is_not_known_is_said_or_left_out() -> None:
    text = card_markdown({"mine": [1, 2]}, "x.skops")
    assert "It is not recorded what the model was fitted on." in text
    assert "cannot tell whether a pair is unlike" in text
    assert "| mine | \\[1, 2] |" in text or "| mine | [1, 2] |" in text
    assert "window" not in section(text, "Limits")
    own = {"recipe": {"spaces": ["/here/mine.py:Mine"]}, "encoders": {"mine": {"window_s": 5}}}
    text = card_markdown(own, "x.skops")
    assert "Scorer.load('x.skops', recipe=\"my_recipe.toml\")" in text
    assert "longer than an encoder's window" in section(text, "Limits")
    captioner = card_markdown({"regressor": {"type": "AudioCaptioner"}}, "x.skops")
    assert "write_captions(scorer" in captioner
