"""The types that a saved model may hold, and what to do about the others."""

from collections.abc import Iterable

import xacle_stack.features as features
import xacle_stack.listeners as listeners
import xacle_stack.stacking as stacking
import xacle_stack.systems as systems
from xacle_stack._large_arrays import LargeArrays
from xacle_stack._printable import printable_name
from xacle_stack.errors import bullet_list

OWN_TYPES = frozenset(
    name for package in (features, listeners, stacking, systems) for name in package.SAVED_TYPES
)
LARGE_ARRAYS = f"{LargeArrays.__module__}.{LargeArrays.__qualname__}"
# Reviewed: their `predict` and `transform` are NumPy's arithmetic on arrays of the file.  They open
# no file, and no compiled code takes an index from the file, as that of trees and neighbours does.
SCIKIT_LEARN_TYPES = frozenset(
    f"sklearn.{name}"
    for name in (
        "compose._target.TransformedTargetRegressor",
        "cross_decomposition._pls.CCA",
        "cross_decomposition._pls.PLSCanonical",
        "cross_decomposition._pls.PLSRegression",
        "decomposition._pca.PCA",
        "decomposition._truncated_svd.TruncatedSVD",
        "dummy.DummyRegressor",
        "kernel_ridge.KernelRidge",
        "linear_model._base.LinearRegression",
        "linear_model._bayes.ARDRegression",
        "linear_model._bayes.BayesianRidge",
        "linear_model._coordinate_descent.ElasticNet",
        "linear_model._coordinate_descent.ElasticNetCV",
        "linear_model._coordinate_descent.Lasso",
        "linear_model._coordinate_descent.LassoCV",
        "linear_model._coordinate_descent.MultiTaskElasticNet",
        "linear_model._coordinate_descent.MultiTaskElasticNetCV",
        "linear_model._coordinate_descent.MultiTaskLasso",
        "linear_model._coordinate_descent.MultiTaskLassoCV",
        "linear_model._huber.HuberRegressor",
        "linear_model._least_angle.Lars",
        "linear_model._least_angle.LarsCV",
        "linear_model._least_angle.LassoLars",
        "linear_model._least_angle.LassoLarsCV",
        "linear_model._least_angle.LassoLarsIC",
        "linear_model._omp.OrthogonalMatchingPursuit",
        "linear_model._omp.OrthogonalMatchingPursuitCV",
        "linear_model._quantile.QuantileRegressor",
        "linear_model._ransac.RANSACRegressor",
        "linear_model._ridge.Ridge",
        "linear_model._ridge.RidgeCV",
        "linear_model._stochastic_gradient.SGDRegressor",
        "linear_model._theil_sen.TheilSenRegressor",
        "pipeline.Pipeline",
        "preprocessing._data.MaxAbsScaler",
        "preprocessing._data.MinMaxScaler",
        "preprocessing._data.Normalizer",
        "preprocessing._data.PowerTransformer",
        "preprocessing._data.QuantileTransformer",
        "preprocessing._data.RobustScaler",
        "preprocessing._data.StandardScaler",
        "preprocessing._function_transformer.FunctionTransformer",
        "svm._classes.LinearSVR",
    )
)
_OWN_FILES = (
    "Where all files are your own, name the types: save_model(..., trusted=[...]) and "
    "load_model(..., trusted=[...])."
)
# What to do in place of saving a type, by the start of its name.
_REMEDIES = {
    "lightgbm.": "Use xacle_stack.BoostedTrees in place of LightGBM's estimators.",
    "numpy.random.": "Give a whole number as random_state.",
    "xacle_stack.": "A class of this library that may be saved has a method check_state, and its "
    "full name is in SAVED_TYPES of its package.",
    "sklearn.ensemble.": "Use xacle_stack.BoostedTrees in place of scikit-learn's trees.",
    "sklearn.tree.": "Use xacle_stack.BoostedTrees in place of scikit-learn's trees.",
    "sklearn.svm.": "Use sklearn.kernel_ridge.KernelRidge(kernel='rbf') in place of kernel SVMs.",
    "sklearn.gaussian_process.": "Use sklearn.kernel_ridge.KernelRidge(kernel='rbf') in place of "
    "scikit-learn's Gaussian processes.",
    "sklearn.": "Only those estimators of scikit-learn can be saved that are known to be harmless "
    f"in a stranger's file, the linear models among them. {_OWN_FILES}",
}


def type_names(types: Iterable[str | type]) -> frozenset[str]:
    """Return the full names of types that are given by name or themselves."""
    return frozenset(
        one if isinstance(one, str) else f"{one.__module__}.{one.__qualname__}" for one in types
    )


def refusal(types: Iterable[str]) -> str:
    """Return a list of types that are refused, then the remedies."""
    names = sorted(types)
    remedies = {
        remedy: None
        for start, remedy in _REMEDIES.items()
        if any(name.startswith(start) for name in names)
    }
    shown = bullet_list(printable_name(name[:400]) for name in names)
    return "\n".join([shown, *(remedies or [_OWN_FILES])])
