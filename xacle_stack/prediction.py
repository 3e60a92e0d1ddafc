"""What a fitted scorer says of pairs, in this process or in shards on the workers of a backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import effective_n_jobs

from xacle_stack._progress import progress_bar
from xacle_stack._rows import BLOCK_ROWS, row_shards
from xacle_stack._tasks import run_tasks, runs_elsewhere
from xacle_stack._types import FloatArray
from xacle_stack.cache import CachedPairs
from xacle_stack.errors import StackingError
from xacle_stack.features import Novelty
from xacle_stack.features.embeddings import EmbeddingSource
from xacle_stack.pairs import MAX_SCORE, MIN_SCORE
from xacle_stack.stacking import Stacker
from xacle_stack.stacking.calibration import keep_in_range
from xacle_stack.systems import AudioCaptioner, CosineMean
from xacle_stack.systems.gate import scores_together

_MAX_SHARD_ROWS = 2 * BLOCK_ROWS


@dataclass(frozen=True, eq=False)
class Predictor:
    """The fitted parts of a scorer, and what is asked of them.

    Attributes
    ----------
    builder, regressor : transformer, regressor
    novelty : Novelty, optional
        Given where the novelty of pairs is asked for.
    confidence : float, optional
        Of prediction intervals, where they are asked for.
    """

    builder: Any
    regressor: Any
    novelty: Novelty | None = None
    confidence: float | None = None

    def predict(
        self, embeddings: EmbeddingSource, n_jobs: int | None = None, *, progress: bool = False
    ) -> dict[str, FloatArray]:
        """Return what is known of pairs; their shards are scored where joblib's backend runs tasks.

        Parameters
        ----------
        embeddings : CachedPairs or PairEmbeddings
            Embeddings in memory stay in this process.
        n_jobs : int, optional
        progress : bool, default=False

        Returns
        -------
        found : dict of str to ndarray
            ``"scores"``, of shape (n_pairs,) like ``"low"`` and ``"high"``, which there are with
            intervals.  ``"sides"`` of shape (n_pairs, 2), the novelty of clips and captions.
            ``"cosines"`` of shape (n_pairs, n_spaces), of a label-free regressor.
        """
        if (
            not isinstance(embeddings, CachedPairs)
            or len(embeddings) <= BLOCK_ROWS
            or not runs_elsewhere(n_jobs)
            or scores_together(self.regressor)
        ):
            return self.predict_part(embeddings)
        # This finds the rows of all pairs in the store, once for all workers.
        self.builder.transform(embeddings.take(slice(0, 1)))
        # Shards are whole blocks, so that the blocks, and the last bits, are those of one machine.
        shards = [
            *row_shards(
                len(embeddings), effective_n_jobs(n_jobs), at_most=_MAX_SHARD_ROWS, whole=BLOCK_ROWS
            )
        ]
        results = run_tasks(
            self.predict_part,
            [embeddings.take(rows) for rows in shards],
            names=[f"pairs {rows.start}-{rows.stop - 1}" for rows in shards],
            n_jobs=n_jobs,
            kept="The embeddings are kept, no score is: score again.",
            folder=Path(embeddings.root),
        )
        parts = []
        with progress_bar("scoring", len(embeddings), "pairs", shown=progress) as bar:
            for part in results:
                parts.append(part)
                bar.update(len(part["scores"]))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def predict_part(self, embeddings: EmbeddingSource) -> dict[str, FloatArray]:
        """Return what `predict` does, in this process."""
        if isinstance(self.regressor, AudioCaptioner):
            raise StackingError(
                "this model writes captions and gives no scores: use xacle-stack caption, or "
                "AudioCaptioner.write in Python."
            )
        table = self.builder.transform(embeddings)
        found: dict[str, FloatArray] = {}
        if self.novelty is not None:
            found["sides"] = self.novelty.measure_sides(embeddings)
        if self.confidence is not None:
            scores, low, high = self._predict_interval(table, self.confidence)
            scores = self._in_range(scores)
            found["low"] = np.clip(low, MIN_SCORE, scores)
            found["high"] = np.clip(high, scores, MAX_SCORE)
        elif isinstance(self.regressor, CosineMean):
            found["cosines"] = self.regressor.cosines(table)
            scores = self._in_range(self.regressor.combine(found["cosines"]))
        else:
            scores = self._in_range(np.asarray(self.regressor.predict(table), np.float64))
        found["scores"] = scores
        return found

    def _in_range(self, scores: FloatArray) -> FloatArray:
        if isinstance(self.regressor, Stacker) and self.regressor.score_range_ is not None:
            return scores  # it keeps its range by itself
        return keep_in_range(scores, MIN_SCORE, MAX_SCORE)

    def _predict_interval(
        self, table: Any, confidence: float
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        if isinstance(self.regressor, Stacker):
            return self.regressor.predict_interval(table, confidence)
        name = type(self.regressor).__name__
        raise StackingError(
            f"{name} has no prediction intervals: they need predictions of training pairs by "
            "models that were not trained on them, which a Stacker has. "
            + (
                f"Make it a stack of one learner: Scorer(recipe, Stacker([('one', {name}(...))]))."
                if getattr(self.regressor, "takes_tables", True)
                else "This one takes sequences and cannot be in a stack."
            )
        )
