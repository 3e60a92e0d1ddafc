"""Results of systems: one record, one table and one style of plots."""

from xacle_stack.results.learning_curve import LearningCurve
from xacle_stack.results.plots import (
    draw_plots,
    plot_difference,
    plot_human_and_predicted,
    plot_learning_curve,
    plot_srcc,
    plot_srcc_and_mse,
    plot_two_splits,
    svg_of,
    write_plots,
)
from xacle_stack.results.published import PUBLISHED, published_for
from xacle_stack.results.record import (
    CROSS_VALIDATION,
    Result,
    by_split,
    reference_of,
    splits_with_scores,
)
from xacle_stack.results.scored import ScoredPairs
from xacle_stack.results.table import ResultsTable, write_tables

__all__ = [
    "CROSS_VALIDATION",
    "PUBLISHED",
    "LearningCurve",
    "Result",
    "ResultsTable",
    "ScoredPairs",
    "by_split",
    "draw_plots",
    "plot_difference",
    "plot_human_and_predicted",
    "plot_learning_curve",
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
