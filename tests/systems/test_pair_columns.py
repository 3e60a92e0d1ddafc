import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyRegressor

from xacle_stack.errors import StackingError
from xacle_stack.features import FeatureBuilder, PairEmbeddings
from xacle_stack.systems import (
    CosineRegressor,
    GatedRegressor,
    LSTMRegressor,
    ProjectionHeadRegressor,
    TransformerRegressor,
)
from xacle_stack.systems.pair_columns import check_halves


@pytest.mark.parametrize(
    "system",
    [
        CosineRegressor(),
        GatedRegressor(DummyRegressor()),
        ProjectionHeadRegressor(),
        TransformerRegressor(),
        LSTMRegressor(),
    ],
    ids=lambda system: type(system).__name__,
)
def test_the_halves_of_a_feature_table_are_no_vectors(rng, system) -> None:
    a, b = rng.normal(size=(2, 30, 4))
    X = FeatureBuilder(["mine"], n_components=2).fit_transform(PairEmbeddings({"mine": (a, b)}))
    message = r"Say which columns are .*'mine/audio': slice\(0, 4.*'mine/text': slice\(4, 8"
    with pytest.raises(StackingError, match=message):
        clone(system).fit(X, rng.uniform(0, 10, size=30))


def test_a_feature_table_of_a_reloaded_module_is_one(rng) -> None:
    again = type("FeatureTable", (), {"blocks": {"mine/audio": slice(0, 4)}})
    with pytest.raises(StackingError, match=r"Say which columns are .*'mine/audio': slice\(0, 4"):
        check_halves(again())
    check_halves(rng.normal(size=(3, 4)))


def test_named_columns_of_a_feature_table_are_taken(rng) -> None:
    a, b = rng.normal(size=(2, 30, 4))
    X = FeatureBuilder(["mine"], n_components=2).fit_transform(PairEmbeddings({"mine": (a, b)}))
    gated = GatedRegressor(DummyRegressor(), X.blocks["mine/audio"], X.blocks["mine/text"])
    alone = GatedRegressor(DummyRegressor())
    y = rng.uniform(0, 10, size=30)
    vectors = np.hstack([X.values[:, :4], X.values[:, 4:8]])
    expected = alone.fit(vectors, y).predict(vectors)
    np.testing.assert_array_equal(gated.fit(X, y).predict(X), expected)
