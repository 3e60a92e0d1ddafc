import numpy as np
import pytest

from xacle_stack.stacking import _shifted
from xacle_stack.stacking._cholesky import add_products
from xacle_stack.stacking._shifted import NotRefinedError, solve_shifted

SHIFTS = np.logspace(0, 5, 8).tolist()


def lower_products(rows: np.ndarray) -> np.ndarray:
    """Return ``R Rᵀ`` in the lower triangle, and in the upper one what nobody may read."""
    gram = np.triu(np.full((len(rows), len(rows)), np.nan, dtype=rows.dtype), 1)
    gram = np.asfortranarray(gram)
    add_products(gram, rows)
    return gram


@pytest.fixture(params=["band", "Cholesky factors"])
def form(request, monkeypatch) -> None:
    monkeypatch.setattr(_shifted, "_MIN_BAND_ROWS", 7 if request.param == "band" else 10**9)
    monkeypatch.setattr(_shifted, "_BAND", 6)


@pytest.mark.parametrize("n_rows", [1, 5, 6, 7, 12, 40, 53])
def test_the_solutions_are_those_of_each_shift(rng, form, n_rows: int) -> None:
    Z, right = rng.normal(size=(n_rows, 30)), rng.normal(size=(n_rows, 2))
    solutions = solve_shifted(lower_products(Z), right, SHIFTS)
    for shift, solution in zip(SHIFTS, solutions, strict=True):
        expected = np.linalg.solve(Z @ Z.T + shift * np.eye(n_rows), right)
        np.testing.assert_allclose(solution, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_distinct", [0, 1, 7])
def test_what_reflects_nothing(rng, form, n_distinct: int) -> None:
    """Rows that repeat, or are zero, leave columns of the panels at zero."""
    Z = np.zeros((40, 30))
    Z[: 3 * n_distinct] = np.tile(rng.normal(size=(n_distinct, 30)), (3, 1))
    right = rng.normal(size=(40, 2))
    for shift, solution in zip(
        SHIFTS, solve_shifted(lower_products(Z), right, SHIFTS), strict=True
    ):
        expected = np.linalg.solve(Z @ Z.T + shift * np.eye(40), right)
        np.testing.assert_allclose(solution, expected, rtol=1e-9, atol=1e-12)


def test_a_singular_matrix_has_solutions(rng, form) -> None:
    Z = rng.normal(size=(40, 5)) * 1e3
    right = Z @ rng.normal(size=(5, 1))
    tiny = [1e-12 * 2.0**i for i in range(8)]
    for solution in solve_shifted(lower_products(Z), right, tiny):
        np.testing.assert_allclose(Z @ (Z.T @ solution), right, rtol=1e-6)


def test_float32_is_brought_to_float64(rng, form) -> None:
    Z, right = rng.normal(size=(40, 60)), rng.normal(size=(40, 3)) * [1e-6, 1.0, 1e6]
    gram = Z @ Z.T
    coarse = lower_products(Z.astype(np.float32))
    for shift, solution in zip(
        SHIFTS, solve_shifted(coarse, right, SHIFTS, lambda x: gram @ x), strict=True
    ):
        assert solution.dtype == np.float64
        expected = np.linalg.solve(gram + shift * np.eye(40), right)
        np.testing.assert_allclose(solution, expected, rtol=1e-9, atol=1e-12)


def test_what_is_too_coarse_is_told(rng, form) -> None:
    Z, right = rng.normal(size=(40, 60)), rng.normal(size=(40, 3))
    other = 100 * Z @ Z.T
    with pytest.raises(NotRefinedError):
        solve_shifted(lower_products(Z.astype(np.float32)), right, SHIFTS, lambda x: other @ x)
