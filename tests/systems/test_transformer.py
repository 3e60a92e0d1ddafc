import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack._optional import stand_ins
from xacle_stack.errors import MissingExtraError, StackingError
from xacle_stack.metrics import srcc
from xacle_stack.model_file import load_model, save_model
from xacle_stack.stacking import (
    Stacker,
)
from xacle_stack.systems import TransformerRegressor, transformer
from xacle_stack.systems.losses import score_weights, weighted_mse
from xacle_stack.table import FeatureTable, consecutive

torch = pytest.importorskip("torch")

QUICK = TransformerRegressor(
    score_weighting=0,
    optimizer="adam",
    learning_rate=0.01,
    warmup_epochs=0,
    epochs=15,
    batch_size=16,
    dropout=0.0,
    hidden=64,
    random_state=0,
)


pytestmark = pytest.mark.usefixtures("one_thread")


@parametrize_with_checks(
    [clone(QUICK)],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is drawn once, and it "
        "is one row to the batch's normalisation; a row of weight 0 is absent, as tested below"
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@pytest.fixture
def problem(rng):
    """Return pairs whose score is how near their two vectors are, 0–10."""

    def make(n_pairs: int, n_dims: int = 6):
        audio = rng.normal(size=(n_pairs, n_dims))
        text = audio + rng.normal(size=(n_pairs, n_dims)) * rng.uniform(0.1, 2, (n_pairs, 1))
        distance = np.square(audio - text).mean(axis=1)
        return np.hstack([audio, text]).astype(np.float32), 10 * np.exp(-distance)

    return make


def quick(**settings) -> TransformerRegressor:
    return clone(QUICK).set_params(**settings)


def test_it_learns_what_no_linear_model_can(problem) -> None:
    X, y = problem(600)
    new, of_new = problem(300)
    model = quick(epochs=25, dropout=0.1, batch_size=32).fit(X, y)
    assert srcc(of_new, model.predict(new)) > 0.5
    assert srcc(of_new, Ridge().fit(X, y).predict(new)) < 0.3


@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_a_standard_encoder(n_heads: int, training: bool) -> None:
    torch.manual_seed(0)
    network = transformer._two_token_network(12, 3, n_heads, 4, 0.0, 8).double()
    layer = torch.nn.TransformerEncoderLayer(12, n_heads, 48, 0.0, batch_first=True)
    plain = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).double()
    for parameter in network.parameters():  # biases too
        torch.nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(network.encoder.state_dict())
    network.pre_norm.running_mean.normal_()
    network.mlp[2] = torch.nn.Identity()
    network.train(training)
    plain.train(training)
    text, audio = torch.randn(2, 7, 12, dtype=torch.float64)
    tokens = torch.stack([text, audio], dim=1)
    if training:
        mean, variance = tokens.mean((0, 1)), tokens.var((0, 1), correction=0)
    else:
        mean, variance = network.pre_norm.running_mean, network.pre_norm.running_var
    encoded = plain((tokens - mean) / (variance + 1e-5).sqrt())
    expected = network.mlp(network.norm(encoded)[:, 0]).flatten()
    found = network(text, audio)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-9)
    names = [n for n, _ in network.encoder.named_parameters()]
    ours = torch.autograd.grad(found.square().sum(), list(network.encoder.parameters()))
    theirs = torch.autograd.grad(expected.square().sum(), list(plain.parameters()))
    for name, one, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-7, msg=name)


def test_the_defaults_are_the_published_configuration() -> None:
    network = transformer._two_token_network(768, 2, 1, 4, 0.2, 512)
    encoder = 2 * (4 * 768**2 + 4 * 768 + 2 * 4 * 768**2 + 5 * 768 + 4 * 768)
    n_parameters = encoder + 2 * 768 + 768 * 512 + 512 + 512 + 1
    assert sum(p.numel() for p in network.parameters()) == n_parameters
    model = TransformerRegressor()
    assert (model.optimizer, model.batch_size, model.epochs) == ("lars", 128, 100)
    assert (model.learning_rate, model.final_learning_rate) == (3e-4, 1e-7)
    assert (model.warmup_epochs, model.weight_decay, model.patience) == (5, 0, None)
    first, second = network.encoder.layers
    assert torch.equal(first.linear1.weight, second.linear1.weight)
    assert network.mlp[3].weight.std().item() == pytest.approx(0.01, rel=0.2)


def test_the_published_optimiser_trains(problem) -> None:
    with stand_ins(["torchvision"]):
        pytest.importorskip("timm")
    X, y = problem(200)
    model = quick(optimizer="lars", learning_rate=0.01, score_weighting=2).fit(X, y)
    weighted_mean = np.average(y, weights=score_weights(y, 2))
    assert model.predict(X).mean() == pytest.approx(weighted_mean, abs=1)


def test_two_fits_are_equal_and_seeds_differ(problem) -> None:
    X, y = problem(100)
    one, two, other = (quick(epochs=2, random_state=seed).fit(X, y) for seed in (1, 1, 2))
    for name, array in one.weights_.items():
        assert array.tobytes() == two.weights_[name].tobytes()
    assert one.predict(X).tobytes() == two.predict(X).tobytes()
    assert (one.predict(X) != other.predict(X)).any()
    assert one.n_parameters_ == sum(
        array.size for name, array in one.weights_.items() if not name.startswith("pre_norm")
    )


def test_alone_equals_together(problem) -> None:
    X, y = problem(100)
    new, _ = problem(1300)  # more than two blocks
    model = quick(epochs=2).fit(X, y)
    together = model.predict(new)
    for row in (0, 511, 512, 1299):
        np.testing.assert_allclose(model.predict(new[[row]]), together[row], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(model.predict(new[::-1]), together[::-1], rtol=2e-6, atol=2e-6)


def test_a_round_trip_is_exact(problem, tmp_path: Path) -> None:
    X, y = problem(100)
    X = FeatureTable(X, {"mine/audio": slice(0, 6), "mine/text": slice(6, 12)})
    model = quick(epochs=2, space="mine").fit(X, y)
    path = save_model(tmp_path / "model.skops", {"transformer": model})
    loaded = load_model(path)["transformer"]
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()
    assert loaded.get_params() == model.get_params()


def test_it_is_a_learner_of_the_stack(problem) -> None:
    X, y = problem(120)
    learners = [("t", quick(epochs=3)), ("ridge", Ridge())]
    stacks = [Stacker(learners, n_jobs=n, random_state=0).fit(X, y) for n in (1, 2)]
    assert stacks[0].level0_names_ == ["t/score", "ridge/score"]
    np.testing.assert_array_equal(*(stack.oof_predictions_ for stack in stacks))
    np.testing.assert_array_equal(*(stack.predict(X) for stack in stacks))


def test_the_epoch_is_chosen_on_rows_held_out(problem) -> None:
    X, y = problem(100)
    new, of_new = problem(40)
    given = quick(epochs=3).fit(X, y, eval_set=(new, of_new))
    kept = srcc(of_new, given.predict(new))
    assert kept == pytest.approx(given.validation_srcc_[given.best_epoch_ - 1], abs=1e-3)
    seen = noted_rows(quick(epochs=1), X, y)
    assert len(seen["train"]) == 90
    assert not seen["train"] & seen["validation"]
    # Ten groups of ten: one is held out as a whole.
    groups = [f"caption {number % 10}" for number in range(100)]
    seen = noted_rows(quick(epochs=1), X, y, groups=groups)
    assert {groups[row] for row in seen["train"]}.isdisjoint(
        groups[row] for row in seen["validation"]
    )
    assert len(seen["validation"]) == 10
    seen = noted_rows(quick(epochs=1), X[:60], y[:60])
    assert len(seen["validation"]) == 10
    assert seen["train"] == set(range(60)) - seen["validation"]


def test_a_group_of_most_rows_is_trained_on(problem) -> None:
    X, y = problem(200)
    groups = np.where(np.arange(200) < 150, 0, np.arange(200))
    groups[150:160] = 1
    for seed in range(12):
        seen = noted_rows(quick(epochs=1, random_state=seed), X, y, groups=groups)
        assert 20 <= len(seen["validation"]) <= 40
        assert seen["train"] == set(range(200)) - seen["validation"]
        assert set(range(150)) <= seen["train"]


@pytest.mark.parametrize(("n_rows", "n_groups"), [(19, 19), (200, 1), (50, 2)])
def test_too_few_rows_to_hold_out_are_told_once(problem, caplog, n_rows, n_groups) -> None:
    X, y = problem(n_rows)
    seen = noted_rows(quick(epochs=2), X, y, groups=np.arange(n_rows) % n_groups)
    assert seen["train"] == seen["validation"] == set(range(n_rows))
    (record,) = caplog.records
    assert f"{n_rows} rows in {n_groups} groups" in record.message
    assert "eval_set" in record.message
    caplog.clear()
    quick(epochs=1).fit(X, y, eval_set=(X, y))
    assert not caplog.records


def test_a_failed_fit_leaves_nothing_fitted(problem, monkeypatch) -> None:
    X, y = problem(40)
    model = quick(learning_rate=1e30)
    with pytest.raises(StackingError, match="not finite"):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert model.set_params(learning_rate=0.01, epochs=1).fit(X, y).predict(X).shape == (40,)
    monkeypatch.setattr(model, "_finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_scores_without_weight_train_nothing(problem) -> None:
    X, y = problem(40)
    with pytest.raises(StackingError, match="weight 0 .* score_weighting=0, 1"):
        quick(score_weighting=3).fit(X, y / 5)
    # One score has a weight, but its row is not trained on.
    high = np.where(np.arange(40) == 7, 9.0, y / 5)
    with pytest.raises(StackingError, match="every row .* weight 0"):
        quick(score_weighting=3).fit(X, high, sample_weight=np.arange(40) != 7)
    assert quick(score_weighting=3, epochs=1).fit(X, y, eval_set=(X, y / 5)).best_epoch_ == 1


def noted_rows(model, X, y, **fit):
    """The rows that `fit` trains on and validates on."""
    seen = {"train": set(), "validation": set()}
    inputs = model._inputs

    def noting(table, device):
        draw = inputs(table, device)

        def drawn(rows, rng):
            seen["validation" if rng is None else "train"].update(rows.tolist())
            return draw(rows, rng)

        return drawn

    model._inputs = noting
    model.fit(X, y, **fit)
    return seen


def test_training_draws_among_the_views(problem) -> None:
    X, y = problem(200)
    widths = dict.fromkeys(["a/audio", "a/text", "a/audio:view-1", "a/audio:view-2"], 6)
    table = FeatureTable(np.hstack([X, X[:, :6] + 10, X[:, :6] + 20]), consecutive(widths))
    model = quick(epochs=1)
    inputs = model._inputs(model._read(table, reset=True), "cpu")
    rows = np.arange(200)
    text, audio = inputs(rows, np.random.default_rng(0))
    assert (text.numpy() == X[:, 6:]).all()
    drawn = np.round((audio.numpy() - X[:, :6]) / 10)
    assert (drawn == drawn[:, :1]).all()
    assert np.bincount(drawn[:, 0].astype(int), minlength=3).min() > 45
    assert (inputs(rows, None)[1].numpy() == X[:, :6]).all()
    fitted = model.fit(table, y)
    assert (fitted.predict(table) != quick(epochs=1).fit(X, y).predict(X)).any()
    # Prediction sees the clip as it is, and needs no views.
    plain = FeatureTable(X, {"a/audio": slice(0, 6), "a/text": slice(6, 12)})
    assert (fitted.predict(plain) == fitted.predict(table)).all()


def test_a_row_of_weight_zero_is_absent(problem, rng) -> None:
    X, y = problem(60)
    weights = rng.integers(0, 3, size=60).astype(float)
    some = weights > 0
    model = quick(epochs=2)
    with_zeros = clone(model).fit(X, y, sample_weight=weights)
    without = clone(model).fit(X[some], y[some], sample_weight=weights[some])
    np.testing.assert_array_equal(with_zeros.predict(X), without.predict(X))
    ones = clone(model).fit(X, y, sample_weight=np.full(60, 2))
    np.testing.assert_allclose(ones.predict(X), clone(model).fit(X, y).predict(X), atol=1e-4)
    assert (ones.predict(X) != with_zeros.predict(X)).any()


def test_heavy_scores_pull(problem) -> None:
    X, y = problem(300)
    low, high = np.zeros((2, 300))
    low[y < 5], high[y >= 5] = 1, 1
    model = quick(epochs=4)
    of_low = model.fit(X, y, sample_weight=low + 0.01).predict(X).mean()
    of_high = model.fit(X, y, sample_weight=high + 0.01).predict(X).mean()
    plain = model.fit(X, y).predict(X).mean()
    assert of_low < plain < of_high
    # The weights of the scores are those of the rows, type by type.
    assert model.set_params(score_weighting=3).fit(X, y).predict(X).mean() > plain


def test_an_interrupt_keeps_the_best_state_and_goes_on(problem, monkeypatch, caplog) -> None:
    X, y = problem(200)
    undisturbed = quick(epochs=4).fit(X, y)
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 30:  # twelve batches and a validation an epoch: in the third
            raise KeyboardInterrupt
        return weighted_mse(*arguments)

    monkeypatch.setattr(transformer, "weighted_mse", interrupted)
    stopped = quick(epochs=4)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(X, y)
    (record,) = caplog.records
    assert "2 of 4 epochs" in record.message
    np.testing.assert_array_equal(stopped.validation_srcc_, undisturbed.validation_srcc_[:2])
    assert stopped.predict(X).shape == (200,)


def test_bfloat16_trains_nearly_the_same_network_every_time(problem) -> None:
    X, y = problem(400)
    exact, fast, again = (
        quick(epochs=3, learning_rate=1e-3, precision=precision).fit(X, y)
        for precision in ("float32", "bfloat16", "bfloat16")
    )
    floats = [array for array in fast.weights_.values() if array.dtype.kind == "f"]
    assert {array.dtype for array in floats} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(fast.predict(X), again.predict(X))
    difference = fast.predict(X) - exact.predict(X)
    assert np.abs(difference).max() > 0
    assert np.square(difference).mean() < 0.05 * exact.predict(X).var()


def test_a_bar_counts_epochs(problem, capsys) -> None:
    X, y = problem(40)
    quick(epochs=2, verbose=True).fit(X, y)
    shown = capsys.readouterr().err
    assert "TransformerRegressor" in shown
    assert "2/2" in shown
    assert "SRCC" in shown
    quick(epochs=2).fit(X, y)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 4}, r"n_heads .* 6, got 4\b"),
        ({"n_heads": 1.5}, "n_heads .*got 1.5"),
        ({"n_layers": 0}, r"n_layers .*got 0\b"),
        ({"feedforward": 0}, r"feedforward .*got 0\b"),
        ({"hidden": 0}, r"hidden .*got 0\b"),
        ({"weight_decay": -0.1}, "weight_decay .*got -0.1"),
        ({"warmup_epochs": -1}, "warmup_epochs .*got -1"),
        ({"dropout": 1.0}, "dropout .*got 1.0"),
        ({"score_weighting": 5}, r"\[0, 1, 2, 3\], got 5"),
        ({"validation_fraction": 0}, r"validation_fraction .*got 0\b"),
        ({"optimizer": "sgd"}, r"optimizer .*\['lars', 'adam', 'adamw'\].* 'sgd'"),
        ({"precision": "half"}, r"precision .*\['float32', 'bfloat16'\].* 'half'"),
        ({"learning_rate": 1e30}, "finite .*first epoch"),
    ],
)
def test_settings_are_checked(problem, settings, message: str) -> None:
    X, y = problem(30)
    with pytest.raises(StackingError, match=message):
        quick(**settings).fit(X, y)


def test_settings_are_checked_without_data_and_without_pytorch(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    quick().check_settings()
    with pytest.raises(StackingError, match="epochs .*got 0"):
        quick(epochs=0).check_settings()
    with pytest.raises(StackingError, match="space .*got 3"):
        quick(space=3).check_settings()
    with pytest.raises(StackingError, match="device .*got 0"):
        quick(device=0).check_settings()


def test_two_vectors_of_different_lengths_are_told(problem) -> None:
    X, y = problem(30)
    table = FeatureTable(X, {"a/audio": slice(0, 5), "a/text": slice(5, 12)})
    with pytest.raises(StackingError, match="5 columns .* 7.*ProjectionHead"):
        quick().fit(table, y)


def test_scores_off_the_scale_need_no_weighting(problem) -> None:
    X, y = problem(30)
    with pytest.raises(StackingError, match="scores lie outside 0–10, the first is"):
        quick(score_weighting=1).fit(X, y * 10)
    assert quick(epochs=1).fit(X, y * 10).predict(X).shape == (30,)


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        ({"eval_set": "X"}, r"eval_set: expected a pair \(X, y\)"),
        ({"eval_set": (np.zeros((9, 12)), None)}, "eval_set .*no scores, .* 10%"),
        ({"eval_set": (np.zeros((9, 12)), np.zeros(8))}, "eval_set: 8 scores for 9 pairs"),
        ({"groups": ["a", "b"]}, r"label.* 30 pairs.* \(2,\)"),
        ({"sample_weight": np.ones(7)}, "sample_weight: .* 30 pairs"),
        ({"sample_weight": np.eye(30)[0]}, "one weight .*above zero"),
        ({"sample_weight": np.full(30, -1.0)}, "sample_weight: 30 weights are negative"),
    ],
)
def test_arguments_of_fit_are_checked(problem, fit, message: str) -> None:
    X, y = problem(30)
    with pytest.raises(StackingError, match=message):
        quick().fit(X, y, **fit)


def test_a_missing_package_is_named(problem, monkeypatch) -> None:
    X, y = problem(30)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'xacle-stack\[neural\]'"):
        quick().fit(X, y)
