"""The stacker and its parts: feature tables or arrays in, scores out."""

from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.folds import split_folds
from xacle_stack.stacking.gated_blend import GatedBlend
from xacle_stack.stacking.ridge import GroupedRidge
from xacle_stack.stacking.selection import Selection, select_stack
from xacle_stack.stacking.stacker import Stacker

__all__ = [
    "BoostedTrees",
    "GatedBlend",
    "GroupedRidge",
    "Selection",
    "Stacker",
    "select_stack",
    "split_folds",
]

# The types of this package that a saved model may hold; each has a method ``check_state``.
SAVED_TYPES: tuple[str, ...] = (
    "xacle_stack.stacking.block_pca.BlockPCA",
    "xacle_stack.stacking.boosted_trees.BoostedTrees",
    "xacle_stack.stacking.calibration.MonotoneCalibration",
    "xacle_stack.stacking.fold_ridge.LinearModel",
    "xacle_stack.stacking.gated_blend.GatedBlend",
    "xacle_stack.stacking.gaussian_process.BlockGaussianProcess",
    "xacle_stack.stacking.learners.BlockView",
    "xacle_stack.stacking.learners.FittedLearner",
    "xacle_stack.stacking.ridge.GroupedRidge",
    "xacle_stack.stacking.stacker.Stacker",
)
