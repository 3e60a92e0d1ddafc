from pathlib import Path

import pytest
from support import WriteData

from xacle_stack.errors import PairsError
from xacle_stack.pairs import data_name, list_splits, read_pairs, read_splits


def test_a_folder_of_the_second_challenge_is_read(make_data: WriteData) -> None:
    data = make_data("XACLE_Challenge_2027_development_dataset", train=3, test=4)
    (data / "meta_data" / "test.csv").unlink()
    assert list_splits(str(data)) == ["train", "test"]
    pairs = read_pairs(data, "test")
    assert (len(pairs), pairs.ids[0], pairs.ratings) == (4, "00000.wav", None)
    assert data_name(data) == "XACLE_Challenge_2027_development_dataset"


def test_a_file_of_a_challenge_is_a_table_as_well(make_data: WriteData) -> None:
    data = make_data(test=4)
    folder = read_pairs(data)
    for name in ("test.csv", "test_average.csv"):
        table = read_pairs(data / "meta_data" / name, audio_root=data / "wav" / "test")
        assert table.audio == folder.audio
        assert table.captions == folder.captions
        assert table.scores.tolist() == folder.scores.tolist()


def test_the_only_set_needs_no_name(make_data: WriteData) -> None:
    assert read_pairs(make_data("one", validation=3)).split == "validation"
    with pytest.raises(PairsError, match=r"two: there are several sets: train, test.*--split"):
        read_pairs(make_data("two", train=2, test=2))


def test_a_folder_can_be_read_without_its_clips(make_data: WriteData) -> None:
    data = make_data(train=3)
    expected = read_pairs(data, "train")
    for path in (data / "wav" / "train").iterdir():
        path.unlink()
    with pytest.raises(PairsError, match="3 mistake"):
        read_splits(data)
    pairs = read_splits(data, with_audio=False)["train"]
    assert (pairs.ids, pairs.audio) == (expected.ids, ())
    assert pairs.scores.tolist() == expected.scores.tolist()


def test_a_folder_with_a_table_in_it_gets_a_hint(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").touch()
    with pytest.raises(PairsError, match=rf"Or give a table itself: {tmp_path}/metadata\.jsonl"):
        read_pairs(tmp_path)
    with pytest.raises(PairsError, match=r"none\.csv: no such file"):
        list_splits(tmp_path / "none.csv")
    with pytest.raises(PairsError, match=r"none: no such folder.*or a table"):
        list_splits(tmp_path / "none")


def test_data_are_named_after_their_folder_or_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v1.2").mkdir()
    assert data_name(".") == tmp_path.name
    assert data_name(tmp_path / "v1.2") == "v1.2"
    assert data_name("v1.2/my.ratings.csv") == "my.ratings"
    assert data_name([{"audio": "a.wav", "text": "a"}]) == "pairs"
