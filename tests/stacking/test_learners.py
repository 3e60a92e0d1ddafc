import numpy as np
import pytest
from scipy.stats import rankdata

from xacle_stack.errors import ModelFileError
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.learners import (
    PRESETS,
    TARGETS,
    BlockView,
    FittedLearner,
    compressed_view,
    rank_target,
    raw_view,
)
from xacle_stack.stacking.ridge import GroupedRidge

BLOCKS = {"one/audio": slice(0, 40), "one/text": slice(40, 50), "beats/logits": slice(50, 52)}
FAMILIES = {"one": ("one/audio", "one/text", "beats/logits"), "beats": ("beats/logits",)}


def test_paper_has_two_ridges_a_family_and_one_boosting() -> None:
    preset = PRESETS["paper"]
    assert (preset.n_splits, preset.n_components) == (3, 64)
    ridges = preset.ridge_learners(FAMILIES, has_compressed_array=False)
    assert [learner.name for learner in ridges] == ["ridge one", "ridge beats"]
    assert [learner.view for learner in ridges] == [raw_view(f) for f in FAMILIES.values()]
    assert {learner.targets for learner in ridges} == {("score", "rank")}
    (boosting,) = preset.estimators(FAMILIES, {"everything": slice(0, 64)}, 7, "xgboost")
    assert (boosting.name, boosting.targets) == ("boosting", ("score",))
    assert boosting.view == compressed_view()
    assert (boosting.estimator.random_state, boosting.estimator.library) == (7, "xgboost")


def test_best_has_a_gaussian_process_and_boosting_on_the_leading_components() -> None:
    found = PRESETS["best"].estimators(FAMILIES, BLOCKS, 7, "catboost")
    learners = {learner.name: learner for learner in found}
    assert all(learner.view.compressed for learner in found)
    process, boosting = learners["gaussian process"], learners["boosting"]
    assert isinstance(process.estimator, BlockGaussianProcess)
    assert (process.estimator.blocks, process.estimator.random_state) == (BLOCKS, 7)
    assert boosting.estimator.library == "catboost"
    values = np.arange(104.0).reshape(2, 52)
    leading = values[:, [*range(16), *range(40, 52)]]
    np.testing.assert_array_equal(boosting.view.select(values, BLOCKS), leading)
    assert process.view.select(values, BLOCKS) is values


def test_the_ridges_of_best_see_the_blocks_of_one_family_and_share_auxiliaries() -> None:
    learners = PRESETS["best"].estimators(FAMILIES, BLOCKS, 7, "lightgbm")
    ridges = {one.name: one for one in learners if isinstance(one.estimator, GroupedRidge)}
    assert list(ridges) == ["ridge one", "ridge beats"]
    values = np.arange(104.0).reshape(2, 52)
    np.testing.assert_array_equal(ridges["ridge one"].view.select(values, BLOCKS), values)
    of_beats = ridges["ridge beats"].view.select(values, BLOCKS)
    np.testing.assert_array_equal(of_beats, values[:, 50:])
    assert not any(learner.estimator.scales for learner in ridges.values())


def test_best_has_a_ridge_on_raw_columns_where_it_compresses_an_array() -> None:
    best = PRESETS["best"]
    (ridge,) = best.ridge_learners({"all": ("all",)}, has_compressed_array=True)
    assert (ridge.name, ridge.view) == ("ridge all columns", raw_view())
    assert best.ridge_learners(FAMILIES, has_compressed_array=False) == []


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


def test_models_of_a_fitted_learner_are_averaged() -> None:
    class Sum:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def predict(self, table: np.ndarray) -> np.ndarray:
            return self.factor * table @ np.arange(1, table.shape[1] + 1)

    learner = FittedLearner("sum", ("score",), raw_view(), [Sum(1), Sum(3)])
    assert learner.predict(np.array([[1.0, 10.0, 100.0]])) == [2 * 321]
    assert learner.output_names == ["sum/score"]


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (BlockView("text", False, None, False), "blocks is 'text'"),
        (raw_view(("a", "a")), "'a', 'a'"),
        (compressed_view(n_leading=0), "n_leading=0"),
        (BlockView(None, 1, None, False), "compressed=1"),
    ],
)
def test_a_view_from_a_file_is_checked(view: BlockView, told: str) -> None:
    compressed_view(("a", "b"), 3).check_state()
    with pytest.raises(ModelFileError, match=told):
        view.check_state()
