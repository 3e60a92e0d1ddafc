from pathlib import Path

import numpy as np
import pytest

from xacle_stack.pairs import Pairs
from xacle_stack.results import Result
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
