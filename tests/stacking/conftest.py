"""What the stacker's tests share."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from xacle_stack.features import FeatureBuilder, PairEmbeddings
from xacle_stack.table import FeatureTable

Problem = tuple[FeatureTable, np.ndarray, np.ndarray]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small matrices are multiplied slowly by several threads."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def problem() -> Callable[..., Problem]:
    """Return a function that makes two spaces, each of which knows half of the truth."""

    def make(n_pairs: int = 150, seed: int = 0) -> Problem:
        rng = np.random.default_rng(seed)
        captions = rng.integers(n_pairs // 3, size=n_pairs)
        a = rng.normal(size=(n_pairs, 8))
        b = rng.normal(size=(n_pairs // 3, 8))[captions]
        X = FeatureBuilder(["one", "two"], n_components=2).fit_transform(
            PairEmbeddings({"one": (a[:, :4], b[:, :4]), "two": (a[:, 4:], b[:, 4:])})
        )
        return X, 5 + (a * b).sum(1) / 2 + rng.normal(size=n_pairs), captions.astype(str)

    return make
