"""A fitted system as a whole: from embeddings to scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.cache import CachedPairs
from xacle_stack.pairs import MAX_SCORE, MIN_SCORE
from xacle_stack.stacking import Stacker
from xacle_stack.stacking.calibration import keep_in_range


@dataclass(frozen=True, eq=False)
class FittedSystem:
    """A builder and a regressor that belong together: from embeddings to scores.

    Attributes
    ----------
    builder : transformer
        Of `xacle_stack.features`.
    stacker : regressor
        A :class:`~xacle_stack.Stacker`, or another system that was compared with it.
    """

    builder: Any
    stacker: Any

    def score(self, embeddings: CachedPairs) -> FloatArray:
        """Return a score in 0–10 for each pair, shape (n_pairs,)."""
        scores = np.asarray(self.stacker.predict(self.builder.transform(embeddings)), np.float64)
        if isinstance(self.stacker, Stacker) and self.stacker.score_range_ is not None:
            return scores  # it keeps its range by itself
        return keep_in_range(scores, MIN_SCORE, MAX_SCORE)
