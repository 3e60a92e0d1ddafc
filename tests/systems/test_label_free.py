import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from xacle_stack import load_model, save_model
from xacle_stack.errors import FeatureError, ModelFileError, StackingError
from xacle_stack.features import PairEmbeddings, VectorBuilder, cosine_similarity
from xacle_stack.metrics import srcc
from xacle_stack.systems import CosineMean
from xacle_stack.table import FeatureTable

SPACES = ["good", "poor"]


def vectors(seed: int, n_pairs: int = 120, n_captions: int = 40) -> dict:
    """Return clips that are like their captions, in one space more than in the other."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(n_captions, 6))[rng.integers(n_captions, size=n_pairs)]
    noise = {"good": 0.5, "poor": 3.0}
    return {
        space: (meaning + sd * rng.normal(size=meaning.shape), meaning)
        for space, sd in noise.items()
    }


def table(seed: int, n_pairs: int = 120, rows: object = slice(None)) -> FeatureTable:
    spaces = {name: (a[rows], t[rows]) for name, (a, t) in vectors(seed, n_pairs).items()}
    return VectorBuilder(SPACES).fit_transform(PairEmbeddings(spaces))


NO_DIRECTION = "its numbers without decimals make vectors of zeros"
ONE_DIMENSION = "its vectors have one dimension, so that all cosines are 1"
NO_RATINGS = "y is not looked at"
EXPECTED_FAILURES = {
    "check_estimators_dtypes": NO_DIRECTION,
    "check_fit2d_1feature": ONE_DIMENSION,
    "check_fit_check_is_fitted": ONE_DIMENSION,
    "check_fit_idempotent": ONE_DIMENSION,
    "check_n_features_in": ONE_DIMENSION,
    "check_regressors_train": NO_RATINGS,
    "check_supervised_y_2d": NO_RATINGS,
    "check_supervised_y_no_nan": NO_RATINGS,
}


@parametrize_with_checks([CosineMean()], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def test_each_space_has_the_cosine_that_papers_report() -> None:
    fitted = CosineMean().fit(table(0))
    found = fitted.cosines(table(1))
    assert fitted.space_names == ("good", "poor")
    for column, (audio, text) in zip(found.T, vectors(1).values(), strict=True):
        expected = cosine_similarity(audio.astype(np.float32), text.astype(np.float32))
        np.testing.assert_array_equal(column, expected)


def test_the_scale_is_that_of_mismatched_pairs_and_of_the_references_own() -> None:
    # Every combination of 30 clips and 30 captions but the own ones is used.
    rng = np.random.default_rng(0)
    text = rng.normal(size=(30, 6)).astype(np.float32)
    audio = (text + rng.normal(size=text.shape)).astype(np.float32)
    X = VectorBuilder(["mine"]).fit_transform(PairEmbeddings({"mine": (audio, text)}))
    fitted = CosineMean().fit(X)
    clip, caption = np.nonzero(~np.eye(30, dtype=bool))
    others, own = cosine_similarity(audio[clip], text[caption]), cosine_similarity(audio, text)
    assert fitted.n_mismatched_ == 870
    np.testing.assert_allclose(fitted.mismatched_means_, others.mean(), atol=1e-6)
    np.testing.assert_allclose(fitted.mismatched_sds_, others.std(), rtol=1e-5)
    np.testing.assert_allclose(fitted.own_means_, own.mean(), rtol=1e-5)
    is_own = np.repeat([1, 0], [30, 870])
    auc = roc_auc_score(is_own, np.concatenate([own, others]))
    np.testing.assert_allclose([*fitted.aucs_, fitted.auc_], auc, atol=2e-5)
    expected = 10 * (own - others.mean()) / (np.quantile(own, 0.95) - others.mean())
    np.testing.assert_allclose(fitted.predict(X), expected, rtol=1e-4, atol=1e-5)


def test_one_space_ranks_by_its_cosine_and_the_mean_beats_the_poor_one() -> None:
    reference, new = table(0), table(1, 400)
    rng = np.random.default_rng(5)
    one = CosineMean(["good"]).fit(reference)
    assert srcc(one.cosines(new)[:, 0], one.predict(new)) == 1.0
    both = CosineMean().fit(reference)
    is_own = np.repeat([True, False], 400)
    spaces = {
        name: (np.vstack([a, a]), np.vstack([t, t[rng.permutation(400)]]))
        for name, (a, t) in vectors(2, 400).items()
    }
    mixed = VectorBuilder(SPACES).fit_transform(PairEmbeddings(spaces))
    alone = roc_auc_score(is_own, both.cosines(mixed)[:, 1])
    assert roc_auc_score(is_own, both.predict(mixed)) > alone


def test_a_pairs_score_depends_on_that_pair_only() -> None:
    fitted = CosineMean().fit(table(0))
    together = fitted.predict(table(1))
    alone = [fitted.predict(table(1, rows=[row]))[0] for row in range(5)]
    np.testing.assert_array_equal(alone, together[:5])
    np.testing.assert_array_equal(
        fitted.predict(table(1, rows=slice(None, None, -1))), together[::-1]
    )


def test_the_scale_does_not_depend_on_the_order_of_the_reference() -> None:
    rows = np.random.default_rng(9).permutation(120)
    first, other = (CosineMean(n_mismatched=50).fit(table(0, rows=r)) for r in (slice(None), rows))
    np.testing.assert_allclose(first.predict(table(1)), other.predict(table(1)), rtol=1e-12)
    seeded = CosineMean(n_mismatched=50, random_state=1).fit(table(0))
    assert seeded.mismatched_means_[0] != first.mismatched_means_[0]


def test_no_clip_is_put_with_a_caption_that_it_has_in_any_row() -> None:
    # Two clips under two names each; the own cosines are 1, all others 0.
    eye = np.eye(3)
    audio = eye[[0, 0, 1, 1, 2]]
    X = np.hstack([audio, eye[[0, 0, 1, 1, 2]]])
    with pytest.raises(StackingError, match="all equal in 'cosine'"):
        CosineMean().fit(X)  # the six mismatched pairs that are left all have a cosine of 0


@pytest.mark.parametrize(
    ("clip", "caption"),
    [([0, 1, 2], [0, 0, 0]), ([0, 0, 0], [0, 1, 2]), ([0, 0, 1, 1], [0, 1] * 2)],
)
def test_a_reference_without_mismatched_pairs_is_told(clip: list, caption: list, rng) -> None:
    audio, text = rng.normal(size=(2, 3, 4))
    with pytest.raises(StackingError, match=r"leave 0 mismatched pairs.*--reference"):
        CosineMean().fit(np.hstack([audio[clip], text[caption]]))


@pytest.mark.parametrize(
    "settings", [{"spaces": "good"}, {"spaces": []}, {"n_mismatched": 1}, {"random_state": -1}]
)
def test_unusable_settings_are_told(settings: dict) -> None:
    with pytest.raises(StackingError, match=next(iter(settings))):
        CosineMean(**settings).fit(table(0))


def test_a_vector_without_direction_is_told() -> None:
    with pytest.raises(FeatureError, match="zero or not finite"):
        CosineMean().fit(np.zeros((5, 4)) + np.diag([0.0, 1, 1, 1, 1])[:, :4])


def test_it_is_saved_and_checked(tmp_path) -> None:
    fitted = CosineMean().fit(table(0))
    again = load_model(save_model(tmp_path / "mine", fitted))
    np.testing.assert_array_equal(again.predict(table(1)), fitted.predict(table(1)))
    for name, value in {
        "top_": 0.0,
        "mismatched_sds_": np.zeros(2),
        "mismatched_means_": np.zeros(3),
        "auc_": "high",
    }.items():
        broken = CosineMean().fit(table(0))
        setattr(broken, name, value)
        with pytest.raises(ModelFileError, match=name):
            broken.check_state()
