"""The same bytes on a cluster as on one machine, and what is left where a worker is killed."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from support import BATCH_TOY, TOY, WriteData
from worker_tasks import count_unpickled, die_always, die_once, fail_on_three, square

from xacle_stack._tasks import run_tasks, runs_elsewhere
from xacle_stack.cache import FeatureCache
from xacle_stack.cache.segment_file import read_keys
from xacle_stack.errors import CacheError, WorkerError
from xacle_stack.extract import extract_embeddings
from xacle_stack.pairs import Pairs, read_pairs

TESTS = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore:::(distributed|dask|ray|tornado)")


@pytest.fixture(scope="session")
def dask_client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            env={"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def dask(dask_client: Any) -> Iterator[Any]:
    """Run tasks on two workers, each of one thread."""
    dask_client.wait_for_workers(2)
    with joblib.parallel_config(backend="dask"):
        yield dask_client


def names(n_tasks: int) -> list[str]:
    return [f"rows {number}" for number in range(n_tasks)]


def test_dask_returns_results_in_order(dask: Any, tmp_path: Path) -> None:
    assert runs_elsewhere()
    found = list(run_tasks(partial(square, 1), range(9), names=names(9)))
    assert [value for value, _ in found] == [number**2 + 1 for number in range(9)]
    assert os.getpid() not in {pid for _, pid in found}
    function = partial(count_unpickled, np.zeros(10_000, np.uint8))
    unpickled = list(run_tasks(function, range(9), names=names(9), folder=tmp_path))
    assert len({found[:2] for found in unpickled}) == len({found[0] for found in unpickled})
    assert list(tmp_path.iterdir()) == []


def test_dask_names_a_task_that_fails(dask: Any) -> None:
    with pytest.raises(CacheError, match=r"^rows 3: the disk is full"):
        list(run_tasks(fail_on_three, range(4), names=names(4)))


def test_dask_gives_the_task_of_a_killed_worker_to_another(dask: Any, tmp_path: Path) -> None:
    function = partial(die_once, tmp_path / "marker")
    assert list(run_tasks(function, range(9), names=names(9))) == list(range(9))
    assert (tmp_path / "marker").exists()


def test_a_task_that_kills_every_worker_is_one_clear_error(dask: Any) -> None:
    with pytest.raises(WorkerError, match=r"worker process died.*KilledWorker.* Run again\.$"):
        list(run_tasks(die_always, range(4), names=names(4), kept="Run again."))


def table(root: Path, pairs: Pairs, encoder: str) -> bytes:
    cached = FeatureCache(root).load(pairs)
    return cached.audio(encoder).tobytes() + cached.text(encoder).tobytes()


def n_stored(root: Path) -> int:
    """Return how many rows all segments hold, those that stand twice included."""
    return sum(len(read_keys(path)) for path in root.rglob("*.h5"))


def test_dask_encodes_the_same_bytes(dask: Any, make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=60), "train")
    with joblib.parallel_config(backend="threading"):
        alone = extract_embeddings([pairs], [TOY, BATCH_TOY], tmp_path / "alone", batch_size=3)
    report = extract_embeddings([pairs], [TOY, BATCH_TOY], tmp_path / "store", batch_size=3)
    assert report == alone
    for encoder in ("toy", "batch-toy"):
        assert table(tmp_path / "store", pairs, encoder) == table(
            tmp_path / "alone", pairs, encoder
        )
    again = extract_embeddings([pairs], [TOY, BATCH_TOY], tmp_path / "store", batch_size=3)
    assert not again.encoded
    assert again.reused == report.encoded
