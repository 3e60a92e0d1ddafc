import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from xacle_stack.audio import SampleSource
from xacle_stack.results.page import ClipEntry, Plot, Report, write_page
from xacle_stack.results.page.write import top_rows
from xacle_stack.results.text_section import TextSection
from xacle_stack.results.text_table import TextTable

NASTY = "</script><script>alert(1)</script><!-- \u2028 <img src=x onerror=alert(1)>"


def write_clips(folder: Path, n_clips: int) -> list[ClipEntry]:
    folder.mkdir(exist_ok=True)
    clips = []
    for row in range(n_clips):
        path = folder / f"clip {row}.wav"
        soundfile.write(path, 0.1 * np.sin(np.arange(800) / (row + 2)), 8000, subtype="PCM_16")
        clips.append(ClipEntry(f"c{row}", f"sound {row}", None, path, float(row)))
    return clips


def data_of(page: Path) -> dict[str, Any]:
    text = page.read_text("utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_copies_make_the_folder_complete(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "data", 2)
    memory = SampleSource(np.zeros(100), 8000)
    clips.append(ClipEntry("../../x", "in memory", "mine", memory, 1.5))
    page = write_page(Report("t", clips=clips), tmp_path / "out")
    assert files(tmp_path / "out") == [
        "index.html",
        *(f"index_files/audio/{row}.wav" for row in (1, 2, 3)),
        *(f"index_files/spectrograms/{row}.png" for row in (1, 2, 3)),
    ]
    assert [clip["sound"] for clip in data_of(page)["clips"]] == [
        f"index_files/audio/{row}.wav" for row in (1, 2, 3)
    ]
    assert "The sounds are in the folder of this page." in page.read_text("utf-8")


def test_links_lead_to_the_files_from_where_the_page_will_be(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "data", 1)
    page = write_page(
        Report("t", clips=clips),
        tmp_path / "hidden" / "draft" / "report",
        audio="link",
        opened_in=tmp_path / "report",
    )
    assert data_of(page)["clips"][0]["sound"] == "../data/clip%200.wav"
    assert "links to files" in page.read_text("utf-8")
    silent = write_page(Report("t", clips=clips), tmp_path / "silent", audio="none")
    assert "sound" not in data_of(silent)["clips"][0]
    with pytest.raises(ValueError, match="'both'.*'copy', 'link' or 'none'"):
        write_page(Report("t", clips=clips), tmp_path / "silent", audio="both")


def test_the_clips_at_the_top_of_the_lists_are_copied_first(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "data", 9)
    assert top_rows(clips, 4) == [0, 1, 7, 8]
    assert top_rows(clips, None) == top_rows(clips, 9) == list(range(9))
    page = write_page(Report("t", clips=clips), tmp_path / "out", max_clips=4)
    sounds = [clip["sound"].rpartition("/")[0] for clip in data_of(page)["clips"]]
    copied, linked = "index_files/audio", "../data"
    assert sounds == [copied, copied, *[linked] * 5, copied, copied]
    assert "4 of 9 clips" in page.read_text("utf-8")


def test_nothing_of_a_table_is_markup(tmp_path: Path) -> None:
    clip = ClipEntry(NASTY, NASTY, NASTY, None, 5.0, columns={NASTY: NASTY, "1": 2})
    table = TextTable(NASTY, [NASTY, "n"], [[NASTY, "0.5"]], [NASTY])
    plot = Plot(NASTY, "<svg xmlns='http://www.w3.org/2000/svg'/>", NASTY)
    page = write_page(Report(NASTY, [NASTY], [table], [plot], [clip]), tmp_path)
    text = page.read_text("utf-8")
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("<script") == text.count("</script>") == 2
    assert "<!--" not in text
    (found,) = data_of(page)["clips"]
    assert (found["id"], found["text"], found["system"]) == (NASTY, NASTY, NASTY)
    assert found["columns"] == [[NASTY, NASTY], ["1", "2"]]
    assert "default-src 'none'" in text


def test_a_clip_that_cannot_be_read_is_told_and_the_others_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = write_clips(tmp_path / "data", 2)
    assert isinstance(clips[1].audio, Path)
    clips[1].audio.write_bytes(b"no sound")
    with caplog.at_level(logging.WARNING):
        page = write_page(Report("t", clips=clips), tmp_path / "out")
    assert "clip 1.wav" in caplog.text
    first, second = data_of(page)["clips"]
    assert "sound" in first
    assert second["failed"] is True
    assert "sound" not in second
    assert "1 clips cannot be read" not in page.read_text("utf-8")
    assert "1 clip cannot be read" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"low": 3.0, "high": 6.5}, {"low": 3.0, "high": 6.5, "width": 3.5}),
        ({"human": 9.0}, {"human": 9.0, "dispute": 4.0}),
        ({"novelty": float("nan"), "dispute": float("inf")}, {}),
    ],
)
def test_numbers_that_are_not_known_are_left_out(
    tmp_path: Path, given: Mapping[str, float], expected: Mapping[str, float]
) -> None:
    clip = ClipEntry("a", "rain", None, None, 5.0, **given)
    (found,) = data_of(write_page(Report("t", clips=[clip]), tmp_path))["clips"]
    assert found == {"id": "a", "text": "rain", "score": 5.0, **expected}


def test_a_new_page_replaces_the_old_one_and_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "data", 3)
    out = tmp_path / "out"
    write_page(Report("t", clips=clips), out)
    (out / "audio").mkdir()
    (out / "audio" / "1.wav").write_text("mine")
    write_page(Report("t", clips=clips[:1]), out)
    assert files(out) == [
        "audio/1.wav",
        "index.html",
        "index_files/audio/1.wav",
        "index_files/spectrograms/1.png",
    ]
    assert (out / "audio" / "1.wav").read_text() == "mine"


def test_a_page_without_clips_has_no_script(tmp_path: Path) -> None:
    table = TextTable("results", ["system", "SRCC"], [["stack", ".734"], ["other", "–"]])
    text = write_page(Report("t", tables=[table]), tmp_path).read_text("utf-8")
    assert "<script" not in text
    assert '<td class="number">.734</td>' in text
    assert "<td>stack</td>" in text


def test_a_name_that_is_not_utf8_does_not_stop_the_page(tmp_path: Path) -> None:
    clip = ClipEntry("a\udcff", "b\udcff", None, None, 1.0)
    page = write_page(Report("c\udcff", clips=[clip]), tmp_path)
    assert data_of(page)["clips"][0]["id"] == "a\udcff"


def test_the_card_of_a_model_is_text(tmp_path: Path) -> None:
    section = TextSection(NASTY, [NASTY], [NASTY], [[NASTY]], NASTY)
    page = write_page(Report("t", card=[section], card_title=NASTY), tmp_path)
    text = page.read_text("utf-8")
    assert text.count("&lt;img") == 7  # the title of the table's group as well
    assert "<img" not in text
    assert "<script" not in text
    assert '<details id="card">' in text
