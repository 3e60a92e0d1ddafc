import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import StackingError
from xacle_stack.features import FeatureBuilder, FeatureTable, PairEmbeddings
from xacle_stack.metrics import srcc
from xacle_stack.stacking import GroupedRidge, Stacker
from xacle_stack.stacking.stacker import META_PENALTIES


@parametrize_with_checks([Stacker(random_state=0)])
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def problem(n_pairs: int = 150, seed: int = 0) -> tuple[FeatureTable, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    captions = rng.integers(n_pairs // 3, size=n_pairs)
    a = rng.normal(size=(n_pairs, 8))
    b = rng.normal(size=(n_pairs // 3, 8))[captions]
    X = FeatureBuilder(["one", "two"], n_components=2).fit_transform(
        PairEmbeddings({"one": (a[:, :4], b[:, :4]), "two": (a[:, 4:], b[:, 4:])})
    )
    return X, 5 + (a * b).sum(1) / 2 + rng.normal(size=n_pairs), captions.astype(str)


def test_oof_predictions_never_see_their_own_label(rng) -> None:
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    memoriser = KNeighborsRegressor(n_neighbors=1)  # in-sample it returns y exactly
    stacker = Stacker([("memoriser", memoriser)], random_state=0).fit(X, y)
    assert not np.any(stacker.oof_predictions_[:, 0] == y)


def test_oof_predictions_never_see_their_groups_labels(rng) -> None:
    X = np.repeat(rng.normal(size=(30, 3)), 2, axis=0)  # each row has a twin
    y = np.repeat(rng.normal(size=30), 2)
    groups = np.repeat(np.arange(30), 2)
    memoriser = [("memoriser", KNeighborsRegressor(n_neighbors=1))]
    grouped = Stacker(memoriser, random_state=0).fit(X, y, groups=groups)
    ungrouped = Stacker(memoriser, random_state=0).fit(X, y)
    assert not np.any(grouped.oof_predictions_[:, 0] == y)
    assert np.mean(ungrouped.oof_predictions_[:, 0] == y) > 0.4


def test_no_own_label_moves_an_oof_prediction() -> None:
    X, y, groups = problem(60)
    before = Stacker(random_state=0).fit(X, y, groups)
    for row in (0, 31):
        changed = y.copy()
        changed[row] += 5.0  # moves every later rank as well
        after = Stacker(random_state=0).fit(X, changed, groups)
        same_fold = before.folds_ == before.folds_[row]
        np.testing.assert_array_equal(
            after.oof_predictions_[same_fold], before.oof_predictions_[same_fold]
        )
        assert (after.oof_predictions_[~same_fold] != before.oof_predictions_[~same_fold]).any()


def test_stack_is_wolperts_by_hand(rng) -> None:
    X, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    new = rng.normal(size=(7, 3))
    stacker = Stacker(
        [("linear", LinearRegression()), ("mean", DummyRegressor())],
        meta=LinearRegression(),
        random_state=3,
    ).fit(X, y)
    oof, of_new = np.empty((50, 2)), np.zeros((7, 2))
    for fold in range(3):
        held = stacker.folds_ == fold
        linear = LinearRegression().fit(X[~held], y[~held])
        oof[held] = np.column_stack([linear.predict(X[held]), np.full(held.sum(), y[~held].mean())])
        of_new += np.column_stack([linear.predict(new), np.full(7, y[~held].mean())]) / 3
    np.testing.assert_allclose(stacker.oof_predictions_, oof)
    np.testing.assert_allclose(stacker.level0_predict(new), of_new)
    expected = LinearRegression().fit(oof, y).predict(of_new)
    np.testing.assert_allclose(stacker.predict(new), expected)


def test_it_learns_and_the_table_makes_families() -> None:
    X, y, groups = problem(600)
    stacker = Stacker(random_state=0).fit(X, y, groups=groups)
    assert list(stacker.families_) == ["one", "two", "agreement"]
    assert stacker.oof_predictions_.shape == (600, 7)
    stacked = srcc(y, stacker.meta_predict(stacker.oof_predictions_))
    of_single_spaces = [srcc(y, column) for column in stacker.oof_predictions_[:, :4].T]
    assert stacked > max(of_single_spaces) + 0.1  # each space knows half of the truth


def test_a_plain_array_is_one_family() -> None:
    X, y, _ = problem(90)
    stacker = Stacker(random_state=0).fit(X.values, y)
    assert stacker.families_ == {"all": slice(0, X.shape[1])}
    assert stacker.level0_names_ == ["ridge all/score", "ridge all/rank", "boosting/score"]


def test_same_seed_same_bytes_whatever_the_workers() -> None:
    X, y, groups = problem()
    first, second, parallel = (
        Stacker(random_state=0, n_jobs=n_jobs).fit(X, y, groups) for n_jobs in (1, 1, 2)
    )
    for other in (second, parallel):
        assert other.oof_predictions_.tobytes() == first.oof_predictions_.tobytes()
        assert other.predict(X).tobytes() == first.predict(X).tobytes()
    assert (Stacker(random_state=1).fit(X, y, groups).folds_ != first.folds_).any()


def test_score_range_bounds_the_predictions() -> None:
    X, y, _ = problem()
    y = np.clip(y, 0, 10)
    free = Stacker(random_state=0).fit(X, y).predict(X.values * 5)
    bounded = Stacker(random_state=0, score_range=(0, 10)).fit(X, y).predict(X.values * 5)
    assert free.min() < 0
    np.testing.assert_array_equal(bounded, np.clip(free, 0, 10))
    with pytest.raises(StackingError, match=r"1 scores lie outside score_range=\(0, 10\).* row 4"):
        Stacker(score_range=(0, 10)).fit(X, np.where(np.arange(150) == 4, 11.0, y))


def test_inputs_stay_untouched() -> None:
    X, y, groups = problem(60)
    values, scores = X.values.copy(), y.copy()
    Stacker(random_state=0).fit(X, y, groups).predict(X)
    np.testing.assert_array_equal(X.values, values)
    np.testing.assert_array_equal(y, scores)


def test_other_families_are_refused() -> None:
    X, y, _ = problem(60)
    stacker = Stacker(random_state=0).fit(X, y)
    swapped = FeatureTable(X.values, dict(reversed(X.families.items())), X.pair_ids)
    stacker.predict(swapped)  # the same columns under the same names
    renamed = {f"new {name}": columns for name, columns in X.families.items()}
    with pytest.raises(StackingError, match="features of the families {'new one'.*fitted on {'one"):
        stacker.predict(FeatureTable(X.values, renamed, X.pair_ids))


def test_the_meta_regressor_gets_the_groups() -> None:
    X, y, groups = problem(60)
    stacker = Stacker(random_state=0).fit(X, y, groups)
    expected = GroupedRidge(META_PENALTIES).fit(stacker.oof_predictions_, y, groups)
    np.testing.assert_array_equal(stacker.meta_.cv_mse_, expected.cv_mse_)
    without = GroupedRidge(META_PENALTIES).fit(stacker.oof_predictions_, y)
    assert (without.cv_mse_ != expected.cv_mse_).any()


def test_a_data_frame_with_a_column_called_families_is_a_plain_array() -> None:
    X, y, _ = problem(60)
    frame = pd.DataFrame(X.values[:, :3], columns=["families", "b", "c"])
    stacker = Stacker(random_state=0).fit(frame, y)
    assert list(stacker.families_) == ["all"]
    stacker.predict(frame)


def test_bad_settings_are_told() -> None:
    X, y, _ = problem(60)
    with pytest.raises(StackingError, match="3 folds need at least 3 groups"):
        Stacker().fit(X, y, groups=["a", "b"] * 30)
    with pytest.raises(StackingError, match=r"2 folds need at least 4 groups .* 4 different capt"):
        Stacker(n_splits=2).fit(X, y, groups=["a", "b", "c"] * 20)
    Stacker(n_splits=2, random_state=0).fit(X, y, groups=["a", "b", "c", "d"] * 15)
    with pytest.raises(StackingError, match="one label for each of 60 pairs"):
        Stacker().fit(X, y, groups=["a", "b"])
    twice = [("same", LinearRegression()), ("same", LinearRegression())]
    with pytest.raises(StackingError, match=r"need different names .* got \['same', 'same'\]"):
        Stacker(twice).fit(X, y)
    with pytest.raises(ValueError, match="requires y to be passed"):
        Stacker().fit(X, None)
