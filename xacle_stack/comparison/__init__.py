"""All systems of a recipe on one data set, in one table."""

from xacle_stack.comparison.run import compare_systems

__all__ = ["compare_systems"]
