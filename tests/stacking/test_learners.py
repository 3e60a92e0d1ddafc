import numpy as np
import pytest
from scipy.stats import rankdata

from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.learners import (
    COMPRESSED,
    PRESETS,
    TARGETS,
    FittedLearner,
    family_ridges,
    rank_target,
)
from xacle_stack.stacking.ridge import GroupedRidge

BLOCKS = {"one/audio": slice(0, 40), "one/text": slice(40, 50), "agreement/cosines": slice(50, 52)}


def output_names(learners) -> list[str]:
    return [name for learner in learners for name in learner.output_names]


def test_paper_has_two_ridges_a_family_and_one_boosting() -> None:
    preset = PRESETS["paper"]
    assert (preset.n_splits, preset.n_components, preset.ridges) == (3, 64, True)
    ridges = family_ridges(["one", "agreement"])
    estimators = preset.estimators({"everything": slice(0, 64)}, 7)
    assert output_names([*ridges, *estimators]) == [
        "ridge one/score",
        "ridge one/rank",
        "ridge agreement/score",
        "ridge agreement/rank",
        "boosting/score",
    ]
    assert [learner.sees for learner in ridges] == ["one", "agreement"]
    assert [learner.sees for learner in estimators] == [COMPRESSED]
    assert estimators[0].estimator.random_state == 7


def test_best_has_a_gaussian_process_and_boosting_on_the_leading_components() -> None:
    learners = {learner.name: learner for learner in PRESETS["best"].estimators(BLOCKS, 7)}
    assert all(learner.sees == COMPRESSED for learner in learners.values())
    process, boosting = learners["gaussian process"], learners["boosting"]
    assert isinstance(process.estimator, BlockGaussianProcess)
    assert (process.estimator.blocks, process.estimator.random_state) == (BLOCKS, 7)
    np.testing.assert_array_equal(boosting.columns, [*range(16), *range(40, 52)])
    table = np.arange(104.0).reshape(2, 52)
    np.testing.assert_array_equal(boosting.select(table), table[:, boosting.columns])
    assert process.select(table) is table


def test_the_ridges_of_best_see_the_blocks_of_one_family() -> None:
    learners = PRESETS["best"].estimators(BLOCKS, 7)
    ridges = [learner for learner in learners if isinstance(learner.estimator, GroupedRidge)]
    columns = [learner.columns.tolist() for learner in ridges]
    assert columns in ([], [list(range(50)), [50, 51]])
    assert not any(learner.estimator.scales for learner in ridges)


def test_rank_target_is_between_zero_and_one(rng: np.random.Generator) -> None:
    y = rng.integers(0, 5, size=30).astype(float)
    ranks = rank_target(y)
    assert 0 < ranks.min() < ranks.max() < 1
    np.testing.assert_allclose(ranks * 30 + 0.5, rankdata(y))
    np.testing.assert_array_equal(TARGETS["rank"](y, np.ones(30)), ranks)
    np.testing.assert_array_equal(TARGETS["score"](y, np.ones(30)), y)


def test_a_weight_in_the_ranks_is_a_number_of_scores(rng) -> None:
    y, weights = rng.normal(size=20), rng.integers(1, 4, size=20)
    repeated = rank_target(np.repeat(y, weights))
    np.testing.assert_allclose(np.repeat(rank_target(y, weights), weights), repeated, rtol=1e-12)
    counted = weights > 1  # weight 0: left out
    zeroed = rank_target(y, np.where(counted, 1.0, 0.0))[counted]
    np.testing.assert_allclose(zeroed, rank_target(y[counted]), rtol=1e-12)


@pytest.mark.parametrize("columns", [None, np.array([2, 0])])
def test_models_of_a_fitted_learner_are_averaged(columns) -> None:
    class Sum:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def predict(self, table: np.ndarray) -> np.ndarray:
            return self.factor * table @ np.arange(1, table.shape[1] + 1)

    table = np.array([[1.0, 10.0, 100.0]])
    expected = 2 * (321 if columns is None else 102)
    assert FittedLearner("all", columns, [Sum(1), Sum(3)]).predict(table) == [expected]
