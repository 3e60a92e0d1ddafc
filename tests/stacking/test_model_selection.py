"""scikit-learn's model selection on a feature table, against folds made by hand."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    cross_val_predict,
    cross_val_score,
    learning_curve,
    train_test_split,
)

from xacle_stack.stacking import Stacker


@pytest.fixture(scope="module")
def stacker() -> Stacker:
    return Stacker(preset="paper", n_components=4, random_state=0)


@pytest.fixture(scope="module")
def by_hand(problem, stacker):
    """Return the table, scores and groups, the folds, and what the folds' models predict."""
    X, y, groups = problem(90)
    folds = list(GroupKFold(3).split(y, groups=groups))
    predicted, routed = np.empty(90), np.empty(90)
    for train, held_out in folds:
        one = clone(stacker).fit(X[train], y[train])
        predicted[held_out] = one.predict(X[held_out])
        one.fit(X[train], y[train], groups=groups[train])
        routed[held_out] = one.predict(X[held_out])
    return X, y, groups, folds, predicted, routed


def scores(y, predicted, folds) -> list[float]:
    return [r2_score(y[held_out], predicted[held_out]) for _, held_out in folds]


def test_cross_val_predict_and_score_judge_the_model_of_the_table(by_hand, stacker) -> None:
    X, y, groups, folds, predicted, _ = by_hand
    assert cross_val_predict(stacker, X, y, cv=folds).tobytes() == predicted.tobytes()
    given = {"cv": GroupKFold(3), "groups": groups}
    assert cross_val_predict(stacker, X, y, **given).tobytes() == predicted.tobytes()
    assert cross_val_score(stacker, X, y, **given).tolist() == scores(y, predicted, folds)
    of_array = cross_val_predict(stacker, X.values, y, cv=folds)
    assert not np.allclose(of_array, predicted)  # an array is one family


def test_routed_groups_reach_the_folds_within_a_fit(by_hand, stacker) -> None:
    X, y, groups, folds, predicted, routed = by_hand
    with sklearn.config_context(enable_metadata_routing=True):
        asking = clone(stacker).set_fit_request(groups=True)
        given = {"cv": GroupKFold(3), "params": {"groups": groups}}
        assert cross_val_predict(asking, X, y, **given).tobytes() == routed.tobytes()
        assert cross_val_score(asking, X, y, **given).tolist() == scores(y, routed, folds)
        search = GridSearchCV(asking, {"n_components": [4, 6]}, cv=GroupKFold(3))
        search.fit(X, y, groups=groups)
        expected = np.mean(scores(y, routed, folds))
        assert search.cv_results_["mean_test_score"][0] == pytest.approx(expected, abs=1e-12)
    assert routed.tobytes() != predicted.tobytes()


def test_a_grid_search_fits_the_best_on_the_table(by_hand, stacker) -> None:
    X, y, groups, folds, predicted, _ = by_hand
    search = GridSearchCV(stacker, {"n_components": [4, 8]}, cv=GroupKFold(3))
    search.fit(X, y, groups=groups)
    expected = np.mean(scores(y, predicted, folds))
    assert search.cv_results_["mean_test_score"][0] == pytest.approx(expected, abs=1e-12)
    assert search.best_estimator_.families_ == X.families
    best = clone(stacker).set_params(**search.best_params_).fit(X, y)
    assert search.predict(X).tobytes() == best.predict(X).tobytes()


def test_train_test_split_keeps_names_and_rows(by_hand) -> None:
    X, y, groups, *_ = by_hand
    train, new, y_train, y_new, g_train, g_new = train_test_split(X, y, groups, random_state=0)
    assert train.families == new.families == X.families
    for part, y_part, g_part in ((train, y_train, g_train), (new, y_new, g_new)):
        rows = [X.pair_ids.index(pair_id) for pair_id in part.pair_ids]
        np.testing.assert_array_equal(part.values, X.values[rows])
        np.testing.assert_array_equal(y_part, y[rows])
        np.testing.assert_array_equal(g_part, groups[rows])


def test_a_learning_curve_judges_models_of_fewer_rows(by_hand, stacker) -> None:
    X, y, groups, folds, *_ = by_hand
    sizes, _, found = learning_curve(
        stacker, X, y, groups=groups, cv=GroupKFold(3), train_sizes=[30, 50]
    )
    assert sizes.tolist() == [30, 50]
    for row, size in enumerate(sizes):
        for column, (train, held_out) in enumerate(folds):
            model = clone(stacker).fit(X[train[:size]], y[train[:size]])
            expected = r2_score(y[held_out], model.predict(X[held_out]))
            assert found[row, column] == pytest.approx(expected, abs=1e-12)
