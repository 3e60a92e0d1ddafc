"""Checks of the stack's parts that come from a file, before anybody predicts with them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xacle_stack._state_checks import (
    MAX_OUTPUTS,
    check_indices,
    check_numbers,
    check_spans,
    check_width,
)
from xacle_stack._validation import check_score_range
from xacle_stack.errors import ModelFileError
from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.calibration import MonotoneCalibration
from xacle_stack.stacking.compress import BlockPCA
from xacle_stack.stacking.fold_ridge import LinearModel
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.learners import ALL_COLUMNS, COMPRESSED, FittedLearner
from xacle_stack.stacking.level0 import predict_level0
from xacle_stack.stacking.ridge import GroupedRidge
from xacle_stack.stacking.stacker import Stacker

# No stack in use is larger.
_MAX_JOBS, _MAX_KERNELS = 1024, 4
# The matrix that is solved to fit more has 137 GB.
_MAX_LANDMARKS = 2**17
# Numbers of all landmarks, for each kernel: a prediction makes as many products 256 times.
_MAX_KERNEL_NUMBERS = 2**29


def _check_linear_model(model: LinearModel) -> None:
    check_numbers("coef", model.coef, (None, None))
    check_numbers("intercept", model.intercept, (model.coef.shape[1],))
    _check_outputs(model.coef.shape[1])


def _check_outputs(n_outputs: int = 1) -> None:
    if n_outputs > MAX_OUTPUTS:
        raise ModelFileError(f"{n_outputs} outputs, the most is {MAX_OUTPUTS}.")


def _check_ridge(ridge: GroupedRidge) -> None:
    n_targets = np.shape(ridge.coef_)[:-1]
    check_numbers("coef_", ridge.coef_, (*n_targets[:1], ridge.n_features_in_))
    check_numbers("intercept_", ridge.intercept_, n_targets)
    _check_outputs(*n_targets)


def _check_calibration(calibration: MonotoneCalibration) -> None:
    check_numbers("knots_", calibration.knots_, (None,))
    if not len(calibration.knots_) or (np.diff(calibration.knots_) <= 0).any():
        raise ModelFileError("knots_ do not rise.")
    check_numbers("values_", calibration.values_, calibration.knots_.shape)
    check_numbers("slopes_", calibration.slopes_, (2,))


def _check_compression(pca: BlockPCA) -> None:
    check_numbers("mean_", pca.mean_, (None,))
    check_numbers("scale_", pca.scale_, pca.mean_.shape, minimum=0, finite=False)
    check_spans("blocks", pca.blocks, len(pca.mean_), cover=False)
    sizes = {name: block.stop - block.start for name, block in pca.blocks.items()}
    if not isinstance(pca.axes_, dict):
        raise ModelFileError(f"axes_ is a {type(pca.axes_).__name__}, expected a dict.")
    for name, axes in pca.axes_.items():
        if name not in sizes:
            raise ModelFileError(f"axes_ has {name!r}, which is no block.")
        check_numbers(f"axes_[{name!r}]", axes, (sizes[name], None))
        if axes.shape[1] > sizes[name]:
            raise ModelFileError(f"axes_[{name!r}] has more components than columns.")
        sizes[name] = axes.shape[1]
    check_spans("blocks_", pca.blocks_, sum(sizes.values()))
    compressed = {name: block.stop - block.start for name, block in pca.blocks_.items()}
    if compressed != sizes or pca.n_features_out_ != sum(sizes.values()):
        raise ModelFileError(
            f"blocks_ and n_features_out_ = {pca.n_features_out_!r} are not as wide as axes_."
        )


def _check_gaussian_process(process: BlockGaussianProcess) -> None:
    n_features = process.n_features_in_
    check_numbers("mean_", process.mean_, (n_features,))
    check_numbers("block_scale_", process.block_scale_, (None,), minimum=0, finite=False)
    n_blocks, n_kernels = len(process.block_scale_), len(process.amplitude_)
    check_indices("block_of_", process.block_of_, n_features, n_blocks)
    check_numbers("amplitude_", process.amplitude_, (None,), minimum=0)
    check_numbers("relevance_", process.relevance_, (n_kernels, n_blocks), minimum=0)
    check_numbers("landmarks_", process.landmarks_, (None, n_features))
    n_landmarks, n_targets = len(process.landmarks_), np.shape(process.dual_coef_)[1:]
    if n_landmarks > _MAX_LANDMARKS or n_kernels > _MAX_KERNELS:
        raise ModelFileError(
            f"{n_landmarks} landmarks_ and {n_kernels} kernels, the most are {_MAX_LANDMARKS} and "
            f"{_MAX_KERNELS}."
        )
    if n_kernels * process.landmarks_.size > _MAX_KERNEL_NUMBERS or len(n_targets) > 1:
        raise ModelFileError(
            f"landmarks_ and dual_coef_ have shapes {process.landmarks_.shape} and "
            f"{process.dual_coef_.shape}, for {n_kernels} kernels; the most are "
            f"{_MAX_KERNEL_NUMBERS} numbers of all kernels, and one row of targets."
        )
    check_numbers("dual_coef_", process.dual_coef_, (n_landmarks, *n_targets))
    check_numbers("y_mean_", process.y_mean_, n_targets)
    _check_outputs(*n_targets)


def _check_learner(learner: FittedLearner) -> None:
    if not isinstance(learner.models, list) or not learner.models:
        raise ModelFileError(f"models is {str(learner.models)[:40]!r}, expected a list of them.")


def _check_stacker(stacker: Stacker) -> None:
    """Check the parts against each other, and that they make one number of one pair."""
    n_columns, names = check_width(stacker.n_features_in_), stacker.level0_names_
    check_spans("families_", stacker.families_, n_columns)
    check_spans("blocks_", stacker.blocks_, n_columns)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelFileError("level0_names_ is no list of names.")
    jobs = stacker.n_jobs
    if jobs is not None and (type(jobs) is not int or not 0 < abs(jobs) <= _MAX_JOBS):
        raise ModelFileError(f"n_jobs is {jobs!r}, the most is {_MAX_JOBS}.")
    if stacker.score_range_ is not None:
        check_score_range(stacker.score_range_)
    check_numbers("oof_predictions_", stacker.oof_predictions_, (None, len(names)))
    n_pairs = (len(stacker.oof_predictions_),)
    check_numbers("folds_", stacker.folds_, n_pairs)
    _check_training(stacker.training_, n_pairs)
    widths = {name: span.stop - span.start for name, span in stacker.families_.items()}
    widths[ALL_COLUMNS] = n_columns
    if stacker.compression_ is not None:
        check_numbers("compression_.mean_", stacker.compression_.mean_, (n_columns,))
        widths[COMPRESSED] = stacker.compression_.n_features_out_
    for learner in stacker.level0_models_:
        if type(learner) is not FittedLearner:
            raise ModelFileError(f"level0_models_ has a {type(learner).__name__}.")
        if learner.sees not in widths:
            raise ModelFileError(f"a learner sees {learner.sees!r}, which is no family.")
        width = widths[learner.sees]
        if learner.columns is not None:
            check_indices("columns of a learner", learner.columns, None, width)
            if len(learner.columns) > width:
                raise ModelFileError(
                    f"a learner names {len(learner.columns)} columns, there are {width}."
                )
    for n_rows in (1, 3):  # what fits one row only does not fit three
        rows = np.ones((n_rows, n_columns))
        with np.errstate(all="ignore"):
            level0 = predict_level0(
                stacker.level0_models_, names, rows, stacker.compression_, stacker.families_
            )
            check_numbers("what the learners predict", level0, (n_rows, len(names)))
            scores = stacker.meta_predict(level0)
        check_numbers("what the meta-regressor predicts", scores, (n_rows,))


def _check_training(training: Any, n_pairs: tuple[int]) -> None:
    shapes = {"y": n_pairs, "sample_weight": n_pairs, "groups": n_pairs, "X": (None,)}
    if not isinstance(training, dict) or set(training) != set(shapes):
        raise ModelFileError(f"training_ is no dict of {sorted(shapes)}.")
    for name, shape in shapes.items():
        check_numbers(f"training_[{name!r}]", training[name], shape)


STATE_CHECKS: Mapping[type, Callable[[Any], None]] = {
    BlockGaussianProcess: _check_gaussian_process,
    BlockPCA: _check_compression,
    BoostedTrees: BoostedTrees.check_state,
    FittedLearner: _check_learner,
    GroupedRidge: _check_ridge,
    LinearModel: _check_linear_model,
    MonotoneCalibration: _check_calibration,
    Stacker: _check_stacker,
}
