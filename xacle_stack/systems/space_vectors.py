"""The clips' and the captions' vectors of a space, found in a feature table by name.

A table has them as the blocks ``"SPACE/audio"`` and ``"SPACE/text"``.  A plain array has no names:
the first half of its columns is the clip's vector and the second half the caption's, and the middle
one of an odd number of columns belongs to both.

An estimator that reads vectors keeps two attributes: `spaces_`, the names of the spaces, empty
where `fit` got a plain array, and `widths_`, the lengths of the clip's and the caption's vector in
each space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import validate_data

from xacle_stack._state_checks import check_width
from xacle_stack._types import FloatArray
from xacle_stack._validation import check_scores
from xacle_stack.errors import ModelFileError, StackingError
from xacle_stack.table import FeatureTable

Vectors = tuple[FloatArray, FloatArray]  # the clips' and the captions', (n_pairs, n_dims) each


def validate_pairs(
    estimator: Any,
    X: FeatureTable | ArrayLike,
    y: ArrayLike | None = None,
    *,
    reset: bool,
    dtype: Any,
) -> tuple[Any, Any]:
    """Check X and y as scikit-learn does; a feature table stays one.

    Parameters
    ----------
    estimator : estimator
    X : FeatureTable or array-like of shape (n_pairs, n_features)
    y : array-like of shape (n_pairs,), optional
        Scores, for `fit` only.
    reset : bool
        Whether this is `fit`, which sets `n_features_in_`; otherwise X is compared with it.
    dtype : dtype or list of dtype
        The types that are kept if X is an array.

    Raises
    ------
    StackingError
        If `fit` got X with names and `predict` without, or the other way round, or the scores of a
        table are not one for each pair.
    """
    if not reset:
        _check_same_kind(estimator, X)
    if isinstance(X, FeatureTable):
        return X, check_scores(y, len(X)) if reset else None
    if not reset:
        return validate_data(estimator, X, reset=False, dtype=dtype), None
    return validate_data(estimator, X, y, y_numeric=True, ensure_min_samples=2, dtype=dtype)


def read_vectors(
    estimator: Any, X: FeatureTable | FloatArray, spaces: Sequence[str] | None, *, reset: bool
) -> list[Vectors]:
    """Return the clips' and the captions' vectors in each space.

    Parameters
    ----------
    estimator : estimator
        With `reset` it learns its `spaces_` and `widths_` here; without, X must agree with them.
    X : FeatureTable or ndarray of shape (n_pairs, n_features)
        What :func:`validate_pairs` has checked.
    spaces : sequence of str or None
        The spaces that the user names.  None stands for all spaces of a table, and an array, which
        has no names, allows nothing else.
    reset : bool

    Raises
    ------
    StackingError
        If blocks are missing, have other widths than in `fit`, or hold values that are not finite.
    """
    if isinstance(X, FeatureTable):
        wanted = spaces_in(X) if spaces is None else spaces
        names = tuple(wanted) if reset else estimator.spaces_
        vectors = [
            (finite_block(X, f"{name}/audio"), finite_block(X, f"{name}/text")) for name in names
        ]
    else:
        if spaces is not None:
            raise StackingError(
                f"{list(spaces)} are spaces of a feature table, but X is an array without names. "
                "Give a FeatureTable, or name no space: then the first half of the columns is the "
                "clip's vector and the second half the caption's."
            )
        names, vectors = (), [split_halves(X)]
    widths = [(audio.shape[1], text.shape[1]) for audio, text in vectors]
    if reset:
        estimator.spaces_, estimator.widths_ = names, widths
        if isinstance(X, FeatureTable):
            estimator.n_features_in_ = sum(map(sum, widths))
    for name, found, fitted in zip(names, widths, estimator.widths_, strict=False):
        if found != fitted:
            raise StackingError(
                f"space {name!r}: vectors of {found} dimensions (clip, caption), {fitted} when "
                "fitted. Use the encoder whose vectors the system was fitted on."
            )
    return vectors


def split_halves(X: FloatArray) -> Vectors:
    """Return the two halves of an array's columns; a middle column belongs to both.

    Examples
    --------
    >>> [half.tolist() for half in split_halves(np.array([[1, 2, 3]]))]
    [[[1, 2]], [[2, 3]]]
    """
    half = (X.shape[1] + 1) // 2
    return X[:, :half], X[:, X.shape[1] - half :]


def read_space(
    estimator: Any, X: FeatureTable | FloatArray, space: str | None, *, reset: bool
) -> Vectors:
    """Return the vectors in one space, as :func:`read_vectors` does for several.

    A StackingError says that no space is named and the table given to `fit` has several.
    """
    if reset and space is None and isinstance(X, FeatureTable):
        known = spaces_in(X)
        if len(known) > 1:
            raise StackingError(
                f"the table has the vectors of {len(known)} spaces: {known}. Say which one to use, "
                f"for example space={known[0]!r}."
            )
    return read_vectors(estimator, X, None if space is None else [space], reset=reset)[0]


def finite_block(table: FeatureTable, name: str) -> FloatArray:
    """Return a block of a table; a StackingError says that it is missing or not finite."""
    if name not in table.blocks:
        raise StackingError(
            f"the table has no block {name!r}; it has the vectors of the spaces "
            f"{spaces_in(table)}. VectorBuilder and FeatureBuilder make such blocks."
        )
    values = table.block(name)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise StackingError(
            f"block {name!r}: the vectors of {len(bad)} pairs are not finite, the first is that of "
            f"{table.pair_ids[bad[0]]!r}. Encode these items again."
        )
    return values


def spaces_in(table: FeatureTable) -> list[str]:
    """Return the spaces whose vectors a table has; a StackingError says that there are none."""
    names = [name.removesuffix("/audio") for name in table.blocks if name.endswith("/audio")]
    spaces = [name for name in names if f"{name}/text" in table.blocks]
    if not spaces:
        raise StackingError(
            "the table has no blocks 'SPACE/audio' and 'SPACE/text', as VectorBuilder and "
            f"FeatureBuilder make them; its blocks are {list(table.blocks)}."
        )
    return spaces


def check_space_setting(space: object) -> None:
    """Check that a setting is the name of a space, or None."""
    if space is not None and not (isinstance(space, str) and space):
        raise StackingError(f"space must be a name such as 'mini-mel', got {space!r}.")


def check_spaces_setting(spaces: object, setting: str = "spaces") -> None:
    """Check that a setting is a list of names of spaces, or None."""
    if spaces is None:
        return
    names = list(spaces) if isinstance(spaces, Sequence) and not isinstance(spaces, str) else []
    if not names or not all(isinstance(name, str) and name for name in names):
        raise StackingError(
            f"{setting} must be a list of names such as ['mini-mel', 'mini-mod'], or None for all, "
            f"got {spaces!r}."
        )
    if len(set(names)) < len(names):
        raise StackingError(f"{setting} must name each space once, got {names!r}.")


def check_vectors_state(estimator: Any) -> None:
    """Check the spaces and the lengths that an estimator from a file has learned."""
    spaces, widths = estimator.spaces_, estimator.widths_
    if not isinstance(spaces, tuple) or not all(isinstance(name, str) for name in spaces):
        raise ModelFileError(f"spaces_ is {spaces!r}, expected a tuple of names.")
    is_listed = isinstance(widths, list) and all(isinstance(pair, tuple) for pair in widths)
    if not is_listed or len(widths) != max(1, len(spaces)) or {len(p) for p in widths} != {2}:
        raise ModelFileError(f"widths_ is {widths!r}, expected a pair of lengths for each space.")
    check_width(sum(check_width(width) for pair in widths for width in pair))


def _check_same_kind(estimator: Any, X: object) -> None:
    spaces = getattr(estimator, "spaces_", ())
    if spaces and not isinstance(X, FeatureTable):
        raise StackingError(
            f"fitted on a feature table, on the spaces {list(spaces)}, but X is a "
            f"{type(X).__name__} without names. Give a FeatureTable with these spaces."
        )
    if not spaces and isinstance(X, FeatureTable):
        raise StackingError(
            "fitted on an array without names, but X is a FeatureTable. Give an array with the "
            "same columns, or fit on a table."
        )
