import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression

from xacle_stack.errors import StackingError
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import Stacker
from xacle_stack.stacking.level0 import check_they_take_weights, named_learners
from xacle_stack.systems.cosine import CosineRegressor
from xacle_stack.table import FeatureTable


class Returns(RegressorMixin, BaseEstimator):
    """Predict whatever a function makes of the rows."""

    def __init__(self, predicted) -> None:
        self.predicted = predicted

    def fit(self, X, y) -> "Returns":
        self.is_fitted_ = True
        return self

    def predict(self, X):
        return self.predicted(X)


class Interrupted(LinearRegression):
    """Keep what was learned and pass Ctrl-C on, as a network does."""

    def fit(self, X, y) -> "Interrupted":
        super().fit(X, y)
        raise KeyboardInterrupt


def test_an_interrupt_of_a_learner_ends_the_stack(rng) -> None:
    X, y = rng.normal(size=(30, 2)), rng.normal(size=30)
    with pytest.raises(KeyboardInterrupt):
        Stacker([("slow", Interrupted())], random_state=0).fit(X, y)


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (lambda X: np.where(np.arange(len(X)) < 3, np.nan, 1), "NaN .* 3 of the 20"),
        (lambda X: np.full(len(X), np.inf), "infinity .* 20 of the 20 pairs"),
        (
            lambda X: np.ones((len(X), 2)),
            r"shape \(20, 2\) and type float64",
        ),
        (lambda X: np.ones(len(X) - 1), r"\(19,\) .* \(20,\)"),
        (lambda X: np.ones((1, len(X))), r"\(1, 20\)"),
        (lambda X: 1.0, r"shape \(\)"),
        (lambda X: ["a"] * len(X), r"shape \(20,\) and type <U1"),
        (lambda X: [None] * len(X), r"shape \(20,\) and type object"),
    ],
)
def test_a_learner_that_predicts_no_number_a_pair_is_named(rng, predicted, message: str) -> None:
    X, y = rng.normal(size=(60, 2)), rng.normal(size=60)
    learners = [("linear", LinearRegression()), ("strange", Returns(predicted))]
    with pytest.raises(StackingError, match=rf"the learner 'strange' \(Returns\) pred.*{message}"):
        Stacker(learners, random_state=0).fit(X, y)


def test_a_column_of_numbers_of_any_kind_is_taken(rng) -> None:
    X, y = rng.normal(size=(30, 2)), rng.normal(size=30)
    for kind in (np.float32, int, bool):
        learners = [("column", Returns(lambda X, kind=kind: X[:, :1].astype(kind)))]
        stacker = Stacker(learners, random_state=0).fit(X, y)
        np.testing.assert_array_equal(stacker.oof_predictions_, X[:, :1].astype(kind))


def test_a_learner_that_fails_on_new_pairs_is_named(rng) -> None:
    X, y = rng.normal(size=(30, 2)), rng.normal(size=30)
    learners = [
        ("linear", LinearRegression()),
        ("strange", Returns(lambda X: np.where(X[:, 0] > 50, np.nan, X[:, 0]))),
    ]
    stacker = Stacker(learners, random_state=0).fit(X, y)
    assert np.isfinite(stacker.predict(X)).all()
    X[3:5, 0] = 99
    with pytest.raises(StackingError, match="'strange' .*NaN or infinity .* 2 of 30"):
        stacker.predict(X)


@pytest.mark.parametrize(
    ("learners", "message"),
    [
        ("paper", "preset='paper'"),
        ("papr", r"learners .*\(name, regressor\)"),
        (3, "learners .*list"),
        (LinearRegression(), r"\[\('linear', LinearRegression\(\)\)\], got LinearReg"),
        ([LinearRegression()], "learners .*list"),
        ([(LinearRegression(), "linear")], "learners .*list"),
        ({"linear": LinearRegression()}, "learners .*list"),
        ([], r"names .*one, got \[\]"),
        ([("a", LinearRegression()), ("a", LinearRegression())], r"got \['a', 'a'\]"),
    ],
)
def test_what_are_no_learners_is_told(learners, message: str) -> None:
    with pytest.raises(StackingError, match=message):
        named_learners("learners", learners)


def test_learners_that_take_no_weights_are_named() -> None:
    check_they_take_weights([("linear", LinearRegression())])
    with pytest.raises(StackingError, match=r"the learner 'strange' \(Returns\) takes none"):
        check_they_take_weights([("linear", LinearRegression()), ("strange", Returns(None))])


def test_a_system_finds_its_space_in_every_fold_and_in_new_pairs(rng, tmp_path) -> None:
    values, y = rng.normal(size=(40, 12)), rng.uniform(0, 10, size=40)
    blocks = {"other/audio": slice(0, 3), "other/text": slice(3, 6)}
    blocks |= {"mine/audio": slice(6, 9), "mine/text": slice(9, 12)}
    table = FeatureTable(values, blocks)
    system = CosineRegressor("mine")
    stacker = Stacker([("cosine", system)], random_state=0).fit(table, y)
    for fold in np.unique(stacker.folds_):
        held_out = stacker.folds_ == fold
        alone = CosineRegressor("mine").fit(table[~held_out], y[~held_out])
        np.testing.assert_allclose(
            stacker.oof_predictions_[held_out, 0], alone.predict(table[held_out])
        )
    loaded = load_model(save_model(tmp_path / "m.skops", stacker))
    np.testing.assert_array_equal(loaded.predict(table[:7]), stacker.predict(table)[:7])
    halves = Stacker([("cosine", CosineRegressor())], random_state=0).fit(values[:, 6:], y)
    np.testing.assert_allclose(halves.oof_predictions_, stacker.oof_predictions_)
