import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from xacle_stack.errors import PairsError
from xacle_stack.pairs import list_splits, read_pairs, read_splits

CLIPS = ("a.wav", "b.wav", "sub/c.flac")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with some clips."""
    (tmp_path / "sub").mkdir()
    for name in CLIPS:
        soundfile.write(tmp_path / name, np.full(100, 0.5), 8000)
    return tmp_path


def table(folder: Path, content: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(content, "utf-8")
    return path


def mistakes_of(data: Any, **options: Any) -> list[str]:
    with pytest.raises(PairsError) as caught:
        read_pairs(data, **options)
    _, *mistakes = str(caught.value).splitlines()
    return [mistake.removeprefix("  - ") for mistake in mistakes]


def test_everything_in_a_table_comes_out_again(folder: Path) -> None:
    path = table(
        folder,
        "id,audio,text,score,System,group,note\n"
        f'one,{folder / "a.wav"},"rain, wind",3.5,A,g1,=1+1\n'
        "two,sub/c.flac,rain,10,B,g2,\n",
    )
    pairs = read_pairs(path)
    assert (pairs.split, pairs.ids) == ("t", ("one", "two"))
    assert pairs.audio == (folder / "a.wav", folder / "sub" / "c.flac")
    assert pairs.captions == ("rain, wind", "rain")
    assert pairs.scores.tolist() == [3.5, 10.0]
    assert pairs.columns == {"system": ("A", "B"), "group": ("g1", "g2"), "note": ("=1+1", "")}


SPELLINGS = [
    *("audio,text", "path,caption", "file,prompt", "wav_file_name,text", "file_name,description"),
    *("Audio Path,Caption", "AUDIO,TEXT", " wav , text "),
]


@pytest.mark.parametrize("header", SPELLINGS)
def test_columns_have_several_names(folder: Path, header: str) -> None:
    pairs = read_pairs(table(folder, f"{header}\na.wav,rain\n"))
    assert (pairs.audio, pairs.captions, pairs.columns) == ((folder / "a.wav",), ("rain",), {})
    assert (pairs.ids, pairs.scores) == (("0",), None)


def test_options_name_columns_and_where_paths_start(folder: Path) -> None:
    path = table(folder / "sub", "audio,mine,text,words\nx,a.wav,y,rain\n")
    pairs = read_pairs(path, audio_column="mine", text_column="words", audio_root=folder)
    assert (pairs.audio, pairs.captions) == ((folder / "a.wav",), ("rain",))
    assert pairs.columns == {"audio": ("x",), "text": ("y",)}
    frame = pd.DataFrame({"audio": ["a.wav"], "text": ["rain"]})
    assert read_pairs(frame, audio_root=str(folder)).audio == (folder / "a.wav",)


HEADERS = {
    "auido,text": "Did you mean 'audio' by 'auido'",
    "audio,captoin": r"lacks a column for the text.*Did you mean 'caption' by 'captoin'",
    "a,b": r"lacks .* audio .* text .*\['a', 'b'\].*--audio-column.*--text-column",
    "audio,path,text": r"'audio' and 'path' could both be the audio.*--audio-column",
    "audio,text,prompt": r"'text' and 'prompt' could both be the text.*--text-column",
    "audio,text,score,average_score": r"'score' and 'average_score'.*Rename or remove",
    "audio,text,scor": "did you mean 'score' by the column 'scor'",
    "audio,text,score,listner_id": "did you mean 'listener_id' by the column 'listner_id'",
    "audio,text,Splits": "did you mean 'split' by the column 'Splits'",
    "audio,text,sytem": "did you mean 'system' by the column 'sytem'",
}


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_is_unclear_is_told(folder: Path, header: str) -> None:
    row = ",".join("1" for _ in header.split(","))
    with pytest.raises(PairsError, match=rf"t\.csv: .*{HEADERS[header]}"):
        read_pairs(table(folder, f"{header}\n{row}\n"))


def test_a_named_column_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(PairsError, match=r"no column 'audoi' .*\['audio', 'text'\].*'audio'\?"):
        read_pairs(table(folder, "audio,text\na.wav,rain\n"), audio_column="audoi")


def test_names_like_ours_are_kept_beside_them(folder: Path) -> None:
    path = table(
        folder, "audio,text,clap_score,scores_of_others,system,generator\na.wav,b,1,2,3,4\n"
    )
    assert set(read_pairs(path).columns) == {
        *("clap_score", "scores_of_others", "system", "generator")
    }  # fmt: skip


def test_one_clip_has_many_captions_and_one_caption_many_clips(folder: Path) -> None:
    path = table(folder, "audio,text\na.wav,x\na.wav,y\nb.wav,x\na.wav,x\n")
    pairs = read_pairs(path)
    assert (pairs.ids, pairs.captions) == (tuple("0123"), tuple("xyxx"))


def test_sets_are_read_by_name(folder: Path) -> None:
    path = table(folder, "audio,text,split\na.wav,x,pilot\nb.wav,y,Studie 2\na.wav,z,pilot\n")
    assert list_splits(path) == ["pilot", "Studie 2"]
    sets = read_splits(path)
    assert {name: pairs.ids for name, pairs in sets.items()} == {
        "pilot": ("0", "2"),
        "Studie 2": ("1",),
    }
    assert read_pairs(path, "pilot").captions == ("x", "z")
    with pytest.raises(PairsError, match=r"several sets: pilot, Studie 2.*--split"):
        read_pairs(path)
    with pytest.raises(PairsError, match="no set 'test'.*'pilot', 'Studie 2'"):
        read_pairs(path, "test")
    with pytest.raises(PairsError, match=r"u\.csv: there is no set 'test'.*'u'"):
        read_pairs(table(folder, "audio,text\na.wav,x\n", "u.csv"), "test")
    assert mistakes_of(table(folder, "audio,text,split\na.wav,x,\n")) == [
        "t.csv, line 2: the split is empty"
    ]


def test_one_set_is_read_without_the_clips_of_the_others(folder: Path) -> None:
    path = table(folder, "audio,text,split\na.wav,x,here\nnone.wav,y,there\n")
    assert len(read_pairs(path, "here")) == 1


def test_ratings_of_listeners_are_brought_together(folder: Path) -> None:
    path = table(
        folder,
        "audio,text,score,listener_id,system,seconds\n"
        "a.wav,x,3,L1,A,10\na.wav,y,8,L1,A,11\na.wav,x,4,L2,A,12\nb.wav,x,0,L2,B,13\n",
    )
    pairs = read_pairs(path)
    assert (pairs.ids, pairs.captions) == (("0", "1", "3"), ("x", "y", "x"))
    assert pairs.scores.tolist() == [3.5, 8.0, 0.0]
    assert pairs.columns == {"system": ("A", "A", "B")}
    assert pairs.ratings.pair_ids == ("0", "1", "0", "3")
    assert pairs.ratings.listener_ids == ("L1", "L1", "L2", "L2")
    assert pairs.ratings.scores.tolist() == [3, 8, 4, 0]


def test_ratings_are_brought_together_by_their_ids(folder: Path, caplog) -> None:
    sound = {"array": np.zeros(9), "sampling_rate": 8000}
    rows = [
        {"id": 7, "audio": "a.wav", "text": "x", "score": 1, "listener": 1, "when": "now"},
        {"id": 7, "audio": "a.wav", "text": "x", "score": 2, "listener": 2, "when": "then"},
        {"id": 8, "audio": "b.wav", "text": "x", "score": 3, "listener": 2, "when": "now"},
    ]
    pairs = read_pairs(rows, audio_root=folder)
    assert (pairs.ids, pairs.ratings.listener_ids) == (("7", "8"), ("1", "2", "2"))
    assert "'when'" in caplog.text
    rows[1]["text"] = "y"
    assert mistakes_of(rows, audio_root=folder) == [
        "row 1: the id '7' has another clip or text than in row 0"
    ]
    nameless = [{"audio": sound, "text": "x", "score": 1, "listener": "L"}] * 2
    assert ["add a column 'id'" in mistake for mistake in mistakes_of(nameless)] == [True] * 2


def test_every_mistake_is_told_with_its_line(folder: Path) -> None:
    path = table(
        folder,
        "id,audio,text,score\n"
        "1,a.wav,rain,11\n"
        "1,b.wav,rain,5\n"
        "2,A.wav, ,5\n"
        "3,b,rain,many\n"
        ",,rain,5\n"
        "5,sub,rain,nan,7\n"
        "6,sub,rain,5\n",
    )
    lines = {
        "line 2: score is '11'; expected a number from 0 to 10",
        "line 3: the id '1' is already in t.csv, line 2",
        f"line 4: {folder}/A.wav: no such audio file; did you mean 'a.wav'?",
        "line 4: the text is empty",
        f"line 5: {folder}/b: no such audio file; did you mean 'b.wav'?",
        "line 5: score is 'many'; expected a number from 0 to 10",
        "line 6: the clip is empty",
        "line 6: the id is empty",
        f"line 8: {folder}/sub: this is a folder, not an audio file",
    }
    told = mistakes_of(path)
    assert {f"t.csv, {line}" for line in lines} <= set(told)
    assert any("line 7: 5 fields instead of 4" in mistake for mistake in told)


def test_cells_of_other_types_are_told(folder: Path) -> None:
    rows = [
        {"id": 1, "audio": "a.wav", "text": ["x", "y"], "score": True},
        {"id": 1.5, "audio": "a.wav", "text": 5, "score": "1_0"},
        {"id": None, "audio": "a.wav", "text": float("nan"), "score": -1},
        {"id": "\ud800", "audio": "a.wav", "text": "\ud800", "score": 10**400},
    ]
    told = mistakes_of(rows, audio_root=folder)
    for row, facts in enumerate([
        ("type list; write a row for each", "score is 'True'"),
        ("the id: '1.5' is not a text", "'5' is not a text", "'1_0'"),
        ("the id is empty", "the text is empty", "score is -1"),
        ("the id: b'\\\\ud800' is not UTF-8", "the text: b'\\\\ud800' is not UTF-8", "expected a"),
    ]):  # fmt: skip
        for fact in facts:
            assert any(f"row {row}" in line and fact in line for line in told), fact


def test_a_frame_with_gaps_keeps_its_whole_ids(folder: Path) -> None:
    frame = pd.DataFrame({"id": [1.0, 2.0], "audio": ["a.wav"] * 2, "text": ["x", "y"]})
    assert read_pairs(frame, audio_root=folder).ids == ("1", "2")
    frame["score"] = pd.array([1, None], dtype="Int64")
    assert "1 of 2 rows have no score, the first in row 1" in mistakes_of(
        frame, audio_root=folder
    )[0]  # fmt: skip


def test_names_in_another_unicode_form_are_found(folder: Path) -> None:
    there = folder / unicodedata.normalize("NFD", "é.wav")
    (folder / "a.wav").rename(there)
    asked = unicodedata.normalize("NFC", "é.wav")
    for name in (asked, folder / asked, f"sub/../{asked}"):
        pairs = read_pairs([{"audio": name, "text": "x"}], audio_root=folder)
        assert pairs.audio[0].samefile(there)


def test_absolute_paths_get_hints_as_well(folder: Path) -> None:
    (told,) = mistakes_of([{"audio": folder / "A.wav", "text": "x"}])
    assert told.endswith(f"did you mean '{folder}/a.wav'?")
    (told,) = mistakes_of([{"audio": "../a", "text": "x"}], audio_root=folder / "sub")
    assert told.endswith("did you mean '../a.wav'?")


def test_a_wrong_root_is_told_first(folder: Path) -> None:
    path = table(folder / "sub", "audio,text\na.wav,x\nb.wav,y\n")
    first, *others = mistakes_of(path)
    assert f"none of the 2 audio files is there: relative paths start at {folder}/sub" in first
    assert "--audio-root" in first
    assert len(others) == 2


def test_scores_without_listeners_that_repeat_a_pair_are_told(folder: Path) -> None:
    path = table(folder, "audio,text,score\na.wav,x,3\nb.wav,x,4\na.wav,x,5\n")
    (told,) = mistakes_of(path)
    assert told.startswith("t.csv, line 4: this clip with this text is already in t.csv, line 2")
    assert "'listener_id'" in told


def test_scores_of_some_rows_only_are_told(folder: Path) -> None:
    path = table(folder, "audio,text,score\na.wav,x,3\nb.wav,x,\na.wav,y,\n")
    (told,) = mistakes_of(path)
    assert "2 of 3 rows have no score, the first in t.csv, line 3" in told
    assert "split" in told
    path = table(folder, "audio,text,score,split\na.wav,x,3,rated\nb.wav,x,,new\na.wav,y,,new\n")
    sets = read_splits(path)
    assert sets["rated"].scores.tolist() == [3.0]
    assert sets["new"].scores is None


@pytest.mark.parametrize(
    ("scores", "remedy"),
    [
        ([0, 55, 100], "given from 0 to 100, write score / 10"),
        ([-0.5, 0.3, 1], "given from -1 to 1, write 5 × (score + 1)"),
        ([-3, 2, 200], "10 × (score − lowest) / (highest − lowest)"),
    ],
)
def test_scores_of_another_scale_are_told_how_to_bring_them_to_ours(
    folder: Path, scores: list[float], remedy: str
) -> None:
    rows = [{"id": i, "audio": "a.wav", "text": "x", "score": s} for i, s in enumerate(scores)]
    first, *_ = mistakes_of(rows, audio_root=folder)
    assert remedy in first


@pytest.mark.parametrize(
    ("scores", "remedy"),
    [
        (np.linspace(0, 1, 12), "from 0 to 1, write 10 × score"),
        (np.linspace(1, 5, 12), "from 1 to 5, write 2.5 × (score − 1)"),
        (np.linspace(0, 5, 12), None),
        (np.linspace(0, 1, 3), None),
    ],
)
def test_a_narrow_scale_is_warned_of_and_never_changed(
    folder: Path, caplog, scores: np.ndarray, remedy: str | None
) -> None:
    rows = [{"id": i, "audio": "a.wav", "text": "x", "score": s} for i, s in enumerate(scores)]
    assert read_pairs(rows, audio_root=folder).scores.tolist() == scores.tolist()
    assert (remedy or "") in caplog.text
    assert bool(caplog.records) == (remedy is not None)


def test_pairs_can_be_read_without_their_clips(tmp_path: Path) -> None:
    path = table(tmp_path, "id,audio,path,text,score\n1,none.wav,x,rain,3\n")
    pairs = read_pairs(path, with_audio=False)
    assert (pairs.ids, pairs.audio, pairs.scores.tolist()) == (("1",), (), [3.0])


@pytest.mark.parametrize("content", ["audio,text\n", "audio,text,split\n"])
def test_a_table_without_rows_is_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(PairsError, match="there are no rows"):
        read_pairs(table(tmp_path, content))
    with pytest.raises(PairsError, match="no rows and no columns"):
        read_pairs([])


def test_a_table_of_something_else_is_given_up(tmp_path: Path) -> None:
    rows = [{"audio": f"{i}.wav", "text": ""} for i in range(6_000)]
    with pytest.raises(PairsError, match="more than 10,000 mistakes up to row 5000"):
        read_pairs(rows, audio_root=tmp_path)


def test_a_huge_text_is_refused(folder: Path) -> None:
    rows = [{"audio": "a.wav", "text": "x" * 200_000}]
    assert mistakes_of(rows, audio_root=folder) == [
        "row 0: the text: a text of more than 100,000 characters"
    ]
