"""Checked records of pairs of a clip and a caption, and their reading from folders and tables."""

from xacle_stack.pairs.generated import Generated, read_generated, read_prompts
from xacle_stack.pairs.reading import data_name, list_splits, read_pairs, read_splits
from xacle_stack.pairs.record import MAX_SCORE, MIN_SCORE, Pairs, Ratings
from xacle_stack.pairs.xacle_layout import SPLITS

__all__ = [
    "MAX_SCORE",
    "MIN_SCORE",
    "SPLITS",
    "Generated",
    "Pairs",
    "Ratings",
    "data_name",
    "list_splits",
    "read_generated",
    "read_pairs",
    "read_prompts",
    "read_splits",
]
