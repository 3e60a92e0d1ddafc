import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import FeatureError
from xacle_stack.features import cosine_similarity
from xacle_stack.metrics import srcc
from xacle_stack.systems import CosineRegressor


@parametrize_with_checks(
    [CosineRegressor()],
    expected_failed_checks=lambda _: {
        "check_estimators_dtypes": "its numbers without decimals make vectors of zeros"
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def test_ranks_are_those_of_the_cosine_and_scores_are_calibrated(rng) -> None:
    X = rng.normal(size=(200, 8))
    cosine = cosine_similarity(X[:, :4], X[:, 4:])
    y = 5 + 4 * cosine**3
    predicted = CosineRegressor().fit(X, y).predict(X)
    assert srcc(cosine, predicted) == 1.0
    assert np.mean((predicted - y) ** 2) < 0.05 * y.var()


def test_a_vector_without_direction_is_told() -> None:
    with pytest.raises(FeatureError, match="zero or not finite"):
        CosineRegressor().fit(np.zeros((5, 4)), np.arange(5.0))
