import numpy as np
import pytest

from xacle_stack.errors import FeatureError
from xacle_stack.features.pair import (
    cosine_similarity,
    lexical_overlap,
    normalised_pairs,
    pair_features,
    proximities,
)


@pytest.fixture
def pairs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    a, b = rng.normal(size=(2, 7, 5)).astype(np.float32)
    return a * 3, b


def test_pair_features_are_the_formula(pairs) -> None:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in pairs)
    expected = np.hstack([a, b, a * b, abs(a - b), (a - b) ** 2, (a * b).sum(1, keepdims=True)])
    features = pair_features(*pairs)
    np.testing.assert_allclose(features, expected, atol=1e-6)
    assert features.dtype == np.float32
    assert features.shape[1] == 5 * 5 + 1


def test_cosine_is_the_formula(pairs) -> None:
    a, b = pairs
    expected = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(cosine_similarity(a, b), expected, rtol=1e-6)
    np.testing.assert_allclose(cosine_similarity(a, a), 1.0, rtol=1e-6)
    assert (cosine_similarity(a, a) <= 1).all()


def test_alone_equals_together(pairs) -> None:
    a, b = pairs
    together = pair_features(a, b)
    for row in range(len(a)):
        np.testing.assert_array_equal(pair_features(a[[row]], b[[row]])[0], together[row])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_does_not_matter(pairs, scale: float) -> None:
    a, b = pairs
    np.testing.assert_allclose(
        pair_features(a * np.float32(scale), b), pair_features(a, b), atol=1e-6
    )


def test_proximities_are_their_formulas(pairs) -> None:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in map(np.float64, pairs))
    cosine = (a * b).sum(axis=1)
    expected = [cosine, np.arccos(cosine), abs(a - b).sum(1), np.sqrt(((a - b) ** 2).sum(1))]
    found = proximities(*pairs)
    np.testing.assert_allclose(found, np.column_stack(expected), rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    for row in range(len(a)):
        np.testing.assert_array_equal(proximities(*(x[[row]] for x in pairs))[0], found[row])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_angle_is_right_where_vectors_are_nearly_equal_or_opposite(dtype) -> None:
    a = np.array([[1, 0]] * 6, dtype=dtype)
    angles = np.array([0, 1e-4, 1e-3, np.pi - 1e-3, np.pi - 1e-4, np.pi])
    b = np.column_stack([np.cos(angles), np.sin(angles)]).astype(dtype)
    tiny = np.finfo(dtype).eps
    found = proximities(a, b)
    np.testing.assert_allclose(found[:, 1], angles, rtol=2 * tiny, atol=2 * tiny)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 512)).astype(dtype)
    assert (proximities(vectors, vectors) == proximities(vectors, 4 * vectors)).all()
    np.testing.assert_array_equal(proximities(vectors, vectors)[:, 1:], 0)
    opposite = proximities(vectors, -vectors)
    np.testing.assert_allclose(opposite[:, 1], np.pi, rtol=tiny)
    np.testing.assert_allclose(opposite[:, [0, 3]], [[-1, 2]] * 50, rtol=8 * tiny)


def test_caller_arrays_stay_untouched(pairs) -> None:
    before = [x.copy() for x in pairs]
    pair_features(*pairs)
    for x, y in zip(pairs, before, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
@pytest.mark.parametrize(
    "function", [pair_features, proximities, cosine_similarity, normalised_pairs]
)
def test_a_row_without_direction_is_named(pairs, function, value: float) -> None:
    a, b = pairs
    b = b.copy()
    b[4] = value
    with pytest.raises(FeatureError, match=r"text embeddings: 1 of 7 rows .* first is row 4"):
        function(a, b)


def test_shapes_that_do_not_fit_are_told(pairs) -> None:
    a, b = pairs
    with pytest.raises(FeatureError, match=r"\(7, 5\) but text .*\(6, 5\)"):
        pair_features(a, b[:6])
    with pytest.raises(FeatureError, match=r"audio embeddings: expected .* got shape \(5,\)"):
        pair_features(a[0], b[0])
    with pytest.raises(FeatureError, match="audio embeddings: expected numbers"):
        pair_features(np.array([["x"]]), np.array([["y"]]))


@pytest.fixture
def bags(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    audio, text = rng.poisson(0.4, size=(2, 9, 12)).astype(np.float32)
    audio[3], text[5], audio[6], text[6] = 0, 0, 0, 0
    return audio, text


def test_lexical_overlap_is_the_formula(bags) -> None:
    overlap = lexical_overlap(*bags)
    assert overlap.shape == (9, 2)
    assert overlap.dtype == np.float32
    for heard, written, found in zip(*bags, overlap, strict=True):
        a, b = {*np.flatnonzero(heard)}, {*np.flatnonzero(written)}
        expected = [len(a & b) / len(b) if b else 0, len(a & b) / len(a | b) if a | b else 0]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert overlap.max() > 0
    np.testing.assert_array_equal(overlap[[3, 5, 6]], 0)


def test_lexical_overlap_alone_equals_together(bags) -> None:
    audio, text = bags
    together = lexical_overlap(audio, text)
    for row in range(len(audio)):
        np.testing.assert_array_equal(lexical_overlap(audio[[row]], text[[row]])[0], together[row])


def test_words_that_are_no_counts_are_told(bags) -> None:
    audio, text = bags
    for value in (-1.0, np.nan, np.inf):
        bad = text.copy()
        bad[4, 2] = value
        with pytest.raises(FeatureError, match=r"text words: 1 of 9 rows .* first is row 4"):
            lexical_overlap(audio, bad)
    with pytest.raises(FeatureError, match=r"\(9, 12\) but text .*\(9, 11\)"):
        lexical_overlap(audio, text[:, 1:])
    with pytest.raises(FeatureError, match=r"audio words: expected .* got shape \(12,\)"):
        lexical_overlap(audio[0], text[0])
