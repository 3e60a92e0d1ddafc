"""Systems find the vectors of clips and captions in a table by name."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyRegressor

from xacle_stack.errors import StackingError
from xacle_stack.features import FeatureBuilder, PairEmbeddings, VectorBuilder
from xacle_stack.model_file import load_model, save_model
from xacle_stack.systems import (
    SAVED_TYPES,
    AudioCaptioner,
    AudioLanguageModelRegressor,
    CosineMean,
    CosineRegressor,
    CrossAttentionRegressor,
    GatedRegressor,
    LSTMRegressor,
    ProjectionHeadRegressor,
    SupportVectors,
    SVREnsembleRegressor,
    TransformerRegressor,
    VectorMLPRegressor,
)
from xacle_stack.table import FeatureTable, consecutive

QUICK = {"epochs": 1, "random_state": 0}
ONE_SPACE = [
    CosineRegressor(),
    GatedRegressor(DummyRegressor()),
    TransformerRegressor(n_layers=1, hidden=4, optimizer="adam", **QUICK),
]
SYSTEMS = [
    *ONE_SPACE,
    ProjectionHeadRegressor(n_dims=3, **QUICK),
    VectorMLPRegressor(hidden=4, projection=3, **QUICK),
    SVREnsembleRegressor(),
]


def each(systems):
    return pytest.mark.parametrize("system", systems, ids=lambda one: type(one).__name__)


@pytest.fixture
def y(rng):
    return rng.uniform(0, 10, size=30)


@pytest.fixture
def embeddings(rng) -> PairEmbeddings:
    a, b, c, d = rng.normal(size=(4, 30, 4))
    return PairEmbeddings({"mine": (a, b), "other": (c, d)})


def fitted(system, X, y, **settings):
    if not isinstance(system, CosineRegressor | GatedRegressor | SVREnsembleRegressor):
        pytest.importorskip("torch")
    return clone(system).set_params(**settings).fit(X, y)


@each(SYSTEMS)
def test_tables_of_both_builders_give_the_scores_of_the_halves(embeddings, y, system) -> None:
    for builder in (VectorBuilder(["mine"]), FeatureBuilder(["mine"], n_components=2)):
        table = builder.fit_transform(embeddings)
        halves = np.hstack([table.block("mine/audio"), table.block("mine/text")])
        expected = fitted(system, halves, y).predict(halves)
        np.testing.assert_allclose(fitted(system, table, y).predict(table), expected, rtol=1e-6)


@each(ONE_SPACE)
def test_one_of_several_spaces_is_to_be_named(embeddings, y, system) -> None:
    both = VectorBuilder(["other", "mine"]).fit_transform(embeddings)
    alone = VectorBuilder(["mine"]).fit_transform(embeddings)
    expected = fitted(system, alone, y).predict(alone)
    np.testing.assert_array_equal(fitted(system, both, y, space="mine").predict(both), expected)
    np.testing.assert_array_equal(fitted(system, alone, y).predict(both), expected)
    with pytest.raises(StackingError, match=r"2 spaces: \['other', 'mine'\].*space='other'"):
        fitted(system, both, y)
    with pytest.raises(StackingError, match=r"'third/audio'.*\['other', 'mine'\]"):
        fitted(system, both, y, space="third")


@each(SYSTEMS)
def test_blocks_that_do_not_fit_the_fitted_system_are_told(rng, embeddings, y, system) -> None:
    table = VectorBuilder(["mine"]).fit_transform(embeddings)
    model = fitted(system, table, y)
    narrow = FeatureTable(rng.normal(size=(5, 6)), consecutive({"mine/audio": 3, "mine/text": 3}))
    with pytest.raises(StackingError, match=r"'mine'.*\(3, 3\).*\(4, 4\) when fitted"):
        model.predict(narrow)
    with pytest.raises(StackingError, match=r"'mine/audio'|\['other'\]"):
        model.predict(VectorBuilder(["other"]).fit_transform(embeddings))
    with pytest.raises(StackingError, match=r"\['mine'\].*ndarray"):
        model.predict(table.values)
    with pytest.raises(StackingError, match="FeatureTable"):
        fitted(system, table.values, y).predict(table)


@each(SYSTEMS)
def test_a_table_without_vectors_is_told(rng, y, system) -> None:
    table = FeatureTable(rng.normal(size=(30, 4)), {"beats/logits": slice(0, 4)})
    with pytest.raises(StackingError, match=r"SPACE/audio.*\['beats/logits'\]"):
        clone(system).fit(table, y)


@each(SYSTEMS)
def test_a_vector_that_is_not_finite_is_told_with_its_pair(embeddings, y, system) -> None:
    table = VectorBuilder(["mine"]).fit_transform(embeddings)
    values = table.values.copy()
    values[7, 5] = np.nan
    broken = FeatureTable(values, table.blocks, [f"pair-{row}" for row in range(30)])
    with pytest.raises(StackingError, match="'mine/text'.* 1 pairs.*'pair-7'"):
        clone(system).fit(broken, y)


@each(SYSTEMS)
def test_an_array_has_no_spaces(rng, y, system) -> None:
    name = next(s for s in ("space", "spaces", "spaces_a") if s in system.get_params())
    named = {name: "mine" if name == "space" else ["mine"]}
    with pytest.raises(StackingError, match=r"\['mine'\].*without names.*FeatureTable"):
        clone(system).set_params(**named).fit(rng.normal(size=(30, 8)), y)


@each(SYSTEMS)
def test_scores_are_one_for_each_pair(embeddings, y, system) -> None:
    table = VectorBuilder(["mine"]).fit_transform(embeddings)
    with pytest.raises(StackingError, match="29 scores for 30 pairs"):
        clone(system).fit(table, y[:29])


def test_sequences_are_no_table(embeddings, y) -> None:
    table = VectorBuilder(["mine"]).fit_transform(embeddings)
    with pytest.raises(StackingError, match="FeatureTable.*PairSequences"):
        LSTMRegressor().fit(table, y)


def test_saved_types_are_the_systems() -> None:
    systems = [*map(type, SYSTEMS), CosineMean, CrossAttentionRegressor, LSTMRegressor]
    systems += [AudioCaptioner, AudioLanguageModelRegressor, SupportVectors]
    assert sorted(SAVED_TYPES) == sorted(f"{s.__module__}.{s.__name__}" for s in systems)


@each(SYSTEMS)
def test_a_system_fitted_on_a_table_is_saved_and_loaded(embeddings, y, system, tmp_path) -> None:
    table = VectorBuilder(["mine"]).fit_transform(embeddings)
    model = fitted(system, table, y)
    path = save_model(tmp_path / "model.skops", model, trusted=[DummyRegressor])
    loaded = load_model(path, trusted=[DummyRegressor])
    np.testing.assert_array_equal(loaded.predict(table), model.predict(table))
    assert (loaded.spaces_, loaded.widths_) == (("mine",), [(4, 4)])
