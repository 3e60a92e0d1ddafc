import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xacle_stack._folder_draft import FolderDraft, exchange

# Ends a process before its first step at the files, then before its second, until it gets through.
KILLS = """
import json, os, shutil, sys
from itertools import count
from pathlib import Path
from xacle_stack import _folder_draft
from xacle_stack._folder_draft import FolderDraft

root, can_exchange = Path(sys.argv[1]).resolve(), sys.argv[2] == "True"
if not can_exchange:
    _folder_draft.exchange = lambda one, other: False
target = root / "results"

def content():
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return {str(path.relative_to(target)): path.read_text() for path in files}

def replace(at):
    n_steps = 0
    def step(event, arguments):
        nonlocal n_steps
        if any(str(root) in str(argument) for argument in arguments):
            if n_steps == at:
                os._exit(9)
            n_steps += 1
    sys.addaudithook(step)
    with FolderDraft(target) as draft:
        (draft.folder / "models").mkdir()
        (draft.folder / "models" / "a").write_text("new")
        (draft.folder / "c").write_text("new")
        draft.publish(is_kept=lambda path: path.name == "mine")
    os._exit(0)

seen = []
for at in count():
    shutil.rmtree(root, ignore_errors=True)
    (target / "models").mkdir(parents=True)
    for name in ("models/a", "b", "mine"):
        (target / name).write_text("old")
    child = os.fork()
    if child == 0:
        replace(at)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    at_once = content()
    with FolderDraft(target):
        pass
    seen.append([at_once, content(), os.listdir(root)])
    if ended == 0:
        break
print(json.dumps(seen))
"""
OLD = {"models/a": "old", "b": "old", "mine": "old"}
NEW = {"models/a": "new", "c": "new", "mine": "old"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed in forks")
@pytest.mark.parametrize("can_exchange", [True, False])
def test_whenever_a_process_is_killed_the_folder_is_the_old_one_or_the_new_one(
    tmp_path: Path, can_exchange: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path / "root"), str(can_exchange)],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout)
    assert len(seen) > 20
    # Where folders cannot be exchanged, the next run puts right what a kill left between two steps.
    allowed = [OLD, NEW] if can_exchange else [OLD, NEW, {}]
    assert all(at_once in allowed for at_once, _, _ in seen)
    assert all(afterwards in [OLD, NEW] for _, afterwards, _ in seen)
    assert [afterwards for _, afterwards, _ in seen] == sorted(
        (afterwards for _, afterwards, _ in seen), key=[OLD, NEW].index
    )
    assert seen[-1][1] == NEW
    assert all(names == ["results"] for _, _, names in seen)


def test_a_draft_is_published_as_often_as_wanted_and_not_at_all_unless_told(tmp_path: Path) -> None:
    target = tmp_path / "results"
    with FolderDraft(target) as draft:
        (draft.folder / "a").write_text("1")
        draft.publish()
        (draft.folder / "b").write_text("2")
        assert [path.name for path in target.iterdir()] == ["a"]
        draft.publish()
        assert sorted(path.name for path in target.iterdir()) == ["a", "b"]
    with FolderDraft(target) as draft:
        (draft.folder / "a").write_text("3")
    assert (target / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_empty_folders_of_the_user_stay_and_those_of_a_run_go(tmp_path: Path) -> None:
    target = tmp_path / "results"
    (target / "mine" / "empty").mkdir(parents=True)
    (target / "models").mkdir()
    (target / "models" / "a").touch()
    with FolderDraft(target) as draft:
        draft.publish(is_kept=lambda path: path.name != "a")
    assert sorted(path.name for path in target.rglob("*")) == ["empty", "mine"]


def test_two_processes_do_not_draft_the_same_folder(tmp_path: Path) -> None:
    with FolderDraft(tmp_path / "results") as first, pytest.raises(BlockingIOError):
        FolderDraft(tmp_path / "results").__enter__()
    assert not first.folder.exists()
    with FolderDraft(tmp_path / "results"), FolderDraft(tmp_path / "others"):
        pass


def test_whoever_meets_a_process_that_has_just_finished_is_not_refused(
    tmp_path: Path, monkeypatch
) -> None:
    hidden, moments = tmp_path / ".results.part", []

    def locked_until_the_folder_is_gone(handle: int) -> bool:
        moments.append("lock")
        if moments.count("lock") == 1:
            hidden.rmdir()
            return False
        return True

    def made_until_the_folder_is_gone(path: str, mode: int = 0o777) -> None:
        moments.append("mkdir")
        if moments.count("mkdir") == 1:  # it was there, and is not when we look at it
            raise FileExistsError(path)
        make(path, mode)

    make = os.mkdir
    monkeypatch.setattr("xacle_stack._folder_draft.lock", locked_until_the_folder_is_gone)
    monkeypatch.setattr(os, "mkdir", made_until_the_folder_is_gone)
    with FolderDraft(tmp_path / "results") as draft:
        assert draft.folder.is_dir()
    assert moments.count("lock") == 2
    hidden.touch()  # what is no folder is not waited for
    with pytest.raises(FileExistsError, match="results.part"):
        FolderDraft(tmp_path / "results").__enter__()


def test_a_link_stays_one_and_a_mode_too(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("real")
    with FolderDraft(tmp_path / "link") as draft:
        (draft.folder / "a").write_text("1")
        draft.publish()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "1"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o750


def test_what_cannot_be_exchanged_is_told(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    if not exchange(tmp_path / "one", tmp_path / "one"):
        pytest.skip("this system cannot exchange two folders")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        exchange(tmp_path / "one", tmp_path / "nowhere")
