from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import StackingError
from xacle_stack.features import PairSequences
from xacle_stack.metrics import srcc
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import (
    Stacker,
)
from xacle_stack.systems import LSTMRegressor, lstm
from xacle_stack.systems.losses import class_balance_weights
from xacle_stack.systems.plan import TrainingPlan

torch = pytest.importorskip("torch")

QUICK = LSTMRegressor(
    hidden=8, mlp=16, dropout=0.0, learning_rate=0.02, epochs=8, batch_size=16, random_state=0
)


pytestmark = pytest.mark.usefixtures("one_thread")


@parametrize_with_checks(
    [QUICK],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is drawn once, and it "
        "is one row to the balance of the scores",
        "check_methods_subset_invariance": "float32 products of other shapes differ by about 1e-6, "
        "as tested below",
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@pytest.fixture
def problem(rng):
    """Return sequences whose score is how near the last frame is to the caption, 0–10."""

    def make(n_pairs: int) -> tuple[PairSequences, np.ndarray]:
        frames = [rng.normal(size=(rng.integers(1, 6), 3)) for _ in range(n_pairs)]
        text = rng.normal(size=(n_pairs, 3))
        last = np.array([sequence[-1] for sequence in frames])
        return PairSequences(frames, text), 10 * np.exp(-np.square(last - text).mean(axis=1))

    return make


def test_it_learns_from_sequences(problem) -> None:
    (X, y), (new, of_new) = problem(300), problem(200)
    model = clone(QUICK).set_params(hidden=16, epochs=25).fit(X, y)
    assert srcc(of_new, model.predict(new)) > 0.4


def test_the_network_is_its_formula(rng) -> None:
    network = lstm._frame_network(5, 4, 6, 0.5).eval()
    frames = torch.from_numpy(rng.normal(size=(2, 3, 3)).astype(np.float32))
    text = torch.from_numpy(rng.normal(size=(2, 2)).astype(np.float32))
    with torch.no_grad():
        found = network(frames, text, torch.tensor([3, 2]))
        for row, length in enumerate((3, 2)):
            steps = torch.cat([frames[row, :length], text[row].expand(length, 2)], dim=1)
            outputs, _ = network.lstm(steps[None])
            expected = network.mlp((outputs[0, 0] + outputs[0, -1]) / 2)
            assert found[row] == pytest.approx(float(expected), abs=1e-6)


def test_a_clip_alone_is_the_clip_among_longer_ones(problem) -> None:
    X, y = problem(60)
    model = clone(QUICK).set_params(epochs=2).fit(X, y)
    together = model.predict(X)
    alone = [
        model.predict(PairSequences([frames], text[np.newaxis]))[0] for frames, text in list(X)[:9]
    ]
    np.testing.assert_allclose(alone, together[:9], atol=1e-5)


def test_the_loss_is_its_formula(rng) -> None:
    predicted, target = rng.normal(size=(2, 12))
    weights = class_balance_weights(5 + 5 * target)
    tensors = [torch.from_numpy(values) for values in (predicted, target, weights)]
    error = predicted - target
    clipped = (weights * error**2 * (np.abs(error) > 0.25)).sum() / weights.sum()
    off = np.abs(np.subtract.outer(predicted, predicted) - np.subtract.outer(target, target))
    pair_weights = np.sqrt(np.outer(weights, weights))
    np.fill_diagonal(pair_weights, 0)
    contrastive = (pair_weights * np.maximum(0, off - 0.1)).sum() / pair_weights.sum()
    assert float(QUICK._loss(*tensors)) == pytest.approx(clipped + 0.5 * contrastive)
    np.testing.assert_allclose(QUICK._targets(np.array([0.0, 5.0, 10.0])), [-1, 0, 1])
    np.testing.assert_allclose(QUICK._to_scores(np.array([-1.0, 0.0, 1.0])), [0, 5, 10])


def test_it_is_saved_loaded_and_reproducible(problem, tmp_path: Path) -> None:
    X, y = problem(60)
    model = clone(QUICK).set_params(epochs=2).fit(X, y)
    again = clone(QUICK).set_params(epochs=2).fit(X, y)
    path = save_model(tmp_path / "lstm.skops", model)
    np.testing.assert_array_equal(model.predict(X), again.predict(X))
    np.testing.assert_array_equal(model.predict(X), load_model(path).predict(X))


def test_it_is_a_level_0_learner(rng) -> None:
    X = rng.normal(size=(60, 6))
    quick = clone(QUICK).set_params(epochs=2)
    stacker = Stacker([("lstm", quick)], n_splits=2, random_state=0).fit(X, X[:, 0] + 5)
    assert np.isfinite(stacker.predict(X)).all()


def test_the_defaults_are_the_published_configuration() -> None:
    assert LSTMRegressor()._plan() == TrainingPlan(
        epochs=20,
        batch_size=12,
        learning_rate=2e-5,
        optimizer="adam",
        weight_decay=1e-5,
        schedule="plateau",
        plateau_patience=5,
        patience=10,
    )
    model = LSTMRegressor()
    model.widths_ = [(3, 2)]
    network = model._build()
    assert (network.lstm.hidden_size, network.lstm.bidirectional) == (512, True)
    first, _, dropout, last = network.mlp
    assert (first.in_features, first.out_features, last.in_features) == (1024, 2048, 2048)
    assert dropout.p == 0.3


def noted_weights(model, X, y, **fit) -> tuple[dict[float, float], dict[float, float]]:
    """The loss weights of the targets that are trained on, and of those that are validated on."""
    seen = {}, {}
    loss = model._loss

    def noting(predicted, target, weights):
        note = seen[0] if predicted.requires_grad else seen[1]
        note.update(zip(target.tolist(), weights.tolist(), strict=True))
        return loss(predicted, target, weights)

    model._loss = noting
    model.fit(X, y, **fit)
    return seen


def test_scores_are_balanced_among_the_rows_of_their_kind(problem, rng) -> None:
    X, y = problem(120)
    sample_weights = rng.integers(0, 3, size=120).astype(float)
    trained, validated = noted_weights(
        clone(QUICK).set_params(epochs=1), X, y, sample_weight=sample_weights
    )
    assert (len(trained), len(validated)) == ((sample_weights > 0).sum() - 10, 10)
    assert not set(trained) & set(validated)
    for found in (trained, validated):
        targets = QUICK._targets(y).astype(np.float32)
        rows = [row for row in range(120) if float(targets[row]) in found]
        expected = class_balance_weights(y[rows]) * sample_weights[rows]
        np.testing.assert_allclose([found[float(t)] for t in targets[rows]], expected, rtol=1e-6)
        assert np.ptp(class_balance_weights(y[rows])) > 0.01


def test_a_row_of_weight_zero_is_absent(problem, rng) -> None:
    X, y = problem(60)
    weights = rng.integers(0, 3, size=60).astype(float)
    some = np.flatnonzero(weights)
    present = PairSequences(X.frames[some], X.text[some])
    model = clone(QUICK).set_params(epochs=2)
    with_zeros = clone(model).fit(X, y, sample_weight=weights)
    without = clone(model).fit(present, y[some], sample_weight=weights[some])
    np.testing.assert_array_equal(with_zeros.predict(X), without.predict(X))
    plain = clone(model).fit(present, y[some])
    assert (plain.predict(X) != without.predict(X)).any()


def test_an_array_is_one_frame_and_a_caption_of_equal_lengths(rng) -> None:
    frames = [rng.normal(size=(2, 4)) for _ in range(30)]
    X, y = PairSequences(frames, rng.normal(size=(30, 3))), rng.uniform(0, 10, size=30)
    model = clone(QUICK).set_params(epochs=1).fit(X, y)
    for n_columns in (7, 8):
        with pytest.raises(ValueError, match=r"\(4, 3\) when fitted|expecting 7 features"):
            model.predict(np.zeros((5, n_columns)))
    with pytest.raises(StackingError, match=r"\(4, 4\) .*\(4, 3\) when fitted.*PairSequences"):
        clone(QUICK).fit(X, y, eval_set=(np.zeros((9, 7)), np.arange(9.0)))
    model.fit(np.zeros((30, 7)), y, eval_set=(np.zeros((9, 7)), np.arange(9.0)))
    assert model.widths_ == [(4, 4)]
    single = PairSequences([np.zeros((1, 4))], np.zeros((1, 4)))
    np.testing.assert_array_equal(model.predict(single), model.predict(np.zeros((1, 7))))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 0}, r"hidden .*got 0\b"),
        ({"mlp": 0}, r"mlp .*got 0\b"),
        ({"dropout": 1}, r"dropout .*got 1\b"),
        ({"weight_decay": -1}, r"weight_decay .*got -1\b"),
    ],
)
def test_settings_are_checked(problem, settings, message: str) -> None:
    with pytest.raises(StackingError, match=message):
        clone(QUICK).set_params(**settings).fit(*problem(30))


def test_bad_input(problem) -> None:
    X, y = problem(30)
    with pytest.raises(StackingError, match="29 scores for 30 pairs"):
        clone(QUICK).fit(X, y[:29])
    with pytest.raises(StackingError, match="no scores"):
        clone(QUICK).fit(X, None)
    model = clone(QUICK).set_params(epochs=1).fit(X, y)
    with pytest.raises(StackingError, match=r"\(4, 3\) dimensions, \(3, 3\) when fitted"):
        model.predict(PairSequences([np.zeros((2, 4))], np.zeros((1, 3))))
    with pytest.raises(StackingError, match="eval_set: 5 scores for 30 pairs"):
        clone(QUICK).fit(X, y, eval_set=(X, y[:5]))
