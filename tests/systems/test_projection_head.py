from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import StackingError
from xacle_stack.metrics import mse, srcc
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import (
    GroupedRidge,
    Stacker,
)
from xacle_stack.stacking.calibration import MonotoneCalibration
from xacle_stack.systems import ProjectionHeadRegressor, projection_head
from xacle_stack.systems.training import load_network, predict
from xacle_stack.table import FeatureTable, consecutive

torch = pytest.importorskip("torch")

LOSSES = ("mse", "listnet", "pairwise")
QUICK = ProjectionHeadRegressor(
    n_dims=16,
    dropout=0.0,
    learning_rate=0.03,
    warmup_epochs=0,
    epochs=10,
    batch_size=32,
    random_state=1,
)
BLOCKS = consecutive({"near/audio": 8, "near/text": 8, "noise/audio": 4, "noise/text": 6})


pytestmark = pytest.mark.usefixtures("one_thread")


@parametrize_with_checks(
    [clone(QUICK).set_params(loss=loss) for loss in ("mse", "pairwise")],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is drawn once, and not "
        "in two batches; a row of weight 0 is absent, as tested below"
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def quick(**settings) -> ProjectionHeadRegressor:
    return clone(QUICK).set_params(**settings)


def table(X) -> FeatureTable:
    return FeatureTable(X, BLOCKS)


@pytest.fixture
def problem(rng):
    """Return pairs in two spaces; the score is how near they are in half of the first one."""

    def make(n_pairs: int):
        audio = rng.normal(size=(n_pairs, 8))
        text = audio + rng.normal(size=(n_pairs, 8)) * rng.uniform(0.1, 1.5, (n_pairs, 1))
        text[:, 4:] = rng.normal(size=(n_pairs, 4)) * 2
        distance = np.square(audio - text)[:, :4].mean(axis=1)
        other = rng.normal(size=(n_pairs, 10))
        return np.hstack([audio, text, other]).astype(np.float32), 10 * np.exp(-distance)

    return make


@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_where_to_look(problem, loss: str) -> None:
    (X, y), (new, of_new) = problem(600), problem(300)
    model = quick(loss=loss, epochs=30).fit(table(X), y)
    predicted = model.predict(table(new))
    a, b = new[:, :8], new[:, 8:16]
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert srcc(of_new, predicted) > 0.5 > srcc(of_new, cosine) + 0.2
    assert srcc(of_new, GroupedRidge().fit(X, y).predict(new)) < 0.3
    # On the scale of the scores, whatever the loss knows of it.
    assert mse(of_new, predicted) < 0.8 * of_new.var()


def test_the_network_is_its_formula(rng) -> None:
    torch.manual_seed(0)
    network = projection_head._head([(5, 5), (4, 3)], 6, None, 0.3).eval()
    vectors = [rng.normal(size=(7, n)).astype(np.float32) for n in (5, 5, 4, 3)]
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    parts = []
    for space in range(2):
        a, b = (
            unit(
                unit(vectors[2 * space + side]) @ state[f"{tower}.{space}.weight"].T
                + state[f"{tower}.{space}.bias"]
            )
            for side, tower in enumerate(("audio", "text"))
        )
        parts += [(a * b).sum(1, keepdims=True), np.abs(a - b)]
    expected = np.hstack(parts) @ state["output.weight"][0] + state["output.bias"]
    with torch.no_grad():
        found = network(*map(torch.from_numpy, vectors)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Both towers of a common space begin as one.
    assert (state["audio.0.weight"] == state["text.0.weight"]).all()


def test_a_hidden_layer_is_one_more(problem) -> None:
    X, y = problem(60)
    X = table(X)
    linear = quick().fit(X, y)
    deep = quick(hidden=12).fit(X, y)
    widths = (8, 8, 4, 6)
    output = 2 * 17 + 1
    assert linear.n_parameters_ == sum(n * 16 + 16 for n in widths) + output
    assert deep.n_parameters_ == sum(n * 12 + 12 + 12 * 16 + 16 for n in widths) + output
    assert (linear.predict(X) != deep.predict(X)).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_round_trip_is_exact(problem, tmp_path: Path, loss: str) -> None:
    X, y = problem(60)
    X = table(X)
    model = quick(loss=loss, epochs=2).fit(X, y)
    loaded = load_model(save_model(tmp_path / "model.skops", model))
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()


def test_two_fits_are_equal_and_seeds_differ(problem) -> None:
    X, y = problem(60)
    X = table(X)
    settings = {"epochs": 2, "dropout": 0.3, "hidden": 8}
    one, two, other = (quick(**settings, random_state=s).fit(X, y).predict(X) for s in (1, 1, 2))
    assert one.tobytes() == two.tobytes()
    assert (one != other).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_alone_equals_together(problem, loss: str) -> None:
    X, y = problem(600)
    X = table(X)
    model = quick(loss=loss, epochs=2).fit(X, y)
    together = model.predict(X)
    alone = np.concatenate([model.predict(X[[row]]) for row in (0, 7, 599)])
    np.testing.assert_allclose(alone, together[[0, 7, 599]], rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_row_of_weight_zero_is_absent(problem, rng, loss: str) -> None:
    X, y = problem(60)
    weights = rng.integers(0, 3, size=60).astype(float)
    some = weights > 0
    model = quick(epochs=2, loss=loss)
    with_zeros = clone(model).fit(X, y, sample_weight=weights)
    without = clone(model).fit(X[some], y[some], sample_weight=weights[some])
    np.testing.assert_array_equal(with_zeros.predict(X), without.predict(X))
    plain = clone(model).fit(X[some], y[some])
    assert (plain.predict(X) != without.predict(X)).any()


def test_a_rank_loss_never_turns_the_order_round(problem) -> None:
    X, y = problem(60)
    new, of_new = problem(50)
    # Validation scores run against what is learned: the map is flat rather than falling.
    model = quick(loss="pairwise", epochs=8).fit(X, y, eval_set=(new, of_new))
    lowest_first = np.argsort(model.predict(new))
    against = np.empty(50)
    against[lowest_first] = np.arange(50)[::-1]
    model._finish(model.predict(new), against, np.ones(50))
    assert model.calibration_.slopes_.min() > 0


def test_equal_scores_are_predicted(problem) -> None:
    X, _ = problem(60)
    y = np.full(60, 4.0)
    for loss in ("listnet", "pairwise"):
        np.testing.assert_allclose(quick(loss=loss).fit(X, y).predict(X), 4, atol=0.01)
    trained, untrained = (
        np.abs(quick(epochs=20, learning_rate=rate).fit(X, y).predict(X) - 4).mean()
        for rate in (0.03, 1e-9)
    )
    assert trained < 0.1 < 0.2 < untrained


@pytest.mark.parametrize("loss", ["listnet", "pairwise"])
def test_the_calibration_weighs_the_validation_rows(problem, loss: str) -> None:
    X, y = problem(19)  # too few to hold any out
    weights = np.linspace(0.1, 3, 19)
    model = quick(loss=loss, epochs=2).fit(X, y, sample_weight=weights)
    network = load_network(model._build, model.weights_, "cpu")
    given = predict(network, model._inputs(model._read(X, reset=False), "cpu"), np.arange(19))
    expected = MonotoneCalibration().fit(given, y, weights)
    np.testing.assert_array_equal(model.calibration_.values_, expected.values_)
    assert (expected.values_ != MonotoneCalibration().fit(given, y).values_).any()


def test_the_calibration_gets_the_weights_of_its_rows(problem, monkeypatch) -> None:
    X, y = problem(60)
    model, seen = quick(loss="pairwise", epochs=1), []
    monkeypatch.setattr(model, "_finish", lambda *given: seen.append(given))
    model.fit(X, y, sample_weight=y + 1)
    model.fit(X, y, sample_weight=y + 1, eval_set=(X[:9], y[:9]))
    (_, scores, weights), (_, of_eval_set, ones) = seen
    assert len(scores) == 10
    np.testing.assert_array_equal(weights, scores + 1)
    np.testing.assert_array_equal(of_eval_set, y[:9])
    np.testing.assert_array_equal(ones, np.ones(9))


def test_it_is_a_learner_of_the_stack(problem) -> None:
    X, y = problem(90)
    stack = Stacker([("head", quick(epochs=3, loss="listnet"))], random_state=0).fit(X, y)
    assert stack.oof_predictions_.shape == (90, 1)
    assert np.isfinite(stack.predict(X)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "l1"}, r"loss .*\['mse', 'listnet', 'pairwise'\].* 'l1'"),
        ({"n_dims": 0}, r"n_dims .*got 0\b"),
        ({"hidden": 0}, r"hidden .*got 0\b"),
        ({"dropout": -0.1}, "dropout .*got -0.1"),
        ({"weight_decay": -0.1}, "weight_decay .*got -0.1"),
        ({"warmup_epochs": -1}, "warmup_epochs .*got -1"),
        ({"spaces": []}, r"spaces .* got \[\]"),
        ({"spaces": "near"}, "spaces .* got 'near'"),
        ({"spaces": [slice(0, 3)]}, "spaces .* got .*slice"),
        ({"spaces": ["near", "near"]}, "spaces .* once"),
    ],
)
def test_settings_are_checked(problem, settings, message: str) -> None:
    X, y = problem(30)
    for check in (quick(**settings).check_settings, lambda: quick(**settings).fit(X, y)):
        with pytest.raises(StackingError, match=message):
            check()


def test_spaces_are_found_by_name(problem) -> None:
    X, y = problem(60)
    settings = {"epochs": 2, "hidden": 3}
    halves = quick(**settings).fit(X[:, :16], y)
    named = quick(spaces=["near"], **settings).fit(table(X), y)
    np.testing.assert_array_equal(named.predict(table(X)), halves.predict(X[:, :16]))
    assert quick(**settings).fit(table(X), y).spaces_ == ("near", "noise")
