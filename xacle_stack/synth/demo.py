"""Makes a small data set in the XACLE layout with synthesised sounds and simulated listeners.

Like the real one, it has several clips for each caption, each caption in one split only, and four
ratings of each pair.  It serves to try the library; results on it say nothing about real systems.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from joblib import Parallel, delayed

from xacle_stack._files import is_regular_file, path_in_errors
from xacle_stack._folder_draft import FolderDraft
from xacle_stack._progress import progress_bar
from xacle_stack._types import IntArray
from xacle_stack._workers import end_with
from xacle_stack.errors import DemoError, DemoExistsError
from xacle_stack.synth import (
    EVENTS,
    SAMPLE_RATE_HZ,
    Scene,
    Story,
    draw_scene,
    draw_story,
    random_stream,
    render_scene,
    write_caption,
)

_TITLE = "# Demo data set: synthesised sounds, simulated listeners"
MIN_PAIRS = 20
N_RATINGS = 4
SPLIT_SHARES = (("train", 0.60), ("validation", 0.15), ("test", 0.25))
_RATINGS_PER_LISTENER = 12
_CHUNK = 25
# Random streams of the seed: captions and scenes, their sounds, and the listeners.
_CONTENT, _SOUND, _LISTENERS = 0, 1, 2


@dataclass(frozen=True)
class DemoPair:
    """A clip with a caption.

    Attributes
    ----------
    split, name, caption : str
        ``name`` is the name of the audio file.
    scene : Scene
        The sound of the clip.
    match : float
        The true match of scene and caption, from 0 to 10.
    """

    split: str
    name: str
    caption: str
    scene: Scene
    match: float


def write_demo(
    folder: Path | str,
    n_pairs: int = 1000,
    seed: int = 0,
    n_jobs: int | None = None,
    progress: bool = False,
) -> Path:
    """Write the demo data set.

    Parameters
    ----------
    folder : path-like
        A folder that is empty or does not exist.
    n_pairs : int, default=1000
        At least 20; about 60 % are for training, 15 % for validation, 25 % for test.
    seed : int, default=0
        At least 0.  The same seed and ``n_pairs`` give the same bytes.
    n_jobs : int, optional
        Number of worker processes, as in joblib.  It does not change the result.
    progress : bool, default=False
        Whether to show a progress bar on stderr.

    Returns
    -------
    folder : Path

    Raises
    ------
    DemoExistsError
        If the folder is not empty, or is a file.
    DemoError
        If ``n_pairs`` or ``seed`` is too small.

    Notes
    -----
    The data set is written beside the target and moved there when it is complete.  So an
    interrupted run leaves no incomplete data set, and the remains of a killed run are deleted by
    the next.

    Examples
    --------
    >>> import tempfile
    >>> folder = write_demo(tempfile.mkdtemp(), n_pairs=20)
    >>> sorted(path.name for path in folder.iterdir())
    ['README.md', 'meta_data', 'wav']
    """
    folder = Path(folder)
    if n_pairs < MIN_PAIRS:
        raise DemoError(f"n_pairs is {n_pairs}. Give at least {MIN_PAIRS}, for three splits.")
    if seed < 0:
        raise DemoError(f"the seed is {seed}. Give a whole number from 0 on.")
    try:
        with FolderDraft(folder) as draft:
            _check_free(folder)
            pairs = draw_pairs(n_pairs, seed)
            _write_clips(draft.folder, pairs, seed, n_jobs, progress)
            _write_tables(draft.folder, pairs, seed)
            readme = draft.folder / "README.md"
            with path_in_errors(readme):
                readme.write_text(_readme(n_pairs, seed), encoding="utf-8")
            _check_free(folder)
            draft.publish()
    except BlockingIOError:
        raise DemoError(
            f"{folder}: another process is making it. Wait until it is finished, or give another "
            "name."
        ) from None
    return folder


def is_demo(data: Path) -> bool:
    """Return whether a folder is a demo data set, which its README says."""
    path = data / "README.md"
    try:
        if not is_regular_file(path):
            return False
        with path.open("rb") as file:
            return file.readline(len(_TITLE) + 1).rstrip(b"\r\n") == _TITLE.encode()
    except OSError:
        return False


def draw_pairs(n_pairs: int, seed: int) -> list[DemoPair]:
    """Draw captions, scenes and their true match, without rendering sounds.

    Parameters
    ----------
    n_pairs : int
    seed : int

    Returns
    -------
    pairs : list of DemoPair
        Split by split; the numbers in file names continue through the splits.
    """
    pairs: list[DemoPair] = []
    captions: set[str] = set()
    story_number = 0
    for split, n_in_split in _split_sizes(n_pairs):
        end = len(pairs) + n_in_split
        while len(pairs) < end:
            rng = random_stream(seed, "demo", _CONTENT, story_number)
            story_number += 1
            story = draw_story(rng)
            caption = write_caption(rng, story, "demo")
            # Captions that differ only in case or a full stop count as equal.
            if caption.casefold().rstrip(".") in captions:
                continue
            captions.add(caption.casefold().rstrip("."))
            n_clips = min(int(rng.integers(3, 7)), end - len(pairs))
            for first in range(n_clips):
                told = _vary_story(rng, story, right=first == 0)
                scene = draw_scene(rng, told)
                match = true_match(story, scene)
                pairs.append(DemoPair(split, f"{len(pairs):05d}.wav", caption, scene, match))
    return pairs


def true_match(story: Story, scene: Scene) -> float:
    """Return how well a scene matches a story.

    Parameters
    ----------
    story : Story
    scene : Scene

    Returns
    -------
    match : float
        From 0 to 10.  Each event of the story counts by its audibility, and a similar event instead
        of it by a quarter of that.  Surplus events, another order and another loudness reduce the
        match.

    Examples
    --------
    >>> story = Story(("dog",), ("plain",), "while")
    >>> true_match(story, Scene(("rain",), (0.0,), "while", 4.0, -40.0))
    0.0
    """
    audible = {
        kind: 1 / (1 + np.exp(-(gain - max(scene.noise_db, _masking(scene, i)) - 8) / 4))
        for i, (kind, gain) in enumerate(zip(scene.kinds, scene.gains_db, strict=True))
    }
    surplus = [kind for kind in scene.kinds if kind not in story.kinds]
    heard = 0.0
    for kind in story.kinds:
        if kind in audible:
            heard += audible[kind]
            continue
        similar = [k for k in surplus if EVENTS[k].group == EVENTS[kind].group]
        if similar:
            surplus.remove(similar[0])
            heard += 0.25 * audible[similar[0]]
    match = heard / len(story.kinds)
    match *= 0.75 ** sum(audible[kind] for kind in surplus)
    if len(story.kinds) > 1 and _order_is_wrong(story, scene):
        match *= 0.6
    for kind, level in zip(story.kinds, story.levels, strict=True):
        gain = dict(zip(scene.kinds, scene.gains_db, strict=True)).get(kind)
        if gain is not None and (
            (level == "loud" and gain < -6) or (level == "faint" and gain > 0)
        ):
            match *= 0.85
    return float(10 * match)


def _masking(scene: Scene, event: int) -> float:
    """Return the level in dB of the simultaneous events that mask one of them."""
    if scene.order == "then" or len(scene.kinds) == 1:
        return -np.inf
    return max(gain for i, gain in enumerate(scene.gains_db) if i != event) - 12


def _order_is_wrong(story: Story, scene: Scene) -> bool:
    told = [kind for kind in story.kinds if kind in scene.kinds]
    shown = [kind for kind in scene.kinds if kind in story.kinds]
    if len(told) < 2:
        return False
    return story.order != scene.order or (story.order == "then" and told != shown)


def _vary_story(rng: np.random.Generator, story: Story, right: bool) -> Story:
    """Return the story of a clip: that of its caption, or one that differs from it."""
    others = [kind for kind in EVENTS if kind not in story.kinds]
    n = len(story.kinds)
    ways = ["right", "swap", "extra", "wrong"] + (["missing", "swap", "order"] if n > 1 else [])
    way = "right" if right else str(rng.choice(ways))
    kinds, levels = list(story.kinds), list(story.levels)
    index = int(rng.integers(n))
    if way == "swap":
        groups = [k for k in others if EVENTS[k].group == EVENTS[kinds[index]].group]
        kinds[index] = str(rng.choice(groups if rng.random() < 0.5 else others))
    elif way == "missing":
        del kinds[index], levels[index]
    elif way == "extra":
        kinds.insert(index, str(rng.choice(others)))
        levels.insert(index, "plain")
    elif way == "wrong":
        kinds = [str(kind) for kind in rng.choice(others, n, replace=False)]
    elif way == "order" and story.order == "then":
        kinds, levels = kinds[::-1], levels[::-1]
    elif way == "order":
        return replace(story, order="then")
    return Story(tuple(kinds), tuple(levels), story.order)


def _split_sizes(n_pairs: int) -> list[tuple[str, int]]:
    edges = np.rint(np.cumsum([0.0] + [share for _, share in SPLIT_SHARES]) * n_pairs).astype(int)
    return [
        (split, int(end - start))
        for (split, _), start, end in zip(SPLIT_SHARES, edges[:-1], edges[1:], strict=True)
    ]


def _check_free(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DemoExistsError(
            f"{folder}: this exists already and is not an empty folder. Nothing was written. "
            "Give another name, or remove it first."
        )


def _write_clips(
    folder: Path, pairs: Sequence[DemoPair], seed: int, n_jobs: int | None, progress: bool
) -> None:
    for split, _ in SPLIT_SHARES:
        (folder / "wav" / split).mkdir(parents=True)
    numbered = list(enumerate(pairs))
    chunks = [numbered[i : i + _CHUNK] for i in range(0, len(numbered), _CHUNK)]
    done = Parallel(n_jobs=n_jobs, return_as="generator")(
        delayed(_write_chunk)(folder, chunk, seed, os.getpid()) for chunk in chunks
    )
    with progress_bar("demo", len(pairs), "clips", shown=progress) as bar:
        for n_written in done:
            bar.update(n_written)


def _write_chunk(
    folder: Path, chunk: Sequence[tuple[int, DemoPair]], seed: int, parent: int
) -> int:
    end_with(parent)
    for number, pair in chunk:
        samples = render_scene(random_stream(seed, "demo", _SOUND, number), pair.scene)
        sixteen_bit = np.rint(samples * 32767).astype(np.int16)
        image = io.BytesIO()
        soundfile.write(image, sixteen_bit, SAMPLE_RATE_HZ, format="WAV")
        path = folder / "wav" / pair.split / pair.name
        with path_in_errors(path):
            path.write_bytes(image.getvalue())
    return len(chunk)


def _write_tables(folder: Path, pairs: Sequence[DemoPair], seed: int) -> None:
    meta_data = folder / "meta_data"
    meta_data.mkdir()
    listeners, ratings = _rate(pairs, seed)
    for split, _ in SPLIT_SHARES:
        rows = [i for i, pair in enumerate(pairs) if pair.split == split]
        _write_csv(
            meta_data / f"{split}_average.csv",
            ("wav_file_name", "text", "average_score"),
            ((pairs[i].name, pairs[i].caption, float(ratings[i].mean())) for i in rows),
        )
        _write_csv(
            meta_data / f"{split}.csv",
            ("wav_file_name", "text", "score", "listener_id"),
            (
                (pairs[i].name, pairs[i].caption, int(rating), f"L{listener:04d}")
                for i in rows
                for listener, rating in zip(listeners[i], ratings[i], strict=True)
            ),
        )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path_in_errors(path), path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _rate(pairs: Sequence[DemoPair], seed: int) -> tuple[IntArray, IntArray]:
    """Return listeners and their whole-number ratings, both of shape (n_pairs, 4)."""
    rng = random_stream(seed, "demo", _LISTENERS)
    n_listeners = max(2 * N_RATINGS, round(len(pairs) * N_RATINGS / _RATINGS_PER_LISTENER))
    bias = rng.normal(0.0, 0.8, n_listeners)
    stretch = rng.uniform(0.8, 1.15, n_listeners)
    noise = rng.uniform(0.9, 2.2, n_listeners)
    listeners = np.stack([rng.choice(n_listeners, N_RATINGS, replace=False) for _ in pairs])
    match = np.array([pair.match for pair in pairs])[:, np.newaxis]
    heard = 5 + (match - 5) * stretch[listeners] + bias[listeners]
    heard = heard + noise[listeners] * rng.standard_normal(listeners.shape)
    return listeners, np.clip(np.rint(heard), 0, 10).astype(np.intp)


def _readme(n_pairs: int, seed: int) -> str:
    return f"""{_TITLE}

{n_pairs} pairs of a clip and a caption in the XACLE layout, made by `xacle_stack` (seed {seed}).

- **No sound here was recorded**: every clip was synthesised by a program (16 kHz, mono, 16-bit).
- **Nobody listened**: the four ratings of each pair come from simulated listeners, each with a
  bias, a range and noise of their own, about 12 ratings a listener.
- Captions come from a small grammar; each goes with a few clips that are right, partly right or
  wrong, and stands in one split only.

Use it to try the software and to test it. Figures measured on it say nothing about how well a
system predicts people's judgements of real sounds.
"""
