import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import StackingError
from xacle_stack.stacking.folds import split_folds
from xacle_stack.stacking.ridge import GroupedRidge, fit_ridge_path


@parametrize_with_checks([GroupedRidge()])
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize("shape", [(60, 7), (30, 50), (40, 40)])
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e4])
def test_the_path_is_scikit_learns_ridge(rng, shape, penalty: float) -> None:
    X, Y = rng.normal(size=shape) + 3, rng.normal(size=(shape[0], 2))
    new = rng.normal(size=(5, shape[1]))
    expected = Ridge(penalty).fit(X, Y)
    path = fit_ridge_path(X, Y)
    np.testing.assert_allclose(path.coefficients(penalty), expected.coef_.T, atol=1e-8)
    np.testing.assert_allclose(path.predict(new, [penalty])[0], expected.predict(new), atol=1e-8)


@pytest.mark.parametrize("shape", [(80, 6), (40, 70)])
def test_the_estimator_is_a_tuned_pipeline_of_scikit_learn(rng, shape) -> None:
    X = rng.normal(size=shape) * rng.uniform(0.1, 10, size=shape[1])
    y = X[:, 0] + rng.normal(size=shape[0])
    penalties = [0.1, 10.0, 1000.0]
    model = GroupedRidge(penalties).fit(X, y)
    Z = StandardScaler().fit_transform(X)
    errors = [
        np.mean((cross_val_predict(Ridge(p), Z, y, cv=split_folds(len(y), None, 3, 0)) - y) ** 2)
        for p in penalties
    ]
    np.testing.assert_allclose(model.cv_mse_[:, 0], errors, rtol=1e-9)
    best = penalties[int(np.argmin(errors))]
    assert model.penalty_ == [best]
    expected = make_pipeline(StandardScaler(), Ridge(best)).fit(X, y)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), atol=1e-8)


def test_each_target_has_its_own_penalty(rng) -> None:
    X = rng.normal(size=(60, 40))
    Y = np.column_stack([X[:, 0], rng.normal(size=60)])
    both = GroupedRidge().fit(X, Y)
    assert both.penalty_[0] < both.penalty_[1]
    for column in range(2):
        alone = GroupedRidge().fit(X, Y[:, column])
        np.testing.assert_allclose(both.predict(X)[:, column], alone.predict(X), atol=1e-10)


def test_the_penalty_is_chosen_on_groups_held_out(rng) -> None:
    # Rows of a group are near copies: ungrouped folds see the answer and want no penalty.
    groups = np.repeat(np.arange(20), 5)
    X = rng.normal(size=(20, 60))[groups] + rng.normal(scale=1e-3, size=(100, 60))
    y = rng.normal(size=20)[groups]
    assert GroupedRidge().fit(X, y, groups).penalty_ > GroupedRidge().fit(X, y).penalty_
    folds = GroupKFold(3, shuffle=True, random_state=np.random.RandomState(0))
    Z = StandardScaler().fit_transform(X)
    predicted = cross_val_predict(Ridge(10.0), Z, y, cv=folds, groups=groups)
    model = GroupedRidge([10.0]).fit(X, y, groups)
    np.testing.assert_allclose(model.cv_mse_[0, 0], np.mean((predicted - y) ** 2), rtol=1e-9)


def test_constant_columns_get_no_weight(rng) -> None:
    X = rng.normal(size=(50, 4))
    X[:, 1] = 0.1
    X[:, 2] = 1e8 + 0.3
    model = GroupedRidge().fit(X, X[:, 0])
    assert model.coef_[1] == model.coef_[2] == 0
    assert np.isfinite(model.predict(X + 1)).all()


def test_bad_settings_are_told(rng) -> None:
    X, y = rng.normal(size=(9, 2)), rng.normal(size=9)
    for penalties in ([], [0.0], [-1.0], [np.inf], [np.nan]):
        with pytest.raises(StackingError, match="penalties must be numbers above 0, got"):
            GroupedRidge(penalties).fit(X, y)
    with pytest.raises(StackingError, match="2 folds need at least 2 groups"):
        GroupedRidge().fit(X, y, groups=["same"] * 9)
