from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import StackingError
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import (
    GroupedRidge,
    Stacker,
)
from xacle_stack.systems import (
    GatedRegressor,
    ProjectionHeadRegressor,
    TransformerRegressor,
)
from xacle_stack.systems.gate import scores_together
from xacle_stack.table import FeatureTable, consecutive


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
    np.testing.assert_allclose(model.fit(X * 1e-6, y).min_, cosines(X).min())
    X[3, :8] = 0
    one = GatedRegressor(Ridge()).fit(X[[3, 3]], y[:2])
    assert one.mean_ == one.min_ == one.max_ == 0


def tables(X) -> FeatureTable:
    """The same pairs in a table with another space, a view and columns of something else."""
    blocks = {"other/audio": 2, "mine/text": 8, "mine/audio:view-1": 8, "mine/audio": 8}
    blocks |= {"other/text": 2, "beats/logits": 3}
    parts = {name: np.ones((len(X), width)) for name, width in blocks.items()}
    parts["mine/audio"], parts["mine/text"] = X[:, :8], X[:, 8:]
    return FeatureTable(np.hstack([*parts.values()]), consecutive(blocks))


def test_the_vectors_of_a_table_are_found_by_name(rng) -> None:
    (X, y), (new, _) = pairs(rng, 200), pairs(rng, 90)
    five = DummyRegressor(strategy="constant", constant=5)
    expected = GatedRegressor(five).fit(X, y).predict(new)
    assert 0 < (expected != 5).sum() < 20
    model = GatedRegressor(five, space="mine").fit(tables(X), y)
    np.testing.assert_array_equal(model.predict(tables(new)), expected)
    assert (model.spaces_, model.widths_) == (("mine",), [(8, 8)])
    with pytest.raises(StackingError, match=r"2 spaces: \['other', 'mine'\]"):
        GatedRegressor(five).fit(tables(X), y)


def test_the_regressor_gets_the_table(rng) -> None:
    X, y = pairs(rng, 90)
    alone = Stacker([("ridge", Ridge())], random_state=0).fit(tables(X), y)
    model = GatedRegressor(Stacker([("ridge", Ridge())], random_state=0), "mine").fit(tables(X), y)
    np.testing.assert_array_equal(model.regressor_.predict(tables(X)), alone.predict(tables(X)))


def test_weights_are_numbers_of_rows(rng) -> None:
    X, y = pairs(rng, 200)
    weights = rng.integers(0, 3, size=200)
    weights[cosines(X).argmin()] = 0
    weighted = GatedRegressor(Ridge()).fit(X, y, sample_weight=weights)
    rows = np.repeat(np.arange(200), weights)
    repeated = GatedRegressor(Ridge()).fit(X[rows], y[rows])
    for name in ("mean_", "deviation_", "min_", "max_"):
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
    with pytest.raises(StackingError, match=r"statistics .*\['train', 'batch'\], got 'test'"):
        GatedRegressor(Ridge(), statistics="test").fit(X, y)
    with pytest.raises(StackingError, match="space .*got 3"):
        GatedRegressor(Ridge(), space=3).check_settings()
    with pytest.raises(StackingError, match="n_layers .*got 0"):
        GatedRegressor(TransformerRegressor(n_layers=0)).check_settings()
    table = FeatureTable(X, {"a/audio": slice(0, 3), "a/text": slice(3, 16)})
    with pytest.raises(StackingError, match=r"3 columns .* 13\b"):
        GatedRegressor(Ridge()).fit(table, y)


def test_an_interrupted_network_leaves_a_usable_gate(rng, monkeypatch) -> None:
    pytest.importorskip("torch")
    X, y = pairs(rng, 60)
    network = ProjectionHeadRegressor(n_dims=4, epochs=3, random_state=0)
    calls = []

    def loss(self, predicted, target, weights):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return (predicted - target).square().mean()

    monkeypatch.setattr(ProjectionHeadRegressor, "_loss", loss)
    stop = 4  # a batch and a validation an epoch: in the second
    model = GatedRegressor(network)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert len(model.regressor_.validation_srcc_) == 1
    assert np.isfinite(model.predict(X)).all()
    stop = len(calls) + 1
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_statistics_of_the_batch_make_scores_depend_on_one_another() -> None:
    gates = {each: GatedRegressor(Ridge(), statistics=each) for each in ("train", "batch")}
    assert not scores_together(gates["train"])
    assert scores_together(gates["batch"])
    assert scores_together(GatedRegressor(gates["batch"]))
    assert not scores_together(object())
