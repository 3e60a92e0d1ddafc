"""Which columns of a table are a clip's vectors and which its caption's."""

from collections.abc import Sequence

from xacle_stack.errors import StackingError

# One vector of the clip, or several: augmented views, the first as it is.
AudioColumns = slice | Sequence[slice]


def pair_columns(
    n_columns: int, audio: AudioColumns | None, text: slice | None
) -> tuple[list[slice], slice]:
    """Return the clip's vectors and the caption's.

    Parameters
    ----------
    n_columns : int
        Of the table.
    audio : slice or sequence of slice, optional
    text : slice, optional
        Without either, the clip's vector is the first half of the columns and the caption's the
        second; the middle one of an odd number belongs to both.

    Returns
    -------
    views : list of slice
        Of the clip, one or more, equally many columns each.
    text : slice

    Raises
    ------
    StackingError
        If only one of the two is given, or a slice is empty or goes beyond the table.

    Examples
    --------
    >>> pair_columns(4, None, None)
    ([slice(0, 2, None)], slice(2, 4, None))
    """
    if (audio is None) != (text is None):
        raise StackingError(
            "only one of audio and text says which columns are its own. Give both, or neither: "
            "then the first half of the columns is the clip's and the second the caption's."
        )
    if audio is None or text is None:
        half = (n_columns + 1) // 2
        return [slice(0, half)], slice(n_columns - half, n_columns)
    given = list(audio) if isinstance(audio, Sequence) else [audio]
    views = [_resolved("audio", view, n_columns) for view in given]
    widths = [width(view) for view in views]
    if len(set(widths)) != 1:
        raise StackingError(
            "audio: expected one slice of columns, or several of equal width for augmented views, "
            f"got widths {widths}."
        )
    return views, _resolved("text", text, n_columns)


def check_halves(X: object) -> None:
    """Check that a table whose columns nobody has named may be taken as two halves.

    Raises
    ------
    StackingError
        If it is a feature table, which holds products and agreement features as well.
    """
    # By what it has: a table made by a reloaded module is of another class.
    if hasattr(X, "blocks"):
        vectors = {name: X.blocks[name] for name in X.blocks if name.endswith(("/audio", "/text"))}
        raise StackingError(
            "the halves of a feature table are no clip's and caption's vectors: it holds products, "
            "differences and agreement features as well. Say which columns are (in this one: "
            f"{vectors}), or make a table of vectors alone with SpaceColumns."
        )


def width(columns: slice) -> int:
    """Return how many columns a slice of :func:`pair_columns` has."""
    return int(columns.stop - columns.start)


def _resolved(name: str, columns: object, n_columns: int) -> slice:
    """Return the slice with its start and stop."""
    if not isinstance(columns, slice) or columns.step not in (None, 1):
        raise StackingError(
            f"{name}: expected a slice of columns such as slice(0, 512), got {columns!r}."
        )
    start, stop, _ = columns.indices(n_columns)
    if stop <= start or (columns.stop is not None and columns.stop > n_columns):
        raise StackingError(
            f"{name}: {columns!r} is empty or goes beyond the table, which has "
            f"n_features = {n_columns} columns."
        )
    return slice(start, stop)
