"""The command line as its users meet it: words and exit codes.

What is about the process is tested in one of its own; the other calls go to the same `main` in this
one, which saves them the imports.
"""

import contextlib
import io
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import soundfile
from support import TOY, WriteData

from xacle_stack.cli import main

pytestmark = pytest.mark.usefixtures("few_resamples")
COMMAND = Path(sys.executable).with_name("xacle-stack")


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Call the command line in this process."""
    out, err, call = io.StringIO(), io.StringIO(), [str(argument) for argument in arguments]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with (
            contextlib.chdir(cwd or Path.cwd()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as exit_,
        ):
            main(call)
    finally:
        signal.signal(signal.SIGTERM, handler)
    code = exit_.value.code or 0
    return subprocess.CompletedProcess(call, code, out.getvalue(), err.getvalue())


def run_process(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Call the installed command in a process of its own."""
    done = subprocess.run(
        [str(COMMAND), *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "toy.toml"
    path.write_text(f'spaces = ["{TOY.name}"]\n[features]\nn_components = 2\n')
    return path


def test_from_features_to_scores(make_data: WriteData, tmp_path: Path, recipe: Path) -> None:
    data = make_data(train=40, validation=20, test=20)
    options = ("--data", data, "--recipe", recipe, "--store", tmp_path / "store", "--quiet")
    done = run_process("features", *options)
    assert done.returncode == 0, done.stderr
    assert "toy: 80 clips encoded, 0 were in the cache" in done.stdout
    assert "toy: 0 clips encoded, 80 were in the cache" in run("features", *options).stdout

    done = run("stack", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "validation: 20 pairs, 95% bootstrap intervals" in done.stdout
    assert "test: 20 pairs" in done.stdout
    model = tmp_path / "runs" / "toy-data"
    assert (model / "model.skops").is_file()

    out = tmp_path / "mine.csv"
    more = ("--data", data, "--store", tmp_path / "store", "--out", out, "--quiet")
    done = run("score", model, *more)
    assert done.returncode == 1
    assert "--recipe" in done.stderr
    more = (*more, "--recipe", recipe)
    assert run("score", model, *more).returncode == 0
    assert out.read_bytes() == (model / "scores-test.csv").read_bytes()
    assert out.read_text().startswith("wav_file_name,prediction_score\n00000.wav,")
    assert run("score", model, *more, "--interval", "0.8").returncode == 0
    assert out.read_text().startswith(
        "id,audio,text,human_score,score,low,high,novelty\n00000.wav,"
    )
    assert run("score", model, *more, "--split", "validation").returncode == 0
    assert out.read_text().startswith("wav_file_name,pred_score\n")

    done = run("evaluate", model / "scores-validation.csv", out, "--data", data)
    assert done.returncode == 0
    assert "SRCC" in done.stdout
    official = ("--data", data, "--out", tmp_path / "official")
    assert run("evaluate", model / "scores-validation.csv", *official).returncode == 0
    assert (tmp_path / "official/evaluation_result.csv").read_text().endswith("\nN,20\n")
    bad = ("evaluate", model / "scores-validation.csv", "--data", data, "--split", "train")
    done = run_process(*bad)
    assert done.returncode == 1
    assert "20 mistake(s); every pair needs exactly one prediction" in done.stderr

    clip = data / "wav" / "test" / "00000.wav"
    done = run("score", model, "--audio", clip, "--text", "a low tone", "--recipe", recipe)
    assert done.returncode == 0
    assert 0 <= float(done.stdout) <= 10
    one = ("--audio", clip, "--text", "a low tone", "--recipe", recipe)
    done = run("score", model, *one, "--interval", "0.8")
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d, \d+\.\d\]\n", done.stdout)
    done = run("score", model, *one, "--interval", "80")
    assert (done.returncode, done.stdout) == (1, "")
    assert "below 1, such as 0.9, got 80" in done.stderr

    for command in ("ls", "verify", "compact"):
        assert run("cache", command, "--store", tmp_path / "store").returncode == 0
    segment = next((tmp_path / "store").rglob("audio-*.h5"))
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    done = run("cache", "verify", "--store", tmp_path / "store")
    assert done.returncode == 1
    assert "1 of 2 files have a fault" in done.stderr
    assert str(segment) in done.stderr


def test_a_few_ratings_are_cross_validated(
    make_data: WriteData, tmp_path: Path, recipe: Path
) -> None:
    data = make_data(train=60)
    table, moved = tmp_path / "ratings.csv", tmp_path / "moved.csv"
    _, *rows = (data / "meta_data" / "train_average.csv").read_text().splitlines()
    lines = [f"{data}/wav/train/{row}" for row in rows]
    table.write_text("\n".join(["audio,text,score", *lines]))
    store = ("--store", tmp_path / "store", "--quiet")
    options = ("--recipe", recipe, *store)
    done = run("evaluate", "--cv", 3, table, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "cross-validation: 60 pairs in" in said
    assert "20 training pairs" in said or "40: " in said
    assert "toy" in said
    out = tmp_path / "runs" / "toy-ratings"
    assert "learning-curve.csv" in {path.name for path in out.iterdir()}

    # What is saved scores pairs, and predictions are evaluated without the clips.
    scores = tmp_path / "scores.csv"
    more = ("--data", table, "--out", scores, *options)
    assert run("score", out, *more).returncode == 0
    moved.write_text(table.read_text().replace(str(data), "/nowhere"))
    unseen = out / "scores-cross-validation.csv"
    done = run("evaluate", unseen, scores, "--data", moved)
    assert done.returncode == 0, done.stderr
    assert "SRCC difference" in done.stdout

    done = run("stack", "--data", table, *options, "--out", tmp_path / "stack", "--cv", 2)
    assert "cross-validation: 60 pairs in" in done.stdout
    done = run("stack", "--data", table, *options, "--out", tmp_path / "stack", "--cv", 0)
    assert "nothing to evaluate" in done.stdout


def test_bad_audio_is_listed_at_the_end_and_the_rest_is_kept(
    make_data: WriteData, tmp_path: Path, recipe: Path
) -> None:
    data = make_data(train=10)
    wav = data / "wav" / "train"
    (wav / "00003.wav").write_bytes((wav / "00003.wav").read_bytes()[:-100])
    (wav / "00004.wav").write_text("not audio")
    options = ("--data", data, "--recipe", recipe, "--store", tmp_path / "store", "--quiet")
    done = run("features", *options)
    assert done.returncode == 1
    assert "toy: 8 clips encoded" in done.stdout
    assert "2 clip(s) or caption(s) could not be used; all others are in the cache" in done.stderr
    assert "00003.wav: truncated" in done.stderr
    assert "00004.wav: not readable as audio" in done.stderr
    for name in ("00003.wav", "00004.wav"):
        soundfile.write(wav / name, soundfile.read(wav / "00005.wav")[0] / 2, 8000)
    done = run("features", *options)
    assert done.returncode == 0
    assert "toy: 1 clips encoded, 8 were in the cache" in done.stdout


def test_mistakes_of_a_new_user(make_data: WriteData, tmp_path: Path, recipe: Path) -> None:
    data = make_data(train=4, test=4)
    store = ("--store", tmp_path / "store")
    for arguments, message in {
        ("features",): "Missing option '--data'",
        ("features", "--data", tmp_path / "nowhere", "--recipe", recipe): "no such folder",
        ("features", "--data", data / "wav", "--recipe", recipe): f"Did you mean '{data}'",
        ("features", "--data", data, "--recipe", "no.toml"): "no.toml: no such recipe",
        ("stack", "--data", data, "--recipe", recipe, *store): "store: there is no cache here",
        ("score", tmp_path): "give either --data, or both --audio and --text",
        ("score", tmp_path, "--data", data, "--audio", "a", "--text", "b"): "not all three",
        ("stack", "--data", data, "--jobs", "0"): "give 1 or more, or -1 for one a core",
        ("demo", data / "wav" / "train" / "00000.wav" / "demo"): "00000.wav: File exists",
        ("score", tmp_path, "--audio", "a.wav"): "both --audio and --text",
        ("score", tmp_path / "m", "--data", data, "--split", "train"): "model.skops: no such file",
        ("score", tmp_path, "--audio", "a.wav", "--text", " "): "--text is empty",
        ("evaluate", "scores.csv", "--data", data): "split 'validation' is not here",
        ("evaluate", "no.csv", "--data", data, "--split", "train"): "no such file of predictions",
        ("evaluate", "a.csv"): "give the human scores with --data DATA, or --cv 5",
        ("evaluate", "a.csv", "b.csv", "--data", data, "--out", "o"): "--out takes one file",
        ("evaluate", "--cv", 5, "a.csv", "b.csv"): "--cv takes one data set with human scores",
        ("evaluate", "--cv", 5, data, "--data", data): "--cv takes one data set",
        ("evaluate", "--cv", 1, data): "Invalid value for '--cv'",
        ("evaluate", "--cv", 5, data, "--train", "x"): "would be 'x', but there is no such set",
        ("evaluate", "--cv", 5, data, "--recipe", recipe): "4 pairs of 'train' are too few",
        ("cache", "ls", *store): "there is no cache here",
        ("demo", data): "exists already",
        ("demo", tmp_path / "new", "--pairs", 3): "Give at least 20",
        ("stak",): "No such command 'stak'",
    }.items():
        done = run(*arguments, cwd=tmp_path)
        assert done.returncode != 0
        said = " ".join(done.stderr.replace("│", " ").split())
        assert message in said, said


def test_version() -> None:
    assert run_process("--version").stdout == f"xacle-stack {version('xacle-stack')}\n"


def test_brackets_in_names_are_only_brackets(
    make_data: WriteData, tmp_path: Path, recipe: Path
) -> None:
    data = make_data("a[bold]b[/nope]", train=40, validation=10)
    options = ("--data", data, "--recipe", recipe, "--store", tmp_path / "store", "--quiet")
    assert run("features", *options).returncode == 0
    done = run("stack", *options, "--out", tmp_path / "out[/red]")
    assert done.returncode == 0
    assert "out[/red]\n" in done.stdout


def test_help_is_everywhere() -> None:
    for command in ([], ["features"], ["stack"], ["score"], ["evaluate"], ["demo"], ["cache"]):
        done = run_process(*command, "--help")
        assert done.returncode == 0
        assert "Usage: xacle-stack" in done.stdout


def test_a_polite_stop_keeps_what_is_encoded(
    make_data: WriteData, tmp_path: Path, recipe: Path
) -> None:
    data = make_data(train=70)
    # An encoder that asks its own process to stop in its second batch.
    slow = tmp_path / "slow.py"
    slow.write_text(
        (Path(TOY.name.rpartition(":")[0]).read_text())
        + """
import os, signal
class Stops(ToySpace):
    n_clips = 0
    def encode_audio(self, clips):
        Stops.n_clips += len(clips)
        if Stops.n_clips > 32:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().encode_audio(clips)
"""
    )
    recipe.write_text(f'spaces = ["{slow}:Stops"]\n')
    options = ("--data", data, "--recipe", recipe, "--store", tmp_path / "store", "--quiet")
    done = run_process("features", *options)
    assert done.returncode == 128 + signal.SIGTERM
    listed = run("cache", "ls", "--store", tmp_path / "store").stdout
    assert re.search(r"toy +\w{16} +audio +32 ", listed), listed


def test_a_missing_extra_names_its_command(make_data: WriteData, tmp_path: Path) -> None:
    needy = tmp_path / "needy.py"
    needy.write_text(
        (Path(TOY.name.rpartition(":")[0]).read_text())
        + """
from xacle_stack._optional import require
class Needy(ToySpace):
    @classmethod
    def load(cls, checkpoint=None, device="cpu"):
        require("no_such_package", extra="encoders", purpose="the needy encoder")
"""
    )
    recipe = tmp_path / "needy.toml"
    recipe.write_text(f'spaces = ["{needy}:Needy"]\n')
    done = run("features", "--data", make_data(train=3), "--recipe", recipe, cwd=tmp_path)
    assert done.returncode == 1
    assert "pip install 'xacle-stack[encoders]'" in done.stderr


def test_ensemble_combines_files_by_pair_id(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("wav_file_name,pred_score\na.wav,1\nb.wav,5\nc.wav,9\n")
    (tmp_path / "b.csv").write_text("wav_file_name,prediction_score\nc.wav,3\nb.wav,2\na.wav,1\n")
    done = run("ensemble", "a.csv", "b.csv", "--method", "mean", "--out", "m.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mean = "wav_file_name,pred_score\na.wav,1.00\nb.wav,3.50\nc.wav,6.00\n"
    assert (tmp_path / "m.csv").read_text() == mean
    done = run("ensemble", "b.csv", "a.csv", cwd=tmp_path)  # of test, as the first one's column
    assert "3 scores of 2 systems: ensemble-test.csv" in done.stdout
    ranks = "wav_file_name,prediction_score\nc.wav,10.00\nb.wav,5.00\na.wav,0.00\n"
    assert (tmp_path / "ensemble-test.csv").read_text() == ranks
    assert "give two files or more" in run("ensemble", "a.csv", cwd=tmp_path).stderr
    (tmp_path / "c.csv").write_text("wav_file_name,pred_score\na.wav,1\na.wav,5\nx.wav,9\n")
    done = run("ensemble", "a.csv", "c.csv", cwd=tmp_path)
    assert done.returncode == 1
    for part in ("c.csv: 4 mistake(s)", "second prediction for 'a.wav'", "'x.wav' is not a pair"):
        assert part in done.stderr
