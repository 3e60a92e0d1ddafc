"""Pseudo-labels: pairs with their own and with wrong captions, which a teacher scores.

A network learns from a million of them what a few thousand human scores cannot teach it.  No vector
is held for that: the embeddings are read in blocks, and the labels of every block are kept in the
store beside them, as ``pseudo-labels/DIGEST.labels``.  The digest is that of the content keys of
the block's pairs and of the teacher.  The file holds a checksum and one float64 for each pair.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from xacle_stack._files import read_small_file, write_atomically
from xacle_stack._progress import progress_bar
from xacle_stack._rows import BLOCK_ROWS, picked, row_blocks
from xacle_stack._types import FloatArray, IntArray
from xacle_stack._validation import check_whole_number
from xacle_stack.audio import ClipSource
from xacle_stack.cache import CachedPairs
from xacle_stack.cache.schema import MODALITIES
from xacle_stack.errors import PairsError, StackingError
from xacle_stack.pairs import Pairs
from xacle_stack.scorer import DEFAULT_STORE, Scorer
from xacle_stack.systems.gate import scores_together

logger = logging.getLogger(__name__)

_FOLDER, _SUFFIX = "pseudo-labels", ".labels"
# The pairs of a file, whose vectors some regressors hold: 50 MB for clips in 768 dimensions.  They
# are whole blocks of a Scorer, so that no bit differs from what it says of all pairs at once.
_FILE_ROWS = 8 * BLOCK_ROWS
_DIGEST_BYTES = 16
_LABEL = np.dtype("<f8")


def with_wrong_captions(pairs: Pairs, n_wrong: int = 3, *, random_state: int = 0) -> Pairs:
    """Return the pairs, followed by pairs of every clip with captions of other clips.

    Parameters
    ----------
    pairs : Pairs
        A clip may be in several of them, with several captions.  It is the same clip if it is the
        same path, or the same sound in memory.
    n_wrong : int, default=3
        The wrong captions of each clip.
    random_state : int, default=0
        Seeds which.

    Returns
    -------
    pairs : Pairs
        First all that were given, then `n_wrong` for each clip, in the order in which clips first
        come.  They have no scores and no ratings.  The id of a wrong one is that of the clip's own
        pair, the first by alphabet if there are several, with ``#wrong-1``, ``#wrong-2`` …; in the
        columns it has the values of that pair, so that it stays in its ``group``.

    Raises
    ------
    PairsError
        If a clip has fewer than `n_wrong` captions of other clips, the pairs have no clips, or
        they have wrong captions already.
    StackingError
        If `n_wrong` or `random_state` is no whole number.

    Notes
    -----
    The wrong captions of a clip are different texts, none of which stands beside the clip anywhere
    in `pairs`.  Each set of such texts has the same chance, however often a text occurs.  Which it
    is follows from the seed, the name of the clip's file, its own captions and the set of all
    captions, so the order and the folder of the data do not matter.  Files of equal names and
    captions get the same wrong captions.  A sound in memory has its pair's id for a name.

    Examples
    --------
    >>> pairs = Pairs("train", ["a", "b"], ["a.wav", "b.wav"], ["a dog", "rain"])
    >>> more = with_wrong_captions(pairs, n_wrong=1)
    >>> more.ids[2:], more.captions[2:]
    (('a#wrong-1', 'b#wrong-1'), ('rain', 'a dog'))
    """
    check_whole_number("n_wrong", n_wrong, minimum=1)
    check_whole_number("random_state", random_state, minimum=0)
    if not pairs.audio:
        raise PairsError(
            f"the pairs of {pairs.split!r} have no clips. Read them with their audio: "
            "read_pairs(..., with_audio=True)."
        )
    numbers: dict[Path | ClipSource, int] = {}
    clips = [numbers.setdefault(clip, len(numbers)) for clip in pairs.audio]
    naming_rows: dict[int, int] = {}  # of each clip, the row whose id is the first by alphabet
    for row, clip in enumerate(clips):
        if pairs.ids[row] < pairs.ids[naming_rows.setdefault(clip, row)]:
            naming_rows[clip] = row
    names = [
        pairs.ids[row] if isinstance(clip, ClipSource) else clip.name
        for clip, row in zip(numbers, naming_rows.values(), strict=True)
    ]
    texts = sorted(set(pairs.captions))
    number_of = {text: number for number, text in enumerate(texts)}
    captions = np.fromiter(map(number_of.__getitem__, pairs.captions), np.int64, len(pairs))
    own = np.array(clips, np.int64) * len(texts) + captions  # one number for a combination
    own = np.unique(own)
    n_own = np.bincount(own // len(texts))
    _check_enough(pairs.split, names, n_own, len(texts), n_wrong)
    own_texts = map(texts.__getitem__, (own % len(texts)).tolist())
    stream = b"".join(
        _random_bytes(random_state, name, [*islice(own_texts, n)], n_wrong)
        for name, n in zip(names, n_own.tolist(), strict=True)
    )
    n_left = len(texts) - n_own
    drawn = _draw(np.frombuffer(stream, "<u8").reshape(-1, n_wrong), n_left)
    drawn = (drawn + (np.cumsum(n_left) - n_left)[:, np.newaxis]).ravel()
    # These count the combinations that are not own; now the own ones before each count, too.
    drawn += np.searchsorted(own - np.arange(len(own)), drawn, side="right")
    rows = np.repeat([*naming_rows.values()], n_wrong).tolist()
    ids = [f"{pairs.ids[row]}#wrong-{1 + i % n_wrong}" for i, row in enumerate(rows)]
    if taken := set(pairs.ids).intersection(ids):
        raise PairsError(
            f"{len(taken)} id(s) of wrong pairs are there already, such as {min(taken)!r}. Give "
            "the pairs with their own captions only."
        )
    return replace(
        pairs,
        ids=pairs.ids + tuple(ids),
        audio=pairs.audio + picked(pairs.audio, rows),
        captions=pairs.captions + picked(texts, (drawn % len(texts)).tolist()),
        scores=None,
        ratings=None,
        columns={name: values + picked(values, rows) for name, values in pairs.columns.items()},
    )


def _check_enough(
    split: str, names: Sequence[str], n_own: IntArray, n_texts: int, n_wrong: int
) -> None:
    worst = int(n_own.argmax())
    n_left = n_texts - int(n_own[worst])
    if n_left < n_wrong:
        n_short = int((n_texts - n_own < n_wrong).sum())
        raise PairsError(
            f"{n_short} of the {len(names)} clips of {split!r} cannot have n_wrong={n_wrong} wrong "
            f"captions: there are {n_texts} different captions, and {n_own[worst]} of them are "
            f"{names[worst]!r}'s own, which leaves {n_left}. Give pairs with more different "
            "captions, or a smaller n_wrong."
        )


def _random_bytes(random_state: int, name: str, texts: Sequence[str], n_wrong: int) -> bytes:
    """Return eight bytes for each wrong caption of a clip, which its name and own texts seed."""
    seed = json.dumps([int(random_state), name, texts])  # ASCII, also of a name that is not UTF-8
    return hashlib.shake_128(seed.encode()).digest(8 * n_wrong)


def _draw(random: NDArray[np.uint64], n_left: IntArray) -> IntArray:
    """Return different numbers below `n_left` in each row, every set of them with equal chance.

    Floyd's algorithm, on the rows side by side; `random` has its random integers.
    """
    drawn = np.empty(random.shape, np.int64)
    for column in range(random.shape[1]):
        last = n_left - random.shape[1] + column
        number = (random[:, column] % (last + 1).astype(np.uint64)).astype(np.int64)
        is_taken = (drawn[:, :column] == number[:, np.newaxis]).any(axis=1)
        drawn[:, column] = np.where(is_taken, last, number)
    return drawn


def pseudo_label(
    pairs: Pairs, teacher: Scorer | Path | str, store: Path | str | None = None
) -> FloatArray:
    """Return the scores that a teacher gives to pairs, and keep them in the store.

    They are what ``teacher.score(pairs)`` returns, but the vectors of a few thousand pairs only are
    in memory at a time, and pairs that the same teacher has scored before are not scored again.

    Parameters
    ----------
    pairs : Pairs
        Clips and captions that the store lacks are encoded, as `Scorer.score` does.
    teacher : Scorer or path-like
        A fitted scorer, which may be a label-free one, or what :meth:`Scorer.load` takes.
    store : path-like, optional
        The folder of the embeddings and the labels; by default the scorer's own.

    Returns
    -------
    labels : ndarray of shape (n_pairs,)
        From 0 to 10.

    Raises
    ------
    PairsError
        If a clip or caption could not be encoded.
    NotFittedError
        If the teacher is not fitted.
    ModelFileError
        If a saved teacher cannot be trusted or read; see :meth:`Scorer.load`.

    Notes
    -----
    Labels are kept in files of 16,384 pairs, found by the content of clips and captions in their
    order, and by the teacher: its fingerprints, its fitted parts and this library's version.  A run
    that is killed keeps the files that are complete.  Where a pair's score depends on the others,
    as behind a gate with the statistics of the batch, there is one file.  A damaged file is logged
    and made again.  The folder ``pseudo-labels`` of the store can be deleted.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from xacle_stack import Scorer, read_pairs
    >>> captioned = read_pairs("captioned.csv")  # doctest: +SKIP
    >>> pairs = with_wrong_captions(captioned)  # doctest: +SKIP
    >>> reference = captioned.take(range(10_000))  # doctest: +SKIP
    >>> teacher = Scorer.label_free("paper").fit(reference)  # doctest: +SKIP
    >>> pairs = replace(pairs, scores=pseudo_label(pairs, teacher))  # doctest: +SKIP
    """
    if not isinstance(pairs, Pairs):
        raise PairsError(
            f"expected Pairs, got a {type(pairs).__name__}. Labels are kept by the content of "
            "clips and captions; embeddings are scored with Scorer.score(embeddings)."
        )
    scorer = _scorer(teacher, store)
    embeddings = scorer.embeddings(pairs)
    folder = embeddings.root / _FOLDER
    seed = _teacher_digest(scorer)
    labels = np.empty(len(pairs))
    n_rows = len(pairs) if scores_together(scorer.regressor_) else _FILE_ROWS
    with progress_bar("labels", len(pairs), "pairs", shown=scorer.progress) as bar:
        for rows in row_blocks(0, len(pairs), n_rows):
            part = embeddings.take(rows)
            path = folder / f"{_pairs_digest(part, seed)}{_SUFFIX}"
            kept = _read(path, len(part))
            if kept is None:
                kept = scorer.score(part, check_novelty=False)
                _write(path, kept)
            labels[rows] = kept
            bar.update(len(part))
    return labels


def _scorer(teacher: Scorer | Path | str, store: Path | str | None) -> Scorer:
    if isinstance(teacher, str | Path):
        return Scorer.load(teacher, store=DEFAULT_STORE if store is None else store)
    if not isinstance(teacher, Scorer):
        raise StackingError(
            "teacher: expected a fitted Scorer or the path of a saved one, got a "
            f"{type(teacher).__name__}."
        )
    if not teacher.can_score:
        raise NotFittedError(
            "the teacher is not fitted: call fit, which a label-free one needs no scores for."
        )
    scorer = copy(teacher)
    scorer.store = teacher.store if store is None else store
    return scorer


def _teacher_digest(scorer: Scorer) -> str:
    """Return the digest of all that a score depends on beside its pair."""
    parts = [scorer.recipe.fingerprints(), scorer.builder_, scorer.regressor_]
    return f"{version('xacle-stack')} {joblib.hash(parts)}"


def _pairs_digest(part: CachedPairs, seed: str) -> str:
    digest = hashlib.blake2b(seed.encode(), digest_size=_DIGEST_BYTES)
    for modality in MODALITIES:
        digest.update(part.content_keys(modality).tobytes())
    return digest.hexdigest()


def _read(path: Path, n_labels: int) -> FloatArray | None:
    """Return the labels in a file; None if there is none, or a damaged one."""
    try:
        content = read_small_file(path, _DIGEST_BYTES + n_labels * _LABEL.itemsize)
        if content[:_DIGEST_BYTES] != _checksum(path, content[_DIGEST_BYTES:]):
            raise ValueError("its checksum does not match")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("%s: ignored and made again: %s", path, error)
        return None
    return np.frombuffer(content, _LABEL, offset=_DIGEST_BYTES)


def _write(path: Path, labels: FloatArray) -> None:
    body = labels.astype(_LABEL).tobytes()
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, _checksum(path, body) + body)
    except OSError as error:
        logger.warning("%s: labels not kept: %s", path, error)


def _checksum(path: Path, body: bytes) -> bytes:
    """Return the checksum of labels, which a file that was renamed does not have."""
    return hashlib.blake2b(path.stem.encode() + body, digest_size=_DIGEST_BYTES).digest()
