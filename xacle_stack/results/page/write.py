"""Writes a report as a folder that a browser opens from disk, without a server or a network."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xacle_stack._files import write_atomically
from xacle_stack.audio import read_clip
from xacle_stack.errors import AudioError, bullet_list
from xacle_stack.results.page import spectrograms
from xacle_stack.results.page.record import ClipEntry, Report, rank_lists
from xacle_stack.results.page.sounds import copy_sound, link_to
from xacle_stack.results.text_table import TextTable

logger = logging.getLogger(__name__)

AudioChoice = Literal["copy", "link", "none"]
DEFAULT_MAX_CLIPS = 200
_TEMPLATES = Path(__file__).parent
# Whatever the folder holds besides ``index.html`` and this folder is the user's.
FILES = "index_files"
_AUDIO, _PICTURES, _PLOTS = (f"{FILES}/{part}" for part in ("audio", "spectrograms", "plots"))


def write_page(
    report: Report,
    folder: Path,
    *,
    audio: AudioChoice = "copy",
    max_clips: int | None = DEFAULT_MAX_CLIPS,
    opened_in: Path | None = None,
) -> Path:
    """Write a report as ``index.html``, with sounds and pictures in ``index_files/`` beside it.

    Nothing in the report is ever markup: a caption ``<script>`` is shown as these eight characters.

    Parameters
    ----------
    report : Report
    folder : Path
        Created if necessary.  An earlier ``index.html`` and ``index_files/`` are replaced; other
        files stay.
    audio : {"copy", "link", "none"}, default="copy"
        Copies make the folder complete, so that it can be zipped and given away.  Links play as
        long as the files stay where they are.  With "none", there are no players.
    max_clips : int or None, default=200
        How many clips get a spectrogram, and with "copy" a copy: those at the top of the lists
        "worst", "best", "most uncertain", "most novel" and "most disputed".  The others are linked.
        None means all.
    opened_in : Path, optional
        Where the folder is moved after it is written, for the links; by default it stays.

    Returns
    -------
    page : Path
        ``index.html``.

    Raises
    ------
    ValueError
        If `audio` is something else.
    OSError
        If the folder cannot be written.  A clip that cannot be read is no error: the page says so,
        and a warning is logged.
    """
    import jinja2

    if audio not in ("copy", "link", "none"):
        raise ValueError(f"audio={audio!r}; expected 'copy', 'link' or 'none'.")
    page = folder / "index.html"
    page.unlink(missing_ok=True)  # nothing may show the sounds of another page
    if (folder / FILES).exists():
        shutil.rmtree(folder / FILES)
    folder.mkdir(parents=True, exist_ok=True)
    media = _Media(report.clips, folder, audio, opened_in or folder)
    media.write(top_rows(report.clips, max_clips))
    css, script = (_TEMPLATES.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        report=report,
        number_columns=_number_columns,
        plots=_write_plots(report, folder),
        media_note=media.note(),
        css=css,
        script=script,
        css_hash=_csp_hash(css),
        script_hash=_csp_hash(script),
        data=json_for_html(_data(report, media)),
    )
    write_atomically(page, text.encode("utf-8", errors="replace"))  # a name may hold surrogates
    return page


def top_rows(clips: Sequence[ClipEntry], max_clips: int | None) -> list[int]:
    """Return the rows of the clips at the top of the page's lists, the same number from each."""
    if max_clips is None or max_clips >= len(clips):
        return list(range(len(clips)))
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*rank_lists(clips)))
    chosen = dict.fromkeys(row for row in in_turn if row is not None)
    return sorted(itertools.islice(chosen, max_clips))


def json_for_html(value: object) -> str:
    r"""Return JSON that may stand in a ``<script>`` element: nothing in it ends the element.

    Examples
    --------
    >>> print(json_for_html(["</script>"]))
    ["\u003c/script\u003e"]
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@dataclass(eq=False)
class _Media:
    """The sounds and the spectrograms of a page's clips, by their rows."""

    clips: Sequence[ClipEntry]
    folder: Path
    audio: AudioChoice
    opened_in: Path
    sounds: dict[int, str] = field(default_factory=dict)
    pictures: dict[int, tuple[str, float]] = field(default_factory=dict)
    n_copied: int = 0
    failed: dict[int, str] = field(default_factory=dict)

    def write(self, rows: Sequence[int]) -> None:
        if self.audio != "none":
            for row, entry in enumerate(self.clips):
                if isinstance(entry.audio, Path):
                    self.sounds[row] = link_to(entry.audio, self.opened_in)
        for row in rows:
            if self.clips[row].audio is not None:
                try:
                    self._write(row)
                except AudioError as error:
                    self.failed[row] = str(error)
                    self.sounds.pop(row, None)
        if self.failed:
            logger.warning(
                "%d clip(s) cannot be read, so the page does not play them:\n%s",
                len(self.failed),
                bullet_list(self.failed.values()),
            )

    def _write(self, row: int) -> None:
        source = self.clips[row].audio
        assert source is not None
        clip = read_clip(source)
        number = f"{row + 1:0{len(str(len(self.clips)))}d}"  # no path is made of a stranger's id
        picture = self._place(_PICTURES, f"{number}.png")
        picture.write_bytes(spectrograms.spectrogram_png(clip))
        self.pictures[row] = f"{_PICTURES}/{picture.name}", round(clip.duration_s, 1)
        # A sound in memory cannot be linked.
        if self.audio == "copy" or (self.audio == "link" and not isinstance(source, Path)):
            copy = copy_sound(source, clip, self._place(_AUDIO, number))
            self.sounds[row] = f"{_AUDIO}/{copy.name}"
            self.n_copied += 1

    def _place(self, part: str, name: str) -> Path:
        (self.folder / part).mkdir(parents=True, exist_ok=True)
        return self.folder / part / name

    def note(self) -> str:
        """Say in sentences which clips can be heard, and where."""
        n_clips = len(self.clips)
        n_linked = len(self.sounds) - self.n_copied
        parts = []
        if self.n_copied == n_clips:
            parts.append("The sounds are in the folder of this page.")
        elif self.n_copied:
            parts.append(
                f"The sounds of {self.n_copied:,} of {n_clips:,} clips, those at the top of the "
                "lists, are in the folder of this page."
            )
        if n_linked:
            rest = "The other sounds" if self.n_copied else "The sounds"
            parts.append(
                f"{rest} are links to files on the computer where the page was made, and play "
                "there only."
            )
        n_pictures = len(self.pictures)
        if 0 < n_pictures < n_clips:
            parts.append(f"{n_pictures:,} clips have spectrograms.")
        if self.failed:
            clips = "1 clip" if len(self.failed) == 1 else f"{len(self.failed):,} clips"
            parts.append(f"{clips} cannot be read.")
        return " ".join(parts)


def _write_plots(report: Report, folder: Path) -> list[str]:
    """Write the plots as files: a picture runs no script and its styles stay in it."""
    paths = [f"{_PLOTS}/{number}.svg" for number in range(1, len(report.plots) + 1)]
    for path, plot in zip(paths, report.plots, strict=True):
        (folder / _PLOTS).mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(plot.svg, "utf-8")
    return paths


def _data(report: Report, media: _Media) -> dict[str, Any]:
    """Return what the page's script shows; absent values are left out."""
    return {
        "interval": f"with its {report.confidence:.0%} interval" if report.confidence else "",
        "dispute": report.dispute,
        "scale": f"{spectrograms.LOWEST_HZ:g} Hz to {spectrograms.HIGHEST_HZ / 1000:g} kHz",
        "clips": [_entry(entry, row, media) for row, entry in enumerate(report.clips)],
    }


def _entry(entry: ClipEntry, row: int, media: _Media) -> dict[str, Any]:
    picture, duration_s = media.pictures.get(row, (None, None))
    numbers = {
        "score": entry.score,
        "low": entry.low,
        "high": entry.high,
        "width": entry.width,
        "human": entry.human,
        "novelty": entry.novelty,
        "dispute": entry.disputed_by,
    }
    found: dict[str, Any] = {
        name: round(float(value), 4)
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }
    found |= {"id": entry.id, "text": entry.text, "system": entry.system}
    found |= {"sound": media.sounds.get(row), "picture": picture, "duration": duration_s}
    # A list keeps the order also of names that are numbers.
    found["columns"] = [[str(name), str(value)] for name, value in entry.columns.items()]
    if row in media.failed:
        found["failed"] = True
    return {name: value for name, value in found.items() if value not in (None, [])}


def _number_columns(table: TextTable) -> set[int]:
    """Return the columns that hold numbers, or texts that begin like one."""
    return {
        column
        for column, values in enumerate(zip(*table.rows, strict=True))
        if all(value[:1] in "0123456789.+-−–" for value in values)
    }


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
