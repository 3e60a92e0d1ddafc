from pathlib import Path
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import numpy as np
import pytest
import soundfile

from xacle_stack.audio import Clip, SampleSource, read_clip
from xacle_stack.results.page.sounds import copy_sound, link_to

SAMPLES = 0.3 * np.sin(np.arange(4000) / 5)


@pytest.mark.parametrize(
    ("name", "settings", "ending"),
    [
        ("a.wav", {"subtype": "PCM_16"}, ".wav"),
        ("a.wav", {"subtype": "FLOAT"}, ".wav"),
        ("a.flac", {}, ".flac"),
        ("a.ogg", {}, ".ogg"),
        ("a.mp3", {}, ".mp3"),
        # The content decides, whatever the name says.
        ("a.exe", {"format": "FLAC"}, ".flac"),
    ],
)
def test_what_browsers_play_is_copied_byte_by_byte(
    tmp_path: Path, name: str, settings: dict[str, str], ending: str
) -> None:
    path = tmp_path / name
    soundfile.write(path, SAMPLES, 16_000, **settings)
    copy = copy_sound(path, read_clip(path), tmp_path / "0001")
    assert copy.name == f"0001{ending}"
    assert copy.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.wav", "DOUBLE"), ("a.wav", "ULAW"), ("a.aiff", "PCM_16")]
)
def test_other_formats_become_a_16_bit_wav(tmp_path: Path, name: str, subtype: str) -> None:
    path = tmp_path / name
    soundfile.write(path, SAMPLES, 16_000, subtype=subtype)
    copy = copy_sound(path, read_clip(path), tmp_path / "0001")
    info = soundfile.info(copy)
    assert (copy.suffix, info.format, info.subtype) == (".wav", "WAV", "PCM_16")
    np.testing.assert_allclose(soundfile.read(copy)[0], SAMPLES, atol=0.01)


def test_rates_and_channels_that_browsers_do_not_play_are_converted(tmp_path: Path) -> None:
    for samples, rate, expected in [
        (np.zeros((4000, 6)), 16_000, (16_000, 1)),
        (np.zeros(4000), 4_000, (8_000, 1)),
        (np.zeros((4000, 2)), 44_100, (44_100, 2)),
    ]:
        source = SampleSource(samples, rate)
        info = soundfile.info(copy_sound(source, source.read(), tmp_path / "1"))
        assert (info.samplerate, info.channels) == expected


def test_samples_beyond_full_scale_are_clipped_and_do_not_wrap(tmp_path: Path) -> None:
    source = SampleSource([2.0, -3.0, 0.5], 16_000)
    copied, _ = soundfile.read(copy_sound(source, source.read(), tmp_path / "1"))
    np.testing.assert_allclose(copied, [1, -1, 0.5], atol=1e-3)


@pytest.mark.parametrize("name", ["a b.wav", "100% #1?.wav", "schön/é.wav", "a:b.wav", '&<".wav'])
def test_a_link_leads_to_the_file_from_the_page(tmp_path: Path, name: str) -> None:
    page = tmp_path / "r 1" / "report"
    link = link_to(tmp_path / "data" / name, page)
    assert not set(link) & set(' #?"<>:')
    path = urlsplit(urljoin((page / "index.html").as_uri(), link)).path
    assert Path(url2pathname(path)) == tmp_path / "data" / name


def test_what_only_pyav_decodes_is_copied_as_wav(tmp_path: Path) -> None:
    path = tmp_path / "clip.m4a"
    path.write_bytes(b"\0\0\0\x18ftypM4A \0\0\0\0")  # libsndfile does not know it
    clip = Clip(np.full((800, 1), 0.25, np.float32), 16_000)
    assert copy_sound(path, clip, tmp_path / "1").name == "1.wav"
