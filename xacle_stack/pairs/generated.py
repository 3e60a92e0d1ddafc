"""Reads a folder of clips that a generator made from prompts, one file for each prompt's id."""

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xacle_stack.errors import PairsError, bullet_list
from xacle_stack.pairs.audio_folder import composed
from xacle_stack.pairs.clip_table import TableOptions, read_sets, system_scores
from xacle_stack.pairs.record import Pairs
from xacle_stack.pairs.row_source import open_rows

logger = logging.getLogger(__name__)

# Files with these endings are taken for clips.
AUDIO_ENDINGS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf"),
    *(".w64", ".rf64", ".m4a", ".aac", ".mp4", ".m4v", ".mov", ".webm", ".mka", ".mkv", ".wma"),
)
_N_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Generated:
    """What a generator made of some prompts.

    Attributes
    ----------
    pairs : Pairs
        The prompts that have a clip, in the order of the prompts; named after the folder.
    missing : tuple of str
        The ids of the prompts that have none.
    """

    pairs: Pairs
    missing: tuple[str, ...]


def read_prompts(prompts: Any, *, text_column: str | None = None) -> Pairs:
    """Read a table of prompts, with a column ``id`` and one of texts, as pairs without clips.

    Raises
    ------
    PairsError
        If it has no column of ids, or several sets, or for what :func:`read_pairs` refuses.
    """
    source = open_rows(prompts)
    options = TableOptions(text_column=text_column, with_audio=False, with_ids=True)
    sets = read_sets(source, options)
    if len(sets) > 1:
        raise PairsError(
            f"{source.name}: there are several sets: {', '.join(sets)}. Give the prompts of one."
        )
    (pairs,) = sets.values()
    return pairs


def read_generated(
    prompts: Any, folder: Path | str, *, text_column: str | None = None
) -> Generated:
    """Read a folder of clips whose names are the ids of their prompts.

    Parameters
    ----------
    prompts : path-like, frame, Dataset, list of dict, or Pairs
        A table with the columns ``id`` and ``prompt`` (or ``text``, ``caption``), or what
        :func:`read_prompts` has made of it.  Its other columns are kept.
    folder : path-like
        Holds a file ``ID.wav`` for each prompt, or with any other ending of audio; files in
        subfolders are not read.
    text_column : str, optional
        The column of texts, where its name does not tell.

    Returns
    -------
    generated : Generated
        A prompt without a clip is no error here.  A clip without a prompt is left out, with a
        warning that names it.

    Raises
    ------
    PairsError
        If the prompts cannot be read, there is no such folder, no file's name is an id, or several
        files have the same one.
    """
    if not isinstance(prompts, Pairs):
        prompts = read_prompts(prompts, text_column=text_column)
    folder = Path(folder)
    clips = _clips_by_stem(folder)
    mistakes = [
        f"{stem}: {' and '.join(path.name for path in paths)}; keep one"
        for stem, paths in clips.items()
        if len(paths) > 1
    ]
    if mistakes:
        raise PairsError(
            f"{folder}: {len(mistakes)} prompt(s) have several files:\n{bullet_list(mistakes)}"
        )
    # Archives made on a Mac write letters with accents in another Unicode form.
    stems = [composed(pair_id) for pair_id in prompts.ids]
    rows = [row for row, stem in enumerate(stems) if stem in clips]
    if not rows:
        raise PairsError(_no_match(folder, prompts.ids, list(clips)))
    strangers = sorted(set(clips) - set(stems))
    if strangers:
        names = [clips[stem][0].name for stem in strangers]
        logger.warning(
            "%s: %d file(s) belong to no prompt and are left out: %s%s",
            folder,
            len(names),
            ", ".join(names[:_N_SHOWN]),
            ", …" if len(names) > _N_SHOWN else "",
        )
    there = prompts.take(rows)
    pairs = Pairs(
        folder.resolve().name or str(folder),
        there.ids,
        tuple(clips[stems[row]][0] for row in rows),
        there.captions,
        there.scores,
        there.ratings,
        there.columns,
    )
    found = set(rows)
    return Generated(pairs, tuple(i for row, i in enumerate(prompts.ids) if row not in found))


def read_system_scores(ratings: Any) -> dict[tuple[str, str], float]:
    """Read human scores of generated clips, by generator and prompt.

    Parameters
    ----------
    ratings : path-like, frame, Dataset or list of dict
        A table with the columns ``system``, ``id`` (of the prompt) and ``score``; several rows of a
        clip count as their mean.

    Raises
    ------
    PairsError
        With every mistake, of which at most 20 are shown.
    """
    return system_scores(open_rows(ratings))


def _clips_by_stem(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "no such folder"
        raise PairsError(f"{folder}: {what}. Give the folder of a generator's clips.")
    clips: dict[str, list[Path]] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise PairsError(f"{folder}: cannot be read ({error.strerror}).") from None
    for path in paths:
        hidden = path.name.startswith(".")
        if path.suffix.casefold() in AUDIO_ENDINGS and path.is_file() and not hidden:
            clips.setdefault(composed(path.stem), []).append(path)
    if not clips:
        nested = [path.name for path in paths if path.is_dir()]
        hint = f" It holds the folders {', '.join(nested[:_N_SHOWN])}: give one." if nested else ""
        raise PairsError(
            f"{folder}: there are no audio files in it. Expected a file ID.wav for each prompt."
            f"{hint}"
        )
    return clips


def _no_match(folder: Path, ids: tuple[str, ...], stems: list[str]) -> str:
    """Return the message for names of which none is an id, with a guess at what they mean."""
    guess = ""
    if {Path(pair_id).stem for pair_id in ids} & set(stems):
        guess = f" Did you mean {Path(ids[0]).stem!r} by the id {ids[0]!r}? Leave the ending out."
    else:
        for pair_id in ids[:_N_SHOWN]:
            near = [s for s in stems if _key(s) == _key(pair_id)]
            near = near or difflib.get_close_matches(pair_id, stems, n=1, cutoff=0.7)
            if near:
                guess = f" Did you mean {near[0]!r} by the id {pair_id!r}?"
                break
    return (
        f"{folder}: no file is called as the id of a prompt. The ids are "
        f"{', '.join(map(repr, ids[:_N_SHOWN]))} …; the files are "
        f"{', '.join(map(repr, stems[:_N_SHOWN]))} …, without their endings.{guess} Give the "
        "prompts the names of their files as ids, or rename the files."
    )


def _key(name: str) -> str:
    """Return what is alike in '1' and 'prompt_0001': the last number, else the letters."""
    digits = "".join(ch if ch.isdecimal() else " " for ch in name).split()
    return digits[-1].lstrip("0") if digits else name.casefold()
