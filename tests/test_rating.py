import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support import TOY, WriteData, write_csv

from xacle_stack import Scorer, rate, read_pairs
from xacle_stack.errors import ModelFileError, PairsError
from xacle_stack.rating import Rating
from xacle_stack.recipe import Recipe, recipe_from

N_PROMPTS = 20


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    settings = {"spaces": [TOY.name], "features": {"n_components": 2}}
    return recipe_from({"name": "toy", **settings, "stacker": {"preset": "paper"}}, "a test")


@pytest.fixture
def label_free(recipe: Recipe, tmp_path: Path) -> Scorer:
    return Scorer.label_free(recipe, store=tmp_path / "store")


@pytest.fixture
def place(make_data: WriteData, tmp_path: Path) -> Path:
    """Return a folder with prompts and two generators: good clips, and those of other prompts."""
    make_data(test=60)
    pairs = read_pairs(tmp_path / "data", "test")
    fits = sorted(range(len(pairs)), key=lambda row: -pairs.scores[row])[:N_PROMPTS]
    rows = [["id", "prompt", "kind"]]
    for number, row in enumerate(fits):
        rows.append([f"p{number}", f"{pairs.captions[row]}, clip {number}", f"k{number % 2}"])
        for name, other in (("good", row), ("bad", fits[(number + 7) % N_PROMPTS])):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copyfile(pairs.audio[other], tmp_path / name / f"p{number}.wav")
    write_csv(tmp_path / "prompts.csv", rows)
    return tmp_path


@pytest.fixture
def rating(place: Path, label_free: Scorer) -> Rating:
    (place / "bad" / "p3.wav").unlink()
    return rate(place / "prompts.csv", [place / "good", place / "bad"], label_free, n_bootstrap=99)


def test_every_clip_is_scored_and_generators_are_ranked(rating: Rating) -> None:
    assert rating.missing == {"good": (), "bad": ("p3",)}
    assert rating.scored.pair_ids[:2] == ("good/p0", "good/p1")
    assert len(rating.scored) == 2 * N_PROMPTS - 1
    assert [one.name for one in rating.comparison.generators] == ["good", "bad"]
    scores = rating.scored.scores
    np.testing.assert_allclose(
        rating.comparison.generators[0].mean.value, scores[:N_PROMPTS].mean()
    )
    said = " ".join(rating.sentences())
    assert "bad 1" in said
    assert "so they compare only within it" in said


def test_what_is_saved_holds_every_figure(rating: Rating, tmp_path: Path) -> None:
    out = tmp_path / "report"
    (out / "index_files").mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    page = rating.save(out)
    assert page.read_text("utf-8").count("Generators compared") >= 1
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["id"] == "good/p0"
    assert (rows[0]["system"], rows[0]["prompt_id"], rows[0]["kind"]) == ("good", "p0", "k0")
    assert float(rows[0]["score"]) == pytest.approx(rating.scored.scores[0], abs=1e-4)
    assert "cosine of toy" in rows[0]
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["generators"][0]["name"] == "good"
    assert summary["missing"] == {"good": [], "bad": ["p3"]}
    assert summary["scorer"]["checkpoints"] == {"toy": "built in"}
    assert (out / "notes.txt").read_text() == "mine"
    rating.save(out, audio="none")  # in the place of the first
    assert not list(out.glob("index_files/audio/*"))


def test_a_reference_makes_scores_independent_of_what_is_compared(
    place: Path, label_free: Scorer
) -> None:
    label_free.fit(read_pairs(place / "data", "test"))
    both = rate(place / "prompts.csv", [place / "good", place / "bad"], label_free, n_bootstrap=9)
    one = rate(place / "prompts.csv", {"alone": place / "good"}, label_free, n_bootstrap=9)
    np.testing.assert_array_equal(one.scored.scores, both.scored.scores[:N_PROMPTS])
    assert one.scored.pair_ids[0] == "alone/p0"
    assert "comes from a reference of other pairs" in one.scale
    assert one.comparison.differences == ()


def test_a_model_gives_intervals_and_novelty(place: Path, recipe: Recipe) -> None:
    scorer = Scorer(recipe, store=place / "store").fit(read_pairs(place / "data", "test"))
    rating = rate(place / "prompts.csv", [place / "good"], scorer, interval=0.8, n_bootstrap=9)
    scored = rating.scored
    assert scored.confidence == 0.8
    assert scored.low is not None
    assert scored.high is not None
    assert np.all((scored.low <= scored.scores) & (scored.scores <= scored.high))
    assert scored.novelty is not None
    assert rating.scale.startswith("The scores predict what listeners would say")
    entry = rating.report().clips[0]
    assert (entry.low, entry.novelty) == (scored.low[0], scored.novelty[0])


def test_a_table_names_the_generator_of_each_clip(place: Path, label_free: Scorer) -> None:
    rows = [
        {"audio": str(place / name / f"p{n}.wav"), "text": f"a low tone {n}", "system": name}
        for name in ("good", "bad")
        for n in range(N_PROMPTS)
    ]
    rating = rate(rows[:-1], scorer=label_free, n_bootstrap=9)
    assert rating.missing == {"good": (), "bad": (f"a low tone {N_PROMPTS - 1}",)}
    assert rating.comparison.n_common_prompts == N_PROMPTS - 1
    with pytest.raises(PairsError, match=r"no column 'system'.*folder of each generator"):
        rate([{k: v for k, v in row.items() if k != "system"} for row in rows], scorer=label_free)


def test_ratings_are_compared_with_the_scores(place: Path, label_free: Scorer) -> None:
    folders = [place / "good", place / "bad"]
    ratings = [
        {"id": f"p{n}", "system": name, "score": score}
        for n in range(5)
        for name, score in (("good", 8), ("good", 9), ("bad", 2))
    ]
    rating = rate(place / "prompts.csv", folders, label_free, ratings=ratings, n_bootstrap=9)
    assert rating.human is not None
    assert np.isnan(rating.human).sum() == 2 * N_PROMPTS - 10
    assert rating.human[0] == 8.5
    assert rating.comparison.human is not None
    assert rating.comparison.human.n_clips == 10
    assert rating.report().clips[0].human == 8.5
    assert "human_score" not in rating.report().clips[0].columns
    written = list(csv.DictReader(rating.scored.to_csv().splitlines()))
    assert [row["human_score"] for row in written[3:6]] == ["8.5", "8.5", ""]
    ratings[0]["system"] = "goood"
    with pytest.raises(PairsError, match=r"(?s)1 rating\(s\) of clips.*'p0' of 'goood'"):
        rate(place / "prompts.csv", folders, label_free, ratings=ratings)
    wrong = [{"id": "p0", "system": "good", "score": 11}]
    with pytest.raises(PairsError, match=r"the score is 11; expected a number from 0 to 10"):
        rate(place / "prompts.csv", folders, label_free, ratings=wrong)


def test_mistakes_of_all_folders_are_told_at_once(place: Path, label_free: Scorer) -> None:
    (place / "empty").mkdir()
    folders = [place / "good", place / "empty", place / "nowhere"]
    with pytest.raises(PairsError, match=r"(?s)empty.*nowhere"):
        rate(place / "prompts.csv", folders, label_free)


def test_folders_of_one_name_are_refused(place: Path, label_free: Scorer) -> None:
    (place / "other").mkdir()
    shutil.copytree(place / "good", place / "other" / "good")
    with pytest.raises(PairsError, match=r"(?s)one name.*good.*rename one"):
        rate(place / "prompts.csv", [place / "good", place / "other" / "good"], label_free)


def test_prompts_may_not_have_this_comparisons_own_columns(place: Path, label_free: Scorer) -> None:
    prompts = [{"id": f"p{n}", "prompt": "a low tone", "system": "x"} for n in range(N_PROMPTS)]
    with pytest.raises(PairsError, match=r"column 'system'.*Rename it"):
        rate(prompts, [place / "good"], label_free)


def test_a_report_does_not_take_the_place_of_its_clips(rating: Rating, place: Path) -> None:
    with pytest.raises(ModelFileError, match=r"good is in this folder.*--out"):
        rating.save(place / "good")
    assert len(list((place / "good").iterdir())) == N_PROMPTS
