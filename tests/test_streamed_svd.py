from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from threadpoolctl import threadpool_limits

from xacle_stack.streamed_svd import streamed_svd


def in_blocks(A: np.ndarray, size: int) -> Callable[[], Iterator[np.ndarray]]:
    return lambda: (A[start : start + size] for start in range(0, len(A), size))


def decaying(rng: np.random.Generator, n_rows: int, n_features: int) -> np.ndarray:
    U, _ = np.linalg.qr(rng.normal(size=(n_rows, n_features)))
    V, _ = np.linalg.qr(rng.normal(size=(n_features, n_features)))
    return U * 0.9 ** np.arange(n_features) @ V.T


@pytest.mark.parametrize("block_rows", [1, 64, 1000])
def test_a_decaying_spectrum_is_found(rng, block_rows: int) -> None:
    A = decaying(rng, 300, 80)
    values, components = streamed_svd(in_blocks(A, block_rows), 80, 8, 0)
    _, exact_values, exact = np.linalg.svd(A)
    np.testing.assert_allclose(values, exact_values[:8], rtol=1e-6)
    assert subspace_angles(components.T, exact[:8].T).max() < 1e-3
    rough, _ = streamed_svd(in_blocks(A, block_rows), 80, 8, 0, n_iter=0)
    assert (rough < values).all()
    more_values, more = streamed_svd(in_blocks(A, block_rows), 80, 8, 0, n_iter=40)
    np.testing.assert_allclose(more_values, exact_values[:8], rtol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(more * exact[:8], axis=1)), 1, rtol=1e-12)


@pytest.mark.parametrize("shape", [(40, 12), (5, 60), (3, 4), (1, 30)])
def test_what_is_small_is_exact(rng, shape: tuple[int, int]) -> None:
    A = rng.normal(size=shape)
    n_components = min(3, shape[1])
    values, components = streamed_svd(in_blocks(A, 2), shape[1], n_components, 0)
    _, exact_values, exact = np.linalg.svd(A)
    rank = min(*shape, n_components)
    np.testing.assert_allclose(values[:rank], exact_values[:rank], rtol=1e-10)
    np.testing.assert_allclose(values[rank:], 0, atol=1e-10)
    overlap = np.abs(np.sum(components[:rank] * exact[:rank], axis=1))
    np.testing.assert_allclose(overlap, 1, rtol=1e-10)
    np.testing.assert_allclose(components @ components.T, np.eye(n_components), atol=1e-10)


def test_missing_rank_leaves_zeros_and_orthonormal_rows(rng) -> None:
    A = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 30))
    duplicated = np.repeat(A[:5], 20, axis=0)
    for matrix in (A, duplicated, np.zeros((9, 30))):
        values, components = streamed_svd(in_blocks(matrix, 7), 30, 6, 0)
        exact = np.linalg.svd(matrix, compute_uv=False)[:6]
        np.testing.assert_allclose(values, exact, atol=1e-10)
        np.testing.assert_allclose(components @ components.T, np.eye(6), atol=1e-10)
        assert np.isfinite(components).all()


def test_signs_do_not_depend_on_chance(rng) -> None:
    A = decaying(rng, 60, 12)
    first, second = (streamed_svd(in_blocks(A, 16), 12, 4, seed)[1] for seed in (0, 1))
    np.testing.assert_allclose(first, second, atol=1e-9)
    largest = np.abs(first).argmax(axis=1)
    assert (first[np.arange(4), largest] > 0).all()


def test_small_singular_values_are_not_lost_by_squaring() -> None:
    exact = 10.0 ** -np.arange(0, 16, 2)
    values, _ = streamed_svd(in_blocks(np.diag(exact), 3), 8, 8, 0)
    np.testing.assert_allclose(values, exact, rtol=1e-2)


def test_blas_threads_change_no_byte(rng) -> None:
    A = rng.normal(size=(500, 90)).astype(np.float32)
    found = []
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            found.append(streamed_svd(in_blocks(A, 128), 90, 5, 0)[1].tobytes())
    assert found[0] == found[1]


def test_each_pass_reads_every_block_once(rng) -> None:
    A = rng.normal(size=(20, 100))
    passes = []

    def blocks() -> Iterator[np.ndarray]:
        passes.append(None)
        return in_blocks(A, 6)()

    streamed_svd(blocks, 100, 2, 0, n_iter=3)
    assert len(passes) == 4
