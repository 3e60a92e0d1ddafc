"""The same bytes on a cluster as on one machine, and what is left where a worker is killed."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from support import BATCH_TOY, TOY, WriteData, toy_that
from worker_tasks import (
    DyingCosines,
    DyingRegressor,
    FailingRegressor,
    count_unpickled,
    die_always,
    die_once,
    fail_on_three,
    raise_what_stays,
    return_what_stays,
    square,
    wait_for_release,
)

from xacle_stack import _tasks
from xacle_stack._tasks import run_tasks, runs_elsewhere
from xacle_stack.cache import CachedPairs, FeatureCache
from xacle_stack.cache.segment_file import read_keys
from xacle_stack.encoders import EncoderChoice
from xacle_stack.errors import CacheError, StackingError, WorkerError
from xacle_stack.extract import extract_embeddings
from xacle_stack.features import FeatureBuilder, VectorBuilder
from xacle_stack.pairs import Pairs, read_pairs
from xacle_stack.recipe import recipe_from
from xacle_stack.scorer import Scorer
from xacle_stack.stacking import Stacker
from xacle_stack.table import FeatureTable

TESTS = Path(__file__).parent
START_S = 300  # a busy machine may take minutes to start workers
PYTHONPATH = os.pathsep.join([str(TESTS), str(TESTS.parent)])
pytestmark = [
    pytest.mark.filterwarnings("ignore:::(distributed|dask|ray|tornado)"),
    pytest.mark.timeout(method="thread"),  # no signal ends what waits for Ray
]


@pytest.fixture(scope="session")
def dask_client() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    dask = pytest.importorskip("dask")
    with (
        # A local cluster gives up a worker that is not back so long after any of its deaths.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            env={"PYTHONPATH": PYTHONPATH},
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture
def dask(dask_client: Any) -> Iterator[Any]:
    """Run tasks on two workers, each of one thread."""
    dask_client.wait_for_workers(2, timeout=START_S)
    with joblib.parallel_config(backend="dask", client=dask_client):
        yield dask_client


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    joblib_of_ray = pytest.importorskip("ray.util.joblib")
    settings = {
        "PYTHONPATH": PYTHONPATH,
        "RAY_AUTH_MODE": "disabled",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    with pytest.MonkeyPatch.context() as environment:
        for name, value in settings.items():
            environment.setenv(name, value)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        joblib_of_ray.register_ray()
        yield ray
        ray.shutdown()


@pytest.fixture
def ray(ray_cluster: Any) -> Iterator[Any]:
    """Run tasks on two processes; the task of one that dies is given to another."""
    again = {"max_restarts": -1, "max_task_retries": 3}
    with joblib.parallel_config(backend="ray", n_jobs=-1, ray_remote_args=again):
        yield ray_cluster


@pytest.fixture(params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def names(n_tasks: int) -> list[str]:
    return [f"rows {number}" for number in range(n_tasks)]


def test_results_come_back_in_order(dask: Any, tmp_path: Path) -> None:
    assert runs_elsewhere()
    function = partial(square, 1)
    found = list(run_tasks(function, range(9), names=names(9), folder=tmp_path))
    assert [value for value, _ in found] == [number**2 + 1 for number in range(9)]
    assert os.getpid() not in {pid for _, pid in found}
    assert list(tmp_path.iterdir()) == []


def test_a_worker_unpickles_a_function_once(dask: Any, tmp_path: Path) -> None:
    function = partial(count_unpickled, np.zeros(10_000, np.uint8))
    found = list(run_tasks(function, range(9), names=names(9), folder=tmp_path))
    assert len({each[:2] for each in found}) == len({each[0] for each in found})


def test_a_task_that_fails_is_named(dask: Any) -> None:
    with pytest.raises(CacheError, match=r"^rows 3: the disk is full"):
        list(run_tasks(fail_on_three, range(4), names=names(4)))


def test_the_task_of_a_killed_worker_is_given_to_another(cluster: Any, tmp_path: Path) -> None:
    function = partial(die_once, tmp_path / "marker")
    assert list(run_tasks(function, range(9), names=names(9))) == list(range(9))
    assert (tmp_path / "marker").exists()


def test_a_task_that_kills_every_worker_is_one_clear_error(dask: Any) -> None:
    with pytest.raises(WorkerError, match=r"worker process died.*KilledWorker.* Run again\.$"):
        list(run_tasks(die_always, range(4), names=names(4), kept="Run again."))


@pytest.mark.parametrize("function", [return_what_stays, raise_what_stays])
def test_what_cannot_be_sent_back_is_one_clear_error(dask: Any, function: Any) -> None:
    with pytest.raises(WorkerError, match=r"it stays here|a worker: .*Error: bad input"):
        list(run_tasks(function, range(4), names=names(4)))


def test_a_cluster_without_workers_is_one_clear_error(tmp_path: Path, monkeypatch) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr(_tasks, "_NO_WORKERS_S", 0.5)
    monkeypatch.setattr(_tasks, "_LOOK_S", 0.1)
    function = partial(wait_for_release, tmp_path)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
        joblib.parallel_config(backend="dask", client=client),
    ):

        def lose_workers() -> None:
            wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 2)
            cluster.scale(0)
            wait_until(lambda: not client.ncores())
            (tmp_path / "released").touch()

        thread = threading.Thread(target=lose_workers)
        thread.start()
        with pytest.raises(WorkerError, match=r"^the Dask cluster inproc://.* has had no worker"):
            list(run_tasks(function, range(9), names=names(9)))
        thread.join()


def test_a_task_that_fails_while_others_end_does_not_stop_the_client(monkeypatch) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")

    class SlowQueue(queue.Queue):
        def empty(self) -> bool:
            found = super().empty()
            time.sleep(0 if found else 0.02)  # another thread may run before what follows
            return found

    monkeypatch.setattr("distributed.client.pyQueue", SlowQueue)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=4, processes=False, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        for _ in range(5):
            with (
                joblib.parallel_config(backend="dask", client=client),
                pytest.raises(CacheError, match="the disk is full"),
            ):
                list(run_tasks(fail_on_three, [*range(4)] * 5, names=names(20)))


def test_a_worker_of_ray_that_is_not_restarted_is_one_clear_error(
    ray_cluster: Any, tmp_path: Path
) -> None:
    function = partial(die_once, tmp_path / "marker")
    with (
        joblib.parallel_config(backend="ray", n_jobs=2),
        pytest.raises(WorkerError, match=r"worker process died.*Run again\.$"),
    ):
        list(run_tasks(function, range(4), names=names(4), kept="Run again."))


def table(root: Path, pairs: Pairs, encoder: str) -> bytes:
    cached = FeatureCache(root).load(pairs)
    return cached.audio(encoder).tobytes() + cached.text(encoder).tobytes()


def n_stored(root: Path) -> int:
    """Return how many rows all segments hold, those that stand twice included."""
    return sum(len(read_keys(path)) for path in root.rglob("*.h5"))


def encode_alone(pairs: Pairs, encoders: list[EncoderChoice], root: Path, **settings: Any) -> Any:
    with joblib.parallel_config(backend="threading"):
        return extract_embeddings([pairs], encoders, root, **settings)


def test_the_same_bytes_are_encoded(cluster: Any, make_data: WriteData, tmp_path: Path) -> None:
    pairs = read_pairs(make_data(train=60), "train")
    encoders = [TOY, BATCH_TOY]
    alone = encode_alone(pairs, encoders, tmp_path / "alone", batch_size=3)
    report = extract_embeddings([pairs], encoders, tmp_path / "store", batch_size=3)
    assert report == alone
    for encoder in ("toy", "batch-toy"):
        expected = table(tmp_path / "alone", pairs, encoder)
        assert table(tmp_path / "store", pairs, encoder) == expected


def test_what_is_there_is_not_encoded_again(
    dask: Any, make_data: WriteData, tmp_path: Path
) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    encode_alone(pairs.take(range(20)), [TOY], tmp_path / "store", batch_size=2)
    before = n_stored(tmp_path / "store")
    report = extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=2)
    assert report.reused["toy", "audio"] == report.encoded["toy", "audio"] == 20
    assert n_stored(tmp_path / "store") == before + report.encoded.total()
    assert not extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=2).encoded
    # Without the memo of keys all is decoded, and found.
    for memo in (tmp_path / "store" / "keys").iterdir():
        memo.unlink()
    again = extract_embeddings([pairs], [TOY], tmp_path / "store", batch_size=2)
    assert not again.encoded
    assert again.reused["toy", "audio"] == 40


def test_a_clip_that_cannot_be_used_is_reported(
    dask: Any, make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    data = make_data(train=20)
    monkeypatch.chdir(tmp_path)
    pairs = read_pairs(data.relative_to(tmp_path), "train")  # workers work in another folder
    pairs.audio[3].write_text("no sound")
    report = extract_embeddings([pairs], [TOY], "store", batch_size=2)
    assert list(report.failures) == [pairs.audio[3]]
    assert report.encoded["toy", "audio"] == 19


def test_a_worker_killed_while_it_encodes_loses_nothing_and_nothing_is_there_twice(
    dask: Any, make_data: WriteData, tmp_path: Path
) -> None:
    pairs = read_pairs(make_data(train=40), "train")
    # Two of a shard's three batches are in segments when its worker dies.
    choice = toy_that(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    path = Path(choice.name.rpartition(":")[0])
    small = 'StoreWriter.__init__.__kwdefaults__["segment_rows"] = 2\n'
    path.write_text(f"{path.read_text()}\nfrom xacle_stack.cache import StoreWriter\n{small}")
    report = extract_embeddings([pairs], [choice], tmp_path / "store", batch_size=2)
    assert (tmp_path / "acted").exists()
    encode_alone(pairs, [choice], tmp_path / "alone", batch_size=2)
    assert table(tmp_path / "store", pairs, "toy") == table(tmp_path / "alone", pairs, "toy")
    assert n_stored(tmp_path / "store") == 40 + len(set(pairs.captions))
    assert report.encoded["toy", "audio"] + report.reused["toy", "audio"] == 40


@pytest.fixture
def many(make_data: WriteData, tmp_path: Path) -> tuple[Scorer, CachedPairs]:
    """Return a fitted scorer, and embeddings of more pairs than one block."""
    train = read_pairs(make_data(train=40), "train")
    settings = {"name": "toy", "spaces": [TOY.name], "features": {"n_components": 2}}
    recipe = recipe_from({**settings, "stacker": {"preset": "paper"}}, "a test")
    with joblib.parallel_config(backend="threading"):
        scorer = Scorer(recipe, store=tmp_path / "store").fit(train)
    cached = FeatureCache(tmp_path / "store").load(train)
    return scorer, cached.take(np.arange(9_000) % 40)


def test_the_same_scores(cluster: Any, many: tuple[Scorer, CachedPairs], caplog) -> None:
    scorer, pairs = many
    with joblib.parallel_config(backend="threading"):
        expected = scorer.assess(pairs, interval=0.9)
    found = scorer.assess(pairs, interval=0.9)
    for name in ("scores", "low", "high", "novelty"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_worker_killed_while_it_scores_loses_nothing(
    dask: Any, many: tuple[Scorer, CachedPairs], tmp_path: Path
) -> None:
    scorer, pairs = many
    builder = VectorBuilder(["toy"]).fit(pairs)
    regressor = DyingCosines(["toy"]).fit(builder.transform(pairs.take(slice(0, 40))))
    regressor.marker = tmp_path / "marker"
    mine = Scorer.from_fitted(scorer.recipe, builder, regressor)
    found = mine.score(pairs)
    assert regressor.marker.exists()
    with joblib.parallel_config(backend="threading"):
        np.testing.assert_array_equal(found, mine.score(pairs))


def test_a_damaged_store_is_told_with_the_pairs(
    dask: Any, many: tuple[Scorer, CachedPairs], tmp_path: Path
) -> None:
    scorer, pairs = many
    (path,) = tmp_path.joinpath("store").glob("*/text-*.h5")
    scorer.builder_.transform(pairs)  # which finds the rows
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CacheError, match=r"^pairs \d+-\d+: .*text-.*h5"):
        scorer.score(pairs)


@pytest.fixture
def cached(make_data: WriteData, tmp_path: Path) -> tuple[FeatureTable, np.ndarray]:
    """Return a table that reads a cache, and scores."""
    train = read_pairs(make_data(train=60), "train")
    encode_alone(train, [TOY], tmp_path / "store")
    table = FeatureBuilder(["toy"]).fit_transform(FeatureCache(tmp_path / "store").load(train))
    return table, np.random.default_rng(0).uniform(0, 10, size=60)


def fitted_alone(stacker: Stacker, X: FeatureTable, y: np.ndarray) -> Stacker:
    with joblib.parallel_config(backend="threading"):
        return clone(stacker).fit(X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("cluster", "preset"),
    [("dask", "best"), ("dask", "paper"), ("ray", "paper")],
    indirect=["cluster"],
)
def test_the_same_stack_is_fitted(cluster: Any, cached, preset: str) -> None:
    X, y = cached
    stacker = Stacker(preset=preset, random_state=0)
    found, alone = clone(stacker).fit(X, y), fitted_alone(stacker, X, y)
    np.testing.assert_array_equal(found.oof_predictions_, alone.oof_predictions_)
    np.testing.assert_array_equal(found.oof_scores_, alone.oof_scores_)
    with joblib.parallel_config(backend="threading"):
        np.testing.assert_array_equal(found.predict(X), alone.predict(X))


def test_a_worker_killed_while_it_fits_changes_nothing(dask: Any, cached, tmp_path) -> None:
    X, y = cached
    marker = tmp_path / "marker"
    dying = Stacker([("one", DyingRegressor(str(marker)))], random_state=0).fit(X, y)
    assert marker.exists()
    alone = fitted_alone(Stacker([("one", DyingRegressor())], random_state=0), X, y)
    np.testing.assert_array_equal(dying.oof_predictions_, alone.oof_predictions_)
    np.testing.assert_array_equal(dying.oof_scores_, alone.oof_scores_)


def test_a_fit_that_fails_names_the_learner_and_the_fold(dask: Any, cached) -> None:
    message = (
        r"^the learner 'one' \(FailingRegressor\) .* outside fold [012]: ValueError: too few rows"
    )
    with pytest.raises(StackingError, match=message):
        Stacker([("one", FailingRegressor())], random_state=0).fit(*cached)


def test_workers_that_see_no_store_are_named(
    dask: Any, make_data: WriteData, tmp_path: Path, monkeypatch
) -> None:
    pairs = read_pairs(make_data(train=6), "train")
    monkeypatch.chdir(tmp_path)
    own = Path("/proc/self/cwd")  # leads each process into another folder
    if not own.exists():
        pytest.skip("there is no /proc")
    with pytest.raises(WorkerError, match=r"2 of 2 workers cannot take part:\n  - tcp://.*/store/"):
        extract_embeddings([pairs], [TOY], own / "store")
    hidden = read_pairs(own / "data", "train")
    with pytest.raises(WorkerError, match=r"2 of 2 workers .*\n  - tcp://.*cannot read .*\.wav"):
        extract_embeddings([hidden], [TOY], tmp_path / "store")


DRIVER = """
import sys
from functools import partial
from pathlib import Path
import joblib
from distributed import Client
from worker_tasks import wait_for_release
from xacle_stack import _tasks
from xacle_stack._tasks import run_tasks

address, folder = sys.argv[1:]
with Client(address) as client, joblib.parallel_config(backend="dask", client=client):
    function = partial(wait_for_release, Path(folder))
    list(run_tasks(function, range(50), names=[str(n) for n in range(50)]))
"""


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_is_stopped_leaves_no_task(
    dask_client: Any, tmp_path: Path, number: int
) -> None:
    dask_client.wait_for_workers(2, timeout=START_S)

    def tasks() -> set[str]:
        return set(dask_client.run_on_scheduler(lambda dask_scheduler: [*dask_scheduler.tasks]))

    before = tasks()  # joblib holds on to some results of calls that failed
    command = [sys.executable, "-c", DRIVER, dask_client.scheduler.address, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as driver:
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 2)
        driver.send_signal(number)
        assert driver.wait(60) != 0
    # What runs goes on to its end; nothing else is begun.
    (tmp_path / "released").touch()
    wait_until(lambda: tasks() <= before)
    assert len(list(tmp_path.glob("started-*"))) <= 4
