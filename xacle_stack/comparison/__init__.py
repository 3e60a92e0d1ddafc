"""All systems of a recipe on one data set, in one table."""

from xacle_stack.comparison.compared_system import ComparedSystem
from xacle_stack.comparison.plots import write_plots
from xacle_stack.comparison.run import compare_systems
from xacle_stack.comparison.tables import (
    CHOSEN_HERE,
    cell,
    chose_epoch_on,
    ranked,
    shown_name,
    splits_of,
    write_comparison,
)

__all__ = [
    "CHOSEN_HERE",
    "ComparedSystem",
    "cell",
    "chose_epoch_on",
    "compare_systems",
    "ranked",
    "shown_name",
    "splits_of",
    "write_comparison",
    "write_plots",
]
