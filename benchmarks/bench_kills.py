"""Commands ended by SIGKILL at random moments, and what is there afterwards.

Every other kill comes before a step at the files that is drawn from all of a command's steps, the
rest at a time drawn from its whole length.  Afterwards the results must be those of one run: mixed
counts folders that hold parts of two, lost those where something is missing or unreadable, and
left over the files that are still there after the next run.

``python benchmarks/bench_kills.py 60`` kills 60 times; a command that ends before its kill does not
count.  Commands run in forks of this process, so that hardly a kill meets the imports.
"""

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import report

from xacle_stack import FeatureCache, load_card, load_model, read_pairs
from xacle_stack.cli import main as xacle_stack

N_KILLS = 200
SHARES = {
    "stack": 0.25,
    "compare": 0.2,
    "score": 0.15,
    "demo": 0.15,
    "compact": 0.1,
    "features": 0.15,
}
RECIPE = """\
spaces = ["mini-mel"]
subset_sizes = []
seeds = 1
[stacker]
preset = "paper"
n_splits = 2
n_components = {n_components}
[systems.linear]
kind = "stack"
[systems.cosine]
kind = "cosine"
space = "mini-mel"
[systems.both]
kind = "ensemble"
of = ["linear", "cosine"]
"""
VERSIONS = ("one", "other")  # of every result: a run replaces one by the other


class FaultyError(Exception):
    """What is there after a kill is not the result of one run; says "mixed" or "lost"."""


@dataclass(frozen=True)
class Command:
    """What is killed.

    Attributes
    ----------
    arguments : callable
        Of the command, for one of the two versions of its result.
    start : callable
        Puts everything there as it is before the command.
    check : callable
        Raises FaultyError where what is there afterwards is not right.
    """

    arguments: Callable[[str], list[str]]
    start: Callable[[], None]
    check: Callable[[], None]


def run(
    arguments: list[str],
    *,
    step: int | None = None,
    after_s: float | None = None,
    may_fail: bool = False,
) -> int:
    """Run a command in a fork; kill it before a step at its files or after a time.

    Returns
    -------
    n_steps : int
        The steps that it took, 0 where it was killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run_here(arguments, step, writing)
    os.close(writing)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) and not may_fail:
        raise SystemExit(f"xacle-stack {' '.join(arguments)} failed: {said}")
    return int(said or 0)


def _run_here(arguments: list[str], step: int | None, writing: int) -> None:
    n_steps, here = 0, str(Path.cwd())

    def count(event: str, values: tuple[object, ...]) -> None:
        nonlocal n_steps
        path = os.fsdecode(values[0]) if values and isinstance(values[0], str | bytes) else "/"
        is_ours = path.startswith(here) or not os.path.isabs(path)  # noqa: PTH117  # cheap
        if event.startswith(("open", "os.", "shutil.")) and is_ours:
            n_steps += 1
            if n_steps == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    code = 1
    try:
        xacle_stack(arguments)
        code = 0
    except SystemExit as ended:
        code = 0 if ended.code in (None, 0) else 1
    finally:
        os.write(writing, str(n_steps).encode())
        os._exit(code)


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def model_version(path: Path) -> str:
    """Return which version a model is, once it loads."""
    try:
        load_model(path)
        settings = load_card(path)["recipe"]
    except Exception as error:
        raise FaultyError("lost") from error
    n_components = settings["stacker"]["n_components"]
    return VERSIONS[n_components - 2]


def all_one(versions: set[str]) -> None:
    """Check that there is one version."""
    if len(versions) != 1:
        raise FaultyError("mixed" if versions else "lost")


def commands(here: Path) -> dict[str, Command]:
    """Return the commands, their data set, recipes and reference results made before."""
    run(["demo", "data", "--pairs", "60", "-j", "1", "-q"])
    for number, version in enumerate(VERSIONS):
        recipe = here / "recipes" / version / "kills.toml"
        recipe.parent.mkdir(parents=True)
        recipe.write_text(RECIPE.format(n_components=number + 2))
    recipes = {version: f"recipes/{version}/kills.toml" for version in VERSIONS}
    data = ["--data", "data", "-q"]
    run(["features", *data, "--recipe", recipes["one"], "--store", "store", "-j", "1"])
    stores = ["--store", "store"]
    known: dict[str, dict[str, dict[str, bytes]]] = {"stack": {}, "compare": {}}
    for version, recipe in recipes.items():
        run(["stack", *data, *stores, "--recipe", recipe, "--out", f"ref/stack-{version}"])
        run(["compare", recipe, *data, *stores, "--out", f"ref/compare-{version}"])
        for name in known:
            known[name][version] = files(here / "ref" / f"{name}-{version}")
    run(["score", "ref/stack-one", *data, *stores, "--split", "train", "--out", "ref/scores-one"])
    run(
        [
            "score",
            "ref/stack-other",
            *data,
            *stores,
            "--split",
            "train",
            "--out",
            "ref/scores-other",
        ]
    )

    def versions_of(name: str, folder: Path, wanted: Callable[[str], bool]) -> set[str]:
        found = {path: content for path, content in files(folder).items() if wanted(path)}
        versions = set()
        for path, content in found.items():
            matching = {v for v in VERSIONS if known[name][v].get(path) == content}
            if not matching:
                raise FaultyError("mixed")
            if len(matching) == 1:  # both versions may agree in a file
                versions |= matching
        return versions

    def check_stack() -> None:
        out = here / "out"
        tables = versions_of("stack", out, lambda path: path.endswith((".csv", ".md")))
        all_one(tables | {model_version(out)})
        if set(files(out)) != set(known["stack"]["one"]):
            raise FaultyError("lost")

    def check_compare() -> None:
        out = here / "out"
        scores = versions_of("compare", out, lambda path: path.startswith("scores-"))
        models = sorted(out.glob("models/*.skops"))
        all_one(scores | {model_version(model) for model in models if model.stem != "cosine"})
        rows = (out / "results.csv").read_text().splitlines()[1:]
        systems = {row.split(",")[2] for row in rows}
        scored = {path.stem.split("-", 2)[2] for path in out.glob("scores-*.csv")}
        if systems != scored or {model.stem for model in models} != systems - {"both"}:
            raise FaultyError("mixed")

    def start_from(kind: str) -> Callable[[], None]:
        def start() -> None:
            if not (here / "out").exists():
                shutil.copytree(here / "ref" / f"{kind}-one", here / "out")

        return start

    def check_score() -> None:
        if (here / "scores.csv").read_bytes() not in [
            (here / "ref" / f"scores-{version}").read_bytes() for version in VERSIONS
        ]:
            raise FaultyError("lost")

    demo = files(here / "data")
    cache = FeatureCache("store").load(read_pairs("data", "train"))
    vectors = cache.audio("mini-mel"), cache.text("mini-mel")

    def check_demo() -> None:
        if (here / "made").exists() and files(here / "made") != demo:
            raise FaultyError("mixed")

    def start_compact() -> None:
        shutil.rmtree("cut", ignore_errors=True)
        shutil.copytree("store", "cut")
        for folder in (here / "cut").glob("mini-mel-*"):
            for segment in folder.glob("*.h5"):
                segment.unlink()
        for split in ("train", "validation", "test"):
            shutil.copytree("data", "part", dirs_exist_ok=True)
            for other in (here / "part" / "meta_data").glob("*.csv"):
                if not other.stem.startswith(split):
                    other.unlink()
            run(["features", "--data", "part", "-q", "--recipe", recipes["one"], "--store", "cut"])
            shutil.rmtree("part")

    def check_cut(*, whole: bool) -> None:
        store = FeatureCache("cut")
        if any(fault for _, fault in store.verify()):
            raise FaultyError("lost")
        if not whole:
            return
        cached = store.load(read_pairs("data", "train"))
        found = cached.audio("mini-mel"), cached.text("mini-mel")
        if not all(np.array_equal(a, b) for a, b in zip(found, vectors, strict=True)):
            raise FaultyError("lost")

    def start_features() -> None:
        shutil.rmtree("cut", ignore_errors=True)

    def nothing() -> None:
        shutil.rmtree("made", ignore_errors=True)

    return {
        "stack": Command(
            lambda v: ["stack", *data, *stores, "--recipe", recipes[v], "--out", "out"],
            start_from("stack"),
            check_stack,
        ),
        "compare": Command(
            lambda v: ["compare", recipes[v], *data, *stores, "--out", "out"],
            start_from("compare"),
            check_compare,
        ),
        "score": Command(
            lambda v: [
                *("score", f"ref/stack-{v}", *data, *stores, "--split", "train"),
                *("--out", "scores.csv"),
            ],
            lambda: (shutil.copy("ref/scores-one", "scores.csv"), None)[1],
            check_score,
        ),
        "demo": Command(
            lambda _: ["demo", "made", "--pairs", "60", "-j", "1", "-q"], nothing, check_demo
        ),
        "compact": Command(
            lambda _: ["cache", "compact", "--store", "cut"],
            start_compact,
            lambda: check_cut(whole=True),
        ),
        "features": Command(
            lambda v: ["features", *data, "--recipe", recipes[v], "--store", "cut", "-j", "1"],
            start_features,
            lambda: check_cut(whole=False),
        ),
    }


def main(n_kills: int) -> None:
    """Kill, look, run once more, look again, and report."""
    rng, rows = np.random.default_rng(0), []
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        here = Path(folder)
        for name, command in commands(here).items():
            shutil.rmtree("out", ignore_errors=True)
            command.start()
            start = time.perf_counter()
            n_steps = run(command.arguments("one"))
            length_s = time.perf_counter() - start
            counts = {"mixed": 0, "lost": 0, "left over": 0, "killed": 0}
            number = 0
            while counts["killed"] < round(SHARES[name] * n_kills):
                number += 1
                version = VERSIONS[(number + 1) % 2]
                command.start()
                if number % 2:
                    ended = run(command.arguments(version), after_s=rng.uniform(0, length_s))
                else:
                    ended = run(command.arguments(version), step=int(rng.integers(1, n_steps + 1)))
                counts["killed"] += ended == 0
                try:
                    command.check()
                    # The demo refuses to write over what is complete.
                    run(command.arguments(version), may_fail=name == "demo")
                    command.check()
                except FaultyError as fault:
                    counts[str(fault)] += 1
                except Exception as error:
                    print(f"{name}, kill {number}: {type(error).__name__}: {error}")
                    counts["lost"] += 1
                counts["left over"] += bool(list(here.rglob("*.part")))
            shown = [name, n_steps, round(length_s, 2)]
            rows.append(
                [*shown, *(counts[key] for key in ("killed", "mixed", "lost", "left over"))]
            )
        os.chdir(before)
    total = [sum(row[place] for row in rows) for place in range(3, 7)]
    rows.append(["all", None, None, *total])
    header = ["command", "steps", "length, s", "kills", "mixed", "lost", "left over"]
    report("kills", "SIGKILL at random moments, and what is there afterwards", header, rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else N_KILLS)
