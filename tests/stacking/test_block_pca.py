import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from xacle_stack.stacking.block_pca import BlockPCA
from xacle_stack.stacking.inputs import table_from_array


def correlated(rng, n_rows: int, n_columns: int) -> np.ndarray:
    """Return a table with clearly separate principal axes."""
    factors = rng.normal(size=(n_rows, 5)) * [5, 4, 3, 2, 1]
    noise = rng.normal(scale=0.05, size=(n_rows, n_columns))
    return 3 + factors @ rng.normal(size=(5, n_columns)) + noise


@pytest.mark.parametrize("n_columns", [30, 2100])  # exact, and from a randomised decomposition
def test_each_block_is_scikit_learns_pca(rng, n_columns: int) -> None:
    X = correlated(rng, 120, n_columns)
    table = table_from_array(np.hstack([X[:, :3], X]))
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
    np.testing.assert_array_equal(pca.transform_values(table.rows(slice(0, 120))), Z)


def test_a_weight_is_a_number_of_rows(rng) -> None:
    X, weights = correlated(rng, 60, 12), rng.integers(0, 3, size=60)
    blocks = {"all": slice(0, 12)}
    weighted = BlockPCA(blocks, 4, 0).fit(table_from_array(X), weights.astype(float))
    repeated = table_from_array(np.repeat(X, weights, axis=0))
    by_rows = BlockPCA(blocks, 4, 0).fit(repeated, np.ones(weights.sum()))
    np.testing.assert_allclose(
        weighted.transform_values(X), by_rows.transform_values(X), rtol=1e-3, atol=1e-3
    )


def test_constant_columns_become_zero(rng) -> None:
    X = rng.normal(size=(40, 4))
    X[:, 1] = 7.3
    table = table_from_array(X)
    pca = BlockPCA({"all": slice(0, 4)}, 8, 0).fit(table, np.ones(40))
    assert (pca.transform(table)[:, 1] == 0).all()
    assert np.isfinite(pca.transform_values(X + 1)).all()
