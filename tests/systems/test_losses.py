import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from xacle_stack.errors import StackingError
from xacle_stack.systems import losses
from xacle_stack.systems.losses import class_balance_weights, score_weights


def mse(s, t, w):
    return np.average((s - t) ** 2, weights=w)


def clipped(s, t, w):
    return np.average(np.where(np.abs(s - t) > 0.25, (s - t) ** 2, 0), weights=w)


def contrast(s, t, w):
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]
    off = [max(0, abs((s[i] - s[j]) - (t[i] - t[j])) - 0.1) for i, j in pairs]
    return np.average(off, weights=[np.sqrt(w[i] * w[j]) for i, j in pairs])


def listnet(s, t, w):
    q = w * np.exp(t) / np.sum(w * np.exp(t))
    return -np.sum(q * np.log(np.exp(s) / np.sum(w * np.exp(s))))


def ranknet(s, t, w):
    pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if t[i] > t[j]]
    out = [np.log(1 + np.exp(s[j] - s[i])) for i, j in pairs]
    return np.average(out, weights=[w[i] * w[j] for i, j in pairs])


REFERENCES: dict[str, Callable] = {
    "weighted_mse": mse,
    "clipped_mse": clipped,
    "contrastive": contrast,
    "listnet_top1": listnet,
    "pairwise_logistic": ranknet,
}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def rows(rng, n_rows: int = 12):
    """Predictions, targets with ties, and weights, one of them zero."""
    target = rng.integers(0, 6, size=n_rows).astype(float)
    weights = rng.uniform(0.2, 2, size=n_rows)
    weights[3] = 0.0
    return target + rng.normal(size=n_rows), target, weights


def value(torch, name: str, *arrays) -> float:
    loss = getattr(losses, name)
    return float(loss(*(torch.tensor(array, dtype=torch.float64) for array in arrays)))


@pytest.mark.parametrize("name", REFERENCES)
def test_each_loss_is_its_formula(torch, rng, name: str) -> None:
    for _ in range(5):
        s, t, w = rows(rng)
        assert value(torch, name, s, t, w) == pytest.approx(REFERENCES[name](s, t, w), rel=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_gradients_are_those_of_the_values(torch, rng, name: str) -> None:
    s, t, w = (torch.tensor(array) for array in rows(rng))
    loss = getattr(losses, name)
    # Far from the kinks of the clipped losses, for a step of 1e-6.
    assert ((s - t).abs() - 0.25).abs().min() > 1e-4
    off = ((s[:, None] - s) - (t[:, None] - t)).abs() - 0.1
    assert off.abs().min() > 1e-4
    assert torch.autograd.gradcheck(lambda p: loss(p, t, w), s.requires_grad_())


def test_a_tie_of_predictions_is_half_way_between_two_orders(torch) -> None:
    predicted = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    losses.pairwise_logistic(predicted, torch.tensor([1.0, 0.0]), torch.ones(2)).backward()
    assert predicted.grad.tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("name", ["weighted_mse", "clipped_mse", "listnet_top1"])
def test_a_weight_is_a_number_of_rows(torch, rng, name: str) -> None:
    s, t, _ = rows(rng)
    w = np.array([2.0, 0, 1, 3, 1, 1, 0, 1, 1, 1, 1, 1])
    repeated = np.repeat(np.arange(12), w.astype(int))
    expected = value(torch, name, s[repeated], t[repeated], np.ones(len(repeated)))
    assert value(torch, name, s, t, w) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_without_weight_there_is_nothing_to_learn(torch, rng, name: str) -> None:
    predicted = torch.tensor(rng.normal(size=4), requires_grad=True)
    loss = getattr(losses, name)(predicted, torch.arange(4.0), torch.zeros(4))
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad.abs().max() == 0


@pytest.mark.parametrize("name", ["contrastive", "pairwise_logistic"])
def test_one_row_has_no_pair(torch, name: str) -> None:
    assert value(torch, name, [3.0], [1.0], [1.0]) == 0


def test_large_differences_do_not_overflow(torch) -> None:
    arrays = [1e4, -1e4, 0.0], [0.0, 1e4, 1.0], [1.0, 1.0, 1.0]
    for name in ("listnet_top1", "pairwise_logistic"):
        assert np.isfinite(value(torch, name, *arrays))
    # Three pairs: wrong by 2e4, by 1e4 and right by 1e4 the other way.
    assert value(torch, "pairwise_logistic", *arrays) == pytest.approx(4e4 / 3)


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        (0, lambda y: np.ones_like(y)),
        (1, lambda y: y / 20 + 0.5),
        (2, lambda y: y / 10 + 0.1),
        (3, lambda y: y / 5 - 0.4),
    ],
)
def test_score_weights_are_those_of_the_report(rng, kind: int, formula) -> None:
    y = rng.uniform(0, 10, size=50)
    np.testing.assert_allclose(score_weights(y, kind), np.clip(formula(y), 0, 1), rtol=1e-12)


def test_score_weights_need_a_known_kind_and_scores_in_range() -> None:
    with pytest.raises(StackingError, match=r"\[0, 1, 2, 3\], got 4"):
        score_weights([1.0], 4)
    with pytest.raises(StackingError, match="score_weighting .*got '1'"):
        score_weights([1.0], "1")
    with pytest.raises(StackingError, match="score_weighting .*got True"):
        score_weights([1.0], True)
    assert score_weights([1.0], np.int64(1)) == score_weights([1.0], 1)
    with pytest.raises(StackingError, match="1 scores .* 0–10, .* -3.0 in row"):
        score_weights([1.0, -3.0], 1)
    assert score_weights([1.0, -3.0], 0).tolist() == [1, 1]


def test_class_balance_is_the_effective_number_of_scores(rng) -> None:
    y = rng.uniform(0, 10, size=200) ** 2 / 10
    bin_of = np.clip(np.ceil(y), 1, 10).astype(int)
    n_same = np.array([np.sum(bin_of == one) for one in bin_of])
    expected = 0.01 / (1 - 0.99**n_same)
    np.testing.assert_allclose(class_balance_weights(y), expected / expected.mean(), rtol=1e-12)
    np.testing.assert_array_equal(class_balance_weights(y, beta=0.0), np.ones(200))
    assert class_balance_weights([1.0, 0.0, 1.5], beta=0.5)[2] > 1  # 1 belongs to the bin below
    with pytest.raises(StackingError, match=r"beta .*got 1\b"):
        class_balance_weights(y, beta=1)


def test_systems_load_without_torch() -> None:
    code = "import sys, xacle_stack.systems as s; s.TransformerRegressor; s.GatedRegressor; "
    code += "s.ProjectionHeadRegressor; s.VectorMLPRegressor; import xacle_stack.systems.losses; "
    code += "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
