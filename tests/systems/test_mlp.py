from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import StackingError
from xacle_stack.metrics import mse, srcc
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import Stacker
from xacle_stack.systems import VectorMLPRegressor
from xacle_stack.systems.plan import TrainingPlan
from xacle_stack.table import FeatureTable, consecutive

torch = pytest.importorskip("torch")

QUICK = VectorMLPRegressor(
    hidden=16, projection=8, dropout=0.0, learning_rate=0.01, batch_size=32, random_state=0
)
BLOCKS = consecutive({"near/audio": 3, "near/text": 3, "other/audio": 2, "other/text": 4})

pytestmark = pytest.mark.usefixtures("one_thread")


@parametrize_with_checks(
    [clone(QUICK).set_params(batch_size=16, learning_rate=0.02)],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is drawn once, and it "
        "is one row to the balance of the scores",
        "check_methods_subset_invariance": "float32 products of other shapes differ by about 1e-6, "
        "as tested below",
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def quick(**settings) -> VectorMLPRegressor:
    return clone(QUICK).set_params(**settings)


def problem(rng, n_pairs: int) -> tuple[FeatureTable, np.ndarray]:
    """Return pairs whose score says how near their vectors' directions are in one space."""
    audio = rng.normal(size=(n_pairs, 3))
    text = audio + rng.normal(size=(n_pairs, 3))
    lengths = np.linalg.norm(audio, axis=1) * np.linalg.norm(text, axis=1)
    scores = 5 + 5 * (audio * text).sum(axis=1) / lengths
    return FeatureTable(np.hstack([audio, text, rng.normal(size=(n_pairs, 6))]), BLOCKS), scores


def test_it_learns_the_angle(rng) -> None:
    (X, y), (new, of_new) = problem(rng, 600), problem(rng, 300)
    predicted = quick(hidden=64, epochs=40, patience=None).fit(X, y).predict(new)
    assert srcc(of_new, predicted) > 0.6
    assert mse(of_new, predicted) < 0.7 * of_new.var()


def test_the_network_is_its_formula(rng) -> None:
    model = quick()
    model.widths_ = [(3, 3), (2, 4)]
    network = model._build().eval()
    vectors = [torch.from_numpy(rng.normal(size=(7, n)).astype(np.float32)) for n in (3, 3, 2, 4)]
    first, second, last = (x for x in network.layers if isinstance(x, torch.nn.Linear))
    with torch.no_grad():
        x = torch.cat([v / v.norm(dim=1, keepdim=True) for v in vectors], dim=1)
        x = (x @ first.weight.T + first.bias).clamp(min=0)
        x = (x @ second.weight.T + second.bias).clamp(min=0)
        expected = (x @ last.weight.T + last.bias)[:, 0]
        torch.testing.assert_close(network(*vectors), expected)


def test_the_loss_is_its_formula(rng) -> None:
    predicted, target = rng.normal(size=(2, 12))
    weights = rng.uniform(0.5, 2, size=12)
    off = predicted - target
    clipped = np.average(np.where(np.abs(off) > 0.25, off**2, 0), weights=weights)
    i, j = np.nonzero(~np.eye(12, dtype=bool))
    excess = np.maximum(0, np.abs(off[i] - off[j]) - 0.1)
    contrastive = np.average(excess, weights=np.sqrt(weights[i] * weights[j]))
    tensors = [torch.from_numpy(values) for values in (predicted, target, weights)]
    assert float(QUICK._loss(*tensors)) == pytest.approx(clipped + 0.5 * contrastive)
    np.testing.assert_allclose(QUICK._targets(np.array([0.0, 5.0, 10.0])), [-1, 0, 1])
    np.testing.assert_allclose(QUICK._to_scores(np.array([-1.0, 0.0, 1.0])), [0, 5, 10])
    # One score from 0 to 1, and two above 9: βⁿ with β = .99.
    balanced = QUICK._score_weights(np.array([1.0, 9.5, 10.0, 5.0]), np.array([0, 1, 2]))
    assert balanced[0] / balanced[1] == pytest.approx((1 - 0.99**2) / (1 - 0.99))


def test_the_defaults_are_the_published_configuration() -> None:
    model = VectorMLPRegressor()
    assert model._plan() == TrainingPlan(
        epochs=20,
        batch_size=12,
        learning_rate=2e-5,
        optimizer="adam",
        weight_decay=1e-5,
        schedule="plateau",
        plateau_patience=5,
        patience=10,
    )
    model.widths_ = [(768, 768)]
    layers = [type(layer).__name__ for layer in model._build().layers]
    assert layers == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    shapes = [tuple(array.shape) for array in model._build().parameters()]
    assert shapes == [(1024, 1536), (1024,), (256, 1024), (256,), (1, 256), (1,)]
    assert model._build().layers[2].p == 0.3


def test_only_the_directions_of_vectors_count(rng) -> None:
    X, y = problem(rng, 60)
    longer = FeatureTable(X.values * np.repeat([2, 3, 4, 5], [3, 3, 2, 4]), BLOCKS)
    model = quick(epochs=2).fit(X, y)
    np.testing.assert_allclose(model.predict(longer), model.predict(X), rtol=1e-5)


def test_spaces_are_found_by_name(rng) -> None:
    X, y = problem(rng, 60)
    assert quick(epochs=2).fit(X, y).spaces_ == ("near", "other")
    named = quick(epochs=2, spaces=["near"]).fit(X, y)
    halves = quick(epochs=2).fit(X.values[:, :6], y)
    np.testing.assert_array_equal(named.predict(X), halves.predict(X.values[:, :6]))


def test_alone_equals_together(rng) -> None:
    X, y = problem(rng, 600)
    model = quick(epochs=2).fit(X, y)
    alone = np.concatenate([model.predict(X[[row]]) for row in (0, 7, 599)])
    np.testing.assert_allclose(alone, model.predict(X)[[0, 7, 599]], rtol=1e-5)


def test_it_is_saved_loaded_and_reproducible(rng, tmp_path: Path) -> None:
    X, y = problem(rng, 60)
    model, again, other = (
        quick(epochs=2, dropout=0.3, random_state=seed).fit(X, y) for seed in (1, 1, 2)
    )
    loaded = load_model(save_model(tmp_path / "mlp.skops", model))
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert (other.predict(X) != model.predict(X)).any()


def test_it_is_a_learner_of_the_stack(rng) -> None:
    X, y = problem(rng, 60)
    stack = Stacker([("mlp", quick(epochs=2))], n_splits=2, random_state=0).fit(X, y)
    assert np.isfinite(stack.predict(X)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, r"hidden .*got 0\b"),
        ({"projection": 2.5}, r"projection .*got 2.5"),
        ({"dropout": 1}, r"dropout .*got 1\b"),
        ({"optimizer": "sgd"}, "optimizer .*'adamw'.* 'sgd'"),
        ({"batch_size": 0}, r"batch_size .*got 0\b"),
        ({"patience": 0}, r"patience .*got 0\b"),
        ({"spaces": []}, r"spaces .* got \[\]"),
        ({"spaces": "near"}, "spaces .* got 'near'"),
        ({"spaces": 3}, r"spaces .* got 3\b"),
        ({"spaces": ["near", "near"]}, "spaces .* once"),
    ],
)
def test_settings_are_checked(rng, settings, message: str) -> None:
    model = quick(**settings)
    for check in (model.check_settings, lambda: model.fit(*problem(rng, 30))):
        with pytest.raises(StackingError, match=message):
            check()
