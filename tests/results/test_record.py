import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xacle_stack.errors import MetricError, PairsError
from xacle_stack.metrics import Estimate, Evaluation, evaluate, probability_better, srcc_gain
from xacle_stack.pairs import Pairs
from xacle_stack.results import PUBLISHED, Result, by_split, reference_of, splits_with_scores

pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture
def y_true(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=40)


def test_one_fit_is_evaluated_as_it_is(y_true: np.ndarray, rng: np.random.Generator) -> None:
    scores = y_true + rng.normal(size=40)
    result = Result.from_scores("a", "test", "stack", y_true, [scores], fit_s=1.5, n_parameters=7)
    assert result.evaluation == evaluate(y_true, scores)
    assert (result.n_seeds, result.difference) == (1, None)
    assert math.isnan(result.srcc_spread)
    assert math.isnan(result.probability_better)
    assert (result.fit_s, result.score_ms, result.n_parameters) == (1.5, None, 7)


def test_figures_of_several_seeds_are_means(y_true: np.ndarray, rng: np.random.Generator) -> None:
    scores = [y_true + rng.normal(size=40) for _ in range(3)]
    result = Result.from_scores("a", "test", "stack", y_true, scores)
    each = [evaluate(y_true, one) for one in scores]
    for metric, estimate in result.evaluation.as_dict().items():
        for end in ("value", "low", "high"):
            mean = np.mean([getattr(one.as_dict()[metric], end) for one in each])
            assert getattr(estimate, end) == pytest.approx(mean)
    spread = np.std([one.srcc.value for one in each], ddof=1)
    assert result.srcc_spread == pytest.approx(spread)
    assert result.n_seeds == 3


def test_each_seed_is_compared_with_the_references_fit_of_the_same_number(
    y_true: np.ndarray, rng: np.random.Generator
) -> None:
    scores = [y_true + rng.normal(size=40) for _ in range(3)]
    reference = [y_true + rng.normal(size=40) for _ in range(2)]
    result = Result.from_scores("a", "test", "lstm", y_true, scores, reference_scores=reference)
    matched = list(zip(scores, [reference[0], reference[1], reference[0]], strict=True))
    gains = [srcc_gain(y_true, own, other) for own, other in matched]
    assert result.difference is not None
    assert result.difference.value == pytest.approx(np.mean([gain.value for gain in gains]))
    assert result.difference.low == pytest.approx(np.mean([gain.low for gain in gains]))
    better = [probability_better(y_true, own, other) for own, other in matched]
    assert result.probability_better == pytest.approx(np.mean(better))


def test_a_system_without_scores_is_named(y_true: np.ndarray) -> None:
    with pytest.raises(MetricError, match="'a'"):
        Result.from_scores("a", "test", "stack", y_true, [])


def result(system: str, srcc: float, mse: float = 1.0) -> Result:
    metrics = [Estimate(srcc, srcc, srcc)] * 3
    evaluation = Evaluation(*metrics, mse=Estimate(mse, mse, mse), n_pairs=5, confidence=0.95)
    return Result(system, "test", "stack", evaluation)


def test_the_official_order_breaks_ties_and_ends_with_the_undefined() -> None:
    results = [result("a", 0.1), result("constant", math.nan), result("b", 0.9, mse=2.0)]
    results.append(result("c", 0.9))
    ordered = by_split([PUBLISHED[0], *PUBLISHED[-1:], *results])
    assert [one.system for one in ordered["test"][:-1]] == ["c", "b", "a", "constant"]
    assert ordered["test"][-1] is PUBLISHED[-1]
    assert ordered["validation"] == [PUBLISHED[0]]


def test_results_of_the_same_name_are_all_kept() -> None:
    assert len(by_split([result("a", 0.1), result("a", 0.2)])["test"]) == 2


def test_the_reference_is_the_system_without_a_difference() -> None:
    reference, other = result("a", 0.1), result("b", 0.2)
    assert reference_of([reference, other, PUBLISHED[0]]) is None
    compared = replace(other, difference=Estimate(0.1, 0.0, 0.2))
    assert reference_of([PUBLISHED[0], reference, compared]) == "a"


def test_splits_without_scores_are_left_out_and_one_pair_is_too_few() -> None:
    def split(name: str, n_pairs: int, scores: np.ndarray | None) -> Pairs:
        ids = tuple(f"{number}.wav" for number in range(n_pairs))
        return Pairs(name, ids, (), ids, scores)

    known = split("validation", 2, np.array([1.0, 2.0]))
    splits = {"validation": known, "test": split("test", 3, None)}
    assert splits_with_scores(Path("data"), splits) == {"validation": known}
    with pytest.raises(PairsError, match="'test'"):
        splits_with_scores(Path("data"), {"test": split("test", 1, np.array([1.0]))})
