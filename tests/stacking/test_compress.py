import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from xacle_stack.stacking import compress
from xacle_stack.stacking.columns import ArrayColumns, column_moments
from xacle_stack.stacking.compress import BlockPCA


def correlated(rng, n_rows: int, n_columns: int) -> np.ndarray:
    """Return a table with clearly separate principal axes."""
    factors = rng.normal(size=(n_rows, 5)) * [5, 4, 3, 2, 1]
    noise = rng.normal(scale=0.05, size=(n_rows, n_columns))
    return 3 + factors @ rng.normal(size=(5, n_columns)) + noise


@pytest.mark.parametrize("n_columns", [30, 2100])  # exact, and from a randomised decomposition
def test_each_block_is_scikit_learns_pca(rng, n_columns: int) -> None:
    X = correlated(rng, 120, n_columns)
    table = ArrayColumns(np.hstack([X[:, :3], X]))
    blocks = {"narrow": slice(0, 3), "wide": slice(3, 3 + n_columns)}
    pca = BlockPCA(blocks, 3, 0).fit(table, np.ones(120))
    Z = pca.transform(table)
    assert (Z.dtype, Z.shape) == (np.float32, (120, 6))
    assert pca.blocks_ == {"narrow": slice(0, 3), "wide": slice(3, 6)}
    np.testing.assert_allclose(Z[:, :3], StandardScaler().fit_transform(X[:, :3]), atol=1e-5)
    expected = PCA(3, svd_solver="full").fit_transform(StandardScaler().fit_transform(X))
    signs = np.sign((Z[:, 3:] * expected).sum(axis=0))
    np.testing.assert_allclose(Z[:, 3:] * signs, expected, atol=2e-3 * expected.std())
    axes = pca.axes_["wide"].astype(np.float64)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    assert (axes[np.abs(axes).argmax(axis=0), range(3)] > 0).all()
    np.testing.assert_array_equal(pca.transform_rows(table.rows(slice(0, 120))), Z)


def test_a_weight_is_a_number_of_rows(rng) -> None:
    X, weights = correlated(rng, 60, 12), rng.integers(0, 3, size=60)
    blocks = {"all": slice(0, 12)}
    weighted = BlockPCA(blocks, 4, 0).fit(ArrayColumns(X), weights.astype(float))
    repeated = ArrayColumns(np.repeat(X, weights, axis=0))
    by_rows = BlockPCA(blocks, 4, 0).fit(repeated, np.ones(weights.sum()))
    np.testing.assert_allclose(
        weighted.transform_rows(X), by_rows.transform_rows(X), rtol=1e-3, atol=1e-3
    )


def test_of_blocks_with_the_same_values_the_first_is_kept(rng) -> None:
    X = rng.normal(size=(40, 3))
    table = ArrayColumns(np.hstack([X, X[:, :1], X, X[:, :1]]))
    blocks = {"a": slice(0, 3), "cosine": slice(3, 4), "copy": slice(4, 7), "twin": slice(7, 8)}
    pca = BlockPCA(blocks, 2, 0).fit(table, np.ones(40))
    assert list(pca.blocks_) == ["a", "cosine", "twin"]  # single columns cost nothing
    assert list(blocks) == ["a", "cosine", "copy", "twin"]  # the caller's stay as they are


def test_blocks_with_equal_moments_are_no_copies(rng) -> None:
    ranks = np.column_stack([rng.permutation(50) for _ in range(6)]).astype(float)
    blocks = {"a": slice(0, 3), "b": slice(3, 6)}
    assert list(BlockPCA(blocks, 2, 0).fit(ArrayColumns(ranks), np.ones(50)).blocks_) == ["a", "b"]


def test_sums_that_differ_by_rounding_are_of_copies(rng, monkeypatch) -> None:
    X = rng.normal(size=(300, 3)) * [1, 1e-9, 1e9] + [100, 0, 0]
    X = np.hstack([X, np.full((300, 1), 7.3)])
    blocks = {"a": slice(0, 4), "copy": slice(4, 8)}

    def rounded_otherwise(columns, weights):
        mean, scale = column_moments(columns, weights)
        direction = np.repeat([1, -1], 4)
        return mean * (1 + 1e-15 * direction) + 1e-25 * direction, scale * (1 + 1e-14 * direction)

    monkeypatch.setattr(compress, "column_moments", rounded_otherwise)
    table = ArrayColumns(np.hstack([X, X]))
    assert list(BlockPCA(blocks, 2, 0).fit(table, np.ones(300)).blocks_) == ["a"]


@pytest.mark.parametrize("row", [0, 130, 299])
def test_a_difference_in_a_sampled_row_or_in_the_moments_makes_no_copy(rng, row: int) -> None:
    X = rng.normal(size=(300, 2))
    blocks = {"a": slice(0, 2), "b": slice(2, 4)}
    for at, shift in ((row, np.finfo(float).eps), (200, 0.1)):  # sampled; not sampled
        other = X.copy()
        other[at, 1] += shift * np.abs(other[at, 1])
        table = ArrayColumns(np.hstack([X, other]))
        assert list(BlockPCA(blocks, 2, 0).fit(table, np.ones(300)).blocks_) == ["a", "b"]
    # The first rows alike, and so are the moments.
    later = np.vstack([X[:64], rng.permutation(X[64:])])
    table = ArrayColumns(np.hstack([X, later]))
    assert list(BlockPCA(blocks, 2, 0).fit(table, np.ones(300)).blocks_) == ["a", "b"]


def test_constant_columns_become_zero(rng) -> None:
    X = rng.normal(size=(40, 4))
    X[:, 1] = 7.3
    table = ArrayColumns(X)
    pca = BlockPCA({"all": slice(0, 4)}, 8, 0).fit(table, np.ones(40))
    assert (pca.transform(table)[:, 1] == 0).all()
    assert np.isfinite(pca.transform_rows(X + 1)).all()
