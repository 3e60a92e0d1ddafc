import csv
from pathlib import Path

import numpy as np
import pytest
from support import WriteData, write_csv

from xacle_stack.errors import PairsError
from xacle_stack.pairs import Pairs, list_splits, read_pairs, read_splits


def meta(data: Path, name: str) -> Path:
    return data / "meta_data" / f"{name}.csv"


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_reads_averages_and_ratings_in_file_order(make_data: WriteData) -> None:
    data = make_data(train=8)
    rows = read_rows(meta(data, "train_average"))[1:]
    pairs = read_pairs(data, "train")
    assert pairs.ids == tuple(row[0] for row in rows)
    assert pairs.captions == tuple(row[1] for row in rows)
    assert pairs.scores is not None
    assert pairs.scores.tolist() == [float(row[2]) for row in rows]
    assert pairs.audio_paths[3] == data / "wav" / "train" / pairs.ids[3]
    assert pairs.ratings is not None
    assert len(pairs.ratings) == 4 * 8
    assert pairs.ratings.listener_ids[:4] == ("L0", "L1", "L2", "L3")


@pytest.mark.parametrize(
    "header",
    [
        ["wav_file_name", "text", "average_score"],
        ["wave_file_name", "text", "average_semantic_alignement_score"],
        [" wav_file_name ", "text", "average_semantic_alignment_score"],
    ],
)
def test_both_header_spellings_are_read(make_data: WriteData, header: list[str]) -> None:
    data = make_data(train=4)
    before = read_pairs(data, "train")
    path = meta(data, "train_average")
    write_csv(path, [header, *read_rows(path)[1:]])
    after = read_pairs(data, "train")
    assert after.ids == before.ids
    np.testing.assert_array_equal(after.scores, before.scores)


def test_columns_may_stand_in_any_order_and_a_byte_order_mark_is_ignored(
    make_data: WriteData,
) -> None:
    data = make_data(train=4)
    before = read_pairs(data, "train")
    path = meta(data, "train_average")
    lines = [",".join([row[2], row[0], row[1]]) for row in read_rows(path)]
    path.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    assert read_pairs(data, "train").captions == before.captions


def test_without_an_averages_file_the_ratings_are_averaged(make_data: WriteData) -> None:
    data = make_data(train=6)
    with_file = read_pairs(data, "train")
    meta(data, "train_average").unlink()
    without = read_pairs(data, "train")
    assert without.ids == with_file.ids
    np.testing.assert_array_equal(without.scores, with_file.scores)


def test_a_hidden_test_split_has_pairs_but_no_scores(make_data: WriteData) -> None:
    data = make_data(test=5)
    rows = read_rows(meta(data, "test_average"))
    meta(data, "test_average").unlink()
    write_csv(meta(data, "test"), [row[:2] for row in rows])
    pairs = read_pairs(data, "test")
    assert len(pairs) == 5
    assert pairs.scores is None
    assert pairs.ratings is None


def test_take_keeps_order_scores_and_ratings(make_data: WriteData) -> None:
    pairs = read_pairs(make_data(train=6), "train")
    taken = pairs.take([4, 1])
    assert taken.ids == (pairs.ids[4], pairs.ids[1])
    assert pairs.scores is not None
    assert taken.scores is not None
    assert taken.scores.tolist() == [pairs.scores[4], pairs.scores[1]]
    assert taken.ratings is not None
    assert set(taken.ratings.pair_ids) == set(taken.ids)
    assert len(taken.ratings) == 8


def test_splits_are_listed_in_the_usual_order(make_data: WriteData) -> None:
    assert list_splits(make_data(test=2, train=2)) == ["train", "test"]


def damage(data: Path, row: int, column: int, value: str) -> None:
    path = meta(data, "train_average")
    rows = read_rows(path)
    rows[row][column] = value
    write_csv(path, rows)


BAD_ROWS = {
    "empty caption": (1, "", "line 3: the caption of '00001.wav' is empty"),
    "no number": (2, "good", "line 3: average_score is 'good'; expected a number from 0 to 10"),
    "NaN": (2, "nan", "line 3: average_score is 'nan'"),
    "too high": (2, "10.5", "line 3: average_score is '10.5'"),
    "negative": (2, "-1", "line 3: average_score is '-1'"),
    "no score": (2, "", "line 3: average_score is ''"),
    "no name": (0, "", "line 3: the audio file name is empty"),
    "duplicate": (0, "00000.wav", "line 3: '00000.wav' stands already in train_average.csv, line"),
    "missing audio": (0, "nowhere.wav", "nowhere.wav: no such audio file"),
}


@pytest.mark.parametrize("mistake", BAD_ROWS)
def test_a_bad_row_is_named_with_its_line(make_data: WriteData, mistake: str) -> None:
    column, value, message = BAD_ROWS[mistake]
    data = make_data(train=4)
    meta(data, "train").unlink()
    damage(data, 2, column, value)
    with pytest.raises(PairsError) as caught:
        read_pairs(data, "train")
    assert message in str(caught.value)
    assert "1 mistake(s)" in str(caught.value)


def test_every_mistake_is_told_in_one_pass(make_data: WriteData) -> None:
    data = make_data(train=6)
    meta(data, "train").unlink()
    damage(data, 1, 1, " ")
    damage(data, 2, 2, "eleven")
    damage(data, 3, 0, "00000.wav")
    (data / "wav" / "train" / "00003.wav").unlink()
    (data / "wav" / "train" / "00004.wav").unlink()
    (data / "wav" / "train" / "00004.wav").mkdir()
    with pytest.raises(PairsError, match=r"5 mistake\(s\)") as caught:
        read_pairs(data, "train")
    for part in ("is empty", "'eleven'", "stands already", "no such audio", "this is a folder"):
        assert part in str(caught.value)


def test_at_most_twenty_mistakes_are_shown(make_data: WriteData) -> None:
    data = make_data(train=30)
    for path in (data / "wav" / "train").iterdir():
        path.unlink()
    with pytest.raises(PairsError, match=r"30 mistake\(s\)") as caught:
        read_pairs(data, "train")
    assert str(caught.value).count("no such audio file") == 20
    assert "and 10 more" in str(caught.value)


def test_a_caption_that_is_not_utf8_is_named(make_data: WriteData) -> None:
    data = make_data(train=3)
    meta(data, "train").unlink()
    path = meta(data, "train_average")
    lines = path.read_bytes().splitlines()
    name, _, score = lines[2].split(b",")
    lines[2] = b",".join([name, "ein Hund bellt im Gebüsch".encode("latin-1"), score])
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(PairsError, match=r"line 3: the caption of '00001.wav' is not UTF-8"):
        read_pairs(data, "train")


def test_a_caption_with_a_bare_comma_is_explained(make_data: WriteData) -> None:
    data = make_data(train=3)
    path = meta(data, "train_average")
    path.write_text(path.read_text().replace("a low", "a, low").replace("a high", "a, high"))
    path.write_text(path.read_text().replace("a middle", "a, middle").replace('"', ""))
    with pytest.raises(PairsError, match=r"4 fields instead of 3; put a caption that holds commas"):
        read_pairs(data, "train")


def test_missing_columns_name_what_was_found(make_data: WriteData) -> None:
    data = make_data(train=3)
    path = meta(data, "train_average")
    write_csv(path, [["file", "caption", "average_score"], *read_rows(path)[1:]])
    with pytest.raises(PairsError, match=r"lacks the column\(s\) 'wav_file_name' or .*'text'; it"):
        read_pairs(data, "train")


def test_ratings_that_fit_no_pair_are_mistakes(make_data: WriteData) -> None:
    data = make_data(train=3)
    path = meta(data, "train")
    rows = read_rows(path)
    rows[1][0] = "other.wav"
    rows[2][1] = "something else"
    rows[3][2] = "12"
    rows[4][3] = ""
    write_csv(path, rows)
    with pytest.raises(PairsError, match=r"4 mistake\(s\)") as caught:
        read_pairs(data, "train")
    for part in ("no pair of this split", "elsewhere", "'12'", "listener id is empty"):
        assert part in str(caught.value)


def test_scores_without_listeners_are_refused(make_data: WriteData) -> None:
    data = make_data(train=3)
    path = meta(data, "train")
    write_csv(path, [row[:3] for row in read_rows(path)])
    with pytest.raises(PairsError, match="no column 'listener_id'"):
        read_pairs(data, "train")


def test_wrong_folders_get_a_hint(make_data: WriteData, tmp_path: Path) -> None:
    data = make_data(train=2)
    with pytest.raises(PairsError, match="no such folder"):
        read_pairs(tmp_path / "nowhere", "train")
    with pytest.raises(PairsError, match=f"Did you mean '{data}'"):
        read_pairs(data / "wav", "train")
    with pytest.raises(PairsError, match=f"Did you mean '{data}'"):
        read_pairs(tmp_path, "train")
    with pytest.raises(PairsError, match=r"split 'test' is not here.*It holds: train.csv"):
        read_pairs(data, "test")
    with pytest.raises(PairsError, match="unknown split 'eval'"):
        read_pairs(data, "eval")


def test_an_empty_file_and_an_empty_folder_are_told_apart(make_data: WriteData) -> None:
    data = make_data(train=2)
    meta(data, "train").unlink()
    path = meta(data, "train_average")
    path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(PairsError, match="a header but no pairs"):
        read_pairs(data, "train")
    path.unlink()
    with pytest.raises(PairsError, match="none of the files train_average.csv"):
        list_splits(data)


def test_repr_says_what_there_is() -> None:
    pairs = Pairs("test", ("a.wav",), (Path("a.wav"),), ("rain",))
    assert repr(pairs) == "Pairs('test', 1 pairs, no scores, 0 ratings)"


def average_csv(data: Path, content: str | bytes) -> None:
    meta(data, "train").unlink(missing_ok=True)
    path = meta(data, "train_average")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_an_averages_file_without_the_score_column_is_a_split_without_scores(
    make_data: WriteData,
) -> None:
    data = make_data(train=2)
    average_csv(data, "wav_file_name,text\n00000.wav,rain\n00001.wav,wind\n")
    assert read_pairs(data, "train").scores is None
    average_csv(data, "wav_file_name,text,avg\n00000.wav,rain,3\n")
    with pytest.raises(PairsError, match=r"lacks the column\(s\) 'average_score'"):
        read_pairs(data, "train")


UNREADABLE = {
    "": "the file is empty",
    "wav_file_name;text;average_score\n00000.wav;rain;3\n": "columns are separated by ;",
    "wav_file_name\ttext\taverage_score\n00000.wav\train\t3\n": "columns are separated by tabs",
    'wav_file_name,text,average_score\n00000.wav,"dog,5\n00001.wav,"cat,3\n': (
        "the row that begins in line 2: its double quotes do not match"
    ),
    'wav_file_name,text,average_score\n00000.wav,"dog,5\n' + "x" * 200_000: (
        "the row that begins in line 2: its double quotes do not match"
    ),
}


@pytest.mark.parametrize("content", UNREADABLE, ids=lambda content: content[:40])
def test_files_that_are_no_such_csv_say_why(make_data: WriteData, content: str) -> None:
    data = make_data(train=2)
    average_csv(data, content)
    with pytest.raises(PairsError, match=UNREADABLE[content]):
        read_pairs(data, "train")


def test_a_utf16_file_is_recognised(make_data: WriteData) -> None:
    data = make_data(train=2)
    average_csv(data, "wav_file_name,text,average_score\n".encode("utf-16"))
    with pytest.raises(PairsError, match=r"this file is UTF-16. Save it as UTF-8"):
        read_pairs(data, "train")


def test_quoted_captions_may_hold_anything(make_data: WriteData) -> None:
    data = make_data(train=2)
    average_csv(
        data,
        'wav_file_name,text,average_score\n00000.wav,"a ""dog"", barking\nloudly",3\n'
        "00001.wav,雨の音,4\n",
    )
    assert read_pairs(data, "train").captions == ('a "dog", barking\nloudly', "雨の音")


@pytest.mark.parametrize(
    "name", ["./00000.wav", "a/../00000.wav", "../train/00000.wav", "/00000.wav", "a\\b.wav"]
)
def test_a_file_has_one_name_within_its_split(make_data: WriteData, name: str) -> None:
    data = make_data(train=2)
    damage(data, 1, 0, name)
    meta(data, "train").unlink()
    with pytest.raises(PairsError, match="is not the plain name of a file in the split's wav"):
        read_pairs(data, "train")


def test_subfolders_are_names(make_data: WriteData) -> None:
    data = make_data(train=2)
    wav = data / "wav" / "train"
    (wav / "sub").mkdir()
    (wav / "00000.wav").rename(wav / "sub" / "00000.wav")
    damage(data, 1, 0, "sub/00000.wav")
    meta(data, "train").unlink()
    assert read_pairs(data, "train").ids[0] == "sub/00000.wav"


def test_mistakes_of_all_splits_are_told_together(make_data: WriteData) -> None:
    data = make_data(train=3, validation=3)
    for split in ("train", "validation"):
        (data / "wav" / split / "00001.wav").unlink()
    with pytest.raises(PairsError, match=r"(?s)split 'train': 1 mistake.*'validation': 1 mistake"):
        read_splits(data)


def test_a_missing_wav_folder_is_one_mistake(make_data: WriteData) -> None:
    data = make_data(train=3)
    (data / "wav").rename(data / "sounds")
    with pytest.raises(PairsError, match=r"1 mistake.*\n.*wav/train: no such folder of audio"):
        read_pairs(data, "train")


def test_a_csv_file_of_another_name_is_pointed_out(make_data: WriteData, caplog) -> None:
    data = make_data(train=2)
    meta(data, "train").rename(meta(data, "val_average"))
    assert list_splits(data) == ["train"]
    assert "val_average.csv is not read: a split is called train, validation, test" in caplog.text
