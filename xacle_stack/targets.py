"""What a fit takes beside the features: scores, their weights, and what the folds hold out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xacle_stack._types import FloatArray
from xacle_stack.errors import PairsError, bullet_list
from xacle_stack.listeners import ListenerModel
from xacle_stack.pairs import MAX_SCORE, MIN_SCORE, Pairs
from xacle_stack.recipe import Recipe

logger = logging.getLogger(__name__)

# With fewer, what a fold is trained on says little about the captions held out: the out-of-fold
# predictions can run against the scores, and the stack learns to turn them round.
MIN_CAPTIONS_A_FOLD = 10


@dataclass(frozen=True, eq=False)
class Targets:
    """What pairs are trained with.

    Attributes
    ----------
    scores : ndarray of shape (n_pairs,)
    sample_weight : ndarray of shape (n_pairs,), optional
        None where all pairs count alike.
    """

    scores: FloatArray
    sample_weight: FloatArray | None = None


def training_targets(pairs: Pairs, recipe: Recipe) -> Targets:
    """Return what a recipe trains with on some pairs.

    The scores are the mean ratings, or with ``listener_model`` in the recipe what a
    :class:`~xacle_stack.ListenerModel` makes of the single ratings, weighted by how sure it is.

    Raises
    ------
    PairsError
        If the pairs have no scores, or the recipe asks for a listener model and a pair has no
        rating.
    """
    if pairs.scores is None:
        raise PairsError(f"the split {pairs.split!r} has no scores to fit on.")
    if recipe.listener_model is None:
        return Targets(pairs.scores)
    ratings = pairs.ratings
    if ratings is None:
        raise PairsError(
            f"listener_model in the recipe needs the rating of every listener, and the "
            f"split {pairs.split!r} has only average scores. Add meta_data/{pairs.split}.csv "
            "with wav_file_name,text,score,listener_id, or leave listener_model out."
        )
    settings = {"score_range": (MIN_SCORE, MAX_SCORE), **recipe.listener_model.parameters}
    model = ListenerModel(**settings)
    try:
        model.fit(ratings.pair_ids, ratings.listener_ids, ratings.scores)
        return Targets(model.scores_for(pairs.ids), model.weights_for(pairs.ids))
    except PairsError as error:
        raise PairsError(f"listener_model in the recipe, split {pairs.split!r}: {error}") from None


def training_set(
    splits: Mapping[str, Pairs], name: str | None = None, *, source: object = "the data"
) -> str:
    """Return which set is trained on: the one of that name, else train, else the only one.

    Parameters
    ----------
    splits : mapping of str to Pairs
    name : str, optional
    source : object, default="the data"
        What the error says of where the sets are from.

    Raises
    ------
    PairsError
        If there is no such set, several sets of which none is called train, or it has no scores.
    """
    chosen = name or ("train" if "train" in splits or len(splits) != 1 else next(iter(splits)))
    if chosen in splits and splits[chosen].scores is not None:
        return chosen
    rated = [other for other, pairs in splits.items() if pairs.scores is not None]
    problem = "it has no scores" if chosen in splits else "there is no such set"
    raise PairsError(
        f"{source}: the train set would be {chosen!r}, but {problem}. The sets with scores are "
        f"{rated}. Name the one to fit on (--train NAME; in Python train=NAME)."
    )


def labels_to_hold_out(pairs: Pairs, group_by: str) -> Sequence[str] | None:
    """Return each pair's label in the folds: its caption, `group` or `system`, or None.

    Parameters
    ----------
    pairs : Pairs
    group_by : {"auto", "caption", "group", "system", "none"}
        "auto" takes the column `group` where the pairs have one, else the captions.  "none" gives
        None, for plain folds.

    Raises
    ------
    PairsError
        If they have no column of the name that is asked for, or a pair's value in it is blank.
    """
    if group_by == "none":
        return None
    name = "group" if group_by == "auto" else group_by
    column = pairs.columns.get(name)
    if group_by == "caption" or (group_by == "auto" and column is None):
        return pairs.captions
    if column is None:
        raise PairsError(
            f'the set {pairs.split!r} has no column "{name}", which group_by = "{name}" under '
            '[stacker] in the recipe asks for. Add the column, or set group_by = "caption".'
        )
    labels = ["" if label is None or label != label else str(label).strip() for label in column]
    blank = [pair_id for pair_id, label in zip(pairs.ids, labels, strict=True) if not label]
    if blank:
        raise PairsError(
            f"the set {pairs.split!r}: {len(blank)} pair(s) have a blank {name}. Give each one a "
            f"{name}; one that belongs to no other needs one of its own:\n{bullet_list(blank)}"
        )
    return labels


def fold_groups(
    pairs: Pairs, recipe: Recipe, regressor: Any, *, warns: bool = True
) -> Sequence[str] | None:
    """Return what a regressor's folds keep together: groups or captions, or None for plain folds.

    A regressor without the property `n_folds` holds a few out once, for which any number is enough.
    """
    labels = labels_to_hold_out(pairs, recipe.stacker.group_by)
    n_folds = getattr(regressor, "n_folds", None)
    if labels is None or n_folds is None:
        return labels
    n_labels = len(set(labels))
    n_needed = MIN_CAPTIONS_A_FOLD * n_folds
    if recipe.stacker.group_by == "auto" and n_labels < n_needed:
        if warns:
            what = "captions" if labels is pairs.captions else "groups"
            logger.warning(
                "only %d different %s: too few to hold some of them out (that takes %d), so the "
                "system's own folds are plain; its out-of-fold scores then speak of these %s only. "
                'Set group_by = "%s" under [stacker] in the recipe to hold them out anyway.',
                n_labels,
                what,
                n_needed,
                what,
                what.removesuffix("s"),
            )
        return None
    return labels
