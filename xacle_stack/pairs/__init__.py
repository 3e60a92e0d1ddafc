"""Checked records of pairs of a clip and a caption, and their reading from the XACLE layout."""

from xacle_stack.pairs.record import MAX_SCORE, MIN_SCORE, Pairs, Ratings
from xacle_stack.pairs.xacle_layout import SPLITS, list_splits, read_pairs, read_splits

__all__ = [
    "MAX_SCORE",
    "MIN_SCORE",
    "SPLITS",
    "Pairs",
    "Ratings",
    "list_splits",
    "read_pairs",
    "read_splits",
]
