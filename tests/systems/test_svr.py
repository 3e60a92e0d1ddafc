import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import FeatureError, ModelFileError, StackingError
from xacle_stack.features import FeatureBuilder, PairEmbeddings, VectorBuilder, proximities
from xacle_stack.metrics import mse
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import split_folds
from xacle_stack.systems import SVREnsembleRegressor
from xacle_stack.table import FeatureTable

NO_DIRECTION = "its numbers without decimals make vectors of zeros"


def expected_failures(estimator) -> dict[str, str]:
    repeated = "libsvm stops at 1e-6, and the check at 1e-7; below it is tested with a tolerance"
    if estimator.blend == "out-of-fold":
        repeated = "the folds are drawn over rows: repeated rows are drawn otherwise"
    return {
        "check_estimators_dtypes": NO_DIRECTION,
        "check_sample_weight_equivalence_on_dense_data": repeated,
    }


@parametrize_with_checks(
    [SVREnsembleRegressor(n_splits=2), SVREnsembleRegressor(blend="in-sample")],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def columns_of(*spaces):
    """Return what a regression sees of spaces, by their definition."""
    parts = [[unit(a), unit(b), proximities(a, b)] for a, b in spaces]
    return np.hstack([column for part in parts for column in part])


@pytest.fixture
def spaces(rng):
    a = rng.normal(size=(90, 5))
    c = rng.normal(size=(90, 3))
    return {"one": (3 * a, a + rng.normal(size=(90, 5))), "two": (c, c + rng.normal(size=(90, 3)))}


@pytest.fixture
def table(spaces) -> FeatureTable:
    return VectorBuilder(["one", "two"]).fit_transform(PairEmbeddings(spaces))


@pytest.fixture
def y(rng, spaces):
    angles = [proximities(*vectors)[:, 1] for vectors in spaces.values()]
    return np.clip(8 - 2 * angles[0] - 2 * angles[1] + rng.normal(size=90), 0, 10)


def reference(X, y, epsilon, weights=None, rows=slice(None), gamma="scale"):
    """Return scikit-learn's own predictions of all rows by a regression on some."""
    scaler = StandardScaler().fit(X, sample_weight=weights)
    model = SVR(C=0.5, gamma=gamma, epsilon=epsilon, tol=1e-6)
    given = None if weights is None else weights[rows]
    model.fit(scaler.transform(X)[rows], (y[rows] - 5) / 5, given)
    return 5 + 5 * model.predict(scaler.transform(X))


@pytest.mark.parametrize("weighted", [False, True])
def test_both_members_are_scikit_learns_regressions(rng, spaces, y, weighted: bool) -> None:
    weights = rng.uniform(0.5, 2, size=90) if weighted else None
    named = PairEmbeddings(spaces)
    table = VectorBuilder(["one", "two"]).fit_transform(named)
    table = FeatureTable(table.values.astype(np.float64), table.blocks)
    model = SVREnsembleRegressor(["one", "two"], ["two"], blend="in-sample")
    model.fit(table, y, sample_weight=weights)
    seen = [(table.block(f"{s}/audio"), table.block(f"{s}/text")) for s in ("one", "two")]
    a, b = columns_of(*seen), columns_of(seen[1])
    expected = []
    for X, epsilon, member in ((a, 0.08, model.members_[0]), (b, 0.02, model.members_[1])):
        # Standardised columns with weights have another unweighted variance.
        gamma = "scale" if weights is None else member.gamma
        expected.append(reference(X, y, epsilon, weights, gamma=gamma))
        assert member.gamma == pytest.approx(1 / X.shape[1])
        # libsvm stops within its tolerance, wherever rounding leads it.
        np.testing.assert_allclose(5 + 5 * member.predict(X), expected[-1], atol=2e-5)
    blended = model.blend_weights_ @ np.stack(expected)
    np.testing.assert_allclose(model.predict(table), blended, atol=2e-5)
    assert model.oof_predictions_ is None


def test_the_kernel_is_standardised_on_all_rows_and_scores_are_held_out(table, y) -> None:
    groups = np.arange(90) // 3
    model = SVREnsembleRegressor(spaces_b=["one"], n_splits=3, random_state=1)
    model.fit(table, y, groups=groups)
    seen = [(table.block(f"{s}/audio"), table.block(f"{s}/text")) for s in ("one", "two")]
    for column, X, epsilon in ((0, columns_of(*seen), 0.08), (1, columns_of(seen[0]), 0.02)):
        expected = np.empty(90)
        for train, held_out in split_folds(90, groups, 3, 1):
            assert not {*groups[train]} & {*groups[held_out]}
            gamma = 1 / X.shape[1]
            expected[held_out] = reference(X, y, epsilon, rows=train, gamma=gamma)[held_out]
        np.testing.assert_allclose(model.oof_predictions_[:, column], expected, atol=2e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_blend_minimises_the_error_of_what_was_held_out(rng, table, y, weighted) -> None:
    weights = rng.uniform(0, 2, size=90) if weighted else np.ones(90)
    model = SVREnsembleRegressor(["one"], ["two"]).fit(table, y, sample_weight=weights)
    a, b = model.oof_predictions_.T

    def error(share):
        return np.average((share * a + (1 - share) * b - y) ** 2, weights=weights)

    best = minimize_scalar(error, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
    assert 0 < best.x < 1
    np.testing.assert_allclose(model.blend_weights_, [best.x, 1 - best.x], atol=1e-6)


def test_the_blend_stays_within_the_two(rng, table, y) -> None:
    noise = rng.permuted(y)
    for order, expected in ((["one"], ["two"]), [1, 0]), ((["two"], ["one"]), [0, 1]):
        # "two" says nothing of these scores, and "one" everything.
        scores = 8 - 2 * proximities(table.block("one/audio"), table.block("one/text"))[:, 1]
        model = SVREnsembleRegressor(*order).fit(table, scores)
        np.testing.assert_allclose(model.blend_weights_, expected, atol=0.1)
        assert (model.blend_weights_ >= 0).all()
        assert model.blend_weights_.sum() == 1
    same = SVREnsembleRegressor(epsilon_b=0.08).fit(table, noise)
    assert same.blend_weights_.tolist() == [0.5, 0.5]


def test_an_in_sample_blend_prefers_the_regression_that_overfits(rng, table) -> None:
    angles = proximities(table.block("one/audio"), table.block("one/text"))[:, 1]
    y = np.clip(9 - 4 * angles + 0.5 * rng.normal(size=90), 0, 10)  # "two" says nothing of them
    fits_noise = SVREnsembleRegressor(["one"], ["two"], C=100, epsilon_a=0.2, epsilon_b=0)
    found = [
        clone(fits_noise).set_params(blend=blend).fit(table, y).blend_weights_[0]
        for blend in ("out-of-fold", "in-sample")
    ]
    assert found[0] > 0.7
    assert found[1] < 0.1


def test_alone_equals_together(table, y) -> None:
    model = SVREnsembleRegressor().fit(table, y)
    together = model.predict(table)
    for row in (0, 47, 48, 89):
        assert model.predict(table[[row]])[0] == together[row]
    np.testing.assert_array_equal(model.predict(table[::-1]), together[::-1])


def test_weights_are_repeated_rows(rng, table, y) -> None:
    weights = rng.integers(0, 4, size=90)
    model = SVREnsembleRegressor(blend="in-sample")
    weighted = clone(model).fit(table, y, sample_weight=weights).predict(table)
    rows = np.repeat(np.arange(90), weights)
    np.testing.assert_allclose(
        weighted, clone(model).fit(table[rows], y[rows]).predict(table), atol=1e-4
    )


def test_rows_without_weight_train_nothing(table, y) -> None:
    weights = np.repeat([1.0, 0.0], 45)
    model = SVREnsembleRegressor(blend="in-sample").fit(table, y, sample_weight=weights)
    alone = SVREnsembleRegressor(blend="in-sample").fit(table[:45], y[:45])
    np.testing.assert_allclose(model.predict(table), alone.predict(table), rtol=1e-5)
    blended = SVREnsembleRegressor(["one"], ["two"]).fit(table, y, sample_weight=weights)
    assert np.isfinite(blended.oof_predictions_).all()
    spoiled = SVREnsembleRegressor(["one"], ["two"])
    spoiled.fit(table, np.where(weights > 0, y, 0), sample_weight=weights)
    np.testing.assert_array_equal(spoiled.predict(table), blended.predict(table))


def test_it_learns_what_the_vectors_say(table, y) -> None:
    model = SVREnsembleRegressor().fit(table[:60], y[:60])
    assert mse(y[60:], model.predict(table[60:])) < 0.8 * y[60:].var()


def test_scores_within_epsilon_need_no_support_vector(table) -> None:
    model = SVREnsembleRegressor().fit(table, np.full(90, 6.0))
    assert {len(member.vectors) for member in model.members_} == {0}
    np.testing.assert_allclose(model.predict(table), 6, atol=0.5)


def test_columns_that_are_all_equal_do_no_harm(rng) -> None:
    X = np.tile(rng.normal(size=8), (20, 1))
    assert np.isfinite(SVREnsembleRegressor().fit(X, rng.uniform(0, 10, size=20)).predict(X)).all()


def test_it_takes_a_place_in_a_grid_search(table, y) -> None:
    search = GridSearchCV(SVREnsembleRegressor(), {"C": [0.01, 1.0]}, cv=3)
    assert search.fit(table, y).best_params_ == {"C": 1.0}
    assert clone(search.best_estimator_).get_params()["C"] == 1.0


def test_feature_tables_have_the_same_vectors(table, spaces, y) -> None:
    features = FeatureBuilder(["one", "two"], proximities=True).fit_transform(
        PairEmbeddings(spaces)
    )
    model = SVREnsembleRegressor().fit(table, y)
    np.testing.assert_allclose(model.predict(features), model.predict(table), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"C": 0}, "C must be .* above 0, got 0"),
        ({"gamma": "auto"}, r"gamma must be one of \['scale'\], got 'auto'"),
        ({"gamma": -1.0}, "gamma must be .* above 0, got -1.0"),
        ({"epsilon_a": -0.1}, "epsilon_a must be .* 0 or more, got -0.1"),
        ({"epsilon_b": None}, "epsilon_b must be .* 0 or more, got None"),
        ({"blend": "mean"}, r"blend must be one of \['out-of-fold', 'in-sample'\], got 'mean'"),
        ({"n_splits": 1}, "n_splits must be .* 2 or more, got 1"),
        ({"spaces_a": "one"}, "spaces_a must be a list of names .* got 'one'"),
        ({"spaces_b": ["one", "one"]}, "spaces_b must name each space once"),
        ({"spaces_b": ["three"]}, r"'three/audio'.*\['one', 'two'\]"),
        ({"n_splits": 91}, "91 folds need at least 91 pairs"),
    ],
)
def test_bad_settings_are_told(table, y, settings, message: str) -> None:
    with pytest.raises(StackingError, match=message):
        SVREnsembleRegressor(**settings).fit(table, y)


def test_bad_input_is_told(table, y, rng) -> None:
    model = SVREnsembleRegressor()
    with pytest.raises(StackingError, match="5 folds need at least 5 groups"):
        model.fit(table, y, groups=np.arange(90) % 4)
    with pytest.raises(StackingError, match="all weights are zero"):
        model.fit(table, y, sample_weight=np.zeros(90))
    with pytest.raises(FeatureError, match="audio embeddings: 1 of 5 rows are zero"):
        model.fit(np.vstack([np.zeros((1, 4)), rng.normal(size=(4, 4))]), np.arange(5.0))
    array = np.hstack([table.block("one/audio"), table.block("one/text")])
    with pytest.raises(StackingError, match=r"\['one'\].*array without names"):
        SVREnsembleRegressor(spaces_b=["one"]).fit(array, y)


def test_a_saved_model_predicts_the_same(table, y, tmp_path) -> None:
    model = SVREnsembleRegressor(["one"], ["two", "one"]).fit(table, y)
    loaded = load_model(save_model(tmp_path / "svr.skops", model))
    np.testing.assert_array_equal(loaded.predict(table), model.predict(table))
    assert loaded.members_[1].vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("of_member", "attribute", "value", "message"),
    [
        (False, "blend_weights_", np.ones(3), r"blend_weights_ has shape \(3,\)"),
        (False, "blend_weights_", np.array([-1.0, 2.0]), "blend_weights_ holds -1"),
        (False, "members_", [], "expected two SupportVectors"),
        (True, "spaces", ("three",), "three"),
        (True, "spaces", (), r"spaces is \(\)"),
        (True, "scale", np.zeros(10), "scale"),
        (True, "vectors", np.ones((4, 9)), r"vectors has shape \(4, 9\)"),
        (True, "vectors", np.full((4, 24), np.nan), "vectors"),
        (True, "dual_coef", np.ones(3), r"dual_coef has shape \(3,\)"),
        (True, "gamma", -1.0, "gamma holds -1"),
        (True, "gamma", "scale", "gamma is of type str"),
        (True, "intercept", np.inf, "intercept holds"),
    ],
)
def test_a_spoiled_file_is_refused(
    table, y, tmp_path, of_member: bool, attribute: str, value, message: str
) -> None:
    model = SVREnsembleRegressor().fit(table, y)
    object.__setattr__(model.members_[1] if of_member else model, attribute, value)
    with pytest.raises(ModelFileError, match=message):
        load_model(save_model(tmp_path / "spoiled.skops", model))
