from pathlib import Path

import numpy as np
import pytest

from xacle_stack.pairs import Pairs
from xacle_stack.results import CROSS_VALIDATION, Result, ScoredPairs
from xacle_stack.results.page.run_page import run_report, write_run_page


def make_run(
    n_pairs: int = 60, *, rated: bool = True
) -> tuple[list[Result], dict[str, Pairs], dict[str, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(0)
    human = rng.uniform(0, 10, size=n_pairs)
    ids = [f"{row}.wav" for row in range(n_pairs)]
    captions = [f"sound {row}" for row in range(n_pairs)]
    columns = {"system": ["a", "b"] * (n_pairs // 2), "seed": range(n_pairs)}
    test = Pairs("test", ids, [], captions, scores=human if rated else None, columns=columns)
    scores = {
        name: {"test": np.clip(human + rng.normal(scale=s, size=n_pairs), 0, 10)}
        for name, s in {"stack": 1.0, "other": 2.0}.items()
    }
    reference = scores["stack"]["test"]
    results = [
        Result.from_scores("stack", "test", "stack", human, [reference]),
        Result.from_scores(
            "other", "test", "file", human, [scores["other"]["test"]], reference_scores=[reference]
        ),
    ]
    return results if rated else [], {"test": test}, scores


@pytest.mark.usefixtures("few_resamples")
def test_a_run_has_its_table_its_plots_and_the_clips_with_the_references_scores() -> None:
    pytest.importorskip("matplotlib")
    results, splits, scores = make_run()
    report = run_report(results, splits, scores, title="run")
    assert [table.title[:4] for table in report.tables] == ["test"]
    assert [row[1] for row in report.tables[0].rows] == ["stack", "other"]
    assert len(report.plots) == 4  # SRCC, SRCC and MSE, difference, human and predicted
    assert all(plot.svg.rstrip().endswith("</svg>") for plot in report.plots)
    human, predicted = splits["test"].scores, scores["stack"]["test"]
    assert human is not None
    clip = report.clips[7]
    assert (clip.id, clip.text, clip.system) == ("7.wav", "sound 7", "b")
    assert (clip.score, clip.human, clip.columns) == (predicted[7], human[7], {"seed": 7})
    assert clip.disputed_by == abs(human[7] - predicted[7])


def test_without_ratings_clips_are_disputed_where_systems_differ(tmp_path: Path) -> None:
    results, splits, scores = make_run(rated=False)
    report = run_report(results, splits, scores, title="run")
    assert report.plots == report.tables == []
    spread = np.std([of["test"] for of in scores.values()], axis=0)
    np.testing.assert_allclose([clip.disputed_by for clip in report.clips], spread)
    assert "systems" in report.dispute
    assert write_run_page(results, splits, scores, tmp_path, title="run").is_file()


def test_clips_have_the_intervals_and_the_novelty_of_the_references_scores() -> None:
    _, splits, scores = make_run()
    reference, pairs = scores["stack"]["test"], splits["test"]
    low, high, novelty = reference / 2, (reference + 10) / 2, np.linspace(0, 2, len(pairs))
    scored = ScoredPairs(pairs, pairs.ids, reference, low, high, 0.9, novelty)
    report = run_report([], splits, scores, title="run", assessed={"test": scored})
    assert report.confidence == 0.9
    clip = report.clips[7]
    assert (clip.low, clip.high, clip.novelty) == (low[7], high[7], novelty[7])
    bare = run_report([], splits, scores, title="run").clips[7]
    assert (bare.low, bare.novelty) == (None, None)


def test_clips_of_a_cross_validation_say_that_their_fold_was_held_out() -> None:
    _, splits, scores = make_run()
    pairs = {CROSS_VALIDATION: splits["test"]}
    held_out = {name: {CROSS_VALIDATION: one["test"]} for name, one in scores.items()}
    (sentence,) = run_report([], pairs, held_out, title="run").summary
    assert "fits without the clip's fold" in sentence
    (sentence,) = run_report([], splits, scores, title="run").summary
    assert "fold" not in sentence
