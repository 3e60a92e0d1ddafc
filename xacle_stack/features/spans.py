"""Checks that named spans of columns fit a table."""

from collections.abc import Mapping
from numbers import Integral

from xacle_stack.errors import FeatureError


def check_cover(what: str, spans: Mapping[str, slice], n_features: int) -> None:
    """Check that spans follow one another from the first column to the last, in any order.

    Examples
    --------
    >>> check_cover("families", {"b": slice(2, 5), "a": slice(0, 2)}, 5)
    >>> check_cover("families", {"b": slice(3, 5), "a": slice(0, 2)}, 5)
    Traceback (most recent call last):
    xacle_stack.errors.FeatureError: families must cover each of the 5 columns once: 'b' begins at
    column 3, where 2 would follow.
    """
    stop = 0
    for name, span in sorted(spans.items(), key=lambda item: _ends(what, *item)):
        if span.start != stop:
            raise FeatureError(
                f"{what} must cover each of the {n_features} columns once: {name!r} begins at "
                f"column {span.start}, where {stop} would follow."
            )
        stop = span.stop
    if stop != n_features or not spans:
        raise FeatureError(
            f"{what} must cover each of the {n_features} columns once: together they have {stop}."
        )


def check_within(blocks: Mapping[str, slice], families: Mapping[str, slice]) -> None:
    """Check that no block reaches from one family into another."""
    for name, block in blocks.items():
        if not any(f.start <= block.start and block.stop <= f.stop for f in families.values()):
            raise FeatureError(
                f"block {name!r} has columns {block.start} to {block.stop - 1}, which are in no "
                f"one family: {dict(families)!r}."
            )


def _ends(what: str, name: str, span: object) -> tuple[int, int]:
    if isinstance(span, slice) and span.step in (None, 1):
        start, stop = span.start, span.stop
        if isinstance(start, Integral) and isinstance(stop, Integral):
            ends = int(start), int(stop)
            if 0 <= ends[0] <= ends[1]:
                return ends
    raise FeatureError(
        f"{what}: expected a slice with a start and a stop, such as slice(0, 3), for {name!r}, got "
        f"{span!r}."
    )
