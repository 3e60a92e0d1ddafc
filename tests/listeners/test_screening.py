import numpy as np
import pytest

from xacle_stack.listeners.screening import confirmed


@pytest.mark.parametrize("window", [0.5, 2, 5])
def test_a_rating_counts_if_another_of_its_pair_is_near(rng, window: float) -> None:
    pair, values = rng.integers(60, size=150), rng.integers(11, size=150).astype(float)
    expected = [
        any(
            other != row and pair[other] == pair[row] and abs(values[other] - values[row]) <= window
            for other in range(150)
        )
        for row in range(150)
    ]
    assert 0 < sum(expected) < 150
    assert confirmed(pair, values, window).tolist() == expected


def test_rounding_does_not_part_ratings_at_the_ends_of_the_window() -> None:
    assert 8.3 - 3.3 > 5
    assert confirmed(np.zeros(2, int), np.array([8.3, 3.3]), 5).all()
    assert not confirmed(np.zeros(2, int), np.array([8.4, 3.3]), 5).any()
    assert confirmed(np.zeros(1, int), np.array([3.3]), 5).tolist() == [False]
