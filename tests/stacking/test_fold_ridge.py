import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from xacle_stack.errors import StackingError
from xacle_stack.stacking import _shifted, fold_ridge
from xacle_stack.stacking._cholesky import factor_upper
from xacle_stack.stacking.fold_ridge import FoldRidge
from xacle_stack.stacking.inputs import table_from_array
from xacle_stack.table import FeatureTable

QUICK = settings(deadline=None, derandomize=True, max_examples=25)


def reference(X, Y, weights, rows, penalty: float) -> Pipeline:
    """Return scikit-learn's ridge on columns standardised within the rows trained on."""
    # Its singular value decomposition takes rows of weight 0 and duplicated columns as they are.
    pipeline = make_pipeline(StandardScaler(), Ridge(penalty, solver="svd"))
    weights = {f"{step}__sample_weight": weights[rows] for step in ("standardscaler", "ridge")}
    return pipeline.fit(X[rows], Y[rows], **weights)


def rests(n_folds: int) -> list[tuple[int, ...]]:
    return [tuple(o for o in range(n_folds) if o != fold) for fold in range(n_folds)]


def assert_reference(X, Y, weights, fold_of, penalty: float, tolerance: float = 1e-7) -> None:
    subsets = rests(int(fold_of.max()) + 1)
    ridge = FoldRidge(table_from_array(X), None, fold_of, Y, weights, subsets)
    models = []
    for fold, subset in enumerate(subsets):
        rows = fold_of != fold
        (model,) = ridge.fit(subset, [penalty])
        expected = reference(X, Y, weights, rows, penalty).predict(X).reshape(Y.shape)
        scale = Y.std(axis=0)
        np.testing.assert_allclose(model.predict(X) / scale, expected / scale, atol=tolerance)
        held = fold_of == fold
        square = weights[held] @ np.square(expected[held] - Y[held])
        total = weights.sum() * np.square(scale)
        errors = ridge.errors(fold, [model])[0]
        np.testing.assert_allclose(
            errors / total, square / total, rtol=10 * tolerance, atol=tolerance
        )
        models.append(model)
    by_fold = np.array([models[fold].predict(X[[row]])[0] for row, fold in enumerate(fold_of)])
    np.testing.assert_allclose(ridge.predict(models), by_fold, rtol=1e-9, atol=1e-9 * scale.max())


@pytest.mark.parametrize("n_folds", [2, 3, 5])
@pytest.mark.parametrize(
    "n_columns",
    [7, 90, 45],  # 45: more columns than some folds' training rows, fewer than others'
    ids=["sums", "rows", "mixed"],
)
@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e4])
def test_it_is_scikit_learns_pipeline(rng, n_columns: int, n_folds: int, penalty: float) -> None:
    X = 3 + rng.normal(size=(60, n_columns)) * rng.uniform(0.1, 10, size=n_columns)
    Y = X[:, :2] + rng.normal(size=(60, 2)) + [0, 100]
    # One large fold, so that "mixed" is.
    fold_of = rng.permutation(np.r_[np.arange(40) % n_folds, np.zeros(20, dtype=int)])
    for weights in (np.ones(60), rng.uniform(0.2, 3, size=60)):
        assert_reference(X, Y, weights, fold_of, penalty)


@pytest.mark.parametrize("n_columns", [700, 1100])
def test_tables_wider_than_a_tile(rng, n_columns: int) -> None:
    for n_rows in (120, 2300):  # from the rows; from the sums, over several blocks of rows
        X = rng.normal(size=(n_rows, n_columns))
        Y = X[:, :1] + rng.normal(size=(n_rows, 1))
        fold_of = np.arange(n_rows) % 2
        ridge = FoldRidge(table_from_array(X), None, fold_of, Y, np.ones(n_rows), [(0,)])
        (model,) = ridge.fit((0,), [10.0])
        expected = make_pipeline(StandardScaler(), Ridge(10.0)).fit(X[::2], Y[::2]).predict(X)
        np.testing.assert_allclose(model.predict(X), expected.reshape(-1, 1), atol=1e-8)


@pytest.mark.parametrize("penalty", [1e-2, 1.0, 1e4])
def test_what_is_solved_in_float32_is_brought_to_float64(rng, monkeypatch, penalty: float) -> None:
    monkeypatch.setattr(fold_ridge, "_MIN_FLOAT32", 10)
    factors = []

    def factor(matrix: np.ndarray) -> bool:
        factors.append(matrix.dtype)
        return factor_upper(matrix)

    monkeypatch.setattr(_shifted, "factor_upper", factor)
    X = 5 + rng.normal(size=(60, 90)) @ rng.normal(size=(90, 90))
    Y = X[:, :2] + rng.normal(size=(60, 2))
    fold_of = np.arange(60) % 3
    assert_reference(X, Y, rng.uniform(0.2, 3, size=60), fold_of, penalty)
    assert set(factors) == {np.dtype(np.float32)}


def test_what_cannot_be_refined_is_solved_in_float64(rng, monkeypatch) -> None:
    monkeypatch.setattr(fold_ridge, "_MIN_FLOAT32", 10)
    monkeypatch.setattr(_shifted, "_MAX_REFINEMENTS", 1)
    X = rng.normal(size=(60, 90))
    assert_reference(X, X[:, :2] + 1, np.ones(60), np.arange(60) % 3, 0.1)


def drawn(seed: int, n: int, p: int, n_folds: int, n_targets: int, offset: float, weighted: bool):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-12, 8, size=p)
    X = (rng.normal(size=(n, p)) + offset * rng.normal(size=p)) * scale
    Y = rng.normal(size=(n, n_targets)) * 10.0 ** rng.uniform(-6, 6, size=n_targets)
    weights = rng.uniform(0.1, 4, size=n) if weighted else np.ones(n)
    return X, Y, weights, rng.permutation(np.arange(n) % n_folds)


@QUICK
@given(
    st.integers(0, 2**31),
    st.integers(6, 40),
    st.integers(1, 50),
    st.sampled_from([2, 3, 5]),
    st.integers(1, 3),
    st.sampled_from([0.0, 1.0, 1e3]),
    st.booleans(),
    st.floats(-3, 6),
)
def test_any_shape_scale_offset_weight_and_penalty(
    seed, n, p, n_folds, n_targets, offset, weighted, log_penalty
) -> None:
    X, Y, weights, fold_of = drawn(seed, n, p, n_folds, n_targets, offset, weighted)
    assert_reference(X, Y, weights, fold_of, 10.0**log_penalty)


@QUICK
@given(st.integers(0, 2**31), st.integers(12, 40), st.integers(1, 50), st.floats(-3, 6))
def test_a_weight_is_a_number_of_rows(seed, n, p, log_penalty) -> None:
    X, Y, _, fold_of = drawn(seed, n, p, 3, 2, 1.0, False)
    counts = np.random.default_rng(seed).integers(0, 4, size=n)
    for fold in range(3):  # two rows of each fold stay
        counts[np.flatnonzero(fold_of == fold)[:2]] = 2
    of_row = np.repeat(np.arange(n), counts)
    weighted = FoldRidge(table_from_array(X), None, fold_of, Y, counts.astype(float), rests(3))
    repeated = FoldRidge(
        table_from_array(X[of_row]),
        None,
        fold_of[of_row],
        Y[of_row],
        np.ones(len(of_row)),
        rests(3),
    )
    scale = Y.std(axis=0)
    for fold, subset in enumerate(rests(3)):
        (one,), (other,) = (
            ridge.fit(subset, [10.0**log_penalty]) for ridge in (weighted, repeated)
        )
        np.testing.assert_allclose(one.predict(X) / scale, other.predict(X) / scale, atol=1e-7)
        errors = [ridge.errors(fold, [one])[0] / scale**2 for ridge in (weighted, repeated)]
        np.testing.assert_allclose(*errors, rtol=1e-6, atol=1e-6)


def singular(kind: str, rng, n_rows: int, n_columns: int) -> np.ndarray:
    X = rng.normal(size=(n_rows, n_columns))
    half = n_columns // 2
    if kind == "duplicated columns":
        X[:, half : 2 * half] = X[:, :half]
    elif kind == "mixed scales":
        X *= np.where(np.arange(n_columns) % 2, 1e-12, 1e8)
    elif kind == "linear dependence":
        X[:, half:] = X[:, :3] @ rng.normal(size=(3, n_columns - half))
    elif kind == "duplicated rows":
        X = X[np.arange(n_rows) % 7]
    return X


@pytest.mark.parametrize(
    "kind", ["duplicated columns", "mixed scales", "linear dependence", "duplicated rows"]
)
@pytest.mark.parametrize("n_columns", [12, 70])
@pytest.mark.parametrize(
    # The weaker the penalty, the more of rounding shows.
    ("penalty", "tolerance"),
    [(1.0, 1e-9), (1e-3, 1e-8), (1e-9, 1e-3)],
)
def test_singular_families(rng, kind: str, n_columns: int, penalty: float, tolerance) -> None:
    X = singular(kind, rng, 60, n_columns)
    Y = rng.normal(size=(60, 2)) + X[:, :1] / X[:, :1].std()
    assert_reference(X, Y, np.ones(60), np.arange(60) % 3, penalty, tolerance)


@pytest.mark.parametrize("n_columns", [2, 70])
def test_a_column_that_is_constant_where_it_is_trained_gets_no_weight(rng, n_columns: int) -> None:
    fold_of = np.arange(60) % 3
    X = rng.normal(size=(60, n_columns))
    # Far from the mean of all rows, because the rows trained on weigh little.
    X[:, 0] = np.where(fold_of == 0, X[:, 0] * 1e-3, 1000.1)
    weights = np.where(fold_of == 0, 1e6, 1.0)
    ridge = FoldRidge(table_from_array(X), None, fold_of, X[:, 1:2], weights, [(1, 2)])
    (model,) = ridge.fit((1, 2), [1e-3])
    assert model.coef[0] == 0
    (again,) = ridge.fit((1, 2), [1e-3])
    assert again.coef.tobytes() == model.coef.tobytes()  # nothing was used up


@pytest.mark.parametrize("n_columns", [5, 60])
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e8])
def test_columns_may_keep_their_scales(rng, n_columns: int, unit: float) -> None:
    X = unit * (rng.normal(size=(45, n_columns)) * rng.uniform(0.1, 10, size=n_columns) + 3)
    Y, fold_of, penalty = X[:, :1] / unit + rng.normal(size=(45, 2)), np.arange(45) % 3, 7.0
    weights = rng.uniform(0.5, 2, size=45)
    ridge = FoldRidge(table_from_array(X), None, fold_of, Y, weights, rests(3), scales=False)
    for fold, subset in enumerate(rests(3)):
        rows = fold_of != fold
        (model,) = ridge.fit(subset, [penalty * unit**2])
        expected = Ridge(penalty, solver="svd").fit(X[rows] / unit, Y[rows], weights[rows])
        np.testing.assert_allclose(model.predict(X), expected.predict(X / unit), atol=1e-8)
        square = weights[~rows] @ np.square(expected.predict(X[~rows] / unit) - Y[~rows])
        np.testing.assert_allclose(ridge.errors(fold, [model])[0], square, rtol=1e-8)


def test_workers_and_other_families_change_no_bit(rng) -> None:
    X = rng.normal(size=(4500, 9)).astype(np.float32)
    Y, weights, fold_of = rng.normal(size=(4500, 2)), np.ones(4500), np.arange(4500) % 3
    table = FeatureTable(X, {"a": slice(0, 4), "b": slice(4, 9)})
    alone = FoldRidge(table_from_array(X[:, 4:]), None, fold_of, Y, weights, rests(3))
    for n_jobs in (1, 2):
        ridge = FoldRidge(table, ("b",), fold_of, Y, weights, rests(3), n_jobs=n_jobs)
        for subset in rests(3):
            (model,), (expected,) = ridge.fit(subset, [1.0]), alone.fit(subset, [1.0])
            assert model.coef.tobytes() == expected.coef.tobytes()


@pytest.mark.parametrize("n_columns", [3, 30])
def test_a_constant_target_is_predicted(rng, n_columns: int) -> None:
    X, fold_of = rng.normal(size=(20, n_columns)), np.arange(20) % 2
    ridge = FoldRidge(
        table_from_array(X), None, fold_of, np.full((20, 1), 4.2), np.ones(20), rests(2)
    )
    for model in ridge.fit((1,), [1e-3, 1.0]):
        np.testing.assert_allclose(model.predict(X), 4.2, rtol=1e-12)
        assert ridge.errors(0, [model])[0, 0] < 1e-20


def test_weights_that_leave_nothing_to_train_on_are_told(rng) -> None:
    X, fold_of = rng.normal(size=(12, 2)), np.arange(12) % 3
    with pytest.raises(StackingError, match="one fold .* weight 0"):
        FoldRidge(table_from_array(X), None, fold_of, X, (fold_of == 0) * 1.0, rests(3))
