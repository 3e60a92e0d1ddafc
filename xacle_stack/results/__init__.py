"""Results of systems: one record, one table and one style of plots."""

from xacle_stack.results.plots import (
    plot_difference,
    plot_srcc,
    plot_srcc_and_mse,
    plot_two_splits,
    write_plots,
)
from xacle_stack.results.published import PUBLISHED, published_for
from xacle_stack.results.record import Result, by_split, reference_of, splits_with_scores
from xacle_stack.results.scored import ScoredPairs
from xacle_stack.results.table import ResultsTable, write_tables

__all__ = [
    "PUBLISHED",
    "Result",
    "ResultsTable",
    "ScoredPairs",
    "by_split",
    "plot_difference",
    "plot_srcc",
    "plot_srcc_and_mse",
    "plot_two_splits",
    "published_for",
    "reference_of",
    "splits_with_scores",
    "write_plots",
    "write_tables",
]
