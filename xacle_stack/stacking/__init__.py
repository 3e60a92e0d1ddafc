"""The stacker and its parts: arrays in, scores out."""

from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.folds import split_folds
from xacle_stack.stacking.ridge import GroupedRidge
from xacle_stack.stacking.stacker import Stacker

__all__ = ["BoostedTrees", "GroupedRidge", "Stacker", "split_folds"]
