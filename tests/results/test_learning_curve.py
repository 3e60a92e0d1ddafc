import csv
import io
import math

import numpy as np
import pytest

from xacle_stack.metrics import Estimate, evaluate, srcc_gain
from xacle_stack.results import LearningCurve, Result, ResultsTable, write_plots

RISES, OPEN, FALLS = (
    Estimate(0.03, 0.01, 0.05),
    Estimate(0.03, -0.01, 0.07),
    Estimate(-0.1, -0.2, 0),
)


def curve_of(gain: Estimate | None) -> LearningCurve:
    return LearningCurve((80, 1160), (Estimate(0.5, 0.4, 0.6), Estimate(0.53, 0.4, 0.6)), gain)


def test_a_curve_is_what_the_metrics_say(rng: np.random.Generator) -> None:
    y = rng.uniform(0, 10, size=60)
    few, many = y + 6 * rng.normal(size=60), y + rng.normal(size=60)
    groups = [str(row // 3) for row in range(60)]
    curve = LearningCurve.from_scores(y, {20: few, 40: many}, groups=groups)
    assert curve.n_training_pairs == (20, 40)
    assert curve.srcc == tuple(evaluate(y, s, groups=groups).srcc for s in (few, many))
    assert curve.last_gain == srcc_gain(y, many, few, groups=groups)
    rows = list(csv.DictReader(io.StringIO(curve.to_csv())))
    assert [row["n_training_pairs"] for row in rows] == ["20", "40"]
    assert float(rows[1]["SRCC_low"]) == pytest.approx(curve.srcc[1].low, abs=1e-6)
    assert LearningCurve.from_scores(y, {40: many}).last_gain is None


def test_the_finding_claims_no_more_than_the_interval() -> None:
    assert "80 to 1,160 training pairs" in curve_of(RISES).finding
    assert "+.030 [+.010, +.050]: it still rises" in curve_of(RISES).finding
    assert "open whether more" in curve_of(OPEN).finding
    assert "open whether more" in curve_of(Estimate(-0.1, -0.2, 0)).finding
    assert "it falls" in curve_of(Estimate(-0.1, -0.2, -0.05)).finding
    assert "open whether more" in curve_of(Estimate(*[math.nan] * 3)).finding
    assert "too few" in curve_of(None).finding


def test_the_table_and_the_plots_show_the_curve(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    y = [1, 2, 3, 4, 5, 7, 6]
    result = Result.from_scores("stack", "mine", "stack", y, [y], learning_curve=curve_of(RISES))
    for text in (ResultsTable([result]).to_markdown(), ResultsTable([result]).to_html()):
        assert "80: .500 [.400, .600]; 1,160: .530" in text
        assert curve_of(RISES).finding in text
    assert "learning-curve.png" in {path.name for path in write_plots([result], tmp_path)}
