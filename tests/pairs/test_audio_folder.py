import os
import unicodedata
from pathlib import Path

import pytest

from xacle_stack.pairs.audio_folder import AudioFolder

FORMS = ("NFC", "NFD")


def form(name: str, of: str) -> str:
    return unicodedata.normalize(of, name)


@pytest.mark.parametrize(("asked", "there"), [FORMS, FORMS[::-1]])
def test_a_name_in_another_unicode_form_is_found(tmp_path: Path, asked: str, there: str) -> None:
    folder = tmp_path / form("Geräusche", there)
    folder.mkdir()
    path = folder / form("é 雨.wav", there)
    path.touch()
    mistakes: list[str] = []
    found = AudioFolder(tmp_path).find(form("Geräusche/é 雨.wav", asked), mistakes)
    assert (found, mistakes) == (path, [])


def test_each_of_two_forms_is_itself(tmp_path: Path) -> None:
    for of in FORMS:
        (tmp_path / form("é.wav", of)).write_text(of)
    folder, mistakes = AudioFolder(tmp_path), list[str]()
    found = [folder.find(form("é.wav", of), mistakes).read_text() for of in FORMS]
    assert (found, mistakes) == (list(FORMS), [])


NEAR = {
    "a.WAV": "a.wav",
    "Sub/B.wav": "sub/b.wav",
    "a": "a.wav",
    "a.mp3": "a.wav",
    "v1.2": "v1.2.flac",
    "sub/b": "sub/b.wav",
}


@pytest.mark.parametrize("asked", NEAR)
def test_a_near_name_is_offered(tmp_path: Path, asked: str) -> None:
    (tmp_path / "sub").mkdir()
    for name in NEAR.values():
        (tmp_path / name).touch()
    mistakes: list[str] = []
    AudioFolder(tmp_path).find(asked, mistakes)
    assert mistakes == [f"{tmp_path / asked}: no such audio file; did you mean {NEAR[asked]!r}?"]


def test_an_unclear_or_distant_name_is_not_offered(tmp_path: Path) -> None:
    for name in ("a.ogg", "a.flac"):
        (tmp_path / name).touch()
    mistakes: list[str] = []
    for name in ("a", "dog.wav", "nowhere/a.wav", "a.wav/b.wav"):
        AudioFolder(tmp_path).find(name, mistakes)
    assert [line.rpartition(":")[2] for line in mistakes] == [" no such audio file"] * 4


def test_the_folder_is_listed_once(tmp_path: Path, monkeypatch) -> None:
    listed: list[Path] = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or iterdir(path))
    folder, mistakes = AudioFolder(tmp_path), list[str]()
    for number in range(50):
        folder.find(f"{number}.wav", mistakes)
    assert len(mistakes) == 50
    assert len(listed) <= 3  # for each kind of nearness once


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    long = "x" * 300
    mistakes: list[str] = []
    for name in ("folder.wav", "pipe.wav", "loop.wav", long):
        AudioFolder(tmp_path).find(name, mistakes)
    assert mistakes[:2] == [
        f"{tmp_path}/folder.wav: this is a folder, not an audio file",
        f"{tmp_path}/pipe.wav: this is not a regular file",
    ]
    assert "loop.wav: cannot be accessed" in mistakes[2]
    assert f"{long}: cannot be accessed" in mistakes[3]
