from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from sklearn.decomposition import PCA

from xacle_stack import FeatureBuilder, PairEmbeddings
from xacle_stack.errors import FeatureError, ModelFileError
from xacle_stack.features.whitening import whitened_features, whitened_widths, whitening


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def skewed(rng, n_pairs: int = 200, n_dims: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors that vary far more in some directions than in others, around two means."""
    mixing = rng.normal(size=(n_dims, n_dims)) * np.linspace(0.1, 3, n_dims)
    sides = (
        unit(rng.normal(size=(n_pairs, n_dims)) @ mixing + rng.normal(size=n_dims))
        for _ in range(2)
    )
    return tuple(sides)


def test_axes_are_principal_ones_scaled_to_equal_variance(rng) -> None:
    a, b = skewed(rng)
    blocks = [(a[:90], b[:90]), (a[90:], b[90:])]
    means, axes = whitening(blocks, 12)
    np.testing.assert_allclose(means, [a.mean(axis=0), b.mean(axis=0)])
    centred = np.concatenate([a - means[0], b - means[1]])
    reference = PCA().fit(centred)
    variances = reference.explained_variance_ * (len(centred) - 1) / len(centred)
    expected = reference.components_.T / np.sqrt(variances + 0.01 * variances.mean())
    np.testing.assert_allclose(np.abs(axes), np.abs(expected), rtol=1e-6)
    assert (axes[np.abs(axes).argmax(axis=0), range(12)] > 0).all()
    np.testing.assert_array_equal(whitening(blocks, 5)[1], axes[:, :5])


def test_vectors_that_are_all_the_same_have_finite_axes() -> None:
    same = np.tile(unit(np.ones((1, 4))), (30, 1)).astype(np.float32)
    means, axes = whitening([(same, same)], 4)
    assert np.isfinite(axes).all()
    features = whitened_features((same - means[0]) @ axes, (same - means[1]) @ axes)
    assert np.isfinite(features).all()
    assert np.abs(whitened_features(np.zeros((1, 3)), np.zeros((1, 3)))).max() == 0


def test_differences_and_cosines_over_leading_axes(rng) -> None:
    a, b = rng.normal(size=(2, 7, 20))
    features = whitened_features(a, b)
    assert whitened_widths(20) == {"whitened difference": 20, "whitened cosines": 3}
    np.testing.assert_allclose(features[:, :20], np.abs(unit(a) - unit(b)))
    for column, n_axes in enumerate((8, 16, 20)):
        expected = [1 - cosine(x[:n_axes], y[:n_axes]) for x, y in zip(a, b, strict=True)]
        np.testing.assert_allclose(features[:, 20 + column], expected)


def test_the_builder_adds_blocks_to_each_space_and_changes_no_other(rng) -> None:
    source = PairEmbeddings({"one": skewed(rng), "two": skewed(rng, n_dims=9)})
    plain = FeatureBuilder(["one", "two"], n_components=3).fit_transform(source)
    builder = FeatureBuilder(["one", "two"], n_components=3, n_whitened=10)
    table = builder.fit_transform(source)
    for name in plain.blocks:
        np.testing.assert_array_equal(table.block(name), plain.block(name))
    assert table.families["two"][-2:] == ("two/whitened difference", "two/whitened cosines")
    assert table.width("one/whitened difference") == 10
    assert table.width("two/whitened difference") == 9
    a, b = source.audio("one"), source.text("one")
    means, axes = whitening([(a, b)], 10)
    expected = whitened_features((a - means[0]) @ axes, (b - means[1]) @ axes)
    whole = np.hstack([table.block(f"one/{name}") for name in whitened_widths(10)])
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    for row in (0, 57):  # to the bit, whatever it stands beside
        alone = builder.transform(source[[row]])
        np.testing.assert_array_equal(alone.values[0], table.values[row])


@pytest.mark.parametrize("value", [-1, 2.5, True])
def test_a_bad_number_of_axes_is_told(rng, value: object) -> None:
    with pytest.raises(FeatureError, match="n_whitened must be a whole number, 0 or more"):
        FeatureBuilder(["one"], n_whitened=value).fit(PairEmbeddings({"one": skewed(rng)}))


def test_a_vector_of_zeros_is_named(rng) -> None:
    a, b = skewed(rng)
    b[7] = 0
    with pytest.raises(FeatureError, match="space 'one': text .* row 7"):
        FeatureBuilder(["one"], n_components=2, n_whitened=4).fit(PairEmbeddings({"one": (a, b)}))


def test_what_a_file_says_of_the_axes_is_checked(rng) -> None:
    make = partial(FeatureBuilder, ["one"], n_components=2, n_whitened=4)
    source = PairEmbeddings({"one": skewed(rng)})
    make().fit(source).check_state()
    means, axes = make().fit(source).whitening_["one"]
    for spoiled, told in (
        ({}, "whitening_ is not that of the spaces"),
        ({"one": axes}, "no pair of means and axes"),
        ({"one": (means, axes * np.nan)}, "axes of whitening_.*NaN"),
        ({"one": (means[:, 1:], axes)}, "means of whitening_"),
        ({"one": (means, axes[:, 1:])}, r"axes of whitening_.* shape \(12, 3\)"),
    ):
        builder = make().fit(source)
        builder.whitening_ = spoiled
        with pytest.raises(ModelFileError, match=told):
            builder.check_state()
