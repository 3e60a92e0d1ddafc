"""Checks of fitted estimators that come from a file, before anybody predicts with them.

A file may be made by anyone, and its arrays need not fit together.  What is checked here, shapes,
indices, finite numbers and how much the parts make of one row, keeps a prediction from taking more
memory or time than the file's size accounts for, and from ending in an error that names no file.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from xacle_stack._state_checks import (
    check_indices,
    check_numbers,
    check_spans,
    check_width,
)
from xacle_stack.errors import MissingExtraError, ModelFileError, XacleStackError
from xacle_stack.stacking.boosted_trees import BoostedTrees
from xacle_stack.stacking.calibration import MonotoneCalibration
from xacle_stack.stacking.compress import BlockPCA
from xacle_stack.stacking.fold_ridge import LinearModel
from xacle_stack.stacking.gaussian_process import BlockGaussianProcess
from xacle_stack.stacking.learners import ALL_COLUMNS, COMPRESSED, FittedLearner
from xacle_stack.stacking.level0 import predict_level0
from xacle_stack.stacking.ridge import GroupedRidge
from xacle_stack.stacking.settings import check_score_range
from xacle_stack.stacking.stacker import Stacker

# No stack in use is larger.
_MAX_JOBS, _MAX_KERNELS = 1024, 16
# The matrix that is solved to fit more has 137 GB.
_MAX_LANDMARKS = 2**17
# Lengths of a scikit-learn estimator's arrays, beside its number of columns: what it computes for
# each row may have them too.
_MAX_LENGTH = 2**16


def check_states(value: Any) -> None:
    """Check what the estimators in a model have learned, the inner ones first.

    Parameters
    ----------
    value : object
        An estimator, or containers of some.  Estimators of other packages of this library than
        `stacking` have a method ``check_state``.

    Raises
    ------
    ModelFileError
        If something is missing, or does not fit together.
    """
    for inner in _parts_of(value):
        check_states(inner)
    package, name = type(value).__module__.partition(".")[0], type(value).__name__
    try:
        if package == "sklearn":
            _check_scikit_learn(value)
        elif package == "xacle_stack" and _has_learned(value):
            _CHECKS.get(type(value), _check_itself)(value)
    except (MissingExtraError, _NamedError):
        raise
    except XacleStackError as error:
        raise _NamedError(f"{name}: {str(error).removesuffix('.')}") from error
    except Exception as error:  # arrays that do not fit together fail anywhere in NumPy
        raise _NamedError(f"{name}: {type(error).__name__}: {error}") from error


class _NamedError(ModelFileError):
    """An error that says which estimator it is about."""


def _parts_of(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif type(value).__module__.partition(".")[0] in ("xacle_stack", "sklearn"):
        yield from getattr(value, "__dict__", {}).values()


def _has_learned(value: Any) -> bool:
    if not hasattr(value, "fit"):  # what only a fit makes
        return True
    return any(name.endswith("_") and name[:2] != "__" for name in vars(value))


def _check_itself(value: Any) -> None:
    value.check_state()


def _check_scikit_learn(estimator: Any) -> None:
    n_columns = getattr(estimator, "n_features_in_", 0)
    if getattr(estimator, "memory", None) is not None:
        raise ModelFileError("memory names a folder for results in between, expected None.")
    for name, value in getattr(estimator, "__dict__", {}).items():
        lengths = value.shape if isinstance(value, np.ndarray) else ()
        if any(length > _MAX_LENGTH and length != n_columns for length in lengths):
            raise ModelFileError(
                f"{name} has shape {lengths}, expected lengths of {_MAX_LENGTH} or less, or "
                f"n_features_in_ = {n_columns}."
            )


def _check_linear_model(model: LinearModel) -> None:
    check_numbers("coef", model.coef, (None, None))
    check_numbers("intercept", model.intercept, (model.coef.shape[1],))


def _check_ridge(ridge: GroupedRidge) -> None:
    n_targets = np.shape(ridge.coef_)[:-1]
    check_numbers("coef_", ridge.coef_, (*n_targets[:1], ridge.n_features_in_))
    check_numbers("intercept_", ridge.intercept_, n_targets)


def _check_calibration(calibration: MonotoneCalibration) -> None:
    check_numbers("knots_", calibration.knots_, (None,))
    if not len(calibration.knots_) or (np.diff(calibration.knots_) <= 0).any():
        raise ModelFileError("knots_ do not rise.")
    check_numbers("values_", calibration.values_, calibration.knots_.shape)
    check_numbers("slopes_", calibration.slopes_, (2,))


def _check_compression(pca: BlockPCA) -> None:
    check_numbers("mean_", pca.mean_, (None,))
    check_numbers("scale_", pca.scale_, pca.mean_.shape, least=0, finite=False)
    check_spans("blocks", pca.blocks, len(pca.mean_), cover=False)
    sizes = {name: block.stop - block.start for name, block in pca.blocks.items()}
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
    check_numbers("block_scale_", process.block_scale_, (None,), least=0, finite=False)
    n_blocks, n_kernels = len(process.block_scale_), len(process.amplitude_)
    check_indices("block_of_", process.block_of_, n_features, n_blocks)
    check_numbers("amplitude_", process.amplitude_, (None,), least=0)
    check_numbers("relevance_", process.relevance_, (n_kernels, n_blocks), least=0)
    check_numbers("landmarks_", process.landmarks_, (None, n_features))
    n_landmarks, n_targets = len(process.landmarks_), np.shape(process.dual_coef_)[1:]
    if n_landmarks > _MAX_LANDMARKS or n_kernels > _MAX_KERNELS:
        raise ModelFileError(
            f"{n_landmarks} landmarks_ and {n_kernels} kernels, the most are {_MAX_LANDMARKS} and "
            f"{_MAX_KERNELS}."
        )
    check_numbers("dual_coef_", process.dual_coef_, (n_landmarks, *n_targets))
    check_numbers("y_mean_", process.y_mean_, n_targets)


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
    check_numbers("folds_", stacker.folds_, (len(stacker.oof_predictions_),))
    widths = {name: span.stop - span.start for name, span in stacker.families_.items()}
    widths[ALL_COLUMNS] = n_columns
    if stacker.compression_ is not None:
        check_numbers("compression_.mean_", stacker.compression_.mean_, (n_columns,))
        widths[COMPRESSED] = stacker.compression_.n_features_out_
    for learner in stacker.level0_models_:
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


_CHECKS: Mapping[type, Callable[[Any], None]] = {
    BlockGaussianProcess: _check_gaussian_process,
    BlockPCA: _check_compression,
    BoostedTrees: BoostedTrees.check_state,
    FittedLearner: _check_learner,
    GroupedRidge: _check_ridge,
    LinearModel: _check_linear_model,
    MonotoneCalibration: _check_calibration,
    Stacker: _check_stacker,
}
