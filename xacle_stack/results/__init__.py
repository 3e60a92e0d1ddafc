"""Results of systems: one record, one table and one style of plots."""

from xacle_stack.results.plots import (
    draw_plots,
    plot_difference,
    plot_human_and_predicted,
    plot_srcc,
    plot_srcc_and_mse,
    plot_two_splits,
    svg_of,
    write_plots,
)
from xacle_stack.results.published import PUBLISHED, published_for
from xacle_stack.results.record import Result, by_split, reference_of, splits_with_scores
from xacle_stack.results.table import ResultsTable, write_tables

__all__ = [
    "PUBLISHED",
    "Result",
    "ResultsTable",
    "by_split",
    "draw_plots",
    "plot_difference",
    "plot_human_and_predicted",
    "plot_srcc",
    "plot_srcc_and_mse",
    "plot_two_splits",
    "published_for",
    "reference_of",
    "splits_with_scores",
    "svg_of",
    "write_plots",
    "write_tables",
]
