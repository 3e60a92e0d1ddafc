import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from xacle_stack.audio import read_clip
from xacle_stack.cache import AudioKeys, file_status
from xacle_stack.cache.raw_keys import hex_keys
from xacle_stack.errors import AudioError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def clip(path: Path, level: float) -> Path:
    soundfile.write(path, np.full(100, level), 8000, subtype="FLOAT")
    return path


def test_an_unchanged_file_is_not_decoded_again(store: Path, tmp_path: Path, monkeypatch) -> None:
    paths = [clip(tmp_path / f"{i}.wav", i / 10) for i in range(3)]
    keys = hex_keys(AudioKeys(store).look_up(paths))
    assert keys == [read_clip(path).content_key for path in paths]

    def decode(path: Path) -> None:
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr("xacle_stack.cache.keys.read_clip", decode)
    assert hex_keys(AudioKeys(store).look_up(paths)) == keys


def test_a_changed_file_is_decoded_again(store: Path, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    (before,) = hex_keys(AudioKeys(store).look_up([path]))
    clip(path, 0.2)
    os.utime(path, ns=(1, 1))
    assert AudioKeys(store).known(path) is None
    (after,) = hex_keys(AudioKeys(store).look_up([path]))
    assert after == read_clip(path).content_key != before


def signed(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest() + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no memo",
        b"0" * 16,
        signed(b""),
        signed(b"{}"),
        signed(b"no json\n"),
        signed(b"[" * 100_000 + b"\n"),
        signed(b"{}\n" + b"0" * 65),
    ],
)
def test_a_damaged_memo_costs_only_time(
    store: Path, tmp_path: Path, content: bytes, caplog
) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    expected = hex_keys(AudioKeys(store).look_up([path]))
    (memo,) = (store / "keys").iterdir()
    memo.write_bytes(content)
    assert hex_keys(AudioKeys(store).look_up([path])) == expected
    assert "ignored and made again" in caplog.text


def test_a_memo_that_is_a_pipe_is_not_waited_for(store: Path, tmp_path: Path, caplog) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    expected = hex_keys(AudioKeys(store).look_up([path]))
    (memo,) = (store / "keys").iterdir()
    memo.unlink()
    os.mkfifo(memo)
    assert hex_keys(AudioKeys(store).look_up([path])) == expected
    assert "not a regular file" in caplog.text
    assert memo.is_file()


def test_a_memo_of_any_size_is_not_read(store: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    hex_keys(AudioKeys(store).look_up([path]))
    monkeypatch.setattr("xacle_stack.cache.keys._MAX_BYTES", 20)
    assert AudioKeys(store).known(path) is None
    assert "larger than 20 bytes" in caplog.text


def test_a_memo_is_not_written_through_a_link(store: Path, tmp_path: Path) -> None:
    path, elsewhere = clip(tmp_path / "a.wav", 0.1), tmp_path / "private"
    hex_keys(AudioKeys(store).look_up([path]))
    (memo,) = (store / "keys").iterdir()
    memo.unlink()
    elsewhere.write_text("somebody's notes")
    memo.symlink_to(elsewhere)
    hex_keys(AudioKeys(store).look_up([path]))
    assert elsewhere.read_text() == "somebody's notes"
    assert AudioKeys(store).known(path)


def test_a_flipped_bit_in_the_memo_is_noticed(store: Path, tmp_path: Path, caplog) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    (key,) = hex_keys(AudioKeys(store).look_up([path]))
    (memo,) = (store / "keys").iterdir()
    content = bytearray(memo.read_bytes())
    content[-1] ^= 1
    memo.write_bytes(content)
    assert hex_keys(AudioKeys(store).look_up([path])) == [key]
    assert "checksum" in caplog.text


def test_two_processes_do_not_forget_each_others_files(store: Path, tmp_path: Path) -> None:
    paths = [clip(tmp_path / f"{i}.wav", i / 10) for i in range(2)]
    first, second = AudioKeys(store), AudioKeys(store)
    for keys, path in zip((first, second), paths, strict=True):
        assert keys.known(path) is None
        keys.remember(path, read_clip(path).content_key, file_status(path))
    first.save()
    second.save()
    assert all(AudioKeys(store).known(path) for path in paths)


def test_every_bad_file_is_named_and_the_good_ones_are_remembered(
    store: Path, tmp_path: Path
) -> None:
    good, bad = clip(tmp_path / "good.wav", 0.1), tmp_path / "bad.wav"
    bad.write_text("no audio")
    with pytest.raises(AudioError, match=r"2 audio file\(s\) cannot be used") as caught:
        hex_keys(AudioKeys(store).look_up([bad, good, tmp_path / "missing.wav"]))
    assert "bad.wav" in str(caught.value)
    assert "missing.wav" in str(caught.value)
    assert AudioKeys(store).known(good)


def test_a_cache_that_cannot_be_written_just_has_no_memo(store: Path, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    (store / "keys").touch()
    assert hex_keys(AudioKeys(store).look_up([path])) == [read_clip(path).content_key]
    assert hex_keys(AudioKeys(tmp_path / "nowhere").look_up([path])) == [
        read_clip(path).content_key
    ]
    assert not (tmp_path / "nowhere").exists()


def test_a_file_of_equal_size_and_time_is_decoded_again(store: Path, tmp_path: Path) -> None:
    # As an archive unpacks them: fixed length, normalised times.
    path = clip(tmp_path / "a.wav", 0.1)
    os.utime(path, ns=(1, 1))
    (before,) = hex_keys(AudioKeys(store).look_up([path]))
    other = clip(tmp_path / "b.wav", 0.2)
    os.utime(other, ns=(1, 1))
    other.replace(path)
    assert hex_keys(AudioKeys(store).look_up([path])) == [read_clip(path).content_key] != [before]


def test_a_file_that_changes_while_it_is_decoded_is_not_remembered(
    store: Path, tmp_path: Path
) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    before, decoded = file_status(path), read_clip(path)
    clip(tmp_path / "b.wav", 0.2).replace(path)
    keys = AudioKeys(store)
    keys.remember(path, decoded.content_key, before)
    assert keys.known(path) is None


def test_a_memo_that_grows_is_saved_before_its_end(store: Path, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    key, status = read_clip(path).content_key, file_status(path)
    AudioKeys(store, save_seconds=1e9).remember(path, key, status)
    assert AudioKeys(store).known(path) is None
    AudioKeys(store, save_seconds=0).remember(path, key, status)
    assert AudioKeys(store).known(path) == key


def test_what_was_learned_before_there_is_a_cache_is_not_lost(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    keys = AudioKeys(tmp_path / "later", save_seconds=0)
    keys.remember(path, "ab" * 16, file_status(path))
    assert not (tmp_path / "later").exists()
    (tmp_path / "later").mkdir()
    keys.save()
    assert AudioKeys(tmp_path / "later").known(path) == "ab" * 16


def test_an_interrupt_keeps_what_was_learned(store: Path, tmp_path: Path, monkeypatch) -> None:
    paths = [clip(tmp_path / f"{i}.wav", i / 10) for i in range(2)]

    def interrupted_at_the_second(path: Path) -> object:
        if path == paths[1]:
            raise KeyboardInterrupt
        return read_clip(path)

    monkeypatch.setattr("xacle_stack.cache.keys.read_clip", interrupted_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        hex_keys(AudioKeys(store).look_up(paths))
    assert AudioKeys(store).known(paths[0])


def test_keys_of_another_decoding_are_not_used(store: Path, tmp_path: Path, monkeypatch) -> None:
    path = clip(tmp_path / "a.wav", 0.1)
    hex_keys(AudioKeys(store).look_up([path]))
    assert AudioKeys(store).known(path)
    monkeypatch.setattr("xacle_stack.cache.keys.DECODING_VERSION", 3)
    assert AudioKeys(store).known(path) is None
