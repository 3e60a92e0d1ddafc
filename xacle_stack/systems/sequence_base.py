"""What the networks on sequences of vectors have in common: how they read the pairs."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from xacle_stack._validation import check_scores
from xacle_stack.errors import StackingError
from xacle_stack.features import PairSequences
from xacle_stack.systems.baseline import BaselineRegressor
from xacle_stack.systems.space_vectors import split_halves
from xacle_stack.table import FeatureTable


class SequenceRegressor(BaselineRegressor):
    """A network that takes :class:`~xacle_stack.features.PairSequences`.

    In an array, the first half of the columns is a clip of one frame, and the second half its
    caption.
    """

    takes_tables = False  # it takes sequences

    # Whether a caption is a sequence, too, or one vector.
    _reads_tokens: ClassVar[bool] = False

    def _check_pairs(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        if isinstance(X, FeatureTable):
            raise StackingError(
                "X is a FeatureTable, which has one vector for each clip. Give PairSequences, as "
                "SequenceBuilder makes them."
            )
        if not isinstance(X, PairSequences):
            return super()._check_pairs(X, y, reset=reset)
        if isinstance(X.text, np.ndarray) == self._reads_tokens:
            found, expected, example = (
                ("one vector", "a sequence of vectors", "roberta-large:tokens")
                if self._reads_tokens
                else ("a sequence of vectors", "one vector", "roberta-large")
            )
            raise StackingError(
                f"{type(self).__name__}: a caption of X is {found}, expected {expected}, as "
                f"SequenceBuilder(frames, {example!r}) makes it."
            )
        return X, check_scores(y, len(X)) if reset else None

    def _read(self, X: Any, *, reset: bool) -> PairSequences:
        if isinstance(X, PairSequences):
            pairs = X
        else:
            clips, captions = split_halves(X)
            pairs = PairSequences(
                list(clips[:, np.newaxis]),
                list(captions[:, np.newaxis]) if self._reads_tokens else captions,
            )
        widths = [pairs.widths]
        if reset:
            self.n_features_in_, self.spaces_, self.widths_ = X.shape[1], (), widths
        elif widths != self.widths_:
            raise StackingError(
                f"frames and captions of {widths[0]} dimensions, {self.widths_[0]} when fitted. "
                "The columns of an array are one frame and a caption of equal lengths; for other "
                "lengths give PairSequences."
            )
        return pairs
