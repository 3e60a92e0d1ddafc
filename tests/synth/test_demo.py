import csv
import os
import signal
import subprocess
import sys
import tracemalloc
import wave
from collections import defaultdict

import numpy as np
import pytest

from xacle_stack.errors import DemoError, XacleStackError
from xacle_stack.synth import Scene, Story, caption_half, demo
from xacle_stack.synth.demo import draw_pairs, is_demo, true_match, write_demo

N_PAIRS = 60
SPLITS = ("train", "validation", "test")


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_demo(tmp_path_factory.mktemp("demo") / "set", N_PAIRS, seed=3)


def test_layout_is_that_of_xacle(folder):
    expected = {"README.md"}
    number = 0
    for split, n_pairs in zip(SPLITS, (36, 9, 15), strict=True):
        rows = read_rows(folder / f"meta_data/{split}_average.csv")
        assert list(rows[0]) == ["wav_file_name", "text", "average_score"]
        names = [f"{i:05d}.wav" for i in range(number, number + n_pairs)]
        assert [row["wav_file_name"] for row in rows] == names
        ratings = read_rows(folder / f"meta_data/{split}.csv")
        assert list(ratings[0]) == ["wav_file_name", "text", "score", "listener_id"]
        expected |= {f"meta_data/{split}.csv", f"meta_data/{split}_average.csv"}
        expected |= {f"wav/{split}/{name}" for name in names}
        number += n_pairs
    assert contents(folder).keys() == expected


def test_clips_are_mono_16_bit_16_khz_and_not_silent(folder):
    for path in folder.glob("wav/*/*.wav"):
        with wave.open(str(path), "rb") as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
        assert 3.5 <= len(samples) / 16_000 <= 5
        assert np.abs(samples.astype(int)).max() > 0.25 * 32767


def test_four_listeners_give_whole_numbers_whose_mean_is_the_score(folder):
    for split in SPLITS:
        by_pair = defaultdict(list)
        for row in read_rows(folder / f"meta_data/{split}.csv"):
            by_pair[row["wav_file_name"], row["text"]].append(row)
        averages = read_rows(folder / f"meta_data/{split}_average.csv")
        assert len(by_pair) == len(averages)
        for row in averages:
            given = by_pair[row["wav_file_name"], row["text"]]
            scores = [int(rating["score"]) for rating in given]
            assert all(0 <= score <= 10 for score in scores)
            assert len({rating["listener_id"] for rating in given}) == len(given) == 4
            assert float(row["average_score"]) == np.mean(scores)


def test_captions_belong_to_the_demo_half_and_never_cross_splits():
    captions_by_split = defaultdict(set)
    for pair in draw_pairs(600, seed=1):
        assert caption_half(pair.caption) == "demo"
        captions_by_split[pair.split].add(pair.caption.casefold().rstrip("."))
    assert not captions_by_split["train"] & captions_by_split["validation"]
    assert not captions_by_split["train"] & captions_by_split["test"]
    assert not captions_by_split["validation"] & captions_by_split["test"]


def test_scores_are_graded_from_wrong_to_right():
    match = np.array([pair.match for pair in draw_pairs(1000, seed=0)])
    assert match.min() >= 0
    assert match.max() <= 10
    shares = np.histogram(match, bins=[0, 2, 4, 6, 8, 10])[0] / len(match)
    assert (shares > 0.05).all()


def test_a_caption_goes_with_several_clips():
    sizes = defaultdict(int)
    for pair in draw_pairs(600, seed=2):
        sizes[pair.caption] += 1
    assert 3 <= np.mean(list(sizes.values())) <= 6
    assert max(sizes.values()) <= 6


def test_match_falls_with_every_fault():
    story = Story(("dog", "rain"), ("plain", "plain"), "then")

    def match(kinds, gains=(0.0, 0.0, 0.0), order="then", noise_db=-40.0):
        return true_match(story, Scene(kinds, gains[: len(kinds)], order, 4.0, noise_db))

    right = match(("dog", "rain"))
    assert right > 9.9
    assert match(("rain", "dog")) < right
    assert match(("dog", "rain"), order="while") < right
    assert match(("dog",)) == pytest.approx(right / 2)
    assert match(("dog", "rain", "bell")) < right
    assert match(("dog", "bell")) < match(("dog", "wind")) < right
    assert match(("dog", "rain"), noise_db=0.0) < right
    assert match(("bell", "siren")) == 0


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(folder, tmp_path):
    assert contents(write_demo(tmp_path / "two", N_PAIRS, seed=3, n_jobs=2)) == contents(folder)


def test_another_seed_gives_other_captions_sounds_and_scores(folder, tmp_path):
    ours, others = contents(folder), contents(write_demo(tmp_path / "other", N_PAIRS, seed=4))
    assert all(ours[name] != others[name] for name in ours)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_write_tables", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "demo", 20)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"empty folder.*another name") as caught:
        write_demo(tmp_path, 20)
    assert isinstance(caught.value, XacleStackError)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    assert write_demo(tmp_path, 20) == tmp_path
    assert (tmp_path / "README.md").is_file()


def test_only_a_readme_of_ours_says_that_a_folder_is_a_demo(folder, tmp_path):
    assert is_demo(folder)
    assert not is_demo(tmp_path)
    readme = tmp_path / "README.md"
    with readme.open("wb") as file:
        file.truncate(1 << 30)  # one line of a gigabyte
    tracemalloc.start()
    assert not is_demo(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    readme.unlink()
    os.mkfifo(readme)  # which would be waited for
    assert not is_demo(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from xacle_stack.synth import demo

def kill_when_workers_write(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

demo._write_tables = kill_when_workers_write  # the workers are idle then
demo.write_demo(sys.argv[1], 60, n_jobs=2)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_workers_of_a_demo_that_is_killed_end_with_it(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "demo")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as killed:
        # Its end is reached when the last process that has the pipe is gone.
        assert killed.communicate(timeout=100)[0] == b""
    assert killed.returncode == -signal.SIGKILL


def test_the_readme_says_that_nothing_is_real(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "synthesised" in text
    assert "simulated" in text


@pytest.mark.parametrize(
    ("n_pairs", "seed", "message"), [(19, 0, "at least 20"), (20, -1, "from 0")]
)
def test_settings_out_of_range_are_refused(tmp_path, n_pairs, seed, message):
    with pytest.raises(DemoError, match=message):
        write_demo(tmp_path / "demo", n_pairs, seed)
