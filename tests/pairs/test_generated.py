import unicodedata
from pathlib import Path

import pytest

from xacle_stack.errors import PairsError
from xacle_stack.pairs import read_generated, read_prompts

PROMPTS = [
    {"id": "p1", "prompt": "rain", "topic": "weather"},
    {"id": "p2", "prompt": "a dog", "topic": "animals"},
    {"id": "é3", "prompt": "wind", "topic": "weather"},
]


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_clips_belong_to_the_prompts_of_their_names(tmp_path: Path) -> None:
    folder = fill(tmp_path / "gen_A", unicodedata.normalize("NFD", "é3.WAV"), "p1.flac", "p1.txt")
    table = tmp_path / "prompts.csv"
    table.write_text("id,prompt,topic\n" + "\n".join(",".join(p.values()) for p in PROMPTS))
    for prompts in (PROMPTS, table, read_prompts(PROMPTS)):
        generated = read_generated(prompts, folder)
        pairs = generated.pairs
        assert (pairs.split, pairs.ids, pairs.captions) == ("gen_A", ("p1", "é3"), ("rain", "wind"))
        assert [path.suffix for path in pairs.audio] == [".flac", ".WAV"]
        assert all(path.exists() for path in pairs.audio)
        assert pairs.columns == {"topic": ("weather", "weather")}
        assert generated.missing == ("p2",)


def test_clips_without_a_prompt_are_named_in_a_warning(tmp_path: Path, caplog) -> None:
    folder = fill(tmp_path / "gen_A", "p1.wav", "extra.wav", ".hidden.wav", "notes.txt")
    assert read_generated(PROMPTS, folder).pairs.ids == ("p1",)
    assert "1 file(s) belong to no prompt and are left out: extra.wav" in caplog.text


def test_two_files_of_one_prompt_are_told(tmp_path: Path) -> None:
    folder = fill(tmp_path / "gen_A", "p1.wav", "p1.mp3", "p2.wav")
    with pytest.raises(PairsError, match=r"gen_A: 1 prompt.*\n.*p1: p1\.mp3 and p1\.wav"):
        read_generated(PROMPTS, folder)


NAMINGS = {
    "1": ("prompt_0001.wav", "Did you mean 'prompt_0001' by the id '1'"),
    "p1.wav": ("p1.wav", r"Did you mean 'p1' by the id 'p1\.wav'\? Leave the ending out"),
    "P-One": ("p-one.wav", "Did you mean 'p-one' by the id 'P-One'"),
    "dog": ("cat.wav", r"The ids are 'dog' …; the files are 'cat' …, without their endings\. Give"),
}


@pytest.mark.parametrize("pair_id", NAMINGS)
def test_names_that_never_match_are_both_shown(tmp_path: Path, pair_id: str) -> None:
    file, told = NAMINGS[pair_id]
    folder = fill(tmp_path / "gen_A", file)
    with pytest.raises(PairsError, match=told):
        read_generated([{"id": pair_id, "text": "x"}], folder)


def test_folders_without_clips_are_told(tmp_path: Path) -> None:
    fill(tmp_path / "file.wav")
    fill(tmp_path / "all")
    fill(tmp_path / "all" / "gen_A", "p1.wav")
    (tmp_path / "file").touch()
    for name, told in {
        "none": "none: no such folder",
        "file": "file: this is a file",
        "all": "no audio files in it.* It holds the folders gen_A: give one",
    }.items():
        with pytest.raises(PairsError, match=told):
            read_generated(PROMPTS, tmp_path / name)


@pytest.mark.parametrize(
    ("prompts", "told"),
    [
        ([{"prompt": "rain"}], r"lacks a column for the id \(called 'id', 'pair_id'"),
        ([{"id": 1, "words": "rain"}], "lacks a column for the text.*--text-column"),
        ([{"id": 1, "text": "a"}, {"id": 1, "text": "b"}], "row 1: the id '1' is already in row 0"),
        ([{"id": i, "text": "a", "split": i} for i in "ab"], "several sets: a, b"),
    ],
)
def test_tables_that_hold_no_prompts_are_told(prompts: list, told: str) -> None:
    with pytest.raises(PairsError, match=told):
        read_prompts(prompts)


def test_the_column_of_texts_can_be_named() -> None:
    rows = [{"id": 1, "words": "rain", "text": "x"}]
    assert read_prompts(rows, text_column="words").captions == ("rain",)
