"""``xacle-stack score --method cosine``: scores without ratings, and what they are relative to."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from xacle_stack.cli.show import console

if TYPE_CHECKING:
    from xacle_stack.results.scored import ScoredPairs
    from xacle_stack.scorer import Scorer


def print_scale(scorer: "Scorer", scored: "ScoredPairs", reference: Path | None) -> None:
    """Print what each space's cosines are, with which checkpoint, and where the scale is from."""
    regressor: Any = scorer.regressor_
    table = Table("space", "checkpoint", "fingerprint", box=box.SIMPLE_HEAD)
    for name in ("mean cosine", "mismatched", "SD", "AUC"):
        table.add_column(name, justify="right")
    columns = (regressor.mismatched_means_, regressor.mismatched_sds_, regressor.aucs_)
    for choice, *figures in zip(scorer.recipe.encoders, *columns, strict=True):
        info = choice.info
        own = scored.parts[f"cosine of {info.name}"].mean()
        table.add_row(
            info.name,
            choice.checkpoint_name,
            scorer.fingerprints_[info.name],
            *(f"{figure:.3f}" for figure in (own, *figures)),
        )
    table.add_row("mean of all", "", "", "", "", "", f"{regressor.auc_:.3f}")
    console.print(table)
    console.print(
        f"Mean cosine of the {len(scored)} scored pairs; mean and standard deviation of "
        f"{regressor.n_mismatched_} mismatched pairs of the reference; AUC: how often one of the "
        "reference's own pairs has the higher cosine.",
        soft_wrap=True,
    )
    if reference is None:
        console.print(
            "The scale is relative to this set: its own clips and captions, mismatched, are 0, and "
            "its best pairs are 10. Scores of other sets are comparable only with the same "
            "--reference for all; the cosines are comparable anyway.",
            soft_wrap=True,
        )
    else:
        console.print(f"The scale is that of the reference {reference}.", soft_wrap=True)
