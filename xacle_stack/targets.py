"""What a fit takes beside the features: scores, their weights, and what the folds hold out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xacle_stack._types import FloatArray
from xacle_stack.errors import PairsError
from xacle_stack.listeners import ListenerModel
from xacle_stack.pairs import MAX_SCORE, MIN_SCORE, Pairs
from xacle_stack.recipe import Recipe
from xacle_stack.stacking import Stacker

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

    The scores are the mean ratings, or with ``listener_model = true`` what a
    :class:`~xacle_stack.ListenerModel` makes of the single ratings, weighted by how sure it is.

    Raises
    ------
    PairsError
        If the pairs have no scores, or the recipe asks for a listener model and a pair has no
        rating.
    """
    if pairs.scores is None:
        raise PairsError(f"the split {pairs.split!r} has no scores to fit on.")
    if not recipe.listener_model:
        return Targets(pairs.scores)
    ratings = pairs.ratings
    if ratings is None:
        raise PairsError(
            f"listener_model = true in the recipe needs the rating of every listener, and the "
            f"split {pairs.split!r} has only average scores. Add meta_data/{pairs.split}.csv "
            "with wav_file_name,text,score,listener_id, or leave listener_model out."
        )
    model = ListenerModel(score_range=(MIN_SCORE, MAX_SCORE))
    try:
        model.fit(ratings.pair_ids, ratings.listener_ids, ratings.scores)
        return Targets(model.scores_for(pairs.ids), model.weights_for(pairs.ids))
    except PairsError as error:
        raise PairsError(
            f"listener_model = true in the recipe, split {pairs.split!r}: {error}"
        ) from None


def fold_groups(pairs: Pairs, recipe: Recipe, regressor: Any) -> Sequence[str] | None:
    """Return what a regressor's folds keep together: the captions, or None for plain folds.

    A regressor that is no stacker holds a few captions out once, for which any number is enough.
    """
    if recipe.stacker.group_by == "none":
        return None
    if not isinstance(regressor, Stacker):
        return pairs.captions
    n_captions = len(set(pairs.captions))
    n_needed = MIN_CAPTIONS_A_FOLD * regressor.n_folds
    if recipe.stacker.group_by == "auto" and n_captions < n_needed:
        logger.warning(
            "only %d different captions: too few to hold some of them out (that takes %d), so "
            "plain folds are used; out-of-fold scores then speak of these captions only. "
            'Set group_by = "caption" under [stacker] in the recipe to hold them out anyway.',
            n_captions,
            n_needed,
        )
        return None
    return pairs.captions
