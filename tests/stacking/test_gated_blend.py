import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.metrics import srcc
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import GatedBlend, GroupedRidge, Stacker
from xacle_stack.stacking.gated_blend import gate_loss
from xacle_stack.stacking.ridge import META_PENALTIES
from xacle_stack.table import FeatureTable


@parametrize_with_checks(
    [GatedBlend(penalties=[10.0])],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "folds are drawn over rows: repeated rows "
        "are drawn otherwise"
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def sides(rng, n_pairs: int = 400):
    """Return three predictions, scores and a context that says which of them is right."""
    truth, side = rng.normal(size=n_pairs), rng.choice([-1.0, 1.0], size=(n_pairs, 1))
    noise = rng.normal(size=(n_pairs, 2)) * np.column_stack([side > 0, side < 0])
    third = 0.1 * truth + 0.5 * rng.normal(size=n_pairs)
    return np.column_stack([truth[:, np.newaxis] + noise, third]), 2 * truth + 5, side


def test_the_gradient_is_that_of_finite_differences(rng) -> None:
    u, z, gate = rng.normal(size=(30, 4)), rng.normal(size=(30, 3)), 0.5 * rng.normal(size=12)
    rest = (u, z, rng.normal(size=30), rng.uniform(0, 2, size=30), 0.7)
    _, gradient = gate_loss(gate, *rest)
    expected = approx_fprime(gate, lambda one: gate_loss(one, *rest)[0], 1e-7)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


def test_a_prediction_is_the_ridges_with_weights_that_the_gate_has_moved(rng) -> None:
    X, y, side = sides(rng)
    weights = rng.uniform(0.5, 2, size=len(y))
    model = GatedBlend(penalties=[3.0]).fit(X, y, sample_weight=weights, context=side)
    mean = np.average(X, axis=0, weights=weights)
    u = (X - mean) / np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    z = np.column_stack([side, u.mean(axis=1), u.std(axis=1)])
    z = z - np.average(z, axis=0, weights=weights)
    z /= np.sqrt(np.average(z**2, axis=0, weights=weights))
    moved = np.exp(z @ model.gate_.T)
    moved = moved / moved.sum(axis=1, keepdims=True) - 1 / 3
    ridge = GroupedRidge(META_PENALTIES).fit(X, y, sample_weight=weights)
    scale = np.sqrt(np.average((y - np.average(y, weights=weights)) ** 2, weights=weights))
    predicted = model.predict(X, side)
    np.testing.assert_allclose(predicted, ridge.predict(X) + scale * (moved * u).sum(axis=1))
    parts = model.contributions(X, side)
    np.testing.assert_allclose(np.ptp(predicted - parts.sum(axis=1)), 0, atol=1e-9)


def test_a_gate_that_sees_which_learner_is_right_is_better_than_one_weight_for_all(rng) -> None:
    X, y, side = sides(rng)
    new, truth, new_side = sides(rng)
    model = GatedBlend().fit(X, y, context=side)
    ridge = GroupedRidge(META_PENALTIES).fit(X, y)
    assert srcc(truth, model.predict(new, new_side)) > 0.98 > srcc(truth, ridge.predict(new)) + 0.05
    assert model.cv_mse_.argmin() == list(model.penalties).index(model.penalty_)
    # On the first side the second learner is right.
    parts = model.contributions(new, new_side)
    first = new_side[:, 0] > 0
    np.testing.assert_array_less(np.abs(parts[first, 0]).mean(), np.abs(parts[first, 1]).mean())


def test_without_anything_to_learn_it_is_the_ridge(rng) -> None:
    X = rng.normal(size=(200, 3))
    y = X.sum(axis=1) + rng.normal(size=200)
    model = GatedBlend(penalties=[1e12]).fit(X, y, context=rng.normal(size=(200, 2)))
    ridge = GroupedRidge(META_PENALTIES).fit(X, y)
    np.testing.assert_allclose(model.predict(X, np.ones((200, 2))), ridge.predict(X), rtol=1e-6)
    # With many columns of noise and no penalty to speak of, the ridge alone is better.
    noise = rng.normal(size=(200, 60))
    alone = GatedBlend(penalties=[1e-6]).fit(X, y, context=noise)
    assert alone.cv_mse_[0] > alone.cv_mse_[1]
    assert alone.penalty_ == np.inf
    assert not alone.gate_.any()
    np.testing.assert_allclose(alone.predict(X, noise), ridge.predict(X))
    np.testing.assert_allclose(alone.coef_, ridge.coef_)


def test_a_constant_learner_and_a_constant_context_change_nothing(rng) -> None:
    X, y, side = sides(rng, 150)
    with_constant = GatedBlend().fit(X, y, context=np.column_stack([side, np.full(150, 0.3)]))
    without = GatedBlend().fit(X, y, context=side)
    new = np.column_stack([side, rng.normal(size=150)])
    np.testing.assert_allclose(with_constant.predict(X, new), without.predict(X, side), rtol=1e-4)
    zeroed = X * [1, 1, 0]
    model = GatedBlend().fit(zeroed, y, context=side)
    np.testing.assert_allclose(model.predict(X, side), model.predict(zeroed, side))


def test_rows_are_predicted_alone_as_together(rng) -> None:
    X, y, side = sides(rng, 100)
    model = GatedBlend(penalties=[1.0]).fit(X, y, context=side)
    alone = [model.predict(X[[row]], side[[row]])[0] for row in range(5)]
    np.testing.assert_allclose(alone, model.predict(X, side)[:5])


@pytest.mark.parametrize("context", [None, np.zeros((50, 2)), np.zeros((49, 1))])
def test_another_context_than_in_fit_is_told(rng, context) -> None:
    X, y, side = sides(rng, 50)
    model = GatedBlend(penalties=[1.0]).fit(X, y, context=side)
    with pytest.raises(StackingError, match=r"context has shape .*, expected \(50, 1\)"):
        model.predict(X, context)
    with pytest.raises(ValueError, match="context contains NaN"):
        model.fit(X, y, context=side * np.nan)


def table_of(rng, n_pairs: int) -> tuple[FeatureTable, np.ndarray]:
    """Return features of two learners, one of which is right; the cosines say which."""
    X, y, side = sides(rng, n_pairs)
    blocks = {"one": slice(0, 3), "agreement/cosines": slice(3, 4)}
    families = {"one": ("one",), "agreement": ("agreement/cosines",)}
    return FeatureTable(np.column_stack([X, side]), blocks, families=families), y


@pytest.mark.parametrize("target", ["score", "rank"])
def test_a_stack_with_a_gate_is_fitted_explained_and_saved(rng, tmp_path, target: str) -> None:
    table, y = table_of(rng, 150)
    stack = Stacker(preset="paper", meta="gate", target=target, random_state=0).fit(table, y)
    assert isinstance(stack.meta_, GatedBlend)
    assert stack.meta_.gate_.shape == (len(stack.level0_names_), 1 + 2)
    new, _ = table_of(rng, 60)
    level0 = stack.transform(new)
    np.testing.assert_array_equal(stack.meta_predict(level0, new), stack.predict(new))
    with pytest.raises(StackingError, match=r"GatedBlend, looks at the pairs.*features as X"):
        stack.meta_predict(level0)
    explained = stack.explain(table, y)
    total = sum(one.share for one in explained.learners)
    assert total == pytest.approx(1, abs=1e-6)
    assert explained.oof_srcc == srcc(y, stack.meta_predict(stack.oof_predictions_, table))
    save_model(tmp_path / "stack.skops", stack)
    loaded = load_model(tmp_path / "stack.skops")
    np.testing.assert_array_equal(loaded.predict(new), stack.predict(new))
    _, low, high = loaded.predict_interval(new)
    assert (low <= high).all()


def test_out_of_fold_scores_of_a_gate_have_not_seen_the_pair(rng) -> None:
    table, y = table_of(rng, 90)
    stack = Stacker(preset="paper", meta="gate", score_range=None, random_state=0).fit(table, y)
    held_out = stack.folds_ == 1
    meta = GatedBlend().fit(
        stack.oof_predictions_[~held_out], y[~held_out], context=table.values[~held_out, 3:]
    )
    expected = meta.predict(stack.oof_predictions_[held_out], table.values[held_out, 3:])
    np.testing.assert_allclose(stack.oof_scores_[held_out], expected, rtol=1e-6)


def test_a_stack_on_an_array_gates_by_the_learners_alone(rng) -> None:
    X, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    stack = Stacker(preset="paper", meta="gate", random_state=0).fit(X, y)
    assert stack.meta_.gate_.shape == (3, 2)
    assert np.isfinite(stack.predict(X)).all()
    with pytest.raises(StackingError, match=r"meta must be one of \['ridge', 'gate'\], got 'gat'"):
        clone(stack).set_params(meta="gat").fit(X, y)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("gate_", np.zeros((2, 3)), r"gate_ has shape \(2, 3\)"),
        ("gate_", np.zeros((3, 1)), "gate_ has 1 columns"),
        ("factor_", np.full(3, np.inf), "factor_ holds NaN or infinity"),
        ("input_mean_", np.zeros(4), r"input_mean_ has shape \(4,\), expected \(3,\)"),
        ("scale_", "one", "scale_ is of type str"),
        ("ridge_", 3, "ridge_ is no ridge"),
    ],
)
def test_a_state_that_is_no_blend_is_refused(rng, name: str, value: object, message: str) -> None:
    X, y, side = sides(rng, 50)
    model = GatedBlend(penalties=[1.0]).fit(X, y, context=side)
    model.check_state()
    setattr(model, name, value)
    with pytest.raises(ModelFileError, match=message):
        model.check_state()
