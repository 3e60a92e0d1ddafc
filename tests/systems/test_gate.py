from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import StackingError, UnknownNameError
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import (
    GroupedRidge,
    Stacker,
)
from xacle_stack.systems import GatedRegressor


def expected_failures(estimator) -> dict[str, str]:
    failures = {}
    if estimator.statistics == "batch":
        together = "as published, a pair's score depends on the pairs that it is scored with"
        failures["check_methods_subset_invariance"] = together
    return failures


@parametrize_with_checks(
    [GatedRegressor(Ridge(), statistics=statistics) for statistics in ("train", "batch")],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def pairs(rng, n_pairs: int, n_dims: int = 8):
    """Pairs of which some are far apart, and their scores."""
    audio = rng.normal(size=(n_pairs, n_dims))
    text = audio + rng.normal(size=(n_pairs, n_dims)) * 0.3
    text[::17] = -audio[::17] + rng.normal(size=(len(text[::17]), n_dims))
    return np.hstack([audio, text]), rng.uniform(0, 10, size=n_pairs)


def cosines(X, n_dims: int = 8):
    a, b = X[:, :n_dims], X[:, n_dims : 2 * n_dims]
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("statistics", ["train", "batch"])
def test_the_gate_is_its_formula(rng, statistics: str) -> None:
    (X, y), (new, _) = pairs(rng, 200), pairs(rng, 90)
    new[0, 8:] = -new[0, :8]  # further apart than any in training
    model = GatedRegressor(Ridge(), statistics=statistics).fit(X, y)
    c, of = cosines(new), cosines(X if statistics == "train" else new)
    expected = Ridge().fit(X, y).predict(new)
    gated = c <= of.mean() - 2 * of.std()
    expected[gated] = 10 * ((c - of.min()) / (of.max() - of.min())).clip(0, 1)[gated]
    np.testing.assert_allclose(model.predict(new), expected, rtol=1e-9)
    assert 0 < gated.sum() < 20
    assert model.predict(new)[0] == 0


def test_alone_equals_together_unless_asked_otherwise(rng) -> None:
    (X, y), (new, _) = pairs(rng, 200), pairs(rng, 90)
    own = GatedRegressor(Ridge()).fit(X, y)
    alone = np.concatenate([own.predict(new[[row]]) for row in range(90)])
    np.testing.assert_allclose(alone, own.predict(new), rtol=1e-12)
    together = GatedRegressor(Ridge(), statistics="batch").fit(X, y)
    alone = np.concatenate([together.predict(new[[row]]) for row in range(90)])
    np.testing.assert_allclose(alone, together.regressor_.predict(new))  # one pair has no spread
    assert np.abs(together.predict(new) - alone).max() > 0.1


def test_equal_cosines_gate_nothing(rng) -> None:
    # In one direction, so that the cosines differ in their last digits only.
    X = rng.uniform(0.1, 9, size=(20, 1)) * [1.0, 0.3, 0.7, 0.4]
    y = rng.uniform(0, 10, size=20)
    assert (GatedRegressor(Ridge()).fit(X, y).predict(X) == Ridge().fit(X, y).predict(X)).all()


def test_a_zero_vector_has_the_cosine_zero(rng) -> None:
    X, y = pairs(rng, 200)
    model = GatedRegressor(Ridge()).fit(X, y)
    np.testing.assert_allclose(model._cosines(X * 1e-6), cosines(X))
    X[3, :8] = 0
    assert model._cosines(X)[3] == 0


def test_the_columns_may_be_anywhere(rng) -> None:
    X, y = pairs(rng, 200)
    table = np.hstack([rng.normal(size=(200, 3)), X[:, 8:], X[:, :8], X[:, :8] + 5])
    views = [slice(11, 19), slice(19, 27)]
    model = GatedRegressor(Ridge(), audio=views, text=slice(3, 11)).fit(table, y)
    np.testing.assert_allclose(model._cosines(table), cosines(X))
    assert model.regressor_.n_features_in_ == 27


def test_weights_are_numbers_of_rows(rng) -> None:
    X, y = pairs(rng, 200)
    weights = rng.integers(0, 3, size=200)
    weights[cosines(X).argmin()] = 0
    weighted = GatedRegressor(Ridge()).fit(X, y, sample_weight=weights)
    rows = np.repeat(np.arange(200), weights)
    repeated = GatedRegressor(Ridge()).fit(X[rows], y[rows])
    for name in ("mean_", "deviation_", "least_", "greatest_"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name))
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X))


class Noting(RegressorMixin, BaseEstimator):
    """Keeps what its `fit` gets."""

    def fit(self, X, y, groups=None, eval_set=None):
        self.given_ = {"groups": groups, "eval_set": eval_set}
        return self

    def predict(self, X):
        return np.zeros(len(X))


def test_the_regressor_gets_what_it_takes(rng) -> None:
    X, y = pairs(rng, 60)
    groups = np.arange(60) % 9
    model = GatedRegressor(Noting()).fit(X, y, groups=groups, eval_set=(X, y))
    assert model.regressor_.given_["groups"] is groups
    assert model.regressor_.given_["eval_set"] == (X, y)
    plain = GatedRegressor(LinearRegression()).fit(X, y, groups=groups, eval_set=(X, y))
    np.testing.assert_allclose(plain.regressor_.coef_, LinearRegression().fit(X, y).coef_)
    with pytest.raises(StackingError, match=r"sample_weight: the regressor \(Noting\) takes none"):
        GatedRegressor(Noting()).fit(X, y, sample_weight=np.ones(60))


def test_any_regressor_and_a_round_trip(rng, tmp_path: Path) -> None:
    X, y = pairs(rng, 90)
    for regressor in (GroupedRidge(), Stacker([("ridge", Ridge())], random_state=0)):
        model = GatedRegressor(regressor, statistics="batch").fit(X, y)
        path = save_model(tmp_path / "model.skops", model)
        np.testing.assert_array_equal(load_model(path).predict(X), model.predict(X))


def test_bad_settings_are_told(rng) -> None:
    X, y = pairs(rng, 30)
    with pytest.raises(UnknownNameError, match=r"'test'; expected one of \['train', 'batch'\]"):
        GatedRegressor(Ridge(), statistics="test").fit(X, y)
    with pytest.raises(StackingError, match="has 3 columns and the caption's 8: there is no"):
        GatedRegressor(Ridge(), audio=slice(0, 3), text=slice(8, 16)).fit(X, y)
