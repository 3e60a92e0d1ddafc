"""The Dask cluster that the option --cluster names."""

from collections.abc import Iterator
from contextlib import contextmanager

from xacle_stack._optional import require
from xacle_stack.cli.show import error_console
from xacle_stack.errors import WorkerError

_CONNECT_S = 10


@contextmanager
def on_cluster(address: str | None) -> Iterator[None]:
    """Let joblib's tasks run on a cluster within the context; None stands for this machine.

    Raises
    ------
    MissingExtraError
        If Dask is not installed.
    WorkerError
        If no scheduler answers, or it has no workers.
    """
    if address is None:
        yield
        return
    from joblib import parallel_config

    distributed = require("distributed", extra="dask", purpose=f"the cluster {address}")
    try:
        client = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise WorkerError(
            f"no Dask scheduler answers at {address!r} ({type(error).__name__}: {error}). Start "
            "one with `dask scheduler`, and give its address to --cluster or in "
            "DASK_SCHEDULER_ADDRESS, such as tcp://scheduler:8786; or leave both out to work on "
            "this machine."
        ) from error
    with client:
        n_threads = client.nthreads()
        if not n_threads:
            raise WorkerError(
                f"the Dask cluster {address} has no workers. Start some, each with "
                f"`dask worker {address}`, on machines that see the store and the audio files."
            )
        error_console.print(
            f"Working on the Dask cluster {address}: {len(n_threads)} workers, "
            f"{sum(n_threads.values())} tasks at a time.",
            soft_wrap=True,
        )
        with parallel_config(backend="dask", client=client):
            yield
