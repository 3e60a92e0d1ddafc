import numpy as np
from scipy.stats import rankdata

from xacle_stack.stacking.learners import published_learners, rank_target, targets_matrix

FAMILIES = {"one": slice(0, 5), "agreement": slice(5, 8)}


def learners(n_components: int):
    return published_learners(
        FAMILIES, 8, penalties=(1.0, 2.0), n_components=n_components, random_state=7
    )


def test_two_ridges_a_family_and_one_boosting() -> None:
    names = [name for learner in learners(4) for name in learner.output_names]
    assert names == [
        "ridge one/score",
        "ridge one/rank",
        "ridge agreement/score",
        "ridge agreement/rank",
        "boosting/score",
    ]
    ridge, _, boosting = learners(4)
    assert ridge.columns == FAMILIES["one"]
    assert ridge.estimator.penalties == (1.0, 2.0)
    assert boosting.columns == slice(None)


def test_narrow_tables_are_not_compressed() -> None:
    assert list(learners(4)[-1].estimator.named_steps) == [
        "standardscaler",
        "truncatedsvd",
        "lgbmregressor",
    ]
    assert "truncatedsvd" not in learners(8)[-1].estimator.named_steps


def test_rank_target_is_between_zero_and_one(rng: np.random.Generator) -> None:
    y = rng.integers(0, 5, size=30).astype(float)
    ranks = rank_target(y)
    assert 0 < ranks.min() < ranks.max() < 1
    np.testing.assert_allclose(ranks * 30 + 0.5, rankdata(y))
    both = targets_matrix(y, ("score", "rank"))
    np.testing.assert_array_equal(both, np.column_stack([y, ranks]))
    assert targets_matrix(y, ("score",)).ndim == 1
