"""The scorer that the options of a command name."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xacle_stack.cli.options import by_name, chosen_recipe
from xacle_stack.errors import PairsError

if TYPE_CHECKING:
    from xacle_stack.pairs import Pairs
    from xacle_stack.scorer import Scorer


def chosen_scorer(
    model: Path | None,
    recipe: str | None,
    *,
    reference: Path | None,
    checkpoint: list[str] | None,
    code: list[str] | None,
    precision: str | None = None,
    max_bytes: int | None = None,
    **settings: Any,
) -> "Scorer":
    """Load a model, or return the label-free scorer of a recipe.

    That scorer is fitted on the reference; without one it is not fitted.  The settings are those of
    a :class:`~xacle_stack.Scorer`.
    """
    from xacle_stack.model_file import MAX_MODEL_BYTES
    from xacle_stack.scorer import Scorer

    if model is not None:
        return Scorer.load(
            model,
            recipe,
            checkpoints=by_name(checkpoint, "--checkpoint"),
            code=by_name(code, "--code"),
            max_bytes=max_bytes or MAX_MODEL_BYTES,
            **settings,
        )
    chosen = chosen_recipe(str(recipe), precision, checkpoint, code)
    scorer = Scorer.label_free(chosen, **settings)
    return scorer if reference is None else scorer.fit(_read_reference(reference))


def _read_reference(data: Path) -> "Pairs":
    """Return the pairs of the training split, or the only ones that there are."""
    from xacle_stack.pairs import list_splits, read_pairs

    splits = list_splits(data)
    if "train" not in splits and len(splits) != 1:
        raise PairsError(
            f"--reference {data}: there is no split 'train' among {splits}. Give a reference with "
            "one set of pairs, or with a split of this name."
        )
    return read_pairs(data, "train" if "train" in splits else splits[0])
