import importlib
from pathlib import Path

import numpy as np
import pytest
from hostile_models import refusal
from lightgbm import LGBMRegressor
from sklearn.base import BaseEstimator, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVR
from sklearn.utils import all_estimators, get_tags

from xacle_stack import features, listeners, stacking, systems
from xacle_stack.errors import ModelFileError
from xacle_stack.features import FeatureBuilder
from xacle_stack.model_file import check_can_be_saved, load_model, save_model
from xacle_stack.model_file.saved_types import OWN_TYPES, SCIKIT_LEARN_TYPES
from xacle_stack.stacking import BoostedTrees, GroupedRidge, Stacker
from xacle_stack.systems import GatedRegressor, TransformerRegressor

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 4))
Y = X @ rng.normal(size=(4, 2)) + 0.1 * rng.normal(size=(40, 2))
# Arguments of estimators that their defaults do not make, or do not fit to one column of scores.
ARGUMENTS = {
    "CCA": (1,),
    "MultiOutputRegressor": (Ridge(),),
    "Pipeline": ([("a", StandardScaler()), ("b", None), ("c", LinearRegression())],),
    "PLSCanonical": (1,),
    "PLSRegression": (1,),
    "QuantileTransformer": (),
    "RegressorChain": (Ridge(),),
    "StackingRegressor": ([("ridge", Ridge())],),
    "VotingRegressor": ([("ridge", Ridge())],),
}
SETTINGS = {"QuantileTransformer": {"n_quantiles": 9}, "SGDRegressor": {"average": True}}
REGRESSORS = [kind for _, kind in all_estimators(type_filter="regressor")]
OTHERS = [
    name
    for name in sorted(SCIKIT_LEARN_TYPES)
    if name.rpartition(".")[2] not in {kind.__name__ for kind in REGRESSORS}
]


def full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def named_type(name: str) -> type:
    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(module), kind)


def unfitted(kind: type) -> BaseEstimator:
    model = kind(*ARGUMENTS.get(kind.__name__, ()), **SETTINGS.get(kind.__name__, {}))
    return model.set_params(random_state=0) if "random_state" in model.get_params() else model


def check_round_trip(model: BaseEstimator, y: np.ndarray, folder: Path) -> None:
    check_can_be_saved(model)
    fitted = clone(model).fit(X, y)
    _, loaded = load_model(save_model(folder, [fitted, fitted]))
    method = "predict" if hasattr(fitted, "predict") else "transform"
    expected, found = getattr(fitted, method)(X), getattr(loaded, method)(X)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # of fits to few rows, and of types that will go
@pytest.mark.parametrize("kind", REGRESSORS)
def test_every_regressor_is_saved_or_refused_before_the_fit(tmp_path: Path, kind: type) -> None:
    model = unfitted(kind)
    tags = get_tags(model).target_tags
    stack = Stacker([("one", model)], n_splits=2, random_state=0)
    if full_name(kind) not in SCIKIT_LEARN_TYPES:
        for estimator in (model, stack, make_pipeline(StandardScaler(), model)):
            with pytest.raises(ModelFileError, match=full_name(kind)) as caught:
                check_can_be_saved(estimator)
            assert "trusted=[...]" in str(caught.value)
        return
    if tags.single_output:
        check_round_trip(model, Y[:, 0], tmp_path)
        check_round_trip(stack, Y[:, 0], tmp_path)
    if tags.multi_output:
        check_round_trip(model, Y, tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_transformers_and_pipelines_are_saved(tmp_path: Path, name: str) -> None:
    check_round_trip(unfitted(named_type(name)), Y[:, 0], tmp_path)


def test_types_of_the_package_are_declared_where_they_are() -> None:
    for package in (features, listeners, stacking, systems):
        for name in getattr(package, "SAVED_TYPES", ()):
            assert name.startswith(f"{package.__name__}.")
            assert callable(named_type(name).check_state)
    assert {full_name(named_type(name)) for name in OWN_TYPES} == OWN_TYPES


@pytest.mark.parametrize(
    "estimator",
    [
        Stacker(),
        Stacker(preset="paper"),
        make_pipeline(FeatureBuilder(["mini-mel"]), Stacker()),
        Stacker(
            [("trees", BoostedTrees(library="catboost")), ("ridge", GroupedRidge())], RidgeCV()
        ),
        GatedRegressor(Stacker()),
        TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
        TransformerRegressor("mini-mel"),
    ],
)
def test_what_can_be_saved_is_accepted_before_the_fit(estimator: BaseEstimator) -> None:
    check_can_be_saved(estimator)


@pytest.mark.parametrize(
    ("estimator", "refused", "remedy"),
    [
        (Stacker([("svr", SVR())]), "sklearn.svm._classes.SVR", "KernelRidge"),
        (Stacker(meta=RandomForestRegressor()), "RandomForestRegressor", "BoostedTrees"),
        (GatedRegressor(LGBMRegressor()), "LGBMRegressor", "BoostedTrees"),
        (GridSearchCV(Ridge(), {"alpha": [1, 2]}), "GridSearchCV", "trusted="),
        (RidgeCV(cv=KFold(3)), "KFold", "trusted="),
        (TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp), "log", "trusted="),
        (GroupedRidge(random_state=np.random.RandomState(0)), "numpy.random", "a whole number"),
        (make_pipeline(StandardScaler(), Ridge(), memory="elsewhere"), "memory", "expected None"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_fit(
    estimator: BaseEstimator, refused: str, remedy: str
) -> None:
    with pytest.raises(ModelFileError, match=f"(?s){refused}.*{remedy}") as caught:
        check_can_be_saved(estimator)
    assert str(caught.value).startswith(f"{type(estimator).__name__} could not be saved")


def test_a_trusted_type_is_accepted() -> None:
    check_can_be_saved(Stacker([("svr", SVR())]), trusted=[SVR])
    logarithm = TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp)
    with pytest.raises(ModelFileError) as caught:
        check_can_be_saved(logarithm)
    names = [line[4:] for line in str(caught.value).splitlines() if line.startswith("  - ")]
    check_can_be_saved(logarithm, trusted=names)


def test_scikit_learns_readers_of_files_are_refused(tmp_path: Path) -> None:
    """It would read the file that its vocabulary names, and score by what stands there."""
    reader = make_pipeline(CountVectorizer(input="filename"), LinearRegression())
    name = "sklearn.feature_extraction.text.CountVectorizer"
    with pytest.raises(ModelFileError, match=f"(?s)not saved.*{name}.*trusted=") as caught:
        save_model(tmp_path / "m.skops", reader)
    assert "LinearRegression" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LGBMRegressor(), r"lightgbm\.sklearn\.LGBMRegressor.*xacle_stack\.BoostedTrees"),
        (RandomForestRegressor(), r"sklearn.ensemble._forest.RandomForestRegressor.*trusted=\["),
        (GroupedRidge(random_state=np.random.RandomState(0)), "numpy.random.*whole number"),
        (FunctionTransformer(np.exp), "numpy.*exp"),
        (Path("/etc/passwd"), "pathlib"),
    ],
)
def test_what_would_not_be_loaded_is_not_saved(tmp_path: Path, model, message: str) -> None:
    with pytest.raises(ModelFileError, match=f"(?s)not saved.*{message}"):
        save_model(tmp_path / "m.skops", {"a": model})
    assert not list(tmp_path.iterdir())


def test_a_caller_may_trust_a_type_in_code(tmp_path: Path) -> None:
    forest = RandomForestRegressor(3, random_state=0).fit(X, X[:, 0])
    types = [
        RandomForestRegressor,
        "sklearn.tree._classes.DecisionTreeRegressor",
        "sklearn.tree._tree.Tree",
    ]
    path = save_model(tmp_path / "m.skops", forest, trusted=types)
    assert "DecisionTreeRegressor" in refusal(path)
    np.testing.assert_array_equal(load_model(path, trusted=types).predict(X), forest.predict(X))
