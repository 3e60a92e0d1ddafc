"""A builder and a regressor in a pipeline: model selection refits both in every fold.

The expected values come from folds made by hand.
"""

import copy
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    cross_val_predict,
    cross_val_score,
    learning_curve,
    train_test_split,
)
from sklearn.pipeline import Pipeline, make_pipeline

from xacle_stack.cache import CachedPairs, StoreId, StoreWriter, text_key
from xacle_stack.cache.raw_keys import raw_keys
from xacle_stack.errors import FeatureError
from xacle_stack.features import FeatureBuilder, PairEmbeddings, SequenceBuilder, VectorBuilder
from xacle_stack.features.embeddings import EmbeddingSource
from xacle_stack.pairs import Pairs
from xacle_stack.stacking import Stacker
from xacle_stack.systems import CosineRegressor, LSTMRegressor, ProjectionHeadRegressor

N_PAIRS = 60
CAPTIONS = np.random.default_rng(1).integers(20, size=N_PAIRS).astype(str)
BY_CAPTION = {"groups": CAPTIONS, "cv": GroupKFold(3)}
FOLDS = list(GroupKFold(3).split(CAPTIONS, groups=CAPTIONS))


def vectors(rng: np.random.Generator) -> dict[tuple[str, str, str], np.ndarray]:
    """Return vectors by encoder, modality and output; equal captions have equal vectors."""
    row = np.unique(CAPTIONS, return_inverse=True)[1]
    made = {("tags", "audio", "logits"): rng.normal(size=(N_PAIRS, 2))}
    for encoder, n_dims in (("one", 4), ("two", 5)):
        made[encoder, "audio", "embedding"] = rng.normal(size=(N_PAIRS, n_dims))
        made[encoder, "text", "embedding"] = rng.normal(size=(row.max() + 1, n_dims))[row]
    return {name: values.astype(np.float32) for name, values in made.items()}


def frames(row: int) -> np.ndarray:
    return np.random.default_rng(row).normal(size=(1 + row % 3, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def y() -> np.ndarray:
    held = vectors(np.random.default_rng(0))
    a, b = (held["one", side, "embedding"] for side in ("audio", "text"))
    return 5 + (a * b).sum(1) + np.random.default_rng(2).normal(size=N_PAIRS)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> CachedPairs:
    root = tmp_path_factory.mktemp("store")
    ids = tuple(map(str, range(N_PAIRS)))
    keys = {
        "audio": [text_key(f"clip {name}") for name in ids],
        "text": [text_key(caption) for caption in CAPTIONS],
    }
    held = {**vectors(np.random.default_rng(0)), ("byol", "audio", "frames"): None}
    for (encoder, modality, output), values in held.items():
        first = {key: row for row, key in reversed([*enumerate(keys[modality])])}
        with StoreWriter(root, StoreId(encoder, "0" * 16), modality, {}) as writer:
            for key, row in first.items():
                one = [frames(row)] if values is None else values[[row]]
                writer.append([key], {output: one})
    pairs = Pairs("train", ids, tuple(map(Path, ids)), tuple(CAPTIONS))
    return CachedPairs(root, pairs, {modality: raw_keys(k) for modality, k in keys.items()}, {})


@pytest.fixture(scope="module")
def arrays() -> PairEmbeddings:
    held = vectors(np.random.default_rng(0))
    spaces = {
        name: (held[name, "audio", "embedding"], held[name, "text", "embedding"])
        for name in ("one", "two")
    }
    return PairEmbeddings(spaces, {"tags:logits": held["tags", "audio", "logits"]})


@pytest.fixture(params=["cached", "arrays"])
def source(request: pytest.FixtureRequest) -> EmbeddingSource:
    return request.getfixturevalue(request.param)


@pytest.fixture
def pipeline() -> Pipeline:
    return make_pipeline(
        FeatureBuilder(["one", "two"], ["tags:logits"], n_components=2),
        Stacker(preset="paper", n_components=4, random_state=0),
    )


def fold_by_hand(pipeline, X, y, train, held_out, groups=None) -> np.ndarray:
    builder, regressor = (clone(step) for _, step in pipeline.steps)
    given = {} if groups is None else {"groups": groups[train]}
    regressor.fit(builder.fit_transform(X[train]), y[train], **given)
    return regressor.predict(builder.transform(X[held_out]))


def by_hand(pipeline, X, y, groups=None) -> tuple[np.ndarray, list[float]]:
    """Return the held-out predictions, and each fold's R²."""
    predicted = np.empty(N_PAIRS)
    for train, held_out in FOLDS:
        predicted[held_out] = fold_by_hand(pipeline, X, y, train, held_out, groups)
    return predicted, [r2_score(y[held_out], predicted[held_out]) for _, held_out in FOLDS]


def test_cross_validation_refits_the_builder_in_every_fold(pipeline, source, y) -> None:
    predicted, scores = by_hand(pipeline, source, y)
    found = cross_val_predict(pipeline, source, y, **BY_CAPTION)
    assert found.tobytes() == predicted.tobytes()
    assert cross_val_score(pipeline, source, y, **BY_CAPTION).tolist() == scores
    table = clone(pipeline[0]).fit_transform(source)  # its projections have seen all pairs
    assert cross_val_predict(pipeline[1], table, y, **BY_CAPTION).tobytes() != predicted.tobytes()


def test_both_sources_lead_to_the_same_predictions(pipeline, cached, arrays, y) -> None:
    one, other = (cross_val_predict(pipeline, X, y, **BY_CAPTION) for X in (cached, arrays))
    assert one.tobytes() == other.tobytes()


def test_groups_reach_the_stackers_own_folds(pipeline, source, y) -> None:
    predicted, scores = by_hand(pipeline, source, y, groups=CAPTIONS)
    assert predicted.tobytes() != by_hand(pipeline, source, y)[0].tobytes()
    given = {**BY_CAPTION, "params": {"stacker__groups": CAPTIONS}}
    assert cross_val_predict(pipeline, source, y, **given).tobytes() == predicted.tobytes()
    assert cross_val_score(pipeline, source, y, **given).tolist() == scores
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline[1].set_fit_request(groups=True)
        given = {"cv": GroupKFold(3), "params": {"groups": CAPTIONS}}
        assert cross_val_predict(pipeline, source, y, **given).tobytes() == predicted.tobytes()
        assert cross_val_score(pipeline, source, y, **given).tolist() == scores
        search = GridSearchCV(pipeline, {"stacker__n_components": [4]}, cv=GroupKFold(3))
        search.fit(source, y, groups=CAPTIONS)
        assert search.best_score_ == pytest.approx(np.mean(scores), abs=1e-12)


def test_a_grid_search_tries_settings_of_both_steps(pipeline, source, y) -> None:
    grid = {"featurebuilder__n_components": [2, 3], "stacker__n_components": [4]}
    search = GridSearchCV(pipeline, grid, cv=GroupKFold(3)).fit(source, y, groups=CAPTIONS)
    for n_components, found in zip((2, 3), search.cv_results_["mean_test_score"], strict=True):
        tried = clone(pipeline).set_params(featurebuilder__n_components=n_components)
        assert found == pytest.approx(np.mean(by_hand(tried, source, y)[1]), abs=1e-12)
    best = clone(pipeline).set_params(**search.best_params_).fit(source, y)
    assert search.predict(source).tobytes() == best.predict(source).tobytes()


def test_a_learning_curve_refits_the_builder_on_fewer_rows(pipeline, source, y) -> None:
    sizes, _, found = learning_curve(pipeline, source, y, **BY_CAPTION, train_sizes=[20, 30])
    assert sizes.tolist() == [20, 30]
    for row, size in enumerate(sizes):
        for column, (train, held_out) in enumerate(FOLDS):
            predicted = fold_by_hand(pipeline, source, y, train[:size], held_out)
            expected = r2_score(y[held_out], predicted)
            assert found[row, column] == pytest.approx(expected, abs=1e-12)


def test_train_test_split_keeps_each_pairs_embeddings(source, y) -> None:
    parts = train_test_split(source, y, CAPTIONS, random_state=0)
    for part, part_y, captions in (parts[::2], parts[1::2]):
        rows = [int(pair_id) for pair_id in part.pair_ids]
        np.testing.assert_array_equal(part_y, y[rows])
        np.testing.assert_array_equal(captions, CAPTIONS[rows])
        np.testing.assert_array_equal(part.audio("two"), source.audio("two")[rows])
        np.testing.assert_array_equal(part.text("one"), source.text("one")[rows])
    assert sorted(parts[0].pair_ids + parts[1].pair_ids) == sorted(source.pair_ids)


@pytest.mark.parametrize(
    "regressor",
    [
        CosineRegressor("one"),
        ProjectionHeadRegressor(n_dims=4, epochs=2, batch_size=16, random_state=0),
    ],
    ids=lambda regressor: type(regressor).__name__,
)
def test_vectors_and_a_system_are_cross_validated(regressor, source, y) -> None:
    if not isinstance(regressor, CosineRegressor):
        pytest.importorskip("torch")
    pipeline = make_pipeline(VectorBuilder(["one", "two"]), regressor)
    predicted, scores = by_hand(pipeline, source, y)
    found = cross_val_predict(pipeline, source, y, **BY_CAPTION)
    assert found.tobytes() == predicted.tobytes()
    assert cross_val_score(pipeline, source, y, **BY_CAPTION).tolist() == scores


def test_sequences_and_a_network_are_cross_validated(cached, y) -> None:
    pytest.importorskip("torch")
    network = LSTMRegressor(hidden=4, epochs=1, batch_size=16, random_state=0)
    pipeline = make_pipeline(SequenceBuilder("byol:frames", "one"), network)
    found = cross_val_predict(pipeline, cached, y, **BY_CAPTION)
    assert found.tobytes() == by_hand(pipeline, cached, y)[0].tobytes()


@pytest.mark.parametrize("rows", [[7, 3, 3, -1], slice(4, 50, 9), np.arange(N_PAIRS) % 7 == 0])
def test_cached_sequences_are_indexed_with_their_captions(rows, cached) -> None:
    part = SequenceBuilder("byol:frames", "one").fit(cached).transform(cached)[rows]
    kept = np.arange(N_PAIRS)[rows]
    assert part.shape == (len(kept), 3 + 4)
    for (found, text), row in zip(part, kept, strict=True):
        np.testing.assert_array_equal(text, cached.text("one")[row])
        assert found.tobytes() == frames(row).tobytes()


def copied_by_joblib(table, folder: Path):
    joblib.dump(table, folder / "table.joblib")
    return joblib.load(folder / "table.joblib")


COPIES = {
    "pickle": lambda table, _: pickle.loads(pickle.dumps(table)),
    "deepcopy": lambda table, _: copy.deepcopy(table),
    "joblib": copied_by_joblib,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_lazy_table_keeps_values_and_names(
    copied, pipeline, source, tmp_path: Path
) -> None:
    table = pipeline[0].fit(source).transform(source)
    for one in (table, table[[9, 2, 2]], table.select(["two"])):
        again = copied(one, tmp_path)
        assert (again.blocks, again.families) == (one.blocks, one.families)
        assert again.pair_ids == one.pair_ids
        assert again.values.tobytes() == one.values.tobytes()
        assert again[::-2].values.tobytes() == one.values[::-2].tobytes()


def test_one_row_of_embeddings_is_refused_with_what_to_write(source) -> None:
    with pytest.raises(FeatureError, match=r"got 3\b.*\[3:4\]"):
        source[3]
