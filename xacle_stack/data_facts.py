"""What a set of pairs was, in a few facts: its size, and a digest of its content.

The digest is that of the ids, the decoded clips, the captions and the scores, in their order.
Another place on disk, and another lossless format of the same sounds, change nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from xacle_stack.cache import CachedPairs
from xacle_stack.systems.checkpoints import digest_of

# The columns of a table of pairs that folds are made by.
_COLUMNS = ("group", "system")
N_DIGITS = 8  # of a pair's digest


class DataFacts(BaseModel):
    """A set of pairs in a few facts.

    Attributes
    ----------
    split : str
    n_pairs, n_clips, n_captions : int
        Clips and captions are counted once each.
    score_range : (float, float), optional
        The lowest and the highest human score; None without scores.
    digest : str
        32 hexadecimal digits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    split: str
    n_pairs: int
    n_clips: int
    n_captions: int
    score_range: tuple[float, float] | None
    digest: str

    @classmethod
    def of(cls, embeddings: CachedPairs, digests: Sequence[str] | None = None) -> Self:
        """Return the facts of pairs; `digests` are their :func:`pair_digests`, if at hand."""
        pairs = embeddings.pairs
        scores = pairs.scores
        return cls(
            split=pairs.split,
            n_pairs=len(pairs),
            n_clips=len(np.unique(embeddings.content_keys("audio"))) if pairs.audio else 0,
            n_captions=len(set(pairs.captions)),
            score_range=None if scores is None else (float(scores.min()), float(scores.max())),
            digest=digest_of(*(pair_digests(embeddings) if digests is None else digests)),
        )


def pair_digests(embeddings: CachedPairs) -> list[str]:
    """Return 8 hexadecimal digits for each pair, which change with all that a run takes of it.

    That is its id, its clip's sound, its caption, its score, its ratings, and the columns `group`
    and `system`.
    """
    pairs = embeddings.pairs
    n_pairs = len(pairs)
    clips = embeddings.content_keys("audio") if pairs.audio else [b""] * n_pairs
    scores = [""] * n_pairs if pairs.scores is None else map(repr, pairs.scores.tolist())
    columns = [pairs.columns[name] for name in _COLUMNS if name in pairs.columns]
    ratings: Mapping[str, list[str]] = defaultdict(list)
    if pairs.ratings is not None:
        for pair_id, listener, score in zip(
            pairs.ratings.pair_ids,
            pairs.ratings.listener_ids,
            pairs.ratings.scores.tolist(),
            strict=True,
        ):
            ratings[pair_id].extend((listener, repr(score)))
    rows: Any = zip(pairs.ids, clips, pairs.captions, scores, *columns, strict=True)
    return [
        digest_of(*(x if isinstance(x, bytes) else str(x) for x in row), *ratings.get(row[0], ()))[
            :N_DIGITS
        ]
        for row in rows
    ]
