import os
import re
import threading
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tqdm import tqdm
from worker_tasks import TableInputs, plain_network

from xacle_stack._optional import stand_ins
from xacle_stack._threads import one_thread
from xacle_stack.errors import StackingError
from xacle_stack.metrics import srcc
from xacle_stack.systems import training
from xacle_stack.systems.checkpoints import TrainingCheckpoint
from xacle_stack.systems.losses import contrastive, listnet_top1, weighted_mse
from xacle_stack.systems.plan import TrainingPlan, learning_rate_at
from xacle_stack.systems.training import Examples, load_network, predict, train

torch = pytest.importorskip("torch")

PLAN = TrainingPlan(epochs=6, batch_size=16, learning_rate=0.02)


def build():
    # With dropout: what is drawn in training must be reproducible as well.
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1)
    ).append(torch.nn.Flatten(0))


def examples(rng, n_rows: int, noise: float = 0.3) -> Examples:
    X = rng.normal(size=(n_rows, 4)).astype(np.float32)
    y = X @ [1.0, -1.0, 0.5, 0.0] + rng.normal(scale=noise, size=n_rows)
    tensor = torch.from_numpy(X)
    return Examples(lambda rows, _: (tensor[rows],), np.arange(n_rows), y, np.ones(n_rows))


@pytest.fixture
def data(rng):
    return examples(rng, 70), examples(rng, 40)


def outputs(trained, data) -> np.ndarray:
    return predict(load_network(build, trained.weights, "cpu"), data.inputs, data.rows)


def test_it_learns_and_keeps_the_best_epoch(data) -> None:
    trained = train(build, weighted_mse, PLAN, *data, seed=0)
    assert trained.validation_srcc.max() > 0.8
    assert trained.validation_srcc[trained.best_epoch - 1] == trained.validation_srcc.max()
    kept = srcc(data[1].targets, outputs(trained, data[1]))
    assert kept == trained.validation_srcc.max()
    assert len(trained.validation_srcc) == len(trained.validation_loss) == 6
    assert trained.n_parameters == 4 * 8 + 8 + 8 + 1


def test_the_best_epoch_may_be_the_first(data) -> None:
    # A step that throws the network far away at every later epoch.
    calls = []

    def loss(predicted, target, weights):
        calls.append(len(predicted))
        sign = 1 if len(calls) <= 6 else -1  # five batches and one validation an epoch
        return sign * weighted_mse(predicted, target, weights)

    trained = train(build, loss, PLAN, *data, seed=0)
    assert trained.best_epoch < 6
    assert trained.validation_srcc[trained.best_epoch - 1] == trained.validation_srcc.max()
    kept = srcc(data[1].targets, outputs(trained, data[1]))
    assert kept == trained.validation_srcc.max() > trained.validation_srcc[-1]


def test_equal_seeds_give_equal_bytes_and_no_visible_draw(data) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  # the state that must not move
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads()
    one = train(build, weighted_mse, PLAN, *data, seed=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(99)
    two = train(build, weighted_mse, PLAN, *data, seed=3)
    other = train(build, weighted_mse, PLAN, *data, seed=4)
    for name, array in one.weights.items():
        assert array.tobytes() == two.weights[name].tobytes()
    assert any((array != other.weights[name]).any() for name, array in one.weights.items())
    assert torch.get_num_threads() == threads


def test_trainings_side_by_side_do_not_draw_each_others_numbers(data) -> None:
    alone = train(build, weighted_mse, PLAN, *data, seed=3)
    found = {}

    def fit(seed: int) -> None:
        found[seed] = train(build, weighted_mse, PLAN, *data, seed=seed)

    threads = [threading.Thread(target=fit, args=(seed,)) for seed in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, array in alone.weights.items():
        assert array.tobytes() == found[3].weights[name].tobytes()


@pytest.mark.parametrize(("small", "n_threads"), [(0, 2), (10**8, 1)])
def test_a_stack_that_limits_threads_changes_nothing(
    data, monkeypatch, small: int, n_threads: int
) -> None:
    monkeypatch.setattr("xacle_stack.systems.training._SMALL", small)
    seen = []

    def noting(*arguments):
        seen.append(torch.get_num_threads())
        return weighted_mse(*arguments)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            train(build, noting, PLAN, *data, seed=0)
            assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {n_threads}


class Interrupting:
    """A loss that is interrupted at one of its calls; five batches and a validation an epoch."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, predicted, target, weights):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return weighted_mse(predicted, target, weights)


def test_an_interrupt_keeps_the_best_state_so_far(data, caplog) -> None:
    undisturbed = train(build, weighted_mse, PLAN, *data, seed=0)
    stopped = train(build, Interrupting(3 * 6 + 2), PLAN, *data, seed=0)
    assert isinstance(stopped.interrupt, KeyboardInterrupt)
    (record,) = caplog.records
    assert "3 of 6 epochs" in record.message
    np.testing.assert_array_equal(stopped.validation_srcc, undisturbed.validation_srcc[:3])
    assert stopped.best_epoch <= 3
    kept = srcc(data[1].targets, outputs(stopped, data[1]))
    assert kept == undisturbed.validation_srcc[:3].max()


def test_an_interrupt_before_anything_is_kept_goes_on(data) -> None:
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        train(build, Interrupting(3), PLAN, *data, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_validation_loss_is_that_of_blocks(data, rng, monkeypatch) -> None:
    n_rows = []

    def noting(predicted, target, weights):
        if not predicted.requires_grad:
            n_rows.append(len(predicted))
        return contrastive(predicted, target, weights)

    whole = train(build, contrastive, PLAN, *data, seed=0)
    monkeypatch.setattr(training, "LOSS_ROWS", 40)
    one = train(build, noting, PLAN, *data, seed=0)
    assert n_rows == [40] * 6
    assert one.validation_loss.tobytes() == whole.validation_loss.tobytes()
    n_rows.clear()
    monkeypatch.setattr(training, "LOSS_ROWS", 15)
    several = train(build, noting, PLAN, *data, seed=0)
    assert n_rows == [14, 14, 12] * 6
    # The weights are equal and so every network: the loss of the last one by hand.
    predicted = outputs(several, data[1])
    tensors = [torch.from_numpy(v.astype(np.float32)) for v in (predicted, *vars_of(data[1])[1:])]
    blocks = [[t[rows] for t in tensors] for rows in np.split(np.arange(40), [14, 28])]
    expected = sum(float(contrastive(*block)) * len(block[0]) / 40 for block in blocks)
    found = several.validation_loss[several.best_epoch - 1]
    assert found == pytest.approx(expected, rel=1e-5)
    assert found != whole.validation_loss[several.best_epoch - 1]


class Constant(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.level.expand(len(x))


def test_constant_predictions_are_no_failure(rng) -> None:
    tone = examples(rng, 70)
    lifted = Examples(tone.inputs, tone.rows, tone.targets + 5, tone.weights)
    trained = train(Constant, weighted_mse, PLAN, lifted, lifted, seed=0)
    assert np.isnan(trained.validation_srcc).all()
    assert trained.best_epoch == 1 + trained.validation_loss.argmin() == 6
    assert 0 < trained.weights["level"][0] < 5


def test_predictions_that_are_not_finite_are_told(data) -> None:
    wild = TrainingPlan(epochs=6, batch_size=16, learning_rate=1e30, optimizer="adam")
    with pytest.raises(StackingError, match="finite .*first epoch.*learning_rate"):
        train(build, lambda p, t, w: weighted_mse(p, t, w).exp() * 1e30, wild, *data, seed=0)
    calls = []

    def explodes_later(predicted, target, weights):
        calls.append(1)
        return weighted_mse(predicted, target, weights) * (1 if len(calls) < 13 else torch.inf)

    with pytest.warns(UserWarning, match="no longer finite.* after 2 of 6 epochs"):
        trained = train(build, explodes_later, PLAN, *data, seed=0)
    assert np.isfinite(outputs(trained, data[1])).all()


def test_patience_ends_it(data) -> None:
    calls = []

    def worse_after_two(predicted, target, weights):
        calls.append(1)
        return weighted_mse(predicted, target, weights) * (1 if len(calls) <= 12 else -1)

    plan = TrainingPlan(epochs=40, batch_size=16, learning_rate=0.02, patience=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = train(build, worse_after_two, plan, *data, seed=0)
    assert len(trained.validation_srcc) == trained.best_epoch + 3 < 40


def rates(plan: TrainingPlan, data, monkeypatch) -> list[float]:
    """The learning rate of every step."""
    seen = []
    step = torch.optim.Adam.step

    def noted(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", noted)
    train(build, weighted_mse, plan, *data, seed=0)
    return seen


def test_the_cosine_moves_every_step(data, monkeypatch) -> None:
    plan = TrainingPlan(4, 16, 0.01, warmup_epochs=1, final_learning_rate=1e-5)
    expected = [learning_rate_at(plan, (step + 1) / 5) for step in range(20)]
    assert rates(plan, data, monkeypatch) == expected
    assert expected[4] == max(expected)
    assert expected[-1] == 1e-5


def test_the_plateau_halves(data, monkeypatch) -> None:
    # A rate at which nothing gets better after the start.
    plan = TrainingPlan(8, 16, 3.0, schedule="plateau", plateau_patience=1)
    seen = rates(plan, data, monkeypatch)[::5]
    assert seen[0] == 3.0
    assert seen[-1] < 3.0
    assert all(later in (rate, rate / 2) for rate, later in pairwise(seen))


def test_lars_is_timms(data) -> None:
    with stand_ins(["torchvision"]):
        pytest.importorskip("timm")
    plan = TrainingPlan(6, 16, 0.05, optimizer="lars")
    trained = train(build, weighted_mse, plan, *data, seed=0)
    assert trained.validation_srcc.max() > 0.8
    # Without weight decay it is gradient descent with momentum, to the last step.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build()
        optimizer = torch.optim.SGD(network.parameters(), momentum=0.9)
        order = np.random.default_rng(0)
        targets = torch.from_numpy(data[0].targets.astype(np.float32))
        for epoch in range(trained.best_epoch):
            batches = np.array_split(order.permutation(70), range(16, 70, 16))
            for step, rows in enumerate(batches):
                optimizer.param_groups[0]["lr"] = learning_rate_at(plan, epoch + (step + 1) / 5)
                optimizer.zero_grad()
                network.train()
                predicted = network(*data[0].inputs(rows, None))
                weighted_mse(predicted, targets[rows], torch.ones(len(rows))).backward()
                optimizer.step()
    for name, tensor in network.state_dict().items():
        np.testing.assert_allclose(trained.weights[name], tensor.numpy(), atol=1e-5)


def test_a_batch_may_draw_and_validation_may_not(data) -> None:
    train_set, validation = data
    seen = {"train": [], "validation": []}

    def noted(name, inputs):
        def draw(rows, rng):
            seen[name].append(rng)
            return inputs(rows, None)

        return draw

    train(
        build,
        weighted_mse,
        PLAN,
        Examples(noted("train", train_set.inputs), *vars_of(train_set)),
        Examples(noted("validation", validation.inputs), *vars_of(validation)),
        seed=0,
    )
    assert all(rng is not None for rng in seen["train"])
    assert len(seen["train"]) == 30
    assert seen["validation"] == [None] * 6


def vars_of(data: Examples):
    return data.rows, data.targets, data.weights


def test_weights_that_may_not_be_written_are_loaded(data) -> None:
    trained = train(build, weighted_mse, PLAN, *data, seed=0)
    expected = outputs(trained, data[1])
    for array in trained.weights.values():
        array.flags.writeable = False
    np.testing.assert_array_equal(outputs(trained, data[1]), expected)


def test_the_progress_says_where_there_is_no_srcc_yet(
    data, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_on, validation = data
    shown: list[str] = []
    monkeypatch.setattr(tqdm, "set_postfix_str", lambda self, text, refresh: shown.append(text))
    flat = replace(validation, targets=np.full(40, 3.0))  # its ranks say nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(build, weighted_mse, PLAN, train_on, flat, seed=0, shown=True)
        assert shown[0].startswith("epoch 1/6, loss ")
        assert "best" not in shown[0]
        assert re.fullmatch(r"epoch 6/6, loss .*, best validation loss \d+\.\d{4}", shown[-1])
        shown.clear()
        train(build, weighted_mse, PLAN, train_on, validation, seed=0, shown=True)
    assert len(shown) == 6 * 5
    assert shown[0].startswith("epoch 1/6, loss ")
    assert re.fullmatch(r"epoch 6/6, loss \d\.\d{4}, best SRCC 0\.\d{4}", shown[-1])


def equal(one, other) -> bool:
    return one.weights.keys() == other.weights.keys() and all(
        array.tobytes() == other.weights[name].tobytes() for name, array in one.weights.items()
    )


def picklable(rng, n_rows: int) -> Examples:
    X = rng.normal(size=(n_rows, 4)).astype(np.float32)
    return Examples(TableInputs(X), np.arange(n_rows), X @ [1.0, -1.0, 0.5, 0.0], np.ones(n_rows))


def assert_equal_but_for_rounding(one, other) -> None:
    for name, array in one.weights.items():
        if name != "1.bias":  # to a loss of differences its gradient is nothing but rounding
            np.testing.assert_allclose(other.weights[name], array, atol=2e-5)


@pytest.mark.parametrize("loss", [weighted_mse, contrastive, listnet_top1])
def test_micro_batches_have_the_loss_of_the_whole_batch(rng, loss) -> None:
    data = picklable(rng, 70), picklable(rng, 40)
    whole = train(plain_network, loss, PLAN, *data, seed=0)
    parts = train(plain_network, loss, replace(PLAN, micro_batch=5), *data, seed=0)
    assert_equal_but_for_rounding(parts, whole)


def test_a_micro_batch_that_is_computed_again_drops_the_same(data) -> None:
    """With one row a batch, the loss of a row's first pass is that of its second."""
    seen = []

    class Noting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = build()

        def forward(self, x):
            output = self.network(x)
            if self.training:
                seen.append((torch.is_grad_enabled(), output.detach().tolist()))
            return output

    plan = replace(PLAN, epochs=1, micro_batch=3)
    train(Noting, weighted_mse, plan, *data, seed=0)
    first = [output for with_gradient, output in seen if not with_gradient]
    assert first == [output for with_gradient, output in seen if with_gradient]
    assert len(first) == 4 * 6 + 2


def test_several_processes_have_the_loss_of_the_whole_batch(rng, tmp_path) -> None:
    """Seventy rows in batches of 16 leave a last one that two processes cannot share evenly."""
    data = picklable(rng, 69), picklable(rng, 41)
    plan = replace(PLAN, epochs=2)
    alone = train(plain_network, listnet_top1, plan, *data, seed=0)
    checkpoint = TrainingCheckpoint(tmp_path, "both", minutes=0)
    both = train(
        plain_network,
        listnet_top1,
        plan,
        *data,
        seed=0,
        devices=("cpu", "cpu"),
        checkpoint=checkpoint,
    )
    assert_equal_but_for_rounding(both, alone)
    np.testing.assert_allclose(both.validation_srcc, alone.validation_srcc, atol=1e-3)
    assert checkpoint.path.exists()


def test_gradients_are_clipped(data) -> None:
    """A step of gradient descent is no longer than the rate times the largest gradient."""
    plan = replace(PLAN, optimizer="lars", epochs=1, batch_size=70, max_gradient=0.5)
    with stand_ins(["torchvision"]):
        pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = build().state_dict()

    def loss(*arguments):
        return 1000 * weighted_mse(*arguments)

    after = train(build, loss, plan, *data, seed=0).weights
    step = np.sqrt(sum(np.square(after[name] - x.numpy()).sum() for name, x in before.items()))
    assert step == pytest.approx(learning_rate_at(plan, 1.0) * 0.5, rel=1e-3, abs=1e-9) or (
        step <= plan.learning_rate * 0.5
    )


class Killed(BaseException):
    """Ends a training at once, as the end of its process would."""


def killing(at: int):
    calls = []

    def loss(*arguments):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return weighted_mse(*arguments)

    return loss


@pytest.mark.parametrize("minutes", [0, 60])
@pytest.mark.parametrize("at", [2, 8, 13, 20])
def test_a_training_that_was_killed_ends_as_if_undisturbed(data, tmp_path, at, minutes) -> None:
    plan = replace(PLAN, patience=5, micro_batch=6, schedule="cosine")
    undisturbed = train(build, weighted_mse, plan, *data, seed=3)
    checkpoint = TrainingCheckpoint(tmp_path, "one", minutes=minutes)
    with pytest.raises(Killed):
        train(build, killing(at), plan, *data, seed=3, checkpoint=checkpoint)
    assert checkpoint.path.exists() == (minutes == 0 or at > 6)
    done = []

    def counting(*arguments):
        done.append(1)
        return weighted_mse(*arguments)

    again = TrainingCheckpoint(tmp_path, "one", minutes=minutes)
    resumed = train(build, counting, plan, *data, seed=3, checkpoint=again)
    assert equal(resumed, undisturbed)
    assert resumed.best_epoch == undisturbed.best_epoch
    np.testing.assert_array_equal(resumed.validation_loss, undisturbed.validation_loss)
    n_calls = 6 * 6  # five batches and a validation an epoch
    assert len(done) == n_calls - (at - 1 if minutes == 0 else 6 * ((at - 1) // 6))
    # What is left is the result.
    done.clear()
    assert equal(train(build, counting, plan, *data, seed=3, checkpoint=again), undisturbed)
    assert not done


def test_the_plateau_goes_on_where_it_was(data, tmp_path) -> None:
    plan = TrainingPlan(8, 16, 3.0, schedule="plateau", plateau_patience=1)
    undisturbed = train(build, weighted_mse, plan, *data, seed=3)
    checkpoint = TrainingCheckpoint(tmp_path, "one")
    with pytest.raises(Killed):
        train(build, killing(33), plan, *data, seed=3, checkpoint=checkpoint)
    assert equal(
        train(build, weighted_mse, plan, *data, seed=3, checkpoint=checkpoint), undisturbed
    )


def test_a_checkpoint_that_is_damaged_or_cannot_be_written_is_told(data, tmp_path) -> None:
    checkpoint = TrainingCheckpoint(tmp_path, "one")
    checkpoint.path.write_bytes(b"no state")
    with pytest.raises(StackingError, match=r"training-one\.pt.* cannot be read .*Delete the file"):
        train(build, weighted_mse, PLAN, *data, seed=0, checkpoint=checkpoint)
    (tmp_path / "file").write_text("")
    checkpoint = TrainingCheckpoint(tmp_path / "file", "one")
    with pytest.raises(StackingError, match=r"training-one\.pt: .*cannot be written \("):
        train(build, weighted_mse, PLAN, *data, seed=0, checkpoint=checkpoint)


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_state_that_is_a_pipe_is_not_waited_for(tmp_path) -> None:
    checkpoint = TrainingCheckpoint(tmp_path, "one")
    os.mkfifo(checkpoint.path)
    with pytest.raises(StackingError, match=r"training-one\.pt.*regular file.*Delete the file"):
        checkpoint.read()


def test_the_result_takes_the_memory_of_the_best_state_once(data, monkeypatch) -> None:
    copied, copies = [], training._to_cpu

    def counted(state):
        copied.append([*state])
        return copies(state)

    monkeypatch.setattr(training, "_to_cpu", counted)
    trained = train(build, weighted_mse, PLAN, *data, seed=0)
    assert copied[-1] == []
    assert [*trained.weights] == [*build().state_dict()]


def test_parameters_without_gradients_stay(data) -> None:
    def half_frozen():
        network = build()
        network[0].requires_grad_(False)
        return network

    with torch.random.fork_rng():
        torch.manual_seed(0)
        initial = half_frozen().state_dict()
    trained = train(half_frozen, weighted_mse, PLAN, *data, seed=0)
    assert trained.weights["0.weight"].tobytes() == initial["0.weight"].numpy().tobytes()
    assert (trained.weights["3.weight"] != initial["3.weight"].numpy()).any()
    assert trained.n_parameters == 8 + 1
