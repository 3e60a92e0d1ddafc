import numpy as np
import pytest
from scipy.spatial.distance import cdist

from xacle_stack.stacking.block_kernel import BlockKernel, with_axes


def wide(rng, n_rows: int = 40, n_columns: int = 12) -> tuple[BlockKernel, np.ndarray]:
    relevance, amplitude = rng.uniform(0, 0.3, size=(2, n_columns)), np.array([1.5, 0.4])
    return BlockKernel(relevance, amplitude), rng.normal(size=(n_rows, n_columns)).astype(
        np.float32
    )


def expected(kernel: BlockKernel, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    return sum(
        amplitude * np.exp(-cdist(A, B, "sqeuclidean", w=relevance))
        for relevance, amplitude in zip(kernel.relevance, kernel.amplitude, strict=True)
    )


def test_the_kernel_is_a_sum_of_squared_exponentials(rng) -> None:
    kernel, X = wide(rng)
    points = kernel.points(X)
    np.testing.assert_allclose(kernel.between(X[:7], points), expected(kernel, X[:7], X), rtol=1e-4)
    among = kernel.among(points)
    np.testing.assert_allclose(among, expected(kernel, X, X), rtol=1e-4)
    np.testing.assert_allclose(among, among.T, rtol=1e-5)
    np.testing.assert_array_equal(among.diagonal(), np.float32(1.9))


def test_among_has_tiles_of_rows(rng) -> None:
    kernel, X = wide(rng, 1030, 3)
    np.testing.assert_allclose(
        kernel.among(kernel.points(X)), kernel.between(X, kernel.points(X)), atol=1e-5
    )


def test_all_axes_are_all_columns(rng) -> None:
    kernel, X = wide(rng)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    axes = np.sqrt(kernel.relevance)[:, :, np.newaxis] * rotation
    rotated = BlockKernel(kernel.relevance, kernel.amplitude, axes.astype(np.float32))
    between = rotated.between(X[:7], rotated.points(X))
    np.testing.assert_allclose(between, expected(kernel, X[:7], X), rtol=1e-4)


def test_what_lies_outside_of_the_axes_counts_as_orthogonal(rng) -> None:
    kernel, X = wide(rng)
    axes = np.zeros((2, 12, 5))
    axes[:, range(5), range(5)] = np.sqrt(kernel.relevance[:, :5])
    few = BlockKernel(kernel.relevance, kernel.amplitude, axes.astype(np.float32))
    # As if every row had columns of its own in place of the last seven.
    lengths = np.square(X[:, 5:]) @ kernel.relevance[:, 5:].T
    wanted = sum(
        amplitude
        * np.exp(-cdist(X, X, "sqeuclidean", w=np.r_[relevance[:5], np.zeros(7)]))
        * np.exp(-length[:, np.newaxis] - length)
        for relevance, amplitude, length in zip(
            kernel.relevance, kernel.amplitude, lengths.T, strict=True
        )
    )
    np.fill_diagonal(wanted, 1.9)
    among = few.among(few.points(X))
    np.testing.assert_allclose(among, wanted, rtol=1e-4)
    assert np.linalg.eigvalsh(among.astype(np.float64)).min() > -1e-6


@pytest.mark.parametrize(("told", "n_axes"), [("leading", 32), ("every", None)])
def test_axes_are_taken_where_the_scores_are_as_likely(told: str, n_axes: int | None) -> None:
    rng = np.random.default_rng(0)
    spread = np.r_[np.full(3, 5.0), np.full(297, 0.005)] if told == "leading" else np.ones(300)
    X = (rng.normal(size=(900, 300)) * spread).astype(np.float32)
    kernel = BlockKernel(np.full((1, 300), 0.5 / np.square(spread).sum()), np.ones(1))
    gram = kernel.among(kernel.points(X)).astype(np.float64)
    gram[np.diag_indices(900)] += 0.01
    y = np.linalg.cholesky(gram) @ rng.normal(size=900)  # drawn from this kernel
    noise = np.full(450, 0.01)
    found = with_axes(kernel, X[:450], X[450:], y[450:], noise, np.random.RandomState(0))
    assert (None if found.axes is None else found.axes.shape[2]) == n_axes
    assert with_axes(kernel, X[:10], X[450:], y[450:], noise, np.random.RandomState(0)) is kernel
