import csv
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support import WriteData, write_csv

from xacle_stack.errors import PairsError
from xacle_stack.pairs import list_splits, read_pairs, read_splits


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
    assert pairs.audio[3] == data / "wav" / "train" / pairs.ids[3]
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
    "digits that only Python takes": (2, "0_5", "line 3: average_score is '0_5'"),
    "digits of another script": (2, "٥", "line 3: average_score is '٥'"),
    "infinite": (2, "1e999", "line 3: average_score is '1e999'"),
    "negative": (2, "-1", "line 3: average_score is '-1'"),
    "no score": (2, "", "line 3: average_score is ''"),
    "no name": (0, "", "line 3: the audio file name is empty"),
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
    average = meta(data, "train_average")
    average.write_text(average.read_text() + ",".join(read_rows(average)[4]))
    (data / "wav" / "train" / "00003.wav").unlink()
    (data / "wav" / "train" / "00004.wav").unlink()
    (data / "wav" / "train" / "00004.wav").mkdir()
    with pytest.raises(PairsError, match=r"5 mistake\(s\)") as caught:
        read_pairs(data, "train")
    for part in ("is empty", "'eleven'", "already in", "no such audio", "this is a folder"):
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
    with pytest.raises(PairsError, match=r"line 3: .*'00001.wav'.* UTF-8"):
        read_pairs(data, "train")


def test_a_caption_with_a_bare_comma_is_explained(make_data: WriteData) -> None:
    data = make_data(train=3)
    path = meta(data, "train_average")
    path.write_text(path.read_text().replace("a low", "a, low").replace("a high", "a, high"))
    path.write_text(path.read_text().replace("a middle", "a, middle").replace('"', ""))
    with pytest.raises(PairsError, match=r"4 fields .*3; .*commas"):
        read_pairs(data, "train")


def test_missing_columns_name_what_was_found(make_data: WriteData) -> None:
    data = make_data(train=3)
    path = meta(data, "train_average")
    write_csv(path, [["file", "caption", "average_score"], *read_rows(path)[1:]])
    with pytest.raises(PairsError, match=r"column.* 'wav_file_name' .*'text'"):
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
    for part in ("'other.wav'", "elsewhere", "'12'", "listener id is empty"):
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
    with pytest.raises(PairsError, match=f"'{data}'"):
        read_pairs(data / "wav", "train")
    with pytest.raises(PairsError, match=f"'{data}'"):
        read_pairs(tmp_path, "train")
    with pytest.raises(PairsError, match=r"split 'test' .*train.csv"):
        read_pairs(data, "test")
    with pytest.raises(PairsError, match="unknown split 'eval'"):
        read_pairs(data, "eval")


XACLE_2027 = "XACLE_Challenge_2027_development_dataset"


def test_the_folder_of_the_second_challenge_is_read_as_it_is(make_data: WriteData) -> None:
    data = make_data(XACLE_2027, train=4, validation=3, test=2)
    for split in ("train", "validation", "test"):
        meta(data, split).unlink(missing_ok=True)  # it has no ratings of single listeners
    splits = read_splits(data)
    assert [(name, len(pairs)) for name, pairs in splits.items()] == [
        *(("train", 4), ("validation", 3), ("test", 2))
    ]
    assert all(pairs.scores is not None for pairs in splits.values())
    assert splits["test"].audio[0] == data / "wav" / "test" / "00000.wav"


def test_folders_above_and_below_name_every_data_set_near(
    make_data: WriteData, tmp_path: Path
) -> None:
    data, other = (make_data(f"datasets/{name}", train=2) for name in (XACLE_2027, "XACLE_dataset"))
    above = [tmp_path, tmp_path / "datasets"]
    for folder in above:
        with pytest.raises(PairsError, match=f"Did you mean '{data}' or '{other}'"):
            read_splits(folder)
    for folder in (data / "meta_data", data / "wav", data / "wav" / "train"):
        with pytest.raises(PairsError, match=f"Did you mean '{data}'"):
            read_splits(folder)


def test_an_empty_file_and_an_empty_folder_are_told_apart(make_data: WriteData) -> None:
    data = make_data(train=2)
    meta(data, "train").unlink()
    path = meta(data, "train_average")
    path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(PairsError, match="no pairs"):
        read_pairs(data, "train")
    path.unlink()
    with pytest.raises(PairsError, match=r"train_average\.csv"):
        list_splits(data)


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


LIKE_SCORES = [
    "avg",
    "Average_Score",
    "average score",
    "averageScore",
    "scor",
    "MOS",
    "human_rating",
]


@pytest.mark.parametrize("name", LIKE_SCORES)
@pytest.mark.parametrize("file", ["train_average", "train"])
def test_a_misspelled_score_column_is_no_split_without_scores(
    make_data: WriteData, file: str, name: str
) -> None:
    data = make_data(train=2)
    expected = "average_score" if file == "train_average" else "score"
    meta(data, file).write_text(f"wav_file_name,text,{name},listener_id\n00000.wav,rain,3,a\n")
    with pytest.raises(PairsError) as caught:
        read_pairs(data, "train")
    assert f"{file}.csv: the header lacks the column '{expected}'" in str(caught.value)
    assert f"{name!r} looks like scores. Did you mean {expected!r}?" in str(caught.value)
    assert "A split without scores has no such column" in str(caught.value)


@pytest.mark.parametrize("file", ["validation_average", "validation"])
@pytest.mark.parametrize("extra", ["", "duration", "model", "split", "store"])
def test_other_columns_may_stand_in_a_split_without_scores(
    make_data: WriteData, caplog, file: str, extra: str
) -> None:
    data = make_data(validation=2)
    for name in ("validation_average", "validation"):
        meta(data, name).unlink()
    meta(data, file).write_text(f"{extra},wav_file_name,text\n0,00000.wav,rain\n")
    pairs = read_pairs(data, "validation")
    assert (pairs.ids, pairs.captions, pairs.scores) == (("00000.wav",), ("rain",), None)
    told = "read as a split without scores" in caplog.text
    assert told == (bool(extra) and file == "validation_average")


def test_columns_that_mean_the_same_are_refused(make_data: WriteData) -> None:
    data = make_data(train=2)
    average_csv(data, "wav_file_name,text,text,average_score\n00000.wav,rain,wind,3\n")
    with pytest.raises(PairsError, match="'text' and 'text' "):
        read_pairs(data, "train")


def test_a_misspelled_column_is_recognised(make_data: WriteData) -> None:
    data = make_data(train=2)
    average_csv(data, "wav_filename,Text,average_score\n00000.wav,rain,3\n")
    with pytest.raises(PairsError) as caught:
        read_pairs(data, "train")
    for expected, found in (("wav_file_name", "wav_filename"), ("text", "Text")):
        assert f"Did you mean {expected!r} by {found!r}?" in str(caught.value)


UNREADABLE = {
    "": "the file is empty",
    "wav_file_name;text;average_score\n00000.wav;rain;3\n": "columns are separated by ;",
    "wav_file_name\ttext\taverage_score\n00000.wav\train\t3\n": "columns are separated by tabs",
    'wav_file_name,text,average_score\n00000.wav,"dog,5\n00001.wav,"cat,3\n': (
        "the row that begins in line 2: its double quotes do not match"
    ),
    'wav_file_name,text,average_score\n00000.wav,"dog,5\n' + "x" * 200_000: (
        "row that begins in line 2: a field has more than 100,000 characters.* or close the double"
    ),
    'wav_file_name,text,average_score\n00000.wav,"' + "dog " * 40_000 + '",5\n': (
        "row that begins in line 2: a field has more than 100,000 characters"
    ),
    'wav_file_name,text,average_score\n00000.wav,"' + "dog " * 26_000 + '",5\n': (
        "row that begins in line 2: a field has more than 100,000 characters"
    ),
    "wav_file_name,text,average_score\n00000.wav,dog,5\n" + "x," * 600_000: (
        "row that begins in line 3: this row has more than 1,000,000 characters"
    ),
    "wav_file_name,text,average_score\n00000.wav,do\0g,5\n": "line 2: there are NUL bytes",
    'wav_file_name,text,average_score\n00000.wav,\t"dog",5\n': (
        "line 2: a tab or another blank stands before a double quote"
    ),
    'wav_file_name,text,average_score\n00000.wav,"dog" ,5\n': (
        "line 2: its double quotes do not match .* nothing between the closing one and the comma"
    ),
    "wav_file_name,text,average_score\n" + "x\n" * 10_001: (
        "more than 10,000 mistakes up to line 10002; is it the right file"
    ),
}


@pytest.mark.parametrize("content", UNREADABLE, ids=range(len(UNREADABLE)))
def test_files_that_are_no_such_csv_say_why(make_data: WriteData, content: str) -> None:
    data = make_data(train=2)
    average_csv(data, content)
    with pytest.raises(PairsError, match=UNREADABLE[content]):
        read_pairs(data, "train")


def test_a_utf16_file_is_recognised(make_data: WriteData) -> None:
    data = make_data(train=2)
    average_csv(data, "wav_file_name,text,average_score\n".encode("utf-16"))
    with pytest.raises(PairsError, match=r"UTF-16.* UTF-8"):
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
    with pytest.raises(PairsError, match="plain name"):
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
    with pytest.raises(PairsError, match=r"(?s)'train': 1 mistake.*'validation': 1 mistake"):
        read_splits(data)


def test_a_missing_wav_folder_is_one_mistake(make_data: WriteData) -> None:
    data = make_data(train=3)
    (data / "wav").rename(data / "sounds")
    with pytest.raises(PairsError, match=r"1 mistake.*\n.*wav/train: .*folder"):
        read_pairs(data, "train")


def test_a_csv_file_of_another_name_is_pointed_out(make_data: WriteData, caplog) -> None:
    data = make_data(train=2)
    meta(data, "train").rename(meta(data, "val_average"))
    assert list_splits(data) == ["train"]
    assert "val_average.csv is not read: a split is called train, validation, test" in caplog.text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_space_before_quotes_is_no_part_of_the_text(make_data: WriteData, end: str) -> None:
    data = make_data(train=2)
    lines = ["wav_file_name, text, average_score", '00000.wav, "a dog barks", 5']
    average_csv(data, end.join([*lines, '00001.wav,  "a ""dog"", barking", 4']))
    pairs = read_pairs(data, "train")
    assert pairs.captions == ("a dog barks", 'a "dog", barking')
    assert pairs.scores is not None
    assert pairs.scores.tolist() == [5, 4]


def test_rows_that_a_spreadsheet_leaves_empty_are_none(make_data: WriteData) -> None:
    data = make_data(train=3)
    before = read_pairs(data, "train")
    for name in ("train_average", "train"):
        path = meta(data, name)
        path.write_text(path.read_text().replace("\n", "\n, ,,\n\n,,,\n", 2) + ",,\n")
    after = read_pairs(data, "train")
    assert (after.ids, after.captions) == (before.ids, before.captions)
    assert after.ratings is not None
    assert before.ratings is not None
    assert after.ratings.pair_ids == before.ratings.pair_ids


def test_a_csv_that_is_no_regular_file_is_not_waited_for(make_data: WriteData) -> None:
    data = make_data(train=2)
    path = meta(data, "train_average")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PairsError, match=r"train_average\.csv: .*regular file"):
        read_pairs(data, "train")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(PairsError, match=r"train_average\.csv: .*regular file"):
        read_pairs(data, "train")


def test_a_huge_line_takes_no_memory(make_data: WriteData) -> None:
    data = make_data(train=2)
    average_csv(data, "wav_file_name,text,average_score\n00000.wav,")
    with meta(data, "train_average").open("r+b") as file:
        file.truncate(2**30)  # sparse: NUL bytes that take no space
    tracemalloc.start()
    with pytest.raises(PairsError, match="line 2.* more than 1,000,000 characters"):
        read_pairs(data, "train")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_a_file_under_several_captions_gives_numbered_ids(make_data: WriteData) -> None:
    data = make_data(train=2)
    average_csv(
        data,
        "wav_file_name,text,average_score\n00000.wav,rain,5\n00001.wav,wind,2\n00000.wav,a dog,1\n",
    )
    meta(data, "train").write_text(
        "wav_file_name,text,score,listener_id\n"
        "00000.wav,a dog,1,x\n00001.wav,wind,2,x\n00000.wav,rain,5,y\n"
    )
    pairs = read_pairs(data, "train")
    assert pairs.ids == ("00000.wav#1", "00001.wav", "00000.wav#2")
    assert [path.name for path in pairs.audio] == ["00000.wav", "00001.wav", "00000.wav"]
    assert pairs.captions == ("rain", "wind", "a dog")
    assert pairs.ratings is not None
    assert pairs.ratings.pair_ids == ("00000.wav#2", "00001.wav", "00000.wav#1")
    taken = pairs.take([2])
    assert (taken.ids, taken.captions) == (("00000.wav#2",), ("a dog",))
    assert taken.ratings is not None
    assert taken.ratings.listener_ids == ("x",)
    meta(data, "train_average").unlink()
    means = read_pairs(data, "train")
    assert (means.ids[0], means.captions[0]) == ("00000.wav#1", "a dog")
    assert means.scores is not None
    assert means.scores.tolist() == [1, 2, 5]


def test_a_pair_that_stands_twice_names_both_lines(make_data: WriteData) -> None:
    data = make_data(train=2)
    average_csv(
        data,
        "wav_file_name,text,average_score\n"
        "00000.wav,rain,5\n00000.wav,wind,2\n00000.wav, rain ,1\n",
    )
    message = r"1 mistake.*\n.*average.csv, line 4: '00000.wav' with this caption is already in"
    with pytest.raises(PairsError, match=f"{message} train_average.csv, line 2"):
        read_pairs(data, "train")


def test_a_rating_of_another_caption_is_no_rating_of_the_pair(make_data: WriteData) -> None:
    data = make_data(train=2)
    rows = "00000.wav,rain,5\n00000.wav,wind,2\n"
    average_csv(data, "wav_file_name,text,average_score\n" + rows)
    meta(data, "train").write_text(
        "wav_file_name,text,score,listener_id\n00000.wav,rain,5,x\n00000.wav,snow,2,x\n"
    )
    with pytest.raises(PairsError, match="train.csv, line 3: '00000.wav' .*'snow'"):
        read_pairs(data, "train")


def test_a_numbered_id_that_is_another_files_name_is_refused(make_data: WriteData) -> None:
    data = make_data(train=2)
    wav = data / "wav" / "train"
    (wav / "00001.wav").rename(wav / "00000.wav#2")
    average_csv(
        data,
        "wav_file_name,text,average_score\n00000.wav,rain,5\n00000.wav,wind,2\n00000.wav#2,a,1\n",
    )
    with pytest.raises(PairsError, match=r"other files .*\n.*00000.wav#2"):
        read_pairs(data, "train")
