from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import WriteData

from xacle_stack import ListenerModel
from xacle_stack.errors import PairsError
from xacle_stack.pairs import Pairs, Ratings, read_pairs
from xacle_stack.recipe import Recipe, recipe_from
from xacle_stack.targets import fold_groups, labels_to_hold_out, training_set, training_targets


def recipe_of(**settings: object) -> Recipe:
    return recipe_from({"name": "mine", "spaces": ["mini-mel"], **settings}, "a test")


def pairs_of(captions: tuple[str, ...], ratings: Ratings | None = None) -> Pairs:
    ids = tuple(f"{number}.wav" for number in range(len(captions)))
    return Pairs("train", ids, (), captions, np.arange(len(captions)) % 11.0, ratings)


def rated(n_listeners: int) -> Pairs:
    """Forty pairs, each with the ratings of all listeners, of whom every second is lenient."""
    rng = np.random.default_rng(0)
    names = [f"{number}.wav" for number in range(40)]
    true = rng.uniform(2, 7, size=40)
    rows = [(i, j) for i in range(40) for j in range(n_listeners)]
    scores = [true[i] + 2 * (j % 2) + rng.normal(scale=0.3) for i, j in rows]
    of_pairs, of_listeners = [names[i] for i, _ in rows], [f"listener {j}" for _, j in rows]
    return pairs_of(tuple(names), Ratings(tuple(of_pairs), tuple(of_listeners), np.array(scores)))


def test_the_mean_ratings_are_the_usual_scores() -> None:
    pairs = rated(n_listeners=4)
    targets = training_targets(pairs, recipe_of())
    assert targets.scores is pairs.scores
    assert targets.sample_weight is None


def test_a_listener_model_gives_scores_and_weights_in_the_order_of_the_pairs() -> None:
    pairs = rated(n_listeners=4)
    rows = np.random.default_rng(1).permutation(len(pairs.ratings))[:100]
    ids = [pairs.ratings.pair_ids[row] for row in rows]
    listeners = [pairs.ratings.listener_ids[row] for row in rows]
    some = Ratings(tuple(ids), tuple(listeners), pairs.ratings.scores[rows])
    pairs = pairs_of(tuple(sorted(set(ids))), some)
    targets = training_targets(pairs, recipe_of(listener_model=True))
    model = ListenerModel(score_range=(0, 10)).fit(ids, listeners, some.scores)
    np.testing.assert_array_equal(targets.scores, model.scores_for(pairs.ids))
    np.testing.assert_array_equal(targets.sample_weight, model.weights_for(pairs.ids))
    assert np.ptp(targets.sample_weight) > 0  # they have from one to four ratings


def test_a_listener_model_takes_its_settings_from_the_recipe(caplog) -> None:
    pairs = rated(n_listeners=4)
    ratings = pairs.ratings
    ratings.scores[:2] = 0.1, 9.9
    settings = {"biases": False, "noise": False, "standardize": True, "screening": 2.5}
    targets = training_targets(pairs, recipe_of(listener_model=settings))
    model = ListenerModel(score_range=(0, 10), **settings)
    model.fit(ratings.pair_ids, ratings.listener_ids, ratings.scores)
    assert not model.counted_.all()
    np.testing.assert_array_equal(targets.scores, model.scores_for(pairs.ids))
    assert (targets.scores != training_targets(pairs, recipe_of(listener_model=True)).scores).any()
    wide = {"screening": 1e-6}
    training_targets(pairs, recipe_of(listener_model=wide))
    assert "40 of 40 pair(s) have no two ratings within 1e-06 points of each other" in caplog.text


def test_one_listener_leaves_the_scores_as_they_are(caplog) -> None:
    pairs = rated(n_listeners=1)
    targets = training_targets(pairs, recipe_of(listener_model=True))
    np.testing.assert_array_equal(targets.scores, pairs.ratings.scores)
    np.testing.assert_array_equal(targets.sample_weight, 1)
    assert "nobody can tell a good pair from a lenient listener" in caplog.text


def test_ratings_are_needed(make_data: WriteData) -> None:
    data: Path = make_data(train=4)
    (data / "meta_data" / "train.csv").unlink(missing_ok=True)
    with pytest.raises(PairsError, match=r"meta_data/train\.csv .*wav_file_name,text,score"):
        training_targets(read_pairs(data, "train"), recipe_of(listener_model=True))
    pairs = pairs_of(("a", "b"), Ratings(("0.wav",), ("listener",), np.array([3.0])))
    message = "listener_model in the recipe, split 'train': 1 pair.s. have no rating; add"
    with pytest.raises(PairsError, match=message):
        training_targets(pairs, recipe_of(listener_model=True))
    with pytest.raises(PairsError, match="'train' .*no scores"):
        training_targets(Pairs("train", ("a",), (), ("a",)), recipe_of())


def test_captions_are_the_default_groups_where_there_are_enough(caplog) -> None:
    def groups_of(pairs: Pairs, **stacker: object) -> Sequence[str] | None:
        recipe = recipe_of(stacker={"n_splits": 3, **stacker})
        return fold_groups(pairs, recipe, recipe.new_stacker())

    captions = tuple(f"caption {number // 2}" for number in range(60))
    assert groups_of(pairs_of(captions)) == captions
    assert caplog.text == ""
    few = pairs_of(captions[:58])
    assert groups_of(few) is None
    assert "only 29 different captions: too few to hold some of them out" in caplog.text
    assert groups_of(few, group_by="caption") == captions[:58]
    caplog.clear()
    assert groups_of(pairs_of(captions), group_by="none") is None
    assert caplog.text == ""


def test_a_stacker_with_more_folds_needs_more_captions() -> None:
    captions = tuple(f"caption {number}" for number in range(40))
    paper = recipe_of(stacker={"preset": "paper"}).new_stacker()
    best = recipe_of().new_stacker()
    assert fold_groups(pairs_of(captions), recipe_of(), paper) == captions  # three folds
    assert fold_groups(pairs_of(captions), recipe_of(), best) is None  # five


def test_the_column_group_goes_before_the_captions(caplog) -> None:
    captions = tuple(f"caption {number}" for number in range(60))
    column = tuple(number // 2 for number in range(60))
    pairs = replace(pairs_of(captions), columns={"group": column})
    groups = [str(number) for number in column]
    assert labels_to_hold_out(pairs, "auto") == labels_to_hold_out(pairs, "group") == groups
    assert labels_to_hold_out(pairs, "caption") == captions
    assert labels_to_hold_out(pairs, "none") is None
    stacker = recipe_of(stacker={"n_splits": 3}).new_stacker()
    assert fold_groups(pairs, recipe_of(), stacker) == groups
    few = pairs.take(range(40))
    assert fold_groups(few, recipe_of(), stacker) is None
    assert "only 20 different groups" in caplog.text
    with pytest.raises(PairsError, match="'train' has no column .*group"):
        labels_to_hold_out(pairs_of(captions), "group")


def test_generators_are_held_out_if_the_recipe_says_so() -> None:
    captions = tuple(f"caption {number}" for number in range(60))
    generators = tuple(f"generator {number % 6}" for number in range(60))
    pairs = replace(pairs_of(captions), columns={"system": generators})
    assert labels_to_hold_out(pairs, "system") == [*generators]
    assert labels_to_hold_out(pairs, "auto") == captions
    recipe = recipe_of(stacker={"n_splits": 3, "group_by": "system"})
    assert fold_groups(pairs, recipe, recipe.new_stacker()) == [*generators]  # though they are few
    with pytest.raises(PairsError, match='no column "system", .*group_by = "system"'):
        labels_to_hold_out(pairs_of(captions), "system")
    blank = replace(pairs, columns={"system": (" ", *generators[1:])})
    with pytest.raises(PairsError, match=r"1 pair\(s\) have a blank system"):
        labels_to_hold_out(blank, "system")


def test_which_set_is_trained_on() -> None:
    scored, hidden = pairs_of(("a", "b")), Pairs("x", ("a",), (), ("a",))
    assert training_set({"x": hidden, "train": scored}) == "train"
    assert training_set({"mine": scored}) == "mine"
    assert training_set({"mine": scored, "other": hidden}, "mine") == "mine"
    for sets, name, said in (
        ({"mine": scored, "other": scored}, None, r"'train', .*\['mine', 'other'\]"),
        ({"mine": scored, "other": hidden}, "other", r"'other', but it has no scores.*\['mine'\]"),
        ({"mine": hidden}, None, r"'mine', but it has no scores.*\[\]"),
        ({}, None, r"'train', but there is no such set"),
    ):
        with pytest.raises(PairsError, match=said):
            training_set(sets, name)
