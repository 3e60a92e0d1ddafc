"""All systems of a recipe on one data set, in one table."""

from xacle_stack.comparison.plots import write_plots
from xacle_stack.comparison.run import ComparedSystem, compare_systems
from xacle_stack.comparison.tables import cell, splits_of, write_comparison

__all__ = [
    "ComparedSystem",
    "cell",
    "compare_systems",
    "splits_of",
    "write_comparison",
    "write_plots",
]
