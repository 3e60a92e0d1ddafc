from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fuzzing import TARGETS, outcome, spoiled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# More of the same, in processes whose memory and time are watched: benchmarks/bench_fuzz.py.
bounded = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Callable[[str], Path]:
    """Return a function that gives the folder of a kind's good files, written once."""
    root, made = tmp_path_factory.mktemp("good"), {}

    def files(name: str) -> Path:
        if name not in made:
            made[name] = root / str(len(made))
            TARGETS[name].prepare(made[name])
        return made[name]

    return files


@pytest.mark.parametrize("name", TARGETS)
def test_good_files_are_used(good, name: str) -> None:
    folder = good(name)
    if name in ("audio", "container"):  # of which one is used at a time
        for path in folder.iterdir():
            with TemporaryDirectory() as alone:
                (Path(alone) / path.name).write_bytes(path.read_bytes())
                assert outcome(TARGETS[name], Path(alone)) == "used"
        return
    assert outcome(TARGETS[name], folder) == "used"


@pytest.mark.parametrize("name", TARGETS)
@bounded
@given(seed=st.integers(0, 2**32 - 1))
def test_spoiled_files_are_used_or_refused(good, name: str, seed: int) -> None:
    with TemporaryDirectory() as folder:
        files = spoiled(TARGETS[name], good(name), seed, Path(folder) / "files")
        assert outcome(TARGETS[name], files) in ("used", "refused")
