from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack.errors import StackingError
from xacle_stack.features import PairSequences
from xacle_stack.metrics import srcc
from xacle_stack.model_file import load_model, save_model
from xacle_stack.systems import CrossAttentionRegressor, LSTMRegressor, cross_attention
from xacle_stack.systems.plan import TrainingPlan

torch = pytest.importorskip("torch")

QUICK = CrossAttentionRegressor(
    width=8,
    n_heads=2,
    hidden=16,
    dropout=0.0,
    learning_rate=0.02,
    epochs=16,
    batch_size=16,
    random_state=0,
)


pytestmark = pytest.mark.usefixtures("one_thread")


@parametrize_with_checks(
    [QUICK],
    expected_failed_checks=lambda _: {
        "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is drawn once",
        "check_methods_subset_invariance": "float32 products of other shapes differ by about 1e-6, "
        "as tested below",
    },
)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@pytest.fixture
def problem(rng):
    """Return pairs whose score is whether any frame is of the caption's first word's kind."""

    def make(n_pairs: int) -> tuple[PairSequences, np.ndarray]:
        kinds = np.eye(4)
        frames = [kinds[rng.integers(4, size=rng.integers(1, 5))] for _ in range(n_pairs)]
        tokens = [kinds[rng.integers(4, size=rng.integers(1, 4))] for _ in range(n_pairs)]
        hit = [(clip @ words[0]).any() for clip, words in zip(frames, tokens, strict=True)]
        noisy = [clip + 0.1 * rng.normal(size=clip.shape) for clip in frames]
        return PairSequences(noisy, tokens), 2 + 6.0 * np.array(hit)

    return make


def test_it_learns_from_sequences(problem) -> None:
    (X, y), (new, of_new) = problem(300), problem(200)
    model = clone(QUICK).set_params(width=16, epochs=25).fit(X, y)
    assert srcc(of_new, model.predict(new)) > 0.4


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def attention(weights, name: str, n_heads: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Multi-head attention of the rows of one matrix to those of another, without padding."""
    of_query, of_key, of_value = np.split(weights[f"{name}.in_proj_weight"], 3)
    query_bias, key_bias, value_bias = np.split(weights[f"{name}.in_proj_bias"], 3)
    query, key = one @ of_query.T + query_bias, other @ of_key.T + key_bias
    value = other @ of_value.T + value_bias
    found = [
        softmax(q @ k.T / np.sqrt(q.shape[1])) @ v
        for q, k, v in zip(*(np.split(x, n_heads, 1) for x in (query, key, value)), strict=True)
    ]
    out = np.concatenate(found, axis=1)
    return out @ weights[f"{name}.out_proj.weight"].T + weights[f"{name}.out_proj.bias"]


def projection(weights, name: str, vectors: np.ndarray) -> np.ndarray:
    def norm(x, layer: str):
        scaled = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
        return scaled * weights[f"{name}.{layer}.weight"] + weights[f"{name}.{layer}.bias"]

    hidden = norm(vectors, "0") @ weights[f"{name}.1.weight"].T + weights[f"{name}.1.bias"]
    gelu = torch.nn.functional.gelu(torch.from_numpy(hidden)).numpy()
    return norm(gelu, "3")


def test_a_score_is_the_formula_of_the_pair_alone(problem) -> None:
    """Written for one pair in NumPy, where there is no padding."""
    X, y = problem(60)
    model = clone(QUICK).set_params(epochs=2).fit(X, y)
    weights = {name: array.astype(float) for name, array in model.weights_.items()}
    found = model.predict(X)
    for row, (frames, tokens) in enumerate(list(X)[:12]):
        clip = projection(weights, "of_frames", frames)
        caption = projection(weights, "of_tokens", tokens)
        heard = attention(weights, "frames_to_tokens", 2, clip, caption).max(axis=0)
        read = attention(weights, "tokens_to_frames", 2, caption, clip).max(axis=0)
        both = np.concatenate([heard, read])
        hidden = np.maximum(0, weights["mlp.0.weight"] @ both + weights["mlp.0.bias"])
        score = 5 + 5 * (weights["mlp.3.weight"] @ hidden + weights["mlp.3.bias"])
        assert found[row] == pytest.approx(float(score[0]), abs=1e-5)


def test_a_pair_alone_is_the_pair_among_longer_ones(problem) -> None:
    X, y = problem(60)
    model = clone(QUICK).set_params(epochs=2).fit(X, y)
    together = model.predict(X)
    alone = [model.predict(X[[row]])[0] for row in range(9)]
    np.testing.assert_allclose(alone, together[:9], atol=1e-5)


def test_what_stands_in_padding_has_no_effect(rng) -> None:
    network = cross_attention._cross_attention((3, 2), 8, 2, 4, 0.5).eval()
    frames, tokens = rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 4, 2))
    no_frame, no_token = np.arange(5) >= [[5], [2]], np.arange(4) >= [[1], [4]]
    found = []
    for garbage in (0.0, 100.0):
        frames[no_frame], tokens[no_token] = garbage, -garbage
        given = frames.astype(np.float32), no_frame, tokens.astype(np.float32), no_token
        with torch.no_grad():
            found.append(network(*map(torch.from_numpy, given)))
    np.testing.assert_allclose(*found, atol=1e-6)


def test_it_is_saved_loaded_and_reproducible(problem, tmp_path: Path) -> None:
    X, y = problem(60)
    model = clone(QUICK).set_params(epochs=2).fit(X, y)
    again = clone(QUICK).set_params(epochs=2).fit(X, y)
    path = save_model(tmp_path / "attention.skops", model)
    np.testing.assert_array_equal(model.predict(X), again.predict(X))
    np.testing.assert_array_equal(model.predict(X), load_model(path).predict(X))


def test_rows_are_not_balanced_by_their_scores(problem) -> None:
    _, y = problem(30)
    np.testing.assert_array_equal(QUICK._score_weights(y, np.arange(20)), np.ones(20))


def test_the_defaults_are_the_published_configuration() -> None:
    assert CrossAttentionRegressor()._plan() == TrainingPlan(
        epochs=50,
        batch_size=30,
        learning_rate=1e-4,  # published: 1e-5, with layers of the encoders
        optimizer="adamw",
        weight_decay=1e-4,
        schedule="plateau",
        plateau_patience=5,
        block_rows=30,
    )
    model = CrossAttentionRegressor()
    model.widths_ = [(768, 1024)]
    network = model._build()
    assert (network.frames_to_tokens.embed_dim, network.frames_to_tokens.num_heads) == (512, 8)
    first, _, dropout, last = network.mlp
    assert (first.in_features, first.out_features, last.in_features) == (1024, 2048, 2048)
    assert dropout.p == 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, r"width .*got 0\b"),
        ({"n_heads": 3}, r"n_heads must divide width=8, got 3"),
        ({"hidden": 1.5}, r"hidden .*got 1.5"),
        ({"dropout": 1}, r"dropout .*got 1\b"),
    ],
)
def test_settings_are_checked(problem, settings, message: str) -> None:
    with pytest.raises(StackingError, match=message):
        clone(QUICK).set_params(**settings).fit(*problem(30))


def test_bad_input(problem, rng) -> None:
    X, y = problem(30)
    vectors = PairSequences([rng.normal(size=(2, 4))] * 30, rng.normal(size=(30, 4)))
    with pytest.raises(StackingError, match=r"one vector, expected a sequence.*large:tokens'\)"):
        clone(QUICK).fit(vectors, y)
    with pytest.raises(StackingError, match=r"a sequence of vectors, expected one.*'roberta-larg"):
        LSTMRegressor().fit(X, y)
    model = clone(QUICK).set_params(epochs=1).fit(X, y)
    other = PairSequences([np.zeros((2, 4))], [np.zeros((1, 3))])
    with pytest.raises(StackingError, match=r"\(4, 3\) dimensions, \(4, 4\) when fitted"):
        model.predict(other)
