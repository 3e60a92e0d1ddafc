"""Checks of fitted estimators that come from a file, before anybody predicts with them.

A file may be made by anyone, and its arrays need not fit together.  What is checked here, shapes,
indices, finite numbers and how much the parts make of one row, keeps a prediction from taking more
memory or time than the file's size accounts for, and from ending in an error that names no file.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from xacle_stack._state_checks import (
    check_attributes,
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
from xacle_stack.stacking.model_schema import OWN_TYPES, SCIKIT_LEARN_TYPES
from xacle_stack.stacking.ridge import GroupedRidge
from xacle_stack.stacking.scikit_learn_state import MAX_LENGTHS, check_scikit_learn
from xacle_stack.stacking.settings import check_score_range
from xacle_stack.stacking.stacker import Stacker

# No stack in use is larger.
_MAX_JOBS, _MAX_KERNELS = 1024, 4
# The matrix that is solved to fit more has 137 GB.
_MAX_LANDMARKS = 2**17
# Numbers of all landmarks, for each kernel: a prediction makes as many products 256 times.
_MAX_KERNEL_NUMBERS = 2**29
# Of those that go over the columns one by one, what each column counts as.
_BY_COLUMN, _BY_COLUMN_COUNTS = frozenset({"PowerTransformer", "QuantileTransformer"}), 1024
# Estimators, each as often as the model refers to it, times the columns of the widest table.
_MAX_WORK = 2**30
# Attributes of our estimators beside settings and what is learned: LightGBM's form of the trees,
# which no file can give.
_OWN_PRIVATE = frozenset({"_booster"})


def check_states(model: Any) -> None:
    """Check what the estimators in a model have learned, the inner ones first.

    Parameters
    ----------
    model : object
        An estimator, or containers of some.  Estimators of other packages of this library than
        `stacking` have a method ``check_state``.

    Raises
    ------
    ModelFileError
        If something is missing, does not fit together, or would take very long to predict.
    """
    for estimator in check_attributes_in(model):
        with _naming(estimator):
            if _full_name(estimator) in SCIKIT_LEARN_TYPES:
                check_scikit_learn(estimator)
            elif _full_name(estimator) in OWN_TYPES and _has_learned(estimator):
                _CHECKS.get(type(estimator), _check_itself)(estimator)


def check_attributes_in(model: Any) -> list[Any]:
    """Check what a model consists of, without using it: the names of attributes, how much there is.

    Returns
    -------
    estimators : list
        All that the model refers to, the inner ones first.

    Raises
    ------
    ModelFileError
        If an estimator has an attribute that its class does not know, or there are very many.
    """
    estimators: dict[int, Any] = {}
    n_estimators = _collect(model, estimators, {})
    n_columns = 1
    for estimator in estimators.values():
        with _naming(estimator):
            _check_attributes(estimator)
            n_columns = max(n_columns, check_width(vars(estimator).get("n_features_in_", 1)))
    if n_estimators * n_columns > _MAX_WORK:
        raise ModelFileError(
            f"{n_estimators} estimators for up to {n_columns} columns would take very long to "
            f"predict; the most is {_MAX_WORK} of both together."
        )
    return list(estimators.values())


def _collect(value: Any, estimators: dict[int, Any], counts: dict[int, int]) -> int:
    """Find the estimators in a model, the inner ones first.

    Returns
    -------
    n_estimators : int
        Each as often as the model refers to it; one that goes column by column counts as many.
    """
    if id(value) not in counts:
        n_inside = sum(_collect(part, estimators, counts) for part in _parts_of(value))
        is_estimator = _is_estimator(value)
        if is_estimator:
            estimators[id(value)] = value
        is_slow = is_estimator and type(value).__name__ in _BY_COLUMN
        counts[id(value)] = n_inside + (_BY_COLUMN_COUNTS if is_slow else is_estimator)
    return counts[id(value)]


@contextmanager
def _naming(estimator: Any) -> Iterator[None]:
    """Say in front of a message which estimator it is about."""
    name = type(estimator).__name__
    try:
        yield
    except MissingExtraError:
        raise
    except XacleStackError as error:
        raise ModelFileError(f"{name}: {str(error).removesuffix('.')}") from error
    except Exception as error:  # arrays that do not fit together fail anywhere in NumPy
        raise ModelFileError(f"{name}: {type(error).__name__}: {error}") from error


def _parts_of(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    elif _is_estimator(value):
        yield from vars(value).values()


def _full_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_estimator(value: Any) -> bool:
    """Return whether a value is of this library or scikit-learn, and has a state to look into."""
    package = type(value).__module__.partition(".")[0]
    return package in ("xacle_stack", "sklearn") and hasattr(value, "__dict__")


def _check_attributes(estimator: Any) -> None:
    """Check the names of attributes; a type that a caller trusts may have any."""
    if _full_name(estimator) in OWN_TYPES:
        check_attributes(estimator, _OWN_PRIVATE)
    elif _full_name(estimator) in SCIKIT_LEARN_TYPES:
        check_attributes(estimator, None)


def _has_learned(value: Any) -> bool:
    if not hasattr(value, "fit"):  # what only a fit makes
        return True
    return any(name.endswith("_") for name in vars(value))


def _check_itself(value: Any) -> None:
    type(value).check_state(value)


def _check_linear_model(model: LinearModel) -> None:
    check_numbers("coef", model.coef, (None, None))
    check_numbers("intercept", model.intercept, (model.coef.shape[1],))
    _check_outputs(model.coef.shape[1])


def _check_outputs(n_outputs: int = 1) -> None:
    if n_outputs > MAX_LENGTHS["outputs"]:
        raise ModelFileError(f"{n_outputs} outputs, the most is {MAX_LENGTHS['outputs']}.")


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
    check_numbers("scale_", pca.scale_, pca.mean_.shape, least=0, finite=False)
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
