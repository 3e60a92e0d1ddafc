import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack._validation import group_labels
from xacle_stack.errors import StackingError
from xacle_stack.stacking import _shifted, fold_ridge
from xacle_stack.stacking.folds import split_folds
from xacle_stack.stacking.inputs import table_from_array
from xacle_stack.stacking.ridge import GroupedRidge, fit_blocks
from xacle_stack.table import FeatureTable

QUICK = settings(deadline=None, derandomize=True, max_examples=25)


@parametrize_with_checks(
    [GroupedRidge()],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "folds are drawn over rows: repeated rows "
        "fall into others; with groups that keep them together it holds, as tested below"
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def pipeline(penalty: float):
    return make_pipeline(StandardScaler(), Ridge(penalty, solver="svd"))


@pytest.mark.parametrize("shape", [(80, 6), (40, 70), (40, 30)])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_estimator_is_a_tuned_pipeline_of_scikit_learn(rng, shape, grouped: bool) -> None:
    X = rng.normal(size=shape) * rng.uniform(0.1, 10, size=shape[1]) + 5
    y = X[:, 0] + rng.normal(size=shape[0])
    groups = rng.integers(12, size=shape[0]) if grouped else None
    penalties = [1000.0, 0.1, 10.0]
    model = GroupedRidge(penalties).fit(X, y, groups)
    labels = None if groups is None else group_labels(len(y), groups)
    folds = split_folds(len(y), labels, 3, 0)
    errors = [
        np.mean((cross_val_predict(pipeline(penalty), X, y, cv=folds) - y) ** 2)
        for penalty in sorted(penalties)
    ]
    np.testing.assert_allclose(model.cv_mse_[:, 0], errors, rtol=1e-9)
    best = sorted(penalties)[int(np.argmin(errors))]
    assert model.penalty_ == [best]
    np.testing.assert_allclose(model.predict(X), pipeline(best).fit(X, y).predict(X), atol=1e-8)


def test_each_target_has_its_own_penalty(rng) -> None:
    X = rng.normal(size=(60, 40))
    Y = np.column_stack([X[:, 0], rng.normal(size=60)])
    both = GroupedRidge().fit(X, Y)
    assert both.penalty_[0] < both.penalty_[1]
    for column in range(2):
        alone = GroupedRidge().fit(X, Y[:, column])
        np.testing.assert_allclose(both.predict(X)[:, column], alone.predict(X), atol=1e-10)


def test_columns_may_keep_their_scales(rng) -> None:
    X = rng.normal(size=(60, 5)) * [1e-3, 1, 1, 1, 100]
    y = X @ [1000, 1, 1, 1, 0.01] + rng.normal(size=60)
    model = GroupedRidge([5.0], scales=False).fit(X, y)
    np.testing.assert_allclose(model.predict(X), Ridge(5.0).fit(X, y).predict(X), atol=1e-9)
    tiny = GroupedRidge([5.0e-24], scales=False).fit(X * 1e-12, y)
    np.testing.assert_allclose(tiny.predict(X * 1e-12), model.predict(X), atol=1e-9)


def test_of_equally_good_penalties_the_strongest_is_taken(rng) -> None:
    model = GroupedRidge([1.0, 10.0, 100.0]).fit(np.ones((30, 2)), rng.normal(size=30))
    assert model.penalty_ == [100.0]


def test_the_penalty_is_chosen_on_groups_held_out(rng) -> None:
    # Rows of a group are near copies: ungrouped folds see the answer and want no penalty.
    groups = np.repeat(np.arange(20), 5)
    X = rng.normal(size=(20, 60))[groups] + rng.normal(scale=1e-3, size=(100, 60))
    y = rng.normal(size=20)[groups]
    assert GroupedRidge().fit(X, y, groups).penalty_ > GroupedRidge().fit(X, y).penalty_


def test_constant_columns_get_no_weight(rng) -> None:
    X = rng.normal(size=(50, 4))
    X[:, 1] = 0.1
    X[:, 2] = 1e8 + 0.3
    model = GroupedRidge().fit(X, X[:, 0])
    assert model.coef_[1] == model.coef_[2] == 0
    assert np.isfinite(model.predict(X + 1)).all()


@pytest.mark.parametrize("n_columns", [5, 60])
def test_a_weight_is_a_number_of_rows(rng, n_columns: int) -> None:
    groups = np.repeat(np.arange(20), 2)
    X, y = rng.normal(size=(40, n_columns)), rng.normal(size=40)
    weights = rng.integers(0, 4, size=40)
    weights[::2] = np.maximum(weights[::2], 1)  # every group stays
    penalties = [0.1, 10.0, 1000.0]
    weighted = GroupedRidge(penalties).fit(X, y, groups, weights)
    repeated = np.repeat(np.arange(40), weights)
    repeated = GroupedRidge(penalties).fit(X[repeated], y[repeated], groups[repeated])
    np.testing.assert_allclose(weighted.cv_mse_, repeated.cv_mse_, rtol=1e-8)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(weighted.predict(X), repeated.predict(X), atol=1e-9)
    assert (weighted.penalty_ == repeated.penalty_).all()
    plain = GroupedRidge(penalties).fit(X, y, groups)
    ones = GroupedRidge(penalties).fit(X, y, groups, np.ones(40, dtype=int))
    assert ones.coef_.tobytes() == plain.coef_.tobytes()


@pytest.mark.parametrize("n_columns", [5, 60])
def test_any_layout_and_type_of_the_values(rng, n_columns: int) -> None:
    X = rng.integers(-20, 20, size=(40, n_columns)).astype(float)
    y = rng.integers(0, 11, size=40)
    expected = GroupedRidge().fit(X, y).predict(X)
    wide = np.empty((80, 2 * n_columns))
    wide[::2, ::2] = X
    for other in (
        X.astype(np.float16),
        X.astype(np.float32),
        X.astype(np.int8),
        np.asfortranarray(X),
        wide[::2, ::2],
        X[::-1][::-1],
        X.tolist(),
    ):
        predicted = GroupedRidge().fit(other, y.tolist()).predict(other)
        np.testing.assert_allclose(predicted, expected, rtol=1e-9)
    frame = pd.DataFrame(X, columns=[f"column {i}" for i in range(n_columns)])
    np.testing.assert_allclose(GroupedRidge().fit(frame, y).predict(frame), expected, rtol=1e-9)


def test_degenerate_data(rng) -> None:
    X, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    np.testing.assert_allclose(GroupedRidge().fit(X, np.full(30, 3.0)).predict(X), 3.0)
    np.testing.assert_allclose(GroupedRidge().fit(np.ones((30, 4)), y).predict(X), y.mean())
    assert np.isfinite(GroupedRidge().fit(X[:, :1], y).predict(X[:, :1])).all()
    assert np.isfinite(GroupedRidge().fit(X[:2], y[:2]).predict(X)).all()  # fewer rows than folds
    groups = [0] * 28 + [1, 2]  # one larger than a fold
    assert np.isfinite(GroupedRidge().fit(X, y, groups).predict(X)).all()
    thrice = np.arange(30) % 10
    assert np.isfinite(GroupedRidge().fit(X[thrice], y[thrice]).predict(X)).all()


def test_bad_settings_are_told(rng) -> None:
    X, y = rng.normal(size=(9, 2)), rng.normal(size=9)
    for penalties in ([], [0.0], [-1.0], [np.inf], [np.nan]):
        with pytest.raises(StackingError, match="penalties .*above 0"):
            GroupedRidge(penalties).fit(X, y)
    with pytest.raises(StackingError, match="2 folds .* 2 groups"):
        GroupedRidge().fit(X, y, groups=["same"] * 9)
    with pytest.raises(ValueError, match="minimum of 2 is required"):
        GroupedRidge().fit(X[:1], y[:1])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0] * 3, r"9 pairs.* \(3,\) .*float64"),
        ([[1.0]] * 9, r"got shape \(9, 1\)"),
        (["1"] * 9, r"of type <U1"),
        (
            [1.0] * 7 + [-1.0] * 2,
            "2 weights .*negative .* -1.0 in row 7",
        ),
        ([1.0] * 8 + [np.nan], "1 weights .*finite, .* nan in row 8"),
        ([np.inf] + [1.0] * 8, "inf in row 0"),
        ([0.0] * 9, "weights .*zero"),
    ],
)
def test_bad_weights_are_told(rng, weights, message: str) -> None:
    with pytest.raises(StackingError, match=message):
        GroupedRidge().fit(rng.normal(size=(9, 2)), rng.normal(size=9), sample_weight=weights)


def search(X, Y, weights, fold_of, penalties, labels=None):
    """Return out-of-fold predictions and penalties from an explicit search, model by model."""

    def predicted(penalty: float, rows, on, Y):
        """Return the predictions of all targets; each is as if it were alone."""
        given = {f"{s}__sample_weight": weights[rows] for s in ("standardscaler", "ridge")}
        return pipeline(penalty).fit(X[rows], Y[rows], **given).predict(X[on])

    n_folds = int(fold_of.max()) + 1
    oof, chosen = np.empty(Y.shape[1:]), np.empty((n_folds, Y.shape[2]))
    for fold in range(n_folds):
        rest = fold_of != fold
        judged = [(rest & (fold_of != j), fold_of == j) for j in range(n_folds) if j != fold]
        if n_folds == 2:
            rows = np.flatnonzero(rest)
            of_rows = None if labels is None else labels[rows]
            judged = [(rows[a], rows[b]) for a, b in split_folds(len(rows), of_rows, 2, 0)]
        errors = [
            sum(
                weights[on] @ np.square(predicted(penalty, train, on, Y[fold]) - Y[fold, on])
                for train, on in judged
            )
            for penalty in penalties
        ]
        chosen[fold] = np.array(penalties)[np.argmin(errors, axis=0)]
        for target, penalty in enumerate(chosen[fold]):
            oof[~rest, target] = predicted(penalty, rest, ~rest, Y[fold])[:, target]
    return oof, chosen


@pytest.mark.parametrize("n_folds", [2, 3, 5])
@pytest.mark.parametrize("n_columns", [6, 80, 30])
@pytest.mark.parametrize("grouped", [False, True])
def test_a_family_is_an_explicit_search(rng, n_columns: int, n_folds: int, grouped: bool) -> None:
    X = rng.normal(size=(48, n_columns)) * 10.0 ** rng.uniform(-3, 3, size=n_columns) + 1
    signal = X[:, 0] / X[:, 0].std()
    Y = np.stack([signal[:, np.newaxis] + rng.normal(size=(48, 3)) * [0.1, 1, 9]] * n_folds)
    Y[:, :, 1] += rng.normal(size=(n_folds, 48)) * 0.1  # targets differ from fold to fold
    labels = np.repeat(np.arange(16), 3) if grouped else None
    folds = split_folds(48, labels, n_folds, 0)
    fold_of = np.concatenate([np.full(len(held), k) for k, (_, held) in enumerate(folds)])
    fold_of = fold_of[np.argsort(np.concatenate([held for _, held in folds]))]
    weights = rng.integers(1, 4, size=48).astype(float)
    penalties = [0.1, 30.0, 3000.0]
    table = FeatureTable(
        np.hstack([np.ones((48, 2)), X]),
        {"other": slice(0, 2), "family": slice(2, 2 + n_columns)},
    )
    oof, model, chosen = fit_blocks(table, ("family",), folds, labels, Y, weights, penalties)
    expected, expected_chosen = search(X, Y, weights, fold_of, penalties, labels)
    np.testing.assert_array_equal(chosen, expected_chosen)
    assert len(np.unique(chosen)) > 1
    np.testing.assert_allclose(oof, expected, atol=1e-7)
    by_fold = []
    for fold in range(n_folds):
        rows = fold_of != fold
        given = {f"{s}__sample_weight": weights[rows] for s in ("standardscaler", "ridge")}
        by_fold.append(
            np.column_stack(
                [
                    pipeline(chosen[fold, t]).fit(X[rows], Y[fold, rows, t], **given).predict(X)
                    for t in range(3)
                ]
            )
        )
    np.testing.assert_allclose(model.predict(X), np.mean(by_fold, axis=0), atol=1e-7)


@QUICK
@given(
    st.integers(0, 2**31),
    st.integers(6, 40),
    st.integers(1, 50),
    st.sampled_from([2, 3, 5]),
    st.booleans(),
    st.floats(-3, 6),
)
def test_a_family_of_any_shape(seed, n, p, n_folds, weighted, log_penalty) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * 10.0 ** rng.uniform(-12, 8, size=p)
    Y = np.stack([rng.normal(size=(n, 2))] * n_folds)
    weights = rng.uniform(0.1, 3, size=n) if weighted else np.ones(n)
    folds = split_folds(n, None, n_folds, seed)
    fold_of = np.empty(n, dtype=int)
    for fold, (_, held_out) in enumerate(folds):
        fold_of[held_out] = fold
    penalty = 10.0**log_penalty
    oof, _, _ = fit_blocks(table_from_array(X), None, folds, None, Y, weights, [penalty])
    expected, _ = search(X, Y, weights, fold_of, [penalty])
    np.testing.assert_allclose(oof, expected, atol=1e-6)


@pytest.mark.parametrize("n_folds", [2, 3])
@pytest.mark.parametrize("n_columns", [5, 60])
def test_a_weight_in_a_family_is_a_number_of_rows(rng, n_columns: int, n_folds: int) -> None:
    groups = np.repeat(np.arange(18), 2)
    X, y = rng.normal(size=(36, n_columns)), rng.normal(size=36)
    weights = rng.integers(0, 4, size=36)
    weights[::2] = np.maximum(weights[::2], 1)
    repeated = np.repeat(np.arange(36), weights)
    results = []
    for rows, w in ((np.arange(36), weights.astype(float)), (repeated, np.ones(len(repeated)))):
        labels = group_labels(len(rows), groups[rows])
        folds = split_folds(len(rows), labels, n_folds, 0)
        Y = np.stack([y[rows, np.newaxis]] * n_folds)
        columns = table_from_array(X[rows])
        results.append(fit_blocks(columns, None, folds, labels, Y, w, [0.1, 10.0, 1000.0]))
    (oof, model, chosen), (oof_of_repeated, other, also_chosen) = results
    np.testing.assert_array_equal(chosen, also_chosen)
    np.testing.assert_allclose(oof[repeated], oof_of_repeated, atol=1e-8)
    np.testing.assert_allclose(model.predict(X), other.predict(X), atol=1e-8)


def nasty(seed: int) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Return a table, targets and penalties of a kind that the seed decides."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(60, 200)), int(rng.integers(20, 300))
    X = rng.normal(size=(n, p))
    kind = seed % 8
    if kind == 1:  # nearly of low rank
        rank = int(rng.integers(1, 30))
        X = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, p)) + 1e-3 * X
    elif kind == 2:
        X[:, p // 2 : 2 * (p // 2)] = X[:, : p // 2]
    elif kind == 3:
        X = X * 10.0 ** rng.uniform(-3, 6, size=p) + 10.0 ** rng.uniform(-3, 5, size=p)
    elif kind == 4:  # rows that repeat
        X = X[np.arange(n) % (n // 3)]
    elif kind == 5:  # heavy tails
        X = np.exp(3 * X)
    elif kind == 6:  # a spectrum that falls
        X = X * np.arange(1, p + 1) ** -1.5 @ np.linalg.qr(rng.normal(size=(p, p)))[0]
    elif kind == 7:
        X = np.sign(X) + 50
    if seed % 3:
        X = X.astype(np.float32)
    Z = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-30)
    y = Z.astype(float) @ rng.normal(size=(p, 1)) * 10.0 ** rng.uniform(-3, 0)
    y += rng.normal(size=(n, 1)) * 10.0 ** rng.uniform(-2, 2)
    Y = np.hstack([y, rng.normal(size=(n, 1)), np.tanh(y)])
    return X, Y, np.logspace([-2, -1, 0][seed % 3], 6, 13).tolist()


@pytest.mark.parametrize("seed", range(24))
def test_float32_and_the_band_choose_the_penalties_of_the_exact_grid(monkeypatch, seed) -> None:
    X, Y, penalties = nasty(seed)
    folds = split_folds(len(X), None, 3, seed)
    given = (table_from_array(X), None, folds, None, np.stack([Y] * 3), np.ones(len(X)), penalties)
    monkeypatch.setattr(_shifted, "_BAND", 8)
    results = []
    for fewest_rows in (10**9, 20):
        monkeypatch.setattr(fold_ridge, "_MIN_FLOAT32", fewest_rows)
        monkeypatch.setattr(_shifted, "_MIN_BAND_ROWS", fewest_rows)
        results.append(fit_blocks(*given))
    (oof, model, chosen), (coarse_oof, coarse_model, coarse_chosen) = results
    np.testing.assert_array_equal(coarse_chosen, chosen)
    np.testing.assert_allclose(coarse_oof / Y.std(axis=0), oof / Y.std(axis=0), atol=1e-8)
    np.testing.assert_allclose(
        coarse_model.coef * X.std(axis=0)[:, np.newaxis],
        model.coef * X.std(axis=0)[:, np.newaxis],
        atol=1e-8 * Y.std(),
    )


def test_the_workers_change_no_bit_of_a_family(rng) -> None:
    X, Y = rng.normal(size=(60, 20)), rng.normal(size=(3, 60, 2))
    folds = split_folds(60, None, 3, 0)
    given = (table_from_array(X), None, folds, None, Y, np.ones(60), [1.0, 10.0])
    (oof, model, _), (same, again, _) = (fit_blocks(*given, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert oof.tobytes() == same.tobytes()
    assert model.coef.tobytes() == again.coef.tobytes()
