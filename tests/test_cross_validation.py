from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from support import TOY, WriteData

from xacle_stack import FeatureBuilder, FeatureCache, Pairs, cross_validate, read_pairs
from xacle_stack.cross_validation import HeldOutFolds, held_out_folds, mean_size
from xacle_stack.errors import PairsError, StackingError
from xacle_stack.metrics import evaluate, srcc, srcc_gain
from xacle_stack.recipe import Recipe, recipe_from

pytestmark = pytest.mark.usefixtures("few_resamples")


def recipe_of(**stacker: object) -> Recipe:
    settings = {"preset": "paper", **stacker}
    return recipe_from({"name": "toy", "spaces": [TOY.name], "stacker": settings}, "a test")


def pairs_of(captions: list[str], **columns: tuple[object, ...]) -> Pairs:
    ids = [f"{number}.wav" for number in range(len(captions))]
    return Pairs("mine", ids, (), captions, np.arange(len(captions)) % 11.0, columns=columns)


class Memoriser(RegressorMixin, BaseEstimator):
    """Returns the score of the pair trained on that is the most like a pair."""

    seen: ClassVar[list[tuple[str, ...]]] = []

    def fit(self, X: Any, y: np.ndarray) -> Self:
        self.X_, self.y_ = X.values, np.asarray(y)
        Memoriser.seen.append(X.pair_ids)
        return self

    def predict(self, X: Any) -> np.ndarray:
        distances = ((X.values[:, None] - self.X_) ** 2).sum(axis=2)
        return self.y_[distances.argmin(axis=1)]


class RecordingBuilder(FeatureBuilder):
    seen: ClassVar[list[tuple[str, ...]]] = []

    def fit(self, X: Any, y: object = None) -> Self:
        RecordingBuilder.seen.append(X.pair_ids)
        return super().fit(X, y)


@pytest.fixture
def pairs(make_data: WriteData) -> Pairs:
    pairs = read_pairs(make_data(train=60), "train")
    return replace(pairs, scores=np.linspace(2, 8, 60), ratings=None)  # all differ


def test_nothing_is_scored_by_a_fit_that_saw_it(pairs: Pairs, tmp_path: Path) -> None:
    Memoriser.seen.clear()
    RecordingBuilder.seen.clear()
    found = cross_validate(
        pairs,
        recipe_of(),
        regressor=Memoriser(),
        builder=RecordingBuilder(["toy"]),
        store=tmp_path,
        learning_curve=False,
    )
    assert found.pair_ids == pairs.ids
    assert not np.any(found.scores == pairs.scores)
    np.testing.assert_array_equal(found.scorer.score(pairs), pairs.scores)  # fitted on all
    for fitted in (Memoriser.seen, RecordingBuilder.seen):
        everything, *parts = fitted
        assert everything == pairs.ids
        for number, part in enumerate(parts):
            assert set(part) == {pairs.ids[row] for row in np.flatnonzero(found.folds != number)}
        assert len(parts) == 5
    assert found.learning_curve is None


def test_it_equals_scikit_learns_on_the_same_folds(pairs: Pairs, tmp_path: Path) -> None:
    recipe = recipe_of(group_by="none")
    found = cross_validate(pairs, recipe, n_folds=3, store=tmp_path, learning_curve=False)
    folds = held_out_folds(pairs, recipe, 3)
    assert found.groups is folds.groups is None
    model = make_pipeline(recipe.builder(), recipe.new_stacker())
    embeddings = FeatureCache(tmp_path).load(pairs, recipe.fingerprints())
    expected = cross_val_predict(model, embeddings, pairs.scores, cv=folds.rows)
    np.testing.assert_array_equal(found.scores, expected)
    assert found.result.evaluation == evaluate(pairs.scores, expected)
    for number, value in enumerate(found.fold_metrics["SRCC"]):
        rows = found.folds == number
        assert value == srcc(pairs.scores[rows], expected[rows])


def test_groups_stay_together_and_intervals_are_over_them(pairs: Pairs, tmp_path: Path) -> None:
    captions = {caption: f"topic {len(caption) % 3}-{caption[-1]}" for caption in pairs.captions}
    groups = tuple(captions[caption] for caption in pairs.captions)
    pairs = replace(pairs, columns={"group": groups})
    found = cross_validate(pairs, recipe_of(), store=tmp_path, learning_curve=False)
    assert found.groups == [*groups]
    for group in set(groups):
        assert len({found.folds[row] for row in range(60) if groups[row] == group}) == 1
    assert found.result.evaluation == evaluate(pairs.scores, found.scores, groups=groups)
    assert f"60 pairs in {len(set(groups))} groups" in repr(found)


def test_a_learning_curve_is_of_nested_parts_and_the_same_held_out_pairs(
    pairs: Pairs, tmp_path: Path
) -> None:
    recipe = recipe_of()
    found = cross_validate(pairs, recipe, store=tmp_path)
    curve, folds = found.learning_curve, held_out_folds(pairs, recipe)
    sizes = [mean_size(part) for part in folds.parts()]
    assert curve.n_training_pairs == (*sizes, 48)
    assert curve.srcc[-1] == found.result.evaluation.srcc
    assert curve.finding in repr(found)
    again = cross_validate(pairs, recipe, store=tmp_path)
    assert again.learning_curve == curve
    np.testing.assert_array_equal(again.scores, found.scores)
    other = cross_validate(pairs, recipe, store=tmp_path, learning_curve=False, random_state=1)
    assert (other.folds != found.folds).any()


def test_parts_are_nested_and_divide_no_group() -> None:
    captions = [f"caption {number // 2}" for number in range(400)]
    folds = held_out_folds(pairs_of(captions), recipe_of())
    parts = [*folds.parts(), folds.rows]
    assert [mean_size(part) for part in parts] == [40, 80, 160, 320]
    labels = np.array(captions)
    for smaller, larger in pairwise(parts):
        for (few, held_out), (many, same) in zip(smaller, larger, strict=True):
            assert set(few) < set(many)
            assert held_out is same
            assert not set(few) & set(held_out)
            assert all(
                (labels == label).sum() == (labels[few] == label).sum() for label in labels[few]
            )
    again = held_out_folds(pairs_of(captions), recipe_of()).parts()
    for part, same in zip(parts, again, strict=False):
        for (rows, _), (same_rows, _) in zip(part, same, strict=True):
            np.testing.assert_array_equal(rows, same_rows)


def test_parts_of_few_pairs_or_groups_are_left_out() -> None:
    assert held_out_folds(pairs_of([f"caption {n}" for n in range(24)]), recipe_of()).parts() == []
    few = [f"caption {number % 12}" for number in range(400)]
    assert held_out_folds(pairs_of(few), recipe_of()).parts() == []


def test_few_captions_are_told(caplog) -> None:
    def folds_of(n_captions: int, **stacker: object) -> HeldOutFolds:
        caplog.clear()
        captions = [f"caption {number % n_captions}" for number in range(60)]
        return held_out_folds(pairs_of(captions), recipe_of(**stacker))

    assert folds_of(20).groups is not None
    assert caplog.text == ""
    assert folds_of(5).groups is not None
    assert "only 5 different captions" in caplog.text
    assert "rough" in caplog.text
    assert folds_of(4).groups is None
    assert "only 4 different captions: too few for 5 folds" in caplog.text
    assert "plain folds" in caplog.text
    assert folds_of(1).groups is None
    assert folds_of(1, group_by="none").groups is None
    assert caplog.text == ""
    with pytest.raises(PairsError, match=r"1 different captions of 'mine' .*5 folds.*--cv N"):
        folds_of(1, group_by="caption")


def test_folds_by_system_hold_out_a_generator_each() -> None:
    systems = ("a", "b", "c") * 20
    pairs, recipe = (
        pairs_of(list(map(str, range(60))), system=systems),
        recipe_of(group_by="system"),
    )
    folds = held_out_folds(pairs, recipe, n_folds=3)
    held_out = ["".join({systems[row] for row in rows}) for _, rows in folds.rows]
    assert sorted(held_out) == ["a", "b", "c"]
    with pytest.raises(PairsError, match="3 different systems of 'mine' .*5 folds by systems"):
        held_out_folds(pairs, recipe)


def test_what_cannot_be_cross_validated_is_told(tmp_path: Path) -> None:
    few = pairs_of(list("abcdefghi"))
    with pytest.raises(
        PairsError, match=r"9 pairs of 'mine' .* 5 folds, which takes 10.*n_folds=N"
    ):
        cross_validate(few, recipe_of(), store=tmp_path)
    with pytest.raises(PairsError, match="'mine' has no scores"):
        cross_validate(replace(few, scores=None), recipe_of(), store=tmp_path)
    with pytest.raises(StackingError, match="n_folds"):
        cross_validate(few, recipe_of(), n_folds=1, store=tmp_path)
    blank = pairs_of(list("abcdefghijk"), group=("x", None, float("nan"), " ", *"abcdefg"))
    with pytest.raises(PairsError, match=r"3 pair\(s\) have a blank group.*\n.*1.wav"):
        cross_validate(blank, recipe_of(), store=tmp_path)


def test_the_gain_of_the_last_step_is_paired(pairs: Pairs, tmp_path: Path) -> None:
    found = cross_validate(pairs, recipe_of(group_by="none"), store=tmp_path, n_folds=2)
    assert found.learning_curve.n_training_pairs == (30,)
    assert found.learning_curve.last_gain is None
    found = cross_validate(pairs, recipe_of(group_by="none"), store=tmp_path, n_folds=5)
    few, many = found.learning_curve.srcc
    assert found.learning_curve.last_gain.value == pytest.approx(many.value - few.value)
    assert srcc_gain(pairs.scores, found.scores, found.scores).value == 0
