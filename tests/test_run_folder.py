from pathlib import Path

import pytest

from xacle_stack.errors import ModelFileError
from xacle_stack.run_folder import RunFolder


def run_folder(out: Path) -> RunFolder:
    return RunFolder(out, out.parent / "data", out.parent / "store")


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_run_replaces_what_runs_wrote_and_keeps_what_users_put_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with run_folder(out) as run:
        write(run.draft, results_csv="1", results_md="1", models__a_skops="1")
        (run.draft / "scores-test.csv").write_text("1")
        (run.draft / "report" / "index_files" / "audio").mkdir(parents=True)
        (run.draft / "report" / "index_files" / "audio" / "1.wav").write_text("1")
        (run.draft / "report" / "index.html").write_text("1")
        run.publish()
        assert run.has_results
    write(out, notes_txt="mine", models__readme_md="mine", scores_csv="mine", results_csv="edited")
    with run_folder(out) as run:
        write(run.draft, results_csv="2", models__b_skops="2")
        run.publish()
    assert names(out) == [
        *("models/b.skops", "models/readme.md", "notes.txt", "results.csv", "scores.csv"),
        "written.txt",
    ]
    assert (out / "results.csv").read_text() == "2"


def test_files_that_only_look_like_those_of_a_run_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with run_folder(out) as run:
        (run.draft / "scores-my set.csv").write_text("1")
        run.publish()
    write(out, models__mine_skops="mine")
    (out / "scores-test-mine.csv").write_text("mine")
    with run_folder(out) as run:
        write(run.draft, results_csv="2")
        run.publish()
    assert names(out) == [
        *("models/mine.skops", "results.csv", "scores-test-mine.csv", "written.txt")
    ]


def test_what_versions_without_a_list_wrote_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, results_csv="1", comparison_md="1", models__a_skops="1", notes_txt="mine")
    (out / "scores-test-a.csv").write_text("1")
    with run_folder(out) as run:
        assert run.has_results
        write(run.draft, results_csv="2")
        run.publish()
    assert names(out) == ["notes.txt", "results.csv", "written.txt"]


def test_a_second_run_into_the_folder_is_told_to_wait(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with run_folder(out) as run:
        with pytest.raises(ModelFileError, match=r"out: another run .* --out"):
            run_folder(out).__enter__()
        assert run.draft.is_dir()
    with run_folder(out):  # as soon as the first has ended
        pass


def test_a_file_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ModelFileError, match=r"out: .*file.* --out"):
        run_folder(tmp_path / "out").__enter__()
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFileError, match="file/out: cannot be written"):
        run_folder(tmp_path / "file" / "out").__enter__()


def test_a_full_disk_leaves_the_results_as_they_were(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    with run_folder(out) as run:
        write(run.draft, results_csv="1")
        run.publish()

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xacle_stack._folder_draft.exchange", full)
    with (
        run_folder(out) as run,
        pytest.raises(ModelFileError, match=r"out: .*No space.*unharmed"),
    ):
        run.publish()
    assert names(tmp_path) == ["out/results.csv", "out/written.txt"]


@pytest.mark.parametrize("inside", ["data set", "store of embeddings"])
def test_a_folder_that_holds_what_a_run_reads_is_refused(tmp_path: Path, inside: str) -> None:
    places = {"data set": tmp_path / "data", "store of embeddings": tmp_path / "store"}
    places[inside] = tmp_path / "out" / "sub" / "there"
    places[inside].mkdir(parents=True)
    with pytest.raises(ModelFileError, match=r"out: .*out/sub/there is in this folder.*--out"):
        RunFolder(tmp_path / "out", *places.values()).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_replaced_is_told_before_anything_is_fitted(
    tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "out" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "out" / "below")
    with pytest.raises(ModelFileError, match="out: .*current directory .*--out"):
        run_folder(tmp_path / "out").__enter__()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "out")
    with pytest.raises(ModelFileError, match="out: .*mounted .*--out"):
        run_folder(tmp_path / "out").__enter__()
    with run_folder(tmp_path / "out" / "below"):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "below"]
