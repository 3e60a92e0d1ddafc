"""Gives a page the sounds of its clips: copies that browsers play, or links to the files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile

from xacle_stack.audio import Clip

# The rates that browsers play.
_RATES_HZ = range(8_000, 192_001)
# What browsers play as it is, and the ending that it gets, whatever a stranger called the file.
_PLAYABLE = {
    **{("WAV", subtype): ".wav" for subtype in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT")},
    **{("WAVEX", subtype): ".wav" for subtype in ("PCM_U8", "PCM_16", "PCM_24", "FLOAT")},
    **{("FLAC", subtype): ".flac" for subtype in ("PCM_S8", "PCM_16", "PCM_24")},
    **{("OGG", subtype): ".ogg" for subtype in ("VORBIS", "OPUS")},
    ("MP3", "MPEG_LAYER_III"): ".mp3",
}


def copy_sound(audio: object, clip: Clip, stem: Path) -> Path:
    """Copy a file that browsers play, and write anything else as a 16-bit wav.

    Parameters
    ----------
    audio : Path or ClipSource
    clip : Clip
        Its content.
    stem : Path
        Where to write, without the ending.

    Returns
    -------
    path : Path
    """
    ending = _playable_ending(audio) if isinstance(audio, Path) else None
    if ending is not None and isinstance(audio, Path):
        path = stem.with_name(stem.name + ending)
        shutil.copyfile(audio, path)
        return path
    path = stem.with_name(f"{stem.name}.wav")
    rate = min(max(clip.sample_rate_hz, _RATES_HZ[0]), _RATES_HZ[-1])
    samples = clip.samples if clip.samples.shape[1] <= 2 else clip.mono(clip.sample_rate_hz)
    if rate != clip.sample_rate_hz:
        samples = clip.mono(rate)
    soundfile.write(path, np.clip(samples, -1, 1), rate, subtype="PCM_16")
    return path


def _playable_ending(path: Path) -> str | None:
    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError:  # m4a and other containers, which PyAV decodes
        return None
    if info.channels > 2 or info.samplerate not in _RATES_HZ:
        return None
    return _PLAYABLE.get((info.format, info.subtype))


def link_to(path: Path, folder: Path) -> str:
    """Return the URL of a file for a page in a folder, relative where that is possible.

    Examples
    --------
    >>> link_to(Path("/data/50% rain #1.wav"), Path("/data/report"))
    '../50%25%20rain%20%231.wav'
    """
    target = os.path.abspath(path)  # noqa: PTH100  # a browser goes up by names, not by links
    try:
        relative = os.path.relpath(target, os.path.abspath(folder))  # noqa: PTH100
    except ValueError:  # another drive of Windows
        return Path(target).as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))
