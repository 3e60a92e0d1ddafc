"""The stacker and its parts: arrays in, scores out."""

from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.folds import split_folds
from xacle_stack.stacking.persist import MAX_MODEL_BYTES, load_card, load_model, save_model
from xacle_stack.stacking.ridge import GroupedRidge
from xacle_stack.stacking.stacker import Stacker

__all__ = [
    "MAX_MODEL_BYTES",
    "BoostedTrees",
    "GroupedRidge",
    "Stacker",
    "load_card",
    "load_model",
    "save_model",
    "split_folds",
]
